"""Layer 2: how to make a step. A method is a table; one stepper serves each family of tables.

Every entry of the tables becomes a public class here, so that `de.Tsit5()` exists because
`tableaus/explicit.py` has its text, and for no other reason.
"""

import inspect
from typing import Any, cast

from ..core.keywords import keywords
from .base import Method, Step
from .bdf import BDF
from .dirk import DIRK
from .explicit_rk import ExplicitRK
from .firk import FIRK
from .interpolant import Hermite, Interpolant
from .newton_based import named_solver
from .partitioned import Nystrom, Symplectic
from .rosenbrock import Rosenbrock
from .stage_loop import StagedMethod
from .stochastic_implicit import ImplicitEM
from .stochastic_rk import SRA, SRI, EulerHeun, EulerMaruyama, Milstein, Stochastic
from .stochastic_tableau import StochasticTableau
from .switching import Switching
from .tableau import NystromTableau, RosenbrockTableau, Splitting, Tableau
from .tableaus.dirk import DIRK_TABLES
from .tableaus.explicit import EXPLICIT
from .tableaus.firk import FIRK_TABLES
from .tableaus.partitioned import NYSTROM, SPLITTINGS
from .tableaus.rosenbrock import ROSENBROCK
from .tableaus.stochastic import SRA_TABLES, SRI_TABLES

_FAMILIES = (
    (ExplicitRK, EXPLICIT),
    (Rosenbrock, ROSENBROCK),
    (DIRK, DIRK_TABLES),
    (FIRK, FIRK_TABLES),
    (Symplectic, SPLITTINGS),
    (Nystrom, NYSTROM),
    (SRI, SRI_TABLES),
    (SRA, SRA_TABLES),
)


_WAY_OUT = (
    " Tolerances, dt and controller are given to solve; linear= is of DIRK methods, BDF and "
    "ImplicitEM, such as de.KenCarp4(linear=…)."
)


def _named_method(name: str, family: Any, table: Any) -> type[Method]:
    """The family with its table in place, as a class of its own."""
    known = ("stages",) if StagedMethod in family.__mro__ else ()

    def plain(self: Any, *given: Any, **options: Any) -> None:
        for what in (*(option for option in options if option not in known), *given):
            taken = "stages= alone" if known else "nothing"
            raise TypeError(f"{name} got {what!r}, and takes {taken}.{_WAY_OUT}")
        family.__init__(self, table, **options)

    shown = (lambda self, *, stages=None: None) if known else (lambda self: None)
    plain.__signature__ = inspect.signature(shown)  # pyright: ignore[reportFunctionMemberAccess]
    plain.__name__, plain.__qualname__ = "__init__", f"{name}.__init__"

    def solving(self: Any, *, linear: Any = None) -> None:
        family.__init__(self, table, linear=linear)

    solving.__qualname__ = name
    doc = (
        f"{table.description}\n\n    Order {table.order:g}"
        + (f"({table.embedded_order})" if getattr(table, "embedded_order", None) else "")
        + f", {table.stages} stage{'s' if table.stages > 1 else ''}.\n\n"
        + f"    Reference: {table.reference}.\n\n    Example:\n"
        f"        >>> import diffeq as de\n        >>> de.{name}()\n        {name}()\n"
    )
    body = {
        "__init__": keywords(solving) if family is DIRK else plain,
        "__doc__": doc,
        "__module__": __name__,
        "__repr__": lambda self: f"{name}({_options_of(self)})",
    }
    return cast("type[Method]", type(name, (family,), body))


def _options_of(method: Method) -> str:
    """The options of a named method that are given, as it shows them."""
    stages = getattr(method, "stages", None)
    return named_solver(getattr(method, "linear", None)) if stages is None else f"{stages=}"


METHODS: dict[str, type[Method]] = {
    name: _named_method(name, family, table)
    for family, tables in _FAMILIES
    for name, table in tables.items()
}
METHODS |= {method.__name__: method for method in (EulerMaruyama, EulerHeun, Milstein, ImplicitEM)}
globals().update(METHODS)

__all__ = [  # noqa: PLE0604 - the methods are enumerated
    "BDF",
    "DIRK",
    "FIRK",
    "ExplicitRK",
    "Hermite",
    "Interpolant",
    "METHODS",
    "Method",
    "Nystrom",
    "NystromTableau",
    "Rosenbrock",
    "RosenbrockTableau",
    "SRA",
    "SRI",
    "Splitting",
    "Step",
    "Stochastic",
    "StochasticTableau",
    "Switching",
    "Symplectic",
    "Tableau",
    *METHODS,
]

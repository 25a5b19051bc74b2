"""The base of all problems: a pytree of arrays, with `replace`, and with fields that depend on
args.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, TypeVar

import jax
from jaxtyping import PyTree

from ..closures import flatten_fields, unflatten_fields
from ..core.keywords import keywords

__all__ = ["Problem", "TimeSpan", "data_of", "evaluated"]

type TimeSpan = PyTree
"""(t0, t1), of which an end may be a function of args; or a function of args that returns both."""

P = TypeVar("P", bound="Problem")  # not typing.Self, which beartype refuses outside dataclasses


class Problem:
    """An equation with its data. A pytree whose leaves are all arrays and numbers, so that
    `jax.jit`, `jax.grad` and `jax.vmap` of a function of problems need no filtering. The base of
    all problems, to name in annotations; what `solve` takes are its subclasses.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> isinstance(problem, de.Problem), sorted(jax.tree.leaves(problem))
        (True, [0.0, 1.0, 1.0, 2.0])
    """

    fields: ClassVar[tuple[str, ...]] = ()
    functions: ClassVar[dict[str, str]] = {}  # those that are, and what they are called with
    stochastic: ClassVar[bool] = False
    delayed: ClassVar[bool] = False  # True if it evaluates its past
    is_ode: ClassVar[bool] = False  # True if y' is a function of t, y and args
    is_steady: ClassVar[bool] = False  # True if there is no time in it
    algebraic: ClassVar[bool] = False  # True if there may be equations without y' in it
    has_jumps: ClassVar[bool] = False  # True if it is another equation that jumps at random
    explicit_function: ClassVar[str] = "f"  # the one that explicit steps evaluate, if there are two
    default_implicit: ClassVar[str] = "Rodas5P"  # the default where that is an implicit method
    args: PyTree
    tspan: TimeSpan

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = keywords(cls.__init__)
        jax.tree_util.register_pytree_node(
            cls, cls._flatten, lambda aux, xs: cls._unflatten(aux, xs)
        )

    def _flatten(self) -> tuple[list, Hashable]:
        return flatten_fields(self, self.fields, (*self.functions, "jac"))

    @classmethod
    def _unflatten(cls, structure: Hashable, leaves: Sequence) -> Any:
        self = object.__new__(cls)
        self.__dict__.update(unflatten_fields(structure, leaves))
        return self

    def replace(self: P, **changes: PyTree) -> P:
        """Returns the problem with other fields; unknown names are refused.

        >>> import diffeq as de
        >>> de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0).replace(args=3.0).args
        3.0
        """
        unknown = [name for name in changes if name not in self.fields]
        if unknown:
            raise TypeError(
                f"{type(self).__name__}.replace got {unknown[0]!r}; its fields are "
                f"{', '.join(self.fields)}."
            )
        other = copy.copy(self)
        other.__dict__.update(changes)
        return other

    @property
    def without_jumps(self) -> "Problem":
        """The equation between jumps at random: the problem itself, but for a `JumpProblem`."""
        return self

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_abbreviated(getattr(self, name))}" for name in self.fields)
        return f"{type(self).__name__}({shown})"


def data_of(problem: Problem) -> dict[str, PyTree]:
    """The fields that are no functions: what is known of a problem before anything is traced."""
    names = (n for n in problem.fields if n not in (*problem.functions, "jac"))
    return {name: getattr(problem, name) for name in names}


def _abbreviated(x: PyTree) -> str:
    if callable(x):
        return getattr(x, "__name__", type(x).__name__)
    text = repr(x)
    return text if len(text) < 60 else text[:57] + "…"


def evaluated(value: PyTree, args: PyTree) -> PyTree:
    """`value`, or `value(args)`: y0, tspan and others may be functions of the parameters."""
    is_function = isinstance(value, Callable) and not hasattr(value, "shape")
    return value(args) if is_function else value

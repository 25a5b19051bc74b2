"""Neural networks in differential equations, and the other way round, on JAX."""

import sys as _sys
import typing as _typing

from .core.jax_contracts import check_jax as _check_jax

_check_jax()  # before the first module that relies on what it looks for

from . import datasets, interp, nn, plot, stats, testing, zoo
from . import methods as _methods
from .adjoints import (
    Backsolve,
    Discrete,
    Forward,
    Gauss,
    GradientReport,
    SteadyState,
    check_gradient,
)
from .algebra import ILU0, Banded, Block, Krylov, Sparse
from .consistent import consistent
from .controllers import PI, PID, Controller, Fixed, I, MeanSquare, Verdict
from .core.packing import hold
from .core.status import Status
from .ensemble import solve_ensemble
from .events import AfterStep, Event, Periodic, PresetTimes, doses
from .interp.hold import infusions
from .methods import *  # noqa: F403 - enumerated from the tables
from .methods.interpolant import Polynomial
from .problems import (
    CDEProblem,
    DAEProblem,
    DDEProblem,
    HamiltonianProblem,
    ImplicitDAEProblem,
    Jump,
    JumpProblem,
    ODEProblem,
    Problem,
    SDDEProblem,
    SDEProblem,
    SecondOrderProblem,
    Separable,
    SplitODEProblem,
    SteadyStateProblem,
)
from .solution import Solution, SolveError
from .solve import solve
from .stepping import State, advance, init, step
from .train import (
    Collocation,
    Fit,
    Shooting,
    collocate,
    fit,
    fit_growing,
    fit_starts,
    mse,
    multiple_shooting,
)

__version__ = "0.2.0"

# Names that were public once, and what stands in their place.
_REPLACED = {
    "Interpolating": 'de.Gauss(integral="augmented")',
    "Quadrature": 'de.Gauss(integral="adaptive")',
}

if not _typing.TYPE_CHECKING:  # to a type checker every name would be known

    def __getattr__(name: str) -> _typing.NoReturn:
        message = f"module 'diffeq' has no attribute {name!r}"
        if name in _REPLACED:
            message += f"; {_REPLACED[name]} stands in its place."
        if name == "torch":
            message += ": it is brought in by import diffeq.torch, with the extra torch."
        raise AttributeError(message, name=name, obj=_sys.modules[__name__])


def __dir__() -> list[str]:
    """The public names alone; other parts of the package are imported by theirs."""
    return sorted([*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__"])


__all__ = [  # noqa: PLE0604 - the methods are enumerated
    "ILU0",
    "PI",
    "PID",
    "AfterStep",
    "Backsolve",
    "Banded",
    "Block",
    "CDEProblem",
    "Collocation",
    "Controller",
    "DAEProblem",
    "DDEProblem",
    "Discrete",
    "Event",
    "Fit",
    "Fixed",
    "Forward",
    "Gauss",
    "GradientReport",
    "HamiltonianProblem",
    "ImplicitDAEProblem",
    "I",
    "Jump",
    "JumpProblem",
    "Krylov",
    "MeanSquare",
    "ODEProblem",
    "Periodic",
    "Polynomial",
    "PresetTimes",
    "Problem",
    "SDDEProblem",
    "SDEProblem",
    "SecondOrderProblem",
    "Separable",
    "Shooting",
    "Solution",
    "SolveError",
    "Sparse",
    "SplitODEProblem",
    "State",
    "Status",
    "SteadyState",
    "SteadyStateProblem",
    "Verdict",
    "advance",
    "check_gradient",
    "collocate",
    "consistent",
    "datasets",
    "doses",
    "fit",
    "fit_growing",
    "fit_starts",
    "hold",
    "infusions",
    "init",
    "interp",
    "mse",
    "multiple_shooting",
    "nn",
    "plot",
    "solve",
    "solve_ensemble",
    "stats",
    "step",
    "testing",
    "zoo",
    *_methods.__all__,
]

"""Neural networks in differential equations, and the other way round, on JAX."""

from . import datasets, interp, nn, zoo
from . import methods as _methods
from .adjoint import Discrete
from .control import PI, PID, Controller, Fixed, I, Verdict
from .core.packing import hold
from .core.status import Status
from .events import AfterStep, Event, Periodic, PresetTimes, doses
from .interp.hold import infusions
from .methods import *  # noqa: F403 - enumerated from the tables
from .methods.interpolant import Polynomial
from .problems import (
    HamiltonianProblem,
    ODEProblem,
    Problem,
    SecondOrderProblem,
    Separable,
    SplitODEProblem,
)
from .solution import Solution, SolveError
from .solve import solve
from .stepping import State, advance, init, step
from .train import Fit, fit, mse

__version__ = "0.1.0"

__all__ = [  # noqa: PLE0604 - the methods are enumerated
    "PI",
    "PID",
    "AfterStep",
    "Controller",
    "Discrete",
    "Event",
    "Fit",
    "Fixed",
    "HamiltonianProblem",
    "I",
    "ODEProblem",
    "Periodic",
    "Polynomial",
    "PresetTimes",
    "Problem",
    "SecondOrderProblem",
    "Separable",
    "Solution",
    "SolveError",
    "SplitODEProblem",
    "State",
    "Status",
    "Verdict",
    "advance",
    "datasets",
    "doses",
    "fit",
    "hold",
    "infusions",
    "init",
    "interp",
    "mse",
    "nn",
    "solve",
    "step",
    "zoo",
    *_methods.__all__,
]

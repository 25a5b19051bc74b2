"""Neural networks in differential equations, and the other way round, on JAX."""

from . import datasets, nn, zoo
from . import methods as _methods
from .adjoint import Discrete
from .consistent import consistent
from .control import PI, PID, Controller, Fixed, I, Verdict
from .core.status import Status
from .methods import *  # noqa: F403 - enumerated from the tables
from .methods.interpolant import Polynomial
from .problems import (
    DAEProblem,
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
    "Controller",
    "DAEProblem",
    "Discrete",
    "Fit",
    "Fixed",
    "HamiltonianProblem",
    "I",
    "ODEProblem",
    "Polynomial",
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
    "consistent",
    "datasets",
    "fit",
    "init",
    "mse",
    "nn",
    "solve",
    "step",
    "zoo",
    *_methods.__all__,
]

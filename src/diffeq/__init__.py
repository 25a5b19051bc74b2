"""Neural networks in differential equations, and differential equations in neural networks, on JAX."""

from . import methods as _methods
from .adjoint import Discrete
from .control import PI, PID, Controller, Fixed, I
from .core.status import Status
from .methods import *  # noqa: F403 - enumerated from the tables
from .problems import HamiltonianProblem, ODEProblem, SecondOrderProblem, Separable, SplitODEProblem
from .solution import Solution, SolveError
from .solve import solve

__version__ = "0.1.0"

__all__ = [
    "PI",
    "PID",
    "Controller",
    "Discrete",
    "Fixed",
    "HamiltonianProblem",
    "I",
    "ODEProblem",
    "SecondOrderProblem",
    "Separable",
    "Solution",
    "SolveError",
    "SplitODEProblem",
    "Status",
    "solve",
    *_methods.__all__,
]

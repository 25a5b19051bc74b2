"""Layer 1: what is solved. A problem is an equation with its data; methods see canonical forms."""

from .base import Problem
from .dae import DAEProblem
from .ode import ODEProblem, SplitODEProblem
from .sde import SDEProblem
from .second_order import HamiltonianProblem, SecondOrderProblem, Separable
from .steady import SteadyStateProblem

__all__ = [
    "DAEProblem",
    "HamiltonianProblem",
    "ODEProblem",
    "Problem",
    "SDEProblem",
    "SecondOrderProblem",
    "Separable",
    "SplitODEProblem",
    "SteadyStateProblem",
]

"""Layer 1: what is solved. A problem is an equation with its data; methods see canonical forms."""

from .base import Problem
from .cde import CDEProblem
from .dae import DAEProblem, ImplicitDAEProblem
from .dde import DDEProblem
from .jump import Jump, JumpProblem
from .ode import ODEProblem, SplitODEProblem
from .sdde import SDDEProblem
from .sde import SDEProblem
from .second_order import HamiltonianProblem, SecondOrderProblem, Separable
from .steady_state import SteadyStateProblem

__all__ = [
    "CDEProblem",
    "DAEProblem",
    "DDEProblem",
    "HamiltonianProblem",
    "ImplicitDAEProblem",
    "Jump",
    "JumpProblem",
    "ODEProblem",
    "Problem",
    "SDDEProblem",
    "SDEProblem",
    "SecondOrderProblem",
    "Separable",
    "SplitODEProblem",
    "SteadyStateProblem",
]

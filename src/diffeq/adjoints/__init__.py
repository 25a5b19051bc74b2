"""Layer 5: a derivative for the loop. Nothing below knows that solves are differentiated."""

from .backsolve import Backsolve
from .base import FEATURES, Adjoint, known_adjoints, refusal
from .check_gradient import GradientReport, check_gradient, overridden
from .discrete import Discrete
from .forward import Forward
from .gauss import Gauss
from .steady_state import SteadyState

__all__ = [
    "FEATURES",
    "Adjoint",
    "Backsolve",
    "Discrete",
    "Forward",
    "Gauss",
    "GradientReport",
    "SteadyState",
    "check_gradient",
    "known_adjoints",
    "overridden",
    "refusal",
]

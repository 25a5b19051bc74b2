"""Layer 5: a derivative for the loop. Nothing below knows that solves are differentiated."""

from .backsolve import Backsolve
from .base import Adjoint, known, refusal
from .discrete import Discrete
from .forward import Forward
from .gauss import Gauss
from .interpolating import Interpolating
from .quadrature import Quadrature

__all__ = [
    "Adjoint",
    "Backsolve",
    "Discrete",
    "Forward",
    "Gauss",
    "Interpolating",
    "Quadrature",
    "known",
    "refusal",
]

"""Inputs from tables: functions of time that say where they jump."""

from .cubic import Akima, Cubic, Hermite
from .hold import Hold
from .linear import Linear
from .log_signature import LogSignature, log_signature
from .rectilinear import Rectilinear

__all__ = [
    "Akima",
    "Cubic",
    "Hermite",
    "Hold",
    "Linear",
    "LogSignature",
    "Rectilinear",
    "log_signature",
]

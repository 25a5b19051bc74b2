"""Layer 3: how long the next step is, and whether this one was good enough."""

from .base import Controller, Verdict
from .fixed import Constant, Fixed
from .initial_step import initial_step
from .mean_square import MeanSquare
from .pid import PI, PID, I

__all__ = [
    "PI",
    "PID",
    "Constant",
    "Controller",
    "Fixed",
    "I",
    "MeanSquare",
    "Verdict",
    "initial_step",
]

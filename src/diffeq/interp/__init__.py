"""Inputs from tables: functions of time that say where they jump."""

from .cubic import Akima, Cubic
from .hold import Hold
from .linear import Linear

__all__ = ["Akima", "Cubic", "Hold", "Linear"]

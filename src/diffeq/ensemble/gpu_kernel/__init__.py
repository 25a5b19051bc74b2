"""Scalarises a solve of small arrays for many lanes: every array becomes its single numbers."""

from .interpreter import scalarised
from .large_arrays import LaneArray, Read, Space, View, WritableArray
from .operands import Stored
from .scalar_values import NoKernel

__all__ = [
    "LaneArray",
    "NoKernel",
    "Read",
    "Space",
    "Stored",
    "View",
    "WritableArray",
    "scalarised",
]

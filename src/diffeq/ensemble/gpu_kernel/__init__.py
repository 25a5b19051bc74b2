"""Scalarises a solve of small arrays for many lanes: every array becomes its single numbers."""

from .interpreter import LaneContext, scalarised
from .large_arrays import LaneArray, Read, Space, Stored, View, WritableArray
from .scalar_values import NoKernel

__all__ = [
    "LaneArray",
    "LaneContext",
    "NoKernel",
    "Read",
    "Space",
    "Stored",
    "View",
    "WritableArray",
    "scalarised",
]

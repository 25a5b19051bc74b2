"""Scalarises a solve of small arrays for many lanes: every array becomes its single numbers."""

from .interpreter import Lanes, scalarised
from .large_arrays import Array, Read, Space, Stored, View, Written
from .scalar_values import NoKernel

__all__ = [
    "Array",
    "Lanes",
    "NoKernel",
    "Read",
    "Space",
    "Stored",
    "View",
    "Written",
    "scalarised",
]

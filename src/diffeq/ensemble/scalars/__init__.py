"""A solve of small arrays, rewritten for many lanes: every array becomes its single numbers."""

from .memory import Array, Read, Space, Stored, View, Written
from .run import Lanes, scalarised
from .values import Unscalarisable

__all__ = [
    "Array",
    "Lanes",
    "Read",
    "Space",
    "Stored",
    "Unscalarisable",
    "View",
    "Written",
    "scalarised",
]

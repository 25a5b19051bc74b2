"""Layer 1: random paths. A key is one path, and a path is a function of its key alone."""

from .brownian import Bound, Draw, Drawn, Noise, Silent, Steps
from .counter import exponentials, seed, threefry
from .tree import Tree

__all__ = [
    "Bound",
    "Draw",
    "Drawn",
    "Noise",
    "Silent",
    "Steps",
    "Tree",
    "exponentials",
    "seed",
    "threefry",
]

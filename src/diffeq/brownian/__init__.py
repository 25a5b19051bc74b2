"""Layer 1: random paths. A key is one path, and a path is a function of its key alone."""

from .brownian_tree import Tree
from .counter_rng import exponentials, seed, threefry
from .increments import Bound, Draw, Drawn, Noise, NoNoise, Steps

__all__ = [
    "Bound",
    "Draw",
    "Drawn",
    "NoNoise",
    "Noise",
    "Steps",
    "Tree",
    "exponentials",
    "seed",
    "threefry",
]

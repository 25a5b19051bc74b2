"""Layer 1: random paths. A key is one path, and a path is a function of its key alone."""

from .brownian_tree import Tree
from .counter_rng import exponentials, key_words, threefry
from .increments import Drawn, Noise, StepDraw, StepNoise, Steps

__all__ = [
    "Drawn",
    "Noise",
    "StepDraw",
    "StepNoise",
    "Steps",
    "Tree",
    "exponentials",
    "key_words",
    "threefry",
]

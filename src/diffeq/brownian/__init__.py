"""Layer 1: random paths. A key is one path, and a path is a function of its key alone."""

from .brownian_tree import Tree
from .counter_rng import exponentials, key_words, threefry
from .increments import (
    TICKS,
    Cell,
    Drawn,
    Noise,
    PathPoint,
    StepCell,
    StepDraw,
    StepNoise,
    Steps,
    eighths,
    halve_cell,
)

__all__ = [
    "TICKS",
    "Cell",
    "Drawn",
    "Noise",
    "PathPoint",
    "StepCell",
    "StepDraw",
    "StepNoise",
    "Steps",
    "Tree",
    "eighths",
    "exponentials",
    "halve_cell",
    "key_words",
    "threefry",
]

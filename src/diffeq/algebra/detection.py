"""The pattern of a Jacobian, read from the equations of a function."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..autodiff.component_sets import depends_on
from ..autodiff.jax_internals import trace
from .pattern import Pattern

__all__ = ["detected_pattern"]


def detected_pattern(function: Callable, x: np.ndarray, *others: Any) -> Pattern:
    """The places where ∂f_i/∂x_j of f(x, *others) may differ from zero, for arguments of any
    value.

    >>> found = detected_pattern(lambda x, k: k * x[::-1], np.zeros(3), np.zeros(()))
    >>> list(zip(found.rows.tolist(), found.columns.tolist()))
    [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)]
    """
    rest = len(jax.tree.leaves(others))
    rows, columns = depends_on(trace(function, x, *others), [True, *[False] * rest])
    return Pattern(x.size, rows, columns)

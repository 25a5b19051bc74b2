"""Layer 1: linear systems, Jacobians and roots, for implicit methods."""

from .jacobian import Slopes, jacobian, slopes
from .linear import Factors, factored, solve

__all__ = ["Factors", "Slopes", "factored", "jacobian", "slopes", "solve"]

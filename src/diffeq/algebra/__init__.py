"""Layer 1: linear systems, Jacobians and roots, for implicit methods."""

from .jacobian import jacobian, slopes
from .linear import Factors, factored, solve

__all__ = ["Factors", "factored", "jacobian", "slopes", "solve"]

"""Layer 1: linear systems, Jacobians and roots, for implicit methods."""

from .jacobian import Slopes, identity, jacobian, slopes
from .krylov import Products, check_solver, iterated
from .linear import Factors, factored, solve
from .singular import is_singular, least_condition

__all__ = [
    "Factors",
    "Products",
    "Slopes",
    "check_solver",
    "factored",
    "identity",
    "is_singular",
    "iterated",
    "jacobian",
    "least_condition",
    "slopes",
    "solve",
]

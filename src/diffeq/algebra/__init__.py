"""Layer 1: linear systems, Jacobians and roots, for implicit methods."""

from .jacobian import Slopes, field_derivatives, identity, jacobian
from .krylov import Products, check_solver, solve_iteratively
from .linear import Factors, factored, linear_solve
from .singular import is_singular, least_condition

__all__ = [
    "Factors",
    "Products",
    "Slopes",
    "check_solver",
    "factored",
    "field_derivatives",
    "identity",
    "is_singular",
    "jacobian",
    "least_condition",
    "linear_solve",
    "solve_iteratively",
]

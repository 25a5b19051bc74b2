"""Layer 1: linear systems, Jacobians and roots, for implicit methods."""

from .jacobian import Slopes, field_derivatives, identity, jacobian
from .jacobian_structure import Banded, Block, JacobianStructure, Sparse
from .krylov import Products, check_solver, solve_iteratively
from .linear import AbstractFactors, AbstractMatrix, Factors, factored, linear_solve
from .pattern import Pattern
from .singular import is_singular, least_condition

__all__ = [
    "AbstractFactors",
    "AbstractMatrix",
    "Banded",
    "Block",
    "Factors",
    "JacobianStructure",
    "Pattern",
    "Products",
    "Slopes",
    "Sparse",
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

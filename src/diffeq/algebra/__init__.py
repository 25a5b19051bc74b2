"""Layer 1: linear systems, Jacobians and roots, for implicit methods."""

from .jacobian import Slopes, field_derivatives, identity, jacobian
from .jacobian_structure import Banded, Block, JacobianStructure, Sparse
from .krylov import Products, check_solver, solve_iteratively
from .linear import AbstractFactors, AbstractMatrix, Factors, factored, linear_solve
from .mass_matrix import apply_mass, plus_mass, system_matrix
from .pattern import Pattern
from .preconditioner import ILU0, Krylov, check_linear
from .singular import is_singular, least_condition

__all__ = [
    "ILU0",
    "AbstractFactors",
    "AbstractMatrix",
    "Banded",
    "Block",
    "Factors",
    "JacobianStructure",
    "Krylov",
    "Pattern",
    "Products",
    "Slopes",
    "Sparse",
    "apply_mass",
    "check_linear",
    "check_solver",
    "factored",
    "field_derivatives",
    "identity",
    "is_singular",
    "jacobian",
    "least_condition",
    "linear_solve",
    "plus_mass",
    "solve_iteratively",
    "system_matrix",
]

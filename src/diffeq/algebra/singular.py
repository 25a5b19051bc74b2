"""A test of whether a matrix is singular, however its equations and unknowns are scaled."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Real

from ..core.unequal_numbers import unequal_numbers
from .linear import AbstractMatrix, factored, linear_solve
from .small_lu import LARGEST

__all__ = ["is_singular", "least_condition"]

_TURNS = 16
# How many rounding units may be the backward error of an elimination. Not for each equation: that
# bound is not attained, and a Laplacian of some hundred cells is regular in single precision.
_MARGIN = 30.0


def least_condition(matrix: Inexact[Array, "n n"]) -> Real[Array, ""]:
    """The condition number that is left after the best scaling of rows and columns.

    min κ∞(D A E) over diagonal D and E is ρ(|A⁻¹| |A|), the spectral radius of a product that no
    scaling changes (Bauer, 1963); found by powers, and never below. A triangular matrix has 1, and
    a singular one infinity, or by rounding about 1/ε.

    Reference: bauer1963.

    >>> least_condition(jnp.array([[1e20, 2e20], [3e-20, 4e-20]])) < 30
    Array(True, dtype=bool)
    >>> least_condition(jnp.array([[1.0, 2.0], [2.0, 4.0]]))
    Array(inf, dtype=float32)
    """
    matrix = _balanced(jnp.abs(matrix), matrix)
    inverse = jnp.abs(_inverse(matrix))
    size, ones = jnp.abs(matrix), jnp.ones(len(matrix), matrix.real.dtype)

    def turn(_: int, state: tuple) -> tuple:
        x, log = state
        x = _multiply_vector(inverse, _multiply_vector(size, x))
        largest = jnp.max(x)
        return x / largest, log + jnp.log(largest)

    _, log = lax.fori_loop(0, _TURNS, turn, (ones, jnp.zeros_like(ones[0])))
    radius = jnp.exp(log / _TURNS)
    return jnp.where(jnp.isnan(radius), jnp.inf, radius)


def is_singular(matrix: Inexact[Array, "n n"] | AbstractMatrix) -> Bool[Array, ""]:
    """True if its least condition number is one that rounding alone would leave of a singular
    matrix; False for a matrix that is not finite. Of a matrix that is not written down the inverse
    is not known: it is singular if a solution that is known is not found to half its digits.

    >>> is_singular(jnp.array([[1.0, 2.0], [2.0, 4.0]]))
    Array(True, dtype=bool)
    >>> is_singular(jnp.array([[1.0, 1.0], [1.0, 1.001]]))
    Array(False, dtype=bool)
    """
    if isinstance(matrix, AbstractMatrix):
        return matrix.is_finite() & _misses_known_solution(matrix)
    most = 1 / (_MARGIN * float(jnp.finfo(matrix.dtype).eps))
    return jnp.all(jnp.isfinite(matrix)) & (least_condition(matrix) >= most)


def _misses_known_solution(matrix: AbstractMatrix) -> Bool[Array, ""]:
    """True if A x = b is solved badly for an x that is known. The rows and then
    the columns are scaled to one first: no units change the answer.
    """
    ones = jnp.ones(len(matrix), matrix.dtype)
    inverse = lambda sums: 1 / jnp.where(sums > 0, sums, 1)  # noqa: E731
    matrix = matrix.in_units(inverse(matrix.row_sums(ones)), ones)
    matrix = matrix.in_units(ones, inverse(matrix.column_sums(ones)))
    x = unequal_numbers(len(ones), ones.dtype)
    found = linear_solve(factored(matrix), matrix.times(x))
    return ~(jnp.max(jnp.abs(found - x)) < float(jnp.finfo(x.dtype).eps) ** 0.25)


def _balanced(size: Float[Array, "n n"], matrix: Inexact[Array, "n n"]) -> Array:
    """The matrix with rows and columns whose largest entries are about 1, which is what partial
    pivoting wants.
    """
    for axis in (1, 0):
        largest = jnp.max(size, axis=axis, keepdims=True)
        largest = jnp.where(largest > 0, largest, 1)
        size, matrix = size / largest, matrix / largest
    return matrix


def _inverse(matrix: Array) -> Array:
    """A⁻¹. Small ones by Gauss and Jordan in a loop: it is asked for once in a solve, and straight
    code, or a call of a library in a kernel, would cost more to compile than it is worth.
    """
    n = len(matrix)
    if n > LARGEST:
        return linear_solve(factored(matrix), jnp.eye(n, dtype=matrix.dtype))
    place = jnp.arange(n)

    def turn(k: Array, state: tuple) -> tuple:
        left, right, used = state
        column = jnp.sum(jnp.where(place == k, left, 0), axis=1)
        chosen = place == jnp.argmax(jnp.where(used, -1, jnp.abs(column)))
        pivot = jnp.sum(jnp.where(chosen, column, 0))

        def eliminated(x: Array) -> Array:
            row = jnp.sum(jnp.where(chosen[:, None], x, 0), axis=0) / pivot
            return jnp.where(chosen[:, None], row, x - column[:, None] * row)

        return eliminated(left), eliminated(right), used | chosen

    start = matrix, jnp.eye(n, dtype=matrix.dtype), jnp.zeros(n, bool)
    permutation, right, _ = lax.fori_loop(0, n, turn, start)
    return jnp.sum(permutation[:, :, None] * right[:, None, :], axis=0)


def _multiply_vector(matrix: Array, x: Array) -> Array:
    # A sum of products, where a product of a small matrix could be a call of a library.
    return jnp.sum(matrix * x, axis=1)

"""Linear systems: `factored` factors a matrix once, `linear_solve` solves with it many times.

Small matrices are straight code (`small_lu.py`), larger ones go to LAPACK. `linear_solve` is a
primitive: its derivative is another solve with the same factors, d x = A⁻¹ (d b − d A · x), to
every order, so that nothing is ever differentiated through an elimination; its transpose is the
solve with Aᵀ; and the lanes of a batch stay the last axes.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Inexact, Int, Real

from ..autodiff.batch_last import lanes_last
from ..autodiff.jax_internals import (
    ShapedArray,
    define,
    instantiate,
    is_zero,
    shape_of,
    zero_tangent,
)
from ..autodiff.operand import Operand
from . import small_lu

__all__ = [
    "AbstractFactors",
    "AbstractInverse",
    "AbstractMatrix",
    "Factors",
    "factored",
    "linear_solve",
]


class AbstractMatrix(eqx.Module):
    """The base of square matrices that are no array of all their entries."""

    def scaled(self, factor: Inexact[Array, ""]) -> "AbstractMatrix":
        """The matrix times a number."""
        raise NotImplementedError

    def plus(self, mass: Inexact[Array, "..."] | None) -> "AbstractMatrix":
        """The matrix + a mass matrix: a diagonal, an array of all entries, or None for 1."""
        raise NotImplementedError

    def rows_where(self, flags: Bool[Array, " n"]) -> "AbstractMatrix":
        """The matrix with zeros in all rows but the flagged ones."""
        raise NotImplementedError

    def or_identity(self, condition: Bool[Array, ""]) -> "AbstractMatrix":
        """The matrix, or 1 where the condition holds."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        """That of the entries, which are real."""
        raise NotImplementedError

    def times(self, x: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        """A x."""
        raise NotImplementedError

    def in_units(self, rows: Real[Array, " n"], columns: Real[Array, " n"]) -> "AbstractMatrix":
        """D A E, with the diagonals D of the rows and E of the columns."""
        raise NotImplementedError

    def row_sums(self, weights: Real[Array, " n"]) -> Real[Array, " n"]:
        """|A| w."""
        raise NotImplementedError

    def column_sums(self, weights: Real[Array, " n"]) -> Real[Array, " n"]:
        """|A|ᵀ w."""
        raise NotImplementedError

    def dense(self) -> Inexact[Array, "n n"]:
        """The matrix as an array of all entries."""
        raise NotImplementedError

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows, the columns and the values of the entries that are stored, on the host."""
        raise NotImplementedError

    def is_finite(self) -> Bool[Array, ""]:
        """True if all entries are finite."""
        raise NotImplementedError

    def factored(self) -> "AbstractFactors":
        """The factors of the matrix."""
        raise NotImplementedError


class AbstractFactors(eqx.Module):
    """The base of their factors."""

    def solve(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        """The x with A x = b, with its derivative by A and by b."""
        raise NotImplementedError


class AbstractInverse(eqx.Module):
    """The base of b ↦ A⁻¹ b by factors that are known."""

    def __call__(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        """The x with A x = b, without a derivative by A."""
        raise NotImplementedError

    def transposed(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        """The x with Aᵀ x = b."""
        return jax.linear_transpose(self, shape_of(b))(b)[0]


class Factors(NamedTuple):
    """A matrix, with what solves with it; a pytree of arrays.

    The derivative of a solve is taken by `matrix`: `lu` and `order` pass for constants.
    """

    matrix: Inexact[Array, "n n"]
    lu: Inexact[Array, "n n"]
    order: Int[Array, " n"]


def factored(matrix: Inexact[Array, "n n"] | AbstractMatrix) -> Any:
    """The LU factors of a matrix, with pivoting. A singular one solves to NaN or inf.

    >>> x = linear_solve(factored(jnp.array([[0.0, 2.0], [4.0, 1.0]])), jnp.array([2.0, 5.0]))
    >>> x
    Array([1., 1.], dtype=float32)
    """
    if isinstance(matrix, AbstractMatrix):
        return matrix.factored()
    lu, order = factor_p.bind(lax.stop_gradient(matrix))
    return Factors(matrix, lu, order)


def linear_solve(factors: Factors | AbstractFactors, b: Inexact[Array, "n ..."]) -> Array:
    """The x with A x = b; b is a vector, or where the matrix is an array has columns."""
    if isinstance(factors, AbstractFactors):
        return factors.solve(b)
    matrix, lu, order = factors
    b = jnp.asarray(b, jnp.result_type(b, lu))
    return solve_p.bind(matrix, lu, order, b, transposed=False)[0]


# --- factors --------------------------------------------------------------------------------------


def _factor(matrix: Array) -> tuple[Array, Array]:
    if small_lu.is_small(matrix):
        return small_lu.lu(matrix)

    def by_lapack(matrix: Array) -> tuple[Array, Array]:
        lu, _, order = lax.linalg.lu(matrix)
        return _convert_factors(lu), order

    return _each_lane(by_lapack, matrix.ndim - 2)(matrix)


def _convert_factors(lu: Array) -> Array:
    """From LAPACK's factors to ours, or back. What they look like depends on n alone, for factors
    without lanes may be given some later: where straight code may read them, the diagonal is 1/U.
    """
    if len(lu) > small_lu.LARGEST:
        return lu
    return jnp.where(jnp.eye(len(lu), dtype=bool), 1 / lu, lu)


def _each_lane(function: Callable, lanes: int) -> Callable:
    """The function of arrays without lanes for each of the lanes, which are trailing axes."""
    return reduce(lambda f, _: jax.vmap(f, in_axes=-1, out_axes=-1), range(lanes), function)


def _factor_batch(size: int, xs: Sequence, axes: Sequence) -> tuple[list, list]:
    out = factor_p.bind(lanes_last(xs[0], axes[0], size))
    return out, [x.ndim - 1 for x in out]


factor_p = define(
    "lu_factor",
    _factor,
    lambda matrix: [
        ShapedArray(matrix.shape, matrix.dtype),
        ShapedArray(matrix.shape[1:], jnp.int32),
    ],
    batch=_factor_batch,
)


# --- solving --------------------------------------------------------------------------------------


def _solve_columns(matrix: Array, lu: Array, order: Array, b: Array, *, transposed: bool) -> list:
    """Columns of b, if any, are the axes between its first and its lanes."""
    del matrix
    if small_lu.is_small(lu):
        return [small_lu.lu_solve(lu, order, b, transposed=transposed)]

    def by_lapack(lu: Array, order: Array, b: Array) -> Array:
        lu, columns = _convert_factors(lu), b.reshape(len(b), -1)
        columns = columns if transposed else columns[order]
        for lower in (not transposed, transposed):  # L and then U, or the other way round
            columns = lax.linalg.triangular_solve(
                lu,
                columns,
                left_side=True,
                lower=lower,
                transpose_a=transposed,
                unit_diagonal=lower,
            )
        columns = columns[jnp.argsort(order)] if transposed else columns
        return columns.reshape(b.shape)

    return [_each_lane(by_lapack, lu.ndim - 2)(lu, order, b)]


def _multiply(matrix: Array, x: Array) -> Array:
    """A x, with columns and lanes as in `_solve_columns`."""
    lanes, columns = matrix.shape[2:], x.ndim - 1 - (matrix.ndim - 2)
    wide = matrix.reshape(*matrix.shape[:2], *(1,) * columns, *lanes)
    return jnp.sum(wide * x, axis=1)


def _solve_columns_jvp(
    primals: Sequence, tangents: Sequence, *, transposed: bool
) -> tuple[list, list]:
    matrix, lu, order, _ = primals
    (x,) = solve_p.bind(*primals, transposed=transposed)
    d_matrix, _, _, d_b = tangents
    if is_zero(d_matrix) and is_zero(d_b):
        return [x], [zero_tangent(x)]
    if not is_zero(d_matrix):
        moved = jnp.swapaxes(d_matrix, 0, 1) if transposed else d_matrix
        d_b = instantiate(d_b, x) - _multiply(moved, x)
    return [x], solve_p.bind(matrix, lu, order, d_b, transposed=transposed)


def _solve_transpose(
    cotangents: Sequence,
    matrix: Operand,
    lu: Operand,
    order: Operand,
    b: Operand,
    *,
    transposed: bool,
) -> list:
    del b
    (ct,) = cotangents
    if is_zero(ct):
        return [None] * 4
    return [None, None, None, *solve_p.bind(matrix, lu, order, ct, transposed=not transposed)]


def _solve_batch(
    size: int, xs: Sequence, axes: Sequence, *, transposed: bool
) -> tuple[list, list[int]]:
    if all(axis is None for axis in axes[:3]):  # the same matrix for all: more columns
        place = xs[3].ndim - 1 if xs[1].ndim == 2 else 1
        b = jnp.moveaxis(xs[3], axes[3], place)
        return solve_p.bind(*xs[:3], b, transposed=transposed), [place]
    wide = [lanes_last(x, axis, size, force=True) for x, axis in zip(xs, axes, strict=True)]
    out = solve_p.bind(*wide, transposed=transposed)
    return out, [out[0].ndim - 1]


solve_p = define(
    "lu_solve",
    _solve_columns,
    lambda matrix, lu, order, b, *, transposed: [ShapedArray(b.shape, b.dtype)],
    jvp=_solve_columns_jvp,
    transpose=_solve_transpose,
    batch=_solve_batch,
)

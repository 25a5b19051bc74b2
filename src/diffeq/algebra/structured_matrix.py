"""A matrix that stores the entries of a structure, and its factors."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Inexact, Real

from .jacobian_structure import JacobianStructure
from .linear import AbstractFactors, AbstractInverse, AbstractMatrix

__all__ = ["StructuredMatrix", "structured_jacobian"]


class StructuredMatrix(AbstractMatrix):
    """An n×n matrix of which the values in a structure are stored, and no others."""

    values: Inexact[Array, "..."]
    structure: JacobianStructure = eqx.field(static=True)
    n: int = eqx.field(static=True)

    def __len__(self) -> int:
        return self.n

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.values.dtype)

    def _of(self, values: Array) -> "StructuredMatrix":
        return StructuredMatrix(values, self.structure, self.n)

    def scaled(self, factor: Array) -> "StructuredMatrix":
        return self._of(factor * self.values)

    def plus(self, mass: Array | None) -> "StructuredMatrix":
        if mass is not None and mass.ndim == 2:
            return self._of(self.values + self.structure.picked(mass))
        diagonal = jnp.ones(self.n, self.values.dtype) if mass is None else mass
        return self._of(self.structure.with_diagonal(self.values, diagonal))

    def rows_where(self, flags: Bool[Array, " n"]) -> "StructuredMatrix":
        return self._of(self.structure.rows_where(flags, self.values))

    def or_identity(self, condition: Bool[Array, ""]) -> "StructuredMatrix":
        unit = self._of(jnp.zeros_like(self.values)).plus(None)
        return self._of(jnp.where(condition, unit.values, self.values))

    def times(self, x: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        return self.structure.times(self.values, x)

    def in_units(self, rows: Real[Array, " n"], columns: Real[Array, " n"]) -> "StructuredMatrix":
        i, j = self.structure.entries(self.n)
        return self._of((rows[i] * columns[j]).reshape(self.values.shape) * self.values)

    def row_sums(self, weights: Real[Array, " n"]) -> Real[Array, " n"]:
        return self.structure.times(jnp.abs(self.values), weights)

    def column_sums(self, weights: Real[Array, " n"]) -> Real[Array, " n"]:
        return jax.linear_transpose(self.row_sums, weights)(weights)[0]

    def dense(self) -> Inexact[Array, "n n"]:
        return self.structure.dense(self.values, self.n)

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, columns = self.structure.entries(self.n)
        inside = rows >= 0
        return rows[inside], columns[inside], np.asarray(self.values).ravel()[inside]

    def is_finite(self) -> Bool[Array, ""]:
        return jnp.all(jnp.isfinite(self.values))

    def factored(self) -> "StructuredFactors":
        return StructuredFactors(self, self.structure.factored(lax.stop_gradient(self.values)))


class StructuredFactors(AbstractFactors):
    """A structured matrix, with what solves with it: a function that is linear in the right side,
    and a constant of the derivative, as `Factors.lu` is.
    """

    matrix: StructuredMatrix
    inverse: AbstractInverse

    def solve(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        matrix, inverse = self.matrix, lax.stop_gradient(self.inverse)
        b = jnp.asarray(b, jnp.result_type(b, matrix.values))

        return lax.custom_linear_solve(
            matrix.times,
            b,
            solve=lambda _, b: inverse(b),
            transpose_solve=lambda _, b: inverse.transposed(b),
        )


def structured_jacobian(
    push: Callable, structure: JacobianStructure, like: Inexact[Array, " n"]
) -> StructuredMatrix:
    """The matrix of a linear map v ↦ A v with this structure, from a few products.

    >>> from diffeq.algebra import Banded
    >>> push = lambda v: 2 * v + jnp.pad(v, (1, 0))[:-1]
    >>> structured_jacobian(push, Banded(1, 0), jnp.zeros(3)).dense().tolist()
    [[2.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]
    """
    return StructuredMatrix(structure.of_map(push, like), structure, like.size)

"""LU of a sparse matrix by SuperLU, called on the host from inside of a program.

The order of the rows and columns is found once for a pattern. A call with the values of a matrix
factors it, keeps the factors on the host and returns their number; a call with that number and a
right side solves with them. Factors that are no longer kept (those of matrices long ago) are made
again from the values, so that a result never depends on what is kept.

SuperLU comes with SciPy, on which JAX depends. It chooses pivots among the entries of a column, the
diagonal one where that is not smaller than a tenth of the largest.

Reference: demmel1999.
"""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial
from itertools import count
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int

from .linear import AbstractInverse
from .pattern import Pattern

__all__ = ["SparseInverse", "factor_entries", "sparse_lu"]

_MOST = 10_000_000  # numbers in all factors that are kept, but for the last two matrices
_PIVOT = 0.1  # of the largest entry of a column: so large a diagonal one is taken
_NUMBERS, _HALF = 2**31 - 1, 2**16


class SparseInverse(AbstractInverse):
    """b ↦ A⁻¹ b by the factors of that number on the host; `values` are those of the matrix."""

    values: Inexact[Array, " k"]
    number: Int[Array, ""]
    pattern: Pattern = eqx.field(static=True)

    def __call__(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        return self._solved(b, transposed=False)

    def transposed(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        return self._solved(b, transposed=True)

    def _solved(self, b: Array, *, transposed: bool) -> Array:
        # One array, for each costs a call as much as the solution of some hundred equations; and
        # the number in two, for one of single precision has 24 bits.
        number = jnp.stack(jnp.divmod(self.number, _HALF)).astype(b.dtype)
        return jax.pure_callback(
            partial(_solve_on_host, self.pattern, transposed),
            jax.ShapeDtypeStruct(b.shape, b.dtype),
            jnp.concatenate([number, b, self.values]),
            vmap_method="sequential",
        )


def sparse_lu(pattern: Pattern, values: Inexact[Array, " k"]) -> SparseInverse:
    """The factors of the matrix with these values in the places of the pattern. A singular one, or
    one that is not finite, solves to NaN.

    >>> pattern = Pattern(2, np.array([0]), np.array([1]))
    >>> sparse_lu(pattern, jnp.array([2.0, 1.0, 4.0]))(jnp.array([4.0, 8.0]))
    Array([1., 2.], dtype=float32)
    """
    number = jax.pure_callback(
        partial(_factor_on_host, pattern),
        jax.ShapeDtypeStruct((), jnp.int32),
        values,
        vmap_method="sequential",
    )
    return SparseInverse(values, number, pattern)


class _Order(NamedTuple):
    """The order of rows and columns of a pattern; the matrix in that order, with the numbers of its
    values, the `sources`; the options of SuperLU; and the number of entries of the factors.
    """

    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    sources: Int[np.ndarray, " k"]
    indices: Int[np.ndarray, " k"]
    starts: Int[np.ndarray, " m"]
    options: dict
    size: int

    def factored(self, values: np.ndarray) -> Any:
        """The factors, or None of a matrix that is singular or not finite."""
        from scipy.sparse import csc_array
        from scipy.sparse.linalg import splu

        if not np.isfinite(values).all():
            return None
        n = len(self.rows)
        matrix = csc_array((values[self.sources], self.indices, self.starts), (n, n))
        try:
            return splu(matrix, permc_spec="NATURAL", **self.options)
        except RuntimeError:  # exactly singular
            return None


def factor_entries(pattern: Pattern) -> int:
    """The number of entries of the factors of a matrix with this pattern.

    >>> line = np.arange(3)
    >>> factor_entries(Pattern(4, line + 1, line))  # that, and the two diagonals
    11
    """
    return _order_of(pattern).size


@lru_cache(maxsize=32)
def _order_of(pattern: Pattern) -> _Order:
    """The better one of two orders: minimum degree on A + Aᵀ, with pivots on the diagonal where
    they can be, and approximate minimum degree on AᵀA.
    """
    symmetric = {"diag_pivot_thresh": _PIVOT, "options": {"SymmetricMode": True}}
    found = [
        _ordered(pattern, "MMD_AT_PLUS_A", symmetric),
        _ordered(pattern, "COLAMD", {}),
    ]
    return min(found, key=lambda one: one.size)


def _ordered(pattern: Pattern, kind: str, options: dict) -> _Order:
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    n, rows, columns = pattern.n, pattern.rows, pattern.columns
    values = np.random.default_rng(0).uniform(0.5, 1.0, len(rows))
    values[pattern.diagonal] += np.bincount(rows, minlength=n).max()
    trial = splu(csc_array((values, (rows, columns)), (n, n)), permc_spec=kind, **options)
    place = trial.perm_c  # where each column goes
    own = np.argsort(place)
    of_rows = own if options else np.arange(n)
    row_place = place if options else np.arange(n)
    order = np.lexsort((row_place[rows], place[columns]))
    starts = np.searchsorted(place[columns][order], np.arange(n + 1))
    indices = row_place[rows][order].astype(np.int32)
    size = trial.L.nnz + trial.U.nnz
    return _Order(of_rows, own, order, indices, starts.astype(np.int32), options, size)


class _Kept:
    """The factors that are kept on the host, by their numbers; all of it in one thread."""

    def __init__(self) -> None:
        self.numbers = count()
        self.factors: OrderedDict[int, Any] = OrderedDict()
        self.size = 0

    def factor(self, pattern: Pattern, values: np.ndarray) -> int:
        """Keeps the factors of a matrix, as the last ones, and returns their number."""
        factors, number = _order_of(pattern).factored(values), next(self.numbers) % _NUMBERS
        self.factors[number] = factors
        self.size += _size_of(factors)
        while self.size > _MOST and len(self.factors) > 2:
            self.size -= _size_of(self.factors.popitem(last=False)[1])
        return number

    def solve(
        self, pattern: Pattern, values: np.ndarray, number: int, right: np.ndarray, transposed: bool
    ) -> np.ndarray:
        """The solution by the factors of that number, or by new ones."""
        order = _order_of(pattern)
        kept = number in self.factors
        factors = self.factors[number] if kept else order.factored(values)
        if factors is None:
            return np.full_like(right, np.nan)
        first, last = (order.columns, order.rows) if transposed else (order.rows, order.columns)
        x = np.empty_like(right)
        x[last] = factors.solve(right[first], trans="T" if transposed else "N")
        return x


def _size_of(factors: Any) -> int:
    return 0 if factors is None else factors.nnz


_kept = _Kept()


@cache
def _thread_of_factors() -> ThreadPoolExecutor:
    """The thread that makes, uses and forgets all factors: SciPy frees their memory in the thread
    that made them and in no other, and XLA calls from any of its own.
    """
    return ThreadPoolExecutor(1, "sparse_lu")


def _factor_on_host(pattern: Pattern, values: Array) -> np.ndarray:
    number = _thread_of_factors().submit(_kept.factor, pattern, np.asarray(values)).result()
    return np.asarray(number, np.int32)


def _solve_on_host(pattern: Pattern, transposed: bool, packed: Array) -> np.ndarray:
    number, b, values = np.split(np.asarray(packed), [2, 2 + pattern.n])
    high, low = (int(x) for x in np.real(number))
    numbers = values, high * _HALF + low, b
    return _thread_of_factors().submit(_kept.solve, pattern, *numbers, transposed).result()

"""LU of a small matrix as straight code: no library call, no loop.

A call of LAPACK in the body of a loop keeps XLA on a CPU from compiling the loop as one native
function, and takes some twenty times as long as a 3×3 matrix does here. Lanes are trailing axes, so
that a batch is solved by vector code, and a kernel on a GPU needs no memory for it.

XLA computes a value again in each of its uses, unless a barrier prevents it: without one after
each stage of the elimination its work would grow as 2ⁿ, not as n³. Two shapes of code were
fastest. Up to 4×4, and with lanes, each entry is a value of its own, and pivots are found and rows
exchanged by selects. Above, where the code of so many entries would take seconds to compile, a
stage is an operation on the whole matrix.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Int

__all__ = ["LARGEST", "LARGEST_WITH_LANES", "is_small", "lu", "lu_solve"]

# Measured, one Rosenbrock step with its 8 solves (µs, here and by LAPACK): 0.2 and 4.0 for n = 3,
# 1.1 and 6 for n = 8, 2.3 and 7.5 for n = 12, 9 and 10 for n = 20, where it takes 4 s to compile.
# A lane of 1,000: 0.1 and 9 for n = 3, 1.2 and 3.3 for n = 8 (4 s).
_ENTRIES, LARGEST_WITH_LANES, LARGEST = 4, 8, 12

_barrier = lax.optimization_barrier


def is_small(matrix: Inexact[Array, "n n ..."]) -> bool:
    """True if straight code is faster, and compiles in a second or two."""
    return len(matrix) <= (LARGEST_WITH_LANES if matrix.ndim > 2 else LARGEST)


def lu(matrix: Inexact[Array, "n n ..."]) -> tuple[Array, Array]:
    """(entries, order): L − I below the diagonal, 1/u_kk on it, U above; row i of L U is row
    order[i] of the matrix.

    Pivots are the largest entries of their columns. A singular matrix gives infinite entries, and
    NaN in what it solves.

    >>> entries, order = lu(jnp.array([[0.0, 2.0], [4.0, 1.0]]))
    >>> entries, order
    (Array([[0.25, 1.  ],
           [0.  , 0.5 ]], dtype=float32), Array([1, 0], dtype=int32))
    """
    whole = matrix.ndim == 2 and len(matrix) > _ENTRIES
    return _by_rows(matrix) if whole else _by_entries(matrix)


def _by_entries(matrix: Array) -> tuple[Array, Array]:
    """Rows below are compared with the pivot row one by one, and take its place if they have the
    larger entry.
    """
    n, lanes = matrix.shape[0], matrix.shape[2:]
    a = [[matrix[i, j] for j in range(n)] for i in range(n)]
    order = [jnp.full(lanes, i, jnp.int32) for i in range(n)]
    for k in range(n):
        for i in range(k + 1, n):
            larger = _barrier(_pivot_size(a[i][k]) > _pivot_size(a[k][k]))
            a[k], a[i] = _exchanged(larger, a[k], a[i])
            (order[k],), (order[i],) = _exchanged(larger, [order[k]], [order[i]])
        a[k][k] = 1 / a[k][k]
        for i in range(k + 1, n):
            a[i][k] = _barrier(a[i][k] * a[k][k])
            for j in range(k + 1, n):
                a[i][j] = a[i][j] - a[i][k] * a[k][j]
        a = _barrier(a)
    order = _barrier(order) if lanes else order
    return jnp.stack([jnp.stack(row) for row in a]), jnp.stack(order)


def _by_rows(matrix: Array) -> tuple[Array, Array]:
    """A stage exchanges two rows of the matrix and subtracts a product of two vectors from it."""
    n = len(matrix)
    place = jnp.arange(n, dtype=jnp.int32)
    a, order = matrix, place
    for k in range(n):
        if k < n - 1:
            pivot = _barrier(_pivot_place(_pivot_size(a[:, k]), k))
            exchange = jnp.where(place == k, pivot, jnp.where(place == pivot, k, place))
            exchange = _barrier(exchange)
            a, order = _barrier((a[exchange], order[exchange]))
        below, r = place > k, 1 / a[k, k]
        column = jnp.where(below, a[:, k] * r, jnp.where(place == k, r, a[:, k]))
        column = _barrier(column)
        update = jnp.where(below, column, 0)[:, None] * jnp.where(below, a[k], 0)
        a = _barrier(jnp.where(place == k, column[:, None], a - update))
    return a, order


def lu_solve(
    entries: Inexact[Array, "n n ..."],
    order: Int[Array, "n ..."],
    b: Inexact[Array, "n ..."],
    *,
    transposed: bool = False,
) -> Array:
    """The solution of A x = b, or of Aᵀ x = b. b may have columns, before its lanes.

    >>> entries, order = lu(jnp.array([[0.0, 2.0], [4.0, 1.0]]))
    >>> lu_solve(entries, order, jnp.array([2.0, 5.0]))
    Array([1., 1.], dtype=float32)
    """
    n = len(b)
    a = [[entries[i, j] for j in range(n)] for i in range(n)]
    if transposed:
        a = [list(column) for column in zip(*a, strict=True)]
    else:
        b = _permuted(b, order)
    x = _substituted(a, [b[i] for i in range(n)], range(n), divides=transposed)
    x = _substituted(a, x, range(n - 1, -1, -1), divides=not transposed)
    return _unpermuted(jnp.stack(x), order) if transposed else jnp.stack(x)


def _pivot_size(x: Array) -> Array:
    """The size by which pivots are compared; for complex numbers LAPACK's |re| + |im|."""
    return jnp.abs(x.real) + jnp.abs(x.imag) if jnp.iscomplexobj(x) else jnp.abs(x)


def _exchanged(where: Array, above: Sequence, below: Sequence) -> tuple[list, list]:
    """Two rows, in each other's place where it says so."""
    pairs = list(zip(above, below, strict=True))
    return [jnp.where(where, y, x) for x, y in pairs], [jnp.where(where, x, y) for x, y in pairs]


def _pivot_place(sizes: Array, first: int) -> Array:
    """The index of the largest, from `first` on."""
    best, place = sizes[first], jnp.int32(first)
    for i in range(first + 1, len(sizes)):
        larger = sizes[i] > best
        best, place = jnp.where(larger, sizes[i], best), jnp.where(larger, i, place)
    return place


def _permuted(b: Array, order: Array) -> Array:
    """b[order]."""
    n = len(b)
    if order.ndim == 1 and n > _ENTRIES:
        return _barrier(b[order])
    b = _barrier(b) if order.ndim > 1 else b
    return jnp.stack([_select_by_label(order[i], range(n), b) for i in range(n)])


def _unpermuted(x: Array, order: Array) -> Array:
    """The inverse of `_permuted`."""
    n = len(x)
    if order.ndim == 1 and n > _ENTRIES:
        return jnp.zeros_like(x).at[order].set(x, unique_indices=True)
    return jnp.stack([_select_by_label(i, order, x) for i in range(n)])


def _select_by_label(wanted: Array | int, labels: Array | range, values: Array) -> Array:
    """The value whose label is wanted."""
    found = values[0]
    for i in range(1, len(values)):
        found = jnp.where(wanted == labels[i], values[i], found)
    return found


def _substituted(a: Sequence, x: Sequence, turns: Sequence[int], *, divides: bool) -> list:
    """One triangle solved, a component a turn."""
    x = list(x)
    for turn, k in enumerate(turns):
        for j in turns[:turn]:
            x[k] = x[k] - a[k][j] * x[j]
        x[k] = _barrier(x[k] * a[k][k] if divides else x[k])
    return x

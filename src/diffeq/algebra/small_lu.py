"""LU of a small matrix as straight code: no library call, no loop, pivots by selects.

A call of LAPACK in the body of a loop keeps XLA on a CPU from compiling the loop as one native
function, and costs some hundred times what a 3×3 matrix takes. Here every entry is a value of its
own, a number or a vector over lanes (which are the trailing axes), so that a batch is solved by
vector code and a kernel on a GPU needs no memory for it.

XLA computes a value anew in each of its uses, unless it is told not to: without a barrier after
each stage of the elimination its work would grow as 2ⁿ, not as n³.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Int

__all__ = ["lu", "lu_solve"]

_barrier = lax.optimization_barrier


def lu(matrix: Inexact[Array, "n n ..."]) -> tuple[Array, Array]:
    """(entries, order): L − I below the diagonal, 1/u_kk on it, U above; row i of L U is row
    order[i] of the matrix.

    Rows are compared with the pivot row one by one, and change places where they have the larger
    entry: partial pivoting. A singular matrix gives infinite entries, and NaN in what it solves.

    >>> entries, order = lu(jnp.array([[0.0, 2.0], [4.0, 1.0]]))
    >>> entries, order
    (Array([[0.25, 1.  ],
           [0.  , 0.5 ]], dtype=float32), Array([1, 0], dtype=int32))
    """
    n, lanes = matrix.shape[0], matrix.shape[2:]
    a = [[matrix[i, j] for j in range(n)] for i in range(n)]
    order = [jnp.full(lanes, i, jnp.int32) for i in range(n)]
    for k in range(n):
        for i in range(k + 1, n):
            larger = _barrier(_size(a[i][k]) > _size(a[k][k]))
            a[k], a[i] = _exchanged(larger, a[k], a[i])
            (order[k],), (order[i],) = _exchanged(larger, [order[k]], [order[i]])
        a[k][k] = 1 / a[k][k]
        for i in range(k + 1, n):
            a[i][k] = _barrier(a[i][k] * a[k][k])
            for j in range(k + 1, n):
                a[i][j] = a[i][j] - a[i][k] * a[k][j]
        a = _barrier(a)
    return jnp.stack([jnp.stack(row) for row in a]), jnp.stack(order)


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
    x = [b[i] for i in range(n)]
    if transposed:
        a = [list(column) for column in zip(*a, strict=True)]
    else:
        x = [_chosen(order[i], range(n), x) for i in range(n)]
    x = _substituted(a, x, range(n), divides=transposed)
    x = _substituted(a, x, range(n - 1, -1, -1), divides=not transposed)
    if transposed:
        x = [_chosen(jnp.int32(i), order, x) for i in range(n)]
    return jnp.stack(x)


def _size(x: Array) -> Array:
    """What pivots are compared by; for complex numbers LAPACK's |re| + |im|."""
    return jnp.abs(x.real) + jnp.abs(x.imag) if jnp.iscomplexobj(x) else jnp.abs(x)


def _exchanged(where: Array, above: Sequence, below: Sequence) -> tuple[list, list]:
    """Two rows, in each other's place where it says so."""
    pairs = list(zip(above, below, strict=True))
    return [jnp.where(where, y, x) for x, y in pairs], [jnp.where(where, x, y) for x, y in pairs]


def _chosen(wanted: Array, labels: Sequence, values: Sequence) -> Array:
    """The value whose label is wanted."""
    found = values[0]
    for label, value in zip(labels[1:], values[1:], strict=True):
        found = jnp.where(wanted == label, value, found)
    return found


def _substituted(a: Sequence, x: Sequence, turns: Sequence[int], *, divides: bool) -> list:
    """One triangle solved, a component a turn."""
    x = list(x)
    for turn, k in enumerate(turns):
        for j in turns[:turn]:
            x[k] = x[k] - a[k][j] * x[j]
        x[k] = _barrier(x[k] * a[k][k] if divides else x[k])
    return x

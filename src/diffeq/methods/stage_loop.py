"""`stages_in_loop`: the stages of a step in a loop, so that the field is compiled once and not s
times.

Straight code is faster where a field is a few scalar operations. Where it is large, the compiler
takes each copy of it apart once more, and puts each together with its neighbours.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from ..autodiff.dynamic_scan import walk
from ..autodiff.row_buffers import put_row
from ..autodiff.tables import add_row

__all__ = ["blank_stages", "stages_in_loop", "weighted"]


def stages_in_loop(
    stage: Callable, rows: tuple, tables: tuple, *, first: int = 0, carry: PyTree = ()
) -> tuple[tuple, PyTree]:
    """Fills the rows of `tables` from `first` on, which are zeros before: row i with what
    `stage(row, tables, carry)` returns, a tuple of values and the next carry.

    Each of `rows` has an entry for each stage that is computed. A stage may read of the tables what
    is filled, and multiplies the other rows by zero: so its derivative needs no record of them. Nor
    does the derivative of its transpose, as values are added to the rows: the transpose leaves the
    cotangent of a row where it is, while that of a replaced row becomes zero.

    >>> sums = lambda row, tables, carry: ((row[1] + weighted(row[0], tables[0]),), carry)
    >>> rows = (jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.array([1.0, 1.0]))
    >>> stages_in_loop(sums, rows, (jnp.zeros(2),))[0]
    (Array([1., 3.], dtype=float32),)
    """
    count = rows[0].shape[0]

    def turn(
        active: Bool[Array, "..."], row: PyTree, consts: PyTree, state: PyTree, *_: PyTree
    ) -> tuple:
        del active, consts
        i, tables, carry = state
        values, carry = stage(row, tables, carry)
        tables = tuple(add_row(x, v, i) for x, v in zip(tables, values, strict=True))
        return (i + 1, tables, carry), ()

    state = (jnp.int32(first), tables, carry)
    stable = (False, *(True for _ in tables))
    (_, tables, carry), _ = walk(
        turn, 0, count, rows=rows, carry=state, length=count, stable=stable
    )
    return tables, carry


def blank_stages(count: int, like: Array, *known: Array) -> Shaped[Array, "count ..."]:
    """A table of `count` stages, of which the first are `known`."""
    table = jnp.zeros((count, *like.shape), like.dtype)
    for i, value in enumerate(known):
        table = put_row(table, value, jnp.int32(i))
    return table


def weighted(weights: Array, table: Array) -> Array:
    """Σ w_i x_i over the rows of a table; not a product of matrices, which is a library call."""
    return jnp.sum(weights.reshape(-1, *(1,) * (table.ndim - 1)) * table, axis=0)

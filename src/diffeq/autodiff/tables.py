"""Rows that were written before, read at random: `find` one, `pick_row` it, and `add_row` in place.

A delay equation reads its own past: a growing table, one row a step, at rows that its state
chooses. Three primitives keep that cheap under every transformation:

* none of them has the number of rows in its parameters, so that a field traced once works on a
  short table and on a long one. Row i lies at place i modulo the length, if that is a power of two:
  a ring; a table of another length must be long enough;
* lanes stay last under vmap, and a row that all lanes share is one contiguous block;
* the transpose of `pick_row` is a `spread` (zeros, but for a row), and `in_place` makes a sum with
  a `spread` an addition to that row: cotangents go to the rows they were read from, and no table is
  filled with zeros, or copied, for it.

An index may have query axes in front (several rows at a time), which come first in the result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Int, Real, Shaped

from .batch_last import lanes_last
from .jax_internals import (
    Equation,
    Jaxpr,
    Primitive,
    ShapedArray,
    define,
    equations,
    evaluate_equation,
    input_types,
    instantiate,
    interpret,
    is_unknown,
    is_zero,
    name_of,
    parameters,
    shape_of,
    trace,
    zero_tangent,
)
from .operand import Index, Operand

__all__ = ["add_row", "drop_writes", "find", "in_place", "pick_row"]

type _Shape = tuple[int, ...]


def find(ends: Real[Array, " rows"], count: Int[Array, ""], x: Real[Array, "..."]) -> Array:
    """The first of the rows i < count whose end is not before x; `count` where there is none.

    Ends never decrease. Once a ring has wrapped, only its last rows are there to be found.

    >>> find(jnp.array([1.0, 2.0, 2.0, 3.0]), jnp.int32(4), jnp.array(1.5))
    Array(1, dtype=int32)
    """
    ends, x = lax.stop_gradient((ends, x))
    return find_p.bind(ends, jnp.asarray(count, jnp.int32), x, queries=x.ndim)[0]


def pick_row(table: Shaped[Array, "rows ..."], i: Int[Array, "..."]) -> Array:
    """Row i (or rows), which must exist.

    >>> pick_row(jnp.array([[1.0], [2.0]]), jnp.array([1, 0]))
    Array([[2.],
           [1.]], dtype=float32)
    """
    return pick_p.bind(table, jnp.asarray(i, jnp.int32), queries=jnp.ndim(i))[0]


def add_row(table: Shaped[Array, "rows ..."], row: Array, i: Int[Array, "..."]) -> Array:
    """The table with a row added to row i: written, where there were zeros.

    >>> add_row(jnp.zeros(3), jnp.array(2.0), jnp.int32(1))
    Array([0., 2., 0.], dtype=float32)
    """
    i = jnp.asarray(i, jnp.int32)
    return add_p.bind(table, jnp.asarray(row, table.dtype), i, queries=i.ndim)[0]


def ring_place(i: Index, length: int) -> Any:
    """The place of row i: in a ring, if the length is a power of two."""
    return i & (length - 1) if length & (length - 1) == 0 else i


# --- how they run ---------------------------------------------------------------------------------


def _row_index(table: Shaped[Array, "rows ..."], i: Index, queries: int) -> tuple:
    """The arrays by which `i` (queries, lanes) indexes a table (rows, row, lanes); they
    broadcast.
    """
    lanes = i.ndim - queries
    row = table.ndim - 1 - lanes
    i = ring_place(i, table.shape[0])
    index = i.reshape(*i.shape[:queries], *(1,) * row, *i.shape[queries:])
    others = [
        lax.broadcasted_iota(jnp.int32, (n,), 0).reshape(n, *(1,) * (table.ndim - 2 - k))
        for k, n in enumerate(table.shape[1:])
    ]
    return index, *others


def _find(
    ends: Real[Array, "rows ..."], count: Index, x: Real[Array, "..."], *, queries: int
) -> list:
    length = ends.shape[0]

    def halve(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) >> 1
        after = (_read(ends, middle, queries) < x) & (low < high)
        return jnp.where(after, middle + 1, low), jnp.where(after, high, middle)

    high = jnp.broadcast_to(count, x.shape)
    low = jnp.maximum(high - length, 0)
    return [lax.while_loop(lambda b: jnp.any(b[0] < b[1]), halve, (low, high))[0]]


def _read(table: Shaped[Array, "rows ..."], i: Index, queries: int) -> Array:
    if not i.ndim:
        place = ring_place(i, table.shape[0])
        return lax.dynamic_index_in_dim(table, place, keepdims=False)
    return table.at[_row_index(table, i, queries)].get(mode="promise_in_bounds")


def _pick(table: Shaped[Array, "rows ..."], i: Index, *, queries: int) -> list:
    return [_read(table, i, queries)]


def _add(table: Shaped[Array, "rows ..."], row: Array, i: Index, *, queries: int) -> list:
    if not i.ndim:
        i = ring_place(i, table.shape[0])
        # Behind a barrier the sum is made before the update, which is then one in place.
        new = lax.optimization_barrier(lax.dynamic_index_in_dim(table, i, keepdims=False) + row)
        return [lax.dynamic_update_index_in_dim(table, new, i, 0)]
    where = table.at[_row_index(table, i, queries)]
    return [where.add(row, mode="promise_in_bounds", unique_indices=queries == 0)]


def _spread_row(row: Array, i: Index, *, queries: int, rows: int) -> list:
    return _add(
        jnp.zeros(_table_shape(row.shape, queries, rows), row.dtype), row, i, queries=queries
    )


def _table_shape(row: _Shape, queries: int, rows: int) -> _Shape:
    return rows, *row[queries:]


def _picked(table: _Shape, i: _Shape, queries: int) -> _Shape:
    return *i[:queries], *table[1:]


# --- their derivatives ----------------------------------------------------------------------------


def _find_jvp(primals: Sequence, tangents: Sequence, *, queries: int) -> tuple[list, list]:
    del tangents
    out = find_p.bind(*primals, queries=queries)
    return out, [zero_tangent(out[0])]


def _pick_jvp(primals: Sequence, tangents: Sequence, *, queries: int) -> tuple[list, list]:
    out = pick_p.bind(*primals, queries=queries)
    if is_zero(tangents[0]):
        return out, [zero_tangent(out[0])]
    return out, pick_p.bind(tangents[0], primals[1], queries=queries)


def _pick_transpose(cotangents: Sequence, table: Operand, i: ArrayLike, *, queries: int) -> list:
    (ct,) = cotangents
    rows = shape_of(table).shape[0]
    return [None if is_zero(ct) else spread_p.bind(ct, i, queries=queries, rows=rows)[0], None]


def _add_jvp(primals: Sequence, tangents: Sequence, *, queries: int) -> tuple[list, list]:
    out = add_p.bind(*primals, queries=queries)
    if is_zero(tangents[0]) and is_zero(tangents[1]):
        return out, [zero_tangent(out[0])]
    dots = [instantiate(t, x) for t, x in zip(tangents[:2], primals[:2], strict=True)]
    return out, add_p.bind(*dots, primals[2], queries=queries)


def _add_transpose(
    cotangents: Sequence, table: Operand, row: Operand, i: ArrayLike, *, queries: int
) -> list:
    (ct,) = cotangents
    if is_zero(ct):
        return [None, None, None]
    d_row = pick_p.bind(ct, i, queries=queries)[0] if is_unknown(row) else None
    return [ct if is_unknown(table) else None, d_row, None]


def _spread_jvp(primals: Sequence, tangents: Sequence, **params: int) -> tuple[list, list]:
    out = spread_p.bind(*primals, **params)
    if is_zero(tangents[0]):
        return out, [zero_tangent(out[0])]
    return out, spread_p.bind(tangents[0], primals[1], **params)


def _spread_transpose(
    cotangents: Sequence, row: Operand, i: ArrayLike, *, queries: int, rows: int
) -> list:
    del row, rows
    (ct,) = cotangents
    return [None if is_zero(ct) else pick_p.bind(ct, i, queries=queries)[0], None]


# --- many at once ---------------------------------------------------------------------------------


def _find_batch(size: int, xs: Sequence, axes: Sequence, *, queries: int) -> tuple[list, list[int]]:
    ends, count, x = xs
    if axes[0] is None and axes[1] is None:  # several questions to one table
        x = jnp.moveaxis(x, axes[2], 0)
        return find_p.bind(ends, count, x, queries=queries + 1), [0]
    lanes = x.ndim - (axes[2] is not None) - queries
    own = (True, lanes > 0 or axes[1] is not None, True)
    wide = [lanes_last(x, a, size, force=f) for x, a, f in zip(xs, axes, own, strict=True)]
    out = find_p.bind(*wide, queries=queries)
    return out, [out[0].ndim - 1]


def _pick_batch(size: int, xs: Sequence, axes: Sequence, *, queries: int) -> tuple[list, list[int]]:
    table, i = xs
    if axes[0] is None:
        out = pick_p.bind(table, jnp.moveaxis(i, axes[1], 0), queries=queries + 1)
        return out, [0]
    own = axes[1] is not None or i.ndim > queries
    out = pick_p.bind(
        lanes_last(table, axes[0], size), lanes_last(i, axes[1], size, force=own), queries=queries
    )
    return out, [out[0].ndim - 1]


def _add_batch(
    size: int, xs: Sequence, axes: Sequence, *, queries: int, primitive: Primitive | None = None
) -> tuple[list, list[int]]:
    own = axes[2] is not None or xs[2].ndim > queries
    wide = [
        lanes_last(x, a, size, force=f) for x, a, f in zip(xs, axes, (True, True, own), strict=True)
    ]
    out = (primitive or add_p).bind(*wide, queries=queries)
    return out, [out[0].ndim - 1]


def _spread_batch(
    size: int, xs: Sequence, axes: Sequence, *, queries: int, rows: int
) -> tuple[list, list[int]]:
    own = axes[1] is not None or xs[1].ndim > queries
    row, i = (
        lanes_last(x, a, size, force=f) for x, a, f in zip(xs, axes, (True, own), strict=True)
    )
    out = spread_p.bind(row, i, queries=queries, rows=rows)
    return out, [out[0].ndim - 1]


find_p = define(
    "find_row",
    _find,
    lambda ends, count, x, queries: [ShapedArray(x.shape, jnp.dtype("int32"))],
    jvp=_find_jvp,
    batch=_find_batch,
)
pick_p = define(
    "pick_row",
    _pick,
    lambda table, i, queries: [ShapedArray(_picked(table.shape, i.shape, queries), table.dtype)],
    jvp=_pick_jvp,
    transpose=_pick_transpose,
    batch=_pick_batch,
)
add_p = define(
    "add_row",
    _add,
    lambda table, row, i, queries: [ShapedArray(table.shape, table.dtype)],
    jvp=_add_jvp,
    transpose=_add_transpose,
    batch=_add_batch,
)
spread_p = define(
    "spread_row",
    _spread_row,
    lambda row, i, queries, rows: [ShapedArray(_table_shape(row.shape, queries, rows), row.dtype)],
    jvp=_spread_jvp,
    transpose=_spread_transpose,
    batch=_spread_batch,
)


# A table to which the row has been added already, with the derivative that adding it has.
written_p = define(
    "filed_row",
    lambda table, row, i, queries: [table],
    lambda table, row, i, queries: [ShapedArray(table.shape, table.dtype)],
    jvp=lambda primals, tangents, *, queries: _filed_jvp(primals, tangents, queries),
    batch=lambda size, xs, axes, *, queries: _add_batch(
        size, xs, axes, queries=queries, primitive=written_p
    ),
    influence=[True, False, False],
)


def _filed_jvp(primals: Sequence, tangents: Sequence, queries: int) -> tuple[list, list]:
    dot = _add_jvp(primals, tangents, queries=queries)[1]
    return written_p.bind(*primals, queries=queries), dot


# --- sums of tables -------------------------------------------------------------------------------


class _DeferredWrite:
    """A `spread` that has not been made: perhaps it is added to something."""

    def __init__(self, equation: Equation, row: ArrayLike, i: ArrayLike) -> None:
        self.equation, self.row, self.i = equation, row, i

    def made(self) -> Array:
        return evaluate_equation(self.equation, [self.row, self.i])[0]

    def onto(self, table: ArrayLike) -> Array:
        queries = parameters(self.equation)["queries"]
        return add_p.bind(table, self.row, self.i, queries=queries)[0]


def in_place(jaxpr: Jaxpr) -> Jaxpr:
    """Returns the function, in which a sum with a `spread` is an addition to one row.

    A transposition makes table + spread(row, i) of every read: a table of zeros and a sum over all
    rows, where one row changes.
    """
    if not any(_is(spread_p, e) for e in equations(jaxpr)):
        return jaxpr

    def special(equation: Equation, xs: list) -> list | None:
        if _is(spread_p, equation):
            return [_DeferredWrite(equation, *map(_made, xs))]
        if name_of(equation) == "add_any" and any(isinstance(x, _DeferredWrite) for x in xs):
            table, later = xs if isinstance(xs[1], _DeferredWrite) else xs[::-1]
            return [later.onto(_made(table))]
        return None

    return _rewritten(jaxpr, special)


def drop_writes(jaxpr: Jaxpr) -> Jaxpr:
    """Returns the function of tables that have their final contents: adding a row to them has a
    derivative, and no effect.
    """
    if not any(_is(add_p, e) for e in equations(jaxpr)):
        return jaxpr
    return _rewritten(
        jaxpr, lambda e, xs: written_p.bind(*xs, **parameters(e)) if _is(add_p, e) else None
    )


def _is(primitive: Primitive, equation: Equation) -> bool:
    return name_of(equation) == primitive.name


def _made(x: "ArrayLike | _DeferredWrite") -> ArrayLike:
    return x.made() if isinstance(x, _DeferredWrite) else x


def _rewritten(jaxpr: Jaxpr, special: Callable[[Equation, list], list | None]) -> Jaxpr:
    """The jaxpr with other outputs for the equations that `special(equation, inputs)` answers."""

    def outputs(equation: Equation, inputs: list) -> list:
        out = special(equation, inputs)
        return evaluate_equation(equation, list(map(_made, inputs))) if out is None else out

    def run(*xs: Array) -> list:
        return list(map(_made, interpret(jaxpr, xs, outputs, lambda x, aval: x)))

    return trace(run, *map(shape_of, input_types(jaxpr)))

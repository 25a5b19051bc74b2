"""Reading and writing one row of a buffer, with lanes kept last under vmap.

`jax.vmap` of a dynamic slice moves the batch axis to the front, so a tape would be transposed at
every step. These two primitives are each other's transposes. An index common to all lanes stays
common, and a row is then one contiguous block; lanes with an index of their own gather and scatter.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Int, Shaped

from .batch_last import lanes_last
from .jax_internals import (
    Primitive,
    ShapedArray,
    define,
    instantiate,
    is_unknown,
    is_zero,
    zero_like,
    zero_tangent,
)
from .operand import Index, Operand

__all__ = ["get_row", "put_row", "read", "unset", "write"]

# An element of a scatter or a gather takes as long as some dozens in vector code, which goes
# through all rows: better where these are few, and stay in the cache.
_FEW, _SMALL = 16, 8192


def get_row(buffer: Shaped[Array, "rows ..."], j: Int[Array, ""]) -> Array:
    """Row j, which must exist.

    >>> get_row(jnp.array([1.0, 2.0, 3.0]), jnp.int32(1))
    Array(2., dtype=float32)
    """
    return get_p.bind(buffer, jnp.asarray(j, jnp.int32))[0]


def put_row(buffer: Shaped[Array, "rows ..."], value: Array, j: Int[Array, ""]) -> Array:
    """The buffer with row j, which must exist, replaced.

    >>> put_row(jnp.zeros(3), jnp.array(2.0), jnp.int32(1))
    Array([0., 2., 0.], dtype=float32)
    """
    return put_p.bind(buffer, jnp.asarray(value, buffer.dtype), jnp.asarray(j, jnp.int32))[0]


def unset(shape: Sequence[int], dtype: DTypeLike) -> Array:
    """Rows that nobody reads before they are written: zeros, where something has to be there. A
    kernel, whose memory is as it was found, does not fill it.

    >>> unset((2,), jnp.float32).tolist()
    [0.0, 0.0]
    """
    return unset_p.bind(shape=tuple(shape), dtype=jnp.dtype(dtype))[0]


def read(buffer: Shaped[Array, "rows ..."], j: Index) -> Array:
    """Row j; with lanes (the shape of j, last in the buffer), each lane its own."""
    if j.ndim == 0:
        return lax.dynamic_index_in_dim(buffer, _from_start(j), keepdims=False)
    if buffer.ndim == 1:  # numbers that all lanes share
        return buffer.at[j].get(mode="promise_in_bounds")
    if _is_short(buffer):
        found = jnp.where(_row_mask(buffer, j), buffer, jnp.zeros((), buffer.dtype))
        return jnp.any(found, 0) if found.dtype == bool else jnp.sum(found, 0, found.dtype)
    return buffer.at[_scatter_index(buffer.shape[1:], j)].get(mode="promise_in_bounds")


def write(buffer: Shaped[Array, "rows ..."], value: Array, j: Index) -> Array:
    """The buffer with row j (none, past the end).

    With lanes it is one scatter, which promises that no two lanes write the same place (25 times
    faster on a CPU than the scatter that vmap makes of an update); of a few rows, a select.
    """
    if j.ndim == 0:
        return lax.dynamic_update_index_in_dim(buffer, value, _from_start(j), 0)
    if _is_short(buffer):
        return jnp.where(_row_mask(buffer, j), value, buffer)
    # Behind a barrier the value is computed by vector code, and not once an element by the scatter.
    value = lax.optimization_barrier(value)
    place = _scatter_index(value.shape, j)
    return buffer.at[place].set(value, unique_indices=True, mode="drop")


def _from_start(j: Index) -> Array:
    """The index as an unsigned number: of a signed one, JAX asks in each kernel that reads a row
    whether it counts from the end.
    """
    return jnp.asarray(j, jnp.uint32)


def _is_short(buffer: Array) -> bool:
    return buffer.shape[0] <= _FEW and buffer.size <= _SMALL


def _row_mask(buffer: Array, j: Index) -> Bool[Array, "..."]:
    """True at row j of each lane."""
    return lax.broadcasted_iota(j.dtype, buffer.shape, 0) == j


def _scatter_index(shape: Sequence[int], j: Index) -> tuple:
    others = jnp.meshgrid(
        *(jnp.arange(k, dtype=j.dtype) for k in shape), indexing="ij", sparse=True
    )
    return j.reshape((1,) * (len(shape) - j.ndim) + j.shape), *others


def _get_jvp(primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    out = get_p.bind(*primals)
    if is_zero(tangents[0]):
        return out, [zero_tangent(out[0])]
    return out, get_p.bind(tangents[0], primals[1])


def _get_transpose(cotangents: Sequence, buffer: Operand, j: ArrayLike) -> list:
    (ct,) = cotangents
    return [None if is_zero(ct) else put_p.bind(zero_like(buffer), ct, j)[0], None]


def _put_jvp(primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    out = put_p.bind(*primals)
    if is_zero(tangents[0]) and is_zero(tangents[1]):
        return out, [zero_tangent(out[0])]
    dots = [instantiate(t, x) for t, x in zip(tangents[:2], primals[:2], strict=True)]
    return out, put_p.bind(*dots, primals[2])


def _put_transpose(cotangents: Sequence, buffer: Operand, value: Operand, j: ArrayLike) -> list:
    (ct,) = cotangents
    if is_zero(ct):
        return [None, None, None]
    d_value = get_p.bind(ct, j)[0] if is_unknown(value) else None
    d_buffer = put_p.bind(ct, zero_like(value), j)[0] if is_unknown(buffer) else None
    return [d_buffer, d_value, None]


def _batch(primitive: Callable[[], Primitive]) -> Callable:
    """Lanes last; an index that all lanes share stays so while no other has lanes."""

    def rule(size: int, xs: Sequence, axes: Sequence) -> tuple[list, list[int]]:
        j, axis = xs[-1], axes[-1]
        own = axis is not None or j.ndim > 0
        shared = len(xs) == 2 and own and axes[0] is None and xs[0].ndim == 1 and j.ndim == 0
        wide = [
            lanes_last(x, a, size, force=not shared)
            for x, a in zip(xs[:-1], axes[:-1], strict=True)
        ]
        out = primitive().bind(*wide, lanes_last(j, axis, size, force=own))
        return out, [out[0].ndim - 1]

    return rule


def _like(x: ShapedArray, shape: tuple[int, ...]) -> list[ShapedArray]:
    return [ShapedArray(shape, x.dtype)]


get_p = define(
    "get_row",
    lambda buffer, j: [read(buffer, j)],
    lambda buffer, j: _like(buffer, buffer.shape[1:] or j.shape),
    jvp=_get_jvp,
    transpose=_get_transpose,
    batch=_batch(lambda: get_p),
)
put_p = define(
    "put_row",
    lambda buffer, value, j: [write(buffer, value, j)],
    lambda buffer, value, j: _like(buffer, buffer.shape),
    jvp=_put_jvp,
    transpose=_put_transpose,
    batch=_batch(lambda: put_p),
)
unset_p = define(
    "unset",
    lambda *, shape, dtype: [jnp.zeros(shape, dtype)],
    lambda *, shape, dtype: [ShapedArray(shape, dtype)],
)

"""`mark_unreached`: rows that were not reached are NaN, and a derivative that asks for one is NaN
too.

`where(reached, rows, nan)` would give such a row a zero gradient in silence. Here its cotangent,
unless it is exactly zero, turns the whole cotangent of `anchor` (the state where the solve ended)
into NaN; rows of padding discard theirs.
"""

from collections.abc import Sequence
from enum import IntEnum

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int

from .batch_last import lanes_last
from .jax_internals import (
    ShapedArray,
    define,
    instantiate,
    is_unknown,
    is_zero,
    shape_of,
    zero_tangent,
)
from .operand import Operand

__all__ = ["Reached", "mark_unreached"]


class Reached(IntEnum):
    """The state of a row of output."""

    missing = 0
    reached = 1
    padding = 2


def mark_unreached(
    rows: Inexact[Array, "..."], anchor: Array, kind: Int[Array, "..."], *, marked: bool = False
) -> Array:
    """`rows` where they were reached, else NaN; see the module for the derivative.

    `marked`: rows that were not reached are NaN already, and need no second pass over all of them.

    >>> import jax
    >>> f = lambda x, kind: mark_unreached(jnp.stack([x, x]), x, kind)
    >>> kind = jnp.array([1, 0])
    >>> f(jnp.array(2.0), kind).tolist()
    [2.0, nan]
    >>> [float(jax.grad(lambda x: f(x, kind)[i])(2.0)) for i in (0, 1)]
    [1.0, nan]
    """
    kind = jnp.broadcast_to(kind.reshape(kind.shape + (1,) * (rows.ndim - kind.ndim)), rows.shape)
    return mark_unreached_p.bind(rows, anchor, kind, lanes=0, marked=marked)[0]


def _implementation(
    rows: Inexact[Array, "..."], anchor: Array, kind: Int[Array, "..."], *, lanes: int, marked: bool
) -> list:
    del anchor, lanes
    return [rows] if marked else [jnp.where(kind == Reached.reached, rows, jnp.nan)]


def _abstract(rows: ShapedArray, anchor: ShapedArray, kind: ShapedArray, **params: int) -> list:
    del anchor, kind, params
    return [ShapedArray(rows.shape, rows.dtype)]


def _jvp(primals: Sequence, tangents: Sequence, *, lanes: int, marked: bool) -> tuple[list, list]:
    rows, anchor, kind = primals
    out = mark_unreached_p.bind(rows, anchor, kind, lanes=lanes, marked=marked)
    if all(is_zero(t) for t in tangents[:2]):
        return out, [zero_tangent(out[0])]
    dots = [instantiate(t, x) for t, x in zip(tangents[:2], primals[:2], strict=True)]
    return out, mark_unreached_p.bind(*dots, kind, lanes=lanes, marked=False)


def _transpose(
    cotangents: Sequence,
    rows: Operand,
    anchor: Operand,
    kind: Int[Array, "..."],
    *,
    lanes: int,
    marked: bool,
) -> list:
    del marked
    (ct,) = cotangents
    if is_zero(ct):
        return [None, None, None]
    d_rows = jnp.where(kind == Reached.reached, ct, 0) if is_unknown(rows) else None
    if not is_unknown(anchor):
        return [d_rows, None, None]
    used = jnp.any((kind == Reached.missing) & (ct != 0), axis=tuple(range(ct.ndim - lanes)))
    like = shape_of(anchor)
    wrong = jnp.where(used, jnp.nan, 0.0).astype(like.dtype)
    return [d_rows, jnp.broadcast_to(wrong, like.shape), None]


def _batch(
    size: int, xs: Sequence, axes: Sequence, *, lanes: int, marked: bool
) -> tuple[list, list[int]]:
    wide = [lanes_last(x, a, size, force=True) for x, a in zip(xs, axes, strict=True)]
    out = mark_unreached_p.bind(*wide, lanes=lanes + 1, marked=marked)
    return out, [out[0].ndim - 1]


mark_unreached_p = define(
    "mark_unreached", _implementation, _abstract, jvp=_jvp, transpose=_transpose, batch=_batch
)

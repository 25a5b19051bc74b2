"""Writing rows. Saves, every step and dense output are one code path through a step's polynomial.

A channel owns a buffer of rows. For each accepted step it says which rows [lo, lo + n) fall into
it; a `walk` over those rows writes them in place. The same code, replayed by the adjoint with lo
and n from its tape, is what differentiates saved values and saved times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.loop import loop
from ..core.norm import in_dtype_of
from ..core.rows import get_row
from ..core.walk import walk

__all__ = ["Channel", "Cursor", "Output", "Piece"]


class Cursor(NamedTuple):
    """The rows that one step writes: n of them, from lo."""

    lo: Array
    n: Array


class Piece(NamedTuple):
    """An accepted step as a channel sees it."""

    t0: Array
    t1: Array
    y0: Array
    y1: Array
    dt: Array
    interpolant: Any


@dataclass(frozen=True)
class Channel:
    """One stream of rows.

    `kind` is "times" (rows at the channel's times), "steps" (the end of each accepted step, after
    the initial state) or "dense" (each step's polynomial). `value(data, t, y)` makes a row, with
    the data of the solve; for "dense" `value(t0, t1, interpolant)`.
    """

    kind: str
    length: int
    value: Callable

    def first(self, times: Any, t0: Array) -> Array:
        """How many rows are there before the first step."""
        if self.kind == "times":
            return self._passed(times, jnp.zeros((), jnp.int32), t0)
        return jnp.asarray(1 if self.kind == "steps" else 0, jnp.int32)

    def cursor(self, times: Any, written: Array, t1: Array, accept: Array) -> Cursor:
        """The rows of a step that ends at t1, when `written` are there."""
        if self.kind == "times":
            return Cursor(written, self._passed(times, written, jnp.where(accept, t1, -jnp.inf)))
        return Cursor(written, (accept & (written < self.length)).astype(jnp.int32))

    def _passed(self, times: Array, lo: Array, t: Array) -> Array:
        """How many times from index lo on are at most t: a step passes few, so they are counted."""

        def ahead(consts: Any, n: Array, _: Any) -> Array:
            times, lo, t = consts
            time = get_row(times, jnp.minimum(lo + n, self.length - 1))
            return (lo + n < self.length) & (time <= t)

        n, _ = loop(
            ahead,
            lambda active, consts, n, _: (n + 1, _),
            jnp.zeros_like(lo),
            consts=lax.stop_gradient((times, lo, t)),
        )
        return n

    def blank(self, data: Any, t0: Array, y0: Array, example: Any, written: Array) -> list[Array]:
        """The buffers, with the rows that are `written` before the first step."""
        if self.kind == "dense":
            leaves = jax.tree.leaves(example)
            return [jnp.full((self.length, *x.shape), _unreached(x.dtype), x.dtype) for x in leaves]
        row = jax.eval_shape(self.value, data, t0, y0)
        buffers = tuple(
            jnp.full((self.length, *x.shape), _unreached(x.dtype), x.dtype) for x in row
        )

        def fill(*_: Any) -> tuple:
            return (), tuple(self.value(data, t0, y0))

        return list(walk(fill, 0, written, buffers=buffers, length=self.length)[1])

    def write(self, data: Any, times: Any, cursor: Cursor, piece: Piece, buffers: list) -> list:
        """The buffers with the step's rows."""
        rows = times if self.kind == "times" else ()

        def fill(active: Any, time: Any, *_: Any) -> tuple:
            del active
            return (), tuple(self._row(data, time, piece))

        _, buffers = walk(
            fill, cursor.lo, cursor.n, rows=rows, buffers=tuple(buffers), length=self.length
        )
        return list(buffers)

    def _row(self, data: Any, time: Any, piece: Piece) -> list[Array]:
        if self.kind == "dense":
            return self.value(piece.t0, piece.t1, piece.interpolant)
        if self.kind == "steps":
            return self.value(data, piece.t1, piece.y1)
        # A lane that saves nothing looks at padding while others write: that must not be NaN, which
        # zero times its cotangent would hand to what all lanes share.
        time = jnp.where(jnp.isnan(time), piece.t1, time)
        y = piece.interpolant(in_dtype_of((time - piece.t0) / piece.dt, piece.y0))
        # The end of a step is the step's own result, to the last bit; but a time that is saved does
        # not move with the end of a step, so its derivative is the interpolant's.
        end = lax.stop_gradient(piece.y1) + (y - lax.stop_gradient(y))
        return self.value(data, time, jnp.where(time >= piece.t1, end, y))


def _unreached(dtype: Any) -> Any:
    return jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else 0


@dataclass(frozen=True)
class Output:
    """All channels of a solve."""

    channels: tuple[Channel, ...]

    @property
    def needs_interpolant(self) -> bool:
        """Whether any row lies inside a step."""
        return any(c.kind != "steps" for c in self.channels)

    def first(self, times: Any, t0: Array) -> tuple[Array, ...]:
        """Rows there before the first step, per channel."""
        return tuple(c.first(ts, t0) for c, ts in zip(self.channels, times, strict=True))

    def cursors(self, times: Any, written: Any, t1: Array, accept: Array) -> tuple[Cursor, ...]:
        """The rows of a step, per channel."""
        each = zip(self.channels, times, written, strict=True)
        return tuple(c.cursor(ts, w, t1, accept) for c, ts, w in each)

    def any(self, cursors: tuple[Cursor, ...]) -> Array:
        """1 when the step has a row to write, else 0."""
        return jnp.any(jnp.stack([cursor.n > 0 for cursor in cursors])).astype(jnp.int32)

    def blank(self, data: Any, t0: Array, y0: Array, example: Any, written: Any) -> list:
        """Buffers with the rows that are written before the first step, per channel."""
        each = zip(self.channels, written, strict=True)
        return [c.blank(data, t0, y0, example, w) for c, w in each]

    def write(self, data: Any, times: Any, cursors: Any, piece: Piece, buffers: list) -> list:
        """The buffers with a step's rows."""
        each = zip(self.channels, times, cursors, buffers, strict=True)
        return [c.write(data, ts, r, piece, b) for c, ts, r, b in each]

"""Writing rows. Saves, every step and dense output are one code path through a step's polynomial.

A channel owns a buffer of rows. For each accepted step it says which rows [lo, lo + n) fall into
it; a `walk` over those rows writes them in place. The same code, replayed by the adjoint with lo
and n from its tape, is what differentiates saved values and saved times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, PyTree, Real

from ..autodiff.dynamic_scan import walk
from ..autodiff.row_buffers import get_row
from ..autodiff.while_loop import loop
from ..core.norm import in_dtype_of, rounding

__all__ = ["Channel", "Cursor", "Output", "OutputLimits", "Piece"]

type Times = Real[Array, " _rows"] | tuple[()]
"""The times of a channel; () of one that is not at times."""

type SolveData = PyTree
"""The data of a solve (`integrator.Data`), which the function of a channel reads."""

type Held = tuple[Array, ...]
"""The leaves of a state that only events change."""


@runtime_checkable
class OutputLimits(Protocol):
    """The limits that events set to the output of a step (`events.step_end.OutputWindow`)."""

    @property
    def until(self) -> Array: ...
    @property
    def settled(self) -> Array: ...
    @property
    def moved(self) -> Array: ...
    @property
    def happened(self) -> tuple: ...


class Cursor(NamedTuple):
    """The rows that one step writes: n of them, from lo."""

    lo: Array
    n: Array


class Piece(NamedTuple):
    """An accepted step as a channel sees it; `held` are the leaves that are held, before and after
    it, and `happened` the events at its end, if there are any (`events.step_end.Happened`).
    """

    t0: Array
    t1: Array
    y0: Array
    y1: Array
    dt: Array
    interpolant: PyTree
    held: tuple[Held, Held] = ((), ())
    happened: tuple | None = None


@dataclass(frozen=True)
class Channel:
    """One stream of rows.

    `kind` is "times" (rows at the channel's times), "steps" (the end of each accepted step, after
    the initial state), "dense" (each step's polynomial) or "event" (each time that event number
    `place` happens). `value(data, t, y, held)` makes a row, with the data of the solve; for "dense"
    `value(t0, t1, interpolant, held)`, for "event" `value(t, before, after, flags)`.
    """

    kind: str
    length: int
    value: Callable
    place: int = 0
    counts: bool = False  # an event whose rows may run out: they are counted on

    def first(self, times: Times, t0: Array) -> Array:
        """The number of rows before the first step."""
        if self.kind == "times":
            assert not isinstance(times, tuple)
            return self._passed(times, jnp.zeros((), jnp.int32), t0)
        return jnp.asarray(1 if self.kind == "steps" else 0, jnp.int32)

    def ahead(self, times: Times, written: Array, t: Array) -> Array:
        """True if a row up to t has to be interpolated, when `written` rows are there."""
        room = written < self.length
        if self.kind == "times":
            assert not isinstance(times, tuple)
            return room & (get_row(times, jnp.minimum(written, self.length - 1)) <= t)
        return room & (self.kind == "dense")

    def cursor(
        self, times: Times, written: Array, t1: Array, accept: Array, shown: OutputLimits | None
    ) -> Cursor:
        """The rows of a step that ends at t1, when `written` are there."""
        if self.kind == "times":
            assert not isinstance(times, tuple)
            until = t1 if shown is None else shown.until
            return Cursor(written, self._passed(times, written, jnp.where(accept, until, -jnp.inf)))
        if shown is not None:
            accept = accept & self._has_row(shown)
        room = jnp.ones((), bool) if self.counts else written < self.length
        return Cursor(written, (accept & room).astype(jnp.int32))

    def _has_row(self, shown: OutputLimits) -> Array:
        if self.kind == "event":
            return shown.happened[self.place]
        return shown.settled if self.kind == "steps" else shown.moved

    def full(self, written: Array, cursor: Cursor, shown: OutputLimits | None) -> Array:
        """True if a step leaves no room for the next one; of an event, if there was none for its
        own row.
        """
        if self.kind == "event":
            assert shown is not None
            happened = shown.happened[self.place]
            return jnp.zeros_like(happened) if self.counts else happened & (written >= self.length)
        return written + cursor.n >= self.length

    def _passed(self, times: Array, lo: Array, t: Array) -> Array:
        """The number of times from index lo on that are at most t: a step passes few, so they are
        counted.
        """

        def ahead(consts: tuple[Array, Array, Array], n: Array, _: tuple) -> Array:
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

    def blank(
        self, data: SolveData, t0: Array, y0: Array, held: Held, example: PyTree, written: Array
    ) -> list[Array]:
        """The buffers, with the rows that are `written` before the first step."""
        if self.kind == "dense":
            leaves = jax.tree.leaves(example)
            return [jnp.full((self.length, *x.shape), _unreached(x.dtype), x.dtype) for x in leaves]
        if self.kind == "event":
            row = jax.eval_shape(lambda: self.value(t0, (y0, held), (y0, held), None))
            return [jnp.full((self.length, *x.shape), _unreached(x.dtype), x.dtype) for x in row]
        row = jax.eval_shape(self.value, data, t0, y0, held)
        buffers = tuple(
            jnp.full((self.length, *x.shape), _unreached(x.dtype), x.dtype) for x in row
        )

        def fill(*_: PyTree) -> tuple:
            return (), tuple(self.value(data, t0, y0, held))

        return list(walk(fill, 0, written, buffers=buffers, length=self.length)[1])

    def write(
        self, data: SolveData, rows: tuple, cursor: Cursor, piece: Piece, buffers: list
    ) -> list:
        """The buffers with the step's rows; `rows` are times, and the marks of noise at them."""
        rows = rows if self.kind == "times" else ()

        def fill(active: Bool[Array, ""], row: tuple, *_: PyTree) -> tuple:
            del active
            return (), tuple(self._row(data, row, piece))

        room = jnp.maximum(self.length - cursor.lo, 0)
        n = jnp.minimum(cursor.n, room) if self.counts else cursor.n
        _, buffers = walk(fill, cursor.lo, n, rows=rows, buffers=tuple(buffers), length=self.length)
        return list(buffers)

    def _row(self, data: SolveData, row: tuple, piece: Piece) -> list[Array]:
        if self.kind == "dense":
            return self.value(piece.t0, piece.t1, piece.interpolant, piece.held[0])
        if self.kind == "steps":
            return self.value(data, piece.t1, piece.y1, piece.held[1])
        if self.kind == "event":
            assert piece.happened is not None
            chain, flags, _ = piece.happened
            return self.value(piece.t1, *chain[self.place : self.place + 2], flags[self.place])
        time, *mark = row
        # A lane that saves nothing looks at padding while others write: that must not be NaN, which
        # zero times its cotangent would hand to what all lanes share.
        time = jnp.where(jnp.isnan(time), piece.t1, time)
        y = piece.interpolant(in_dtype_of((time - piece.t0) / piece.dt, piece.y0), *mark)
        # The end of a step is the step's own result, to the last bit; but a time that is saved does
        # not move with the end of a step, so its derivative is the interpolant's.
        end = lax.stop_gradient(piece.y1) + (y - lax.stop_gradient(y))
        end_of = piece.t1
        if piece.happened is not None:
            # After an event it is that of the solution which goes on from there.
            _, flags, rate = piece.happened
            extrapolated = piece.y1 + in_dtype_of(time - piece.t1, rate) * rate
            now = jnp.any(jnp.concatenate(flags))
            end = jnp.where(now, extrapolated, end)
            end_of = jnp.where(now, piece.t1 - rounding(piece.t1), piece.t1)
        last = time >= end_of
        held = jax.tree.map(lambda a, b: jnp.where(last, a, b), piece.held[1], piece.held[0])
        return self.value(data, time, jnp.where(last, end, y), held)


def _unreached(dtype: DTypeLike) -> float | int:
    return jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else 0


@dataclass(frozen=True)
class Output:
    """All channels of a solve."""

    channels: tuple[Channel, ...]

    @property
    def needs_interpolant(self) -> bool:
        """True if any row lies inside a step."""
        return any(c.kind in ("times", "dense") for c in self.channels)

    def ahead(self, times: tuple[Times, ...], written: tuple[Array, ...], t: Array) -> Array:
        """True if a row up to t has to be interpolated, when `written` rows are there."""
        each = zip(self.channels, times, written, strict=True)
        return jnp.any(jnp.stack([c.ahead(ts, w, t) for c, ts, w in each]))

    def first(self, times: tuple[Times, ...], t0: Array) -> tuple[Array, ...]:
        """Rows there before the first step, per channel."""
        return tuple(c.first(ts, t0) for c, ts in zip(self.channels, times, strict=True))

    def cursors(
        self,
        times: tuple[Times, ...],
        written: tuple[Array, ...],
        t1: Array,
        accept: Array,
        shown: OutputLimits | None = None,
    ) -> tuple[Cursor, ...]:
        """The rows of a step, per channel."""
        each = zip(self.channels, times, written, strict=True)
        return tuple(c.cursor(ts, w, t1, accept, shown) for c, ts, w in each)

    def full(
        self,
        written: tuple[Array, ...],
        cursors: tuple[Cursor, ...],
        shown: OutputLimits | None,
        *,
        events: bool,
    ) -> list:
        """Flags the channels (those of events, or the others) that have no more room."""
        each = zip(self.channels, written, cursors, strict=True)
        return [
            c.full(w, r, shown)
            for c, w, r in each
            if c.kind != "times" and (c.kind == "event") == events
        ]

    def any(self, cursors: tuple[Cursor, ...]) -> Array:
        """1 when the step has a row to write, else 0."""
        return jnp.any(jnp.stack([cursor.n > 0 for cursor in cursors])).astype(jnp.int32)

    def blank(
        self,
        data: SolveData,
        t0: Array,
        y0: Array,
        held: Held,
        example: PyTree,
        written: tuple[Array, ...],
    ) -> list:
        """Buffers with the rows that are written before the first step, per channel."""
        each = zip(self.channels, written, strict=True)
        return [c.blank(data, t0, y0, held, example, w) for c, w in each]

    def write(
        self,
        data: SolveData,
        rows: list[tuple],
        cursors: tuple[Cursor, ...],
        piece: Piece,
        buffers: list,
    ) -> list:
        """The buffers with a step's rows; `rows` holds what `Channel.write` takes, per channel."""
        each = zip(self.channels, rows, cursors, buffers, strict=True)
        return [c.write(data, r, cursor, piece, b) for c, r, cursor, b in each]

"""The tape: one row an attempt, thinned when it is full, so that memory is O(√steps).

Rows are numbered by attempts, which all lanes of a batch count alike: a row is written in place,
never scattered. When `rows` rows are full every second one goes and the stride doubles. A window
is the `stride` attempts from one kept row to the next; the reverse walk runs it again, following
the decisions (accepted or not, landed or not) that are kept as two bits an attempt.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ..core.loop import loop
from ..integrate import Attempt, Data, State, System, attempt

__all__ = ["Kept", "Record", "Recorder", "Row"]

_PER_WORD = 16  # decisions of two bits in a 32-bit word


class Row(NamedTuple):
    """What replays one attempt."""

    t: Array
    y: Array
    dt: Array
    accept: Bool[Array, ""]
    landing: Bool[Array, ""]
    stop: Int[Array, ""]
    cursors: tuple


class Kept(NamedTuple):
    """What a window starts from, besides its row; empty when the tape is never thinned."""

    low: Any
    dt: Any
    control: Any
    steps: Any


class Record(NamedTuple):
    """The tape: rows (one more than asked for: the last takes what is thrown away)."""

    rows: Row
    kept: Kept
    decisions: Any
    attempts: Int[Array, ""]
    stride: Int[Array, ""]


def capacity(rows: int) -> int:
    """How many attempts a thinned tape can hold: strides are powers of two, at most `rows`."""
    return rows * 2 ** (rows.bit_length() - 1)


def rows_for(attempts: int) -> int:
    """The fewest rows that can hold so many attempts.

    >>> rows_for(100_000), capacity(rows_for(100_000))
    (392, 100352)
    """
    rows = max(2, math.isqrt(attempts))
    while capacity(rows) < attempts:
        rows += 2 - rows % 2
    return rows


def row_of(state: State, tried: Attempt) -> Row:
    """The row of an attempt made from a state."""
    return Row(state.t, state.y, tried.dt, tried.accept, tried.landing, state.stop, tried.cursors)


@dataclass(frozen=True)
class Recorder:
    """How the loop keeps a tape. `thins` is False when max_steps is known to fit in the rows."""

    system: System
    rows: int
    thins: bool
    decides: bool

    @property
    def capacity(self) -> int:
        """The most attempts whose windows fit into a second buffer of as many rows."""
        return capacity(self.rows) if self.thins else self.rows

    def blank(self, data: Data, state: State) -> Record:
        """An empty tape, of the shapes that an attempt has."""
        after, tried = jax.eval_shape(lambda d, s: attempt(self.system, d, s), data, state)
        del after
        shape = jax.eval_shape(lambda s, a: (row_of(s, a), self._kept(s)), state, tried)
        rows, kept = jax.tree.map(lambda x: jnp.zeros((self.rows + 1, *x.shape), x.dtype), shape)
        words = -(-self.capacity // _PER_WORD) if self.thins and self.decides else 0
        decisions = jnp.zeros((words,), jnp.uint32)
        return Record(rows, kept, decisions, jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))

    def _kept(self, state: State) -> Kept:
        if not self.thins:
            return Kept((), (), (), ())
        return Kept(state.low, state.dt, state.control, state.steps)

    def write(self, record: Record, state: State, tried: Attempt) -> Record:
        """The tape with this attempt, if its turn is one that is kept."""
        i, stride = record.attempts, record.stride
        place = jnp.where(i % stride == 0, i // stride, self.rows) if self.thins else i
        put = lambda rows, x: rows.at[place].set(x, mode="promise_in_bounds")  # noqa: E731
        rows, kept = jax.tree.map(put, (record.rows, record.kept), (row_of(state, tried), self._kept(state)))
        decisions = record.decisions
        if decisions.shape[0]:
            code = (tried.accept | (tried.landing.astype(jnp.uint32) << 1)).astype(jnp.uint32)
            word, bit = i // _PER_WORD, (2 * (i % _PER_WORD)).astype(jnp.uint32)
            decisions = decisions.at[word].set(decisions[word] | (code << bit))
        return Record(rows, kept, decisions, i + 1, stride)

    def run(self, running: Any, turn: Any, data: Data, state: State, buffers: list) -> Any:
        """The loop with a tape; thinned between runs of as many turns as there is room for."""
        record = self.blank(data, state)
        if not self.thins:
            limited = lambda d, s, c: running(d, s, c) & (c[1].attempts < self.rows)  # noqa: E731
            state, (buffers, record) = loop(limited, turn, state, (buffers, record), consts=data)
            return state, buffers, record

        def room(data: Data, state: State, carried: Any) -> Any:
            record = carried[1]
            return running(data, state, carried) & (record.attempts < self.rows * record.stride)

        def fill(active: Any, data: Data, state: State, carried: Any) -> Any:
            del active
            state, (buffers, record) = loop(room, turn, state, carried, consts=data)
            return state, (buffers, self._thinned(record))

        def more(data: Data, state: State, carried: Any) -> Any:
            return running(data, state, carried) & (carried[1].attempts < self.capacity)

        state, (buffers, record) = loop(more, fill, state, (buffers, record), consts=data)
        return state, buffers, record

    def _thinned(self, record: Record) -> Record:
        """Every second row, if the tape is full."""
        full = record.attempts >= self.rows * record.stride
        half = self.rows // 2

        def thin(rows: Array) -> Array:
            return rows.at[:half].set(rows[0 : 2 * half : 2])

        rows, kept = jax.lax.cond(
            full, lambda x: jax.tree.map(thin, x), lambda x: x, (record.rows, record.kept)
        )
        stride = jnp.where(full, 2 * record.stride, record.stride)
        return Record(rows, kept, record.decisions, record.attempts, stride)

    def decision(self, record: Record, i: Array) -> tuple[Any, Any] | None:
        """Whether attempt i was accepted, and whether it landed; None where nothing is decided."""
        if not record.decisions.shape[0]:
            return None
        code = record.decisions[i // _PER_WORD] >> (2 * (i % _PER_WORD)).astype(jnp.uint32)
        return (code & 1) == 1, (code & 2) == 2  # noqa: PLR2004


def start_of(record: Record, index: Array, memory: Any) -> State:
    """The state that a window starts from."""
    row = jax.tree.map(lambda x: x[index], record.rows)
    kept = jax.tree.map(lambda x: x[index], record.kept)
    zero = jnp.zeros((), jnp.int32)
    return State(
        t=row.t, low=kept.low, y=row.y, dt=kept.dt, control=kept.control, memory=memory,
        written=tuple(c.lo for c in row.cursors), stop=row.stop, steps=kept.steps, rejected=zero,
        floored=zero, last_dt=jnp.zeros_like(row.t), status=zero,
    )  # fmt: skip

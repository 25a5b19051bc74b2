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
from jaxtyping import Array, Bool, Int, UInt8

from ..core.loop import loop
from ..core.rows import get_row, put_row
from ..integrate import Attempt, Data, State, System, attempt

__all__ = ["Record", "Recorder", "Row"]

_WORD = 32


class Row(NamedTuple):
    """What replays one attempt. `dt` is what was tried, `lo` the rows of output written before it
    (so that the next row's `lo` says how many it wrote), `code` its decisions.
    """

    t: Array
    y: Array
    dt: Array
    code: UInt8[Array, ""]
    stop: Any
    lo: tuple

    @property
    def accept(self) -> Bool[Array, ""]:
        """Whether the attempt was accepted."""
        return (self.code & 1) == 1

    @property
    def landing(self) -> Bool[Array, ""]:
        """Whether it ended on a stop or on the end."""
        return (self.code & 2) == 2


class Record(NamedTuple):
    """The tape: rows (one more than asked for: the last takes what is thrown away)."""

    rows: Row
    control: Any
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


def row_of(system: System, state: State, tried: Attempt) -> Row:
    """The row of an attempt made from a state."""
    code = tried.accept.astype(jnp.uint8) | (tried.landing.astype(jnp.uint8) << 1)
    return Row(
        state.t, state.y, tried.dt, code, state.stop if system.has_stops else (), state.written
    )


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

    @property
    def bits(self) -> int:
        """Bits of a decision: accepted or not; and where there are stops, landed or not."""
        return 2 if self.system.has_stops else 1

    def blank(self, data: Data, state: State) -> Record:
        """An empty tape, of the shapes that an attempt has."""
        tried = jax.eval_shape(lambda d, s: attempt(self.system, d, s)[1], data, state)
        shape = jax.eval_shape(lambda s, a: row_of(self.system, s, a), state, tried)
        control = state.control if self.thins else ()
        rows, control = jax.tree.map(
            lambda x: jnp.zeros((self.rows + 1, *x.shape), x.dtype), (shape, control)
        )
        words = -(-self.capacity * self.bits // _WORD) if self.thins and self.decides else 0
        decisions = jnp.zeros((words,), jnp.uint32)
        return Record(rows, control, decisions, jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))

    def write(self, record: Record, state: State, tried: Attempt) -> Record:
        """The tape with this attempt, if its turn is one that is kept."""
        if self.system.one_step:
            return self._only(record, state, tried)
        i, stride = record.attempts, record.stride
        place = jnp.where(i % stride == 0, i // stride, self.rows) if self.thins else i
        put = lambda rows, x: put_row(rows, x, place)  # noqa: E731
        row = row_of(self.system, state, tried)
        rows = jax.tree.map(put, record.rows, row)
        control = jax.tree.map(put, record.control, state.control) if self.thins else ()
        decisions = record.decisions
        if decisions.shape[0]:
            word, shift = self._place(i)
            mask = row.code.astype(jnp.uint32) & (2**self.bits - 1)
            decisions = put_row(decisions, get_row(decisions, word) | (mask << shift), word)
        return Record(rows, control, decisions, i + 1, stride)

    def _only(self, record: Record, state: State, tried: Attempt) -> Record:
        """The tape of a single step is one row: its accepted attempt, or until then the last."""
        done = (record.rows.code[0] & 1) == 1
        put = lambda rows, x: rows.at[0].set(jnp.where(done, rows[0], x))  # noqa: E731
        rows = jax.tree.map(put, record.rows, row_of(self.system, state, tried))
        return record._replace(rows=rows, attempts=jnp.ones_like(record.attempts))

    def _place(self, i: Array) -> tuple[Array, Array]:
        each = _WORD // self.bits
        return i // each, (self.bits * (i % each)).astype(jnp.uint32)

    def decision(self, record: Record, i: Array) -> Any:
        """Whether attempt i was accepted, and whether it landed; None for what is not recorded."""
        if not record.decisions.shape[0]:
            return None, None
        word, shift = self._place(i)
        code = get_row(record.decisions, word) >> shift
        return (code & 1) == 1, (code & 2) == 2 if self.system.has_stops else None

    def run(
        self, running: Any, turn: Any, data: Data, state: State, buffers: list, shown: Any
    ) -> Any:
        """The loop with a tape; thinned between runs of as many turns as there is room for."""
        record = self.blank(data, state)
        if not self.thins:
            limited = lambda d, s, c: running(d, s, c) & (c[1].attempts < self.rows)  # noqa: E731
            state, (buffers, record, _) = loop(
                limited, turn, state, (buffers, record, shown), consts=data
            )
            return state, buffers, self._closed(record, state)

        def room(data: Data, state: State, carried: Any) -> Any:
            record = carried[1]
            return running(data, state, carried) & (record.attempts < self.rows * record.stride)

        def fill(active: Any, data: Data, state: State, carried: Any) -> Any:
            del active
            state, (buffers, record, shown) = loop(room, turn, state, carried, consts=data)
            return state, (buffers, self._thinned(record), shown)

        def more(data: Data, state: State, carried: Any) -> Any:
            return running(data, state, carried) & (carried[1].attempts < self.capacity)

        carried = (buffers, record, shown)
        state, (buffers, record, _) = loop(more, fill, state, carried, consts=data)
        return state, buffers, self._closed(record, state)

    def _closed(self, record: Record, state: State) -> Record:
        """The tape with what was written after the last attempt, where the next row would be."""
        place = jnp.where(record.stride > 1, self.rows, record.attempts)
        return record._replace(rows=closed(record.rows, state, place))

    def _thinned(self, record: Record) -> Record:
        """Every second row, if the tape is full."""
        full = record.attempts >= self.rows * record.stride
        half = self.rows // 2

        def thin(active: Any, _: Any, todo: Array, rows: Any) -> tuple[Array, Any]:
            del active
            rows, control = jax.tree.map(lambda x: x.at[:half].set(x[0 : 2 * half : 2]), rows)
            # What is left in the other half must not pass for attempts of lanes that have finished.
            return todo - 1, (rows._replace(code=rows.code.at[half:].set(0)), control)

        # A loop of at most one turn: under vmap a `cond` transposes all rows.
        count = full.astype(jnp.int32)
        _, (rows, control) = loop(
            lambda _, todo, rows: todo > 0, thin, count, (record.rows, record.control)
        )
        return record._replace(rows=rows, control=control, stride=record.stride * (1 + count))


def closed(rows: Row, state: State, place: Array) -> Row:
    """The rows with what was written in the end, as a last row's `lo`."""
    put = lambda lo, written: put_row(lo, written, place)  # noqa: E731
    return rows._replace(lo=jax.tree.map(put, rows.lo, state.written))


def start_of(system: System, record: Record, index: Array, memory: Any) -> State:
    """The state that a window starts from."""
    row, control = jax.tree.map(lambda x: get_row(x, index), (record.rows, record.control))
    zero = jnp.zeros((), jnp.int32)
    return State(
        t=row.t, low=jnp.zeros_like(row.t), y=row.y, dt=row.dt, control=control, memory=memory,
        written=row.lo, stop=row.stop if system.has_stops else zero, steps=zero, rejected=zero,
        floored=zero, last_dt=jnp.zeros_like(row.t), status=zero,
    )  # fmt: skip

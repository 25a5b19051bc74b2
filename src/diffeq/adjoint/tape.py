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
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core.loop import loop
from ..core.rows import get_row, put_row
from ..integrate import Attempt, Data, State, System, attempt, compensated

__all__ = ["Record", "Recorder", "Row"]

_WORD = 32
_MEMORY, _STOP = 2, 8  # of the bits of a row, where the controller's and the stop's begin


class Row(NamedTuple):
    """What replays one attempt, as three arrays: a tape is written at every turn of the loop, and
    three writes cost less than one for each number.

    `reals` is t, dt, what completes t (in float32), and the controller's memory. `whole` is a word
    of bits (0: accepted, 1: landed, from 2: the controller's flags, from 8: the number of the next
    stop), the rows of output written before the attempt (so that the next row says how many it
    wrote), and what else the controller keeps. `memory` is the method's, if it `remembers`.
    """

    reals: Float[Array, "..."]
    whole: Int[Array, "..."]
    y: Array
    memory: Any = ()

    @property
    def t(self) -> Array:
        """Where the attempt started."""
        return self.reals[..., 0]

    @property
    def dt(self) -> Array:
        """What was tried; before a landing, what was proposed."""
        return self.reals[..., 1]

    @property
    def low(self) -> Array:
        """What completes t."""
        kept = compensated(self.reals.dtype)
        return self.reals[..., 2] if kept else jnp.zeros_like(self.reals[..., 0])

    @property
    def accept(self) -> Bool[Array, "..."]:
        """Whether the attempt was accepted."""
        return (self.whole[..., 0] & 1) == 1

    @property
    def landing(self) -> Bool[Array, "..."]:
        """Whether it ended on a stop or on the end."""
        return (self.whole[..., 0] & 2) == 2

    @property
    def stop(self) -> Array:
        """The number of the next stop."""
        return self.whole[..., 0] >> _STOP

    def lo(self, channels: int) -> tuple:
        """The rows of output written before the attempt, per channel."""
        return tuple(self.whole[..., 1 + i] for i in range(channels))


class Record(NamedTuple):
    """The tape: rows (one more than asked for: the last takes what is thrown away)."""

    rows: Row
    decisions: Any
    attempts: Int[Array, ""]
    shift: Int[Array, ""]

    @property
    def stride(self) -> Array:
        """Attempts from one row to the next: a power of two, so that nothing is ever divided."""
        return 1 << self.shift

    @property
    def thinned(self) -> Array:
        """Whether any row has gone."""
        return self.shift > 0


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
    reals, flags, whole = _sorted(state.control)
    word = state.stop << _STOP
    for place, flag in enumerate([tried.accept, tried.landing, *flags]):
        word = word | (flag.astype(jnp.int32) << place)
    # A landing cuts dt short, and follows its target when it is replayed; but what comes after it
    # goes on with the dt that was proposed.
    dt = jnp.where(tried.landing, state.dt, lax.stop_gradient(tried.dt))
    low = [state.low] if compensated(dt.dtype) else []
    reals = jnp.stack([state.t, dt, *low, *(x.astype(dt.dtype) for x in reals)])
    whole = jnp.stack([word, *state.written, *(x.astype(jnp.int32) for x in whole)])
    return Row(reals, whole, state.y, state.memory if system.method.remembers else ())


def _sorted(memory: Any) -> tuple[list, list, list]:
    """The leaves of a controller's memory: reals, flags, and the rest."""
    leaves = jax.tree.leaves(memory)
    flags = [x for x in leaves if x.dtype == bool][: _STOP - _MEMORY]
    reals = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    taken = {id(x) for x in (*flags, *reals)}
    return reals, flags, [x for x in leaves if id(x) not in taken]


def _memory(row: Row, like: Any, channels: int) -> Any:
    """The controller's memory in a row."""
    leaves, tree = jax.tree.flatten(like)
    reals, flags, whole = _sorted(like)
    first = 2 + compensated(row.reals.dtype)
    found = {id(x): row.reals[first + i] for i, x in enumerate(reals)}
    found |= {id(x): (row.whole[0] >> (_MEMORY + i)) & 1 for i, x in enumerate(flags)}
    found |= {id(x): row.whole[1 + channels + i] for i, x in enumerate(whole)}
    return jax.tree.unflatten(tree, [found[id(x)].astype(x.dtype) for x in leaves])


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
        shape = jax.eval_shape(
            lambda d, s: row_of(self.system, s, attempt(self.system, d, s)[1]), data, state
        )
        rows = jax.tree.map(lambda x: jnp.zeros((self.rows + 1, *x.shape), x.dtype), shape)
        words = -(-self.capacity * self.bits // _WORD) if self.thins and self.decides else 0
        decisions = jnp.zeros((words,), jnp.uint32)
        return Record(rows, decisions, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def write(self, record: Record, state: State, tried: Attempt) -> Record:
        """The tape with this attempt, if its turn is one that is kept."""
        if self.system.one_step:
            return self._only(record, state, tried)
        i = record.attempts
        kept = (i & (record.stride - 1)) == 0
        place = jnp.where(kept, i >> record.shift, self.rows) if self.thins else i
        row = row_of(self.system, state, tried)
        rows = jax.tree.map(lambda rows, x: put_row(rows, x, place), record.rows, row)
        decisions = record.decisions
        if decisions.shape[0]:
            word, shift = self._place(i)
            mask = row.whole[0].astype(jnp.uint32) & (2**self.bits - 1)
            decisions = put_row(decisions, get_row(decisions, word) | (mask << shift), word)
        return Record(rows, decisions, i + 1, record.shift)

    def _only(self, record: Record, state: State, tried: Attempt) -> Record:
        """The tape of a single step is one row: its accepted attempt, or until then the last."""
        done = record.rows.accept[0]
        put = lambda rows, x: rows.at[0].set(jnp.where(done, rows[0], x))  # noqa: E731
        rows = jax.tree.map(put, record.rows, row_of(self.system, state, tried))
        return record._replace(rows=rows, attempts=jnp.ones_like(record.attempts))

    def _place(self, i: Array) -> tuple[Array, Array]:
        bits = self.bits * i
        return bits >> 5, (bits & (_WORD - 1)).astype(jnp.uint32)

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
            return running(data, state, carried) & (record.attempts < self.rows << record.shift)

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
        rows, place = record.rows, jnp.where(record.thinned, self.rows, record.attempts)
        end = jnp.stack([state.stop << _STOP, *state.written])
        end = jnp.pad(end, (0, rows.whole.shape[-1] - end.shape[0]))
        return record._replace(rows=rows._replace(whole=put_row(rows.whole, end, place)))

    def _thinned(self, record: Record) -> Record:
        """Every second row, if the tape is full."""
        full = record.attempts >= self.rows << record.shift
        half = self.rows // 2

        def thin(active: Any, _: Any, todo: Array, rows: Row) -> tuple[Array, Row]:
            del active
            # Slices and a concatenation, which lanes pass through; an update would transpose all.
            kept = lambda x: jnp.concatenate([x[0 : 2 * half : 2], x[half:]])  # noqa: E731
            rows = jax.tree.map(kept, rows)
            # What is left in the other half must not pass for attempts of lanes that have finished.
            at, column = (lax.broadcasted_iota(jnp.int32, rows.whole.shape, i) for i in (0, 1))
            whole = jnp.where((at >= half) & (column == 0), 0, rows.whole)
            return todo - 1, rows._replace(whole=whole)

        # A loop of at most one turn: under vmap a `cond` transposes all rows.
        count = full.astype(jnp.int32)
        _, rows = loop(lambda _, todo, rows: todo > 0, thin, count, record.rows)
        return record._replace(rows=rows, shift=record.shift + count)


def start_of(record: Record, index: Array, memory: Any, end: State, channels: int) -> State:
    """The state that a window starts from; `end` is one of the same kind."""
    row = jax.tree.map(lambda x: get_row(x, index), record.rows)
    zero = jnp.zeros((), jnp.int32)
    return State(
        t=row.t, low=row.low, y=row.y, dt=row.dt,
        control=_memory(row, end.control, channels), memory=memory, written=row.lo(channels),
        stop=row.stop, steps=zero, rejected=zero, floored=zero,
        last_dt=jnp.zeros_like(row.t), status=zero, evaluations=end.evaluations,
    )  # fmt: skip

"""The tape: checkpoints of a solve, one row an attempt, thinned when it is full: memory is
O(√steps), or less.

Rows are numbered by attempts, which all elements of a batch count alike: a row is written in place,
never scattered. When `rows` rows are full every second one is dropped and the stride doubles. A
window is the `stride` attempts from one kept row to the next; the reverse walk repeats it into a
second buffer of as many rows, following the decisions (accepted or not, ended at a stop or not)
that are kept as two bits an attempt. A window of more attempts than that is repeated in parts, each
from the start of the window.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int

from ..autodiff.dynamic_scan import walk
from ..autodiff.row_buffers import get_row, put_row, unset
from ..autodiff.while_loop import loop
from ..integrator import (
    MOST_LAPS,
    STOP_BIT,
    Attempt,
    Data,
    Decision,
    Integrator,
    State,
    TapeRow,
    alternate_methods,
    attempt,
    is_compensated,
    tape_row_of,
)

__all__ = ["MOST_ATTEMPTS", "Part", "Recorder", "Tape", "fewest_rows", "full_capacity"]

_WORD = 32
MOST_ATTEMPTS = 2**24
"""The most attempts of a tape, unless its rows hold more in whole windows: their decisions take two
megabytes.
"""


class Tape(NamedTuple):
    """The tape: its rows (and one more, into which discarded attempts are written). For alternating
    methods, the number of laps, and the number of attempts at the end of each method in each lap.
    """

    rows: TapeRow
    decisions: Any
    attempts: Int[Array, ""]
    shift: Int[Array, ""]
    laps: Any = ()
    ends: Any = ()

    @property
    def stride(self) -> Array:
        """The number of attempts from one row to the next: a power of two, so that division is a
        shift of bits.
        """
        return 1 << self.shift

    @property
    def thinned(self) -> Array:
        """True if rows were dropped."""
        return self.shift > 0


class Part(NamedTuple):
    """A part of a window that is repeated at once: n attempts from attempt number `first`. The
    window begins at row `row`, and `skipped` attempts earlier; it has `window` attempts.
    """

    row: Int[Array, ""]
    first: Int[Array, ""]
    skipped: Int[Array, ""]
    n: Int[Array, ""]
    window: Int[Array, ""]

    @property
    def window_first(self) -> Int[Array, ""]:
        """The number of the first attempt of its window."""
        return self.first - self.skipped

    @property
    def is_inner(self) -> Bool[Array, ""]:
        """True if the window goes on after it."""
        return self.skipped + self.n < self.window


def full_capacity(rows: int) -> int:
    """The most attempts of a thinned tape whose windows are repeated as a whole: strides are powers
    of two, at most `rows`.
    """
    return rows * 2 ** (rows.bit_length() - 1)


def fewest_rows(attempts: int) -> int:
    """The fewest rows with which so many attempts are repeated in whole windows.

    >>> fewest_rows(100_000), full_capacity(fewest_rows(100_000))
    (392, 100352)
    """
    rows = max(2, math.isqrt(attempts))
    while full_capacity(rows) < attempts:
        rows += 2 - rows % 2
    return rows


@dataclass(frozen=True)
class Recorder:
    """Writes the tape of a solve of at most `most` attempts. `thins` is False where no row is ever
    dropped: the attempts fit in the rows, or a solve of more is not differentiated.
    """

    integrator: Integrator
    rows: int
    thins: bool
    is_adaptive: bool
    most: int

    @property
    def capacity(self) -> int:
        """The most attempts that the tape can hold: those of whole windows at least."""
        if not self.thins:
            return self.rows
        capacity = full_capacity(self.rows)
        while capacity < min(self.most, MOST_ATTEMPTS):
            capacity *= 2
        return capacity

    @property
    def splits(self) -> bool:
        """True if a window may have more attempts than the second buffer has rows."""
        return self.thins and self.capacity > full_capacity(self.rows)

    @property
    def most_of_window(self) -> int:
        """The largest number of attempts of a window."""
        return self.capacity // self.rows if self.splits else self.rows

    @property
    def alternates(self) -> bool:
        """True if methods take turns, so that an element of a batch may wait for others."""
        return len(self.integrator.submethods) > 1

    @property
    def most_parts(self) -> int:
        """The largest number of parts of a window."""
        return self.most_of_window >> self._part_shift if self.splits else 1

    @property
    def _part_shift(self) -> int:
        """The logarithm of the number of attempts of a part, of a window that is split."""
        return self.rows.bit_length() - 1

    @property
    def bits(self) -> int:
        """The number of bits of a decision: accepted or not; where there are stops or events, ended
        at a stop or not, and a flag for each event; where methods take turns, the last one is made
        or not (a power of two, so that a decision lies in one word or fills several). Or, where the
        step size is one of a few, its code.
        """
        flags, code = self.integrator.event_bits, self.integrator.draw_bits
        if code and not flags:
            return 1 + code
        count = 2 + flags + code if flags else 1 + self.integrator.has_stops
        return 1 << (count + self.alternates - 1).bit_length()

    @property
    def words(self) -> int:
        """The number of words of a decision."""
        return max(1, self.bits // _WORD)

    def blank(self, data: Data, state: State) -> Tape:
        """An empty tape, of the shapes that an attempt has."""
        row = lambda d, s: tape_row_of(self.integrator, s, attempt(self.integrator, d, s)[1])  # noqa: E731
        shape = jax.eval_shape(row, data, state)
        # Where no row is dropped, each row is written before it is read.
        fresh = jnp.zeros if self.thins or self.integrator.one_step else unset
        rows = jax.tree.map(lambda x: fresh((self.rows + 1, *x.shape), x.dtype), shape)
        count = -(-self.capacity * self.bits // (_WORD * self.words))
        count = count if self.thins and (self.is_adaptive or self.integrator.events) else 0
        several = (self.words,) if self.words > 1 else ()
        decisions = jnp.zeros((count, *several), jnp.uint32)
        zero, phases = jnp.zeros((), jnp.int32), len(self.integrator.submethods)
        if phases == 1:
            return Tape(rows, decisions, zero, zero)
        count = phases * (MOST_LAPS + _WORD)  # a tape is thinned less often
        ends = jnp.zeros((1 + count,), jnp.int32)
        return Tape(rows, decisions, zero, zero, zero, ends)

    def _noted(self, record: Tape, lap: Array, phase: int) -> Tape:
        """The tape after a method has made its attempts of a lap."""
        place = len(self.integrator.submethods) * lap + phase + 1
        return record._replace(laps=lap + 1, ends=put_row(record.ends, record.attempts, place))

    @property
    def laps(self) -> Array:
        """The numbers of all possible laps."""
        return jnp.arange(MOST_LAPS + _WORD, dtype=jnp.int32)

    def spans(self, record: Tape, lap: Array, first: Array, n: Array) -> list[tuple]:
        """The attempts of each method in a lap, among n attempts from `first`: pairs of the first
        one (relative to `first`) and their number.
        """
        count = len(self.integrator.submethods)
        bounds = [get_row(record.ends, count * lap + i) for i in range(count + 1)]
        bounds = [jnp.clip(bound - first, 0, n) for bound in bounds]
        return [(low, high - low) for low, high in itertools.pairwise(bounds)]

    def write(self, record: Tape, state: State, tried: Attempt, made: Bool[Array, ""]) -> Tape:
        """Writes an attempt to the tape, if its number is a multiple of the stride; one that is not
        `made` is that of other elements of a batch.
        """
        if self.integrator.one_step:
            return self._only(record, state, tried)
        i = record.attempts
        kept = (i & (record.stride - 1)) == 0
        place = jnp.where(kept, i >> record.shift, self.rows) if self.thins else i
        place = lax.optimization_barrier(place)  # found once, not in the kernel of each array
        row = tape_row_of(self.integrator, state, tried)
        rows = jax.tree.map(lambda rows, x: put_row(rows, x, place), record.rows, row)
        decisions = record.decisions
        if decisions.shape[0]:
            word, shift = self._place(i)
            mask = self._flags(row, state, tried, made)
            decisions = put_row(decisions, get_row(decisions, word) | (mask << shift), word)
        return record._replace(rows=rows, decisions=decisions, attempts=i + 1)

    def _only(self, record: Tape, state: State, tried: Attempt) -> Tape:
        """The tape of a single step is one row: its accepted attempt, or until then the last."""
        done = record.rows.accept[0]
        put = lambda rows, x: rows.at[0].set(jnp.where(done, rows[0], x))  # noqa: E731
        rows = jax.tree.map(put, record.rows, tape_row_of(self.integrator, state, tried))
        return record._replace(rows=rows, attempts=jnp.ones_like(record.attempts))

    def _place(self, i: Array) -> tuple[Array, Array]:
        bits = min(self.bits, _WORD) * i
        return bits >> 5, (bits & (_WORD - 1)).astype(jnp.uint32)

    def _flags(self, row: TapeRow, state: State, tried: Attempt, made: Array) -> Array:
        """The bits of an attempt: a word, or a vector of words."""
        events, draws = self.integrator.events, self.integrator.draw_bits
        if not events:
            if draws:
                return tried.accept.astype(jnp.uint32) | (tried.code.astype(jnp.uint32) << 1)
            word = row.whole[0].astype(jnp.uint32) & (2 ** (1 + self.integrator.has_stops) - 1)
            return word | made.astype(jnp.uint32) << (self.bits - 1) if self.alternates else word
        flags = [events.decided(state.events, tried.end)]
        if draws:
            flags.append((tried.code >> jnp.arange(draws)) & 1 == 1)
        bits = jnp.concatenate([jnp.stack([tried.accept, tried.landing]), *flags])
        bits = jnp.pad(bits, (0, self.bits - bits.shape[0]))
        bits = (bits.at[-1].set(made) if self.alternates else bits).reshape(self.words, -1)
        places = jnp.arange(bits.shape[1], dtype=jnp.uint32)
        words = jnp.sum(bits.astype(jnp.uint32) << places, axis=1, dtype=jnp.uint32)
        return words if self.words > 1 else words[0]

    def decision(self, record: Tape, i: Array, last: Array, end: TapeRow) -> Any:
        """The recorded decision of attempt i, whose window ends with the accepted attempt `last` at
        `end`; None where the decision follows from dt.
        """
        if not record.decisions.shape[0]:
            return None
        # Behind a barrier it is decoded once, and not in each of the kernels that follow it.
        code, flags = lax.optimization_barrier(self._code(record.decisions, i)), None
        count, draws = self.integrator.event_bits, self.integrator.draw_bits
        drawn = (code >> 1) & (2**draws - 1)
        if count:
            places = jnp.arange(min(self.bits, _WORD), dtype=jnp.uint32)
            bits = ((jnp.atleast_1d(code)[:, None] >> places) & 1).ravel() == 1
            flags, code = bits[2 : 2 + count], jnp.atleast_1d(code)[0]
            drawn = jnp.sum(bits[2 + count : 2 + count + draws] << jnp.arange(draws))
        if draws:
            return Decision((code & 1) == 1, flags=flags, code=drawn.astype(jnp.int32))
        return Decision((code & 1) == 1, (code & 2) == 2, i == last, end.t, end.time_error, flags)

    def was_made(self, record: Tape, i: Array) -> Bool[Array, ""]:
        """True if an element of a batch made attempt i, where methods take turns; False if it had
        to wait for those of another method.
        """
        word = jnp.atleast_1d(self._code(record.decisions, i))[-1]
        return (word >> (min(self.bits, _WORD) - 1)) & 1 == 1

    def _code(self, decisions: Array, i: Array) -> Array:
        word, shift = self._place(i)
        return get_row(decisions, word) >> shift

    def accepted(
        self, rows: TapeRow, lo: ArrayLike, n: Int[Array, ""]
    ) -> tuple[ArrayLike, Int[Array, ""]]:
        """The accepted attempts among n rows from row `lo` on, as a `walk` is told of them: their
        rows, and their number. Given steps are all accepted: the first row, and n.

        A rejected attempt has no part in a derivative. Elements of a batch, which count their
        attempts alike, go back over as many steps as the one with the most of its own. Where none
        is accepted the last attempt is listed: a cotangent of NaN, by which a failed solve says
        that it has no derivative, comes to the parameters by a step.
        """
        if not self.is_adaptive:
            return lo, n

        def note(_: Any, row: tuple, __: Any, carry: Any, *___: Any) -> tuple:
            (accept, number), (listed, count) = row, carry
            return (put_row(listed, number, count), count + accept.astype(jnp.int32)), ()

        lo, length = jnp.asarray(lo, jnp.int32), self.rows + 1
        numbers = jnp.arange(length, dtype=jnp.int32)
        start = jnp.zeros_like(numbers), jnp.zeros((), jnp.int32)
        each = rows.accept, numbers
        (listed, count), _ = walk(note, lo, n, rows=each, carry=start, length=length)
        return listed, jnp.maximum(count, jnp.minimum(n, 1))

    def windows(self, record: Tape) -> Int[Array, ""]:
        """The number of windows of a tape: one, where no row was dropped."""
        windows = (record.attempts + record.stride - 1) >> record.shift
        return jnp.where(record.thinned, windows, jnp.minimum(record.attempts, 1))

    def window(self, record: Tape, row: Int[Array, ""]) -> Part:
        """The window from a row on, as one part: where no row was dropped, the whole tape."""
        first = jnp.where(record.thinned, row << record.shift, 0)
        n = jnp.minimum(record.stride, record.attempts - first)
        n = jnp.where(record.thinned, n, record.attempts)
        return Part(row, first, jnp.int32(0), n, n)

    def parts(self, record: Tape, window: Part) -> Int[Array, ""]:
        """The number of parts in which a window is repeated."""
        whole = jnp.minimum(window.n, 1)
        return jnp.where(record.thinned, -(-window.n >> self._part_shift), whole)

    def part(self, record: Tape, window: Part, i: Int[Array, ""]) -> Part:
        """Part i of a window."""
        skipped = i << self._part_shift
        n = jnp.minimum(1 << self._part_shift, window.n - skipped)
        n = jnp.where(record.thinned, n, window.n)
        return Part(window.row, window.first + skipped, skipped, n, window.n)

    def last_accepted(self, record: Tape, first: Array, n: Array) -> Array:
        """The last accepted one of n attempts from `first`; `first` − 1 if none was accepted."""
        if not record.decisions.shape[0]:
            return first + n - 1
        # A round of events that took no time ends at the end of the previous step.
        mask = 5 if self.integrator.events else 1

        def rejected(consts: Any, i: Array, _: Any) -> Array:
            decisions, first = consts
            return (i >= first) & ((jnp.atleast_1d(self._code(decisions, i))[0] & mask) != 1)

        earlier = lambda active, consts, i, _: (i - 1, _)  # noqa: E731
        return loop(rejected, earlier, first + n - 1, consts=(record.decisions, first))[0]

    def run(
        self, running: Any, turn: Any, data: Data, state: State, buffers: list, rest: Any
    ) -> Any:
        """Runs the loop with a tape, which is thinned whenever it is full."""
        record = self.blank(data, state)
        if not self.thins:
            limited = lambda d, s, c: running(d, s, c) & (c[1].attempts < self.rows)  # noqa: E731
            state, (buffers, record, rest) = alternate_methods(
                self.integrator, limited, turn, data, state, (buffers, record, rest), self._noted
            )
            return state, buffers, self._closed(record, state), rest

        def room(data: Data, state: State, carried: Any) -> Any:
            record = carried[1]
            return running(data, state, carried) & (record.attempts < self.rows << record.shift)

        def fill(active: Any, data: Data, state: State, carried: Any) -> Any:
            del active
            state, (buffers, record, rest) = alternate_methods(
                self.integrator, room, turn, data, state, carried, self._noted
            )
            return state, (buffers, self._thinned(record), rest)

        def more(data: Data, state: State, carried: Any) -> Any:
            return running(data, state, carried) & (carried[1].attempts < self.capacity)

        carried = (buffers, record, rest)
        state, (buffers, record, rest) = loop(more, fill, state, carried, consts=data)
        return state, buffers, self._closed(record, state), rest

    def _closed(self, record: Tape, state: State) -> Tape:
        """The tape with the end of the solve, and the number of written rows of output, in the
        place of the next row.
        """
        rows, place = record.rows, jnp.where(record.thinned, self.rows, record.attempts)
        end = jnp.stack([state.stop << STOP_BIT, *state.written])  # and no event, which are all 0
        end = jnp.pad(end, (0, rows.whole.shape[-1] - end.shape[0]))
        t = jnp.stack(
            [state.t, state.dt, *([state.time_error] if is_compensated(state.t.dtype) else [])]
        )
        t = jnp.pad(t, (0, rows.reals.shape[-1] - t.shape[0]))
        whole, reals = put_row(rows.whole, end, place), put_row(rows.reals, t, place)
        return record._replace(rows=rows._replace(reals=reals, whole=whole))

    def _thinned(self, record: Tape) -> Tape:
        """Drops every second row, if the tape is full and its capacity is not reached."""
        full = record.attempts >= self.rows << record.shift
        # At its capacity a tape is not thinned: it has no bits for the decisions of more attempts.
        full = full & (record.attempts < self.capacity)
        half = self.rows // 2

        def thin(active: Any, _: Any, todo: Array, rows: TapeRow) -> tuple[Array, TapeRow]:
            del active
            # Slices and a concatenation keep the batch axis last; an update would transpose all.
            kept = lambda x: jnp.concatenate([x[0 : 2 * half : 2], x[half:]])  # noqa: E731
            rows = jax.tree.map(kept, rows)
            # Rows left in the other half must not count as attempts of elements that have finished.
            at, column = (lax.broadcasted_iota(jnp.int32, rows.whole.shape, i) for i in (0, 1))
            whole = jnp.where((at >= half) & (column == 0), 0, rows.whole)
            return todo - 1, rows._replace(whole=whole)

        # A loop of at most one iteration: under vmap a `cond` transposes all rows.
        count = full.astype(jnp.int32)
        _, rows = loop(lambda _, todo, rows: todo > 0, thin, count, record.rows)
        return record._replace(rows=rows, shift=record.shift + count)

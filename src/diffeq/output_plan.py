"""The output of a solve: from `saveat`, `save` and `dense` to channels of rows, and back."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, PyTree

from .autodiff.unreached_rows import Reached, mark_unreached
from .core.status import Status
from .core.user_functions import annotate_errors, check_arguments
from .integrator import Data, State
from .integrator.build import BuiltSolve
from .integrator.state import Held
from .output import Channel, Times
from .problems.lowering import flip_time
from .solution import EventRecord

__all__ = ["OutputPlan", "clamp_times"]

type _Save = Callable | dict[Hashable, Callable] | None  # a function, or one for each key
type _HeldState = tuple[Array, tuple[Array, ...]]  # a state: what moves, and what is held

_DENSE, _EVENT = "dense", "event"


class OutputPlan:
    """The rows of a solve: one set for each key of `saveat` (a lone one has the key None)."""

    def __init__(
        self,
        built: BuiltSolve,
        saveat: ArrayLike | str | dict | None,
        save: _Save,
        dense: bool,
        max_saves: int,
    ) -> None:
        self.equation, self.sign, self.dense = built.canonical, built.sign, dense
        parts = built.integrator.events.parts if built.integrator.events else ()
        self.is_dict = isinstance(saveat, dict)
        self.at: dict[Hashable, Any] = saveat if isinstance(saveat, dict) else {None: saveat}
        self.trees: dict = {}
        self.value = {k: self._row(k, _of_key(save, k)) for k in self.at}
        self.kinds: list[tuple[Any, Channel]] = []
        for key, at in self.at.items():
            value = self.value[key]
            if isinstance(at, str):
                self.kinds.append((key, Channel("steps", max_saves, self._timed(value))))
            elif at is not None:
                self.kinds.append((key, Channel("times", jnp.shape(at)[0], value)))
        if dense:
            self.kinds.append((_DENSE, Channel("dense", max_saves, self._polynomial())))
        self.records = [
            Channel("event", part.length, _occurrence(part.count), i, part.kind == "after")
            for i, part in enumerate(parts)
        ]
        self.kinds += [((_EVENT, channel.place), channel) for channel in self.records]
        self.vectors = [part.vector for part in parts]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that the loop writes."""
        return tuple(channel for _, channel in self.kinds)

    @property
    def trims(self) -> frozenset:
        """The keys of the sets whose number of rows is known only afterwards."""
        return frozenset(key for key, at in self.at.items() if isinstance(at, str))

    def times(self, t0: Array, t1: Array) -> tuple[tuple, Array]:
        """Each channel's times in the loop's time, and True if any of them is wrong."""
        found, bad = [], jnp.zeros((), bool)
        for key, channel in self.kinds:
            if channel.kind != "times":
                found.append(())
                continue
            times, wrong = clamp_times(self._turned(jnp.asarray(self.at[key], t0.dtype)), t0, t1)
            found.append(times)
            bad = bad | wrong
        return tuple(found), bad

    def gather(self, data: Data, end: State, buffers: list) -> tuple:
        """(ts, ys, saved, num) as the user asked for them, the dense rows with their tree, and what
        is recorded of each event.
        """
        rows: dict = {}
        dense = (None, None)  # the polynomial's rows, and the tree of one
        written = {
            key: (c, ts, w, b)
            for (key, c), ts, w, b in zip(self.kinds, data.times, end.written, buffers, strict=True)
        }
        for key, at in self.at.items():
            rows[key] = (
                self._last_row(data, end, key)
                if at is None
                else self._rows(end, key, *written[key])
            )
        if self.dense:
            _, _, count, leaves = written[_DENSE]
            last = (end.t, end.y, end.held) if self.records else None
            dense = (
                (jnp.asarray(self.sign), leaves, count, self._start(), last),
                self.trees[_DENSE],
            )
        columns = [{key: row[i] for key, row in rows.items()} for i in range(4)]
        happened = tuple(
            self._occurrences(end, *written[_EVENT, channel.place]) for channel in self.records
        )
        return *(c if self.is_dict else c[None] for c in columns), dense, happened

    def _start(self) -> tuple:
        """(t, y, y') at the start: all that dense output knows where no step was taken."""
        t, y, held = self._turned(self.equation.t0), self.equation.y0, self.equation.held
        if self.equation.noise is not None:
            return t, y, jnp.zeros_like(y), held
        form = self.equation.form(self.equation.parameters, self.sign, held)
        return t, y, form.slope(t, y), held

    def _rows(
        self, end: State, key: Hashable, channel: Channel, times: Times, count: Array, buffer: list
    ) -> tuple:
        index = jnp.arange(channel.length)
        reached = index < count
        if channel.kind == "steps":
            ts, *buffer = buffer
            ts = jnp.where(reached, ts, jnp.nan)
            kind = jnp.where(reached, Reached.reached, Reached.padding)
        else:
            assert not isinstance(times, tuple)
            ts = self._turned(times)
            absent = jnp.isnan(times)
            if self.records:  # beyond a terminal event nothing is missing: it is padding, too
                absent = absent | (end.status == Status.terminated)
            kind = jnp.where(
                reached, Reached.reached, jnp.where(absent, Reached.padding, Reached.missing)
            )
        leaves = [_marked(x, end.y, kind, marked=True) for x in buffer]
        return ts, self._tree(key, leaves), reached, count

    def _occurrences(
        self, end: State, channel: Channel, _: tuple[()], count: Array, buffer: list
    ) -> EventRecord:
        ts, fired, *rows = buffer
        kind = jnp.where(jnp.arange(channel.length) < count, Reached.reached, Reached.padding)
        rows, half = [_marked(x, end.y, kind, marked=True) for x in rows], len(rows) // 2
        states = ((x[0], x[1:]) for x in (rows[:half], rows[half:]))
        before, after = (self.equation.packing.unpack(*x) for x in states)
        ts = self._turned(_marked(ts, end.t, kind, marked=True))
        fired = fired if self.vectors[channel.place] else fired[:, 0]
        return EventRecord(ts, before, after, fired, count)

    def _last_row(self, data: Data, end: State, key: Hashable) -> tuple:
        reached = (end.status <= Status.terminated)[None]
        leaves = [x[None] for x in self.value[key](data, end.t, end.y, end.held)]
        kind = jnp.where(reached, Reached.reached, Reached.missing)
        ys = self._tree(key, [_marked(x, end.y, kind) for x in leaves])
        return self._turned(end.t)[None], ys, reached, jnp.sum(reached)

    def _tree(self, key: Hashable, leaves: list) -> PyTree:
        tree = self.trees.get(id(self.value[key]))
        return (
            self.equation.packing.unpack(leaves[0], leaves[1:])
            if tree is None
            else jax.tree.unflatten(tree, leaves)
        )

    # What the loop calls holds nothing that is traced: it outlives the trace in JAX's caches.

    def _row(self, key: Hashable, given: Callable | None) -> Callable:
        """A row as a list of arrays; remembers the tree that `save` returns. What that closes over
        comes with the data of the loop.
        """
        packing, args_of = self.equation.packing, self.equation.args
        time_of, trees = self._turned_by(), self.trees
        if given is not None:
            check_arguments(given, "save", "t, y, args")

        def row(data: Data, tau: Array, y: Array, held: Held = ()) -> list:
            save = _of_key(data.save, key)
            if save is None:
                return [y, *held]
            t, tree = time_of(tau, data), packing.unpack(y, held)
            with annotate_errors("save", "t, y, args", t, tree):
                kept = jax.tree.map(jnp.asarray, save(t, tree, args_of(data.parameters)))
            leaves, trees[id(row)] = jax.tree.flatten(kept)
            return leaves

        return row

    def _polynomial(self) -> Callable:
        """A step's polynomial as a list of arrays; its tree is kept in `trees`."""
        trees = self.trees

        def row(*parts: PyTree) -> list:
            leaves, trees[_DENSE] = jax.tree.flatten(parts)
            return leaves

        return row

    def _timed(self, value: Callable) -> Callable:
        time_of = self._turned_by()
        return lambda data, tau, *of: [time_of(tau, data), *value(data, tau, *of)]

    def _turned(self, x: Array) -> Array:
        """A time in the problem's own direction."""
        return flip_time(self.sign, x)

    def _turned_by(self) -> Callable:
        """`_turned` for the loop, where a direction that is not static comes with the data."""
        sign = self.sign if isinstance(self.sign, int) else None
        return lambda x, data: flip_time(data.sign if sign is None else sign, x)


def _occurrence(count: int) -> Callable:
    """The record of one time that an event happens, in the loop's time."""

    def row(
        tau: Array, before: _HeldState, after: _HeldState, flags: Bool[Array, " conditions"] | None
    ) -> list:
        flags = jnp.zeros(count, bool) if flags is None else flags
        (y0, held0), (y1, held1) = before, after
        return [tau, flags, y0, *held0, y1, *held1]

    return row


def _of_key(save: _Save, key: Hashable) -> Callable | None:
    """The function `save` of a key of `saveat`."""
    return save.get(key) if isinstance(save, dict) else save


def _marked(rows: Array, anchor: Array, kind: Array, *, marked: bool = False) -> Array:
    """Rows with NaN where nothing was reached; of integers, which have no NaN, `saved` says it."""
    if not jnp.issubdtype(rows.dtype, jnp.inexact):
        return rows
    return mark_unreached(rows, anchor, kind, marked=marked)


def clamp_times(times: Array, t0: Array, t1: Array) -> tuple[Array, Array]:
    """Times within 4 ulp of an end are that end; and True if any is out of order or outside.

    An ulp is that of the end on the inside, so that 1e-9 after 0 is a time of its own however far
    t1 is; and that of the larger end on the outside, where sums that miss an end of 0 come to lie.
    """
    ulp = 4 * jnp.finfo(times.dtype).eps
    wide = ulp * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
    low = (times >= t0 - wide) & (times <= t0 + ulp * jnp.abs(t0))
    high = (times <= t1 + wide) & (times >= t1 - ulp * jnp.abs(t1))
    times = jnp.where(high, t1, jnp.where(low, t0, times))
    padding = jnp.isnan(times)
    outside = ~padding & ((times < t0) | (times > t1))
    late = ~padding[1:] & (padding[:-1] | (times[1:] < times[:-1]))
    return times, jnp.any(outside) | jnp.any(late)

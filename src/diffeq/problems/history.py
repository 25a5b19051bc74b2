"""The past of a delay equation: the steps so far as polynomials, and `past(s)`, which reads them.

A row holds one step: where it starts, how long its polynomial is, how many turns it took, and the
polynomial's own numbers. Rows of one dtype are one array, so that a look into the past is a search,
one read and one evaluation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PyTree, Real

from ..autodiff.discontinuity_times import concatenate_times, constant_lines, jumping
from ..autodiff.raised_flags import flagged
from ..autodiff.row_buffers import put_row
from ..autodiff.tables import add_row, find, pick_row, ring_place
from ..core.packing import Packing
from ..core.promotion import standard_promotion

__all__ = ["History", "HistoryView", "Past", "PastAccess", "StepLayout", "StoredStep"]


class PastAccess(IntFlag):
    """Flags of what an evaluation of the past accessed for and that is not there: the step that is
    being made, beyond the time of the evaluation, or before the first step that is still kept; and
    whether a lag that depends on the state has come to reach no further than a jump at the start.

    They are raised as flags (`autodiff.raised_flags`) and never read off the value: `past(s) > 0`
    is False of a NaN.
    """

    step = 1
    future = 2
    lost = 4
    jump = 8


class StoredStep(eqx.Module):
    """One step as the past keeps it: y(s) = polynomial((s − t)/dt), with the leaves that are held.

    A step that an event has cut off is over before its polynomial is: `History.ends` says where.
    """

    t: Array
    dt: Array
    turns: Array
    polynomial: PyTree
    held: tuple = ()


class StepLayout:
    """The layout of a `StoredStep` in rows, one for each dtype in it."""

    def __init__(self, polynomial: PyTree, time: Array, held: tuple = ()) -> None:
        stored = StoredStep(time, time, time, polynomial, held)
        leaves, self.tree = jax.tree.flatten(stored)
        self.shapes = [x.shape for x in leaves]
        self.time = jnp.dtype(time.dtype)
        # What counts, and what is true or false, is held: as numbers, among the others.
        real = [jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]
        each = zip(leaves, real, strict=True)
        self.dtypes = [jnp.dtype(x.dtype) if r else self.time for x, r in each]
        self.kinds = list(dict.fromkeys(self.dtypes))

    def _key(self) -> tuple:
        return self.tree, tuple(self.shapes), tuple(self.dtypes), self.time

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepLayout) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def pack(self, stored: StoredStep) -> list[Array]:
        """Returns the rows of a step: one vector a dtype."""
        leaves = jax.tree.leaves(stored)
        cast = [jnp.asarray(x, d).ravel() for x, d in zip(leaves, self.dtypes, strict=True)]
        return [
            jnp.concatenate([x for x, d in zip(cast, self.dtypes, strict=True) if d == kind])
            for kind in self.kinds
        ]

    def unpack(self, row: list[Array]) -> StoredStep:
        """Returns the step of these rows."""
        start = dict.fromkeys(self.kinds, 0)
        parts = dict(zip(self.kinds, row, strict=True))
        leaves = []
        for shape, kind in zip(self.shapes, self.dtypes, strict=True):
            size = math.prod(shape)
            leaves.append(parts[kind][start[kind] : start[kind] + size].reshape(shape))
            start[kind] += size
        return jax.tree.unflatten(self.tree, leaves)

    def filled(self, value: float) -> list[Array]:
        """Returns rows that are filled with one number."""
        sizes = dict.fromkeys(self.kinds, 0)
        for shape, kind in zip(self.shapes, self.dtypes, strict=True):
            sizes[kind] += math.prod(shape)
        return [jnp.full(n, value, kind) for kind, n in sizes.items()]


class History(eqx.Module):
    """The steps so far: row i lies at place i modulo the length, if that is a power of two.

    `ends[i]` is where step i ended: a row of an attempt that was rejected has no length, and is
    never found. `latest` is the last row of a step. `discontinuities` is the tracker of the
    discontinuities that are to come back, where events make any.
    """

    ends: Real[Array, " rows"]
    rows: list[Array]
    count: Int[Array, ""]
    latest: Any = 0
    accessed: Int[Array, ""] | int = 0
    discontinuities: PyTree = ()

    @staticmethod
    def blank(shape: StepLayout, rows: int, discontinuities: PyTree = ()) -> "History":
        """Returns a history without steps, with room for so many."""
        table = [jnp.zeros((rows, *x.shape), x.dtype) for x in shape.filled(0.0)]
        zero = jnp.zeros((), jnp.int32)
        return History(jnp.zeros(rows, shape.time), table, zero, zero, zero, discontinuities)

    def seen(self) -> "History":
        """Returns the part of the history that a field may evaluate."""
        return replace(self, discontinuities=())

    def with_step(self, row: list[Array], end: Array, accept: Array) -> "History":
        """Adds a row. A rejected attempt takes one of no length: all batch elements write in the
        same place.
        """
        place = ring_place(self.count, self.ends.shape[0])
        row = _of_attempt(row, accept)
        return History(
            put_row(self.ends, end, place),
            [put_row(x, r, place) for x, r in zip(self.rows, row, strict=True)],
            self.count + 1,
            jnp.where(accept, self.count, self.latest),
            self.accessed,
            self.discontinuities,
        )

    def with_row(self, row: list[Array], accept: Array) -> "History":
        """Row number `count` written again, where there are zeros: linear, and in place."""
        each = zip(self.rows, _of_attempt(row, accept), strict=True)
        return History(self.ends, [add_row(x, r, self.count) for x, r in each], self.count + 1)

    def last(self) -> list[Array]:
        """The row of the last step; zeros where there is none."""
        return [pick_row(x, self.latest) for x in self.rows]


def _of_attempt(row: list[Array], accept: Array) -> list[Array]:
    """The row of a step; or that of a rejected attempt, zeros but for the time where it started,
    which tells what is lost. It has no derivative: that goes over the accepted attempts alone.
    """
    first, *rest = row
    start = jnp.where(jnp.arange(first.size) == 0, lax.stop_gradient(first), 0)
    return [jnp.where(accept, first, start), *(jnp.where(accept, x, 0) for x in rest)]


class HistoryView(eqx.Module):
    """The past as one evaluation of a field may look at it.

    `ahead` is the row for what lies beyond `now`, the start of the step; `middle` is the middle of
    the step.
    """

    history: History
    ahead: list[Array]
    now: Array
    middle: Array
    origin: Array
    sign: Any

    def known(self, origin: Array, sign: Array | int) -> list:
        """Returns the leaves that are known before a solve, for `autodiff.discontinuity_times`."""
        unknown = jax.tree.leaves((self.history, self.ahead, self.now, self.middle))
        own = [constant_lines(origin), *(constant_lines(sign) for _ in jax.tree.leaves(self.sign))]
        return [*(None for _ in unknown), *own]


@dataclass(frozen=True)
class Past:
    """`past(s)`, the state at time s ≤ t, with the structure of y0."""

    seen: HistoryView
    t: Array
    shape: StepLayout
    packing: Packing
    before: Callable  # s -> the packed state and what was held, before the start
    direction: int | None
    jumps: bool  # whether it does at its start, to a y0 that is given
    held: tuple = ()  # now

    @standard_promotion()
    def __call__(self, s: ArrayLike) -> PyTree:
        """The state at s; for an array of times, with its axes in front."""
        s = jnp.asarray(s, self.t.dtype)
        if not s.ndim:
            return self.packing.unpack(*self._at(s))
        flat = jax.vmap(self._at)(s.ravel())
        shaped = jax.tree.map(lambda x: x.reshape(*s.shape, *x.shape[1:]), flat)
        return self.packing.unpack(*shaped)

    def _turned(self, x: Array) -> Array:
        sign = self.seen.sign if self.direction is None else self.direction
        return x if isinstance(sign, int) and sign == 1 else sign * x

    def _at(self, s: Array) -> tuple[Array, tuple]:
        seen, history = self.seen, self.seen.history
        s = jumping(s, concatenate_times, kind="past") if self.jumps else s
        sigma, tau = self._turned(s), self._turned(self.t)
        fixed, now = lax.stop_gradient((sigma, tau))
        # Where two pieces meet, a step looks at the piece that it is on: at its start to the right,
        # at its end to the left. Both are the same but for rounding, or the past jumps there.
        slack = 4 * jnp.finfo(s.dtype).eps * jnp.maximum(jnp.abs(now), jnp.abs(seen.origin))
        # (A step of length zero is at the start of what follows.)
        side = jnp.minimum(fixed + jnp.where(now <= seen.middle, slack, -slack), seen.now)
        beyond = fixed > seen.now + slack
        before = ~beyond & ((side <= seen.origin) | (history.count == 0))
        row = self._row(side, beyond)
        stored = self.shape.unpack(row)
        lost = ~beyond & ~before & (lax.stop_gradient(stored.t) > fixed + 2 * slack)
        dt = jnp.where(stored.dt == 0, 1, stored.dt)
        theta = jnp.where(before, 0, (sigma - stored.t) / dt)
        value = stored.polynomial(theta.astype(jnp.finfo(self.packing.dtype).dtype))
        start = self._turned(seen.origin)
        early, kept = self.before(jnp.where(before, s, lax.stop_gradient(start)))
        each = zip(self.held, stored.held, kept, strict=True)
        held = tuple(
            jnp.where(beyond, a, jnp.where(before, c, b.astype(a.dtype))) for a, b, c in each
        )
        ahead = fixed > now + slack
        accessed = {PastAccess.step: beyond, PastAccess.future: ahead, PastAccess.lost: lost}
        bits = sum(jnp.where(flag, jnp.int32(bit), 0) for bit, flag in accessed.items())
        value = flagged(jnp.where(before, early, value), bits)
        # Looked up once: the compiler would do so again in each of a step's results.
        return lax.optimization_barrier((value, held))

    def _row(self, side: Array, beyond: Array) -> list[Array]:
        history = self.seen.history
        found = find(history.ends, history.count, side)
        i = jnp.clip(found, 0, jnp.maximum(history.count - 1, 0))
        return [
            jnp.where(beyond, a, pick_row(x, i))
            for a, x in zip(self.seen.ahead, history.rows, strict=True)
        ]

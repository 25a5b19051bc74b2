"""Discontinuities (kinks) of the solution of a delay equation: t0 + Σ nᵢ lagᵢ, and t* + Σ nᵢ lagᵢ
for each time t* at which an event has changed something. The first are known before a solve, the
others are not: a `DiscontinuityTracker` lists those that are still to propagate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Real

from ..autodiff.known_value import with_known_value
from ..autodiff.row_buffers import put_row
from ..autodiff.tables import pick_row, ring_place
from .history import History

__all__ = [
    "DiscontinuityTracker",
    "PropagatedDiscontinuity",
    "affordable_levels",
    "breaking_points",
    "discontinuity_levels",
    "discontinuity_time",
    "kinks_of",
    "returns_by",
]

# With many lags the combinations explode (10 lags to the seventh level: 19,447). Kinks of a higher
# level are smoother, and so first to be left to the control of errors.
_MOST, _MOST_IN_ALL = 256, 4096


def breaking_points(t0: Real[Array, "..."], lags: Real[Array, " lags"], levels: int) -> Array:
    """t0 + Σ nᵢ lagᵢ for 0 < Σ nᵢ ≤ levels, for each t0; fewer levels (but one) where there are
    over 256 of a t0, or over 4,096 in all.

    At t0 the derivative jumps, at a point of level n the derivative of order n + 1: each delay
    integrates once.

    Reference: hairer1993, II.17.

    >>> breaking_points(jnp.array(1.0), jnp.array([0.5, 2.0]), 2).tolist()
    [1.5, 3.0, 2.0, 3.5, 5.0]
    """
    counts = _multi_indices(lags.shape[0], levels, _MOST_IN_ALL // max(t0.size, 1))
    # Products and a sum: a matrix product would round otherwise, and by another amount a machine.
    return (t0[..., None] + jnp.sum(jnp.asarray(counts, lags.dtype) * lags, axis=1)).ravel()


def returns_by(
    t0: Real[Array, ""], lines: Sequence[tuple[Array, Array]], levels: int
) -> Real[Array, " times"]:
    """The times at which a discontinuity at t0 comes back to a function that looks back from t to σ
    t + s₀, for the `lines` (σ, s₀), and at which those come back in turn, up to so many levels;
    fewer where there are over 256.

    >>> returns_by(jnp.array(1.0), [(jnp.array([0.5]), jnp.array([0.0]))], 3).tolist()
    [2.0, 4.0, 8.0]
    """
    slope, offset = (jnp.concatenate(x) for x in zip(*lines, strict=True))
    found, level = [], t0[None]
    for i in range(levels):
        level = ((level[:, None] - offset) / jnp.where(slope != 0, slope, jnp.nan)).ravel()
        if i and sum(x.size for x in found) + level.size > _MOST:
            break
        found.append(level)
    return jnp.concatenate(found)


def kinks_of(lags: int, levels: int) -> int:
    """The number of breaking points of so many lags.

    >>> kinks_of(2, 2)
    5
    """
    return len(_multi_indices(lags, levels)) if lags else 0


def discontinuity_levels(order: int | float | np.number, *, jumps: bool, noisy: bool) -> int:
    """The number of levels of breaking points at which a method of this order ends steps; one more
    where the solution itself jumps at t0. Noise leaves no derivative that could jump: a jump alone
    counts there.

    >>> discontinuity_levels(5, jumps=False, noisy=False)
    5
    >>> discontinuity_levels(0.5, jumps=True, noisy=True)
    1
    """
    return int(jumps) if noisy else int(order) + int(jumps)


def affordable_levels(lags: int, levels: int) -> int:
    """The number of the levels that there is room for.

    >>> affordable_levels(1, 6), affordable_levels(10, 6)
    (6, 2)
    """
    return int(_multi_indices(lags, levels).sum(axis=1).max()) if lags and levels else 0


def _multi_indices(lags: int, levels: int, most: int = _MOST) -> Int[np.ndarray, "count lags"]:
    """The multi-indices of 1 ≤ |n| ≤ levels, level by level, no more than there is room for."""
    unit = np.eye(lags, dtype=int)
    found, level = [*unit], [*unit]
    for _ in range(levels - 1):
        level = list({tuple(n + e): n + e for n in level for e in unit}.values())
        if len(found) + len(level) > min(most, _MOST):
            break
        found += level
    return np.stack(found)


# --- of events ------------------------------------------------------------------------------------


class PropagatedDiscontinuity(NamedTuple):
    """The next discontinuity that comes back: when, from the start of which row of the past (−1:
    there is none), and after which of the lags. The time is a function of the other two: on a tape
    they are enough.
    """

    time: Array
    row: Int[Array, ""]
    lag: Int[Array, ""]


class DiscontinuityTracker(eqx.Module):
    """The discontinuities that are to come back. A step that started at one has a mark: the number
    of its row in the past, where its time is (and the derivative of that), and its `level`: 0 where
    an event has changed the state, and one more at each return, for a delay integrates once.

    Each lag goes through the marks, in order: `next` is the first that has not come back after it.

    The first return of a change is a jump of y', and to move it moves all that follows: a step ends
    there which follows it, though it be of length zero. Later ones are but a matter of accuracy:
    one that lies within rounding of another end of a step is there.
    """

    rows: Int[Array, " marks"]
    levels: Int[Array, " marks"]
    made: Int[Array, ""]
    next: Int[Array, " lags"]

    @staticmethod
    def none(marks: int, lags: int) -> "DiscontinuityTracker":
        """Returns a tracker without marks; there is room for so many (a power of two)."""
        blank, zero = jnp.zeros(marks, jnp.int32), jnp.zeros((), jnp.int32)
        return DiscontinuityTracker(blank, blank, zero, jnp.zeros(lags, jnp.int32))

    def following(
        self, past: History, t: Array, lags: Array, target: Array
    ) -> PropagatedDiscontinuity:
        """The first to come back from t on, and before the next stop."""
        waiting, jumps, times = self._waiting(past, t, lags)
        near = _near(t, target)
        due = jumps | ((times > t + near) & (times < target - near))
        times = jnp.where(waiting & due, jnp.maximum(times, t), jnp.inf)
        lag = jnp.argmin(times).astype(jnp.int32)
        some = jnp.any(jnp.isfinite(times))
        return PropagatedDiscontinuity(
            jnp.min(times), jnp.where(some, pick_row(self.rows, self.next)[lag], -1), lag
        )

    def after(
        self,
        past: History,
        span: tuple[Array, Array],
        lags: Array,
        landed: Array,
        accept: Bool[Array, ""],
        jumped: Bool[Array, ""],
        levels: int,
    ) -> "DiscontinuityTracker":
        """After an attempt, which is the next row of the past: it `landed` on what came back after
        this lag (−1: on nothing that did), and an event has changed the state at its end if that
        has `jumped`. What has come back makes a mark in its turn, while it is of one of so many
        `levels`. A mark of an attempt that is rejected goes on to the next one, which starts there,
        too: only accepted attempts have rows with a derivative.
        """
        t, t1 = span
        waiting, jumps, times = self._waiting(past, t, lags)
        own = landed == jnp.arange(lags.shape[0])
        back = accept & waiting & jnp.where(jumps, own, times <= t1 + _near(t1, t1))
        found = jnp.min(jnp.where(back, pick_row(self.levels, self.next) + 1, levels))
        level = jnp.where(jumped & accept, 0, found)
        last = jnp.maximum(self.made - 1, 0)
        latest = pick_row(self.levels, last)
        started = (self.made > 0) & (pick_row(self.rows, last) == past.count)
        retried = started & ~accept
        # A step of length zero ends where it started: one mark for both, if not both are jumps.
        again = started & (t1 == t) & ((level > 0) | (latest > 0))
        new = (level < levels) & (~again | (level < latest))
        place = ring_place(self.made - (retried | (again & new)), self.rows.shape[0])
        return DiscontinuityTracker(
            put_row(self.rows, past.count + 1, place),
            put_row(self.levels, jnp.where(retried, latest, level), place),
            self.made + (new & ~again),
            self.next + back,
        )

    def _waiting(self, past: History, t: Array, lags: Array) -> tuple[Array, Array, Array]:
        """Flags each lag for which a mark waits, and those of them whose mark is a jump; and the
        times at which these come back.
        """
        waiting = self.next < self.made
        rows = jnp.where(waiting, pick_row(self.rows, self.next), 0)
        jumps = waiting & (pick_row(self.levels, self.next) == 0)
        return waiting, jumps, _first_level(past, t, rows) + lags


def discontinuity_time(
    past: History | None, t: Array, lags: Array, row: Array, lag: Array
) -> Array:
    """The time at which the discontinuity that started a row comes back; infinite where there is
    none. It is never before t, by rounding.
    """
    assert past is not None
    # A sum over few: as an index of a lane this would be a gather, and a scatter in reverse.
    after = jnp.sum(jnp.where(jnp.arange(lags.shape[0]) == lag, lags, 0))
    time = _first_level(past, t, jnp.maximum(row, 0)) + after
    return jnp.where(row < 0, jnp.inf, with_known_value(jnp.maximum(time, t), time))


def _first_level(past: History, t: Array, rows: Array) -> Array:
    """The times at which rows of the past start, the first number in each; the next row starts at
    t.
    """
    starts = pick_row(past.rows[0], jnp.minimum(rows, jnp.maximum(past.count - 1, 0)))[..., 0]
    return jnp.where(rows >= past.count, t, starts)


def _near(a: Array, b: Array) -> Array:
    size = jnp.where(jnp.isfinite(b), jnp.maximum(jnp.abs(a), jnp.abs(b)), jnp.abs(a))
    return 16 * jnp.finfo(a.dtype).eps * size

"""The times at which steps end because a solution is not smooth there: where they come from, and
which of them are next to a time.
"""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, PyTree, Real

from ..autodiff.discontinuity_times import join_jumps
from ..autodiff.tables import find, pick_row
from ..core.norm import next_above
from ..core.notices import INSIDE
from ..problems.discontinuities import (
    affordable_levels,
    breaking_points,
    discontinuity_levels,
    returns_by,
)
from ..problems.input_discontinuities import jumps_of_traced
from ..problems.lowering import Canonical, flip_time

__all__ = ["Stops", "count_passed", "left_of", "right_of", "stop_at"]

_HIDDEN = (
    "an input that jumps (interp.Hold, infusions, the slope of interp.Linear) is called in {where} "
    "at a time that is neither t nor σ t + s with numbers σ and s, so steps do not end where it "
    "jumps, which costs accuracy, and derivatives by these times. Give them to solve: stops=."
)


class Stops(NamedTuple):
    """The stops of a solve: their `times` in the loop's time, increasing (None: there are none),
    and by how much what jumps there is shifted; how many of them are `found`, and not given; and
    up to which level the returns of a discontinuity by constant lags are among them.
    """

    times: Real[Array, " stops"] | None
    shift: PyTree = ()
    found: int = 0
    levels: int = 0

    @staticmethod
    def of(
        entry: Canonical,
        events: tuple,
        order: int | float | np.number,
        sign: Array | int,
        given: PyTree,
    ) -> "Stops":
        """Those that are given; those at which an input jumps that the equation calls, or the
        condition of an event; and after each of these and the start the returns by constant lags.
        """
        leaves = entry.parameters[0][0]
        conditions = [part.condition.traced for part in events if part.kind == "crossing"]
        jumps = join_jumps((entry.jumps, *(jumps_of_traced(c, leaves) for c in conditions)))
        hidden = sorted({h.where for h in jumps.hidden if h.kind == "input"})
        if hidden and given is None:
            warnings.warn(_HIDDEN.format(where=", ".join(hidden)), skip_file_prefixes=INSIDE)
        parts = [*([] if given is None else [given]), *jumps.times]
        ends = [flip_time(sign, t) for t in (entry.t0, entry.t1)]
        times = [flip_time(sign, jnp.asarray(x, entry.t0.dtype)) for x in parts if jnp.size(x)]
        times = jnp.concatenate(times) if times else jnp.zeros(0, entry.t0.dtype)
        kinks, levels, known = _returns(entry, ends[0], times, order, sign)
        count = times.size + kinks.size
        if not count:
            return Stops(None)
        known += 0 if given is None else jnp.size(given)
        shift = jnp.max(jnp.stack([jnp.zeros_like(ends[0]), *jumps.shifts]))
        return Stops(_merged(times, kinks, ends), lax.stop_gradient(shift), count - known, levels)


def _returns(
    entry: Canonical, t0: Array, times: Array, order: int | float | np.number, sign: Array | int
) -> tuple[Array, int, int]:
    """When discontinuities come back by constant lags, up to which level, and how many are those of
    the start by lags that are declared.
    """
    delays, noisy, none = entry.delays, entry.noise is not None, times[:0]
    if delays is None:
        return none, 0, 0
    depth = discontinuity_levels(order, jumps=delays.jumps, noisy=noisy)
    if not depth:
        return none, 0, 0
    declared = delays.constant and delays.lags.size > 0
    seen = none
    if entry.jumps.lines:  # of a start that jumps: where the field is seen to look back
        seen = returns_by(entry.t0, entry.jumps.lines, 1 if declared else depth)
        seen = flip_time(sign, seen)
    if not declared:
        return seen, 0, 0
    first = breaking_points(t0, delays.lags, depth)
    later = discontinuity_levels(order, jumps=False, noisy=noisy)
    after = jnp.where(times > t0, times, jnp.inf)
    others = breaking_points(after, delays.lags, later) if later and times.size else none
    levels = affordable_levels(delays.lags.size, int(order) + 1)
    return jnp.concatenate([first, seen, others]), levels, first.size


def _merged(times: Array, kinks: Array, ends: list[Array]) -> Array:
    """All of them in order, each once. Kinks are computed: those that differ by rounding from
    another, from a stop or from the end are not kept.
    """
    t0, t1 = ends
    near = 16 * jnp.finfo(t1.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
    kinks = jnp.where(jnp.abs(kinks - t1) <= near, jnp.inf, kinks)
    whole = jnp.concatenate([jnp.where(jnp.isnan(x), jnp.inf, x) for x in (times, kinks)])
    order = jnp.argsort(whole)
    whole, kink = whole[order], order >= times.size
    gap, first, last = whole[1:] - whole[:-1], kink[:-1], kink[1:]
    again = jnp.where(last, gap <= near, (gap == 0) & ~first)  # the later one of two
    ahead = first & ~last & (gap <= near)  # a kink before a stop
    drop = jnp.append(jnp.zeros(1, bool), again) | jnp.append(ahead, jnp.zeros(1, bool))
    return jnp.sort(jnp.where(drop, jnp.inf, whole))


# --- which are next to a time ---------------------------------------------------------------------

_FEW = 32


def count_passed(stops: Real[Array, " stops"], t: Real[Array, ""]) -> Int[Array, ""]:
    """The number of stops up to t.

    >>> int(count_passed(jnp.array([1.0, 2.0, 3.0]), jnp.array(2.0)))
    2
    """
    stops, t = lax.stop_gradient((stops, t))
    if stops.shape[0] <= _FEW:
        return jnp.sum(stops <= t, dtype=jnp.int32)
    return find(stops, jnp.int32(stops.shape[0]), next_above(t))


def stop_at(stops: Real[Array, " stops"], i: Int[Array, ""]) -> Real[Array, ""]:
    """Stop number i; infinity behind the last, and minus infinity before the first."""
    count = stops.shape[0]
    found = pick_row(stops, jnp.clip(i, 0, count - 1))
    return jnp.where(i < 0, -jnp.inf, jnp.where(i < count, found, jnp.inf))


def right_of(t: Array, shift: PyTree) -> Array:
    """Next to t, where all that jumps at t has done so: what is shifted rounds otherwise."""
    return _next_to(t, shift, 1.0)


def left_of(t: Array, shift: PyTree) -> Array:
    """Next to t, where nothing that jumps at t has done so."""
    return _next_to(t, shift, -1.0)


def _next_to(t: Array, shift: PyTree, side: float) -> Array:
    limits = jnp.finfo(t.dtype)
    margin = 4 * float(limits.eps) * (jnp.abs(t) + shift)
    margin = jnp.maximum(margin, float(limits.tiny))  # a denormal may pass for zero
    return jnp.where(jnp.isinf(t), t, t + side * margin)

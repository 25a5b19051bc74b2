"""An attempt that was recorded, as a function that can be differentiated."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..autodiff.known_value import with_known_value
from ..autodiff.nonfinite_cotangents import tripwire
from ..autodiff.primitive import trace_once
from ..core.norm import in_dtype_of
from ..problems.discontinuities import discontinuity_time
from ..problems.history import History
from .restart import clip_to_discontinuity, limited_form, restart, right_limit_form, target_of
from .saving import write_rows
from .state import Attempt, Data, System, with_held

__all__ = ["SafePoint", "replay"]


class SafePoint(NamedTuple):
    """The state and the step from which a rejected attempt is replayed. Nothing of that step is
    kept, but it is evaluated, and must be finite: zero times infinity is NaN.
    """

    t: Array
    y: Array
    held: Any
    dt: Any = ()

    def with_step(self, first: Array) -> "SafePoint":
        """The point with the length of its step: a small part of the `first` dt that was tried
        there, so that the step is tame where the first was not. It is more than 0, as a method may
        divide by it, and no denormal, as it may divide by its powers.
        """
        part = jnp.finfo(first.dtype).eps ** 0.5
        known = (first > 0) & (first < jnp.inf)
        return self._replace(dt=lax.stop_gradient(jnp.where(known, part * first, part)))


def replay(
    system: System,
    data: Data,
    safe: SafePoint,
    row: Any,
    cursors: Any,
    carried: tuple[Array, Array, Any, Any, list, list],
    past: Any = None,
) -> tuple[Array, Array, Any, Any, list, list]:
    """The recorded attempt again, as a differentiable function of data and of what the step before
    has left: t, y, what is held beside it, the method's memory, the rows of output, and the rows of
    the past.

    dt is what it was, except that a step that landed follows its target. A rejected attempt is a
    step from a `safe` point whose result is not taken: from the state where a solve broke down its
    derivative may be infinite, and zero times that would be NaN, for all that share its parameters.
    The memory at (t, y) is known, or recorded; only its derivative comes from the step before.
    `past` is what is known of the past: the ends of its rows, the number of this one, and it.
    """
    *start, memory, buffers, rows = carried
    accept = row.accept  # not that of a lane which had ended, nor of one which had failed
    if data.failed is not None:
        accept = accept & ((data.failed < 0) | (row.step < data.failed))
    if system.checks_cotangents:
        start[1] = tripwire(start[1], start[0])
    t, y, held = jax.tree.map(partial(_unless_rejected, accept), tuple(start), tuple(safe[:3]))
    data = with_held(data, held)
    before, made = None, None
    if past is not None:
        ends, count, made = past
        made = [jnp.where(accept, x, 0) for x in made]
        before = History(ends, rows, count)
    form, method, _ = system.parts(data, before, made, final=True)
    events = system.bound_events(data)
    known, fired, theta = system.events.read(row)
    comes = discontinuity_time(before, t, data.lags, *row.discontinuity) if system.levels else None
    target = events.target(known, target_of(system, data, row.stop))
    target, _ = clip_to_discontinuity(data, comes, target)
    landed = accept & row.landing
    whole = system.noise.length(data.noise, row.drawn, row.dt)
    whole = jnp.where(row.landing, target - t, whole)
    dt, landed = events.paused(known, jnp.where(accept, whole, safe.dt), landed)
    limited = limited_form(system, data, form, t)
    limited = system.noise.bound(limited, data.noise, row.drawn, whole, accept)
    memory = _remembered(method, limited, t, y, row, memory)
    scaled = in_dtype_of(dt, y)
    step = method.step(limited, t, y, scaled, memory)
    step = step._replace(y=_kept_if_accepted(accept, step.y, y))
    t1 = jnp.where(landed, target, t + dt)
    if before is not None:
        before = before.with_row(form.shape.pack(step.data.stored), accept)
        rows = before.rows
    t1, end = events.again(
        known,
        fired,
        theta,
        (t, dt, t1),
        landed,
        step,
        partial(method.interpolant, limited, t, y, scaled, step),
        restart(system, data, before),
    )
    after = jax.tree.map(partial(jnp.where, accept), end.memory, memory)
    if before is not None:
        form, _, _ = system.parts(data, before)
    if system.has_stops and jax.tree.leaves(after):
        reinitialize = method.init(right_limit_form(system, data, form, t1), t1, end.y)
        at_stop = end.landing & (t1 < data.t1)
        if system.events.live:
            stopped = target_of(system, data, row.stop) == t1
            at_stop = at_stop & (stopped if comes is None else stopped | (comes == t1))
        after = jax.tree.map(lambda a, b: jnp.where(at_stop, a, b), reinitialize, after)
    tried = Attempt(dt, t1, accept, row.landing, cursors, step, end, row.drawn)
    write = partial(write_rows, system)
    buffers = trace_once(system.traces, "write", write, data, t, y, tried, buffers)
    return t1, end.y, end.held, after, buffers, rows


def _grafted(value: Array, like: Array) -> Array:
    """`value` with the derivative of `like`, if it is a number that has one."""
    return with_known_value(value, like) if jnp.issubdtype(value.dtype, jnp.inexact) else value


def _unless_rejected(accept: Array, x: Array, safe: Array) -> Array:
    """`safe` in a rejected attempt, with the derivative of x."""
    value = jnp.where(accept, x, safe)
    return _grafted(value, x)


def _kept_if_accepted(accept: Array, y1: Array, y: Array) -> Array:
    """y1 of an accepted attempt, y of a rejected one. The derivative is a product, and no select:
    a cotangent of NaN, by which a failed solve says that it has no derivative, comes to the
    parameters also if no attempt was accepted.
    """
    kept = accept.astype(y1.dtype)
    return with_known_value(jnp.where(accept, y1, y), kept * y1 + (1 - kept) * y)


def _remembered(method: Any, form: Any, t: Array, y: Array, row: Any, memory: Any) -> Any:
    """The memory at (t, y), known or recorded, with the derivative that the step before left."""
    if method.multistep:
        return memory  # the past itself, recorded like y
    known = method.init(form, t, y)
    if (
        method.stores_memory
    ):  # the value that was recorded, with the derivative of the same quantity
        known = jax.tree.map(lambda a, b: a + lax.stop_gradient(b - a), known, row.memory)
    return jax.tree.map(_grafted, known, memory)

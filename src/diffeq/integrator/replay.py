"""An attempt that was recorded, as a function that can be differentiated."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from ..autodiff.known_value import with_known_value
from ..autodiff.nonfinite_cotangents import tripwire
from ..autodiff.trace_once import trace_once
from ..events import StepPlan
from ..methods import Method, Step
from ..output import Cursor
from ..problems.discontinuities import discontinuity_time
from ..problems.forms import Form
from ..problems.history import History
from .restart import clip_to_discontinuity, needs_restart, right_limit_form, target_of
from .saving import write_rows
from .state import Attempt, Data, Held, Integrator, Memory, with_held
from .take_step import JudgedStep, StepStart, step_form, take_step
from .tape_row import TapeRow

__all__ = ["SafePoint", "replay"]


class SafePoint(NamedTuple):
    """The state and the step from which a rejected attempt is replayed. Nothing of that step is
    kept, but it is evaluated, and must be finite: zero times infinity is NaN.
    """

    t: Array
    y: Array
    held: Held
    memory: Memory = ()
    dt: PyTree = ()

    def with_step(self, first: Array, memory: Memory) -> "SafePoint":
        """The point with the method's `memory` there (zero where it is not finite), if that is
        recorded; and with the length of its step: a small part of the `first` dt that was tried
        there, so that the step is tame where the first was not. It is more than 0, as a method may
        divide by it, and no denormal, as it may divide by its powers.
        """
        part = jnp.finfo(first.dtype).eps ** 0.5
        known = (first > 0) & (first < jnp.inf)
        dt = jnp.where(known, part * first, part)
        memory = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)), memory)
        return self._replace(memory=lax.stop_gradient(memory), dt=lax.stop_gradient(dt))


def replay(
    integrator: Integrator,
    data: Data,
    safe: SafePoint,
    row: TapeRow,
    cursors: tuple[Cursor, ...],
    carried: tuple[Array, Array, Held, Memory, list, list],
    past: tuple | None = None,
) -> tuple[Array, Array, Held, Memory, list, list]:
    """The recorded attempt again, as a differentiable function of data and of what the step before
    has left: t, y, what is held beside it, the method's memory, the rows of output, and the rows of
    the past.

    dt is what it was, except that a step that landed follows its target. A rejected attempt is a
    step from a `safe` point whose result is not taken: from the state where a solve broke down its
    derivative may be infinite, and zero times that would be NaN, for all that share its parameters.
    The memory at (t, y) is known, or recorded; only its derivative comes from the step before.
    `past` is what is known of the past: the ends of its rows, the number of this one, and it.
    """
    t, y, held, memory, buffers, rows = carried
    # Not that of a lane which had ended, nor of one which had failed. Behind a barrier it is read
    # once, and not in the kernel of each stage.
    accept = lax.optimization_barrier(row.accept)
    if data.failed is not None:
        accept = accept & ((data.failed < 0) | (row.step < data.failed))
    if integrator.checks_cotangents:
        y = tripwire(y, t)
    t, y, held = jax.tree.map(
        partial(_unless_rejected, accept), (t, y, held), (safe.t, safe.y, safe.held)
    )
    data = with_held(data, held)
    before, made = None, None
    if past is not None:
        ends, count, made = past
        made = [jnp.where(accept, x, 0) for x in made]
        before = History(ends, rows, count)
    form, method, _ = integrator.parts(data, before, made, final=True)
    plan = _recorded_plan(integrator, data, safe, row, (t, before), accept)
    limited = step_form(integrator, data, form, t, plan)
    memory = used = _known_memory(integrator, method, (limited, t, y), row, memory)
    if integrator.records_memory and not method.multistep:
        used = jax.tree.map(partial(jnp.where, accept), memory, safe.memory)

    def judge(step: Step, polynomial: Callable) -> JudgedStep:
        step = step._replace(y=_kept_if_accepted(accept, step.y, y))
        return JudgedStep(step, accept, accept, polynomial)

    def remember(judged: JudgedStep, t1: Array) -> History | None:
        del t1
        if before is None:
            return None
        return before.with_row(form.shape.pack(judged.step.data.stored), accept)

    point = StepStart(t, y, used, jnp.zeros_like(t))
    taken = take_step(integrator, data, (limited, method), point, plan, judge, remember)
    t1, end, step = taken.t1, taken.end, taken.judged.step
    after = jax.tree.map(partial(jnp.where, accept), end.memory, memory)
    if integrator.has_stops and jax.tree.leaves(after):
        form = form if before is None else integrator.parts(data, taken.past)[0]
        fresh = method.init(right_limit_form(integrator, data, form, t1), t1, end.y)
        landed = needs_restart(integrator, data, row.stop, t1, end.landing, plan.returned)
        after = jax.tree.map(partial(jnp.where, landed), fresh, after)
    tried = Attempt(plan.dt, t1, accept, row.landing, cursors, step, end, row.drawn)
    write = partial(write_rows, integrator)
    buffers = trace_once(integrator.traces, "write", write, data, t, y, tried, buffers)
    return t1, end.y, end.held, after, buffers, taken.past.rows if taken.past else rows


def _recorded_plan(
    integrator: Integrator,
    data: Data,
    safe: SafePoint,
    row: TapeRow,
    start: tuple[Array, History | None],
    accept: Array,
) -> StepPlan:
    """The plan of a recorded attempt: of the same length, except that a step that landed follows
    its target; of a rejected one, a step from the safe point.
    """
    (t, before), events = start, integrator.bound_events(data)
    target, recorded = target_of(integrator, data, row.stop), ((), None, None)
    if events:
        recorded = events.events.read(row)
        target = events.target(recorded[0], target)
    comes = (
        discontinuity_time(before, t, data.lags, *row.discontinuity) if integrator.levels else None
    )
    target, returned = clip_to_discontinuity(data, comes, target)
    dt = row.dt
    if integrator.noise:
        dt = integrator.noise.length(data.noise, row.drawn, dt)
    dt = jnp.where(row.landing, target - t, dt)
    dt, landing = jnp.where(accept, dt, safe.dt), accept & row.landing
    plan = StepPlan(dt, target, landing, row.drawn, *recorded, returned=returned, noisy=accept)
    if events:
        dt, landing = events.paused(plan.known, dt, landing)
    dt, landing = lax.optimization_barrier((dt, landing))  # as `accept` in `replay`
    return plan._replace(dt=dt, landing=landing)


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


def _known_memory(
    integrator: Integrator,
    method: Method,
    start: tuple[Form, Array, Array],
    row: TapeRow,
    memory: Memory,
) -> Memory:
    """The memory at the start of a step, with the derivative that the step before left. It was
    recorded with its tangents, and is `memory`; or it is evaluated at (t, y) once more.
    """
    if integrator.records_memory:
        return memory
    known = method.init(*start)
    if method.stores_memory:  # the recorded value, with the derivative of the same quantity
        known = jax.tree.map(lambda a, b: a + lax.stop_gradient(b - a), known, row.memory)
    return jax.tree.map(_grafted, known, memory)

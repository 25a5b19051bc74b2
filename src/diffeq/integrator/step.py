"""One attempt: propose, step, judge; and the state after it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..autodiff.primitive import if_unbatched, trace_once
from ..core.norm import in_dtype_of
from ..core.status import Status
from ..problems.history import History, PastAccess
from .inside_step import InsideStep, evaluate_inside
from .restart import (
    clip_to_discontinuity,
    limited_form,
    next_discontinuity,
    restart,
    right_limit_form,
    target_of,
)
from .state import Attempt, Data, Decision, State, System, time_direction, with_held

__all__ = ["attempt", "is_compensated"]


def attempt(
    system: System, data: Data, state: State, decision: Any = None, past: Any = None
) -> tuple[State, Attempt]:
    """One attempt: the state after it, accepted or not. A `Decision` that was recorded is followed,
    so that a second run never takes another path than the first. `past` is what the field looks at,
    and whether the attempt is to be added to it.
    """
    return trace_once(
        system.traces, "attempt", partial(_attempt, system), data, state, decision, past
    )


def _attempt(
    system: System, data: Data, state: State, decision: Any, past: Any = None
) -> tuple[State, Attempt]:
    data = with_held(data, state.held)
    seen: Any = (None, None) if past is None else past
    past, active = seen
    form, method, controller = system.parts(data, past)
    events = system.bound_events(data)
    decision = decision or Decision()
    known, fired = system.events.followed(state.events, decision.flags)
    target, discontinuity, comes = _target(system, data, state, past, events.target, known)
    remaining = (target - state.t) - state.time_error
    longest = system.noise.longest(state.dt)
    proposed = controller.propose(
        _user_time(system, data, state), longest, time_direction(system, data)
    )
    slack = 1.01 if controller.is_adaptive else 1 + float(jnp.finfo(proposed.dtype).eps) ** 0.5
    landing = proposed * slack >= remaining
    if decision.closes is not None:
        proposed, landing = _apply_decision(system, data, state, decision, proposed, landing, fired)
    draw = system.noise.draw(
        (data.noise, data.presampled), state.path, lax.stop_gradient(proposed), landing,
        (target, remaining), decision.code,
    )  # fmt: skip
    dt, landing = events.paused(known, draw.dt, draw.landing)
    limited = system.noise.bound(
        limited_form(system, data, form, state.t), data.noise, draw.drawn, dt
    )
    scaled = in_dtype_of(dt, state.y)
    step = method.step(limited, state.t, state.y, scaled, state.memory)
    polynomial = partial(method.interpolant, limited, state.t, state.y, scaled, step)
    span, parts = (scaled, _advanced(state, dt, target, landing)[0]), (limited, method, controller)
    inside = evaluate_inside(system, data, state, parts, step, span)
    verdict, floored = _judge(parts, data, state, step, inside, dt, decision.accept)
    sound = verdict.accept if decision.accept is None else decision.accept
    accept = sound if state.failed is None else jnp.ones((), bool)
    polynomial = polynomial if inside.path is None else lambda: inside.path
    truncation = events.reach(known, accept, (state.t, state.y), dt, landing, polynomial, fired)
    truncation = truncation._replace(alone=comes)
    t1, low = _advanced(state, truncation.dt, target, truncation.landing)
    span = (state.t, dt, t1)
    before, on = past, sound & active if past is not None else sound
    if past is not None:  # what follows an event may look at the step that led to it
        past = past.with_step(form.shape.pack(step.data.stored), jnp.where(on, t1, state.t), on)
    reinitialize = restart(system, data, past)
    t1, end = events.happen(known, truncation, span, target, accept, step, reinitialize, fired)
    still = lambda: restart(system, *lax.stop_gradient((data, past)))  # noqa: E731
    end = events.settle_signs(known, truncation, span, end, still, accept)
    cursors = system.output.cursors(data.times, state.written, t1, accept, end.shown)
    if discontinuity is not None and before is not None and past is not None:
        landed = jnp.where(end.landing & comes, discontinuity.lag, -1)
        jumped = system.events.affected(end.fired)
        discontinuities = before.discontinuities.after(
            before, (state.t, t1), data.lags, landed, on, jumped, system.levels
        )
        past = replace(past, discontinuities=discontinuities)
    past = None if past is None else _noted(form, state, past, step, (t1, end.y, on, active))
    tried = Attempt(dt, t1, accept, landing, cursors, step, end, draw.drawn, draw.code, past,
                    () if discontinuity is None else discontinuity, inside)  # fmt: skip
    after = _after(system, data, state, tried, verdict, low, floored)
    path_after = events.advance_noise(known, truncation, system.noise, data.noise, draw)
    path = jax.tree.map(partial(jnp.where, accept), path_after, draw.rejected)
    return _record_failure(replace(after, path=path), state, step, sound), tried


def _target(
    system: System, data: Data, state: State, past: Any, events: Callable, known: Any
) -> tuple:
    """The time beyond which the step does not go, and the return of a jump that may be it."""
    target = events(known, target_of(system, data, state.stop))
    discontinuity = next_discontinuity(system, data, past, state.t, target)
    time = None if discontinuity is None else discontinuity.time
    target, comes = clip_to_discontinuity(data, time, target)
    return target, discontinuity, comes


def _noted(form: Any, state: State, past: History, step: Any, end: tuple) -> History:
    """The past with what the last attempt read that is not there (of given steps, the one that
    failed); and whether in any a jump at the start has come back at a time that is not known.
    """
    t1, y1, accept, active = end
    made = active if state.failed is None else active & (state.failed < 0)
    accessed = step.data.accessed
    if form.since is not None:
        back = accept & (form.since(state.t, state.y) < 0) & (form.since(t1, y1) > 0)
        jumped = jnp.where(jnp.any(back), PastAccess.jump, 0)
        accessed = accessed | (past.accessed & PastAccess.jump) | jumped
    return replace(past, accessed=jnp.where(made, accessed.astype(jnp.int32), past.accessed))


def _record_failure(after: State, before: State, step: Any, sound: Array) -> State:
    """The state after a given step: y stays from the first step on that fails."""
    if before.failed is None:
        return after
    first = ~sound & (before.failed < 0)
    failed, why = jnp.where(first, before.steps, before.failed), before.why
    if step.solved is not None:
        unsolved = jnp.isfinite(jnp.sum(jnp.abs(step.y))) & ~step.solved
        why = jnp.where(first & unsolved, Status.newton_failed, why).astype(jnp.int32)
    made = failed < 0
    status = jnp.where(if_unbatched(~made), why, after.status).astype(jnp.int32)
    kept = lambda x: (x.y, x.memory, x.evaluations)  # noqa: E731
    old, new = kept(before), kept(replace(after, y=step.y))
    y, memory, evaluations = jax.tree.map(partial(jnp.where, made), new, old)
    return replace(
        after, y=y, memory=memory, evaluations=evaluations, status=status, failed=failed, why=why
    )


def _apply_decision(
    system: System, data: Data, state: State, decision: Decision, proposed: Array, landing: Array,
    fired: Any,
) -> tuple[Array, Array]:  # fmt: skip
    """The dt to try, and true if it lands, as they were recorded."""
    closes = decision.closes & decision.accept
    left = (decision.end - state.t) + (decision.end_low - state.time_error)
    # A step that was cut off went further, and is cut off again where the condition crosses.
    left = jnp.where(system.events.cuts(fired), jnp.maximum(proposed, left), left)
    proposed = jnp.where(closes, left, proposed)
    if system.has_stops or system.events.live:
        return proposed, decision.landing
    # Without stops there is one landing that is accepted: the end.
    return proposed, jnp.where(decision.accept, closes & (decision.end >= data.t1), landing)


def _judge(
    parts: tuple, data: Data, state: State, step: Any, inside: InsideStep, dt: Array, accepted: Any
) -> tuple[Any, Array]:
    _, method, controller = parts
    if not controller.is_adaptive:
        finite = jnp.isfinite(jnp.sum(step.y)) if state.y.ndim else jnp.isfinite(step.y)
        finite = finite if step.solved is None else finite & step.solved
        finite = finite if inside.finite is None else finite & inside.finite
        verdict = controller.judge(None, dt, state.control, 1)
        return verdict._replace(accept=finite), jnp.zeros((), bool)
    step = lax.stop_gradient(step)
    error2, floored = data.tolerance.squared(
        step.error, lax.stop_gradient(state.y), step.y, controller.norm
    )
    error2 = error2 if inside.error2 is None else jnp.maximum(error2, inside.error2)
    error2 = error2 if inside.finite is None else jnp.where(inside.finite, error2, jnp.inf)
    error2 = error2 if step.solved is None else jnp.where(step.solved, error2, jnp.inf)
    error2 = error2.astype(dt.dtype)
    order = method.error_order if step.order is None else step.order
    judge = lambda error2: controller.judge(  # noqa: E731
        error2, lax.stop_gradient(dt), state.control, order
    )
    verdict = judge(error2)
    if accepted is not None:
        # Rounding may put an error that was all but 1 on the other side of it.
        above = 1 + jnp.finfo(dt.dtype).eps
        border = jnp.where(accepted, jnp.minimum(error2, 1), jnp.maximum(error2, above))
        verdict = judge(jnp.where(verdict.accept == accepted, error2, border))
    if step.growth is not None:
        grown = lax.stop_gradient(dt) * in_dtype_of(step.growth, dt)
        verdict = verdict._replace(dt=jnp.where(verdict.accept, grown, verdict.dt))
    return verdict, floored


def is_compensated(dtype: Any) -> bool:
    """True if the rounding errors of time are summed: in double precision they are negligible."""
    return dtype != jnp.float64


def _advanced(state: State, dt: Array, target: Array, landing: Array) -> tuple[Array, Array]:
    """T + dt with the rounding error kept (Kahan–Babuška); exactly the target when landing."""
    if not is_compensated(state.t.dtype):
        return jnp.where(landing, target, state.t + dt), state.time_error
    increment = dt + state.time_error
    total = state.t + increment
    back = total - state.t
    lost = (state.t - (total - back)) + (increment - back)
    return jnp.where(landing, target, total), jnp.where(landing, 0, lax.stop_gradient(lost))


def _resolution(dtype: Any) -> float:
    """The smallest relative step that a time of this dtype can take."""
    eps = float(jnp.finfo(dtype).eps)
    return eps**2 if is_compensated(dtype) else eps


def _reached(t: Array, low: Array, end: Array) -> Array:
    """True at the end. A time that is rounded up to it is not there yet."""
    return (t - end) + low >= 0 if is_compensated(t.dtype) else t >= end


def _user_time(system: System, data: Data, state: State) -> Array:
    """The time in the problem's own direction, which limits and lists of steps are given in."""
    sign = time_direction(system, data)
    return state.t if isinstance(sign, int) and sign == 1 else sign * state.t


def _after(
    system: System,
    data: Data,
    state: State,
    tried: Attempt,
    verdict: Any,
    low: Array,
    floored: Array,
) -> State:
    """The next state. One select an array: a rejected attempt changes dt and the counters alone."""
    form, method, controller = system.parts(data, tried.past)
    accept, end = tried.accept, tried.end
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)  # noqa: E731
    at_stop = accept & end.landing & (tried.t1 < data.t1)
    landed = at_stop
    if system.events.live and system.has_stops:
        at_stop = at_stop & (target_of(system, data, state.stop) == tried.t1)
        returned = landed & (tried.discontinuity.time == tried.t1) if system.levels else False
        landed = at_stop | returned
    memory = end.memory
    if system.has_stops and jax.tree.leaves(memory):
        fresh = right_limit_form(system, data, form, tried.t1)
        memory = lax.cond(landed, lambda: method.init(fresh, tried.t1, end.y), lambda: memory)
    unmoved = state.memory if tried.step.rejected is None else tried.step.rejected
    memory = keep(memory, unmoved)
    steps = state.steps + accept
    rejected = state.rejected + ~accept
    status = _status(
        system, data, state, tried, verdict,
        method=method, controller=controller, attempts=steps + rejected, memory=memory,
        reached=_reached(tried.t1, low, data.t1),
    )  # fmt: skip
    evaluations = tried.step.evaluations
    # A landing cuts dt short; the step before it knows better how long the next can be.
    cut = accept & tried.landing & ((verdict.dt < state.dt) | (not controller.is_adaptive))
    following = partial(system.events.following, end, accept, tried.dt, state.dt, controller)
    return State(
        t=keep(tried.t1, state.t), time_error=keep(low, state.time_error), y=keep(end.y, state.y),
        held=keep(end.held, state.held),
        dt=following(jnp.where(cut, state.dt, verdict.dt)),
        control=system.events.reset_controller(end, controller, verdict.state),
        memory=memory,
        written=tuple(w + c.n for w, c in zip(state.written, tried.cursors, strict=True)),
        stop=state.stop + at_stop, events=keep(end.known, state.events),
        steps=steps, rejected=rejected,
        floored=state.floored + (accept & floored),
        last_dt=keep(lax.stop_gradient(end.dt), state.last_dt), status=status,
        evaluations=() if evaluations is None else state.evaluations + evaluations,
        path=state.path, failed=state.failed, why=state.why,
    )  # fmt: skip


def _status(
    system: System, data: Data, state: State, tried: Attempt, verdict: Any, *,
    method: Any, controller: Any, attempts: Array, memory: Any, reached: Array,
) -> Array:  # fmt: skip
    status = jnp.where(attempts >= data.max_steps, Status.max_steps, Status.running)
    finite, unsolved = jnp.isfinite(jnp.sum(jnp.abs(tried.step.y))), Status.newton_failed
    finite = finite if tried.inside.finite is None else finite & tried.inside.finite
    solved = jnp.ones((), bool) if tried.step.solved is None else tried.step.solved
    if controller.is_adaptive:
        tiny = 2 * _resolution(state.t.dtype) * jnp.abs(state.t)
        tiny = jnp.maximum(tiny, jnp.finfo(state.t.dtype).tiny)
        lost = verdict.dt <= system.noise.shortest(data.noise, tiny)
        small = jnp.where(solved, Status.step_too_small, unsolved)
        small = jnp.where(finite, small, Status.nonfinite)
        status = jnp.where(~tried.accept & lost, small, status)
        stuck = controller.stuck(_user_time(system, data, state), tried.dt)
        status = jnp.where(~tried.accept & stuck, jnp.where(solved, Status.dtmin, unsolved), status)
    elif system.events.live:  # without them, steps that are given are never rejected
        broken = jnp.where(finite & ~solved, unsolved, Status.nonfinite)
        status = jnp.where(tried.accept, status, broken)
    gives_up = method.gives_up(memory)
    if gives_up is not None:
        status = jnp.where(gives_up, Status.stiff, status)
    done = system.events.over(tried.end, tried.accept & reached)
    status = jnp.where(done, Status.success, status)
    full = partial(system.output.full, state.written, tried.cursors, tried.end.shown)
    if overflow := full(events=False):
        many = jnp.any(jnp.stack(overflow)) & ~done
        status = jnp.where(many & tried.accept, Status.too_many_saves, status)
    if overflow := full(events=True):
        many = jnp.any(jnp.stack(overflow))
        status = jnp.where(many & tried.accept, Status.too_many_events, status)
    return system.events.status(tried.end, tried.accept, status).astype(jnp.int32)

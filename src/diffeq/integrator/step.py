"""`attempt`: a step that the controller proposes and judges; and the state after it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from ..autodiff.batch_last import if_unbatched
from ..autodiff.trace_once import trace_once
from ..brownian import StepDraw
from ..controllers import Controller, Verdict
from ..core.norm import in_dtype_of
from ..core.status import Status
from ..events import StepPlan
from ..methods import Method, Step
from ..problems.discontinuities import PropagatedDiscontinuity
from ..problems.history import History, PastAccess
from .inside_step import InsideStep, evaluate_inside
from .restart import (
    clip_to_discontinuity,
    is_at_stop,
    needs_restart,
    next_discontinuity,
    restart,
    right_limit_form,
    target_of,
)
from .state import Attempt, Data, Decision, Integrator, Memory, State, time_direction, with_held
from .take_step import (
    JudgedStep,
    StepStart,
    TakenStep,
    end_time,
    is_compensated,
    step_form,
    take_step,
)

__all__ = ["attempt", "is_sound"]

type Past = tuple[History, Bool[Array, ""]]
"""What the field looks at, and whether the attempt is to be added to it."""


def attempt(
    integrator: Integrator,
    data: Data,
    state: State,
    decision: Decision | None = None,
    past: Past | None = None,
) -> tuple[State, Attempt]:
    """One attempt: the state after it, accepted or not. A `Decision` that was recorded is followed,
    so that a second run never takes another path than the first. `past` is what the field looks at,
    and whether the attempt is to be added to it.
    """
    return trace_once(
        integrator.traces, "attempt", partial(_attempt, integrator), data, state, decision, past
    )


def _attempt(
    integrator: Integrator, data: Data, state: State, decision: Decision | None, past: Past | None
) -> tuple[State, Attempt]:
    data = with_held(data, state.held)
    history, active = (None, True) if past is None else past
    form, method, controller = integrator.parts(data, history)
    if integrator.keeps_workspace:
        method = method.with_workspace(state.workspace)
    decision = decision or Decision()
    plan, draw, discontinuity = _proposed_plan(
        integrator, data, state, controller, decision, history
    )
    limited = step_form(integrator, data, form, state.t, plan)
    judge = partial(_judge, integrator, data, state, (limited, method, controller), plan)

    def remember(judged: JudgedStep, t1: Array) -> History | None:
        if history is None:
            return None
        row, on = form.shape.pack(judged.step.data.stored), judged.sound & active
        return history.with_step(row, jnp.where(on, t1, state.t), on)

    taken = take_step(integrator, data, (limited, method), _start_of(state), plan, judge, remember)
    judged, end, after_step = taken.judged, taken.end, taken.past
    events, accept = integrator.bound_events(data), judged.accept
    if events:
        still = lambda: restart(integrator, *lax.stop_gradient((data, after_step)))  # noqa: E731
        span = (state.t, plan.dt, taken.t1)
        end = events.settle_signs(plan.known, taken.truncation, span, end, still, accept)
    if after_step is not None:
        found, pasts = (form, discontinuity, plan.returned), (history, after_step, active)
        after_step = _past_after(integrator, data, state, found, pasts, taken._replace(end=end))
    cursors = integrator.output.cursors(data.times, state.written, taken.t1, accept, end.shown)
    tried = Attempt(
        plan.dt,
        taken.t1,
        accept,
        plan.landing,
        cursors,
        judged.step,
        end,
        plan.drawn,
        None if draw is None else draw.code,
        after_step,
        () if discontinuity is None else discontinuity,
        judged.inside,
    )
    path = state.path if draw is None else _path_after(integrator, data, plan, draw, taken)
    after = _after(integrator, data, state, plan, taken, tried)
    return _record_failure(replace(after, path=path), state, judged.step, judged.sound), tried


def _start_of(state: State) -> StepStart:
    """The start of the step that is attempted from a state."""
    return StepStart(state.t, state.y, state.memory, state.time_error)


def _proposed_plan(
    integrator: Integrator,
    data: Data,
    state: State,
    controller: Controller,
    decision: Decision,
    past: History | None,
) -> tuple[StepPlan, StepDraw | None, PropagatedDiscontinuity | None]:
    """The step that the controller proposes, cut to the next landing; or the one that was recorded.
    With it the noise that was drawn, and the next discontinuity that comes back.
    """
    events, known, fired = integrator.bound_events(data), state.events, None
    target = target_of(integrator, data, state.stop)
    if events:
        known, fired = events.events.followed(known, decision.flags)
        target = events.target(known, target)
    discontinuity = next_discontinuity(integrator, data, past, state.t, target)
    time = None if discontinuity is None else discontinuity.time
    target, returned = clip_to_discontinuity(data, time, target)
    remaining = (target - state.t) - state.time_error
    longest = integrator.noise.longest(state.dt) if integrator.noise else state.dt
    proposed = controller.propose(
        _user_time(integrator, data, state), longest, time_direction(integrator, data)
    )
    slack = 1.01 if controller.is_adaptive else 1 + float(jnp.finfo(proposed.dtype).eps) ** 0.5
    landing = proposed * slack >= remaining
    if decision.closes is not None:
        proposed, landing = _apply_decision(
            integrator, data, state, decision, proposed, landing, fired
        )
    proposed = lax.stop_gradient(proposed)
    draw, dt = None, jnp.where(landing, remaining, proposed)
    if integrator.noise:
        draw = integrator.noise.draw(
            (data.noise, data.presampled),
            state.path,
            proposed,
            landing,
            (target, remaining),
            decision.code,
        )
        dt, landing = draw.dt, draw.landing
    if events:
        dt, landing = events.paused(known, dt, landing)
    drawn = draw.drawn if draw else ()
    plan = StepPlan(
        dt, target, landing, drawn, known, fired, returned=returned, accepted=decision.accept
    )
    return plan, draw, discontinuity


def _path_after(
    integrator: Integrator, data: Data, plan: StepPlan, draw: StepDraw, taken: TakenStep
) -> Memory:
    """The path of the noise after the attempt."""
    path, events = draw.accepted, integrator.bound_events(data)
    if events:
        path = events.advance_noise(
            plan.known, taken.truncation, integrator.noise, data.noise, draw
        )
    return jax.tree.map(partial(jnp.where, taken.judged.accept), path, draw.rejected)


def _past_after(
    integrator: Integrator, data: Data, state: State, found: tuple, pasts: tuple, taken: TakenStep
) -> History:
    """The past with the discontinuities that are to come back after the step; with what the last
    attempt read that is not there (of given steps, the one that failed); and whether in any a jump
    at the start has come back at a time that is not known.
    """
    (form, discontinuity, returned), (before, past, active) = found, pasts
    (judged, t1), end = (taken.judged, taken.t1), taken.end
    on = judged.sound & active
    if discontinuity is not None and integrator.events:
        landed = jnp.where(end.landing & returned, discontinuity.lag, -1)
        jumped = integrator.events.affected(end.fired)
        discontinuities = before.discontinuities.after(
            before, (state.t, t1), data.lags, landed, on, jumped, integrator.levels
        )
        past = replace(past, discontinuities=discontinuities)
    made = active if state.failed is None else active & (state.failed < 0)
    accessed = judged.step.data.accessed
    if form.since is not None:
        back = on & (form.since(state.t, state.y) < 0) & (form.since(t1, end.y) > 0)
        jumped = jnp.where(jnp.any(back), PastAccess.jump, 0)
        accessed = accessed | (past.accessed & PastAccess.jump) | jumped
    return replace(past, accessed=jnp.where(made, accessed.astype(jnp.int32), past.accessed))


def _record_failure(after: State, before: State, step: Step, sound: Array) -> State:
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
    integrator: Integrator,
    data: Data,
    state: State,
    decision: Decision,
    proposed: Array,
    landing: Array,
    fired: Array | None,
) -> tuple[Array, Array]:
    """The dt to try, and true if it lands, as they were recorded."""
    closes = decision.closes & decision.accept
    left = (decision.end - state.t) + (decision.end_low - state.time_error)
    # A step that was cut off went further, and is cut off again where the condition crosses.
    if integrator.events:
        left = jnp.where(integrator.events.cuts(fired), jnp.maximum(proposed, left), left)
    proposed = jnp.where(closes, left, proposed)
    if integrator.has_stops or integrator.events:
        return proposed, decision.landing
    # Without stops there is one landing that is accepted: the end.
    return proposed, jnp.where(decision.accept, closes & (decision.end >= data.t1), landing)


def _judge(
    integrator: Integrator,
    data: Data,
    state: State,
    parts: tuple,
    plan: StepPlan,
    step: Step,
    polynomial: Callable,
) -> JudgedStep:
    """The step with its judgement: by its error, at its end and where it is interpolated, or as it
    was decided. Given steps are judged by whether they are finite and solved.
    """
    t1, _ = end_time(_start_of(state), plan.dt, plan.target, plan.landing)
    span = in_dtype_of(plan.dt, state.y), t1
    inside = evaluate_inside(integrator, data, state, parts, step, span)
    method, controller = parts[1:]
    if controller.is_adaptive:
        verdict, small, floored = _error_control(
            data, state, (method, controller), step, inside, plan.dt, plan.accepted
        )
        step, verdict = _hand_over(state, step, verdict, plan, small)
        verdict = verdict if step.again is None else _made_again(state, verdict, plan, step.again)
        sound = verdict.accept
    else:
        verdict = controller.judge(None, plan.dt, state.control, 1)
        sound, floored = is_sound(step, inside), jnp.zeros((), bool)
        verdict = verdict._replace(accept=sound)
    sound = sound if plan.accepted is None else plan.accepted
    accept = sound if state.failed is None else jnp.ones((), bool)
    polynomial = polynomial if inside.path is None else lambda: inside.path
    return JudgedStep(step, accept, sound, polynomial, inside, verdict, floored)


def _hand_over(
    state: State, step: Step, verdict: Verdict, plan: StepPlan, small: Bool[Array, ""]
) -> tuple[Step, Verdict]:
    """The step and its verdict where another method is to make it instead: rejected, with dt and
    the controller's state as they were. `small`, whether the error is small enough, tells in a
    second run why the step was rejected in the first.
    """
    if step.hands_over is None:
        return step, verdict
    if_accepted, if_rejected, memory = lax.stop_gradient(step.hands_over)
    hands_over = jnp.where(small, if_accepted, if_rejected)
    rejected = jax.tree.map(partial(jnp.where, hands_over), memory, step.rejected)
    return step._replace(rejected=rejected), _made_again(state, verdict, plan, hands_over)


def _made_again(state: State, verdict: Verdict, plan: StepPlan, again: Bool[Array, ""]) -> Verdict:
    """The verdict: where a step is to be made `again`, it is rejected, with dt and the controller's
    state as they were; not where it was recorded that it was accepted.
    """
    if plan.accepted is not None:
        again = again & ~plan.accepted
    choose = lambda new, old: jax.tree.map(partial(jnp.where, again), new, old)  # noqa: E731
    return verdict._replace(
        accept=verdict.accept & ~again,
        dt=choose(lax.stop_gradient(plan.dt), verdict.dt),
        state=choose(state.control, verdict.state),
    )


def is_sound(step: Step, inside: InsideStep) -> Bool[Array, ""]:
    """True if a step is finite, where it is interpolated too, and its equations are solved."""
    sound = jnp.isfinite(jnp.sum(step.y)) if step.y.ndim else jnp.isfinite(step.y)
    sound = sound if step.solved is None else sound & step.solved
    return sound if inside.finite is None else sound & inside.finite


def _error_control(
    data: Data,
    state: State,
    parts: tuple,
    step: Step,
    inside: InsideStep,
    dt: Array,
    accepted: Array | None,
) -> tuple[Verdict, Bool[Array, ""], Bool[Array, ""]]:
    """The controller's verdict on the error of a step; whether that error is small enough, and
    whether it is mostly rounding.
    """
    method, controller = parts
    step = lax.stop_gradient(step)
    error2, floored = data.tolerance.squared(
        step.error, lax.stop_gradient(state.y), step.y, controller.norm
    )
    error2 = error2 if inside.error2 is None else jnp.maximum(error2, inside.error2)
    error2 = error2 if inside.finite is None else jnp.where(inside.finite, error2, jnp.inf)
    error2 = error2 if step.solved is None else jnp.where(step.solved, error2, jnp.inf)
    # Behind a barrier it is limited once, and not in the kernel of each array of the next state.
    error2 = lax.optimization_barrier(error2.astype(dt.dtype))
    order = method.error_order if step.order is None else step.order
    judge = lambda error2: controller.judge(  # noqa: E731
        error2, lax.stop_gradient(dt), state.control, order
    )
    verdict = judge(error2)
    small = verdict.accept
    if accepted is not None:
        # Rounding may put an error that was all but 1 on the other side of it.
        above = 1 + jnp.finfo(dt.dtype).eps
        border = jnp.where(accepted, jnp.minimum(error2, 1), jnp.maximum(error2, above))
        verdict = judge(jnp.where(verdict.accept == accepted, error2, border))
    if step.growth is not None:
        grown = lax.stop_gradient(dt) * in_dtype_of(step.growth, dt)
        verdict = verdict._replace(dt=jnp.where(verdict.accept, grown, verdict.dt))
    return verdict, small, floored


def _resolution(dtype: np.dtype) -> float:
    """The smallest relative step that a time of this dtype can take."""
    eps = float(jnp.finfo(dtype).eps)
    return eps**2 if is_compensated(dtype) else eps


def _reached(t: Array, low: Array, end: Array) -> Array:
    """True at the end. A time that is rounded up to it is not there yet."""
    return (t - end) + low >= 0 if is_compensated(t.dtype) else t >= end


def _user_time(integrator: Integrator, data: Data, state: State) -> Array:
    """The time in the problem's own direction, which limits and lists of steps are given in."""
    sign = time_direction(integrator, data)
    return state.t if isinstance(sign, int) and sign == 1 else sign * state.t


def _after(
    integrator: Integrator,
    data: Data,
    state: State,
    plan: StepPlan,
    taken: TakenStep,
    tried: Attempt,
) -> State:
    """The next state. One select an array: a rejected attempt changes dt and the counters alone."""
    form, method, controller = integrator.parts(data, tried.past)
    accept, end, low, verdict = tried.accept, tried.end, taken.time_error, taken.judged.verdict
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)  # noqa: E731
    at_stop = accept & is_at_stop(integrator, data, state.stop, tried.t1, end.landing)
    memory, workspace = end.memory, tried.step.workspace
    if integrator.has_stops and jax.tree.leaves((memory, workspace)):
        fresh = right_limit_form(integrator, data, form, tried.t1)
        landed = accept & needs_restart(
            integrator, data, state.stop, tried.t1, end.landing, plan.returned
        )
        memory = lax.cond(landed, lambda: method.init(fresh, tried.t1, end.y), lambda: memory)
        if integrator.keeps_workspace:
            workspace = workspace.expired_where(landed)
    unmoved = state.memory if tried.step.rejected is None else tried.step.rejected
    memory = keep(memory, unmoved)
    steps = state.steps + accept
    rejected = state.rejected + ~accept
    status = _status(
        integrator,
        data,
        state,
        tried,
        verdict,
        method=method,
        controller=controller,
        attempts=steps + rejected,
        memory=memory,
        reached=_reached(tried.t1, low, data.t1),
    )
    evaluations = tried.step.evaluations
    # A landing cuts dt short; the step before it knows better how long the next can be.
    cut = accept & tried.landing & ((verdict.dt < state.dt) | (not controller.is_adaptive))
    dt, control = jnp.where(cut, state.dt, verdict.dt), verdict.state
    if integrator.events:
        dt = integrator.events.following(end, accept, tried.dt, state.dt, controller, dt)
        control = integrator.events.reset_controller(end, controller, control)
    return State(
        t=keep(tried.t1, state.t),
        time_error=keep(low, state.time_error),
        y=keep(end.y, state.y),
        held=keep(end.held, state.held),
        dt=dt,
        control=control,
        memory=memory,
        written=tuple(w + c.n for w, c in zip(state.written, tried.cursors, strict=True)),
        stop=state.stop + at_stop,
        events=keep(end.known, state.events),
        steps=steps,
        rejected=rejected,
        floored=state.floored + (accept & taken.judged.floored),
        last_dt=keep(lax.stop_gradient(end.dt), state.last_dt),
        status=status,
        evaluations=() if evaluations is None else state.evaluations + evaluations,
        path=state.path,
        failed=state.failed,
        why=state.why,
        workspace=workspace,
    )


def _status(
    integrator: Integrator,
    data: Data,
    state: State,
    tried: Attempt,
    verdict: Verdict,
    *,
    method: Method,
    controller: Controller,
    attempts: Array,
    memory: Memory,
    reached: Array,
) -> Array:
    status = jnp.where(attempts >= data.max_steps, Status.max_steps, Status.running)
    finite, unsolved = jnp.isfinite(jnp.sum(jnp.abs(tried.step.y))), Status.newton_failed
    finite = finite if tried.inside.finite is None else finite & tried.inside.finite
    solved = jnp.ones((), bool) if tried.step.solved is None else tried.step.solved
    if controller.is_adaptive:
        tiny = 2 * _resolution(state.t.dtype) * jnp.abs(state.t)
        tiny = jnp.maximum(tiny, jnp.finfo(state.t.dtype).tiny)
        tiny = integrator.noise.shortest(data.noise, tiny) if integrator.noise else tiny
        lost = verdict.dt <= tiny
        small = jnp.where(solved, Status.step_too_small, unsolved)
        small = jnp.where(finite, small, Status.nonfinite)
        status = jnp.where(~tried.accept & lost, small, status)
        stuck = controller.stuck(_user_time(integrator, data, state), tried.dt)
        status = jnp.where(~tried.accept & stuck, jnp.where(solved, Status.dtmin, unsolved), status)
    elif integrator.events:  # without them, steps that are given are never rejected
        broken = jnp.where(finite & ~solved, unsolved, Status.nonfinite)
        status = jnp.where(tried.accept, status, broken)
    gives_up = method.gives_up(memory)
    if gives_up is not None:
        status = jnp.where(gives_up, Status.stiff, status)
    done = tried.accept & reached
    done = integrator.events.over(tried.end, done) if integrator.events else done
    status = jnp.where(done, Status.success, status)
    full = partial(integrator.output.full, state.written, tried.cursors, tried.end.shown)
    if overflow := full(events=False):
        many = jnp.any(jnp.stack(overflow)) & ~done
        status = jnp.where(many & tried.accept, Status.too_many_saves, status)
    if overflow := full(events=True):
        many = jnp.any(jnp.stack(overflow))
        status = jnp.where(many & tried.accept, Status.too_many_events, status)
    if integrator.events:
        status = integrator.events.status(tried.end, tried.accept, status)
    return status.astype(jnp.int32)

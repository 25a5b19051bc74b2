"""The loop: step, judge, write, until the end. Every kind of equation passes through it.

`integrate` runs it. An adjoint that must replay it gives a `recorder`, which sees the state before
each attempt and what became of it; the loop knows no more of derivatives than that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from .control import initial_step
from .core.alarm import tripwire
from .core.graft import grafted
from .core.loop import loop
from .core.norm import in_dtype_of
from .core.primitive import alone, once
from .core.status import Status
from .core.walk import walk
from .events import NO_EVENTS, Anew
from .methods import Method, Step
from .methods.interpolant import Part
from .methods.mass import consistent, paces, slope_of
from .noise import Silent
from .output import Cursor, Output, Piece
from .problems.breaking import Echo, Echoes, echo_time
from .problems.history import History

__all__ = [
    "MOST_LAPS",
    "Attempt",
    "Data",
    "Decision",
    "Start",
    "State",
    "System",
    "attempt",
    "begin",
    "compensated",
    "failing",
    "integrate",
    "interpolated",
    "opened",
    "prepared",
    "replay",
    "settled",
    "started",
    "taking_turns",
    "told",
    "written",
]


MOST_LAPS = 64  # of methods that take turns


class Data(eqx.Module):
    """Everything traced that stays the same during a solve. `cells` and `marks` are what its noise
    has drawn ahead (`prepared`); `failed` is known when it is replayed.
    """

    parameters: Any
    held: Any
    sign: Any
    t0: Array
    t1: Array
    stops: Any
    events: Any
    tolerance: Any
    kept: Any
    method: Any
    controller: Any
    times: Any
    max_steps: Int[Array, ""]
    goal: Int[Array, ""]
    noise: Any = ()
    cells: Any = ()
    marks: Any = ()
    failed: Any = None
    lags: Any = ()  # of a field that looks at its past, as they are at the start


class State(eqx.Module):
    """Everything that goes from attempt to attempt. `low` completes t: their sum is the time.

    Steps that are given are one clock for all lanes of a batch: nothing of a lane but y, memory and
    `failed` (the number of the step that failed, or −1; `why` is the status of that) enters it, and
    what does not differ from lane to lane is not kept for each. A lane that has failed stays where
    it is while the clock goes on.
    """

    t: Array
    low: Array
    y: Array
    held: Any
    dt: Array
    control: Any
    memory: Any
    written: tuple
    stop: Int[Array, ""]
    events: Any
    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    floored: Int[Array, ""]
    last_dt: Array
    status: Int[Array, ""]
    evaluations: Any
    path: Any
    failed: Any
    why: Any

    def state(self, system: "System", data: Data) -> "State":
        """Itself: a solve may go on from a state as well as from a `Start`."""
        del system, data
        return self


@dataclass(frozen=True, eq=False)
class System:
    """Everything static: how to step, to judge and to write. Two are never equal, on purpose:
    one belongs to one trace.
    """

    form: Callable
    method: Any
    controller: Any
    output: Output
    has_stops: bool
    direction: int | None = None
    one_step: bool = False
    rows: int | None = None  # how many steps the past keeps, if the field looks at it
    levels: int = 0  # how often what an event has changed comes back by each of the lags
    meter: Any = None
    alarmed: bool = False
    raises: bool = False
    events: Any = NO_EVENTS
    algebraic: bool = False
    noise: Any = field(default_factory=Silent)
    phase: int = 0  # of a method that takes turns with another
    traces: dict = field(init=False, default_factory=dict)

    def parts(
        self, data: Data, past: Any = None, known: Any = None, *, final: bool = False
    ) -> tuple[Any, Any, Any]:
        """The form, the method and the controller with their arrays in place; with a past, if the
        field looks at one, and with the step that is `known`, when it is made again.
        """
        form = self.form(data.parameters, data.sign, data.held)
        final = final or not self.controller.decides
        method = eqx.combine(data.method, self.method).phases[self.phase]
        method = method.tuned(data.tolerance, final=final)
        return (
            form if self.rows is None else form.over(data.t0, past),
            method if known is None else method.knowing(known),
            eqx.combine(data.controller, self.controller),
        )

    @cached_property
    def phases(self) -> "tuple[System, ...]":
        """One for each of the methods that take turns; itself, where there is but one."""
        count = len(self.method.phases)
        return tuple(replace(self, phase=i) for i in range(count)) if count > 1 else (self,)

    def happenings(self, data: Data) -> Any:
        """The events with their parameters."""
        leaves = data.parameters[0][0]
        return self.events.bound(data.events, leaves, _sign(self, data), data.held)


class Attempt(NamedTuple):
    """What became of an attempt."""

    dt: Array
    t1: Array
    accept: Bool[Array, ""]
    landing: Bool[Array, ""]
    cursors: tuple[Cursor, ...]
    step: Any
    end: Any
    drawn: Any = ()
    code: Any = None
    past: Any = None
    echo: Any = ()  # what came back next, as it is written on a tape


class Decision(NamedTuple):
    """What is known of an attempt that is made again. Its dt is not: a tape of all of them would be
    as long as the solve. The controller finds it once more, from an error estimate that is mostly
    rounding where tolerances are tight, so that the second run drifts. The last step that was
    accepted before the next row of the tape therefore `closes` the gap, and ends where it did.
    """

    accept: Any = None
    landing: Any = None  # known where there are stops
    closes: Any = None
    end: Any = None
    end_low: Any = None
    flags: Any = None  # what happened, where there are events
    code: Any = None  # of a draw whose length is one of a few: its end follows from that


class Start(eqx.Module):
    """Where a solve starts: a `State` in the making. `dt` is None when it is to be found, and
    `status` says what is wrong with it, if anything.
    """

    t: Array
    y: Array
    held: Any
    dt: Any
    status: Int[Array, ""]

    def state(self, system: "System", data: Data) -> State:
        """The state before the first attempt."""
        data = beside(data, self.held)
        dt = lax.stop_gradient(self.first_step(system, data) if self.dt is None else self.dt)
        found = begin(system, data, self.t, self.y, dt)
        return failing(found, self.status > Status.running, self.status)

    def first_step(self, system: "System", data: Data) -> Array:
        """A dt to try first."""
        form, method, _ = system.parts(data)
        t, y, span, lags = lax.stop_gradient((self.t, self.y, data.t1 - self.t, data.lags))
        if system.rows is not None:
            form = form.as_known()
            span = jnp.minimum(span, jnp.min(lags, initial=jnp.inf))
        return initial_step(paces(form), t, y, span, method.error_order, data.tolerance)


def beside(data: Data, held: Any) -> Data:
    """The data with what is held now in place."""
    return replace(data, held=held) if jax.tree.leaves(held) else data


def failing(state: State, bad: Any, status: Any) -> State:
    """The state with a status, where something is bad and nothing failed before."""
    found = jnp.where(bad & (state.status <= Status.running), status, state.status)
    return replace(state, status=found.astype(jnp.int32))


def begin(system: System, data: Data, t0: Array, y0: Array, dt: Array) -> State:
    """The state before the first attempt."""
    form, method, controller = system.parts(data)
    zero = jnp.zeros((), jnp.int32)
    finite = jnp.isfinite(t0) & jnp.isfinite(data.t1)
    status = jnp.where(t0 >= data.t1, Status.success, Status.running)
    events = system.happenings(data)
    known = events.start(t0, y0, _anew(system, data))
    given = not controller.decides and not system.events.live
    return State(
        t=t0, low=jnp.zeros_like(t0), y=y0, held=data.held, dt=dt,
        control=controller.init(t0.dtype),
        memory=method.init(started(system, data, form, t0), t0, y0),
        written=system.output.first(data.times, events.shown(known, t0)),
        stop=jnp.sum(data.stops <= t0, dtype=jnp.int32) if system.has_stops else zero,
        events=known, steps=zero, rejected=zero, floored=zero, last_dt=jnp.zeros_like(t0),
        status=jnp.where(finite, status, Status.bad_times).astype(jnp.int32),
        evaluations=zero if method.evaluations is None else (),
        path=system.noise.start(data.noise, t0, dt),
        failed=jnp.full((), -1, jnp.int32) if given else None,
        why=jnp.full((), Status.nonfinite, jnp.int32) if given else None,
    )  # fmt: skip


def prepared(system: System, data: Data) -> Data:
    """The data with what the noise draws ahead, for the loop and for the rows that are saved."""
    each = zip(system.output.channels, data.times, strict=True)
    marks = [system.noise.marks(data.noise, ts) if c.kind == "times" else () for c, ts in each]
    return replace(data, cells=system.noise.ahead(data.noise), marks=tuple(marks))


def _sign(system: System, data: Data) -> Any:
    return data.sign if system.direction is None else system.direction


def _user_time(system: System, data: Data, state: State) -> Array:
    """The time in the problem's own direction, which limits and lists of steps are given in."""
    sign = _sign(system, data)
    return state.t if isinstance(sign, int) and sign == 1 else sign * state.t


def _target(system: System, data: Data, stop: Any) -> Array:
    """Where the next landing is: a stop, or the end."""
    if not system.has_stops:
        return data.t1
    return jnp.minimum(data.stops.at[stop].get(mode="fill", fill_value=jnp.inf), data.t1)


def _echo(system: System, data: Data, past: Any, t: Array, target: Array) -> Echo | None:
    """What comes back next of an event, if that is before the next landing."""
    if not system.levels:
        return None
    if past is None:  # where only shapes are wanted
        return Echo(jnp.full_like(t, jnp.inf), jnp.int32(-1), jnp.int32(0))
    return past.echoes.following(past, t, data.lags, target)


def _echoed(data: Data, time: Array | None, target: Array) -> tuple[Array, Any]:
    """The next landing, and whether it is where something comes back: that is first where an event
    is at the same time, which then has a step of length zero, so that each has its derivative.
    """
    if time is None:
        return target, False
    own = (time <= target) & (time < data.t1)
    return jnp.where(own, time, target), own


def _field_between(form: Any, low: Any, high: Any) -> Any:
    """The form with stage times held between two discontinuities; they move along with t."""

    def clipped(f: Callable) -> Callable:
        return lambda t, *ys: f(t + lax.stop_gradient(jnp.clip(t, low, high) - t), *ys)

    return form.mapped(clipped)


def _after_stop(data: Data, t: Array) -> Array:
    """The float after the last stop that is not after t; −inf where there is none."""
    stops, t = lax.stop_gradient((data.stops, t))
    return _beside(jnp.max(stops, where=stops <= t, initial=-jnp.inf), 1.0)


def _before_stop(data: Data, t: Array) -> Array:
    """The float before the first stop after t; inf where there is none."""
    stops, t = lax.stop_gradient((data.stops, t))
    return _beside(jnp.min(stops, where=stops > t, initial=jnp.inf), -1.0)


def _beside(t: Array, side: float) -> Array:
    tiny = side * float(jnp.finfo(t.dtype).tiny)  # a denormal may pass for zero
    beside = jnp.where(t == 0, tiny, jnp.nextafter(t, jnp.asarray(side * jnp.inf, t.dtype)))
    return jnp.where(jnp.isinf(t), t, beside)


def started(system: System, data: Data, form: Any, t: Array) -> Any:
    """The form for what starts at t: to the right of a stop, whatever the field is at the stop."""
    if not system.has_stops:
        return form
    return _field_between(form, _after_stop(data, t), None)


def _limited(system: System, data: Data, form: Any, t: Array) -> Any:
    """The form for a step from t: its limit from the right at a stop there, from the left at the
    next; also where a stage lies outside of its step, as in SOSRI and Kvaerno5.
    """
    if not system.has_stops:
        return form
    return _field_between(form, _after_stop(data, t), _before_stop(data, t))


def _anew(system: System, data: Data, past: Any = None) -> Anew:
    """How to go on after an event: as from a start, with the dt that was proposed, which is tried
    like any other (Hairer's first step, where a component is zero, would be far too short). `past`
    is all there is until then, if the field looks at it.
    """

    def at(t: Array, held: Any) -> tuple[Any, Any]:
        form, method, _ = system.parts(beside(data, held), past)
        return started(system, data, form, t), method

    def memory(t: Array, y: Array, held: Any) -> Any:
        form, method = at(t, held)
        return method.init(form, t, y)

    def rate(t: Array, y: Array, held: Any) -> Array:
        return slope_of(at(t, held)[0], t, y)

    def settled(t: Array, y: Array, held: Any) -> tuple[Array, Array]:
        return consistent(at(t, held)[0], t, y, data.kept)

    return Anew(memory, rate, settled if system.algebraic else None)


def attempt(
    system: System, data: Data, state: State, decision: Any = None, past: Any = None
) -> tuple[State, Attempt]:
    """One attempt: the state after it, accepted or not. A `Decision` that was recorded is followed,
    so that a second run never takes another path than the first. `past` is what the field looks at,
    and whether the attempt is to be added to it.
    """
    return once(system.traces, "attempt", partial(_attempt, system), data, state, decision, past)


def _attempt(
    system: System, data: Data, state: State, decision: Any, past: Any = None
) -> tuple[State, Attempt]:
    data = beside(data, state.held)
    seen: Any = (None, None) if past is None else past
    past, active = seen
    form, method, controller = system.parts(data, past)
    events = system.happenings(data)
    decision = decision or Decision()
    known, fired = system.events.followed(state.events, decision.flags)
    target = events.target(known, _target(system, data, state.stop))
    echo = _echo(system, data, past, state.t, target)
    target, comes = _echoed(data, None if echo is None else echo.time, target)
    remaining = (target - state.t) - state.low
    longest = system.noise.longest(state.dt)
    proposed = controller.propose(_user_time(system, data, state), longest, _sign(system, data))
    slack = 1.01 if controller.decides else 1 + float(jnp.finfo(proposed.dtype).eps) ** 0.5
    landing = proposed * slack >= remaining
    if decision.closes is not None:
        proposed, landing = _followed(system, data, state, decision, proposed, landing, fired)
    draw = system.noise.draw(
        (data.noise, data.cells), state.path, lax.stop_gradient(proposed), landing,
        (target, remaining), decision.code,
    )  # fmt: skip
    dt, landing = events.paused(known, draw.dt, draw.landing)
    limited = _limited(system, data, form, state.t)
    limited = system.noise.bound(limited, data.noise, draw.drawn, dt)
    scaled = in_dtype_of(dt, state.y)
    step = method.step(limited, state.t, state.y, scaled, state.memory)
    verdict, floored = _judge(method, controller, data, state, step, dt, decision.accept)
    sound = verdict.accept if decision.accept is None else decision.accept
    accept = sound if state.failed is None else jnp.ones((), bool)
    way = partial(method.interpolant, limited, state.t, state.y, scaled, step)
    start = (state.t, state.y)
    reach = events.reach(known, accept, start, dt, landing, way, fired)
    reach = reach._replace(alone=comes)
    t1, low = _advanced(state, reach.dt, target, reach.landing)
    span = (state.t, dt, t1)
    before, on = past, sound & active if past is not None else sound
    if past is not None:  # what follows an event may look at the step that led to it
        past = past.with_step(form.shape.pack(step.data.strip), jnp.where(on, t1, state.t), on)
    anew = _anew(system, data, past)
    t1, end = events.happen(known, reach, span, target, accept, step, anew, fired)
    still = lambda: _anew(system, *lax.stop_gradient((data, past)))  # noqa: E731
    end = events.settle(known, reach, span, end, still, accept)
    cursors = system.output.cursors(data.times, state.written, t1, accept, end.shown)
    if echo is not None and before is not None and past is not None:
        landed = jnp.where(end.landing & comes, echo.lag, -1)
        jumped = system.events.affected(end.fired)
        echoes = before.echoes.after(
            before, (state.t, t1), data.lags, landed, on, jumped, system.levels
        )
        past = replace(past, echoes=echoes)
    tried = Attempt(dt, t1, accept, landing, cursors, step, end, draw.drawn, draw.code, past,
                    () if echo is None else echo)  # fmt: skip
    after = _after(system, data, state, tried, verdict, low, floored)
    onward = events.onward(known, reach, system.noise, data.noise, draw)
    path = jax.tree.map(partial(jnp.where, accept), onward, draw.rejected)
    return _failing(replace(after, path=path), state, step, sound), tried


def _failing(after: State, before: State, step: Any, sound: Array) -> State:
    """The state after a given step: y stays from the first step on that fails."""
    if before.failed is None:
        return after
    first = ~sound & (before.failed < 0)
    failed, why = jnp.where(first, before.steps, before.failed), before.why
    if step.solved is not None:
        unsolved = jnp.isfinite(jnp.sum(jnp.abs(step.y))) & ~step.solved
        why = jnp.where(first & unsolved, Status.newton_failed, why).astype(jnp.int32)
    made = failed < 0
    status = jnp.where(alone(~made), why, after.status).astype(jnp.int32)
    kept = lambda x: (x.y, x.memory, x.evaluations)  # noqa: E731
    old, new = kept(before), kept(replace(after, y=step.y))
    y, memory, evaluations = jax.tree.map(partial(jnp.where, made), new, old)
    return replace(
        after, y=y, memory=memory, evaluations=evaluations, status=status, failed=failed, why=why
    )


def _followed(
    system: System, data: Data, state: State, decision: Decision, proposed: Array, landing: Array,
    fired: Any,
) -> tuple[Array, Array]:  # fmt: skip
    """What to try, and whether it lands, where that was decided before."""
    closes = decision.closes & decision.accept
    left = (decision.end - state.t) + (decision.end_low - state.low)
    # A step that was cut off went further, and is cut off again where the condition crosses.
    left = jnp.where(system.events.cuts(fired), jnp.maximum(proposed, left), left)
    proposed = jnp.where(closes, left, proposed)
    if system.has_stops or system.events.live:
        return proposed, decision.landing
    # Without stops there is one landing that is accepted: the end.
    return proposed, jnp.where(decision.accept, closes & (decision.end >= data.t1), landing)


def _judge(
    method: Any, controller: Any, data: Data, state: State, step: Any, dt: Array, accepted: Any
) -> tuple[Any, Array]:
    if not controller.decides:
        finite = jnp.isfinite(jnp.sum(step.y)) if state.y.ndim else jnp.isfinite(step.y)
        finite = finite if step.solved is None else finite & step.solved
        verdict = controller.judge(None, dt, state.control, 1)
        return verdict._replace(accept=finite), jnp.zeros((), bool)
    step = lax.stop_gradient(step)
    error2, floored = data.tolerance.squared(
        step.error, lax.stop_gradient(state.y), step.y, controller.norm
    )
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


def compensated(dtype: Any) -> bool:
    """Whether the rounding errors of time are kept: what a double loses, no one can see."""
    return dtype != jnp.float64


def _advanced(state: State, dt: Array, target: Array, landing: Array) -> tuple[Array, Array]:
    """T + dt with the rounding error kept (Kahan–Babuška); exactly the target when landing."""
    if not compensated(state.t.dtype):
        return jnp.where(landing, target, state.t + dt), state.low
    increment = dt + state.low
    total = state.t + increment
    back = total - state.t
    lost = (state.t - (total - back)) + (increment - back)
    return jnp.where(landing, target, total), jnp.where(landing, 0, lax.stop_gradient(lost))


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
        at_stop = at_stop & (_target(system, data, state.stop) == tried.t1)
        landed = at_stop | (landed & (tried.echo.time == tried.t1)) if system.levels else at_stop
    memory = end.memory
    if system.has_stops and jax.tree.leaves(memory):
        fresh = started(system, data, form, tried.t1)
        memory = lax.cond(landed, lambda: method.init(fresh, tried.t1, end.y), lambda: memory)
    steps = state.steps + accept
    rejected = state.rejected + ~accept
    status = _status(system, controller, data, state, tried, verdict, steps + rejected)
    tired = method.tired(tried.step)
    if tired is not None:
        gives_up = accept & tired & (status == Status.running)
        status = jnp.where(gives_up, Status.stiff, status).astype(jnp.int32)
    evaluations = tried.step.evaluations
    # A landing cuts dt short; the step before it knows better how long the next can be.
    cut = accept & tried.landing & ((verdict.dt < state.dt) | (not controller.decides))
    following = partial(system.events.following, end, accept, tried.dt, state.dt, controller)
    return State(
        t=keep(tried.t1, state.t), low=keep(low, state.low), y=keep(end.y, state.y),
        held=keep(end.held, state.held),
        dt=following(jnp.where(cut, state.dt, verdict.dt)),
        control=system.events.afresh(end, controller, verdict.state),
        memory=keep(memory, state.memory),
        written=tuple(w + c.n for w, c in zip(state.written, tried.cursors, strict=True)),
        stop=state.stop + at_stop, events=keep(end.known, state.events),
        steps=steps, rejected=rejected,
        floored=state.floored + (accept & floored),
        last_dt=keep(lax.stop_gradient(end.dt), state.last_dt), status=status,
        evaluations=() if evaluations is None else state.evaluations + evaluations,
        path=state.path, failed=state.failed, why=state.why,
    )  # fmt: skip


def _status(
    system: System,
    controller: Any,
    data: Data,
    state: State,
    tried: Attempt,
    verdict: Any,
    attempts: Array,
) -> Array:
    status = jnp.where(attempts >= data.max_steps, Status.max_steps, Status.running)
    finite, unsolved = jnp.isfinite(jnp.sum(jnp.abs(tried.step.y))), Status.newton_failed
    solved = jnp.ones((), bool) if tried.step.solved is None else tried.step.solved
    if controller.decides:
        tiny = 2 * jnp.finfo(state.t.dtype).eps * jnp.abs(state.t)
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
    done = system.events.over(tried.end, tried.accept & (tried.t1 >= data.t1))
    status = jnp.where(done, Status.success, status)
    full = partial(system.output.full, state.written, tried.cursors, tried.end.shown)
    if overflow := full(events=False):
        many = jnp.any(jnp.stack(overflow)) & ~done
        status = jnp.where(many & tried.accept, Status.too_many_saves, status)
    if overflow := full(events=True):
        many = jnp.any(jnp.stack(overflow))
        status = jnp.where(many & tried.accept, Status.too_many_events, status)
    return system.events.status(tried.end, tried.accept, status).astype(jnp.int32)


def _write(system: System, data: Data, t: Array, y: Array, tried: Attempt, buffers: list) -> list:
    """The buffers with the rows of an attempt from (t, y)."""
    output = system.output
    if not output.channels:
        return buffers
    tried = tried if system.events.live else tried._replace(end=None)

    def save(active: Any, _: Any, consts: Any, buffers: list, *__: Any) -> tuple[list, Any]:
        del active
        data, t, y, tried = consts
        piece = _piece(system, data, t, y, tried)
        marks = data.marks or [()] * len(data.times)
        rows = [(ts, *known) for ts, known in zip(data.times, marks, strict=True)]
        return output.write(data, rows, tried.cursors, piece, buffers), ()

    # A walk of at most one turn: a step in which nothing is saved makes no polynomial. Lanes that
    # save nothing have no rows to write, so that no buffer needs a mask.
    buffers, _ = walk(
        save, 0, output.any(tried.cursors), consts=(data, t, y, tried), carry=buffers,
        length=1, masked=False,
    )  # fmt: skip
    return buffers


def _piece(system: System, data: Data, t: Array, y: Array, tried: Attempt) -> Piece:
    """What output sees of an attempt."""
    end, interpolant = tried.end, None if tried.end is None else tried.end.path
    if system.output.needs_interpolant and interpolant is None:
        form, method, _ = system.parts(data)
        form = _limited(system, data, form, t)
        form = system.noise.bound(form, data.noise, tried.drawn, tried.dt)
        interpolant = method.interpolant(form, t, y, in_dtype_of(tried.dt, y), tried.step)
    if end is None:
        held = (data.held, data.held)
        return Piece(t, tried.t1, y, tried.step.y, tried.dt, interpolant, held)
    if end.path is not None:
        interpolant = Part(interpolant, end.theta)
    dt = jnp.where(end.dt > 0, end.dt, 1)
    held, happened = (data.held, end.held), system.events.happened(end)
    return Piece(t, tried.t1, y, end.y, dt, interpolant, held, happened)


def blank(system: System, data: Data, state: "State | Start") -> list:
    """The output buffers before the first step."""
    output = system.output
    if not output.channels:
        return []
    known = isinstance(state, State)
    written = state.written if known else _written_at_start(system, data, state)
    example = _example(system, data, state)
    return output.blank(data, state.t, state.y, state.held, example, written)


def _written_at_start(system: System, data: Data, start: Start) -> tuple:
    """The rows that are there before the first step, which an event may change."""
    data = beside(data, start.held)
    events = system.happenings(data)
    known = events.start(start.t, start.y, _anew(system, data))
    return system.output.first(data.times, events.shown(known, start.t))


def _example(system: System, data: Data, state: "State | Start") -> Any:
    """The shapes of one dense row."""
    if all(c.kind != "dense" for c in system.output.channels):
        return None

    def row(data: Data, state: Any) -> Any:
        data, state = prepared(system, data), state.state(system, data)
        data = beside(data, state.held)
        _, tried = attempt(system, data, state)
        tried = tried if system.events.live else tried._replace(end=None)
        piece = _piece(system, data, state.t, state.y, tried)
        return state.t, tried.t1, piece.interpolant, data.held

    return jax.eval_shape(row, data, state)


def integrate(
    system: System, data: Data, state: State, recorder: Any = None
) -> tuple[State, list, Any]:
    """Runs the loop to the end: the last state, the output buffers, and what the recorder kept."""

    def running(data: Data, state: State, _: Any) -> Any:
        on = state.status == Status.running
        return on & (state.steps < data.goal) if system.one_step else on

    def turn(system: System, active: Any, data: Data, state: State, carried: Any) -> Any:
        buffers, record, (shown, past, lap) = carried
        seen = None if past is None else (past, active)
        after, tried = attempt(system, data, state, past=seen)
        past = tried.past
        tried = tried._replace(
            accept=tried.accept & active,
            cursors=tuple(Cursor(c.lo, jnp.where(active, c.n, 0)) for c in tried.cursors),
            end=system.events.only_if(active, tried.end),
            past=None,
        )
        write = partial(_write, system)
        now = beside(data, state.held)
        buffers = once(system.traces, "write", write, now, state.t, state.y, tried, buffers)
        if recorder is not None:
            record = recorder.write(record, state, tried)
        if system.meter is not None:
            shown = system.meter.report(_percent(data, after), shown)
        return after, (buffers, record, (shown, past, lap))

    buffers = blank(system, data, state)
    shown = jnp.int32(-1) if system.meter is not None else ()
    rest = (shown, opened(system, data, recorder), jnp.int32(0))
    if recorder is None:
        carried = (buffers, (), rest)
        end, (buffers, _, (_, past, _)) = taking_turns(system, running, turn, data, state, carried)
        record = None
    else:
        end, buffers, record, (_, past, _) = recorder.run(running, turn, data, state, buffers, rest)
    end = settled(system, data, state, end)
    if past is not None:
        end = _explained(system, data, end, past)
        record = record if recorder is None else (record, past)
    return end, buffers, record


def taking_turns(
    system: System, running: Any, turn: Any, data: Data, state: State, carried: Any,
    noted: Any = None,
) -> Any:  # fmt: skip
    """The loop, with `turn(system, active, data, state, carried)`.

    Where methods take turns it is a loop over laps, in which each of them has a loop of its own,
    that goes on until another is to make the next step. A branch inside of one loop would be paid
    for at every turn. `noted(record, lap, phase)` is the record at the end of such a loop. From the
    last lap on the last method stays, so that there are never many.
    """
    phases = system.phases
    if len(phases) == 1:
        return loop(running, partial(turn, system), state, carried, consts=data)
    last = len(phases) - 1

    def own(phase: int, consts: Any, state: State, carried: Any) -> Any:
        data, stays = consts
        on = system.method.phase(state.memory) == phase
        return running(data, state, carried) & (on | stays if phase == last else on)

    def one(phase: int, active: Any, consts: Any, state: State, carried: Any) -> Any:
        return turn(phases[phase], active, consts[0], state, carried)

    def lap(active: Any, data: Data, state: State, carried: Any) -> Any:
        del active
        buffers, record, rest = carried
        number = rest[2]
        consts = (data, number >= MOST_LAPS - 1)
        for i in range(len(phases)):
            state, (buffers, record, rest) = loop(
                partial(own, i), partial(one, i), state, (buffers, record, rest), consts=consts
            )
            record = record if noted is None else noted(record, number, i)
        return state, (buffers, record, (*rest[:2], number + 1))

    return loop(running, lap, state, carried, consts=data)


def opened(system: System, data: Data, recorder: Any) -> Any:
    """The past before the first attempt, if the field looks at one: of a tape, with room for each
    of its rows.
    """
    if system.rows is None:
        return None
    form, _, _ = system.parts(data)
    echoes = Echoes.none(system.rows, data.lags.shape[0]) if system.levels else ()
    return History.blank(form.shape, recorder.rows + 1 if recorder else system.rows, echoes)


def _explained(system: System, data: Data, state: State, past: Any) -> State:
    """The status of a solve that failed for what the field asked of its past."""
    form, _, _ = system.parts(beside(data, state.held), past)
    fields = [("beyond_present", jnp.nan, 0.0), ("history_overflow", 0.0, jnp.nan)]

    def sound(future: Any, lost: Any) -> Any:
        some = form.shape.filled(1.0)
        found = form.bind(state.t, jnp.inf, some, future=future, lost=lost).functions()
        values = [jnp.sum(f(state.t, state.y)) for f in found.values()]
        return jnp.isfinite(sum(values))

    checks = jnp.array([(0.0, 0.0), *((f, l) for _, f, l in fields)], state.t.dtype)
    fine, *found = jax.vmap(sound)(*checks.T)
    for (name, _, _), ok in zip(fields, found, strict=True):
        broke = (state.status >= Status.max_steps) & (state.status < Status.bad_times)
        asked = broke & fine & ~ok
        status = jnp.where(asked, Status[name], state.status).astype(jnp.int32)
        state = replace(state, status=status)
    return state


def told(state: State) -> Array:
    """The status of a state in the middle of a loop, where a lane may have failed while the clock
    of all goes on.
    """
    if state.failed is None:
        return state.status
    return jnp.where(state.failed >= 0, state.why, state.status)


class _Still(Method):
    """Stays where it is: what runs a clock alone."""

    def step(self, form: Any, t: Array, y: Array, dt: Array, memory: Any) -> Step:
        """No step."""
        return Step(y, None, (), ())


def settled(system: System, data: Data, first: State, end: State) -> State:
    """The end of a solve by given steps: in a lane that failed, the clock is set back to where that
    was. It is run again for that, so that no lane has to keep it in every turn.
    """
    if end.failed is None:
        return end
    still = replace(system, method=_Still(), noise=Silent(), meter=None)
    data = replace(data, method=still.method, noise=())
    count = end.failed

    def before(consts: Any, state: State, _: Any) -> Any:
        return state.steps < consts[1]

    def turn(active: Any, consts: Any, state: State, _: Any) -> Any:
        del active
        return _attempt(still, consts[0], state, None)[0], ()

    start = replace(first, y=end.y, memory=(), path=(), evaluations=())
    there, _ = loop(before, turn, start, consts=(data, count))
    there = replace(
        there, y=end.y, memory=end.memory, path=end.path, evaluations=end.evaluations,
        failed=count, why=end.why, rejected=end.rejected + 1, status=end.why,
    )  # fmt: skip
    return jax.tree.map(partial(jnp.where, count >= 0), there, end)


def _percent(data: Data, after: State) -> Array:
    """How much of the way is done, in percent; all of it when nothing more will come."""
    left = (data.t1 - after.t) / (data.t1 - data.t0)
    done = after.status != Status.running
    return jnp.where(done, 100, jnp.clip(100 * (1 - left), 0, 99)).astype(jnp.int32)


def _grafted(value: Array, like: Array) -> Array:
    """`value` with the derivative of `like`, if it is a number that has one."""
    return grafted(value, like) if jnp.issubdtype(value.dtype, jnp.inexact) else value


def _unless_rejected(accept: Array, x: Array, safe: Array) -> Array:
    """`safe` in a rejected attempt, with the derivative of x."""
    value = jnp.where(accept, x, safe)
    return _grafted(value, x)


def _remembered(method: Any, form: Any, t: Array, y: Array, row: Any, memory: Any) -> Any:
    """The memory at (t, y), known or recorded, with the derivative that the step before left."""
    if method.multistep:
        return memory  # the past itself, recorded like y
    known = method.init(form, t, y)
    if method.remembers:  # the value that was recorded, with the derivative of the same quantity
        known = jax.tree.map(lambda a, b: a + lax.stop_gradient(b - a), known, row.memory)
    return jax.tree.map(_grafted, known, memory)


def replay(
    system: System, data: Data, harmless: tuple[Array, Array, Any], row: Any, cursors: Any,
    carried: tuple[Array, Array, Any, Any, list, list], past: Any = None,
) -> tuple[Array, Array, Any, Any, list, list]:  # fmt: skip
    """The recorded attempt again, as a differentiable function of data and of what the step before
    has left: t, y, what is held beside it, the method's memory, the rows of output, and the rows of
    the past.

    dt is what it was, except that a step that landed follows its target. A rejected attempt is a
    step of dt = 0, which changes nothing, from a `harmless` (t, y, held): zero times what is
    infinite at the state where a solve broke down would be NaN, for all that share its parameters.
    The memory at (t, y) is known, or recorded; only its derivative comes from the step before.
    `past` is what is known of the past: the ends of its rows, the number of this one, and it.
    """
    *start, memory, buffers, rows = carried
    accept = row.accept  # not that of a lane which had ended, nor of one which had failed
    if data.failed is not None:
        accept = accept & ((data.failed < 0) | (row.step < data.failed))
    if system.alarmed:
        start[1] = tripwire(start[1], start[0])
    t, y, held = jax.tree.map(partial(_unless_rejected, accept), tuple(start), harmless)
    data = beside(data, held)
    before, made = None, None
    if past is not None:
        ends, count, made = past
        made = [jnp.where(accept, x, 0) for x in made]
        before = History(ends, rows, count)
    form, method, _ = system.parts(data, before, made, final=True)
    events = system.happenings(data)
    known, fired, theta = system.events.read(row)
    comes = echo_time(before, t, data.lags, *row.echo) if system.levels else None
    target = events.target(known, _target(system, data, row.stop))
    target, _ = _echoed(data, comes, target)
    landed = accept & row.landing
    whole = system.noise.length(data.noise, row.drawn, row.dt)
    whole = jnp.where(row.landing, target - t, whole)
    dt, landed = events.paused(known, jnp.where(accept, whole, 0), landed)
    limited = _limited(system, data, form, t)
    limited = system.noise.bound(limited, data.noise, row.drawn, whole, accept)
    memory = _remembered(method, limited, t, y, row, memory)
    scaled = in_dtype_of(dt, y)
    step = method.step(limited, t, y, scaled, memory)
    t1 = jnp.where(landed, target, t + dt)
    if before is not None:
        before = before.with_row(form.shape.pack(step.data.strip), accept)
        rows = before.rows
    t1, end = events.again(
        known, fired, theta, (t, dt, t1), landed, step,
        partial(method.interpolant, limited, t, y, scaled, step),
        _anew(system, data, before),
    )  # fmt: skip
    after = jax.tree.map(partial(jnp.where, accept), end.memory, memory)
    if before is not None:
        form, _, _ = system.parts(data, before)
    if system.has_stops and jax.tree.leaves(after):
        anew = method.init(started(system, data, form, t1), t1, end.y)
        at_stop = end.landing & (t1 < data.t1)
        if system.events.live:
            stopped = _target(system, data, row.stop) == t1
            at_stop = at_stop & (stopped if comes is None else stopped | (comes == t1))
        after = jax.tree.map(lambda a, b: jnp.where(at_stop, a, b), anew, after)
    shown = jnp.where(accept, dt, 1)
    tried = Attempt(shown, t1, accept, row.landing, cursors, step, end, row.drawn)
    write = partial(_write, system)
    buffers = once(system.traces, "write", write, data, t, y, tried, buffers)
    return t1, end.y, end.held, after, buffers, rows


def written(system: System, data: Data, state: State, tried: Attempt, buffers: list) -> list:
    """The buffers with the rows of an attempt that was made from a state."""
    return _write(system, beside(data, state.held), state.t, state.y, tried, buffers)


def interpolated(
    system: System, data: Data, t: Array, y: Array, t1: Array, step: Any = None
) -> Any:
    """A step from (t, y) to t1 as a polynomial; the step itself is made again, unless given."""
    form, method, _ = system.parts(data)
    limited = _limited(system, data, form, t)
    dt = in_dtype_of(t1 - t, y)
    step = method.step(limited, t, y, dt, method.init(limited, t, y)) if step is None else step
    return method.interpolant(limited, t, y, dt, step)

"""Applies events at the end of a step: which of them happen, in which order, and the state after
them.

A step is cut where the first condition crosses; or it has landed on a given time; or it has simply
ended. All events that happen there are applied in the order of the user's list, each to the state
that the previous one returned. A condition that an affect makes true happens at the same instant:
it is `pending`, and the next iteration of the loop is no step (its dt is 0) but the next round.
Given times that coincide are rounds of their own, with steps of length zero between them, so that
each keeps its own derivative.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, PyTree

from ..autodiff.dynamic_scan import walk
from ..autodiff.while_loop import loop
from ..brownian import Noise, StepDraw
from ..core.norm import in_dtype_of, next_above, rounding
from ..core.packing import Packing
from ..core.status import Status
from ..methods import Step
from ..methods.brownian_bridge import Bridge
from ..problems.lowering import flip_time
from .condition_signs import Watch
from .first_passage import first_passage
from .locate import ConditionSign, Crossing, crossing_at_end, first_crossing, located
from .lowered import (
    LoweredAfterStep,
    LoweredCrossing,
    LoweredEvent,
    LoweredPeriodic,
    LoweredPreset,
    Parameters,
)
from .step_end import (
    EventMemory,
    Happened,
    OutputWindow,
    RecordedStep,
    Reinitialization,
    StepController,
    StepEnd,
    StepPlan,
    StepTruncation,
)

__all__ = ["BoundEvents", "Events"]

# After so many rounds at one time the solve ends with the status `zeno`.
_ZENO = 256


class Events:
    """All events of a solve, static: traced functions, and where each one's flags are.

    Flags are in the order: conditions, lists of times, conditions after steps.
    """

    def __init__(
        self,
        parts: tuple[LoweredEvent, ...],
        packing: Packing,
        lost: Status = Status.nonfinite,
        *,
        noisy: bool = False,
        untracked_discontinuities: bool = False,
    ) -> None:
        self.parts, self.packing, self.lost, self.noisy = parts, packing, lost, noisy
        affects = any(part.affect for part in parts)
        self.untracked_discontinuities = untracked_discontinuities and affects
        self.crossings = [p for p in parts if isinstance(p, LoweredCrossing)]
        self.afters = [p for p in parts if isinstance(p, LoweredAfterStep)]
        self.lists = [p for p in parts if isinstance(p, LoweredPreset | LoweredPeriodic)]
        none = np.zeros(0, np.int32)
        conditions = [p.condition for p in self.crossings]
        self.direction = np.concatenate([none, *(c.direction for c in conditions)])
        self.level = np.concatenate([none.astype(bool), *(c.level for c in conditions)])
        self.count = sum(p.count for p in self.crossings)
        ends = [np.full(p.count, p.terminal) for p in self.crossings]
        self.terminal = np.concatenate([none.astype(bool), *ends])  # that is an end, and no more
        # A path with noise has no slope that would say to which side of a zero it goes.
        steady = [np.full(c.count, not (noisy and c.traced.uses(0))) for c in conditions]
        self.sloped = np.concatenate([none.astype(bool), *steady])
        # A condition without noise, such as a jump's hazard, is differentiated, and so located to
        # rounding: with one of them, all are evaluated at any place.
        certain = any(p.fixed for p in self.crossings) or self.sloped.any()
        self.only_passages = bool(self.crossings) and noisy and not certain
        start = 0
        self.flags: dict[int, slice] = {}
        for part in (*self.crossings, *self.lists, *self.afters):
            self.flags[part.place] = slice(start, start + part.count)
            start += part.count
        self.all = start
        self.number = {part.place: i for i, part in enumerate(self.lists)}

    @property
    def bits(self) -> int:
        """The number of flags that a second run has to follow."""
        return 1 + self.all

    def decided(self, known: EventMemory, end: StepEnd) -> Array:
        """Those flags: True for a round without a step, and the events that happened."""
        return jnp.concatenate([jnp.any(known.pending)[None], end.fired])

    def followed(
        self, known: EventMemory, flags: Bool[Array, " flags"] | None
    ) -> tuple[EventMemory, Bool[Array, " events"] | None]:
        """Returns the memory, and flags of the events that happen, in a second run that was given
        `flags`; without flags, None for the latter.
        """
        if flags is None:
            return known, None
        waiting, fired = flags[0], flags[1:]
        return known._replace(pending=fired[: self.count] & waiting), fired

    def cuts(self, fired: PyTree) -> Array:
        """True if a step is cut off where a condition crosses."""
        return jnp.any(fired[: self.count])

    # --- on the tape ---

    def is_waiting(self, known: EventMemory) -> Array:
        """True before a round without a step."""
        return jnp.any(known.pending)

    def coded(self, known: EventMemory, end: StepEnd) -> list[Array]:
        """Returns the memory before a step, and the flags of the events at its end, as integers."""
        return [jnp.atleast_1d(x).astype(jnp.int32) for x in jax.tree.leaves((known, end.fired))]

    def read(self, row: RecordedStep) -> tuple[EventMemory, Array, Array]:
        """Returns the memory, the flags of the events that happened, and their θ, from the ends of
        the row of a tape.
        """
        k, s = self.count, len(self.lists)
        sizes = [k, k, k, s, 1, 1, self.all]
        whole = row.whole[row.whole.shape[0] - sum(sizes) :]
        side, on, pending, index, stalled, ending, fired = jnp.split(whole, np.cumsum(sizes)[:-1])
        known = EventMemory(
            ConditionSign(side, on == 1), pending == 1, index, stalled[0], ending[0] == 1
        )
        return known, (fired == 1) & row.accept, row.reals[-1]

    # --- for the loop ---

    def masked_by(self, active: Array, end: StepEnd) -> StepEnd:
        """Clears the flags of a batch element that is not `active`."""
        return end._replace(fired=end.fired & active)

    def over(self, end: StepEnd, done: Array) -> Array:
        """True if a solve that is `done` has no other round at its end."""
        return done & end.shown.settled

    def moved(self, old: EventMemory, new: EventMemory, still: Array) -> EventMemory:
        """Returns the memory of a state that replaced another; at the same time (`still`), given
        times that have passed stay so.
        """
        return new._replace(passed=jnp.where(still, old.passed, new.passed))

    def following(
        self,
        end: StepEnd,
        accept: Array,
        dt: Array,
        before: Array,
        controller: StepController,
        proposed: Array,
    ) -> Array:
        """The dt to go on with, where another was `proposed` after a step of dt, and one `before`
        it. A round without a step says nothing of it. Where most of a step was cut off, it was too
        long: what is left of it was rounded to the size of the whole. But a path with noise
        crosses again and again, and would be followed there to the last of its ticks.
        """
        if self.noisy and not controller.is_adaptive:
            return before  # the step may have been the rest of one that an event has cut
        if self.noisy or not controller.is_adaptive:
            return jnp.where(accept & (dt == 0), before, proposed)
        long = (end.dt < dt) & (end.known.stalled == 0)
        proposed = jnp.where(accept & long, jnp.minimum(proposed, 4 * end.dt), proposed)
        return jnp.where(accept & (dt == 0), before, proposed)

    def reset_controller(self, end: StepEnd, controller: StepController, memory: PyTree) -> PyTree:
        """Returns the controller's memory, initialized again after an event."""
        fresh = controller.init(end.dt.dtype)
        return jax.tree.map(lambda a, b: jnp.where(end.happened, a, b), fresh, memory)

    def status(self, end: StepEnd, accept: Array, status: Array) -> Array:
        """Returns the status of a terminal event once its instant is over, with all that happens
        there; or of instants that do not end.
        """
        known, most = end.known, _ZENO + 4 * self.count
        ended = accept & known.ending & end.shown.settled
        status = jnp.where(ended & (status <= Status.max_steps), Status.terminated, status)
        status = jnp.where(accept & (known.stalled > most), Status.zeno, status)
        return jnp.where(accept & end.lost, self.lost, status)

    def affected(self, fired: Array) -> Array:
        """True if any event happened that may have changed the state."""
        marks = np.zeros(self.all, bool)
        for part in self.parts:
            marks[self.flags[part.place]] = part.affect is not None
        return jnp.any(fired & marks)

    def happened(self, end: StepEnd) -> Happened:
        """Returns the events of a step as output records them."""
        return Happened(end.chain, self._flags(end.fired), end.rate)

    def _flags(self, fired: Array) -> tuple[Array, ...]:
        return tuple(fired[self.flags[part.place]] for part in self.parts)

    def check_differentiable(self) -> None:
        """Refuses conditions whose time has no derivative, and changes of which it is not known
        when they come back.
        """
        if self.untracked_discontinuities:
            raise TypeError(
                "an event changes the state of a delay equation, which comes back after each lag, "
                "and lags= does not say when, so what moves by that cannot be differentiated. "
                "Declare constant lags: numbers, or a function lags(args)."
            )
        for part in self.crossings:
            name = part.condition.traced.name
            if self.noisy and not part.fixed:
                raise TypeError(
                    f"{name} is crossed by a path with noise, which has no derivative by time, so "
                    "neither has the time of the crossing. Take de.AfterStep, or given times."
                )
            if not part.condition.smooth:
                raise TypeError(
                    f"{name} returns a boolean that is no comparison a < b "
                    "of numbers, so the time at which it becomes true has no derivative. Return a "
                    "number that changes sign there: a - b for a > b, jnp.minimum(a - b, c - d) "
                    "for (a > b) & (c > d), jnp.maximum for |."
                )

    def bound(
        self, own: tuple[Parameters, ...], leaves: list, sign: Array | int, held: tuple[Array, ...]
    ) -> "BoundEvents":
        """Returns the events with their parameters and the leaves that are held."""
        return BoundEvents(self, own, leaves, sign, held)


class BoundEvents:
    """Events with their parameters: `own` of each, the leaves of args, and the leaves that are held
    during the step.
    """

    def __init__(
        self,
        events: Events,
        own: tuple[Parameters, ...],
        leaves: list,
        sign: Array | int,
        held: tuple[Array, ...],
    ) -> None:
        self.events, self.own, self.leaves, self.sign = events, own, leaves, sign
        self.held = held

    def with_held(self, held: tuple[Array, ...]) -> "BoundEvents":
        """Returns the events with other held leaves."""
        return BoundEvents(self.events, self.own, self.leaves, self.sign, held)

    # --- the conditions, and the given times ---

    def _look(self, how: str, parts: list, tau: Array, y: Array) -> Array:
        t, tree = flip_time(self.sign, tau), self.events.packing.unpack(y, self.held)
        found = [
            getattr(p.condition, how)(self.own[p.place]["condition"], self.leaves, t, tree)
            for p in parts
        ]
        if not found:
            return jnp.zeros(0, bool if how == "truths" else tau.dtype)
        return jnp.concatenate([x.astype(jnp.result_type(*found)) for x in found])

    def numbers(self, tau: Array, y: Array) -> Array:
        """Evaluates the numbers that cross zero."""
        return self._look("numbers", self.events.crossings, tau, y)

    def truths(self, tau: Array, y: Array) -> Array:
        """Evaluates which conditions are true."""
        return self._look("truths", self.events.crossings, tau, y)

    def moving(self, tau: Array, y: Array, reinitialize: Reinitialization) -> tuple[Array, Array]:
        """Evaluates the numbers that cross zero, and their rate of change along the solution."""
        ones = (jnp.ones_like(tau), reinitialize.rate(tau, y, self.held))
        numbers, slopes = jax.jvp(self.numbers, (tau, y), ones)
        return numbers, slopes if self.events.sloped.all() else slopes * self.events.sloped

    def times(self, index: Array) -> list[Array]:
        """The next time of each list."""
        return [p.time(self.own[p.place], index[i]) for i, p in enumerate(self.events.lists)]

    def target(self, known: EventMemory, target: Array) -> Array:
        """The time of the next landing. Where a stop is at the same time, the landing is the
        event's, whose time depends on more.
        """
        nearest = jnp.full_like(target, jnp.inf)
        for time in self.times(known.passed):
            nearest = jnp.where(time < nearest, time, nearest)
        return jnp.where(nearest <= target, nearest, target)

    def paused(self, known: EventMemory, dt: Array, landing: Array) -> tuple[Array, Array]:
        """Sets dt to 0 while conditions are pending: no time passes before the instant is over."""
        waiting = jnp.any(known.pending)
        return jnp.where(waiting, 0, dt), landing & ~waiting

    def start(self, t: Array, y: Array, reinitialize: Reinitialization) -> EventMemory:
        """The memory before the first step. A true boolean happens; a zero is no crossing."""
        e, (n, slope) = self.events, self.moving(t, y, reinitialize)
        on = (n == 0) & e.sloped
        side = jnp.sign(jnp.where(on, slope, n)).astype(jnp.int32)
        true = self.truths(t, y) | (on & (slope > 0))
        true = jnp.asarray(e.level & true & (e.direction > 0))
        side = jnp.where(side == 0, -e.direction, side).astype(jnp.int32)
        index = [p.passed(self.own[p.place], t) for p in e.lists]
        zero = jnp.zeros((), jnp.int32)
        index = jnp.stack([zero, *index])[1:].astype(jnp.int32)
        return EventMemory(ConditionSign(side, on), true, index, zero, jnp.zeros((), bool))

    def shown(self, known: EventMemory, t: Array) -> Array:
        """The time up to which rows are shown at the start: t if no round follows, else −∞."""
        return jnp.where(self._settled(known, t), t, -jnp.inf)

    def _settled(self, known: EventMemory, t: Array) -> Array:
        """True if no other round follows at t."""
        overdue = [_is_due(time, t) for time in self.times(known.passed)]
        return ~jnp.any(jnp.stack([jnp.any(known.pending), *overdue]))

    # --- the truncation of a step ---

    def truncate(
        self, plan: StepPlan, accept: Array, start: tuple[Array, Array], polynomial: Callable
    ) -> StepTruncation:
        """Truncates the step of a plan at its first crossing, if there is one: a decision, which is
        not differentiated; or where it was recorded that it was cut.
        """
        (t, y), one = start, in_dtype_of(jnp.ones_like(plan.dt), start[1])
        if not self.events.crossings:
            none = jnp.zeros(0, bool)
            signs, cut = plan.known.signs, jnp.zeros((), bool)
            return StepTruncation(plan.dt, plan.landing, one, cut, none, none, signs, none)
        if plan.theta is None:
            return self._located(plan, accept, (t, y), polynomial())
        crossed = plan.fired[: self.events.count] & ~jnp.any(plan.known.pending)
        cut = jnp.any(crossed) & ~(plan.landing & (plan.theta >= 1))
        theta = jnp.where(cut, plan.theta, 1).astype(plan.dt.dtype)
        short, landing = jnp.where(cut, theta * plan.dt, plan.dt), plan.landing & ~cut
        return StepTruncation(short, landing, in_dtype_of(theta, y), cut, polynomial=polynomial())

    def _located(
        self,
        plan: StepPlan,
        accept: Array,
        start: tuple[Array, Array],
        path: Callable[[Array], Array],
    ) -> StepTruncation:
        """The step up to its first crossing on the path that its polynomial takes."""
        e, (t, y), dt, landing, fired = self.events, start, plan.dt, plan.landing, plan.fired
        known, waiting = plan.known, jnp.any(plan.known.pending)
        still, t0, length, line = self.still(), *lax.stop_gradient((t, dt, path))
        numbers = lambda theta, y: still.numbers(_time_at(t0, theta, length), y)  # noqa: E731
        values = lambda theta: numbers(theta, line(theta))  # noqa: E731
        moving = accept & ~waiting & (length > 0)
        ulps = 16 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t0 + length))
        slack = jnp.minimum(ulps / jnp.where(length > 0, length, 1), 1e-3)
        slack = in_dtype_of(slack, lax.stop_gradient(y))
        wanted = None if fired is None else fired[: e.count] & ~waiting
        if e.only_passages and isinstance(line, Bridge):
            found = first_passage(line, numbers, known.signs, e.direction, moving, slack.dtype)
        else:
            found = first_crossing(
                values, known.signs, e.direction, slack, wanted, moving, smooth=not e.noisy
            )
        found = self._with_crossings_at_end(
            known, found, values, slack, moving & landing, t0 + length
        )
        cut = moving & jnp.any(found.first) & ~(landing & (found.theta >= 1))
        signs = jax.tree.map(lambda a, b: jnp.where(moving, a, b), found.signs, known.signs)
        first = jnp.where(waiting, known.pending, found.first & moving)
        short = jnp.where(cut, found.theta.astype(dt.dtype) * dt, dt)
        return StepTruncation(
            short,
            landing & ~cut,
            found.theta,
            cut,
            first,
            found.crossed & moving,
            signs,
            found.scale,
            path,
            found.point,
        )

    def _with_crossings_at_end(
        self,
        known: EventMemory,
        found: Crossing,
        values: Callable,
        slack: Array,
        landing: Array,
        t1: Array,
    ) -> Crossing:
        """Adds the conditions that cross within rounding of a given time: they happen there, for
        the affect of that time may move the state away.
        """
        e = self.events
        lists = [i for i, part in enumerate(e.lists) if part.affect is not None]
        if not lists or e.noisy:
            return found
        times = self.times(known.passed)
        due = jnp.any(jnp.stack([_is_due(times[i], t1) for i in lists]))
        now = landing & due & ~jnp.any(found.first)
        also = now & crossing_at_end(values, found.signs, e.direction, slack)
        first = also & (jnp.cumsum(also) == 1)
        side = jnp.where(first, -found.signs.side, found.signs.side)
        return found._replace(
            first=found.first | first,
            crossed=found.crossed | also,
            signs=found.signs._replace(side=side),
        )

    def advance_noise(
        self,
        known: EventMemory,
        truncation: StepTruncation,
        noise: Noise | None,
        source: PyTree,
        draw: StepDraw,
    ) -> PyTree:
        """The noise's path after an attempt that is accepted: up to the cut, where the step was
        cut, and unchanged while no time passes.
        """
        if not self.events.crossings:
            return draw.accepted
        assert noise is not None
        pick = lambda flag, a, b: jax.tree.map(partial(jnp.where, flag), a, b)  # noqa: E731
        path = pick(
            truncation.cut,
            noise.cut(source, draw, truncation.theta, truncation.point),
            draw.accepted,
        )
        return pick(jnp.any(known.pending), draw.drawn.path, path)

    def still(self) -> "BoundEvents":
        """Returns the events with parameters, args and held leaves that have no derivative."""
        own, leaves, held = lax.stop_gradient((self.own, self.leaves, self.held))
        return BoundEvents(self.events, own, leaves, self.sign, held)

    # --- the events at the end of a step ---

    def happen(
        self,
        plan: StepPlan,
        truncation: StepTruncation,
        span: tuple[Array, Array, Array],
        accept: Array,
        step: Step,
        reinitialize: Reinitialization,
    ) -> tuple[Array, StepEnd]:
        """Applies all events of this round, or those that the plan has recorded; `span` is
        (t, dt, t1), dt of the whole step.
        """
        fired = plan.fired
        if fired is None:
            t, _, t1 = span
            y = step.y
            if self.events.afters and truncation.polynomial is not None:
                y = jnp.where(truncation.cut, truncation.state(truncation.theta), y)
            after = self._look("truths", self.events.afters, t1, y) & (t1 > t)
            landing = truncation.landing
            if plan.returned is not False:  # given times that are due there have to wait
                landing = landing & ~plan.returned
            due = self._due(plan.known.passed, landing, plan.target)
            fired = jnp.concatenate([truncation.first, due, after])
        return self._applied(plan.known, fired & accept, truncation, span, step, reinitialize)

    def _due(self, index: Array, landing: Array, target: Array) -> Array:
        """Flags the list of times that has its next here: of several the first one."""
        due, found = [], jnp.zeros((), bool)
        for time in self.times(index):
            now = landing & _is_due(time, target) & ~found
            found = found | now
            due.append(now)
        return jnp.stack(due) if due else jnp.zeros(0, bool)

    def _applied(
        self,
        known: EventMemory,
        fired: Array,
        truncation: StepTruncation,
        span: tuple[Array, Array, Array],
        step: Step,
        reinitialize: Reinitialization,
    ) -> tuple[Array, StepEnd]:
        """Applies the events of `fired`, as a function of everything else. Returns t1 and the end
        of the step.

        This is a walk of at most one iteration: a step in which no event happens costs nothing
        here.
        """
        e, (t, dt, t1) = self.events, span
        crossed = fired[: e.count] & ~jnp.any(known.pending)

        def happen(
            active: Bool[Array, ""], _: tuple, consts: tuple, carry: tuple, *__: tuple
        ) -> tuple[tuple, tuple[()]]:
            del active
            t, dt, polynomial, own, leaves = consts
            t1, y, held = carry[:3]
            bound = BoundEvents(e, own, leaves, self.sign, held)
            if e.crossings:
                x = (t, dt, polynomial, own, leaves, held, crossed, self.sign)
                residual = partial(_crossing_residual, e)
                root = located(residual, truncation.theta, truncation.cut, x)
                moved = (root - lax.stop_gradient(root)).astype(t.dtype)  # zero, but it moves
                t1 = jnp.where(truncation.cut, t1 + moved * dt, t1)
                cut = truncation._replace(polynomial=polynomial)
                y = jnp.where(truncation.cut, cut.state(root), y)
            chain = [(y, held)]
            for part in e.parts:
                flags = fired[e.flags[part.place]]
                chain.append(
                    bound._state_after(part, known.passed, t1, chain[-1], flags, reinitialize)
                )
            y, held = chain[-1]
            found = jnp.all(jnp.isfinite(y))
            y = jnp.where(found, y, lax.stop_gradient(chain[0][0]))
            memory, rate = reinitialize.memory(t1, y, held), reinitialize.rate(t1, y, held)
            return (t1, y, held, memory, tuple(chain), rate, ~found), ()

        chain = ((step.y, self.held),) * (len(e.parts) + 1)
        lost = jnp.zeros((), bool)
        carry = (t1, step.y, self.held, step.memory, chain, jnp.zeros_like(step.y), lost)
        consts = (t, dt, truncation.polynomial, self.own, self.leaves)
        n = jnp.any(fired).astype(jnp.int32)
        end, _ = walk(happen, 0, n, consts=consts, carry=carry, length=1)
        t1, y, held, memory, chain, rate, lost = end
        return t1, StepEnd(
            truncation.dt,
            truncation.landing,
            y,
            held,
            memory,
            theta=truncation.theta,
            fired=fired,
            chain=chain,
            rate=rate,
            path=truncation.polynomial,
            lost=lost,
        )

    def _state_after(
        self,
        part: LoweredEvent,
        index: Array,
        tau: Array,
        state: tuple,
        fired: Array,
        reinitialize: Reinitialization,
    ) -> tuple:
        """The state after an event, if it has fired. Where it has not, its affect is not evaluated:
        one event's NaN is not the derivative of another.
        """
        if part.affect is None:
            return state
        now = jnp.any(fired)
        if len(self.events.parts) == 1:
            after = self._affected(part, index, tau, state, fired, reinitialize)
            return jax.tree.map(lambda a, b: jnp.where(now, a, b), after, state)

        def affected(
            active: Bool[Array, ""], _: tuple, consts: tuple, state: tuple, *__: tuple
        ) -> tuple[tuple, tuple[()]]:
            del active, consts
            return self._affected(part, index, tau, state, fired, reinitialize), ()

        return walk(affected, 0, now.astype(jnp.int32), carry=state, length=1)[0]

    def _affected(
        self,
        part: LoweredEvent,
        index: Array,
        tau: Array,
        state: tuple,
        fired: Array,
        reinitialize: Reinitialization,
    ) -> tuple:
        """The state after an event: y (consistent, where there are algebraic equations; NaN, if
        that cannot be found), and the held leaves.
        """
        packing = self.events.packing
        t, own = flip_time(self.sign, tau), self.own[part.place]
        number = self.events.number.get(part.place)
        extra = part.extra(own, None if number is None else index[number], fired)
        assert part.affect is not None
        value = part.affect.at(self.leaves, own["affect"], t, packing.unpack(*state), extra=extra)
        each = zip(packing.held_of(value), state[1], strict=True)
        y, held = packing.pack(value), tuple(jnp.asarray(a, b.dtype) for a, b in each)
        if reinitialize.settled is not None:
            y, found = reinitialize.settled(tau, y, held)
            y = jnp.where(found, y, jnp.nan)
        return y, held

    # --- the memory after a round ---

    def settle_signs(
        self,
        known: EventMemory,
        truncation: StepTruncation,
        span: tuple[Array, Array, Array],
        end: StepEnd,
        still: Callable,
        accept: Array,
    ) -> StepEnd:
        """Returns the end of the step with the memory after the round and the window of output; a
        decision, as the truncation is.
        """
        e, bound, reinitialize = self.events, self.still(), still()
        (t, dt, t1), chain = lax.stop_gradient((span, end.chain))
        fired = end.fired
        state = _Round(jnp.any(fired).astype(jnp.int32), truncation.signs, jnp.zeros(e.count, bool))

        def turn(
            active: Bool[Array, ""], _: tuple, state: _Round, buffers: tuple[()]
        ) -> tuple[_Round, tuple[()]]:
            del active
            signs, pending = state.signs, state.pending
            watch = Watch(bound, known, truncation, fired, t1, chain[0][0], reinitialize)
            for part, (y, held) in zip(e.parts, chain[1:], strict=True):
                signs, pending = watch.after(part, bound.with_held(held), y, signs, pending)
            return _Round(state.todo - 1, signs, pending), buffers

        state, _ = loop(lambda c, s, b: s.todo > 0, turn, state)
        last = [jnp.any(fired[e.flags[p.place]]) for p in e.parts if p.terminal]
        ending = jnp.any(jnp.stack([known.ending, *last]))
        moved = accept & (t1 > t)
        ulps = 64 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t1), dt)
        due = fired[e.count : e.count + len(e.lists)]
        after = EventMemory(
            state.signs,
            state.pending & ~(ending & e.terminal),
            known.passed + due,
            jnp.where(t1 - t > ulps, 0, known.stalled + jnp.any(fired[: e.count])),
            ending,
        )
        settled = bound._settled(after, t1)
        near = jnp.where(jnp.any(fired), rounding(t1), 0)
        before = -next_above(near - t1)
        happened = tuple(map(jnp.any, e._flags(fired)))
        shown = OutputWindow(jnp.where(settled, t1 + near, before), settled, moved, happened)
        return end._replace(known=after, shown=shown)


def _is_due(time: Array, t: Array) -> Array:
    """True if a given time is not after t; the same product and sum, computed in two places, may
    differ by a rounding error (a compiler fuses one of them).
    """
    return time <= t + jnp.finfo(t.dtype).eps * jnp.abs(t)


def _time_at(t: Array, theta: Array, dt: Array) -> Array:
    return t + theta.astype(t.dtype) * dt


def _crossing_residual(events: Events, theta: Array, x: tuple) -> Array:
    """The condition that crosses, at θ."""
    t, dt, polynomial, own, leaves, held, which, sign = x
    bound = BoundEvents(events, own, leaves, sign, held)
    numbers = bound.numbers(_time_at(t, theta, dt), polynomial(theta))
    return jnp.sum(jnp.where(which, numbers, 0))


class _Round(NamedTuple):
    """The state of a round; `todo` is 1 before it, and 0 after it."""

    todo: Array
    signs: ConditionSign
    pending: Array

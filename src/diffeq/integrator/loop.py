"""The loop: step, judge, write, until the end. Every kind of equation passes through it.

`integrate` runs it. An adjoint that must replay it gives a `recorder`, which sees the state before
each attempt and what became of it; the loop knows no more of derivatives than that.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..autodiff.trace_once import trace_once
from ..autodiff.while_loop import loop
from ..core.status import Status
from ..methods import Method, Step
from ..output import Cursor
from ..problems.discontinuities import DiscontinuityTracker
from ..problems.forms import Form
from ..problems.history import History, PastAccess
from .saving import blank_buffers, write_rows
from .state import Attempt, Data, Integrator, Memory, State, with_held
from .step import attempt

__all__ = [
    "MOST_LAPS",
    "alternate_methods",
    "empty_history",
    "integrate",
    "lane_status",
    "rewind_failed_clock",
]


MOST_LAPS = 64  # of methods that take turns


@runtime_checkable
class AttemptRecorder(Protocol):
    """A recorder of attempts, which an adjoint gives to `integrate`. Its record goes through the
    loop: `write` sees each attempt, and `run` is the loop, which it may run in parts.
    """

    @property
    def rows(self) -> int:
        """The number of attempts that a delay equation can look back at."""
        ...

    def write(self, record: PyTree, state: State, tried: Attempt, made: Array) -> PyTree:
        """Returns the record with an attempt from a state; one that is not `made` is that of other
        elements of a batch.
        """
        ...

    def run(
        self,
        running: Callable,
        turn: Callable,
        data: Data,
        state: State,
        buffers: list,
        rest: PyTree,
    ) -> tuple[State, list, PyTree, PyTree]:
        """Runs the loop; returns the last state, the buffers, the record and the rest."""
        ...


def integrate(
    integrator: Integrator, data: Data, state: State, recorder: AttemptRecorder | None = None
) -> tuple[State, list, PyTree]:
    """Runs the loop to the end: the last state, the output buffers, and what the recorder kept."""

    def running(data: Data, state: State, _: PyTree) -> Array:
        on = state.status == Status.running
        return on & (state.steps < data.goal) if integrator.one_step else on

    def turn(
        integrator: Integrator, active: Array, data: Data, state: State, carried: tuple
    ) -> tuple[State, tuple]:
        buffers, record, (shown, past, lap) = carried
        seen = None if past is None else (past, active)
        after, tried = attempt(integrator, data, state, past=seen)
        past = tried.past
        tried = tried._replace(
            accept=tried.accept & active,
            cursors=tuple(Cursor(c.lo, jnp.where(active, c.n, 0)) for c in tried.cursors),
            end=integrator.events.masked_by(active, tried.end) if integrator.events else tried.end,
            past=None,
        )
        write = partial(write_rows, integrator)
        now = with_held(data, state.held)
        buffers = trace_once(
            integrator.traces, "write", write, now, state.t, state.y, tried, buffers
        )
        if recorder is not None:
            record = recorder.write(record, state, tried, active)
        if integrator.meter is not None:
            shown = integrator.meter.report(_percent(data, after), shown)
        return after, (buffers, record, (shown, past, lap))

    buffers = blank_buffers(integrator, data, state)
    shown = jnp.int32(-1) if integrator.meter is not None else ()
    rest = (shown, empty_history(integrator, data, recorder), jnp.int32(0))
    if recorder is None:
        carried = (buffers, (), rest)
        end, (buffers, _, (_, past, _)) = alternate_methods(
            integrator, running, turn, data, state, carried
        )
        record = None
    else:
        end, buffers, record, (_, past, _) = recorder.run(running, turn, data, state, buffers, rest)
    end = rewind_failed_clock(integrator, data, state, end)
    if past is not None:
        end = _explained(end, past)
        record = record if recorder is None else (record, past)
    return end, buffers, record


def alternate_methods(
    integrator: Integrator,
    running: Callable[[Data, State, PyTree], Array],
    turn: Callable[[Integrator, Array, Data, State, PyTree], tuple[State, PyTree]],
    data: Data,
    state: State,
    carried: PyTree,
    noted: Callable[[PyTree, Array, int], PyTree] | None = None,
) -> tuple[State, PyTree]:
    """The loop, with `turn(integrator, active, data, state, carried)`.

    Where methods take turns it is a loop over laps, in which each of them has a loop of its own,
    that goes on until another is to make the next step. A branch inside of one loop would be paid
    for at every turn. `noted(record, lap, phase)` is the record at the end of such a loop. From the
    last lap on the last method stays, so that there are never many.
    """
    phases = integrator.submethods
    if len(phases) == 1:
        return loop(running, partial(turn, integrator), state, carried, consts=data)
    last = len(phases) - 1

    def own(phase: int, consts: tuple, state: State, carried: PyTree) -> Array:
        data, stays = consts
        on = integrator.method.submethod(state.memory) == phase
        return running(data, state, carried) & (on | stays if phase == last else on)

    def one(
        phase: int, active: Array, consts: tuple, state: State, carried: PyTree
    ) -> tuple[State, PyTree]:
        return turn(phases[phase], active, consts[0], state, carried)

    def lap(active: Array, data: Data, state: State, carried: tuple) -> tuple[State, tuple]:
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


def empty_history(
    integrator: Integrator, data: Data, recorder: AttemptRecorder | None
) -> History | None:
    """The past before the first attempt, if the field looks at one: of a tape, with room for each
    of its rows.
    """
    if integrator.rows is None:
        return None
    form, _, _ = integrator.parts(data)
    tracker = (
        DiscontinuityTracker.none(integrator.rows, data.lags.shape[0]) if integrator.levels else ()
    )
    return History.blank(form.shape, recorder.rows + 1 if recorder else integrator.rows, tracker)


def _explained(state: State, past: History) -> State:
    """The status of a solve that failed for what the field accessed of its past."""
    status = state.status
    stuck = (Status.step_too_small, Status.dtmin, Status.newton_failed, Status.nonfinite)
    failed = jnp.isin(status, jnp.array((*stuck, Status.max_steps)))
    for accessed, why in (
        (PastAccess.lost, Status.history_overflow),
        (PastAccess.future, Status.beyond_present),
    ):
        status = jnp.where(failed & ((past.accessed & accessed) > 0), why, status)
    return replace(state, status=status.astype(jnp.int32))


def lane_status(state: State) -> Array:
    """The status of a state in the middle of a loop, where a lane may have failed while the clock
    of all goes on.
    """
    if state.failed is None:
        return state.status
    return jnp.where(state.failed >= 0, state.why, state.status)


class _IdentityMethod(Method):
    """Stays where it is: what runs a clock alone."""

    def step(self, form: Form, t: Array, y: Array, dt: Array, memory: Memory) -> Step:
        """No step."""
        return Step(y, None, (), ())

    def interpolant_evaluates(self, form: Form) -> bool:
        """There is nothing to interpolate."""
        return False


def rewind_failed_clock(integrator: Integrator, data: Data, first: State, end: State) -> State:
    """The end of a solve by given steps: in a lane that failed, the clock is set back to where that
    was. It is run again for that, so that no lane has to keep it in every turn.
    """
    if end.failed is None:
        return end
    still = replace(integrator, method=_IdentityMethod(), noise=None, meter=None)
    data = replace(data, method=still.method, noise=())
    count = end.failed

    def before(consts: tuple, state: State, _: PyTree) -> Array:
        return state.steps < consts[1]

    def turn(active: Array, consts: tuple, state: State, _: PyTree) -> tuple[State, tuple]:
        del active
        return attempt(still, consts[0], state)[0], ()

    start = replace(first, y=end.y, memory=(), path=(), evaluations=())
    there, _ = loop(before, turn, start, consts=(data, count))
    there = replace(
        there,
        y=end.y,
        memory=end.memory,
        path=end.path,
        evaluations=end.evaluations,
        failed=count,
        why=end.why,
        rejected=end.rejected + 1,
        status=end.why,
    )
    return jax.tree.map(partial(jnp.where, count >= 0), there, end)


def _percent(data: Data, after: State) -> Array:
    """The percentage of the time span that is solved; 100 when the solve has ended."""
    left = (data.t1 - after.t) / (data.t1 - data.t0)
    done = after.status != Status.running
    return jnp.where(done, 100, jnp.clip(100 * (1 - left), 0, 99)).astype(jnp.int32)

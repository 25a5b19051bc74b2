"""`take_step`: one step by a plan. The loop, which proposes and judges its steps, and the
derivative, which follows those that were recorded, both step here.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, PyTree

from ..core.norm import in_dtype_of
from ..events import StepEnd, StepPlan, StepTruncation
from ..methods import Method, Step
from ..problems.forms import Form
from ..problems.history import History
from .inside_step import InsideStep
from .restart import limited_form, restart
from .state import Data, Integrator, Memory

__all__ = [
    "JudgedStep",
    "StepStart",
    "TakenStep",
    "end_time",
    "is_compensated",
    "step_form",
    "take_step",
]


class StepStart(NamedTuple):
    """Where a step starts, and the method's memory there; `time_error` completes t."""

    t: Array
    y: Array
    memory: Memory
    time_error: Array


class JudgedStep(NamedTuple):
    """A step and its judgement. `accept` is what the loop goes on with; `sound` is False where a
    given step, which is always accepted, has failed.
    """

    step: Step
    accept: Bool[Array, ""]
    sound: Bool[Array, ""]
    polynomial: Callable
    inside: InsideStep = InsideStep()
    verdict: PyTree = None
    floored: PyTree = None


class TakenStep(NamedTuple):
    """A step that was taken: its end, which is at t1 + `time_error`, after its events."""

    judged: JudgedStep
    truncation: StepTruncation
    t1: Array
    time_error: Array
    end: StepEnd
    past: History | None


def take_step(
    integrator: Integrator,
    data: Data,
    parts: tuple[Form, Method],
    start: StepStart,
    plan: StepPlan,
    judge: Callable[[Step, Callable], JudgedStep],
    remember: Callable[[JudgedStep, Array], History | None],
) -> TakenStep:
    """A step of `parts`, the form of the step and a method, from `start` to what its events have
    made of its end.

    `judge(step, polynomial)` accepts it or not, before events are looked for: what a rejected step
    crosses has not happened. `remember(judged, t1)` is the past with the step in it, for what an
    event makes of the state may look at that.
    """
    form, method = parts
    events = integrator.bound_events(data)
    dt = in_dtype_of(plan.dt, start.y)
    step = method.step(form, start.t, start.y, dt, start.memory)
    polynomial = partial(method.interpolant, form, start.t, start.y, dt, step)
    judged = judge(step, polynomial)
    step, truncation = judged.step, StepTruncation(plan.dt, plan.landing)
    if events:
        truncation = events.truncate(plan, judged.accept, (start.t, start.y), judged.polynomial)
    t1, time_error = end_time(start, truncation.dt, plan.target, truncation.landing)
    past = remember(judged, t1)
    end = StepEnd(truncation.dt, truncation.landing, step.y, data.held, step.memory)
    if events:
        span, reinitialize = (start.t, plan.dt, t1), restart(integrator, data, past)
        t1, end = events.happen(plan, truncation, span, judged.accept, step, reinitialize)
    return TakenStep(judged, truncation, t1, time_error, end, past)


def step_form(integrator: Integrator, data: Data, form: Form, t: Array, plan: StepPlan) -> Form:
    """The form of the step from t: with its noise, or the increment of its control, between the
    stops beside it.
    """
    limited = limited_form(integrator, data, form, t).over_step(t, plan.dt)
    if integrator.noise is None:
        return limited
    return integrator.noise.bound(limited, data.noise, plan.drawn, plan.dt, plan.noisy)


def end_time(start: StepStart, dt: Array, target: Array, landing: Array) -> tuple[Array, Array]:
    """The time t + dt with its rounding error (Kahan–Babuška); the exact target when landing."""
    if not is_compensated(start.t.dtype):
        return jnp.where(landing, target, start.t + dt), start.time_error
    increment = dt + start.time_error
    total = start.t + increment
    back = total - start.t
    lost = (start.t - (total - back)) + (increment - back)
    return jnp.where(landing, target, total), jnp.where(landing, 0, lax.stop_gradient(lost))


def is_compensated(dtype: np.dtype) -> bool:
    """True if the rounding errors of time are summed: in double precision they are negligible."""
    return dtype != jnp.float64

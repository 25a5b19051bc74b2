"""Spans of time, steps, stops and events, as far as they are known before a solve."""

import copy
import inspect
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..controllers import Controller
from ..core.notices import INSIDE
from ..core.time_resolution import digits_of, time_resolution
from ..events import AbstractEvent, Periodic
from ..integrator.call import MAX_EVENTS, MAX_STEPS
from ..methods import Method
from ..problems import Problem
from ..problems.base import evaluated
from ..problems.dde import depends_on_state
from ..problems.discontinuities import discontinuity_levels, kinks_of
from ..problems.lowering import time_dtype
from .problem_checks import without_jumps
from .saveat_checks import times_of
from .values import axes_of, concrete, is_real, shown

__all__ = [
    "check_direction",
    "check_limits",
    "check_span_resolution",
    "check_steps",
    "check_turns",
    "counted",
    "known_span",
    "known_steps",
    "listed",
    "most_kinks",
    "stops_of",
]

_FEW_STEPS = 16
# The distance of neighbouring times, as a part of the span, from which on a solve warns.
_COARSEST = 1e-3


def check_steps(method: Method, controller: Controller, dt: Any, dt0: Any) -> None:
    """Refuses steps that are no numbers, and methods that have to be given theirs."""
    if dt is not None and dt0 is not None:
        raise ValueError(
            "dt and dt0 were both given: dt is a fixed step, dt0 the first of an adaptive solve."
        )
    if dt0 is not None and not controller.is_adaptive:
        raise ValueError(
            f"dt0 is the first step of an adaptive solve, and {controller!r} gives all steps: "
            "leave dt0 out."
        )
    if dt is None and not method.adaptive and controller.is_adaptive:
        raise ValueError(
            f"method {method!r} has no error estimate, so its steps must be given: dt=, or "
            "controller=de.Fixed(ts)."
        )
    for name, value in (("dt", dt), ("dt0", dt0)):
        if value is None or not concrete(value):
            continue
        if axes_of(value) != 0 or not is_real(value) or not np.isfinite(value) or value == 0:
            raise ValueError(f"{name} is {value!r}; one finite number, not zero, is wanted.")


def check_turns(problem: Problem, method: Method, controller: Controller, dt: Any) -> None:
    """Refuses a switching method if the problem is no ODE, or its steps do not show stiffness."""
    if len(method.submethods) == 1:
        return
    if not problem.is_ode:
        raise TypeError(
            f"{method!r} begins with an explicit method for ODEs, and this is a "
            f"{type(problem).__name__}: choose one method, such as de.Rodas5P()."
        )
    if dt is not None or not controller.is_adaptive:
        raise ValueError(
            f"{method!r} tells by the steps it chooses whether a problem is stiff, and these are "
            "given: leave dt= or controller= out, or choose one of both methods."
        )


def check_limits(controller: Controller) -> None:
    """Limits of dt, where they are numbers that are known: positive, and in order."""
    limits: dict[str, Any] = {"dtmin": controller.dtmin, "dtmax": controller.dtmax}
    known = {k: x for k, x in limits.items() if not (x is None or callable(x)) and concrete(x)}
    for name, x in known.items():
        if axes_of(x) != 0 or not is_real(x) or not x > 0:
            raise ValueError(
                f"{name} is {x!r}; one positive number is wanted, or None for no limit."
            )
    if len(known) == 2 and known["dtmin"] > known["dtmax"]:
        raise ValueError(
            f"dtmin is {known['dtmin']!r}, above dtmax = {known['dtmax']!r}: no step lies between."
        )


def check_direction(name: str, dt: Any, span: PyTree) -> None:
    """A dt > 0 is a length, right for both directions of time; dt < 0 says which it means."""
    if dt is not None and span is not None and concrete(dt) and dt < 0 and span[1] > span[0]:
        raise ValueError(
            f"{name} is {dt!r}, but tspan = ({span[0]:g}, {span[1]:g}) runs forwards; give "
            f"{name} > 0."
        )


def known_span(problem: Problem) -> tuple[float, float] | None:
    """Tspan as numbers, where they are known."""
    tspan, known = problem.tspan, concrete((problem.args, problem.tspan))
    if callable(tspan) and not hasattr(tspan, "shape"):
        if not known:
            return None
        tspan = tspan(problem.args)
    if not isinstance(tspan, (tuple, list, np.ndarray, jax.Array)):
        raise TypeError(
            f"tspan is {shown(tspan)}; a pair (t0, t1) is wanted, or a function of args."
        )
    if len(tspan) != 2:
        raise TypeError(f"tspan is {shown(tspan)}; a pair (t0, t1) is wanted.")
    if any(callable(t) and not hasattr(t, "shape") for t in tspan):
        if not concrete(problem.args):
            return None
        tspan = [evaluated(t, problem.args) for t in tspan]
    if not concrete(list(tspan)):
        return None
    ends = [np.asarray(t) for t in tspan]
    if any(e.shape != () or not is_real(e) for e in ends):
        raise ValueError(f"tspan is {shown(tspan)}; two scalars, real numbers, are wanted.")
    if not all(np.isfinite(e) for e in ends):
        raise ValueError(f"tspan is {shown(tspan)}; finite times are wanted.")
    return float(ends[0]), float(ends[1])


def check_span_resolution(problem: Problem, span: PyTree, state: PyTree) -> None:
    """Refuses a span whose ends are one time in the dtype of t; and warns of one in which that
    dtype tells few times apart, for f is given no others.
    """
    if span is None or span[0] == span[1]:
        return
    length = abs(span[1] - span[0])
    if max(map(abs, span)) <= 2 * length:
        return
    ends = [evaluated(t, problem.args) for t in evaluated(problem.tspan, problem.args)]
    dtype = time_dtype(ends, jnp.result_type(float, *jax.tree.leaves(state)))
    apart = time_resolution(span[0], span[1], dtype)
    if apart <= _COARSEST * length:
        return
    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    way = f"give times from the start on, (0, {span[1] - span[0]:g}), or "
    way += "tspan in float64." if x64 else "set jax_enable_x64."
    name = f"tspan = ({digits_of(span[0])}, {digits_of(span[1])})"
    if dtype.type(span[0]) == dtype.type(span[1]):
        raise ValueError(f"{name} is a single time in {dtype.name}: {way}")
    warnings.warn(
        f"{name} is short for times of its size, which {dtype.name} tells apart by {apart:.2g}, "
        f"{apart / length:.1%} of the span: {way}",
        skip_file_prefixes=INSIDE,
    )


def listed(events: Any) -> tuple:
    """The events of a solve, all of them, and nothing else."""
    given = events if isinstance(events, (tuple, list)) else (events,)
    for i, event in enumerate(given):
        name = f"events[{i}]" if isinstance(events, (tuple, list)) else "events"
        if inspect.isclass(event) and issubclass(event, AbstractEvent):
            raise TypeError(
                f"{name} is the class {event.__name__}; an instance is wanted, such as "
                f"de.{event.__name__}(…)."
            )
        if not isinstance(event, AbstractEvent):
            hint = "de.Event(condition)" if callable(event) else "de.Event(condition, affect)"
            raise TypeError(f"{name} is {shown(event)}; an event is wanted, such as {hint}.")
    return tuple(given)


def counted(events: tuple, problem: Problem, span: PyTree) -> tuple:
    """The events, of which those that are periodic know how often they happen, as a power of two,
    where that can be told and is more often than is recorded by default.
    """
    return tuple(_counted(e, problem, span) if isinstance(e, Periodic) else e for e in events)


def _counted(event: Periodic, problem: Problem, span: PyTree) -> Periodic:
    given = (event.period, event.phase)
    if span is None or (any(map(callable, given)) and not concrete(problem.args)):
        return event
    period, phase = (evaluated(x, problem.args) for x in given)
    phase = period if phase is None else phase
    if not concrete((period, phase)) or not float(period) > 0:
        return event
    count = math.ceil((abs(span[1] - span[0]) - float(phase)) / float(period) * (1 + 1e-6)) + 2
    if count <= MAX_EVENTS:
        return event
    counted: Any = copy.copy(event)
    counted.most = min(2 ** math.ceil(math.log2(count)), MAX_STEPS)
    return counted


def most_kinks(problem: Any, method: Method) -> int:
    """The largest number of stops that discontinuities at constant lags can be."""
    if depends_on_state(problem.lags):
        return 0
    lags = jax.tree.leaves(evaluated(problem.lags, problem.args))
    jumps, noisy = problem.y0 is not None, problem.stochastic
    return kinks_of(
        sum(map(np.size, lags)), discontinuity_levels(method.order, jumps=jumps, noisy=noisy)
    )


def known_steps(
    span: PyTree,
    dt: Array | float | int | np.generic | None,
    stops: PyTree,
    events: tuple,
    kinks: int = 0,
) -> tuple[int | None, int | None]:
    """The largest number of steps of dt, where it is known: a power of two. A count is
    part of the program, and another dt need not compile another one. And how many to allow: each
    time that something happens there is one more, of which a long solve has room for as many again.
    """
    if dt is None or span is None or not concrete((dt, stops)):
        return None, None
    steps = math.ceil(abs(span[1] - span[0]) / abs(float(dt)) * (1 + 1e-6)) + 2
    steps += kinks + (0 if stops is None else int(np.size(stops)))
    known = max(_FEW_STEPS, 2 ** math.ceil(math.log2(steps)))
    if not events:
        return known, known
    return None, 2 * known if 2 * known > MAX_STEPS else None


def stops_of(problem: Problem, stops: Any) -> Array | None:
    """The stops that are given, of these args; None where there are none."""
    problem, _ = without_jumps(problem)
    if not callable(stops):
        return times_of("stops", stops)
    found = stops(problem.args)
    if found is None:
        raise ValueError("stops is a function of args that returned None; times are wanted.")
    return times_of("stops", found)

"""Checks of a call before anything is traced: the argument's name, what came, what was wanted."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..adjoints import refusal
from ..controllers import PI, MeanSquare
from ..core.packing import holds, moving
from ..methods import METHODS, Method, Switching
from ..problems.lowering import state_of
from .defaults import default_method, may_switch
from .problem_checks import (
    check_delayed,
    check_forwards,
    check_history,
    check_index,
    check_key,
    check_no_torch,
    check_noisy,
    check_problem,
    check_state,
    without_jumps,
)
from .saveat_checks import arrays_of, check_save, check_saveat
from .step_checks import (
    check_direction,
    check_limits,
    check_steps,
    check_turns,
    counted,
    known_span,
    known_steps,
    listed,
    most_kinks,
    stops_of,
)
from .suggestions import check_adjoint_is_one, check_controller, check_method
from .tolerances import (
    below_eps,
    check_prefix,
    eps_of,
    notice_precision,
    tolerance_of,
    tolerances_of,
)

__all__ = ["Call", "check_adjoint", "checked_call", "checked_problem", "checked_rest"]

_MAX_SAVES = 4096


@dataclass(frozen=True)
class Call:
    """A call that passed: what is traced, and what is known without tracing."""

    traced: dict[str, Any]
    direction: int | None
    max_steps: int | None
    max_saves: int
    floored: bool
    raises_inside_jit: bool


def checked_call(
    *, problem: Any, method: Any, saveat: Any, save: Any, rtol: Any, atol: Any, dt: Any, dt0: Any,
    controller: Any, events: Any, stops: Any, adjoint: Any, max_steps: Any, max_saves: Any,
    max_events: Any, init: Any, throw: Any, key: Any, by_hand: bool = False,
) -> Call:  # fmt: skip
    """The call with its defaults, or the first thing that is wrong with it."""
    _check_no_torch(saveat=saveat, stops=stops, dt=dt, dt0=dt0, rtol=rtol, atol=atol)
    asked_for = problem
    problem, jumps = without_jumps(problem)
    check_problem(problem)
    check_method(method)
    _check_options(
        controller, adjoint,
        {"max_steps": max_steps, "max_saves": max_saves, "max_events": max_events}, init, throw,
    )  # fmt: skip
    check_key(asked_for, key)
    events = listed(events)
    noisy = problem.stochastic
    if problem.delayed:
        check_history(problem)
    if noisy:
        check_noisy(problem, (*events, *jumps))
    default = method is None
    if method is None:
        method = default_method(problem, tolerance_of("rtol", rtol, 1e-3), controller, dt)
    if dt is not None and controller is not None:
        raise ValueError(f"dt and controller={controller!r} were both given: dt is a fixed step.")
    controller = (MeanSquare() if noisy else PI()) if controller is None else controller
    controlled, asked = dt is None and controller.is_adaptive, rtol
    rtol, atol = tolerances_of(rtol, atol, noisy=noisy, controlled=controlled)
    check_steps(method, controller, dt, dt0)
    _check_able(problem, method, controller, dt)
    check_limits(controller)
    span = known_span(problem)
    delayed = problem.delayed
    if delayed:
        check_delayed(problem, method, controlled=controlled)
    check_forwards(asked_for, span)
    check_direction("dt", dt, span)
    check_direction("dt0", dt0, span)
    stops = stops_of(asked_for, stops)
    state = state_of(problem)
    check_state(problem, state)
    if default and controlled and not by_hand and may_switch(asked_for, state, adjoint):
        method = Switching(method, METHODS["Rodas5P"]())
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        check_prefix(name, tolerance, moving(state))
    eps = eps_of(moving(state))
    notice_precision(method, rtol if controlled else asked, moving(state))
    check_save(save)
    saveat = arrays_of(saveat)
    check_saveat(saveat, save, span, eps)
    traced = {
        "problem": asked_for, "method": method, "controller": controller,
        "saveat": saveat, "save": save,
        "rtol": rtol, "atol": atol, "dt": dt, "dt0": dt0, "stops": stops, "key": key,
        "events": events if max_events else counted(events, problem, span),
    }  # fmt: skip
    direction = None if span is None else (1 if span[1] >= span[0] else -1)
    kinks = most_kinks(problem, method) if delayed else 0
    known, most = known_steps(span, dt, stops, (*events, *jumps), kinks)
    steps = max_steps if max_steps is not None else most
    saves = max_saves or max(_MAX_SAVES, (known or 0) + 1)
    loud = throw == "compiled" or (throw is True and _loud_by_default())
    return Call(traced, direction, steps, saves, below_eps(rtol, eps), loud)


def _check_no_torch(**given: Any) -> None:
    for name, value in given.items():
        check_no_torch(name, value)


def _loud_by_default() -> bool:
    value = os.environ.get("DIFFEQ_THROW", "")
    if value not in ("", "compiled"):
        raise ValueError(
            f"the environment variable DIFFEQ_THROW is {value!r}; 'compiled' is wanted, or nothing."
        )
    return value == "compiled"


def checked_problem(problem: Any) -> None:
    """Refuses what cannot be lowered, as `checked_call` does."""
    check_problem(problem)
    check_state(problem, state_of(problem))


def checked_rest(problem: Any, method: Any, throw: Any, **given: Any) -> tuple[Any, Any]:
    """The tolerances of a search for rest, or the first thing that is wrong with the call."""
    check_problem(problem)
    check_method(method)
    if method is not None and not method.adaptive:
        raise ValueError(
            f"method {method!r} has no error estimate; to follow an equation to rest one is wanted "
            "that has, such as de.Tsit5(), or None for Newton's method."
        )
    if method is not None:
        check_turns(problem, method, PI(), None)
    adjoint, most, rtol, atol = (given.pop(k) for k in ("adjoint", "max_steps", "rtol", "atol"))
    _check_options(None, adjoint, {"max_steps": most}, "consistent", throw)
    check_adjoint(adjoint, problem)
    for name, value in given.items():
        left_out = value is None or value is False or (isinstance(value, tuple) and not value)
        if not left_out:
            raise TypeError(
                f"{name} was given with a SteadyStateProblem, in which there is no time; solve "
                "takes method, rtol, atol, adjoint, max_steps and throw there."
            )
    state = state_of(problem)
    if holds(state):
        raise TypeError("y0 has leaves that are held, and at rest nothing changes them: use args.")
    check_state(problem, state)
    default = eps_of(state) ** 0.5  # the Newton step that is taken in the end squares it
    return tolerance_of("rtol", rtol, default), tolerance_of("atol", atol, default)


def _check_able(problem: Any, method: Method, controller: Any, dt: Any) -> None:
    """Refuses a method that cannot solve the problem, or not like this."""
    check_turns(problem, method, controller, dt)
    check_index(problem, method)


def _check_options(
    controller: Any, adjoint: Any, most: dict[str, Any], init: Any, throw: Any
) -> None:
    check_controller(controller)
    check_adjoint_is_one(adjoint)
    for name, value in most.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1
        ):
            raise TypeError(
                f"{name} is {value!r}; a positive whole number, known before tracing, is wanted."
            )
    if not isinstance(init, str) or init not in ("consistent", "check", "given"):
        raise ValueError(f"init is {init!r}; 'consistent', 'check' or 'given' is wanted.")
    if throw not in (True, False, "compiled"):
        raise ValueError(f"throw is {throw!r}; True, False or 'compiled' is wanted.")


def check_adjoint(
    adjoint: Any, problem: Any, *, saveat: Any = None, save: Any = None, dense: bool = False,
    events: Any = (), stops: Any = None, by_hand: bool = False, method: Any = None,
    has_tolerance: bool = True,
) -> None:  # fmt: skip
    """Refuses an adjoint that cannot differentiate what was asked for, with those that can."""
    if adjoint is None:
        return
    at = list(saveat.values()) if isinstance(saveat, dict) else [saveat]
    asked = {
        "times": any(x is not None and not isinstance(x, str) for x in at),
        "steps": any(isinstance(x, str) for x in at),
        "dict": isinstance(saveat, dict),
        "save": save is not None,
        "dense": dense,
        "events": events not in ((), []),
        "held": holds(state_of(problem)),
        "stops": stops is not None,
        "by hand": by_hand,
        "multistep": method is not None and method.multistep,
        "turns": method is not None and len(method.submethods) > 1,
        "no tolerance": not has_tolerance,
    }
    features = [feature for feature, wanted in asked.items() if wanted]
    sentence = refusal(getattr(adjoint, "name", ""), type(problem).__name__, features)
    if sentence:
        raise TypeError(f"adjoint is {adjoint!r}: {sentence}")

"""Checks of a call across its objects, before anything is traced."""

from typing import Any

from jaxtyping import PyTree

from ..adjoints import Discrete, refusal
from ..controllers import PI, MeanSquare
from ..core.packing import holds, moving_leaves
from ..integrator.call import MAX_EVENTS, MAX_STEPS, Call, StaticOptions
from ..methods import METHODS, Switching
from ..problems import CDEProblem, Problem
from ..problems.cde import by_increments
from ..problems.lowering import initial_tree
from .defaults import default_method, may_switch
from .options import SolveOptions
from .problem_checks import (
    check_controlled,
    check_delayed,
    check_forwards,
    check_history,
    check_index,
    check_key,
    check_noisy,
    check_preconditioner,
    check_problem,
    check_state,
    without_jumps,
)
from .saveat_checks import arrays_of, check_saveat
from .step_checks import (
    check_direction,
    check_limits,
    check_span_resolution,
    check_steps,
    check_turns,
    counted,
    known_span,
    known_steps,
    listed,
    most_kinks,
    stops_of,
)
from .tolerances import (
    below_eps,
    check_prefix,
    eps_of,
    notice_precision,
    tolerance_of,
    tolerances_of,
)

__all__ = ["check_adjoint", "checked_call", "checked_problem", "checked_rest"]

_MAX_SAVES = 4096
_OF_STEADY_STATES = {"method", "rtol", "atol", "adjoint", "max_steps", "throw"}


def checked_call(
    problem: Any, options: SolveOptions, *, by_hand: bool = False
) -> tuple[Call, StaticOptions]:
    """The call with its defaults in place, or the first thing that is wrong with it. A solve
    `by_hand` never switches methods.
    """
    plain, jumps = without_jumps(problem)
    check_problem(plain)
    check_key(problem, options.key)
    events = listed(options.events)
    if plain.delayed:
        check_history(plain)
    if plain.stochastic:
        check_noisy(plain, (*events, *jumps))
    span = known_span(plain)
    call = _with_defaults(problem, plain, options)
    if isinstance(plain, CDEProblem):
        check_controlled(plain, call.method, span, controlled=call.is_adaptive, events=events)
    check_forwards(problem, span)
    check_direction("dt", call.dt, span)
    check_direction("dt0", call.dt0, span)
    state = initial_tree(plain)
    check_state(plain, state)
    check_span_resolution(plain, span, moving_leaves(state))
    switches = options.method is None and call.is_adaptive and not by_hand
    if switches and may_switch(problem, state, options.adjoint):
        call = call._replace(method=Switching(call.method, METHODS["Rodas5P"]()))
    check_preconditioner(plain, call.method, state)
    _check_against_state(call, options, state, span)
    known, most = _counted_steps(call, plain, span, (*events, *jumps))
    most = None if by_hand else most
    call = call._replace(events=events if options.max_events else counted(events, plain, span))
    return call, StaticOptions(
        direction=None if span is None else (1 if span[1] >= span[0] else -1),
        adjoint=options.adjoint or Discrete(),
        max_steps=options.max_steps or most or MAX_STEPS,
        max_saves=options.max_saves or max(_MAX_SAVES, (known or 0) + 1),
        max_history=options.max_saves,
        max_events=options.max_events or MAX_EVENTS,
        dense=options.dense,
        floored=below_eps(call.rtol, eps_of(moving_leaves(state))),
        init=options.init,
        progress=bool(options.progress),
        by_hand=by_hand,
        default_method=options.method is None,
        counted=options.max_steps is None and most is not None,
        raises=options.raises_inside_jit,
        raises_inside_jit=options.raises_inside_jit,
        checks_cotangents=options.raises_inside_jit,
    )


def _with_defaults(problem: Problem, plain: Problem, options: SolveOptions) -> Call:
    """The call, with the method, the controller and the tolerances that are its defaults."""
    method, controller, dt = options.method, options.controller, options.dt
    if method is None:
        rtol = tolerance_of("rtol", options.rtol, 1e-3)
        method = default_method(plain, rtol, controller, dt)
    if dt is not None and controller is not None:
        raise ValueError(f"dt and controller={controller!r} were both given: dt is a fixed step.")
    noisy = plain.stochastic
    controller = (MeanSquare() if noisy else PI()) if controller is None else controller
    controlled = dt is None and controller.is_adaptive
    rtol, atol = tolerances_of(options.rtol, options.atol, noisy=noisy, controlled=controlled)
    check_steps(method, controller, dt, options.dt0)
    check_turns(plain, method, controller, dt)
    check_index(plain, method)
    check_limits(controller)
    if plain.delayed:
        check_delayed(plain, method, controlled=controlled)
    return Call(
        problem,
        method,
        controller,
        rtol,
        atol,
        arrays_of(options.saveat),
        options.save,
        dt,
        options.dt0,
        stops_of(problem, options.stops),
        options.key,
    )


def _check_against_state(call: Call, options: SolveOptions, state: PyTree, span: PyTree) -> None:
    """Refuses tolerances that do not fit the state, and save times that do not fit the span."""
    state = moving_leaves(state)
    check_prefix("rtol", call.rtol, state)
    check_prefix("atol", call.atol, state)
    notice_precision(call.method, call.rtol if call.is_adaptive else options.rtol, state)
    check_saveat(call.saveat, call.save, span, eps_of(state))


def _counted_steps(
    call: Call, plain: Problem, span: PyTree, events: tuple
) -> tuple[int | None, int | None]:
    """The number of steps of `dt`, and the number of attempts to allow, where they are known."""
    kinks = most_kinks(plain, call.method) if plain.delayed else 0
    return known_steps(span, call.dt, call.stops, events, kinks)


def checked_problem(problem: Problem) -> None:
    """Refuses what cannot be lowered, as `checked_call` does."""
    check_problem(problem)
    check_state(problem, initial_tree(problem))


def checked_rest(problem: Problem, options: SolveOptions) -> tuple[PyTree, PyTree]:
    """The tolerances of a search for a steady state, or the first thing that is wrong with it."""
    check_problem(problem)
    method = options.method
    if method is not None and not method.adaptive:
        raise ValueError(
            f"method {method!r} has no error estimate; to follow an equation to rest one is wanted "
            "that has, such as de.Tsit5(), or None for Newton's method."
        )
    if method is not None:
        check_turns(problem, method, PI(), None)
    _check_adjoint(options.adjoint, problem, {})
    for name in options.given:
        if name not in _OF_STEADY_STATES:
            raise TypeError(
                f"{name} was given with a SteadyStateProblem, in which there is no time; solve "
                "takes method, rtol, atol, adjoint, max_steps and throw there."
            )
    state = initial_tree(problem)
    if holds(state):
        raise TypeError("y0 has leaves that are held, and at rest nothing changes them: use args.")
    check_state(problem, state)
    default = eps_of(state) ** 0.5  # the Newton step that is taken in the end squares it
    return (
        tolerance_of("rtol", options.rtol, default),
        tolerance_of("atol", options.atol, default),
    )


def check_adjoint(call: Call, options: SolveOptions, *, by_hand: bool = False) -> None:
    """Refuses an adjoint that cannot differentiate what was asked for, with those that can."""
    plain, random = without_jumps(call.problem)
    at = list(call.saveat.values()) if isinstance(call.saveat, dict) else [call.saveat]
    needed = {
        "times": any(x is not None and not isinstance(x, str) for x in at),
        "steps": any(isinstance(x, str) for x in at),
        "dict": isinstance(call.saveat, dict),
        "save": call.save is not None,
        "dense": options.dense,
        "events": bool(random or call.events),
        "stops": call.stops is not None,
        "by hand": by_hand,
        "multistep": call.method.multistep,
        "turns": len(call.method.submethods) > 1,
        "increments": by_increments(plain),
        "no tolerance": not call.is_adaptive and options.rtol is None and options.atol is None,
    }
    _check_adjoint(options.adjoint, plain, needed)


def _check_adjoint(adjoint: Any, problem: Problem, needed: dict[str, bool]) -> None:
    if adjoint is None:
        return
    needed = {**needed, "held": holds(initial_tree(problem))}
    features = [feature for feature, wanted in needed.items() if wanted]
    sentence = refusal(getattr(adjoint, "name", ""), features, type(problem))
    if sentence:
        raise TypeError(f"adjoint is {adjoint!r}: {sentence}")

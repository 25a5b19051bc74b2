"""`solve`: defaults, checks across objects, and the way from a user's call to the loop and back."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .adjoints import Discrete, overridden
from .algebra import slopes
from .autodiff.nonfinite_cotangents import call_host
from .autodiff.primitive import Tracer, in_a_trace
from .autodiff.unreached_rows import Reached as RowKind
from .autodiff.unreached_rows import mark_unreached
from .capture_call import captured_call
from .closures import flatten, unflatten
from .consistent import with_consistent_values
from .controllers import Controller
from .core.promotion import standard_promotion
from .core.status import Status
from .diagnosis import hint, warn_of_stiffness
from .integrator import State
from .integrator.build import MAX_EVENTS, MAX_STEPS, BuiltSolve, build, signed_time
from .methods import Method
from .output import Output
from .output.progress import Meter
from .output_plan import OutputPlan
from .problems import JumpProblem, Problem, SteadyStateProblem
from .solution import Last, Solution, SolutionInfo
from .steady_state import solve_steady_state
from .validation import Call, check_adjoint, checked_call, keywords

__all__ = ["Options", "first_step", "prepare_call", "run", "solve"]


@dataclass(frozen=True)
class Options:
    """What is static in a call."""

    direction: int | None
    max_steps: int
    max_saves: int
    max_history: int | None
    max_events: int
    dense: bool
    adjoint: Any
    floored: bool
    progress: Any
    checks_cotangents: bool
    raises_inside_jit: bool
    init: str
    raises: bool
    default: bool = False  # whether nobody has named the method
    counted: bool = False  # whether max_steps is the number of steps of dt, and not given


@keywords
@standard_promotion()
def solve(
    problem: Problem,
    method: Method | None = None,
    *,
    saveat: Any = None,
    save: Any = None,
    dense: bool = False,
    rtol: Any = None,
    atol: Any = None,
    dt: Any = None,
    dt0: Any = None,
    controller: Controller | None = None,
    events: Any = (),
    stops: Any = (),
    adjoint: Any = None,
    max_steps: int | None = None,
    max_saves: int | None = None,
    max_events: int | None = None,
    init: str = "consistent",
    key: Any = None,
    progress: Any = None,
    throw: bool | str = True,
) -> Solution:
    """Solves a problem.

    The method advances y so that the estimated error of each step, scaled by atol + rtol · |y|,
    has a root mean square of at most 1. Everything differentiates, in every mode, to any order.

    Args:
        problem: an `ODEProblem`, `SplitODEProblem`, `SecondOrderProblem`, `HamiltonianProblem`,
            `DAEProblem`, `ImplicitDAEProblem`, `SDEProblem`, `DDEProblem`, `SDDEProblem` or
            `JumpProblem`; or a `SteadyStateProblem`, which is not followed in time unless a method
            is given, and takes rtol, atol, adjoint, max_steps and throw beside it.
        method: an instance, such as `de.Tsit5()`. None: Tsit5, or Vern7 below rtol = 1e-6, which
            `Switching` turns to Rodas5P while an ODE of at most 64 numbers is stiff (if steps are
            controlled, the adjoint is `Discrete`, and f has forward derivatives); Rodas5P for a
            `DAEProblem` (above index 1 RadauIIA5), BDF for an `ImplicitDAEProblem`; of an SDE
            SOSRI, SOSRA if its noise is additive, and with `dt=` EulerMaruyama or EulerHeun if it
            is general or looks into the past. Of a call outside of jit and vmap the stiff method is
            compiled when it is needed; inside it always is, so that a method which is named
            compiles in half the time.
        saveat: times to save at, sorted along the direction of time (duplicates are fine, NaN at
            the end is padding); None: the last state alone, as one row; "steps": every accepted
            step; or a dict of these.
        save: `save(t, y, args)`, what to keep of a state; or a dict with the keys of `saveat`.
        dense: keep the polynomial of each step, so that `sol(t)` works.
        rtol, atol: tolerances: scalars, arrays, or prefix trees of y0. Defaults 1e-3 and 1e-6, of
            an SDE 1e-2 and 1e-2; with a fixed step, where they only say how exactly implicit
            methods solve their equations, 1e-12 and 1e-14.
        dt: a fixed step, for any method. Without it the step is controlled.
        dt0: the first step of a controlled solve.
        controller: `de.PI()` (default), `de.I()`, `de.PID()`, `de.Fixed(ts)`; of an SDE by default
            `de.MeanSquare()`, for errors that are random.
        events: what happens at times that the solve finds (`Event`), that are given (`PresetTimes`,
            `Periodic`, `doses`), or after steps (`AfterStep`): one, or a tuple of them.
        stops: times at which f is discontinuous: steps end there, seeing the limit from the left,
            and the next start afresh.
        adjoint: how to differentiate; `de.Discrete()` unless you know better.
        max_steps: the most attempts. None: enough for `dt` where that is known, else 65,536.
        max_saves: rows kept by "steps" and `dense`. None: 4,096, or all where `dt` says how many;
            and the steps that a delay equation can look back (default 1,024).
        max_events: rows kept by each event that has no list of times (default 1,024).
        init: what to do with the initial values of a `DAEProblem` or an `ImplicitDAEProblem`:
            "consistent" finds them, with the algebraic parts of y0 as guesses, and dy0, and again
            after each event; "check" refuses those that miss the tolerance; "given" takes y0 as it
            is, also after events.
        key: of an SDE or of jumps, the key of its path, such as `jax.random.key(0)`. One key is
            one path, whatever the tolerance (with given steps: one for each choice of steps); a key
            that is shared under `vmap` is shared noise.
        progress: True shows a bar.
        throw: True raises `SolveError` when the solve fails outside a trace; False leaves it to
            `sol.check()`; "compiled" raises inside jit, too.

    Returns:
        A `Solution`.

    Raises:
        TypeError, ValueError: an argument does not fit; before anything runs.
        SolveError: the solve failed; says where and why.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, [1.0, 2.0], (0.0, 1.0), 0.5)
        >>> de.solve(problem, saveat=jnp.array([0.0, 1.0])).ys.shape
        (2, 2)
    """
    adjoint, rtol, atol = overridden(adjoint, rtol, atol)
    if isinstance(problem, SteadyStateProblem):
        return solve_steady_state(
            problem,
            method,
            throw,
            saveat=saveat,
            save=save,
            dense=dense,
            rtol=rtol,
            atol=atol,
            dt=dt,
            dt0=dt0,
            controller=controller,
            events=events,
            stops=stops,
            adjoint=adjoint,
            max_steps=max_steps,
            max_saves=max_saves,
            max_events=max_events,
            progress=progress,
            init=None if init == "consistent" else init,
        )
    traced, options = prepare_call(
        problem,
        method,
        saveat=saveat,
        save=save,
        dense=dense,
        rtol=rtol,
        atol=atol,
        dt=dt,
        dt0=dt0,
        controller=controller,
        events=events,
        stops=stops,
        adjoint=adjoint,
        max_steps=max_steps,
        max_saves=max_saves,
        max_events=max_events,
        init=init,
        key=key,
        progress=progress,
        throw=throw,
    )
    sol = _solve_nonstiff_first(traced, options, adjoint, throw)
    if sol is None:
        sol = _solved(*flatten(traced), options, adjoint, throw)
    if isinstance(sol.status, Tracer):
        return sol
    # Only where numbers are known can one raise, and cut off rows that were not written.
    if throw and sol.status.ndim == 0:
        method = traced["method"]
        sol.check(hint=lambda last: hint(Status(int(sol.status)), problem, method, last))
        if options.default and not isinstance(sol.stats["steps"], Tracer):
            warn_of_stiffness(problem, method, sol)
    return sol.about.trimmed(sol)


def _solve_nonstiff_first(
    traced: dict[str, Any], options: Options, adjoint: Any, throw: Any
) -> Any:
    """The solution by the probe of a pair of methods that nobody has named; None if there is none,
    if nothing can be looked at here, or if the problem is stiff.
    """
    probe = traced["method"].nonstiff_probe if options.default else None
    if probe is None or options.raises_inside_jit:
        return None
    leaves, structure = flatten({**traced, "method": probe})
    if not _status_is_known(leaves):
        return None
    sol = _solved(leaves, structure, options, adjoint, throw)
    return None if isinstance(sol.status, Tracer) or sol.status == Status.stiff else sol


def _solved(leaves: list, structure: Any, options: Options, adjoint: Any, throw: Any) -> Solution:
    options = replace(
        options,
        raises_inside_jit=options.raises_inside_jit and in_a_trace(leaves),
        raises=options.raises_inside_jit
        or (bool(throw) and adjoint is not None and _status_is_known(leaves)),
    )
    return _compiled(options, structure, leaves)


def prepare_call(
    problem: Any,
    method: Any,
    *,
    saveat: Any,
    save: Any,
    dense: bool,
    rtol: Any,
    atol: Any,
    dt: Any,
    dt0: Any,
    controller: Any,
    events: Any,
    stops: Any,
    adjoint: Any,
    max_steps: Any,
    max_saves: Any,
    max_events: Any,
    init: str,
    key: Any,
    progress: Any,
    throw: bool | str,
) -> tuple[dict[str, Any], Options]:
    """A call that passed its checks: what is traced of it, and what is static."""
    random = problem.jumps if isinstance(problem, JumpProblem) else ()
    plain = problem.problem if isinstance(problem, JumpProblem) else problem
    call = checked_call(
        problem=problem,
        method=method,
        saveat=saveat,
        save=save,
        rtol=rtol,
        atol=atol,
        dt=dt,
        dt0=dt0,
        controller=controller,
        events=events,
        stops=stops,
        adjoint=adjoint,
        max_steps=max_steps,
        max_saves=max_saves,
        max_events=max_events,
        init=init,
        throw=throw,
        key=key,
    )
    check_adjoint(
        adjoint,
        plain,
        saveat=call.traced["saveat"],
        save=save,
        dense=dense,
        events=random or events,
        stops=call.traced["stops"],
        method=call.traced["method"],
        has_tolerance=_controlled(call) or rtol is not None or atol is not None,
    )
    counted = max_steps is None and call.max_steps is not None
    options = Options(
        call.direction,
        call.max_steps or MAX_STEPS,
        call.max_saves,
        max_saves,
        max_events or MAX_EVENTS,
        dense,
        adjoint or Discrete(),
        call.floored,
        progress,
        call.raises_inside_jit,
        call.raises_inside_jit,
        init,
        call.raises_inside_jit,
        method is None,
        counted,
    )
    return captured_call(call.traced), options


def _controlled(call: Call) -> bool:
    """Whether steps are found, and not given."""
    return call.traced["dt"] is None and call.traced["controller"].is_adaptive


def _status_is_known(leaves: list) -> bool:
    """Whether this is no trace but that of a derivative: a status can be looked at, and a
    derivative that fails can raise.

    A number that is only being differentiated has a value that can be known.
    """
    tracers = [x for x in leaves if isinstance(x, Tracer)]
    known = not any(isinstance(jax.lax.stop_gradient(x), Tracer) for x in tracers)
    return known and not isinstance(jnp.add(0, 0), Tracer)


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(options: Options, structure: Any, leaves: list) -> Solution:
    return run(options, **unflatten(structure, leaves))


def run(options: Options, *, saveat: Any, save: Any, dt: Any, dt0: Any, **rest: Any) -> Solution:
    """The solve itself, inside a trace."""
    door, status = _build(options, dt=dt, **rest)
    more = door.max_steps - options.max_steps if options.max_history is None else 0
    wanted = OutputPlan(
        door.canonical,
        door.sign,
        saveat,
        save,
        dense=options.dense,
        max_saves=options.max_saves + more,
        events=door.system.events,
    )
    times, bad = wanted.times(door.t0, door.t1)
    door = door.writing(Output(wanted.channels), times, save)
    door = replace(
        door,
        system=replace(
            door.system,
            meter=Meter() if options.progress else None,
            checks_cotangents=options.checks_cotangents,
            raises=options.raises,
        ),
    )
    start = door.start(dt, dt0, bad=bad, status=status)
    end, buffers = options.adjoint.run(door.system, door.data, start, door.max_steps)
    sol = _answer(door, wanted, end, buffers)
    if options.raises_inside_jit:
        call_host(_raise_if_failed, sol.status, sol.last, sol.stats)
    return sol


def first_step(
    options: Options, *, saveat: Any, save: Any, dt: Any, dt0: Any, **rest: Any
) -> tuple[Any, Any]:
    """The length of the first step, and how many steps there would be if all were as long: what a
    solve costs, roughly, beside others of its kind.
    """
    del saveat, save
    door, status = _build(options, dt=dt, **rest)
    start = door.start(dt, dt0, status=status)
    first = start.dt if start.dt is not None else start.first_step(door.system, door.data)
    length = jnp.maximum(jnp.abs(first), jnp.finfo(first.dtype).tiny)
    return first, jnp.abs(door.t1 - door.t0) / length


def _build(
    options: Options,
    *,
    problem: Any,
    method: Any,
    controller: Any,
    rtol: Any,
    atol: Any,
    dt: Any,
    events: Any,
    stops: Any,
    key: Any,
    code: Any,
) -> tuple[BuiltSolve, Any]:
    """The door of the loop, and the status of the search for consistent initial values."""
    del code  # a part of the structure alone
    by = partial(
        build,
        problem,
        controller=controller,
        rtol=rtol,
        atol=atol,
        dt=dt,
        events=events,
        stops=stops,
        direction=options.direction,
        floored=options.floored,
        key=key,
        max_steps=options.max_steps,
        max_events=options.max_events,
        init=options.init,
        max_history=options.max_history,
        counted=options.counted,
    )
    door = by(method=method)
    if options.default and len(method.submethods) > 1 and not _has_slopes(door):
        door = by(method=method.nonstiff)
    return with_consistent_values(door, options.init)


def _has_slopes(door: BuiltSolve) -> bool:
    """Whether the field has the derivatives that a stiff method wants: a `jax.custom_vjp` has none,
    nor has a callback. Whatever else is wrong with it is said where it is evaluated.
    """
    form, _, _ = door.system.parts(door.data)
    try:
        jax.eval_shape(lambda: slopes(form.field, door.t0, door.canonical.y0, form.jac))
    except Exception:
        return False
    return True


def _evaluations(method: Method, end: State) -> Any:
    """How often the field was evaluated: so often a step, or as the steps have counted."""
    each = method.evaluations
    return end.evaluations if each is None else (end.steps + end.rejected) * each


def _raise_if_failed(status: Any, last: Any, stats: Any) -> None:
    none = Solution((), (), (), (), (), last, stats, status, None, SolutionInfo("", None, True))
    none.check()


def _answer(door: BuiltSolve, wanted: OutputPlan, end: State, buffers: list) -> Solution:
    ts, ys, saved, num, dense, happened = wanted.gather(door.data, end, buffers)
    stats = {
        "steps": end.steps,
        "rejected": end.rejected,
        "evaluations": _evaluations(door.method, end),
        "stops": end.stop - door.first_stop,
        "floored": end.floored,
    }
    packing, is_adaptive = door.canonical.packing, door.controller.is_adaptive
    y = packing.unpack(end.y, end.held)
    last = Last(signed_time(door.sign, end.t), y, signed_time(door.sign, end.last_dt))
    about = SolutionInfo(
        repr(door.method),
        packing,
        is_adaptive,
        dense[1],
        wanted.trims,
        smooth=door.canonical.noise is None,
    )
    kind = jnp.where(end.status <= Status.terminated, RowKind.reached, RowKind.missing)
    held = [
        mark_unreached(x, end.y, kind) if jnp.issubdtype(x.dtype, jnp.inexact) else x
        for x in end.held
    ]
    y1 = packing.unpack(mark_unreached(end.y, end.y, kind), held)
    weight = None
    if happened:
        stats["events"] = sum(record.num for record in happened)
    if door.arrivals is not None:
        happened = door.arrivals.told(happened)
        whole = packing.with_view(None).unpack(end.y, end.held)
        weight = door.arrivals.weight(whole, happened, end.t)
    return Solution(
        ts, ys, saved, num, y1, last, stats, end.status, dense[0], about, happened, weight
    )

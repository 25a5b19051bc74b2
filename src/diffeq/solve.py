"""`solve`: defaults, checks across objects, and the way from a user's call to the loop and back."""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .algebra import field_derivatives
from .autodiff.jax_internals import Tracer, in_a_trace, lanes_of
from .autodiff.nonfinite_cotangents import call_host
from .autodiff.unreached_rows import Reached as RowKind
from .autodiff.unreached_rows import mark_unreached
from .capture_call import captured_call
from .closures import flatten, unflatten
from .consistent import with_consistent_values
from .controllers import Controller
from .core.packing import Packing
from .core.promotion import standard_promotion
from .core.status import Status
from .diagnosis import hint, warn_of_stiffness
from .integrator import State
from .integrator.build import BuiltSolve, build, signed_time
from .integrator.call import Call, StaticOptions
from .methods import Method, Switching
from .output import Output
from .output.progress import Meter
from .output_plan import OutputPlan
from .problems import Problem
from .problems.known_pattern import with_known_pattern
from .solution import Last, Solution, SolutionInfo
from .steady_state import solve_steady_state
from .validation import SolveOptions, check_adjoint, checked_call, keywords

__all__ = ["first_step", "prepare_call", "run", "solve"]


@keywords
@standard_promotion()
def solve(
    problem: Problem,
    method: Method | None = None,
    *,
    saveat: Any = None,
    save: Any = None,
    dense: bool = False,
    rtol: PyTree = None,
    atol: PyTree = None,
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
            compiled when it is needed. Inside it always is, which takes twice as long, but for a
            field that is a neural network and no more: there the explicit method goes alone.
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
    options = SolveOptions.of(locals())
    if getattr(problem, "is_steady", False):
        return solve_steady_state(problem, options)
    call, static = prepare_call(problem, options)
    sol = _solve_nonstiff_first(call, static, options)
    if sol is None:
        sol = _solved(*flatten(call), static, options)
    if isinstance(sol.status, Tracer):
        return sol
    # Only where numbers are known can one raise, and cut off rows that were not written.
    if throw and sol.status.ndim == 0:
        sol.check(hint=lambda last: hint(Status(int(sol.status)), problem, call.method, last))
        if static.default_method and not isinstance(sol.stats["steps"], Tracer):
            warn_of_stiffness(problem, call.method, sol.last, sol.stats)
    return sol.about.trimmed(sol)


def prepare_call(
    problem: Any, options: SolveOptions, *, by_hand: bool = False
) -> tuple[Call, StaticOptions]:
    """A call that has passed its checks, with programs in place of the user's functions."""
    call, static = checked_call(problem, options, by_hand=by_hand)
    check_adjoint(call, options, by_hand=by_hand)
    call = captured_call(call)
    return call._replace(problem=with_known_pattern(call.problem)), static


def _solve_nonstiff_first(
    call: Call, static: StaticOptions, options: SolveOptions
) -> Solution | None:
    """The solution by the explicit method of the default pair, alone; by the pair, if that finds
    the problem stiff. None if there is no such pair, or if the status is not known here.
    """
    probe = call.method.nonstiff_probe if static.default_method else None
    if probe is None or static.raises_inside_jit:
        return None
    leaves, structure = flatten(call._replace(method=probe))
    if not _status_is_known(leaves):
        return None
    sol = _solved(leaves, structure, static, options)
    if isinstance(sol.status, Tracer):
        return None
    if sol.status == Status.stiff:
        return _solved(*flatten(call), replace(static, is_stiff=True), options)
    return sol


def _solved(
    leaves: list, structure: Hashable, static: StaticOptions, options: SolveOptions
) -> Solution:
    loud, checked = static.raises_inside_jit, bool(options.throw) and options.adjoint is not None
    static = replace(
        static,
        raises_inside_jit=loud and in_a_trace(leaves),
        raises=loud or (checked and _status_is_known(leaves)),
        lanes=lanes_of(leaves),
    )
    return _compiled(static, structure, leaves)


def _status_is_known(leaves: list) -> bool:
    """True outside of a trace, or in that of a derivative alone: the status has a value, and a
    derivative that fails can raise.

    A number that is only being differentiated has a value that can be known.
    """
    tracers = [x for x in leaves if isinstance(x, Tracer)]
    known = not any(isinstance(jax.lax.stop_gradient(x), Tracer) for x in tracers)
    return known and not isinstance(jnp.add(0, 0), Tracer)


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(static: StaticOptions, structure: Hashable, leaves: list) -> Solution:
    return run(static, unflatten(structure, leaves))


def run(static: StaticOptions, call: Call) -> Solution:
    """Solves a call, inside a trace."""
    built, status = _build(static, call)
    more = built.max_steps - static.max_steps if static.max_history is None else 0
    plan = OutputPlan(built, call.saveat, call.save, static.dense, static.max_saves + more)
    times, bad = plan.times(built.t0, built.t1)
    meter = Meter() if static.progress else None
    built = built.writing(Output(plan.channels), times, call.save).watching(static, meter)
    start = built.start(call.dt, call.dt0, bad=bad, status=status)
    end, buffers = static.adjoint.run(built.integrator, built.data, start, built.max_steps)
    sol = _answer(built, plan, end, buffers)
    if static.raises_inside_jit:
        call_host(_raise_if_failed, sol.status, sol.last, sol.stats)
    return sol


def first_step(static: StaticOptions, call: Call) -> tuple[Array, Array]:
    """The size of the first step, and the number of steps if all were as long: roughly what a solve
    costs, beside others of its kind.
    """
    built, status = _build(static, call)
    start = built.start(call.dt, call.dt0, status=status)
    first = start.dt if start.dt is not None else start.first_step(built.integrator, built.data)
    length = jnp.maximum(jnp.abs(first), jnp.finfo(first.dtype).tiny)
    return first, jnp.abs(built.t1 - built.t0) / length


def _build(static: StaticOptions, call: Call) -> tuple[BuiltSolve, Array]:
    """The integrator of a call, and the status of the search for consistent initial values."""
    built = build(call, static)
    method = call.method
    if static.default_method and isinstance(method, Switching) and _stays_explicit(built, static):
        built = build(call._replace(method=method.nonstiff), static)
    return with_consistent_values(built, static.init)


def _stays_explicit(built: BuiltSolve, static: StaticOptions) -> bool:
    """True if the explicit method of the default pair goes alone, in a program that cannot be
    exchanged for another when a number is known: where the field is a neural network and no more,
    which is as smooth as its weights are small, and which a second method would compile twice over;
    and where it lacks the derivatives that a stiff method evaluates.
    """
    network = not static.is_stiff and built.canonical.is_network()
    return network or not _has_slopes(built)


def _has_slopes(built: BuiltSolve) -> bool:
    """True if the field has the derivatives that a stiff method evaluates: a `jax.custom_vjp` has
    none, nor has a callback. Whatever else is wrong with it is said where it is evaluated.
    """
    form, _, _ = built.integrator.parts(built.data)
    try:
        place = built.t0, built.canonical.y0
        jax.eval_shape(lambda: field_derivatives(form.field, *place, form.jac))
    except Exception:
        return False
    return True


def _evaluations(method: Method, end: State) -> Any:
    """The number of evaluations of the field: a fixed number a step, or as steps have counted."""
    each = method.evaluations
    return end.evaluations if each is None else (end.steps + end.rejected) * each


def _raise_if_failed(status: Array, last: Last, stats: dict[str, Array]) -> None:
    none = Solution(
        (), (), (), (), (), last, stats, status, None, SolutionInfo("", Packing(()), True)
    )
    none.check()


def _answer(built: BuiltSolve, plan: OutputPlan, end: State, buffers: list) -> Solution:
    ts, ys, saved, num, dense, happened = plan.gather(built.data, end, buffers)
    stats = {
        "steps": end.steps,
        "rejected": end.rejected,
        "evaluations": _evaluations(built.method, end),
        "stops": end.stop - built.first_stop,
        "floored": end.floored,
    }
    packing, is_adaptive = built.canonical.packing, built.controller.is_adaptive
    y = packing.unpack(end.y, end.held)
    last = Last(signed_time(built.sign, end.t), y, signed_time(built.sign, end.last_dt))
    about = SolutionInfo(
        repr(built.method),
        packing,
        is_adaptive,
        dense[1],
        plan.trims,
        smooth=built.canonical.noise is None,
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
    if built.jump_process is not None:
        happened = built.jump_process.with_channels(happened)
        whole = packing.with_view(None).unpack(end.y, end.held)
        weight = built.jump_process.weight(whole, happened, end.t)
    return Solution(
        ts, ys, saved, num, y1, last, stats, end.status, dense[0], about, happened, weight
    )

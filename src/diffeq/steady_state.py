"""States of rest: `solve` of a `SteadyStateProblem`."""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from .adjoints import SteadyState
from .adjoints.steady_state import Rest, at_rest
from .autodiff.jax_internals import Tracer, influences
from .autodiff.unreached_rows import Reached, mark_unreached
from .autodiff.while_loop import loop
from .capture_call import captured_problem
from .closures import code_of, flatten, unflatten
from .controllers import PI
from .controllers.tolerance import Tolerance
from .core.norm import mean_square
from .core.status import Status
from .diagnosis import advice
from .integrator import Data, Start, State, attempt
from .integrator.build import BuiltSolve, build
from .integrator.call import MAX_STEPS, Call, StaticOptions
from .methods import METHODS
from .problems import Problem
from .problems.forms import lower
from .solution import Last, Solution, SolutionInfo
from .validation import SolveOptions, checked_rest

__all__ = ["solve_steady_state"]

_MOST = 256  # iterations of a search
_STILL = 100.0  # tolerances that y may change by when it is almost at rest


def solve_steady_state(problem: Problem, options: SolveOptions) -> Solution:
    """The state at which y' = f comes to rest, found by Newton's method from y0; or, with a method,
    by following the equation in time until it is almost there.
    """
    rtol, atol = checked_rest(problem, options)
    adjoint, follows = options.adjoint or SteadyState(), options.method is not None
    method = options.method or METHODS["Tsit5"]()
    call = Call(captured_problem(problem), method, PI(), rtol, atol, code=code_of(method))
    leaves, structure = flatten(call)
    static = StaticOptions(1, adjoint, max_steps=options.max_steps or MAX_STEPS)
    sol = _compiled(static, follows, structure, leaves)
    if options.throw and not isinstance(sol.status, Tracer) and sol.status.ndim == 0:
        sol.check(hint=lambda last: advice(Status(int(sol.status))))
    return sol


@partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(static: StaticOptions, follows: bool, structure: Hashable, leaves: list) -> Solution:
    built = build(unflatten(structure, leaves), static)
    _check_timeless(built)
    y0 = built.canonical.y0
    t, y, steps, still = _followed(built) if follows else (built.t0, y0, 0, True)
    inputs, tree = jax.tree.flatten((built.data, _start(built.t0, y0)))
    rest = Rest(built.integrator, tree, y0.shape, y0.dtype, static.adjoint.linear, _MOST)
    z, good, count = at_rest(rest, inputs, jax.lax.stop_gradient(rest.flat(y)))
    return _answer(built, rest, (t, z), good & still, steps + count, inputs)


def _start(t: Array, y: Array, dt: Array | None = None) -> Start:
    return Start(t, y, (), dt, jnp.asarray(Status.running, jnp.int32))


def _check_timeless(built: BuiltSolve) -> None:
    """Refuses an f in which t appears."""
    form = built.integrator.form(built.data.parameters, built.data.sign)
    field = lower(form, "ode", "a steady state").field
    jaxpr = jax.make_jaxpr(field)(built.t0, built.canonical.y0)
    if influences(jaxpr)[0]:
        raise TypeError(
            "f depends on t, so y' = f does not come to rest; a SteadyStateProblem's f may take t, "
            "and must not use it."
        )


def _followed(built: BuiltSolve) -> tuple:
    """(t, y, attempts, True if it is almost at rest), from y0 by steps in time.

    It is at rest when y has changed by no more than some tolerances since half the time that has
    passed. (f is no measure: at its stability limit an explicit method keeps it from zero for
    ever.) The first look is when y has had time to change by some tolerances at the rate that it
    starts with.
    """
    integrator = built.integrator
    data, y0, t0 = jax.lax.stop_gradient((built.data, built.canonical.y0, built.t0))
    data = replace(data, t1=jnp.full_like(t0, float(jnp.finfo(t0.dtype).max) / 4))
    form = lower(integrator.form(data.parameters, data.sign), "ode", "a steady state")
    first = _size(data.tolerance, form.field(t0, y0), y0).astype(t0.dtype)
    unit = 1 / jnp.where(first > 0, first, 1)
    state = _start(t0, y0, 0.1 * unit).state(integrator, data)

    def running(consts: tuple[Data, Array], carried: _Followed, _: tuple) -> Bool[Array, ""]:
        del consts
        return (carried.state.status == Status.running) & ~carried.still

    def turn(
        active: Bool[Array, ""], consts: tuple[Data, Array], carried: _Followed, _: tuple
    ) -> tuple[_Followed, tuple]:
        del active
        data, t0 = consts
        state, _ = attempt(integrator, data, carried.state)
        look = state.t - t0 >= 2 * carried.passed
        changed = _size(data.tolerance, state.y - carried.y, state.y)
        return _Followed(
            state,
            jnp.where(look, state.t - t0, carried.passed),
            jnp.where(look, state.y, carried.y),
            look & (changed <= _STILL),
        ), ()

    begun = _Followed(state, _STILL * unit, y0, first == 0)
    end, _ = loop(running, turn, begun, consts=(data, t0))
    return end.state.t, end.state.y, end.state.steps + end.state.rejected, end.still


class _Followed(NamedTuple):
    """An equation on its way to rest: its state, and the state at the last look."""

    state: State
    passed: Array
    y: Array
    still: Bool[Array, ""]


def _size(tolerance: Tolerance, x: Array, y: Array) -> Array:
    """The root mean square of x in units of the tolerance of y."""
    return jnp.sqrt(mean_square(x / (tolerance.atol + tolerance.rtol * jnp.abs(y))))


def _answer(
    built: BuiltSolve,
    rest: Rest,
    at: tuple,
    good: Bool[Array, ""],
    count: Int[Array, ""],
    inputs: list,
) -> Solution:
    t, z = at
    packing = built.canonical.packing
    y = rest.state(z)
    status = jnp.where(good, Status.success, Status.not_at_rest).astype(jnp.int32)
    kind = jnp.where(good, Reached.reached, Reached.missing)
    # A cotangent of what was not found is NaN for all inputs, and never seen by a linear solver.
    touched = sum(0 * jnp.sum(jnp.real(x)) for x in inputs if jnp.issubdtype(x.dtype, jnp.inexact))
    y1 = mark_unreached(y, jax.lax.stop_gradient(y) + touched, kind)
    count = jnp.asarray(count, jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    stats = {"steps": count, "rejected": zero, "evaluations": count, "stops": zero, "floored": zero}
    finite = jax.lax.stop_gradient(jnp.where(jnp.isfinite(y), y, built.canonical.y0))
    last = Last(t, packing.unpack(finite), jnp.zeros_like(t))
    about = SolutionInfo("a search for rest", packing, True)
    return Solution(
        t[None],
        packing.unpack(y1[None]),
        good[None],
        good[None].sum(),
        packing.unpack(y1),
        last,
        stats,
        status,
        None,
        about,
    )

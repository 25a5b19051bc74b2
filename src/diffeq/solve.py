"""`solve`: defaults, checks across objects, and the way from a user's call to the loop and back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .adjoint import Discrete
from .control import PI, Constant, Controller, initial_step
from .control.error import Tolerance
from .core.lift import flatten, unflatten
from .core.status import Status
from .integrate import Data, State, System, begin
from .methods import Method
from .output import Output
from .problems import Problem
from .problems.forms import Ode, lower
from .problems.lowering import Canonical, canonical
from .refuse import checked_call
from .request import Wanted
from .solution import About, Last, Solution

__all__ = ["solve"]

_MAX_STEPS = 100_000
_MAX_SAVES = 4096


@dataclass(frozen=True)
class _Options:
    """What is static in a call."""

    direction: int | None
    max_steps: int
    max_saves: int
    dense: bool
    adjoint: Any
    floored: bool
    progress: Any
    compiled_throw: bool


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
    stops: Any = (),
    adjoint: Any = None,
    max_steps: int | None = None,
    max_saves: int | None = None,
    progress: Any = None,
    throw: bool | str = True,
) -> Solution:
    """Solves a problem.

    The method advances y so that the estimated error of each step, scaled by atol + rtol · |y|,
    has a root mean square of at most 1. Everything differentiates, in every mode, to any order.

    Args:
        problem: an `ODEProblem`, `SplitODEProblem`, `SecondOrderProblem` or `HamiltonianProblem`.
        method: an instance, such as `de.Tsit5()`. None: Tsit5, or Vern7 below rtol = 1e-6.
        saveat: times to save at, sorted along the direction of time (duplicates are fine, NaN at
            the end is padding); None: the last state alone, as one row; "steps": every accepted
            step; or a dict of these.
        save: `save(t, y, args)`, what to keep of a state; or a dict with the keys of `saveat`.
        dense: keep the polynomial of each step, so that `sol(t)` works.
        rtol, atol: tolerances: scalars, arrays, or prefix trees of y0. Defaults 1e-3 and 1e-6.
        dt: a fixed step, for any method. Without it the step is controlled.
        dt0: the first step of a controlled solve.
        controller: `de.PI()` (default), `de.I()`, `de.PID()`, `de.Fixed(ts)`.
        stops: times at which f is discontinuous: steps end there, seeing the limit from the left,
            and the next start afresh.
        adjoint: how to differentiate; `de.Discrete()` unless you know better.
        max_steps: the most attempts. None: the known number for `dt`, else 100,000.
        max_saves: rows kept by "steps" and `dense` (default 4,096).
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
    call = checked_call(
        problem=problem, method=method, saveat=saveat, save=save, dense=dense, rtol=rtol, atol=atol, dt=dt,
        dt0=dt0, controller=controller, stops=stops, adjoint=adjoint, max_steps=max_steps,
        max_saves=max_saves, throw=throw,
    )  # fmt: skip
    leaves, structure = flatten(call.traced)
    options = _Options(
        call.direction, call.max_steps or _MAX_STEPS, max_saves or _MAX_SAVES, dense, adjoint or Discrete(),
        call.floored, progress, throw == "compiled",
    )  # fmt: skip
    sol = _compiled(options, structure, leaves)
    return _outside(sol, throw)


def _outside(sol: Solution, throw: bool | str) -> Solution:
    """What can only be done where numbers are known: raising, and trimming rows."""
    if isinstance(sol.status, jax.core.Tracer):
        return sol
    if throw and sol.status.ndim == 0:
        sol.check()
    return sol.about.trimmed(sol)


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(options: _Options, structure: Any, leaves: list) -> Solution:
    return _run(options, **unflatten(structure, leaves))


def _run(options: _Options, *, problem: Any, method: Any, controller: Any, saveat: Any, save: Any,
         rtol: Any, atol: Any, dt: Any, dt0: Any, stops: Any) -> Solution:  # fmt: skip
    door = canonical(problem)
    sign = options.direction or jnp.where(door.t1 < door.t0, -1, 1)
    t0, t1 = (_signed(sign, t) for t in (door.t0, door.t1))
    tolerance = _tolerance(door, rtol, atol, options.floored)
    wanted = Wanted(door, sign, saveat, save, dense=options.dense, max_saves=options.max_saves)
    times, bad = wanted.times(t0, t1)
    stops = _stops(sign, stops, t0, t1)
    if dt is not None:
        controller = Constant()
    method_arrays, method_rest = eqx.partition(method, eqx.is_array_like)
    controller_arrays, controller_rest = eqx.partition(controller, eqx.is_array_like)
    form = partial(_lowered, door.form, method)
    system = System(form, method_rest, controller_rest, Output(wanted.channels), stops is not None)
    data = Data(
        parameters=door.parameters, sign=sign if options.direction is None else (), t1=t1,
        stops=() if stops is None else stops, tolerance=tolerance,
        method=jax.tree.map(jnp.asarray, method_arrays), controller=jax.tree.map(jnp.asarray, controller_arrays),
        times=times, max_steps=jnp.int32(options.max_steps), goal=jnp.int32(2**31 - 1),
    )  # fmt: skip
    if options.direction is not None:
        system = _directed(system, options.direction)
    first = _first_step(system, data, method, t0, door.y0, t1, dt, dt0)
    state = begin(system, data, t0, door.y0, jax.lax.stop_gradient(first))
    status = jnp.where(bad & (state.status == Status.running), Status.bad_times, state.status)
    state = eqx.tree_at(lambda s: s.status, state, status.astype(jnp.int32))
    end, buffers = options.adjoint.run(system, data, state, options.max_steps)
    return _answer(options, door, data, sign, method, controller, wanted, end, buffers)


def _lowered(form: Callable, method: Method, parameters: Any, sign: Any) -> Any:
    return lower(form(parameters, sign), method.form, repr(method))


def _directed(system: System, direction: int) -> System:
    """The system with a direction of time that is known, which then costs nothing."""
    form = system.form
    return System(
        lambda parameters, _: form(parameters, direction), system.method, system.controller,
        system.output, system.has_stops, system.one_step, system.meter,
    )  # fmt: skip


def _signed(sign: Any, x: Any) -> Any:
    return x if isinstance(sign, int) and sign == 1 else jnp.asarray(sign, x.dtype) * x


def _tolerance(door: Canonical, rtol: Any, atol: Any, floored: bool) -> Tolerance:
    real = jnp.finfo(door.y0.dtype).dtype
    full = lambda x: _prefix(door, x, real)  # noqa: E731
    return Tolerance(full(rtol), full(atol), floored)


def _prefix(door: Canonical, value: Any, dtype: Any) -> Any:
    """A scalar, or a prefix tree of y0, as an array that broadcasts against the packed state."""
    if jax.tree.structure(value).num_leaves == 1 and jnp.ndim(jax.tree.leaves(value)[0]) == 0:
        return jnp.asarray(jax.tree.leaves(value)[0], dtype)
    like = door.packing.unpack(door.y0.astype(dtype))
    try:
        tree = jax.tree.map(
            lambda v, part: jax.tree.map(lambda y: jnp.broadcast_to(jnp.asarray(v, dtype), y.shape), part), value, like
        )
    except ValueError as error:
        raise ValueError(f"a tolerance is {value!r}; a scalar, or a prefix tree of y0, is wanted.") from error
    return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)]) if not door.packing.single else jax.tree.leaves(tree)[0]


def _stops(sign: Any, stops: Any, t0: Any, t1: Any) -> Any:
    """Sorted stops in the loop's time; None when there are none."""
    if stops is None or jnp.size(stops) == 0:
        return None
    return jnp.sort(_signed(sign, jnp.asarray(stops, t1.dtype)))


def _first_step(system: System, data: Data, method: Method, t0: Any, y0: Any, t1: Any, dt: Any, dt0: Any) -> Any:
    given = dt if dt is not None else dt0
    if given is not None:
        return jnp.abs(jnp.asarray(given, t0.dtype))
    form, *_ = system.parts(data)
    ode = lower(form, "ode", "the initial step") if not isinstance(form, Ode) else form
    stopped = jax.lax.stop_gradient((t0, y0, t1 - t0))
    return initial_step(ode.field, *stopped, method.error_order, data.tolerance)


def _answer(options: _Options, door: Canonical, data: Data, sign: Any, method: Any, controller: Any,
            wanted: Wanted, end: State, buffers: list) -> Solution:  # fmt: skip
    ts, ys, saved, num, dense = wanted.gather(data, end, buffers)
    stats = {
        "steps": end.steps,
        "rejected": end.rejected,
        "evaluations": (end.steps + end.rejected) * method.evaluations,
        "stops": end.stop,
        "floored": end.floored,
    }
    t_last, y_last, dt_last = _signed(sign, end.t), door.packing.unpack(end.y), _signed(sign, end.last_dt)
    about = About(repr(method), door.packing, controller.decides, dense[1], trims=wanted.trims)
    return Solution(ts, ys, saved, num, Last(t_last, y_last, dt_last), stats, end.status, dense[0], about)

"""A solve by hand: `init` a state, then `step` it, or `advance` it to a time of your choice.

A `State` is a pytree of arrays that holds the whole solve, so it goes through `jax.jit`, `vmap`,
`lax.scan` and `lax.while_loop`, and both verbs differentiate in every mode.
"""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import Any, SupportsFloat

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, Real

from .autodiff.jax_internals import is_key
from .closures import flatten, unflatten
from .consistent import with_consistent_values
from .controllers import Controller
from .core.packing import Packing, as_state, released
from .core.promotion import standard_promotion
from .core.status import Status
from .core.user_functions import described
from .diagnosis import hint
from .integrator import State as Inner
from .integrator import (
    count_passed,
    initial_state,
    is_over,
    mark_failed,
    restart,
    right_limit_form,
    with_held,
)
from .integrator.build import BuiltSolve, build, signed_time
from .integrator.call import Call, StaticOptions
from .methods import Method
from .output_plan import clamp_times
from .problems import Problem
from .solution import Last, SolveError
from .solve import prepare_call
from .validation import SolveOptions, concrete, is_real, keywords
from .validation.values import shown

__all__ = ["State", "advance", "init", "step"]

# One step is refused after this many attempts: by then dt has shrunk to nothing.
_ATTEMPTS = 100


class State(eqx.Module):
    """The state of a solve by hand. `init` makes it; `step` and `advance` return another one.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> state = de.init(problem, de.RK4(), dt=0.25)
        >>> state.t, state.y, state.dt, de.Status(int(state.status)).name
        (Array(0., dtype=float32), Array(1., dtype=float32), Array(0.25, dtype=float32), 'running')
    """

    inner: Inner
    leaves: list
    sign: Any
    packing: Packing = eqx.field(static=True)
    structure: Hashable = eqx.field(static=True)
    static: StaticOptions = eqx.field(static=True)
    throw: bool = eqx.field(static=True)

    @property
    def t(self) -> Real[Array, "..."]:
        """The time, in the problem's own unit and direction."""
        return signed_time(self._direction, self.inner.t)

    @property
    def y(self) -> Any:
        """The state there, with the structure of y0."""
        return self.packing.unpack(self.inner.y, self.inner.held)

    @property
    def dt(self) -> Real[Array, "..."]:
        """The length of the step to attempt next; negative where time runs backwards."""
        return signed_time(self._direction, self.inner.dt)

    @property
    def status(self) -> Int[Array, "..."]:
        """`Status.running` before the end of tspan, `Status.success` there; else why not."""
        return self.inner.status

    @property
    def _direction(self) -> Array | int:
        return self.sign if self.static.direction is None else self.static.direction

    def replace(
        self, *, t: Any = None, y: PyTree = None, dt: Any = None, args: PyTree = None
    ) -> "State":
        """The state with another t, y, dt or args: a kick, a reset, a new control input.

        All that the method and the controller remember of the past is forgotten (a new dt alone
        keeps it), and a failure with it. t has to lie inside tspan; the sign of dt is ignored. The
        algebraic components of a DAE are made consistent again, as after an event.

        Raises:
            TypeError: y or args are not like those that the state has.
            ValueError: t lies outside of tspan, or dt is no length of time.
            SolveError: no algebraic components were found that are consistent with the others.

        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> state = de.init(problem, de.RK4(), dt=0.25)
        >>> de.step(state.replace(y=0.0)).y
        Array(0., dtype=float32)
        """
        changes: dict[str, Any] = {
            name: _scalar(name, x, self.inner.t)
            for name, x in (("t", t), ("dt", dt))
            if x is not None
        }
        if y is not None:
            changes["y"], changes["held"] = _packed(self, y)
        state = self if args is None else _with_args(self, args)
        fresh = args is not None or bool(changes.keys() - {"dt"})
        return _raised(_in_time(state, _replaced(state, changes, fresh=fresh), None, t))

    def __repr__(self) -> str:
        if not concrete(self.inner) or self.status.ndim:
            return f"State(t={self.t})"
        name = Status(int(self.status)).name
        return f"State({name}, t={float(self.t):.6g}, dt={float(self.dt):.3g}, y={self.y})"


@keywords
@standard_promotion()
def init(
    problem: Problem,
    method: Method | None = None,
    *,
    rtol: PyTree = None,
    atol: PyTree = None,
    dt: Any = None,
    dt0: Any = None,
    controller: Controller | None = None,
    events: Any = (),
    stops: Any = (),
    adjoint: Any = None,
    max_steps: int | None = None,
    init: str = "consistent",
    key: Any = None,
    throw: bool = True,
) -> State:
    """The start of a solve by hand, at tspan[0].

    Takes the options of `solve` that say how to step; they have the same defaults and checks there.

    Args:
        problem: what to solve; its tspan bounds every step.
        method: an instance; None: chosen as `solve` does.
        rtol, atol: tolerances of a controlled solve.
        dt: a fixed step.
        dt0: the first step of a controlled solve.
        controller: what decides on dt.
        events: what happens; steps end there. A step may be one round of several at one time.
        stops: times at which f is discontinuous; steps end there.
        adjoint: how to differentiate.
        max_steps: the most attempts of one `advance`.
        init: what to do with the initial values of a `DAEProblem`.
        key: of an SDE, the key of its path.
        throw: `step` and `advance` raise `SolveError` when they fail outside a trace.

    Example:
        >>> import diffeq as de
        >>> state = de.init(de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0), rtol=1e-6)
        >>> while state.status == de.Status.running:
        ...     state = de.step(state)
        >>> round(float(state.y), 4)
        0.1353
    """
    if problem.delayed:
        raise TypeError(
            f"{type(problem).__name__} cannot be solved by hand yet: its past would have to go "
            "with the state. Use de.solve."
        )
    if problem.has_jumps:
        raise TypeError(
            "a JumpProblem cannot be solved by hand: its hazards would be a part of the state that "
            "y does not show. Use de.solve, or de.Event with hazards of your own."
        )
    call, static = prepare_call(problem, SolveOptions.of(locals()), by_hand=True)
    if len(call.method.submethods) > 1:
        raise TypeError(
            f"{method!r} cannot be stepped by hand yet: one step may not tell who makes the next. "
            "Use de.solve, or one of both methods."
        )
    leaves, structure = flatten(call)
    return _raised(_begun(static, bool(throw), structure, leaves))


@standard_promotion()
def step(state: State) -> State:
    """The state after one accepted step, rejected attempts included; at the end of tspan, the same.

    A step never goes beyond tspan[1]: the last one lands on it.

    Raises:
        TypeError: what was given is no `State`.
        SolveError: the step failed (not inside a trace: there `status` tells).

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> state = de.init(problem, de.RK4(), dt=0.25)
        >>> once = lambda state, _: (de.step(state), state.t)
        >>> jax.lax.scan(once, state, length=4)[1]
        Array([0.  , 0.25, 0.5 , 0.75], dtype=float32)
    """
    return _raised(_stepped(_a_state(state)))


@standard_promotion()
def advance(state: State, t: Any) -> State:
    """The state at t: steps as many as it takes, the last of which lands on t exactly.

    t lies between `state.t` and tspan[1]; a traced t that does not is the status `bad_times`. What
    the landing cut off its step is not held against the next one.

    Raises:
        TypeError: what was given is no `State`.
        ValueError: t is known, and before `state.t` or beyond tspan[1].
        SolveError: a step failed (not inside a trace: there `status` tells).

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> state = de.advance(de.init(problem, rtol=1e-6), 0.5)
        >>> float(state.t), round(float(state.y), 4)
        (0.5, 0.3679)
    """
    goal = _scalar("t", t, _a_state(state).inner.t)
    return _raised(_in_time(state, _advanced(state, goal), state.t, t))


# --- compiled ------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1, 2))
def _begun(static: StaticOptions, throw: bool, structure: Hashable, leaves: list) -> State:
    leaves = [jnp.asarray(x) for x in leaves]
    call = unflatten(structure, leaves)
    built = build(call, static)
    sign = () if static.direction else jnp.asarray(built.sign, built.t0.dtype)
    built, status = with_consistent_values(built, static.init)
    inner = built.start(call.dt, call.dt0, status=status).state(built.integrator, built.data)
    return State(inner, leaves, sign, built.canonical.packing, structure, static, throw)


@jax.jit
def _stepped(state: State) -> State:
    built, inner = _rebuilt(state), state.inner
    data = replace(built.data, goal=inner.steps + 1, max_steps=_attempts(inner) + _ATTEMPTS)
    integrator = replace(built.integrator, one_step=True)
    end, _ = state.static.adjoint.run(integrator, data, inner, _ATTEMPTS)
    return replace(state, inner=_open(built, end))


@jax.jit
def _advanced(state: State, t: Array) -> State:
    built, inner, most = _rebuilt(state), state.inner, state.static.max_steps
    goal, bad = _inside(signed_time(built.sign, t), inner.t, built.t1)
    events = built.integrator.bound_events(built.data)
    shown = events.shown(inner.events, inner.t) if events else inner.t
    here = (goal <= shown) & (inner.status == Status.running)
    inner = replace(inner, status=jnp.where(here, Status.success, inner.status).astype(jnp.int32))
    inner = mark_failed(inner, bad, Status.bad_times)
    data = replace(built.data, t1=goal, max_steps=_attempts(inner) + most)
    end, _ = state.static.adjoint.run(built.integrator, data, inner, most)
    return replace(state, inner=_past_stops(built, _open(built, end)))


@partial(jax.jit, static_argnames="fresh")
def _replaced(state: State, changes: dict, *, fresh: bool) -> State:
    built, old = _rebuilt(state), state.inner
    t, bad = _inside(signed_time(built.sign, changes.get("t", state.t)), built.t0, built.t1)
    t = jnp.where(bad, old.t, t) if "t" in changes else old.t
    dt = jnp.abs(changes.get("dt", old.dt))
    held = changes.get("held", old.held)
    data = with_held(built.data, held)
    y, found = changes.get("y", old.y), jnp.ones((), bool)
    settled = restart(built.integrator, data).settled
    if fresh and settled is not None:
        consistent, found = settled(t, y, held)
        y = jnp.where(found, consistent, y)
    new = initial_state(built.integrator, data, t, y, dt)
    names = ("steps", "rejected", "floored", "last_dt", "evaluations")
    kept = names if fresh else (*names, "time_error", "memory", "control", "events")
    if built.integrator.events:
        new = replace(new, events=built.integrator.events.moved(old.events, new.events, t == old.t))
    new = replace(new, **{name: getattr(old, name) for name in kept})
    over = is_over(built.integrator, data, t, new.events)  # what has happened does not again
    status = jnp.where(over & (new.status == Status.running), Status.success, new.status)
    new = mark_failed(replace(new, status=status.astype(jnp.int32)), ~found, Status.inconsistent)
    return replace(state, inner=mark_failed(new, bad, Status.bad_times))


def _rebuilt(state: State) -> BuiltSolve:
    return build(_call_of(state), state.static)


def _call_of(state: State) -> Call:
    return unflatten(state.structure, state.leaves)


def _attempts(inner: Inner) -> Array:
    return inner.steps + inner.rejected


def _open(built: BuiltSolve, inner: Inner) -> Inner:
    """A state that reached a goal before the end of tspan goes on."""
    on = (inner.status == Status.success) & (inner.t < built.t1)
    return replace(inner, status=jnp.where(on, Status.running, inner.status).astype(jnp.int32))


def _past_stops(built: BuiltSolve, inner: Inner) -> Inner:
    """A goal may be a stop: what follows starts afresh on its right."""
    if not built.integrator.has_stops:
        return inner
    stop = count_passed(built.data.stops, inner.t)
    form, method, _ = built.integrator.parts(with_held(built.data, inner.held))
    fresh = right_limit_form(built.integrator, built.data, form, inner.t)
    memory = jax.lax.cond(
        stop > inner.stop, lambda: method.init(fresh, inner.t, inner.y), lambda: inner.memory
    )
    return replace(inner, stop=stop, memory=memory)


def _inside(t: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """t, or the end that it is within 4 ulp of; and True if it lies outside, where t is `low`."""
    (t,), bad = clamp_times(t[None], low, high)
    bad = bad | jnp.isnan(t)
    return jnp.where(bad, low, t), bad


# --- outside -------------------------------------------------------------------------------------


def _with_args(state: State, args: PyTree) -> State:
    call = _call_of(state)
    args, old = released(args), call.problem.args
    leaves, structure = flatten(args)
    kinds, wanted = flatten(old)
    if structure != wanted or not all(map(_stands_for, leaves, kinds)):
        raise TypeError(
            f"args is {shown(args)}; the functions were traced by init for {described(old)}, and "
            "the same structure, shapes and kinds of numbers are wanted (a whole number stays one: "
            "write 1.0 at init). Of other args begin again: de.init(problem.replace(args=…, …))."
        )
    leaves, _ = flatten(call._replace(problem=call.problem.replace(args=args)))
    return replace(state, leaves=[jnp.asarray(x) for x in leaves])


def _stands_for(new: Any, old: Array) -> bool:
    """True if a number may be given where a function was traced with another one."""
    if np.shape(new) != old.shape or is_key(new) or is_key(old):
        return np.shape(new) == old.shape and is_key(new) and is_key(old)
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    kind = next(kind for kind in kinds if jnp.issubdtype(old.dtype, kind))
    return jnp.issubdtype(jnp.promote_types(jnp.result_type(new), old.dtype), kind)


def _a_state(state: Any) -> State:
    if not isinstance(state, State):
        raise TypeError(
            f"state is {state!r}; a State is wanted, which de.init(problem, method) makes."
        )
    return state


def _scalar(name: str, value: Any, like: Array) -> Array:
    if np.shape(value) != () or not is_real(value):
        raise ValueError(f"{name} is {value!r}; one number is wanted.")
    if name == "dt" and concrete(value) and not (np.isfinite(value) and value != 0):
        raise ValueError(f"dt is {value!r}; a length of time that is finite and not 0 is wanted.")
    return jnp.asarray(value, like.dtype)


def _packed(state: State, y: PyTree) -> tuple[Array, tuple]:
    y, packing = as_state(released(y)), state.packing
    shapes = [np.shape(x) for x in jax.tree.leaves(y)]
    words = any(isinstance(x, str) for x in jax.tree.leaves(y))
    if jax.tree.structure(y) != packing.tree or shapes != packing.all_shapes or words:
        raise TypeError(
            f"y is {y!r}; the structure and the shapes of y0 are wanted: {packing.tree}, "
            f"{packing.all_shapes}."
        )
    if not all(map(_stands_for, jax.tree.leaves(y), jax.tree.leaves(state.y))):
        raise TypeError(
            f"y is {shown(y)}; numbers of the kinds that the state has are wanted: "
            f"{described(state.y)}."
        )
    held = zip(packing.held_of(y), state.inner.held, strict=True)
    return packing.pack(y), tuple(jnp.asarray(new, old.dtype) for new, old in held)


def _known(state: State) -> bool:
    return state.status.ndim == 0 and concrete(state.status)


def _in_time(before: State, after: State, low: Array | None, t: SupportsFloat | None) -> State:
    """The state, or an error if the time that was asked for is outside of its interval."""
    if not (_known(after) and after.status == Status.bad_times and before.status != after.status):
        return after
    built = _rebuilt(before)
    low = signed_time(built.sign, built.t0) if low is None else low
    raise ValueError(
        f"t is {float(before.t if t is None else t):g}; a time from {float(low):g} to "
        f"{float(signed_time(built.sign, built.t1)):g} is wanted."
    )


def _raised(state: State) -> State:
    """The state, unless it failed where that can be known."""
    if not (state.throw and _known(state) and state.status > Status.running):
        return state
    status, t, y, dt = Status(int(state.status)), state.t, state.y, state.dt
    call = _call_of(state)
    last = Last(t, y, signed_time(state._direction, state.inner.last_dt))
    sentence = (
        f"{status.reason}. It stopped at t = {float(t):.6g} with dt = {float(dt):.3g}, y = {y}. "
        f"{hint(status, call.problem, call.method, last)}"
    )
    raise SolveError(sentence.strip(), status=status, t=t, y=y, dt=dt, index=(), solution=state)

"""A solve by hand: `init` a state, then `step` it, or `advance` it to a time of your choice.

A `State` is a pytree of arrays that holds the whole solve, so it goes through `jax.jit`, `vmap`,
`lax.scan` and `lax.while_loop`, and both verbs differentiate in every mode.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Real

from .adjoints import Discrete
from .capture_call import captured_call
from .closures import flatten, unflatten
from .consistent import with_consistent_values
from .controllers import Controller
from .core.packing import Packing, as_state, released
from .core.promotion import standard_promotion
from .core.status import Status
from .diagnosis import hint
from .integrator import State as Inner
from .integrator import count_passed, initial_state, mark_failed, right_limit_form, with_held
from .integrator.build import MAX_EVENTS, MAX_STEPS, BuiltSolve, build, signed_time
from .methods import Method
from .output_plan import clamp_times
from .problems import JumpProblem, Problem
from .solution import Last, SolveError
from .validation import check_adjoint, checked_call, concrete, is_real, keywords

__all__ = ["State", "advance", "init", "step"]

# One step is refused after this many attempts: by then dt has shrunk to nothing.
_ATTEMPTS = 100


@dataclass(frozen=True)
class _Options:
    """What is static in a solve by hand."""

    direction: int | None
    max_steps: int
    adjoint: Any
    floored: bool
    throw: bool
    init: str


class State(eqx.Module):
    """Where a solve by hand is. Made by `init`; never changed, `step` and `advance` return another.

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
    options: _Options = eqx.field(static=True)

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
    def _direction(self) -> Any:
        return self.sign if self.options.direction is None else self.options.direction

    def replace(self, *, t: Any = None, y: Any = None, dt: Any = None, args: Any = None) -> "State":
        """The state with another t, y, dt or args: a kick, a reset, a new control input.

        All that the method and the controller remember of the past is forgotten (a new dt alone
        keeps it), and a failure with it. t has to lie inside tspan; the sign of dt is ignored.

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
        return _in_time(state, _replaced(state, changes, fresh=fresh), None, t)

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
    rtol: Any = None,
    atol: Any = None,
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
    if isinstance(problem, JumpProblem):
        raise TypeError(
            "a JumpProblem cannot be solved by hand: its hazards would be a part of the state that "
            "y does not show. Use de.solve, or de.Event with hazards of your own."
        )
    call = checked_call(
        problem=problem, method=method, saveat=None, save=None, rtol=rtol, atol=atol,
        dt=dt, dt0=dt0, controller=controller, events=events, stops=stops, adjoint=adjoint,
        max_steps=max_steps, max_saves=None, max_events=None, init=init, throw=throw, key=key,
        by_hand=True,
    )  # fmt: skip
    if len(call.traced["method"].submethods) > 1:
        raise TypeError(
            f"{method!r} cannot be stepped by hand yet: one step may not tell who makes the next. "
            "Use de.solve, or one of both methods."
        )
    check_adjoint(adjoint, problem, events=events, stops=call.traced["stops"], by_hand=True)
    leaves, structure = flatten(captured_call(call.traced))
    options = _Options(
        call.direction,
        max_steps or MAX_STEPS,
        adjoint or Discrete(),
        call.floored,
        bool(throw),
        init,
    )
    return _raised(_begun(options, structure, leaves))


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


@partial(jax.jit, static_argnums=(0, 1))
def _begun(options: _Options, structure: Hashable, leaves: list) -> State:
    leaves = [jnp.asarray(x) for x in leaves]
    door, call = _opened(options, structure, leaves)
    sign = () if options.direction else jnp.asarray(door.sign, door.t0.dtype)
    door, status = with_consistent_values(door, options.init)
    inner = door.start(call["dt"], call["dt0"], status=status).state(door.system, door.data)
    return State(inner, leaves, sign, door.canonical.packing, structure, options)


@jax.jit
def _stepped(state: State) -> State:
    door, inner = _door(state), state.inner
    data = replace(door.data, goal=inner.steps + 1, max_steps=_attempts(inner) + _ATTEMPTS)
    system = replace(door.system, one_step=True)
    end, _ = state.options.adjoint.run(system, data, inner, _ATTEMPTS)
    return replace(state, inner=_open(door, end))


@jax.jit
def _advanced(state: State, t: Array) -> State:
    door, inner, most = _door(state), state.inner, state.options.max_steps
    goal, bad = _inside(signed_time(door.sign, t), inner.t, door.t1)
    events = door.system.bound_events(door.data)
    shown = events.shown(inner.events, inner.t)
    here = (goal <= shown) & (inner.status == Status.running)
    inner = replace(inner, status=jnp.where(here, Status.success, inner.status).astype(jnp.int32))
    inner = mark_failed(inner, bad, Status.bad_times)
    data = replace(door.data, t1=goal, max_steps=_attempts(inner) + most)
    end, _ = state.options.adjoint.run(door.system, data, inner, most)
    return replace(state, inner=_past_stops(door, _open(door, end)))


@partial(jax.jit, static_argnames="fresh")
def _replaced(state: State, changes: dict, *, fresh: bool) -> State:
    door, old = _door(state), state.inner
    t, bad = _inside(signed_time(door.sign, changes.get("t", state.t)), door.t0, door.t1)
    t = jnp.where(bad, old.t, t) if "t" in changes else old.t
    dt = jnp.abs(changes.get("dt", old.dt))
    data = with_held(door.data, changes.get("held", old.held))
    new = initial_state(door.system, data, t, changes.get("y", old.y), dt)
    names = ("steps", "rejected", "floored", "last_dt", "evaluations")
    kept = names if fresh else (*names, "low", "memory", "control", "events")
    new = replace(new, events=door.system.events.moved(old.events, new.events, t == old.t))
    new = replace(new, **{name: getattr(old, name) for name in kept})
    return replace(state, inner=mark_failed(new, bad, Status.bad_times))


def _opened(options: _Options, structure: Hashable, leaves: list) -> tuple[BuiltSolve, dict]:
    call = unflatten(structure, leaves)
    names = ("problem", "method", "controller", "rtol", "atol", "dt", "events", "stops", "key")
    door = build(
        **{name: call[name] for name in names}, direction=options.direction,
        floored=options.floored, max_steps=options.max_steps, max_events=MAX_EVENTS,
        init=options.init, by_hand=True,
    )  # fmt: skip
    return door, call


def _door(state: State) -> BuiltSolve:
    return _opened(state.options, state.structure, state.leaves)[0]


def _attempts(inner: Inner) -> Array:
    return inner.steps + inner.rejected


def _open(door: BuiltSolve, inner: Inner) -> Inner:
    """A state that reached a goal before the end of tspan goes on."""
    on = (inner.status == Status.success) & (inner.t < door.t1)
    return replace(inner, status=jnp.where(on, Status.running, inner.status).astype(jnp.int32))


def _past_stops(door: BuiltSolve, inner: Inner) -> Inner:
    """A goal may be a stop: what follows starts afresh on its right."""
    if not door.system.has_stops:
        return inner
    stop = count_passed(door.data.stops, inner.t)
    form, method, _ = door.system.parts(with_held(door.data, inner.held))
    fresh = right_limit_form(door.system, door.data, form, inner.t)
    memory = jax.lax.cond(
        stop > inner.stop, lambda: method.init(fresh, inner.t, inner.y), lambda: inner.memory
    )
    return replace(inner, stop=stop, memory=memory)


def _inside(t: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """t, which within 4 ulp of an end is that end, and `time_error` where it is outside; and
    whether.
    """
    (t,), bad = clamp_times(t[None], low, high)
    bad = bad | jnp.isnan(t)
    return jnp.where(bad, low, t), bad


# --- outside -------------------------------------------------------------------------------------


def _with_args(state: State, args: Any) -> State:
    call = unflatten(state.structure, state.leaves)
    problem = call["problem"].replace(args=args)
    leaves, structure = flatten({**call, "problem": problem})
    return replace(state, leaves=[jnp.asarray(x) for x in leaves], structure=structure)


def _a_state(state: Any) -> State:
    if not isinstance(state, State):
        raise TypeError(
            f"state is {state!r}; a State is wanted, which de.init(problem, method) makes."
        )
    return state


def _scalar(name: str, value: Any, like: Array) -> Array:
    if np.shape(value) != () or not is_real(value):
        raise ValueError(f"{name} is {value!r}; one number is wanted.")
    return jnp.asarray(value, like.dtype)


def _packed(state: State, y: Any) -> tuple[Array, tuple]:
    y, packing = as_state(released(y)), state.packing
    shapes = [np.shape(x) for x in jax.tree.leaves(y)]
    words = any(isinstance(x, str) for x in jax.tree.leaves(y))
    if jax.tree.structure(y) != packing.tree or shapes != packing.all_shapes or words:
        raise TypeError(
            f"y is {y!r}; the structure and the shapes of y0 are wanted: {packing.tree}, "
            f"{packing.all_shapes}."
        )
    held = zip(packing.held_of(y), state.inner.held, strict=True)
    return packing.pack(y), tuple(jnp.asarray(new, old.dtype) for new, old in held)


def _known(state: State) -> bool:
    return state.status.ndim == 0 and concrete(state.status)


def _in_time(before: State, after: State, low: Any, t: Any) -> State:
    """What became of a state, unless it was asked for a time outside its interval."""
    if not (_known(after) and after.status == Status.bad_times and before.status != after.status):
        return after
    door = _door(before)
    low = signed_time(door.sign, door.t0) if low is None else low
    raise ValueError(
        f"t is {float(before.t if t is None else t):g}; a time from {float(low):g} to "
        f"{float(signed_time(door.sign, door.t1)):g} is wanted."
    )


def _raised(state: State) -> State:
    """The state, unless it failed where that can be known."""
    if not (state.options.throw and _known(state) and state.status > Status.running):
        return state
    status, t, y, dt = Status(int(state.status)), state.t, state.y, state.dt
    call = unflatten(state.structure, state.leaves)
    last = Last(t, y, signed_time(state._direction, state.inner.last_dt))
    sentence = (
        f"{status.reason}. It stopped at t = {float(t):.6g} with dt = {float(dt):.3g}, y = {y}. "
        f"{hint(status, call['problem'], call['method'], last)}"
    )
    raise SolveError(sentence.strip(), status=status, t=t, y=y, dt=dt, index=(), solution=state)

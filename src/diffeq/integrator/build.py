"""`build` makes of a checked call the `Integrator` of the loop, its `Data` and the first `State`.

`solve` and `stepping` both call it, so that a solve by hand is the same solve.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from ..autodiff.jax_internals import contains, output_types
from ..autodiff.network_layers import PRODUCTS
from ..brownian import Noise, Steps, Tree
from ..controllers import Constant, Controller
from ..controllers.tolerance import Tolerance
from ..core.norm import in_dtype_of
from ..core.packing import Packing, as_state
from ..core.status import Status
from ..events import Events, JumpProcess, lower_events
from ..events.lowered import LoweredEvent
from ..methods import Method
from ..methods.delayed import MethodOfSteps
from ..output import Output
from ..output.progress import Meter
from ..problems.dae import kept_components
from ..problems.forms import Form, lower
from ..problems.lowering import Canonical, canonical
from . import Data, Integrator, Start, Stops, count_passed
from .call import MAX_STEPS, Call, StaticOptions
from .state import Held

__all__ = ["BuiltSolve", "build", "signed_time"]

type ShapeOf = Array | jax.ShapeDtypeStruct

_ROWS = 1024  # of the past: steps within the largest lag
# Bytes of what a method remembers that each row of a tape holds: of any method, and of one that
# multiplies matrices to make it (64 × 256 numbers: a gradient takes a tenth less time, of 512 × 512
# it takes as much).
_SMALL_MEMORY, _SMALL_MEMORY_OF_PRODUCTS = 4096, 2**17


@dataclass(frozen=True)
class BuiltSolve:
    """A call that is ready for the loop; t0 and t1 are in the loop's time, which runs forwards."""

    canonical: Canonical
    sign: Array | int
    t0: Array
    t1: Array
    method: Method
    controller: Controller
    integrator: Integrator
    data: Data
    jump_process: JumpProcess | None = None  # of jumps
    max_steps: int = MAX_STEPS

    @property
    def first_stop(self) -> Array | int:
        """The number of stops up to the start of the first step."""
        return count_passed(self.data.stops, self.t0) if self.integrator.has_stops else 0

    def writing(self, output: Output, times: tuple, save: PyTree) -> "BuiltSolve":
        """The integrator with rows to save, of the part of a state that `save` returns."""
        noise = self.integrator.noise
        noise = noise.writing(output.needs_interpolant) if noise else None
        integrator = replace(self.integrator, output=output, noise=noise)
        return replace(self, integrator=integrator, data=replace(self.data, times=times, save=save))

    def watching(self, static: StaticOptions, meter: Meter | None) -> "BuiltSolve":
        """The integrator with a progress bar, with checks of its derivative, and with its lanes."""
        integrator = replace(
            self.integrator,
            meter=meter,
            checks_cotangents=static.checks_cotangents,
            raises=static.raises,
            lanes=static.lanes,
        )
        return replace(self, integrator=integrator)

    def start(
        self,
        dt: ArrayLike | None,
        dt0: ArrayLike | None,
        *,
        bad: Array | bool = False,
        status: Array | int = Status.running,
    ) -> Start:
        """Where the loop starts; its first step is given, or found there.

        `bad`: times are wrong; `status`: of the initial values.
        """
        given = dt if dt is not None else dt0
        first = None if given is None else jnp.abs(jnp.asarray(given, self.t0.dtype))
        if self.canonical.noise is not None or self.jump_process is not None:  # time runs forwards
            bad = bad | (self.t1 < self.t0)
        if self.canonical.delays is not None:
            lags = self.canonical.delays.lags
            status = jnp.where(jnp.all((lags >= 0) & (lags < jnp.inf)), status, Status.bad_lags)
        status = jnp.where(bad, Status.bad_times, status).astype(jnp.int32)
        return Start(self.t0, self.canonical.y0, self.canonical.held, first, status)


def build(call: Call, static: StaticOptions) -> BuiltSolve:
    """The integrator of a call, with nothing to save yet."""
    call, jump_process = _with_jumps_as_events(call, static)
    problem, chosen = call.problem, call.method
    direction = 1 if problem.stochastic or jump_process is not None else static.direction
    entry = canonical(problem, partial(_polynomial, chosen), direction, real=chosen.real_view)
    sign = direction or jnp.where(entry.t1 < entry.t0, -1, 1)
    t0, t1 = (signed_time(sign, t) for t in (entry.t0, entry.t1))
    controller = call.controller if call.dt is None else Constant()
    tolerance, delays = _tolerance(entry, call.rtol, call.atol, static.floored), entry.delays
    method = _method(chosen, entry, sign, tolerance, controller)
    method_arrays, method_rest = eqx.partition(method, eqx.is_array_like)
    controller_arrays, controller_rest = eqx.partition(controller, eqx.is_array_like)
    form = partial(_lowered, entry.form, method.form, repr(method), direction)
    parts, own = lower_events(call.events, problem, entry, (t0, t1), sign, static.max_events)
    stops = Stops.of(entry, parts, method.order, sign, call.stops)
    max_steps = static.max_steps + (stops.found if static.counted else 0)  # each cuts one in two
    algebraic = problem.algebraic and static.init != "given"
    lowered_events = _events(parts, entry, algebraic, stops)
    cut = static.by_hand or bool(parts)
    noise = _noise(entry, controller, stops, area=method.area, cut=cut, events=lowered_events)
    integrator = Integrator(
        form,
        method_rest,
        controller_rest,
        Output(()),
        stops.times is not None,
        direction,
        rows=None if delays is None else _power(static.max_history or _ROWS),
        levels=stops.levels if any(part.affect for part in parts) else 0,
        events=lowered_events,
        algebraic=algebraic,
        noise=noise,
        refusal=_refusal(entry),
        jump_hides=bool(_hides(entry)),
        records_memory=_records_memory(method, entry, form),
        keeps_workspace=_keeps_workspace(entry, form, method, controller, cut=cut),
        view=partial(_view, (entry.packing, entry.args)),
    )
    data = Data(
        parameters=entry.parameters,
        held=entry.held,
        sign=sign if direction is None else (),
        t0=t0,
        t1=t1,
        stops=() if stops.times is None else stops.times,
        events=own,
        tolerance=tolerance,
        kept=kept_components(problem, entry.packing),
        method=jax.tree.map(jnp.asarray, method_arrays),
        controller=jax.tree.map(jnp.asarray, controller_arrays),
        times=(),
        max_steps=jnp.int32(max_steps),
        goal=jnp.int32(2**31 - 1),
        noise=noise.source(call.key, t0, t1) if noise else (),
        lags=() if delays is None else delays.lags,
        shift=stops.shift,
    )
    entry = _with_view(entry, jump_process)
    return BuiltSolve(
        entry, sign, t0, t1, method, controller, integrator, data, jump_process, max_steps
    )


def _records_memory(method: Method, entry: Canonical, form: Callable) -> bool:
    """True if the rows of a tape hold the method's memory, which is differentiated like the state:
    the past of a multistep method; and a small one, such as a first stage that is the last one of
    the step before, which the derivative would evaluate once more. A large one would make the tape
    twice as large.
    """
    if method.multistep:
        return True
    if method.stores_memory or entry.delays is not None or len(method.submethods) > 1:
        return False
    first = lambda p: method.init(form(p, 1, entry.held), entry.t0, entry.y0)  # noqa: E731
    evaluation = jax.make_jaxpr(first)(entry.parameters)
    size = sum(x.size * x.dtype.itemsize for x in output_types(evaluation))
    costly = contains(evaluation, *PRODUCTS)
    return size <= (_SMALL_MEMORY_OF_PRODUCTS if costly else _SMALL_MEMORY)


def _keeps_workspace(
    entry: Canonical, form: Callable, method: Method, controller: Controller, *, cut: bool
) -> bool:
    """True if attempts use what those before have computed. Noise and the past change the equation
    from step to step, and so may an event, at which a step is `cut`; a given step cannot be made
    again without it.
    """
    if cut or entry.noise is not None or entry.delays is not None:
        return False
    return controller.is_adaptive and method.keeps_workspace(
        form(entry.parameters, 1, entry.held), entry.y0.size
    )


def _with_jumps_as_events(call: Call, static: StaticOptions) -> tuple[Call, JumpProcess | None]:
    """The call with the jumps of its problem among its events, and what draws them."""
    problem: Any = call.problem
    if not problem.has_jumps:
        return call, None
    process = JumpProcess.of(problem, call.key, static.max_events, call.rtol)
    rtol, atol = process.tolerances(call.rtol, call.atol)
    events = process.events(call.events)
    return call._replace(problem=process.problem, events=events, rtol=rtol, atol=atol), process


def _method(
    method: Method,
    entry: Canonical,
    sign: Array | int,
    tolerance: Tolerance,
    controller: Controller,
) -> Method:
    """The method for an equation: of an SDE by its kind of noise, of a DDE with its stages found
    by iteration where a lag is shorter than a step.
    """
    if entry.noise is not None:
        form = entry.form(entry.parameters, sign, entry.held)
        method = method.chosen(form, controlled=controller.is_adaptive)
    if entry.delays is not None:
        method = MethodOfSteps(method, tolerance, controller.norm, not controller.is_adaptive)
    return method


def _with_view(entry: Canonical, process: JumpProcess | None) -> Canonical:
    """The problem as its user sees it: without the hazards that its state carries."""
    if process is None or not process.hazards:
        return entry
    return replace(entry, packing=entry.packing.with_view("y"))


def _events(
    parts: tuple[LoweredEvent, ...], entry: Canonical, algebraic: bool, stops: Stops
) -> Events | None:
    """The events of a problem; a state that they leave without consistent values says so."""
    if not parts:
        return None
    return Events(
        parts,
        entry.packing,
        Status.inconsistent if algebraic else Status.nonfinite,
        noisy=entry.noise is not None,
        untracked_discontinuities=entry.delays is not None and not stops.levels,
    )


def _hides(entry: Canonical) -> list[str]:
    """The lines of the field that look back, by a lag that is no number, at a start that jumps."""
    return sorted({h.where for h in entry.jumps.hidden if h.kind == "past"})


def _refusal(entry: Canonical) -> str:
    """Why a delay equation has no derivative: its start jumps, and it is not known when that comes
    back.
    """
    where = _hides(entry)
    if not where or not entry.delays.constant:  # a lag of the state is watched during the solve
        return ""
    return (
        "y0 is another state than the end of the history, a jump, and the field looks back at it "
        f"in {', '.join(where)} at a time that is not t minus a number. So it is not known when "
        "the jump comes back, and what moves by that cannot be differentiated. Declare the lags as "
        "a function lags(t, y, args); or, where y0 is the end of the history, give y0=None."
    )


def _polynomial(method: Method, t: ShapeOf, y: ShapeOf) -> PyTree:
    """The shapes of what a method's step leaves to the past."""

    def still(t: Array, y: Array) -> PyTree:
        return method.constant_step(t, y, in_dtype_of(jnp.ones_like(t), y))

    return jax.eval_shape(still, t, y)


def _power(rows: int) -> int:
    """The least power of two that is not below."""
    return 1 << (rows - 1).bit_length()


def _noise(
    entry: Canonical,
    controller: Controller,
    stops: Stops,
    *,
    area: bool,
    cut: bool,
    events: Events | None,
) -> Noise | None:
    """The noise of a problem, as its steps need it: whether the method asks for `area`, whether
    steps land on times of their own, since they are `cut` or there are stops, and whether they are
    cut where a condition crosses.
    """
    if entry.noise is None:
        return None
    lands, cuts = cut or stops.times is not None, bool(events and events.crossings)
    dtype = jnp.finfo(entry.y0.dtype).dtype.name
    if controller.is_adaptive:
        return Tree(entry.noise, dtype, True, lands, cuts)
    return Steps(entry.noise, dtype, area, cuts)


def _lowered(
    form: Callable,
    wanted: str | tuple[str, ...],
    method: str,
    direction: int | None,
    parameters: PyTree,
    sign: PyTree,  # (), where the direction is known
    held: Held = (),
) -> Form:
    """The form that the method steps; a direction of time that is known costs nothing."""
    sign = sign if direction is None else direction
    return lower(form(parameters, sign, held), wanted, method)


def _view(
    known: tuple[Packing, Callable],
    sign: Array | int,
    parameters: PyTree,
    held: Held,
    t: Array,
    y: Array,
    dt: Array,
) -> tuple[Array, PyTree, PyTree, Array]:
    """A point of the loop and a step from it, as functions of the problem see them."""
    packing, args = known
    t, dt = (signed_time(sign, x) for x in (t, dt))
    return t, packing.with_held(held).unpack(y), args(parameters), dt


def signed_time(sign: Array | int, x: Array) -> Array:
    """A time (or a rate) of the problem in the loop's time, or back."""
    return x if isinstance(sign, int) and sign == 1 else jnp.asarray(sign, x.dtype) * x


def _tolerance(entry: Canonical, rtol: PyTree, atol: PyTree, floored: bool) -> Tolerance:
    real = jnp.finfo(entry.y0.dtype).dtype
    return Tolerance(_prefix(entry, rtol, real), _prefix(entry, atol, real), floored)


def _prefix(entry: Canonical, value: PyTree, dtype: np.dtype) -> Array:
    """A scalar, or a prefix tree of y0, as an array that broadcasts against the packed state."""
    value = as_state(value) if entry.packing.single else value  # [1e-6, 1e-9] for a vector
    if jax.tree_util.all_leaves([value]) and jnp.ndim(value) == 0:
        return jnp.asarray(value, dtype)
    like = entry.packing.rates_of(jnp.zeros(entry.y0.shape, dtype))

    def spread(v: ArrayLike, part: PyTree) -> PyTree:
        return jax.tree.map(lambda y: jnp.broadcast_to(jnp.asarray(v, dtype), y.shape), part)

    leaves = jax.tree.leaves(jax.tree.map(spread, value, like))
    return leaves[0] if entry.packing.single else jnp.concatenate([x.ravel() for x in leaves])

"""The state before the first attempt."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from ..controllers import initial_step
from ..core.status import Status
from .restart import restart, right_limit_form
from .state import Data, Held, Integrator, Memory, State, with_held
from .stops import count_passed

__all__ = [
    "Start",
    "events_at_start",
    "initial_state",
    "is_over",
    "mark_failed",
    "with_presampled_noise",
]


class Start(eqx.Module):
    """Where a solve starts: a `State` in the making. `dt` is None when it is to be found, and
    `status` says what is wrong with it, if anything.
    """

    t: Array
    y: Array
    held: Held
    dt: Array | None
    status: Int[Array, ""]

    def state(self, integrator: "Integrator", data: Data) -> State:
        """The state before the first attempt."""
        data = with_held(data, self.held)
        dt, slope = (self.dt, None) if self.dt is not None else self._first_step(integrator, data)
        dt = lax.stop_gradient(dt)
        found = initial_state(integrator, data, self.t, self.y, dt, slope)
        return mark_failed(found, self.status > Status.running, self.status)

    def first_step(self, integrator: "Integrator", data: Data) -> Array:
        """A dt to try first."""
        return lax.stop_gradient(self._first_step(integrator, data)[0])

    def _first_step(self, integrator: "Integrator", data: Data) -> tuple[Array, Array | None]:
        """A dt to try first; and the slope at the start, if a method may begin with it: the limit
        from the right at a stop is another equation, and a past is not there yet.
        """
        form, method, _ = integrator.parts(data)
        t, y, span, lags = self.t, self.y, data.t1 - self.t, data.lags
        if form.has_given_steps:
            return span, None
        if integrator.rows is not None:
            form = form.as_known()
            # One that vanishes at t0 limits nothing.
            span = jnp.minimum(span, jnp.min(lags, where=lags > 0, initial=jnp.inf))
        rates, rolled = form.initial_step_rates(), form.large
        order, tolerance = method.error_order, data.tolerance
        dt, slope = initial_step(rates, t, y, span, order, tolerance, rolled=rolled)
        other = integrator.has_stops or integrator.rows is not None or form.has_algebraic_equations
        return dt, None if other else slope


def mark_failed(state: State, bad: Array | bool, status: Array | int) -> State:
    """The state with a status, where something is bad and nothing failed before."""
    found = jnp.where(bad & (state.status <= Status.running), status, state.status)
    return replace(state, status=found.astype(jnp.int32))


def initial_state(
    integrator: Integrator,
    data: Data,
    t0: Array,
    y0: Array,
    dt: Array,
    slope: Array | None = None,
) -> State:
    """The state before the first attempt; the slope there may be known."""
    form, method, controller = integrator.parts(data)
    zero = jnp.zeros((), jnp.int32)
    finite = jnp.isfinite(t0) & jnp.isfinite(data.t1)
    known, shown = events_at_start(integrator, data, t0, y0)
    status = jnp.where(is_over(integrator, data, t0, known), Status.success, Status.running)
    given = not controller.is_adaptive and not integrator.events
    form = right_limit_form(integrator, data, form, t0)
    form = form if slope is None else form.with_slope(t0, y0, slope)
    return State(
        t=t0,
        time_error=jnp.zeros_like(t0),
        y=y0,
        held=data.held,
        dt=dt,
        control=controller.init(t0.dtype),
        memory=method.init(form, t0, y0),
        written=integrator.output.first(data.times, shown),
        stop=count_passed(data.stops, t0) if integrator.has_stops else zero,
        events=known,
        steps=zero,
        rejected=zero,
        floored=zero,
        last_dt=jnp.zeros_like(t0),
        status=jnp.where(finite, status, Status.bad_times).astype(jnp.int32),
        evaluations=zero if method.evaluations is None else (),
        path=integrator.noise.start(data.noise, t0, dt) if integrator.noise else (),
        failed=jnp.full((), -1, jnp.int32) if given else None,
        why=jnp.full((), Status.nonfinite, jnp.int32) if given else None,
        workspace=method.workspace(form, t0, y0) if integrator.keeps_workspace else (),
    )


def events_at_start(
    integrator: Integrator, data: Data, t0: Array, y0: Array
) -> tuple[Memory, Array]:
    """The memory of the events before the first step, and the time up to which rows are shown."""
    events = integrator.bound_events(data)
    if events is None:
        return (), t0
    known = events.start(t0, y0, restart(integrator, data))
    return known, events.shown(known, t0)


def is_over(integrator: Integrator, data: Data, t: Array, known: Memory) -> Array:
    """True at the end of the span, if no event is still to happen there: of a span of no length
    those at its ends are rounds of the loop, in which no time passes.
    """
    events, at_end = integrator.bound_events(data), t >= data.t1
    return at_end & (events.shown(known, t) >= t) if events else at_end


def with_presampled_noise(integrator: Integrator, data: Data) -> Data:
    """The data with what the noise draws ahead, for the loop and for the rows that are saved."""
    if integrator.noise is None:
        return data
    each = zip(integrator.output.channels, data.times, strict=True)
    marks = [integrator.noise.marks(data.noise, ts) if c.kind == "times" else () for c, ts in each]
    return replace(data, presampled=integrator.noise.ahead(data.noise), marks=tuple(marks))

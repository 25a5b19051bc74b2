"""Where a step lands, what the field is beside a stop, and how to go on after one."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..events import Reinitialization
from ..events.step_end import Returned
from ..methods import Method
from ..problems.discontinuities import PropagatedDiscontinuity
from ..problems.forms import Form
from ..problems.history import History
from .state import Data, Held, Integrator, Memory, with_held
from .stops import count_passed, left_of, right_of, stop_at

__all__ = [
    "clip_to_discontinuity",
    "is_at_stop",
    "limited_form",
    "needs_restart",
    "next_discontinuity",
    "restart",
    "right_limit_form",
    "target_of",
]


def target_of(integrator: Integrator, data: Data, stop: Array) -> Array:
    """Where the next landing is: a stop, or the end."""
    if not integrator.has_stops:
        return data.t1
    return jnp.minimum(stop_at(data.stops, stop), data.t1)


def is_at_stop(integrator: Integrator, data: Data, stop: Array, t1: Array, landing: Array) -> Array:
    """True if a step that is `landing` ends at the next stop; not at the end, nor at an event."""
    inside = landing & (t1 < data.t1)
    if not (integrator.events and integrator.has_stops):
        return inside
    return inside & (target_of(integrator, data, stop) == t1)


def needs_restart(
    integrator: Integrator, data: Data, stop: Array, t1: Array, landing: Array, returned: Returned
) -> Array:
    """True if the method is initialized again at the end of a step: at a stop, or where it is
    `returned` that a discontinuity comes back.
    """
    at_stop = is_at_stop(integrator, data, stop, t1, landing)
    if returned is False:
        return at_stop
    return at_stop | (landing & (t1 < data.t1) & returned)


def next_discontinuity(
    integrator: Integrator, data: Data, past: History | None, t: Array, target: Array
) -> PropagatedDiscontinuity | None:
    """The next propagated discontinuity, if it is before the next forced step end."""
    if not integrator.levels:
        return None
    if past is None:  # where only shapes are wanted
        return PropagatedDiscontinuity(jnp.full_like(t, jnp.inf), jnp.int32(-1), jnp.int32(0))
    return past.discontinuities.following(past, t, data.lags, target)


def clip_to_discontinuity(data: Data, time: Array | None, target: Array) -> tuple[Array, Returned]:
    """The next landing, and whether it is where something comes back: that is first where an event
    is at the same time, which then has a step of length zero, so that each has its derivative.
    """
    if time is None:
        return target, False
    own = (time <= target) & (time < data.t1)
    return jnp.where(own, time, target), own


def _field_between(form: Form, low: Array, high: Array | None) -> Form:
    """The form with stage times held between two discontinuities; they move along with t."""

    def clipped(f: Callable) -> Callable:
        return lambda t, *ys: f(t + lax.stop_gradient(jnp.clip(t, low, high) - t), *ys)

    return form.mapped(clipped)


def right_limit_form(integrator: Integrator, data: Data, form: Form, t: Array) -> Form:
    """The form for what starts at t: to the right of a stop, whatever the field is at the stop."""
    if not integrator.has_stops:
        return form
    return _field_between(form, _limits(data, t)[0], None)


def limited_form(integrator: Integrator, data: Data, form: Form, t: Array) -> Form:
    """The form for a step from t: its limit from the right at a stop there, from the left at the
    next; also where a stage lies outside of its step, as in SOSRI and Kvaerno5.
    """
    if not integrator.has_stops:
        return form
    return _field_between(form, *_limits(data, t))


def _limits(data: Data, t: Array) -> tuple[Array, Array]:
    """The right of the last stop that is not after t, and the left of the next one."""
    stops, t, shift = lax.stop_gradient((data.stops, t, data.shift))
    i = count_passed(stops, t)
    return right_of(stop_at(stops, i - 1), shift), left_of(stop_at(stops, i), shift)


def restart(integrator: Integrator, data: Data, past: History | None = None) -> Reinitialization:
    """The reinitialization after an event: as at a start, with the dt that was proposed, which is
    tried like any other (Hairer's first step, where a component is zero, would be far too short).
    `past` is all there is until then, if the field looks at it.
    """

    def at(t: Array, held: Held) -> tuple[Any, Method]:
        form, method, _ = integrator.parts(with_held(data, held), past)
        return right_limit_form(integrator, data, form, t), method

    def memory(t: Array, y: Array, held: Held) -> Memory:
        form, method = at(t, held)
        return method.init(form, t, y)

    def rate(t: Array, y: Array, held: Held) -> Array:
        return at(t, held)[0].slope(t, y)

    def settled(t: Array, y: Array, held: Held) -> tuple[Array, Array]:
        return at(t, held)[0].consistent_state(t, y, data.kept, data.tolerance)

    return Reinitialization(memory, rate, settled if integrator.algebraic else None)

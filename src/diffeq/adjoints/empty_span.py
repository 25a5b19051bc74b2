"""The derivative of a solve over a span of zero length by its ends: there no step is made that
could be differentiated.
"""

import jax.numpy as jnp
from jaxtyping import Array

from ..autodiff.forward_tangent import push_tangent
from ..autodiff.known_value import with_known_value
from ..core.norm import in_dtype_of
from ..integrator import Data, Integrator, SafePoint, Start, State, empty_history, with_held
from ..problems.history import History
from .tape import Recorder

__all__ = ["initial_tangents", "midpoint_step"]


def midpoint_step(
    integrator: Integrator, data: Data, past: History | None, t1: Array, t0: Array, y0: Array
) -> Array:
    """y0 + ∫ f from t0 to t1 by the midpoint rule, which is right to the second derivative at
    t1 = t0; y0 for an equation with noise, whose path has no slope.
    """
    form, _, _ = integrator.parts(data, past)
    half = in_dtype_of(t1 - t0, y0) / 2
    middle = y0 + half * form.slope(t0, y0)
    return y0 + 2 * half * form.slope(t0 + (t1 - t0) / 2, middle)


def initial_tangents(
    integrator: Integrator,
    recorder: Recorder | None,
    safe_point: SafePoint,
    data: Data,
    start: Start | State,
    dots: tuple,
) -> list:
    """The tangents of t and y before the first step, from those of (t1, t0, y0), None where there
    is none. Where the span has no length they are those of the end, t1 and y(t1).
    """
    if dots[0] is None and dots[1] is None:
        return list(dots[1:])
    here, past = with_held(data, start.held), empty_history(integrator, data, recorder)

    def end(t1: Array, t0: Array, y0: Array) -> list[Array]:
        points = (safe_point.t, t1), (safe_point.t, t0), (safe_point.y, y0)
        return [t1, midpoint_step(integrator, here, past, *(with_known_value(*x) for x in points))]

    points = data.t1, start.t, start.y
    known = [jnp.zeros_like(x) if d is None else d for x, d in zip(points, dots, strict=True)]
    ends = push_tangent(end, points, known)
    empty = start.t >= data.t1
    return [jnp.where(empty, a, b) for a, b in zip(ends, known[1:], strict=True)]

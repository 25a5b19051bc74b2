"""Points near a state, where no number vanishes by chance."""

import jax.numpy as jnp
from jaxtyping import Array, Real

from ..core.unequal_numbers import unequal_numbers
from ..problems.forms import Form

__all__ = ["nearby"]


def nearby(
    form: Form, turn: Real[Array, ""], t: Array, y: Array, span: Array
) -> tuple[Array, Array, Array]:
    """Returns (t, y, dy) at the turn 0, with the guess of a residual for dy; at other turns, points
    near it. No component changes its sign, for the domain of a field may end at 0.
    """
    real = jnp.finfo(y.dtype)
    step = turn * float(real.eps) ** 0.25
    guess = form.slope_guess(y)
    largest = jnp.max(jnp.abs(y))
    unit = jnp.where(largest > 0, largest, 1)
    pace = unit / jnp.where(span > 0, span, 1).astype(y.dtype)
    later = t + step.astype(t.dtype) * span
    return later, _perturbed(y, step, unit), _perturbed(guess, step, pace)


def _perturbed(x: Array, step: Array, unit: Array) -> Array:
    """Farther from 0, by parts of each component (of the unit, where one is 0), no two equal."""
    parts = unequal_numbers(x.size, x.dtype)
    size = jnp.where(x == 0, unit, jnp.abs(x))
    return x + jnp.where(x < 0, -1, 1) * step * parts.reshape(x.shape) * size

"""What implicit methods do with a mass matrix: M y' = f, with M a matrix, a diagonal, or 1."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..algebra import Factors, factored, slopes, solve
from ..problems.forms import Mass, lower

__all__ = ["combined", "correction", "slope_of", "times"]


def times(mass: Any, x: Array) -> Array:
    """M x.

    >>> times(jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0]))
    Array([2., 0.], dtype=float32)
    """
    if mass is None:
        return x
    return mass * x if mass.ndim == 1 else mass @ x


def combined(mass: Any, matrix: Array) -> Array:
    """M + a matrix, the matrix of every linear system in a step.

    >>> combined(None, jnp.ones((2, 2)))
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    if mass is None:
        return matrix + jnp.eye(len(matrix), dtype=matrix.dtype)
    return matrix + (jnp.diag(mass) if mass.ndim == 1 else mass)


def slope_of(form: Any, t: Array, y: Array) -> Array:
    """dy/dt at (t, y), for a first step and for dense output where there is no step.

    With a mass matrix, y is consistent, and the algebraic equations are differentiated once:
    (M + free · J) y' = f − free · (f + f_t), of which the second part is zero but for f_t.
    """
    if not isinstance(form, Mass):
        return lower(form, "ode", "a slope").field(t, y)
    if form.mass is None:
        return form.field(t, y)
    value, by_y, by_t = slopes(form.field, t, y, form.jac)
    moved = value if by_t is None else value + by_t
    rate = value - times(form.free, moved)
    return solve(_closed(form, by_y), rate).reshape(y.shape)


def correction(form: Mass, t: Array, y: Array) -> Array:
    """The step of Newton's method from y towards the algebraic equations, M dy = 0; ravelled."""
    value, by_y, _ = slopes(form.field, t, y, form.jac, by_t=False)
    return -solve(_closed(form, by_y), times(form.free, value))


def _closed(form: Mass, by_y: Array) -> Factors:
    """M + free · J: regular exactly where the algebraic equations determine what M leaves open."""
    free = form.free
    return factored(combined(form.mass, free[:, None] * by_y if free.ndim == 1 else free @ by_y))

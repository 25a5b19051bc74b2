"""The first step, by Hairer, Nørsett and Wanner (Solving ODEs I, II.4)."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.norm import in_dtype_of
from .tolerance import Tolerance

__all__ = ["initial_step"]


def initial_step(
    paces: Sequence[Callable],
    t: Array,
    y: Array,
    span: Array,
    order: int | float,
    tolerance: Tolerance,
) -> Array:
    """A dt for which an Euler step and the change of slope along it are about 1 % of the scale.

    `paces` are the field and, of an equation with noise, the size of what multiplies √dt: there dt
    is at most the time in which the noise moves y by its tolerance. Costs two evaluations. Never
    longer than the interval.
    """
    field, *spread = paces
    scale = tolerance.atol + tolerance.rtol * jnp.abs(y)
    scale = jnp.where(scale > 0, scale, jnp.finfo(scale.dtype).tiny ** 0.25)
    square = lambda x: tolerance.mean_square(x / scale)  # noqa: E731
    norm = lambda x: jnp.sqrt(square(x))  # noqa: E731
    f0 = field(t, y)
    d0, d1 = norm(y), norm(f0)
    small = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = jnp.minimum(
        jnp.where(small, 1e-6 * span, 0.01 * d0 / jnp.where(small, 1, d1)), span
    ).astype(t.dtype)
    f1 = field(t + h0, y + in_dtype_of(h0, y) * f0)
    d2 = norm(f1 - f0) / h0
    steepest = jnp.maximum(d1, d2)
    flat = steepest <= 1e-15
    h1 = jnp.where(
        flat,
        jnp.maximum(1e-6 * span, h0 * 1e-3),
        (0.01 / jnp.where(flat, 1, steepest)) ** (1 / order),
    )
    h = jnp.minimum(jnp.minimum(100 * h0, h1), span).astype(t.dtype)
    for size in spread:
        h = jnp.minimum(h, (1 / square(size(t, y))).astype(t.dtype))
    h = jnp.where(jnp.isfinite(h) & (h > 0), h, 1e-6 * span)
    # Three digits of a guess: its last ones depend on the program that it is compiled in, and all
    # that follows would with them.
    return jnp.minimum(lax.reduce_precision(h, jnp.finfo(h.dtype).nexp, 8), span)

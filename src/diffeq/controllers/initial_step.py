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
    *,
    rolled: bool = False,
) -> tuple[Array, Array]:
    """A dt for which an Euler step and the change of slope along it are about 1 % of the scale; and
    the slope at (t, y).

    `paces` are the field and, of an equation with noise, the size of what multiplies √dt: there dt
    is at most the time in which the noise moves y by its tolerance. Costs two evaluations, which
    are the turns of a loop where they are `rolled`. Never longer than the interval.
    """
    field, *spread = paces
    scale = tolerance.atol + tolerance.rtol * jnp.abs(y)
    scale = jnp.where(scale > 0, scale, jnp.finfo(scale.dtype).tiny ** 0.25)
    square = lambda x: tolerance.mean_square(x / scale)  # noqa: E731
    norm = lambda x: jnp.sqrt(square(x))  # noqa: E731

    def euler_step(slope: Array) -> Array:
        d0, d1 = norm(y), norm(slope)
        small = (d0 < 1e-5) | (d1 < 1e-5)
        dt = jnp.where(small, 1e-6 * span, 0.01 * d0 / jnp.where(small, 1, d1))
        return jnp.minimum(dt, span).astype(t.dtype)

    def after(dt: Array, slope: Array) -> Array:
        return field(t + dt, y + in_dtype_of(dt, y) * slope)

    def turn(i: Array, known: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        h0, _, slope = known
        found = after(h0, slope)
        return jnp.where(i == 0, euler_step(found), h0), slope, found

    if rolled:
        h0, f0, f1 = lax.fori_loop(0, 2, turn, (jnp.zeros_like(t), *2 * (jnp.zeros_like(y),)))
    else:
        f0 = field(t, y)
        h0 = euler_step(f0)
        f1 = after(h0, f0)
    d1, d2 = norm(f0), norm(f1 - f0) / h0
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
    return jnp.minimum(lax.reduce_precision(h, jnp.finfo(h.dtype).nexp, 8), span), f0

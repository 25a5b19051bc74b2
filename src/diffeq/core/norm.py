"""Norms of scaled errors, and the rounding of times."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

__all__ = ["in_dtype_of", "magnitude", "mean_square", "next_above", "rounding"]


def magnitude(x: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """|x|, real for complex x.

    >>> magnitude(jnp.array([3.0 + 4.0j]))
    Array([5.], dtype=float32)
    """
    return jnp.abs(x)


def mean_square(x: Inexact[Array, "..."]) -> Float[Array, ""]:
    """(1/n) Σ |x_i|²: the square of Hairer's norm, whose root the controller does not need.

    >>> mean_square(jnp.array([3.0, 4.0]))
    Array(12.5, dtype=float32)
    """
    square = x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x * x
    return jnp.mean(square) if x.ndim else square


def in_dtype_of(x: Array, y: Array) -> Array:
    """X (a time, a position in a step) in the real dtype of y: time may be wider than the state.

    >>> in_dtype_of(jnp.array(1.0), jnp.zeros(2, jnp.complex64)).dtype
    dtype('float32')
    """
    return x.astype(jnp.finfo(y.dtype).dtype)


def rounding(t: Array) -> Array:
    """The rounding error of a computed time: 4 ε |t|."""
    return 4 * jnp.finfo(t.dtype).eps * jnp.abs(t)


def next_above(t: Array) -> Array:
    """The next number above t that compares as greater: denormals, which follow 0, are zero to XLA.

    >>> bool(next_above(jnp.float32(0.0)) > 0), float(next_above(jnp.float32(1.0)) - 1)
    (True, 1.1920928955078125e-07)
    """
    limit = jnp.finfo(t.dtype).tiny
    return jnp.maximum(jnp.nextafter(t, jnp.full_like(t, jnp.inf)), t + limit)

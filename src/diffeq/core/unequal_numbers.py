"""`unequal_numbers`: numbers that no sum or product of a few makes equal by chance."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact

__all__ = ["unequal_numbers"]


def unequal_numbers(count: int, dtype: DTypeLike) -> Inexact[Array, " count"]:
    """Numbers from 0.5 to 1.5, no two equal: multiples of the golden ratio, modulo 1.

    >>> [round(float(x), 3) for x in unequal_numbers(3, jnp.float32)]
    [1.118, 0.736, 1.354]
    """
    return 0.5 + jnp.arange(1, count + 1, dtype=dtype) * ((5**0.5 - 1) / 2) % 1

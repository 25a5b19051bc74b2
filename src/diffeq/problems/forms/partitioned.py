"""Equations of positions and momenta, of which each part moves the other."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array

from .base import Form

__all__ = ["Partitioned"]


@dataclass(frozen=True)
class Partitioned(Form):
    """q' = drift(t, q, p), p' = kick(t, q, p); the state is (q, p) as one vector, q first.

    `separable`: drift does not depend on q, nor kick on p. `identity`: drift is p itself, as in a
    second-order equation (−p where time runs backwards).
    """

    drift: Callable[..., Array]
    kick: Callable[..., Array]
    separable: bool
    identity: bool

    def halves(self, y: Array) -> tuple[Array, Array]:
        """(q, p)."""
        half = y.shape[-1] // 2
        return y[..., :half], y[..., half:]

    def field(self, t: Array, y: Array) -> Array:
        """(q', p') as one vector."""
        q, p = self.halves(y)
        return jnp.concatenate([self.drift(t, q, p), self.kick(t, q, p)])

    def slope(self, t: Array, y: Array) -> Array:
        """(q', p') as one vector."""
        return self.field(t, y)

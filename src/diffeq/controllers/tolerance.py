"""The scale of an error: atol + rtol · max(|y0|, |y1|), per component."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..core.norm import magnitude, mean_square

__all__ = ["Tolerance"]


class Tolerance(eqx.Module):
    """rtol and atol, as scalars or arrays of the packed state.

    `floored`: a tolerance may be below what the dtype can reach, so the scale is held above
    4 eps · |y|, and steps where that mattered are counted. Components whose atol is infinite are in
    no norm: not in the number, either, that a mean is taken over.
    """

    rtol: Array
    atol: Array
    floored: bool = eqx.field(static=True, default=False)

    def squared(
        self, error: Array | tuple[Array, Array], y0: Array, y1: Array, norm: Callable | None
    ) -> tuple[Array, Array]:
        """The squared norm of the scaled error, and True if the floor was touched."""
        scale, touched = self._floored(jnp.maximum(magnitude(y0), magnitude(y1)))
        measure = self.mean_square if norm is None else lambda x: norm(x) ** 2
        if not isinstance(error, tuple):
            return measure(error / scale), touched
        fifth, third = (measure(e / scale) for e in error)
        # DOP853: |e5|² / sqrt(|e5|² + 0.01 |e3|²), squared; exact zeros stay zero.
        denominator = fifth + 0.01 * third
        return jnp.where(
            denominator > 0, fifth * fifth / jnp.where(denominator > 0, denominator, 1), denominator
        ), touched

    def scale(self, y: Array) -> Array:
        """The error that is accepted of a state y, per component: atol + rtol · |y|."""
        return self._floored(magnitude(y))[0]

    def _floored(self, size: Array) -> tuple[Array, Array]:
        """The scale of this size, and True if it was held above the floor."""
        scale = self.atol + self.rtol * size
        if not self.floored:
            return scale, jnp.zeros((), bool)
        floor = 4 * jnp.finfo(size.dtype).eps * size
        return jnp.maximum(scale, floor), jnp.any(floor > scale)

    def mean_square(self, scaled: Array) -> Array:
        """The mean of |x|², where x is 0 for all whose atol is infinite, over the others."""
        if not self.atol.ndim:
            return mean_square(scaled)
        count = jnp.sum(jnp.isfinite(self.atol), dtype=self.atol.dtype)
        return mean_square(scaled) * (self.atol.size / jnp.maximum(count, 1))

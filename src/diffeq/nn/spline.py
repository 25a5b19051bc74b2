"""A function of time whose values at knots are learnt."""

from collections.abc import Sequence
from functools import lru_cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, PyTree

from ..core.promotion import as_floating
from ..core.spline import KINDS, check_knots, interpolated, slope_matrix

__all__ = ["Spline"]


class Spline(eqx.Module):
    """A function of t through values at knots: for a control, or any input that is to be learnt.

    Args:
        knots: where the values are, in rising order; constants.
        values: the values there, shape (len(knots), …): these are trained.
        kind: between the knots: "constant" (the value of the knot before), "linear", "quadratic"
            (C¹, with breaks half way between knots) or "cubic" (C²). With values that are those of
            a polynomial of that degree, it is that polynomial.

    `spline(t)` has the shape of one value; before the first knot and after the last it is held.
    A "constant" one jumps at its knots, and a "linear" one bends there: give them to `solve` as
    `stops=spline.knots`, and steps end there.

    Raises:
        ValueError: knots that do not rise; another number of values; a kind that is not known; (by
            a call) t has axes.

    Reference: deboor1978.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> spline = de.nn.Spline(jnp.linspace(0.0, 4.0, 5), jnp.linspace(0.0, 4.0, 5) ** 2)
        >>> print(spline(1.5), spline.derivative(1.5), spline(7.0))
        2.25 3.0 16.0
    """

    values: Inexact[Array, "knots ..."]
    kind: str = eqx.field(static=True)
    _knots: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, knots: ArrayLike | Sequence, values: PyTree, *, kind: str = "cubic") -> None:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; one of {', '.join(map(repr, KINDS))} is wanted.")
        self._knots = tuple(check_knots(knots).tolist())
        self.values = as_floating(values)
        self.kind = kind
        if jnp.shape(values)[:1] != (len(self._knots),):
            raise ValueError(
                f"values have shape {jnp.shape(values)}; their first axis is that of the "
                f"{len(self._knots)} knots."
            )

    @property
    def knots(self) -> np.ndarray:
        """The times of the values."""
        return np.asarray(self._knots)

    def __call__(self, t: ArrayLike) -> Array:
        """The value at t, a scalar."""
        return self._at(t)[0]

    def derivative(self, t: Array | float) -> Array:
        """The slope at t, a scalar; 0 outside the knots, where the value is held."""
        slope = self._at(t)[1]
        inside = (t >= self._knots[0]) & (t <= self._knots[-1])
        return jnp.where(inside, slope, 0)

    def _at(self, t: ArrayLike) -> tuple[Array, Array]:
        if jnp.ndim(t):
            raise ValueError(
                f"t has shape {jnp.shape(t)}; one time is wanted. Many are jax.vmap(spline)(t)."
            )
        rows = None
        if self.kind in ("quadratic", "cubic"):
            matrix = jnp.asarray(_cached_slope_matrix(self._knots, self.kind), self.values.dtype)
            rows = lambda i: jnp.tensordot(matrix[i], self.values, 1)  # noqa: E731
        held = jnp.clip(jnp.asarray(t), self._knots[0], self._knots[-1])
        return interpolated(self.kind, self.knots, self.values, rows, held)


@lru_cache(maxsize=64)
def _cached_slope_matrix(knots: tuple[float, ...], kind: str) -> np.ndarray:
    return slope_matrix(np.asarray(knots), kind)

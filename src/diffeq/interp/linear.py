"""Straight lines between the values of a table."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Int, PyTree, Real

from ..autodiff.discontinuity_times import bending
from ..core.promotion import floating_dtype, standard_promotion
from .base import (
    PiecewisePolynomial,
    Table,
    finite_knots,
    knot_lengths,
    per_row,
    position,
    tree_row,
)

__all__ = ["Linear"]


class Linear(Table):
    """u(t) = x_i + (t − t_i)/(t_{i+1} − t_i) · (x_{i+1} − x_i) for t_i ≤ t ≤ t_{i+1}.

    Its slope jumps at every time of the table; its derivative by t there is that from the right, at
    the last time that from the left. Steps are not cut there, unless these times are given to
    `solve` as `stops=` too: then derivatives by ts are those of the exact solution, second ones
    too. Without, the gradient by ts is as good as steps over a kink are, and the Hessian lacks what
    the kinks bring as they move. Where a solve reads the slope itself, by `derivative(t)`
    or forward mode, as a `CDEProblem` does, steps end at all of these times.

    Args:
        ts: increasing times; NaN at the end is padding.
        xs: a tree of arrays, one row for each time. Outside of ts its ends are held.

    Raises:
        TypeError, ValueError: ts does not increase; xs has another first axis.

    Example:
        >>> import diffeq as de
        >>> line = de.interp.Linear([0.0, 1.0, 3.0], [0.0, 2.0, 4.0])
        >>> float(line(2.0)), float(line.derivative(2.0))
        (3.0, 1.0)
    """

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree) -> None:
        super().__init__(ts, xs, padded=True)

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The value at one time."""
        t = bending(t, finite_knots, self.ts)
        i = self.place(t)
        last = jnp.isinf(self._time(i + 1))  # where the slope is that of the piece before
        i = jnp.maximum(i - last, 0)
        t0, t1 = self._time(i), self._time(i + 1)
        alone = jnp.isinf(t1)  # one time, and no piece
        left, right = tree_row(self.xs, i), tree_row(self.xs, jnp.where(alone, i, i + 1))
        offset = position(t, t0, jnp.where(alone, t0 + 1, t1)) - last

        def value(a: Array, b: Array) -> Array:
            return jnp.where(last, b, a) + offset.astype(_real_dtype(a)) * (b - a)

        return jax.tree.map(value, left, right)

    def pieces(self) -> PiecewisePolynomial:
        """The lines between the knots, a slope each."""
        ts, xs = self.ts, self.xs
        if ts.shape[0] == 1:
            ts = jnp.append(ts, jnp.inf)
            xs = jax.tree.map(lambda x: jnp.concatenate([x, x]), xs)
        lengths = knot_lengths(ts)

        def slopes(x: Array) -> Array:
            rise = jnp.diff(x, axis=0)
            return (rise / per_row(lengths, rise).astype(_real_dtype(x)))[:, None]

        return PiecewisePolynomial.of(ts, xs, jax.tree.map(slopes, xs), smooth=False)

    def _time(self, i: Int[Array, ""]) -> Real[Array, ""]:
        return self.ts.at[i].get(mode="fill", fill_value=jnp.inf)


def _real_dtype(x: Array) -> DTypeLike:
    return jnp.finfo(floating_dtype(x)).dtype

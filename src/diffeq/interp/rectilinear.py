"""Time moves first and the values after it, so that nothing looks ahead."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree, Real

from ..core.promotion import standard_promotion
from .base import PiecewisePolynomial, Table, knot_lengths, per_row

__all__ = ["Rectilinear"]


class Rectilinear(Table):
    """The control of a model that is used online: between t_i and t_{i+1} first the channel of time
    goes from t_i to t_{i+1}, while all others keep x_i, and then these go from x_i to x_{i+1} while
    time stands still. Each takes half of the interval, on a straight line.

    What a controlled equation is at t_i depends on no value after t_i; so it is with no other
    interpolant, whose pieces bend to a value before it is known. As such an equation does not see
    how fast its control moves, its state at t_i is as if the values had jumped there, and at the
    middle of an interval it is that just before the next values come. Steps end at the times of the
    table and in the middle between them, where the slope jumps.

    Args:
        ts: increasing times, two at least; NaN at the end is padding.
        xs: an array, or a tree of arrays, whose last axis has the channels, one row for each time.
            Outside of ts its ends are held.
        time: the index of the channel of time in the last axis: this one moves first.

    Raises:
        TypeError, ValueError: ts does not increase; xs has another first axis, or no last one; time
            is the index of no channel.

    Reference: morrill2021online.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> ts, values = jnp.array([0.0, 1.0, 3.0]), jnp.array([5.0, 6.0, 4.0])
        >>> u = de.interp.Rectilinear(ts, jnp.stack([ts, values], 1))
        >>> u(0.5).tolist(), u(1.0).tolist(), u(2.0).tolist(), u(2.5).tolist()
        ([1.0, 5.0], [1.0, 6.0], [3.0, 6.0], [3.0, 5.0])
    """

    time: int = eqx.field(static=True)

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree, *, time: int = 0) -> None:
        super().__init__(ts, xs, padded=True)
        if self.ts.shape[0] < 2:
            raise ValueError("ts has one time; a control wants two at least.")
        for x in jax.tree.leaves(self.xs):
            if x.ndim < 2 or not -x.shape[-1] <= time < x.shape[-1]:
                raise ValueError(
                    f"xs has shape {x.shape} and time is {time}; time is the index of a channel in "
                    "the last axis of xs: jnp.stack([ts, xs], axis=1) puts ts in channel 0."
                )
        self.xs = jax.tree.map(lambda x: x * jnp.ones((), self.ts.dtype), self.xs)
        self.time = time

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The value at one time."""
        return self.pieces().at(t)

    def pieces(self) -> PiecewisePolynomial:
        """The lines of both halves of each interval."""
        ts, half = self.ts, knot_lengths(self.ts) / 2
        middle = jnp.where(jnp.isfinite(ts[1:]), ts[:-1] + half, jnp.inf)

        def first(x: Array) -> Array:
            """True for the channel that moves first."""
            return jnp.arange(x.shape[-1]) == self.time % x.shape[-1]

        def slopes(x: Array) -> Array:
            rate = jnp.diff(x, axis=0) / per_row(half, x).astype(x.real.dtype)
            own = first(x)
            return _interleaved(jnp.where(own, rate, 0), jnp.where(own, 0, rate))[:, None]

        def values(x: Array) -> Array:
            return _interleaved(x[:-1], jnp.where(first(x), x[1:], x[:-1]), x[-1:])

        xs = jax.tree.map(values, self.xs)
        knots = _interleaved(ts[:-1], middle, ts[-1:])
        return PiecewisePolynomial.of(knots, xs, jax.tree.map(slopes, self.xs), smooth=False)


def _interleaved(a: Array, b: Array, *end: Array) -> Array:
    """The rows of two tables in turn, and what comes behind them."""
    rows = jnp.stack([a, b], axis=1)
    return jnp.concatenate([rows.reshape(-1, *a.shape[1:]), *end])

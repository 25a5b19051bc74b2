"""Cubics between the values of a table: a spline, Akima's, which does not overshoot as much, and
Hermite's with backward differences, of which each piece follows from the values up to its end.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, PyTree, Real

from ..core.promotion import standard_promotion
from .base import PiecewisePolynomial, Table, knot_lengths, per_row

__all__ = ["Akima", "Cubic", "Hermite"]


class _Curve(Table):
    """A table whose slopes follow from its values. They are no leaves of it, so that its derivative
    is that by ts and xs; a solve finds them once, before it starts (`autodiff.loop_invariant`).
    """

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree, *, padded: bool = False) -> None:
        super().__init__(ts, xs, padded=padded)
        self.xs = jax.tree.map(lambda x: x * jnp.ones((), self.ts.dtype), self.xs)
        if self.ts.shape[0] < 2:
            raise ValueError("ts has one time; a curve wants two at least.")

    def slopes_of(self, x: Array) -> Array:
        """The slopes of one leaf at ts."""
        raise NotImplementedError

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The value at one time."""
        return self.pieces().at(t)

    def pieces(self) -> PiecewisePolynomial:
        """The cubics between the knots."""
        return _cubics(self)


@jax.jit
def _cubics(curve: _Curve) -> PiecewisePolynomial:
    """The cubic through both ends of each piece with the slopes a and b there, whose chord is m:
    its slope is a + θ (6 m − 4 a − 2 b) + θ² 3 (a + b − 2 m).
    """

    def slopes(x: Array) -> Array:
        chord = jnp.diff(x, axis=0) / _per_piece(curve.ts, x)
        ends = curve.slopes_of(x)
        a, b = ends[:-1], ends[1:]
        return jnp.stack([a, 6 * chord - 4 * a - 2 * b, 3 * (a + b - 2 * chord)], axis=1)

    rates = jax.tree.map(slopes, curve.xs)
    return PiecewisePolynomial.of(curve.ts, curve.xs, rates, smooth=True)


def _per_piece(ts: Real[Array, " rows"], rows: Array) -> Array:
    """The lengths of the pieces, to compute with rows in their own precision."""
    return per_row(knot_lengths(ts), rows).astype(rows.real.dtype)


class Hermite(_Curve):
    """Cubic Hermite pieces whose slope at t_{i+1} is that of the line from t_i, the backward
    difference (x_{i+1} − x_i)/(t_{i+1} − t_i); at the first time it is that of the first piece,
    which is a line. Once continuously differentiable, and each piece depends on the values up to
    its end alone. The usual control of a neural CDE. The gradient by ts of what a `CDEProblem`
    with it returns wants `stops=ts` (the second derivative jumps there).

    Args:
        ts: increasing times, two at least; NaN at the end is padding.
        xs: a tree of arrays, one row for each time. Outside of ts its ends are held.

    Raises:
        TypeError, ValueError: ts does not increase; xs has another first axis.

    Reference: morrill2021online.

    Example:
        >>> import diffeq as de
        >>> curve = de.interp.Hermite([0.0, 1.0, 3.0], [0.0, 2.0, 0.0])
        >>> [float(curve(t)) for t in (0.5, 1.0, 2.0)]
        [1.0, 2.0, 1.75]
        >>> [float(curve.derivative(t)) for t in (0.5, 1.0, 3.0)]
        [2.0, 2.0, -1.0]
    """

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree) -> None:
        super().__init__(ts, xs, padded=True)

    def slopes_of(self, x: Array) -> Array:
        """The slopes of one leaf at ts: of the lines that end there."""
        rise = jnp.diff(x, axis=0) / _per_piece(self.ts, x)
        return jnp.concatenate([rise[:1], rise])


class Cubic(_Curve):
    """The cubic spline: twice continuously differentiable.

    Args:
        ts: increasing times, two at least.
        xs: a tree of arrays, one row for each time. Outside of ts its ends are held.
        ends: "not-a-knot" (the first two pieces are one cubic, and the last two; third order up to
            the ends) or "natural" (no curvature at the ends).

    Raises:
        TypeError, ValueError: ts does not increase; xs has another first axis; ends is neither.

    Reference: deboor1978.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> ts = jnp.linspace(0.0, 1.0, 5)
        >>> round(float(de.interp.Cubic(ts, ts**3)(0.3)), 4)
        0.027
    """

    ends: str = eqx.field(static=True)

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree, *, ends: str = "not-a-knot") -> None:
        if ends not in ("not-a-knot", "natural"):
            raise ValueError(f"ends is {ends!r}; 'not-a-knot' or 'natural' is wanted.")
        super().__init__(ts, xs)
        self.ends = ends

    def slopes_of(self, x: Array) -> Array:
        """The slopes of one leaf at ts: the solution of a tridiagonal system."""
        h = jnp.diff(self.ts).astype(x.real.dtype)
        wide = h.reshape(-1, *(1,) * (x.ndim - 1))
        rise = jnp.diff(x, axis=0) / wide
        if x.shape[0] == 2:
            return jnp.concatenate([rise, rise])
        if x.shape[0] == 3 and self.ends == "not-a-knot":
            return _parabola(wide, rise)
        first, last = (
            self._end(*side) for side in ((h, wide, rise), (h[::-1], wide[::-1], rise[::-1]))
        )
        inner = 3 * (wide[1:] * rise[:-1] + wide[:-1] * rise[1:])
        join = lambda a, b, c: jnp.concatenate([a[None], b, c[None]])  # noqa: E731
        diagonal = join(first[0], 2 * (h[:-1] + h[1:]), last[0])
        upper = join(first[1], h[:-1], jnp.zeros_like(h[0]))
        lower = join(jnp.zeros_like(h[0]), h[1:], last[1])
        return _tridiagonal(lower, diagonal, upper, join(first[2], inner, last[2]))

    def _end(self, h: Array, wide: Array, rise: Array) -> tuple[Array, Array, Array]:
        """The equation of an end: its diagonal, its neighbour, its right side."""
        if self.ends == "natural":
            return 2 * h[0], h[0], 3 * wide[0] * rise[0]
        both = wide[0] + wide[1]
        right = ((wide[0] + 2 * both) * wide[1] * rise[0] + wide[0] ** 2 * rise[1]) / both
        return h[1], h[0] + h[1], right


def _parabola(h: Array, rise: Array) -> Array:
    """The slopes of the parabola through three points."""
    bend = (rise[1] - rise[0]) / (h[0] + h[1])
    first = rise[0] - h[0] * bend
    return jnp.stack([first, first + 2 * h[0] * bend, first + 2 * (h[0] + h[1]) * bend])


def _tridiagonal(lower: Array, diagonal: Array, upper: Array, right: Array) -> Array:
    """Gauss, for one matrix and many right sides."""
    spread = lambda x: x.reshape(*(1,) * (right.ndim - 1))  # noqa: E731

    def down(before: tuple, now: tuple) -> tuple:
        ratio, value = before
        a, b, c, d = now
        pivot = b - a * ratio
        after = (c / pivot, (d - spread(a) * value) / spread(pivot))
        return after, after

    start = (jnp.zeros_like(diagonal[0]), jnp.zeros_like(right[0]))
    _, (ratio, value) = lax.scan(down, start, (lower, diagonal, upper, right))

    def up(after: Array, now: tuple) -> tuple[Array, Array]:
        x = now[1] - spread(now[0]) * after
        return x, x

    return lax.scan(up, jnp.zeros_like(right[0]), (ratio, value), reverse=True)[1]


class Akima(_Curve):
    """Akima's curve: once continuously differentiable, and each piece depends on six values alone,
    so that an outlier bends no more than its neighbourhood. The gradient by ts of what a
    `CDEProblem` with it returns wants `stops=ts` (the second derivative jumps there).

    Args:
        ts: increasing times, two at least.
        xs: a tree of real arrays, one row for each time. Outside of ts its ends are held.

    Raises:
        TypeError, ValueError: ts does not increase; xs has another first axis.

    Reference: akima1970.

    Example:
        >>> import diffeq as de
        >>> step = de.interp.Akima([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
        >>> [float(step(t)) for t in (1.5, 2.5, 3.5)]
        [0.0, 0.5, 1.0]
    """

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree) -> None:
        super().__init__(ts, xs, padded=True)

    def slopes_of(self, x: Array) -> Array:
        """The slopes of one leaf at ts: means of those on both sides, by how they change. Beyond
        both ends the slopes go on as a line through the last two.
        """
        known = jnp.isfinite(self.ts)
        rise = jnp.diff(x, axis=0) / _per_piece(self.ts, x)
        rise = jnp.where(per_row(known[1:], x), rise, 0)
        last = jnp.maximum(jnp.sum(known) - 2, 0)  # the last piece that is no padding
        first = 2 * rise[0] - rise[jnp.minimum(1, last)]
        beyond = jnp.arange(x.shape[0] + 1) - last
        ahead = per_row(beyond, x).astype(x.real.dtype)
        line = rise[last] + ahead * (rise[last] - rise[jnp.maximum(last - 1, 0)])
        inside = jnp.concatenate([rise, rise[-1:], rise[-1:]])
        rest = jnp.where(per_row(beyond <= 0, x), inside, line)
        m = jnp.concatenate([jnp.stack([2 * first - rise[0], first]), rest])
        change = _smooth_abs(jnp.diff(m, axis=0))
        left, right = change[2:], change[:-2]
        total = left + right
        flat = total <= 1e-9 * jnp.max(total, where=per_row(known, x), initial=0)
        mean = (left * m[1:-2] + right * m[2:-1]) / jnp.where(flat, 1, total)
        return jnp.where(flat, (m[1:-2] + m[2:-1]) / 2, mean)


def _smooth_abs(x: Array) -> Array:
    """|x|, whose derivative at 0 is 0."""
    return jnp.where(x == 0, 0, jnp.abs(jnp.where(x == 0, 1, x)))

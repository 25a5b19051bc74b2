"""Inputs: functions of time from tables. Those that jump say when, by `jumping`, and those whose
slope does, by `bending` (`autodiff.discontinuity_times`).
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PyTree, Real, Shaped

from ..autodiff.discontinuity_times import bending, jumping
from ..autodiff.jax_internals import Tracer
from ..core.promotion import standard_promotion
from ..core.time_resolution import check_resolution, digits_of

__all__ = [
    "InputFunction",
    "PiecewisePolynomial",
    "Table",
    "finite_knots",
    "knot_lengths",
    "per_row",
]

_FEW = 32


class InputFunction(eqx.Module):
    """The base of all inputs: called with t, a time or an array of times."""

    @standard_promotion()
    def __call__(self, t: ArrayLike) -> PyTree:
        """The value at t."""
        t = jnp.asarray(t)
        return self.at(t) if t.ndim == 0 else jax.vmap(self)(t)

    @standard_promotion()
    def derivative(self, t: ArrayLike) -> PyTree:
        """The derivative by time at t, in closed form: from the right where it jumps, at the last
        time of a table from the left, and zero outside of the table.
        """
        pieces, t = self.pieces(), jnp.asarray(t)
        return pieces.slope(t) if t.ndim == 0 else jax.vmap(pieces.slope)(t)

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The value at one time."""
        raise NotImplementedError

    def pieces(self) -> "PiecewisePolynomial":
        """The input as polynomials between its knots, of which a controlled equation reads the
        slope: they are found once, before a solve.
        """
        raise TypeError(
            f"a {type(self).__name__} jumps and has no derivative, and dX of a jump means nothing "
            "before it is said on which way X goes there: write de.interp.Linear(ts, xs), or "
            "de.interp.Rectilinear(ts, xs), in which the values move while time stands still."
        )


class Table(InputFunction):
    """The base of inputs from values `xs`, a tree of arrays, at increasing times `ts`.

    Before the first and after the last of the times it stays as it is there.
    """

    ts: Real[Array, " rows"]
    xs: PyTree

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree, *, padded: bool = False) -> None:
        self.ts = _increasing(ts, padded)
        try:
            self.xs = jax.tree.map(jnp.asarray, _list_as_array(xs))
        except TypeError as error:
            raise TypeError(f"xs is {xs!r}; numbers are wanted, one row for each time.") from error
        if not jax.tree.leaves(self.xs):
            raise TypeError(f"xs is {xs!r}; numbers are wanted, one row for each time.")
        for path, x in jax.tree.flatten_with_path(self.xs)[0]:
            if jnp.shape(x)[:1] != self.ts.shape:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"xs{where} has shape {jnp.shape(x)}; its first axis must be that of ts, "
                    f"{self.ts.shape[0]}."
                )
            self._check_known(x, jax.tree_util.keystr(path))

    def _check_known(self, x: Array, where: str) -> None:
        """Refuses NaN at a time that is there: every solve that reads it would fail."""
        if isinstance(x, Tracer) or isinstance(self.ts, Tracer):
            return
        rows = np.asarray(x)[np.isfinite(np.asarray(self.ts))]
        if jnp.issubdtype(rows.dtype, jnp.inexact) and np.isnan(rows).any():
            row = int(np.argwhere(np.isnan(rows))[0][0])
            raise ValueError(
                f"xs{where} has NaN at ts[{row}] = {np.asarray(self.ts)[row]:g}: leave out the "
                "times at which nothing was measured, or fill in what is missing."
            )

    def place(self, t: Real[Array, ""]) -> Int[Array, ""]:
        """The index of the last time that is not after t; 0 before the first."""
        return index_not_after(self.ts, t)


class PiecewisePolynomial(InputFunction):
    """A function that is a polynomial between its knots: from xs[i] at t_i on its slope is
    Σ_j slopes[i, j] θ^j with θ = (t − t_i)/(t_{i+1} − t_i), up to t_{i+1}.

    Knots at infinity are padding: there are `count` pieces before them. Where it is not `smooth`,
    its slope jumps at every knot.
    """

    ts: Real[Array, " knots"]
    xs: PyTree
    slopes: PyTree
    count: Int[Array, ""]
    smooth: bool = eqx.field(static=True)

    @staticmethod
    def of(
        ts: Real[Array, " knots"], xs: PyTree, slopes: PyTree, *, smooth: bool
    ) -> "PiecewisePolynomial":
        """Returns the function; slopes of what lies behind the last finite knot are made zero."""
        known = jnp.isfinite(ts[1:])
        slopes = jax.tree.map(lambda s: jnp.where(per_row(known, s), s, 0), slopes)
        return PiecewisePolynomial(ts, xs, slopes, jnp.sum(known, dtype=jnp.int32), smooth)

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The value at one time."""
        t = t if self.smooth else bending(t, finite_knots, self.ts)
        i, t0, t1 = self._piece(t)
        theta = position(t, t0, t1)
        ahead = theta * jnp.where(jnp.isinf(t1), 0, t1 - t0)

        def value(x: Array, slopes: Array) -> Array:
            u, s = (z.astype(x.real.dtype) for z in (ahead, theta))
            mean = slopes[-1] / slopes.shape[0]
            for j in reversed(range(slopes.shape[0] - 1)):
                mean = slopes[j] / (j + 1) + s * mean
            return x + u * mean

        return jax.tree.map(value, _known_row(self.xs, i), _known_row(self.slopes, i))

    def slope(self, t: Real[Array, ""]) -> PyTree:
        """The derivative by time at one time."""
        t = t if self.smooth else jumping(t, finite_knots, self.ts)
        i, t0, t1 = self._piece(t)
        inside, theta = (t >= t0) & (t <= t1), (t - t0) / (t1 - t0)

        def value(slopes: Array) -> Array:
            s, found = theta.astype(slopes.real.dtype), slopes[-1]
            for j in reversed(range(slopes.shape[0] - 1)):
                found = slopes[j] + s * found
            return jnp.where(inside, found, 0)

        return jax.tree.map(value, _known_row(self.slopes, i))

    def _piece(self, t: Real[Array, ""]) -> tuple[Array, Array, Array]:
        """The index of the piece of t, and its ends: at the last knot it is the piece before, and
        the first one before all knots.
        """
        i = jnp.maximum(jnp.minimum(index_not_after(self.ts, t), self.count - 1), 0)
        return i, _known_row(self.ts, i), _known_row(self.ts, i + 1)


def _known_row(xs: PyTree, i: Int[Array, ""]) -> PyTree:
    """A row whose index is known to be one."""
    return jax.tree.map(
        lambda x: x.at[i].get(mode="promise_in_bounds", wrap_negative_indices=False), xs
    )


def finite_knots(ts: Real[Array, " knots"]) -> Real[Array, " knots"]:
    """The times of a table: padding is NaN."""
    return jnp.where(jnp.isfinite(ts), ts, jnp.nan)


def knot_lengths(ts: Real[Array, " knots"]) -> Real[Array, " knots-1"]:
    """The lengths between knots; 1 behind the last finite one, so that nothing is divided by what
    is infinite.
    """
    finite = jnp.isfinite(ts)
    known = jnp.where(finite, ts, 0)
    return jnp.where(finite[1:], known[1:] - known[:-1], 1)


def per_row(x: Shaped[Array, " rows"], like: Array) -> Array:
    """A number (or flag) a row, to broadcast against rows."""
    return x.reshape(-1, *(1,) * (like.ndim - 1))


def index_not_after(ts: Real[Array, " n"], t: Real[Array, ""]) -> Int[Array, ""]:
    """The index of the last of increasing times that is not after t; 0 before the first.

    Of many, the place that equal distances would give and its neighbour are tried first, and then
    halves: of a regular table two numbers are read, however long it is.
    """
    ts, t = lax.stop_gradient((ts, t))
    count = ts.shape[0]
    if count <= _FEW:
        return _last_not_after(ts, t)
    # Two short counts, of blocks and then inside of one: a bisection is a loop in the loop, or a
    # gather a level, written out at every stage.
    width = math.isqrt(count - 1) + 1
    first = jnp.minimum(width * _last_not_after(ts[::width], t), count - width)
    return first + _last_not_after(lax.dynamic_slice_in_dim(ts, first, width), t)


def _last_not_after(ts: Real[Array, " n"], t: Real[Array, ""]) -> Int[Array, ""]:
    return jnp.maximum(jnp.sum(ts <= t, dtype=jnp.int32) - 1, 0)


def position(t: Real[Array, ""], t0: Real[Array, ""], t1: Real[Array, ""]) -> Real[Array, ""]:
    """The position of t between t0 and t1, from 0 to 1: 0 before, 1 after.

    At both ends it differentiates as it does inside: a clip has half of that derivative at a tie.
    """
    inside = (t - t0) / (t1 - t0)
    return jnp.where(t < t0, 0, jnp.where(t > t1, 1, inside))


def tree_row(xs: PyTree, place: Int[Array, ""]) -> PyTree:
    """A row of a tree."""
    return jax.tree.map(lambda x: x.at[place].get(mode="clip"), xs)


def _list_as_array(x: PyTree) -> PyTree:
    """Lists of numbers are arrays; lists of arrays are trees."""
    numbers = isinstance(x, (list, tuple)) and all(np.ndim(v) == 0 for v in jax.tree.leaves(x))
    return jnp.asarray(x) if numbers else x


def _increasing(ts: ArrayLike | Sequence, padded: bool) -> Array:
    """Times as an array, if that is what they are."""
    try:
        given, ts = ts, jnp.asarray(ts)
    except (TypeError, ValueError) as error:
        raise TypeError(f"ts is {ts!r}; a sequence of times is wanted.") from error
    if ts.dtype == bool or jnp.iscomplexobj(ts) or ts.ndim != 1 or not ts.shape[0]:
        raise ValueError(
            f"ts has shape {ts.shape} and dtype {ts.dtype}; a sequence of times is wanted."
        )
    check_resolution(given)
    ts = ts if jnp.issubdtype(ts.dtype, jnp.floating) else ts.astype(float)
    if not isinstance(ts, Tracer):
        _check_increasing(np.asarray(ts), padded)
    return jnp.where(jnp.isnan(ts), jnp.inf, ts) if padded else ts


def _check_increasing(ts: np.ndarray, padded: bool) -> None:
    known = ts[~np.isnan(ts)] if padded else ts
    if np.isnan(known).any():
        raise ValueError(f"ts[{np.argmax(np.isnan(ts))}] is NaN; ts must increase, without NaN.")
    falls = np.diff(known) <= 0
    if falls.any():
        i = int(np.argmax(falls))
        before, after = (digits_of(float(t)) for t in known[i : i + 2])
        raise ValueError(f"ts[{i + 1}] is {after}, after {before}; ts must increase.")
    if np.isnan(ts[: len(known)]).any():
        raise ValueError("ts has NaN before a number; NaN is padding, at the end only.")

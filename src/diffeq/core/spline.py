"""Interpolation between values at knots: constant, linear, and splines of degree two and three.

Both splines are local polynomials through values *and slopes* at the knots. The slopes are linear
in the values, by a matrix that depends on the knots alone: it is made once, in NumPy, and what is
differentiated, or run inside a solve, is one product and one polynomial.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

__all__ = ["KINDS", "check_knots", "interpolated", "slope_matrix"]

KINDS = ("constant", "linear", "quadratic", "cubic")


def check_knots(knots: ArrayLike | Sequence) -> np.ndarray:
    """The knots as doubles, if they rise, are finite, and are two or more."""
    knots = np.asarray(knots, np.float64)
    if knots.ndim != 1 or len(knots) < 2:
        raise ValueError(f"knots have shape {knots.shape}; a vector of two or more is wanted.")
    if not np.all(np.isfinite(knots)) or not np.all(np.diff(knots) > 0):
        raise ValueError("knots must be finite and rise; each only once.")
    return knots


def slope_matrix(knots: np.ndarray, kind: str) -> Float[np.ndarray, "n n"]:
    """S, such that S v are the slopes at the knots of the spline through the values v.

    The cubic spline is C², with no knot at the second and the last but one (as in SciPy). The
    quadratic one has its breaks half way between the knots, where it is C¹ (de Boor's parabolic
    spline): with breaks *at* the knots, an error at one end would swing through to the other.

    Both ask for a s_(i−1)/h₋ + b s_i (1/h₋ + 1/h₊) + a s_(i+1)/h₊ = c (δ₋/h₋ + δ₊/h₊) inside, with
    lengths h and slopes δ of the chords: the cubic with (a, b, c) = (1, 2, 3), where a second
    derivative is continuous, the quadratic with (1, 3, 4), where it is that of one parabola.

    Reference: deboor1978.

    >>> slope_matrix(np.array([0.0, 1.0, 2.0]), "quadratic") @ np.array([0.0, 1.0, 4.0])
    array([0., 2., 4.])
    """
    n, h = len(knots), np.diff(knots)
    chords = (np.eye(n)[1:] - np.eye(n)[:-1]) / h[:, None]
    if n == 2:
        return np.concatenate([chords, chords])
    own, rise = {"cubic": (2, 3), "quadratic": (3, 4)}[kind]
    left, right = np.zeros((n, n)), np.zeros((n, n))
    for i in range(1, n - 1):
        before, after = 1 / h[i - 1], 1 / h[i]
        left[i, i - 1 : i + 2] = before, own * (before + after), after
        right[i] = rise * (before * chords[i - 1] + after * chords[i])
    for way in (1, -1):  # the same from both ends
        row, lengths, rises = left[::way, ::way][0], h[::way], chords[::way]
        if kind == "quadratic" or n == 3:  # the first interval has one parabola
            row[:2], right[::way][0] = 1, 2 * rises[0]
            continue
        step, next_step = lengths[:2]  # the first two intervals have one cubic
        both = step + next_step
        row[:2] = next_step, both
        bend = (step + 2 * both) * next_step * rises[0] + step**2 * rises[1]
        right[::way][0] = bend / both
    return np.linalg.solve(left, right)


def interpolated(
    kind: str,
    knots: ArrayLike,
    values: ArrayLike,
    slopes: Callable[[Array], Array] | None,
    t: ArrayLike,
) -> tuple[Array, Array]:
    """(value, derivative) at t; slopes are those of a spline, else None.

    Outside the knots, the pieces at the ends go on.

    >>> value, slope = interpolated("linear", np.array([0.0, 2.0]), np.array([1.0, 5.0]), None, 1.0)
    >>> float(value), float(slope)
    (3.0, 2.0)
    """
    values = jnp.asarray(values)
    knots = jnp.asarray(knots, jnp.finfo(values.dtype).dtype)
    i = jnp.sum(t >= knots[1:-1])  # faster than a search, up to hundreds of knots
    x, h = t - knots[i], knots[i + 1] - knots[i]
    v0, v1 = values[i], values[i + 1]
    if kind == "constant":
        held = jnp.where(t >= knots[-1], values[-1], v0)
        return held, jnp.zeros_like(v0)
    chord = (v1 - v0) / h
    if kind == "linear":
        return v0 + x * chord, chord
    assert slopes is not None
    s0, s1 = slopes(i), slopes(i + 1)
    if kind == "cubic":
        bend, twist = (3 * chord - 2 * s0 - s1) / h, (s0 + s1 - 2 * chord) / h**2
        return v0 + x * (s0 + x * (bend + x * twist)), s0 + x * (2 * bend + x * 3 * twist)
    past = x > h / 2  # from which end to look
    z, v, s = (jnp.where(past, b, a) for a, b in ((x, x - h), (v0, v1), (s0, s1)))
    bend = jnp.where(past, s0 + 3 * s1 - 4 * chord, 4 * chord - 3 * s0 - s1) / (2 * h)
    return v + z * (s + z * bend), s + 2 * z * bend

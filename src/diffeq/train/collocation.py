"""Collocation: states and their slopes from noisy data, so that a field can be fitted to them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from ..autodiff.jax_internals import Tracer
from ..core.keywords import keywords
from ..core.spline import KINDS, check_knots, interpolated, slope_matrix
from ..validation.values import concrete, is_real, shown
from .batches import data_arrays

__all__ = ["KERNELS", "Collocation", "collocate"]


class Collocation(NamedTuple):
    """The result of `collocate`.

    Attributes:
        ts: the times.
        ys: the states there, with the structure of the data, time axis first.
        dys: their slopes, likewise.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> ts = jnp.linspace(0.0, 1.0, 11)
        >>> print(de.collocate(2 * ts, ts).dys[5].round(3))
        2.0
    """

    ts: PyTree
    ys: PyTree
    dys: PyTree


def _within(kernel: Callable) -> Callable:
    """A kernel that is zero where |u| > 1."""
    return lambda u: jnp.where(jnp.abs(u) <= 1, kernel(jnp.clip(u, -1, 1)), 0)


def _sech(u: Array) -> Array:
    """1/cosh u, which does not overflow."""
    small = jnp.exp(-jnp.abs(u))
    return 2 * small / (1 + small**2)


def _silverman(u: Array) -> Array:
    """Silverman's kernel of order 4: that which smoothing splines have far from the ends."""
    x = jnp.abs(u) / math.sqrt(2)
    return jnp.exp(-x) * jnp.sin(x + math.pi / 4) / 2


KERNELS: dict[str, Callable] = {
    "epanechnikov": _within(lambda u: 3 / 4 * (1 - u**2)),
    "uniform": _within(lambda u: 0.5 + 0 * u),
    "triangular": _within(lambda u: 1 - jnp.abs(u)),
    "quartic": _within(lambda u: 15 / 16 * (1 - u**2) ** 2),
    "triweight": _within(lambda u: 35 / 32 * (1 - u**2) ** 3),
    "tricube": _within(lambda u: 70 / 81 * (1 - jnp.abs(u) ** 3) ** 3),
    "cosine": _within(lambda u: math.pi / 4 * jnp.cos(math.pi / 2 * u)),
    "gaussian": lambda u: jnp.exp(-(u**2) / 2) / math.sqrt(2 * math.pi),
    "logistic": lambda u: _sech(u / 2) ** 2 / 4,
    "sigmoid": lambda u: _sech(u) / math.pi,
    "silverman": _silverman,
}


@keywords
def collocate(
    data: PyTree,
    ts: ArrayLike | Sequence,
    *,
    at: ArrayLike | Sequence | None = None,
    kernel: str | Callable = "triangular",
    bandwidth: ArrayLike | None = None,
    interpolant: str | None = None,
) -> Collocation:
    """Smoothed states and slopes from noisy data.

    At each time t the state is the level of a line, and the slope that of a parabola, fitted to the
    data with weights K((t_i − t)/bandwidth). A field fitted to these slopes, without any solve, is
    a good start for a fit of solutions to the data: `de.mse(jax.vmap(net)(c.ys), c.dys)`.

    Args:
        data: a tree of arrays of floats, the first axis that of ts. NaN is missing.
        ts: when they were measured, shape (n,), in any order; NaN goes with missing data.
        at: where states and slopes are wanted; None: at ts.
        kernel: "epanechnikov", "uniform", "triangular", "quartic", "triweight", "tricube",
            "cosine", "gaussian", "logistic", "sigmoid" or "silverman"; or K itself, a function.
        bandwidth: in the unit of ts. None: n^(−1/5) n^(−3/35) (log n)^(−1/16) of the time from the
            first to the last, as in DiffEqFlux.
        interpolant: for data without noise, in place of a kernel: "linear", "quadratic" or "cubic"
            splines through all of them.

    Raises:
        TypeError, ValueError: axes that do not match; a kernel or an interpolant that is not known;
            fewer than three points within reach of a time (in a trace: NaN there); with an
            interpolant, a kernel or a bandwidth as well, missing data (in a trace: NaN), or times
            that do not rise.

    Reference: fan1996, roesch2021.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> ts = jnp.linspace(0.0, 3.0, 31)
        >>> found = de.collocate(jnp.sin(ts), ts, kernel="epanechnikov", bandwidth=0.3)
        >>> bool(abs(found.dys[15] - jnp.cos(1.5)) < 0.02)
        True
    """
    knots, ts = ts, jnp.asarray(ts, jnp.result_type(float))
    at = ts if at is None else jnp.asarray(at, ts.dtype)
    data = data_arrays(data)
    _check_data(data, ts, at)
    if interpolant is not None:
        if kernel != "triangular" or bandwidth is not None:
            raise TypeError(
                "interpolant goes through all data, and kernel and bandwidth smooth them: give "
                "one or the other."
            )
        through = _interpolating(knots, ts, at, interpolant)
    else:
        through = _smoothing(ts, at, _kernel(kernel), _bandwidth(bandwidth, ts))
    leaves, tree = jax.tree.flatten(data)
    pairs = [through(x) for x in leaves]
    return Collocation(at, *(jax.tree.unflatten(tree, part) for part in zip(*pairs, strict=True)))


def _kernel(kernel: str | Callable) -> Callable:
    if callable(kernel):
        return kernel
    if kernel not in KERNELS:
        names = ", ".join(map(repr, KERNELS))
        raise ValueError(f"kernel is {kernel!r}; one of {names} is wanted, or a function.")
    return KERNELS[kernel]


def _bandwidth(bandwidth: ArrayLike | None, ts: Array) -> ArrayLike:
    if bandwidth is not None:
        if not is_real(bandwidth) or np.ndim(bandwidth) != 0:
            raise TypeError(
                f"bandwidth is {shown(bandwidth)}; a number in the unit of ts is wanted, or None."
            )
        if concrete(bandwidth) and not np.asarray(bandwidth) > 0:
            raise ValueError(f"bandwidth is {shown(bandwidth)}; a positive number is wanted.")
        return bandwidth
    n = len(ts)
    return n ** (-1 / 5 - 3 / 35) * math.log(n) ** (-1 / 16) * (jnp.nanmax(ts) - jnp.nanmin(ts))


def _smoothing(ts: Array, at: Array, kernel: Callable, bandwidth: ArrayLike) -> Callable:
    """Data as (states, slopes), by local polynomials."""
    again = jnp.any(jnp.tril(ts[:, None] == ts, -1), axis=1)  # times that came before

    def through(x: Array) -> tuple[Array, Array]:
        flat = x.reshape(len(ts), -1)
        known = ~(jnp.isnan(flat) | jnp.isnan(ts)[:, None])
        flat = jnp.where(known, flat, 0)

        def local(t: Array) -> tuple[Array, Array, Array]:
            u = jnp.where(jnp.isnan(ts), 0, (ts - t) / bandwidth)
            weights = jnp.where(known, kernel(u)[:, None], 0)
            points = jnp.sum((weights != 0) & ~again[:, None], axis=0)
            level = _coefficients(u, weights, flat, 1)[:, 0]
            slope = _coefficients(u, weights, flat, 2)[:, 1] / bandwidth
            return level, slope, points

        ys, dys, points = jax.vmap(local)(at)
        _check_reach(points, at)
        ys, dys = (jnp.where(points < 3, jnp.nan, y) for y in (ys, dys))
        shape = at.shape + x.shape[1:]
        return ys.reshape(shape), dys.reshape(shape)

    return through


def _coefficients(u: Array, weights: Array, x: Array, degree: int) -> Array:
    """Those of the polynomial in u of least weighted squares, shape (components, degree + 1).

    By the normal equations: in u they are well conditioned, and kernels of higher order have
    negative weights, which have no roots for an orthogonal method to work with.
    """
    powers = u[:, None] ** jnp.arange(degree + 1)
    moments = jnp.einsum("nk,nc,nl->ckl", powers, weights, powers)
    sums = jnp.einsum("nk,nc->ck", powers, weights * x)
    return jnp.linalg.solve(moments, sums[..., None])[..., 0]


def _interpolating(given: Any, ts: Array, at: Array, kind: str) -> Callable:
    """Data as (values, slopes), by a spline through all of them. The knots are taken of the times
    that were `given`, since inside jit `ts` is traced.
    """
    if kind not in KINDS[1:]:
        names = ", ".join(map(repr, KINDS[1:]))
        raise ValueError(f"interpolant is {kind!r}; one of {names} is wanted.")
    if not concrete(given):
        raise TypeError(
            "ts is traced; an interpolant wants times that are known: leave ts out of the "
            "arguments of jit, grad or vmap, or give a kernel."
        )
    knots = check_knots(np.asarray(given).astype(ts.dtype))
    matrix = None if kind == "linear" else jnp.asarray(slope_matrix(knots, kind), ts.dtype)

    def through(x: Array) -> tuple[Array, Array]:
        if concrete(x) and np.any(np.isnan(x)):
            raise ValueError("data has NaN, and an interpolant goes through all: give a kernel.")
        slopes = None if matrix is None else jnp.tensordot(matrix, x, 1)
        rows = None if slopes is None else slopes.__getitem__
        return jax.vmap(lambda t: interpolated(kind, knots, x, rows, t))(at)

    return through


# --- checks --------------------------------------------------------------------------------------


def _check_data(data: PyTree, ts: Array, at: Array) -> None:
    if not jax.tree.leaves(data):
        raise TypeError(f"data is {shown(data)}; a tree of arrays is wanted.")
    if ts.ndim != 1 or len(ts) < 3:
        raise ValueError(f"ts has shape {ts.shape}; a vector of three or more is wanted.")
    if at.ndim != 1:
        raise ValueError(f"at has shape {at.shape}; a vector is wanted.")
    for path, x in jax.tree.leaves_with_path(data):
        name = f"data{jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} has dtype {x.dtype}; floats are wanted: write 1.0 for 1.")
        if x.shape[:1] != ts.shape:
            raise ValueError(f"{name} has shape {x.shape}; its first axis is that of {len(ts)} ts.")


def _check_reach(points: Array, at: Array) -> None:
    if isinstance(points, Tracer):
        return
    few = np.argwhere(np.asarray(points) < 3)
    if len(few):
        row, column = few[0]
        raise ValueError(
            f"bandwidth: {int(points[row, column])} measured points are within reach of t = "
            f"{float(at[row]):.4g}, and a parabola takes three; give a larger one."
        )

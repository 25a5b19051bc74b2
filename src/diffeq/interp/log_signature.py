"""Log-signatures: what a controlled equation sees of a path over a window, to third order."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Inexact, PyTree, Real

from ..core.keywords import keywords
from ..core.lyndon import lyndon_words
from ..core.promotion import floating_dtype, standard_promotion
from ..core.whole_numbers import as_whole
from .base import PiecewisePolynomial, Table, per_row

__all__ = ["LogSignature", "log_signature"]


@keywords
@standard_promotion()
def log_signature(xs: ArrayLike | Sequence, *, depth: int) -> Inexact[Array, " words"]:
    """The log-signature of the path along straight lines through the rows of xs.

    With the iterated integrals S₁ = ∫ dX, S₂ = ∫∫_{s<t} dX_s ⊗ dX_t and S₃, of which Chen's
    identity makes those of the whole path from those of its lines, it is the logarithm

        S₁,   S₂ − ½ S₁ ⊗ S₁,   S₃ − ½ (S₁ ⊗ S₂ + S₂ ⊗ S₁) + ⅓ S₁ ⊗ S₁ ⊗ S₁,

    which is a sum of brackets: one number for each Lyndon word of the channels, the shorter first.
    Those of one letter are the increments; (i, j) is the area ½ ∫ (X_i dX_j − X_j dX_i), from the
    start of the path on; of three letters (i, i, j) goes with [i, [i, j]], (i, j, j) with
    [[i, j], j], and for i < j < k (i, j, k) with [i, [j, k]] and (i, k, j) with [[i, k], j].

    Args:
        xs: an array of shape (rows, channels), two rows or more.
        depth: 1, 2 or 3, the length of the longest words: c + c(c − 1)/2 + (c³ − c)/3 numbers.

    Raises:
        TypeError, ValueError: xs has other axes; depth is none of these.

    Reference: reutenauer1993; morrill2021rough.

    Example:
        Once around the unit square, which has the area 1:

        >>> import diffeq as de
        >>> square = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
        >>> de.interp.log_signature(square, depth=2).tolist()
        [0.0, 0.0, 1.0]
    """
    xs = jnp.asarray(xs)
    xs = xs.astype(floating_dtype(xs))
    _check_path(xs, depth)
    return _of_windows(jnp.diff(xs, axis=0)[None], depth)[0]


class LogSignature(Table):
    """A path by its log-signatures over windows of `stride` steps of the table: the control of the
    log-ODE method, for long series and for rough paths.

    Over a window of length h with the log-signature L a controlled equation dy = f(t, y, args) dX
    becomes y' = Σ_w L_w f_w(t, y, args)/h, of which the solution differs by terms beyond the depth
    alone: steps are as long as a window, and not as the time between two rows. f_w is that bracket
    of the columns of f for which the Lyndon word w stands, [f_i, f_j] = (∂f_j/∂y) f_i −
    (∂f_i/∂y) f_j, if f has a column for each channel; or column w of f itself, if it has one for
    each word, as in a neural rough differential equation.

    Its value is the path that has the log-signature L of each window as its increment there, on a
    straight line, from zero. Steps end at the ends of windows.

    Args:
        ts: increasing times, two at least; NaN at the end is padding.
        xs: an array of shape (times, channels), which a straight line joins.
        depth: 1, 2 or 3. With 1 the windows alone matter: it is `Linear` through their ends.
        stride: the number of steps of the table in a window; the last one may have fewer.

    Raises:
        TypeError, ValueError: ts does not increase; xs has other axes, or another first one; depth
            or stride is out of range.

    Reference: morrill2021rough.

    Example:
        A circle in two windows, each with its increments and its area:

        >>> import jax.numpy as jnp, diffeq as de
        >>> ts = jnp.linspace(0.0, 2 * jnp.pi, 201)
        >>> circle = jnp.stack([jnp.cos(ts), jnp.sin(ts)], 1)
        >>> halves = de.interp.LogSignature(ts, circle, depth=2, stride=100)
        >>> (jnp.pi * halves.derivative(1.0)).round(2).tolist()
        [-2.0, 0.0, 1.57]
    """

    depth: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    @keywords
    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree, *, depth: Any, stride: Any) -> None:
        super().__init__(ts, None if xs is None else jnp.asarray(xs), padded=True)
        self.xs = self.xs * jnp.ones((), self.ts.dtype)
        _check_path(self.xs, depth)
        steps = as_whole(stride)
        if steps is None or steps < 1:
            raise ValueError(f"stride is {stride!r}; a positive whole number of steps is wanted.")
        self.depth, self.stride = int(depth), steps

    @property
    def channels(self) -> int:
        """The number of channels of the path."""
        return self.xs.shape[-1]

    def at(self, t: Real[Array, ""]) -> Array:
        """The value at one time."""
        return self.pieces().at(t)

    def pieces(self) -> PiecewisePolynomial:
        """The windows, each with its log-signature over its length."""
        known = jnp.isfinite(self.ts)
        rows = self.ts.shape[0] - 1
        windows = -(-rows // self.stride)
        steps = jnp.where(known[1:, None], jnp.diff(self.xs, axis=0), 0)
        spare = windows * self.stride - rows
        steps = jnp.pad(steps, [(0, spare), (0, 0)]).reshape(windows, self.stride, -1)
        found = _of_windows(steps, self.depth)
        # The last window ends at the last time: those behind it have no length, and are padding.
        ends = jnp.arange(windows + 1) * self.stride
        last = jnp.maximum(jnp.sum(known) - 1, 0)
        knots = self.ts[jnp.minimum(ends, last)]
        empty = jnp.append(False, ends[:-1] >= last)
        length = jnp.where(empty[1:], 1, jnp.diff(knots))
        values = jnp.concatenate([jnp.zeros_like(found[:1]), jnp.cumsum(found, axis=0)])
        slopes = (found / per_row(length, found).astype(found.dtype))[:, None]
        knots = jnp.where(empty, jnp.inf, knots)
        return PiecewisePolynomial.of(knots, values, slopes, smooth=False)


def _of_windows(
    steps: Inexact[Array, "windows steps channels"], depth: int
) -> Inexact[Array, "windows words"]:
    """The log-signature of each window, from the increments of its straight lines.

    The signature of the first k lines is that of the first k − 1 times (dx, dx²/2, dx³/6), so that
    each level is a sum over the lines of products with what lies before.
    """
    total = jnp.sum(steps, axis=1)
    words = lyndon_words(steps.shape[-1], depth)
    index = [np.array([w for w in words if len(w) == n], int).reshape(-1, n).T for n in (1, 2, 3)]
    if depth == 1:
        return total
    before = jnp.cumsum(steps, axis=1) - steps
    second = _outer(before + steps / 2, steps, 2)
    whole = jnp.sum(second, axis=1)
    i, j = index[1]
    areas = (whole - _outer(total, total, 1) / 2)[:, i, j]
    if depth == 2:
        return jnp.concatenate([total, areas], axis=-1)
    twice = jnp.cumsum(second, axis=1) - second
    third = _outer(twice + _outer(before / 2 + steps / 6, steps, 2), steps, 2)
    mixed = _outer(total, whole, 1) + _outer(whole, total, 1)
    cube = _outer(_outer(total, total, 1), total, 1)
    level = jnp.sum(third, axis=1) - mixed / 2 + cube / 3
    i, j, k = index[2]
    # Of the brackets that belong to words, [i, [j, k]] alone has the word i k j of another in it,
    # with the sign −.
    both = ((i < k) & (k < j)).astype(level.dtype)
    volumes = level[:, i, j, k] + both * level[:, i, k, j]
    return jnp.concatenate([total, areas, volumes], axis=-1)


def _outer(a: Array, b: Array, leading: int) -> Array:
    """The tensor product of what is behind the `leading` axes of both."""
    more, less = b.ndim - leading, a.ndim - leading
    return a.reshape(*a.shape, *(1,) * more) * b.reshape(
        *b.shape[:leading], *(1,) * less, *b.shape[leading:]
    )


def _check_path(xs: Array, depth: Any) -> None:
    """Refuses what is no series of vectors, and other depths."""
    if xs.ndim != 2 or jnp.iscomplexobj(xs):
        raise TypeError(
            f"xs has shape {xs.shape} and dtype {xs.dtype}; real numbers of shape (times, "
            "channels) are wanted."
        )
    if xs.shape[0] < 2:
        raise ValueError("xs has one row; a path has two at least.")
    if as_whole(depth) not in (1, 2, 3):
        raise ValueError(f"depth is {depth!r}; 1, 2 or 3 is wanted.")

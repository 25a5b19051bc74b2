"""Statistics of many trajectories that are never kept: a state of fixed size takes them in chunks.

`init(like)` is the state before anything was seen, for values with the shapes and dtypes of those
of one trajectory; `update(state, values, counts)` takes a chunk, with one more axis in front;
`merge(a, b)` is the state of both together; `result(state)` is the statistic. `counts` says which
values of the chunk count: one flag a trajectory, or one for each of its rows. Any object with these
four functions is a statistic.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int, Num, PyTree, Real

from .core.whole_numbers import whole_number

__all__ = ["Covariance", "Extremes", "Histogram", "Mean", "Quantile", "Range", "Variance"]


class _LeafState(eqx.Module):
    """The state of a statistic of one leaf."""


class _Leafwise(eqx.Module):
    """A statistic of every leaf on its own, by what a subclass knows of one leaf."""

    def init(self, like: PyTree) -> PyTree:
        """The state before anything was seen; `like`: arrays, or their shapes and dtypes."""
        return jax.tree.map(lambda x: self._blank(x.shape, jnp.result_type(x.dtype, float)), like)

    def update(self, state: PyTree, values: PyTree, counts: Bool[Array, "chunk ..."]) -> PyTree:
        """The state after another chunk."""
        found = jax.tree.map(lambda x: self._of(*_values_and_flags(x, counts)), values)
        return self.merge(state, found)

    def merge(self, a: PyTree, b: PyTree) -> PyTree:
        """The state after the values of both."""
        return jax.tree.map(self._both, a, b, is_leaf=_is_state)

    def result(self, state: PyTree) -> PyTree:
        """The statistic of the values so far, a leaf for each leaf; NaN where none counted."""
        return jax.tree.map(self._result, state, is_leaf=_is_state)

    def _blank(self, shape: tuple, dtype: DTypeLike) -> PyTree:
        return self._of(jnp.zeros((1, *shape), dtype), jnp.zeros((1, *shape), bool))

    def _of(self, x: Array, flags: Array) -> PyTree:
        raise NotImplementedError

    def _both(self, a: PyTree, b: PyTree) -> PyTree:
        raise NotImplementedError

    def _result(self, state: PyTree) -> PyTree:
        raise NotImplementedError


def _is_state(x: PyTree) -> bool:
    return isinstance(x, _LeafState)


def _values_and_flags(x: Array, counts: Array) -> tuple[Array, Array]:
    """A leaf of a chunk as floating-point numbers, and for each of them whether it counts."""
    x = jnp.asarray(x, jnp.result_type(x, float))
    flags = counts.reshape(*counts.shape, *(1,) * (x.ndim - counts.ndim))
    return x, jnp.broadcast_to(flags, x.shape)


# --- moments --------------------------------------------------------------------------------------


class _Moments(_LeafState):
    """The number of values, their mean, and the sum of squares (or products) of deviations
    from it.
    """

    count: Int[Array, "..."]
    mean: Num[Array, "..."]
    squares: Num[Array, "..."]


def _centred(x: Array, flags: Array) -> tuple[Array, Array, Array]:
    """The number of values that count, their mean, and the deviation of each from it."""
    count = jnp.sum(flags, 0, dtype=jnp.int32)
    mean = jnp.sum(jnp.where(flags, x, 0), 0) / jnp.maximum(count, 1)
    return count, mean, jnp.where(flags, x - mean, 0)


def _merge_moments(a: _Moments, b: _Moments, product: Callable) -> _Moments:
    """The moments of both, without the cancellation of Σx² − nx̄².

    Reference: chan1983.
    """
    count, real = a.count + b.count, _real_dtype(a.mean)
    part = b.count.astype(real) / jnp.maximum(count, 1).astype(real)
    apart = b.mean - a.mean
    squares = a.squares + b.squares + product(apart, a.count * part)
    return _Moments(count, a.mean + part * apart, squares)


def _real_dtype(x: Array) -> np.dtype:
    return jnp.finfo(x.dtype).dtype


def _square(x: Array, weight: Array | int) -> Array:
    return (jnp.abs(x) ** 2 * weight).astype(_real_dtype(x))


class Mean(_Leafwise):
    """The mean, at each saved time and of each component: x̄ = Σ xᵢ / n.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> mean, like = de.stats.Mean(), jnp.zeros(2)
        >>> values, counts = jnp.array([[1.0, 2.0], [3.0, 6.0]]), jnp.array([True, True])
        >>> mean.result(mean.update(mean.init(like), values, counts))
        Array([2., 4.], dtype=float32)
    """

    def _of(self, x: Array, flags: Array) -> _Moments:
        count, mean, left = _centred(x, flags)
        return _Moments(count, mean, _square(left, 1).sum(0))

    def _both(self, a: _Moments, b: _Moments) -> _Moments:
        return _merge_moments(a, b, _square)

    def _result(self, state: _Moments) -> Array:
        return jnp.where(state.count > 0, state.mean, jnp.nan)


def _checked_ddof(ddof: Any) -> int:
    return whole_number("ddof", ddof, least=0)


class Variance(Mean):
    """The variance, at each saved time and of each component: Σ |xᵢ − x̄|² / (n − ddof).

    Args:
        ddof: 0 for the variance of what was seen, as NumPy's default; 1 for an unbiased estimate
            of that of all there could be.

    NaN where n ≤ ddof. Chunks are merged by differences of their means, which does not cancel.

    Reference: chan1983.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> variance = de.stats.Variance()
        >>> values, counts = jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])
        >>> variance.result(variance.update(variance.init(jnp.zeros(())), values, counts))
        Array(1., dtype=float32)
    """

    ddof: int = eqx.field(static=True, default=0, converter=_checked_ddof)

    def _result(self, state: _Moments) -> Array:
        return _divided(state.squares, state.count, self.ddof)


def _divided(squares: Array, count: Array, ddof: int) -> Array:
    return jnp.where(count > ddof, squares / jnp.maximum(count - ddof, 1), jnp.nan)


class Covariance(eqx.Module):
    """The covariance matrix of all components, row by row: Σ (xᵢ − x̄)(xᵢ − x̄)ᴴ / (n − ddof).

    The first axis of each leaf are the rows, one for each saved time; the components are all other
    entries, those of a tree one leaf after the other. The result has shape (rows, d, d), and NaN
    where n ≤ ddof.

    Args:
        ddof: as for `Variance`.

    Raises:
        ValueError: The leaves have different numbers of rows, or one has no axis.

    Reference: chan1983.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> covariance = de.stats.Covariance()
        >>> values, counts = jnp.array([[[1.0, 2.0]], [[3.0, 6.0]]]), jnp.array([True, True])
        >>> covariance.result(covariance.update(covariance.init(values[0]), values, counts))
        Array([[[1., 2.],
                [2., 4.]]], dtype=float32)
    """

    ddof: int = eqx.field(static=True, default=0, converter=_checked_ddof)

    def init(self, like: PyTree) -> _Moments:
        """The state before anything was seen; `like`: arrays, or their shapes and dtypes."""
        shapes = [x.shape for x in jax.tree.leaves(like)]
        if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(
                f"values have the shapes {shapes}; a covariance wants one number of rows, the "
                "first axis of every leaf."
            )
        d = sum(math.prod(shape[1:]) for shape in shapes)
        dtype = jnp.result_type(float, *(x.dtype for x in jax.tree.leaves(like)))
        rows = shapes[0][0]
        zeros = jnp.zeros((rows, d, d), dtype)
        return _Moments(jnp.zeros((rows, 1), jnp.int32), zeros[..., 0], zeros)

    def update(self, state: _Moments, values: PyTree, counts: Bool[Array, "chunk ..."]) -> _Moments:
        """The state after another chunk."""
        leaves = [x.reshape(*x.shape[:2], -1) for x in jax.tree.leaves(values)]
        count, mean, left = _centred(*_values_and_flags(jnp.concatenate(leaves, -1), counts))
        products = jnp.einsum("nri,nrj->rij", left, left.conj())
        return self.merge(state, _Moments(count[..., :1], mean, products))

    def merge(self, a: _Moments, b: _Moments) -> _Moments:
        """The state after the values of both."""
        return _merge_moments(
            a, b, lambda x, w: x[..., :, None] * x[..., None, :].conj() * w[..., None]
        )

    def result(self, state: _Moments) -> Array:
        """The matrices, one a row."""
        return _divided(state.squares, state.count[..., None], self.ddof)


# --- order statistics -----------------------------------------------------------------------------


class Range(NamedTuple):
    """The least and the greatest values, each with the structure of the values.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> extremes = de.stats.Extremes()
        >>> values, counts = jnp.arange(3.0), jnp.ones(3, bool)
        >>> state = extremes.update(extremes.init(jnp.zeros(())), values, counts)
        >>> least, greatest = extremes.result(state)
        >>> float(greatest - least)
        2.0
    """

    least: Any
    greatest: Any


class _Ends(_LeafState):
    least: Real[Array, "..."]
    greatest: Real[Array, "..."]


def _ends(x: Array, flags: Array) -> _Ends:
    return _Ends(
        jnp.min(jnp.where(flags, x, jnp.inf), 0), jnp.max(jnp.where(flags, x, -jnp.inf), 0)
    )


def _wider(a: _Ends, b: _Ends) -> _Ends:
    return _Ends(jnp.minimum(a.least, b.least), jnp.maximum(a.greatest, b.greatest))


class Extremes(_Leafwise):
    """The least and the greatest value, at each saved time and of each component.

    The result is a `Range`; NaN where nothing was seen. Of complex numbers there are none.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> extremes = de.stats.Extremes()
        >>> values, counts = jnp.array([4.0, 1.0, 3.0]), jnp.array([True, True, True])
        >>> found = extremes.result(extremes.update(extremes.init(jnp.zeros(())), values, counts))
        >>> float(found.least), float(found.greatest)
        (1.0, 4.0)
    """

    def _of(self, x: Array, flags: Array) -> _Ends:
        _check_real(self, x)
        return _ends(x, flags)

    def _both(self, a: _Ends, b: _Ends) -> _Ends:
        return _wider(a, b)

    def result(self, state: PyTree) -> Range:
        """Both, each a tree like the values."""
        of = lambda name: jax.tree.map(  # noqa: E731
            lambda s: jnp.where(s.least <= s.greatest, getattr(s, name), jnp.nan),
            state,
            is_leaf=_is_state,
        )
        return Range(of("least"), of("greatest"))


def _check_real(statistic: "_Leafwise", x: Array) -> None:
    if jnp.iscomplexobj(x):
        raise TypeError(
            f"{type(statistic).__name__} of complex values is asked for, which have no order: save "
            "real ones, for example save=lambda t, y, args: jnp.abs(y)."
        )


def _real_numbers(x: Any) -> np.ndarray:
    """An array of doubles; NaN of what is no array of real numbers."""
    try:
        found = np.asarray(x)
    except (TypeError, ValueError):
        return np.array(np.nan)
    real = any(jnp.issubdtype(found.dtype, kind) for kind in (jnp.floating, jnp.integer))
    return found.astype(float) if real else np.array(np.nan)


def _rising(edges: Any) -> tuple[float, ...]:
    """The edges of bins as numbers of Python."""
    found = _real_numbers(edges)
    vector = found.ndim == 1 and len(found) > 1
    if not vector or not np.all(np.isfinite(found)) or not np.all(np.diff(found) > 0):
        raise ValueError(f"edges is {edges!r}; two or more increasing numbers are wanted.")
    return tuple(found.tolist())


class Histogram(_Leafwise):
    """The number of values in each bin, at each saved time and of each component.

    A bin holds its left edge, the last one its right edge too. Values outside of all bins are not
    counted. The result has the bins as one more axis, at the end.

    Args:
        edges: two or more increasing numbers.

    Raises:
        ValueError: edges are not increasing numbers.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> histogram = de.stats.Histogram([0.0, 1.0, 2.0])
        >>> values, counts = jnp.array([0.5, 1.5, 2.0, 7.0]), jnp.ones(4, bool)
        >>> histogram.result(histogram.update(histogram.init(jnp.zeros(())), values, counts))
        Array([1, 2], dtype=int32)
    """

    edges: tuple[float, ...] = eqx.field(static=True, converter=_rising)

    def _of(self, x: Array, flags: Array) -> "_Bins":
        _check_real(self, x)
        edges = jnp.asarray(self.edges, x.dtype)
        bins = edges.size - 1
        place = jnp.searchsorted(edges, x, side="right") - 1
        place = jnp.where(x == edges[-1], bins - 1, place)
        place = jnp.where(flags & (place >= 0) & (x <= edges[-1]), place, bins)
        count = jax.vmap(lambda p: jnp.bincount(p, length=bins + 1)[:bins])
        found = count(place.reshape(place.shape[0], -1).T)
        return _Bins(found.reshape(*x.shape[1:], bins).astype(jnp.int32))

    def _both(self, a: "_Bins", b: "_Bins") -> "_Bins":
        return _Bins(a.counts + b.counts)

    def _result(self, state: "_Bins") -> Array:
        return state.counts


class _Bins(_LeafState):
    counts: Int[Array, "... bins"]


class _Digest(_Ends):
    """Increasing centroids, each with the number of values that it represents: 0 in unused
    places.
    """

    centroids: Real[Array, "size ..."]
    weights: Int[Array, "size ..."]


def _probabilities(q: Any) -> float | tuple[float, ...]:
    """A probability, or several, as numbers of Python, which are constants of a statistic.

    >>> _probabilities(np.array([0.1, 0.9]))
    (0.1, 0.9)
    """
    found = _real_numbers(q)
    if found.ndim > 1 or not np.all((found >= 0) & (found <= 1)):
        raise ValueError(f"q is {q!r}; probabilities between 0 and 1 are wanted, one or a list.")
    return tuple(found.tolist()) if found.ndim else float(found)


class Quantile(_Leafwise):
    """Quantiles, at each saved time and of each component.

    A merging t-digest keeps at most `size` centroids of neighbouring values, the narrower the
    nearer they are to an end. Up to `size` values all are kept, and the result is that of
    `numpy.quantile`; beyond, its rank is off by at most 2π √(q (1 − q)) / size of all values.

    Args:
        q: a probability, or several; several are the first axis of the result.
        size: how many centroids are kept.

    Raises:
        TypeError: size is no whole number.
        ValueError: q is not between 0 and 1, or size is below 8.

    Reference: dunning2019.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> quartiles = de.stats.Quantile([0.25, 0.5, 0.75])
        >>> values, counts = jnp.arange(9.0), jnp.ones(9, bool)
        >>> quartiles.result(quartiles.update(quartiles.init(jnp.zeros(())), values, counts))
        Array([2., 4., 6.], dtype=float32)
    """

    q: Any = eqx.field(static=True, converter=_probabilities)
    size: int = eqx.field(static=True, default=256, converter=lambda x: whole_number("size", x))

    def __check_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"size is {self.size}; at least 8 is wanted.")

    def _of(self, x: Array, flags: Array) -> _Digest:
        _check_real(self, x)
        return self._digest(x, flags.astype(jnp.int32), _ends(x, flags))

    def _both(self, a: _Digest, b: _Digest) -> _Digest:
        centroids = jnp.concatenate([a.centroids, b.centroids])
        return self._digest(centroids, jnp.concatenate([a.weights, b.weights]), _wider(a, b))

    def _digest(self, x: Array, weights: Array, ends: _Ends) -> _Digest:
        """Sorted, and neighbours put together where they lie closer than one step of `_scale`."""
        order = jnp.argsort(jnp.where(weights > 0, x, jnp.inf), 0)
        x, weights = (jnp.take_along_axis(a, order, 0) for a in (x, weights))
        upto = jnp.cumsum(weights, 0)
        place = self._places(weights, upto, x.dtype)
        heavy = jnp.where(weights > 0, weights * x, 0)
        gather = jax.vmap(lambda v, p: jnp.zeros(self.size, v.dtype).at[p].add(v, mode="drop"))
        columns = lambda a: a.reshape(a.shape[0], -1).T  # noqa: E731
        total, mass = (gather(columns(a), columns(place)).T for a in (heavy, weights))
        shape = (self.size, *x.shape[1:])
        centroids = total.reshape(shape) / jnp.maximum(mass.reshape(shape), 1)
        return _Digest(ends.least, ends.greatest, centroids.astype(x.dtype), mass.reshape(shape))

    def _places(self, weights: Array, upto: Array, real: DTypeLike) -> Array:
        """The place of each of the sorted values among the centroids; `size` of none."""
        count = upto[-1]
        scale = self._scale(upto.astype(real) / jnp.maximum(count, 1).astype(real))
        before = jnp.concatenate([self._scale(jnp.zeros_like(scale[:1])), scale[:-1]])

        def next_place(carry: tuple, each: tuple) -> tuple:
            place, left = carry
            weight, start, end = each
            opens = (weight > 0) & ((place < 0) | (end - left > 1))
            place = place + opens
            return (place, jnp.where(opens, start, left)), place

        first = (jnp.full(count.shape, -1, jnp.int32), before[0])
        _, merged = lax.scan(next_place, first, (weights, before, scale))
        alone = count <= self.size  # then each has a weight of 1 and a place of its own
        return jnp.where(weights > 0, jnp.where(alone, upto - 1, merged), self.size)

    def _scale(self, q: Array) -> Array:
        """Half as many steps as places: two neighbours are never less than one together."""
        return self.size / 2 * (jnp.arcsin(jnp.clip(2 * q - 1, -1, 1)) / np.pi + 0.5)

    def _result(self, state: _Digest) -> Array:
        shape = state.least.shape
        flat = lambda x: x.reshape(x.shape[0], -1).T  # noqa: E731
        found = jax.vmap(self._looked_up)(
            flat(state.centroids), flat(state.weights), state.least.ravel(), state.greatest.ravel()
        )
        return jnp.moveaxis(found, 0, -1).reshape(*np.shape(self.q), *shape)

    def _looked_up(self, x: Array, weights: Array, least: Array, greatest: Array) -> Array:
        """Between the middles of the centroids, in rank; the ends of all are known."""
        weights = weights.astype(x.dtype)
        upto = jnp.cumsum(weights)
        last = upto[-1] - 1
        middle = jnp.where(weights > 0, upto - weights + (weights - 1) / 2, last)
        x = jnp.where(weights > 0, x, greatest)
        ranks = jnp.concatenate([jnp.zeros(1, x.dtype), middle, last[None]])
        values = jnp.concatenate([least[None], x, greatest[None]])
        rank = jnp.asarray(self.q, x.dtype) * last
        return jnp.where(last >= 0, jnp.interp(rank, ranks, values), jnp.nan)

"""Bounds as a smooth change of variable, so that any optimiser keeps them, L-BFGS included.

    lower alone   θ = lower + exp(z)          both   θ = lower + (upper − lower)/(1 + exp(−z))
    upper alone   θ = upper − exp(z)          none   θ = z

With a lower bound of 0 the optimiser works on log θ: a step of 0.1 is one of ten per cent. Between
two bounds θ is counted from the end that is nearer, or from the middle, so that wide bounds do not
take the digits of a θ that is small.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, PyTree

from ..core.flax_nnx import is_nnx_module
from ..validation.values import is_real, shown

__all__ = ["Interval", "intervals", "spread_prefix"]


class Interval(NamedTuple):
    """(lower, upper) of each number of an array; infinite where there is no bound."""

    lower: np.ndarray
    upper: np.ndarray

    def natural(self, z: Inexact[Array, "..."]) -> Array:
        """The natural θ of the free z."""
        has_low, has_high, low, high = self._finite()
        both, one = has_low & has_high, has_low ^ has_high
        grown = jnp.exp(jnp.where(one, z, 0))
        start = jnp.asarray(np.where(has_low, low, high), z.dtype)
        single = jnp.where(has_low, start + grown, start - grown)
        double = _between_bounds(low, high, jnp.where(both, z, 0))
        return jnp.where(both, double, jnp.where(one, single, z))

    def free(self, x: Inexact[Array, "..."]) -> Array:
        """The free z of the natural θ."""
        start = np.asarray(x, np.float64)
        has_low, has_high, low, high = self._finite()
        both, one = has_low & has_high, has_low ^ has_high
        with np.errstate(divide="ignore", invalid="ignore"):
            single = np.log(np.where(has_low, start - low, high - start))
            near_end = np.log(start / 2 - low / 2) - np.log(high / 2 - start / 2)
            near_middle = 2 * np.arctanh((start - _middle(low, high)) / _half(low, high))
            double = np.where(np.abs(near_end) > _END, near_end, near_middle)
        return jnp.asarray(np.where(both, double, np.where(one, single, start)), x.dtype)

    def _finite(self) -> tuple[np.ndarray, ...]:
        """Flags of the bounds that there are, and the bounds with 0 for infinity."""
        known = [np.asarray(np.isfinite(side)) for side in self]
        sides = [np.where(there, side, 0) for there, side in zip(known, self, strict=True)]
        return *known, *sides


_END = 2.0  # the |z| above which θ is counted from an end, and not from the middle


def _middle(low: np.ndarray, high: np.ndarray) -> np.ndarray | np.floating:
    return low / 2 + high / 2


def _half(low: np.ndarray, high: np.ndarray) -> np.ndarray | np.floating:
    """Half of the width, which does not overflow where the width does."""
    return high / 2 - low / 2


def _between_bounds(low: np.ndarray, high: np.ndarray, z: Array) -> Array:
    """Returns low + (high − low)/(1 + exp(−z)), by the one of three equal formulas that cancels
    nothing.
    """
    sides = (low, high, _middle(low, high), _half(low, high))
    first, last, middle, half = (jnp.asarray(x, z.dtype) for x in sides)
    from_end = half * (2 * jax.nn.sigmoid(-jnp.abs(z)))
    inside = middle + half * jnp.tanh(jnp.where(jnp.abs(z) <= _END, z, 0) / 2)
    return jnp.where(z < -_END, first + from_end, jnp.where(z > _END, last - from_end, inside))


def intervals(
    bounds: PyTree,
    model: PyTree,
    counts: Sequence[int],
    names: Sequence[str],
    values: Sequence[Array],
) -> list[Interval | None]:
    """The interval of each trained array; `counts`: how many of them a piece of the model has."""
    if bounds is None:
        return [None] * len(values)
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(
            f"bounds is {shown(bounds)}; a pair (lower, upper) of numbers, or of prefix trees of "
            "the model, is wanted."
        )
    blanks = (-np.inf, np.inf)
    lower, upper = (
        _bound_of_each(side, model, counts, blank)
        for side, blank in zip(bounds, blanks, strict=True)
    )
    return [_checked_interval(*each) for each in zip(lower, upper, names, values, strict=True)]


def spread_prefix(prefix: PyTree, model: PyTree) -> list:
    """The leaf of a prefix tree that stands for each piece of a model."""
    wide = jax.tree.map(
        lambda leaf, part: [leaf] * len(jax.tree.leaves(part, is_leaf=is_nnx_module)),
        prefix,
        model,
        is_leaf=lambda x: x is None,
    )
    return jax.tree.leaves(wide, is_leaf=lambda x: x is None)


def _bound_of_each(side: PyTree, model: PyTree, counts: Sequence[int], blank: float) -> list:
    """One bound for each trained array, from a prefix tree."""
    if isinstance(side, (list, tuple)) and hasattr(model, "shape"):
        side = np.asarray([blank if x is None else x for x in side])
    try:
        each = spread_prefix(side, model)
    except ValueError as error:
        raise ValueError(f"bounds: a prefix tree of the model is wanted. {error}") from error
    return [bound for bound, count in zip(each, counts, strict=True) for _ in range(count)]


def _checked_interval(lower: PyTree, upper: PyTree, name: str, value: Array) -> Interval:
    """The interval of one array, in which it has to start."""
    start = np.asarray(value)
    if np.iscomplexobj(start):
        raise TypeError(f"bounds are for real parameters; {name} is complex.")
    low = _full_bound(lower, -np.inf, start.shape, name)
    high = _full_bound(upper, np.inf, start.shape, name)
    crossed = np.argwhere(~(low < high))
    if len(crossed):
        at = tuple(int(i) for i in crossed[0])
        raise ValueError(
            f"bounds: the lower bound {low[at]:g} of {_name_entry(at, name)} is not below the "
            f"upper one, {high[at]:g}; bounds is a pair (lower, upper)."
        )
    outside = np.argwhere(~((low < start) & (start < high)))
    if len(outside):
        at = tuple(int(i) for i in outside[0])
        raise ValueError(
            f"bounds: {_name_entry(at, name)} starts at {start[at]:g}, which is not inside "
            f"({low[at]:g}, {high[at]:g})."
        )
    most = float(jnp.finfo(start.dtype).max)  # a bound beyond the range of the dtype is none
    return Interval(np.where(low < -most, -np.inf, low), np.where(high > most, np.inf, high))


def _name_entry(at: tuple[int, ...], name: str) -> str:
    return f"entry {list(at)} of {name}" if at else name


def _full_bound(bound: PyTree, blank: float, shape: tuple[int, ...], name: str) -> np.ndarray:
    if bound is None:
        return np.full(shape, blank)
    found = np.asarray(bound)
    if not is_real(found):
        raise TypeError(
            f"bounds: {shown(bound)} is a bound of {name}; a number is wanted, or None for none."
        )
    if np.isnan(found).any():
        raise ValueError(f"bounds: a bound of {name} is NaN; None is no bound.")
    try:
        return np.broadcast_to(found.astype(float), shape)
    except ValueError:
        raise ValueError(
            f"bounds: a bound of {name} has shape {found.shape}, and {name} has {shape}; a number "
            "is wanted, or an array of the parameter's shape."
        ) from None

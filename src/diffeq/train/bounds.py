"""Bounds as a smooth change of variable, so that any optimiser keeps them, L-BFGS included.

    lower alone   θ = lower + exp(z)          both   θ = lower + (upper − lower)/(1 + exp(−z))
    upper alone   θ = upper − exp(z)          none   θ = z

With a lower bound of 0 the optimiser works on log θ: a step of 0.1 is one of ten per cent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, PyTree

from ..core.flax_nnx import is_nnx_module

__all__ = ["Interval", "intervals", "spread_prefix"]


class Interval(NamedTuple):
    """(lower, upper) of each number of an array; infinite where there is no bound."""

    lower: np.ndarray
    upper: np.ndarray

    def natural(self, z: Inexact[Array, "..."]) -> Array:
        """The natural θ of the free z."""
        has_low, has_high, low, high = self._finite()
        low, high = jnp.asarray(low, z.dtype), jnp.asarray(high, z.dtype)
        both, one = has_low & has_high, has_low ^ has_high
        grown = jnp.exp(jnp.where(one, z, 0))
        single = jnp.where(has_low, low + grown, high - grown)
        double = low + (high - low) * jax.nn.sigmoid(jnp.where(both, z, 0))
        return jnp.where(both, double, jnp.where(one, single, z))

    def free(self, x: Inexact[Array, "..."]) -> Array:
        """The free z of the natural θ."""
        start = np.asarray(x, np.float64)
        has_low, has_high, low, high = self._finite()
        both, one = has_low & has_high, has_low ^ has_high
        with np.errstate(divide="ignore", invalid="ignore"):
            single = np.log(np.where(has_low, start - low, high - start))
            double = np.log(start - low) - np.log(high - start)
        return jnp.asarray(np.where(both, double, np.where(one, single, start)), x.dtype)

    def _finite(self) -> tuple[np.ndarray, ...]:
        """Flags of the bounds that there are, and the bounds with 0 for infinity."""
        known = [np.asarray(np.isfinite(side)) for side in self]
        sides = [np.where(there, side, 0) for there, side in zip(known, self, strict=True)]
        return *known, *sides


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
            "bounds is a pair (lower, upper) of numbers, or of prefix trees of the model."
        )
    lower, upper = (_bound_of_each(side, model, counts) for side in bounds)
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


def _bound_of_each(side: PyTree, model: PyTree, counts: Sequence[int]) -> list:
    """One bound for each trained array, from a prefix tree."""
    if isinstance(side, (list, tuple)) and hasattr(model, "shape"):
        side = np.asarray([np.nan if x is None else x for x in side], float)
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
    low, high = _full_bound(lower, -np.inf, start.shape), _full_bound(upper, np.inf, start.shape)
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
    return Interval(low, high)


def _name_entry(at: tuple[int, ...], name: str) -> str:
    return f"entry {list(at)} of {name}" if at else name


def _full_bound(bound: PyTree, blank: float, shape: tuple[int, ...]) -> np.ndarray:
    if bound is None:
        return np.full(shape, blank)
    wide = np.broadcast_to(np.asarray(bound, float), shape)
    return np.where(np.isnan(wide), blank, wide)

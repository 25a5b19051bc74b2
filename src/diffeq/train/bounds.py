"""Bounds as a smooth change of variable, so that any optimiser keeps them, L-BFGS included."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.watch import is_nnx_module

__all__ = ["Bounds"]


class Bounds:
    """θ inside (lower, upper), as a function of z on the whole line.

        lower alone   θ = lower + exp(z)          both   θ = lower + (upper − lower)/(1 + exp(−z))
        upper alone   θ = upper − exp(z)          none   θ = z

    With a lower bound of 0 the optimiser works on log θ: a step of 0.1 is one of ten per cent.
    """

    def __init__(self, bounds: Any, model: Any, counts: list[int], values: list) -> None:
        self.kinds = [None] * len(values)
        if bounds is None:
            return
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise TypeError(
                "bounds is a pair (lower, upper) of numbers, or of prefix trees of the model."
            )
        lower, upper = (_spread(side, model, counts) for side in bounds)
        self.kinds = [
            _Interval(*each, i) for i, each in enumerate(zip(lower, upper, values, strict=True))
        ]

    def free(self, values: list) -> list:
        """The free z of θ."""
        return [
            x if kind is None else kind.free(x) for kind, x in zip(self.kinds, values, strict=True)
        ]

    def natural(self, free: list) -> list:
        """The natural θ of z."""
        return [
            z if kind is None else kind.natural(z) for kind, z in zip(self.kinds, free, strict=True)
        ]


def _spread(side: Any, model: Any, counts: list[int]) -> list:
    """One bound for each trained array, from a prefix tree."""
    if isinstance(side, (list, tuple)) and hasattr(model, "shape"):
        side = np.asarray([np.nan if x is None else x for x in side], float)
    try:
        wide = jax.tree.map(
            lambda bound, part: [bound] * len(jax.tree.leaves(part, is_leaf=is_nnx_module)),
            side, model, is_leaf=lambda x: x is None,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"bounds: a prefix tree of the model is wanted. {error}") from error
    each = jax.tree.leaves(wide, is_leaf=lambda x: x is None)
    return [bound for bound, count in zip(each, counts, strict=True) for _ in range(count)]


class _Interval:
    """The change of variable of one array."""

    def __init__(self, lower: Any, upper: Any, value: Any, index: int) -> None:
        shape = np.shape(value)
        low, high = _filled(lower, -np.inf, shape), _filled(upper, np.inf, shape)
        start = np.asarray(value)
        if np.iscomplexobj(start):
            raise TypeError("bounds are for real parameters.")
        bad = np.argwhere(~((low < start) & (start < high)))
        if len(bad):
            at = tuple(int(i) for i in bad[0])
            raise ValueError(
                f"bounds: entry {at} of parameter {index} starts at {start[at]:g}, which is not "
                f"inside ({low[at]:g}, {high[at]:g})."
            )
        self.has_low, self.has_high = np.isfinite(low), np.isfinite(high)
        self.low, self.high = np.where(self.has_low, low, 0.0), np.where(self.has_high, high, 0.0)

    def natural(self, z: Any) -> Any:
        both, one = self.has_low & self.has_high, self.has_low ^ self.has_high
        low, high = jnp.asarray(self.low, z.dtype), jnp.asarray(self.high, z.dtype)
        grown = jnp.exp(jnp.where(one, z, 0))
        single = jnp.where(self.has_low, low + grown, high - grown)
        double = low + (high - low) * jax.nn.sigmoid(jnp.where(both, z, 0))
        return jnp.where(both, double, jnp.where(one, single, z))

    def free(self, x: Any) -> Any:
        start = np.asarray(x, np.float64)
        both, one = self.has_low & self.has_high, self.has_low ^ self.has_high
        with np.errstate(divide="ignore", invalid="ignore"):
            single = np.log(np.where(self.has_low, start - self.low, self.high - start))
            double = np.log(start - self.low) - np.log(self.high - start)
        return jnp.asarray(np.where(both, double, np.where(one, single, start)), x.dtype)


def _filled(bound: Any, blank: float, shape: tuple) -> np.ndarray:
    if bound is None:
        return np.full(shape, blank)
    wide = np.broadcast_to(np.asarray(bound, float), shape)
    return np.where(np.isnan(wide), blank, wide)

"""Where the solution of a delay equation has kinks: t0 + Σ nᵢ lagᵢ."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

__all__ = ["breaking_points", "kinks_of"]

# With many lags the combinations explode (10 lags to the seventh level: 19,447). Kinks of a higher
# level are smoother, and so first to be left to the control of errors.
_MOST = 256


def breaking_points(t0: Real[Array, ""], lags: Real[Array, " lags"], levels: int) -> Array:
    """t0 + Σ nᵢ lagᵢ for 0 < Σ nᵢ ≤ levels; fewer levels (but one) where these are over 256.

    At t0 the derivative jumps, at a point of level n the derivative of order n + 1: each delay
    integrates once.

    Reference: hairer1993, II.17.

    >>> breaking_points(jnp.array(1.0), jnp.array([0.5, 2.0]), 2).tolist()
    [1.5, 3.0, 2.0, 3.5, 5.0]
    """
    counts = _counts(lags.shape[0], levels)
    # Products and a sum: a matrix product would round otherwise, and by another amount a machine.
    return t0 + jnp.sum(jnp.asarray(counts, lags.dtype) * lags, axis=1)


def kinks_of(lags: int, levels: int) -> int:
    """How many breaking points there are of so many lags.

    >>> kinks_of(2, 2)
    5
    """
    return len(_counts(lags, levels)) if lags else 0


def _counts(lags: int, levels: int) -> Any:
    """The multi-indices of 1 ≤ |n| ≤ levels, level by level, no more than there is room for."""
    unit = np.eye(lags, dtype=int)
    found, level = [*unit], [*unit]
    for _ in range(levels - 1):
        level = list({tuple(n + e): n + e for n in level for e in unit}.values())
        if len(found) + len(level) > _MOST:
            break
        found += level
    return np.stack(found)

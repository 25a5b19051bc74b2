"""The interval of a solve, the dtype of its time, and its direction."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from ..base import evaluated

__all__ = ["flip_time", "time_dtype", "time_interval"]


def time_interval(tspan: Any, args: PyTree, dtype: DTypeLike) -> tuple[Array, Array]:
    """(t0, t1) in the real dtype of the state, promoted with arrays in tspan."""
    if not isinstance(tspan, (tuple, list)) and getattr(tspan, "shape", None) != (2,):
        raise TypeError(f"tspan is {tspan!r}; a pair (t0, t1) is wanted, or a function of args.")
    if len(tspan) != 2:
        raise TypeError(f"tspan has {len(tspan)} entries; a pair (t0, t1) is wanted.")
    ends = [evaluated(t, args) for t in tspan]
    t0, t1 = (jnp.asarray(t, time_dtype(ends, dtype)) for t in ends)
    for name, t in (("start", t0), ("end", t1)):
        if t.shape != ():
            raise ValueError(f"tspan's {name} has shape {t.shape}; a scalar is wanted.")
    return t0, t1


def time_dtype(ends: Sequence, dtype: DTypeLike) -> np.dtype:
    """The dtype of t: the real one of the state's, promoted with those of arrays in tspan."""
    real = jnp.finfo(dtype).dtype
    found = jnp.result_type(real, *(t for t in ends if hasattr(t, "dtype")))
    return found if jnp.issubdtype(found, jnp.floating) else real


def flip_time(sign: Array | int, x: Array) -> Array:
    """x, or −x where time runs backwards. A known direction costs nothing."""
    return x if isinstance(sign, int) and sign == 1 else jnp.asarray(sign, jnp.result_type(x)) * x

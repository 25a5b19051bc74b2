"""Times that lose what tells them apart when they are rounded to a narrower dtype: timestamps."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

__all__ = ["check_resolution", "digits_of", "time_resolution"]


def digits_of(t: float) -> str:
    """All digits that tell a time from its neighbours, and no more: 1, not 1.0."""
    return repr(float(t)).removesuffix(".0")


def time_resolution(t0: float, t1: float, dtype: np.dtype) -> float:
    """The distance of neighbouring times of this dtype near t0 and t1.

    >>> time_resolution(0.0, 1.7e9, np.dtype("float32"))
    202.65579223632812
    """
    return float(jnp.finfo(dtype).eps) * max(abs(t0), abs(t1))


def check_resolution(ts: PyTree) -> None:
    """Refuses times in float64 that JAX, without x64, would make equal, though they differ from the
    first of their series by numbers that float32 tells apart: timestamps.
    """
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(ts)):
        return  # rounded before, or not known yet
    times, kept = np.asarray(ts), jnp.result_type(float)
    if not np.issubdtype(times.dtype, np.number) or np.iscomplexobj(times):
        return
    if times.dtype.itemsize < 8 or kept == np.float64 or times.ndim == 0 or not times.size:
        return
    times = times.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of infinite times, which are refused elsewhere
        length = np.fmax.reduce(times, axis=-1, keepdims=True) - times[..., :1]
        gap, rounded = np.diff(times, axis=-1), np.diff(times.astype(kept), axis=-1)
        apart = (gap > np.finfo(kept).eps * length) & (gap > 4 * np.spacing(times[..., 1:]))
    lost = apart & (rounded == 0)
    if lost.any():
        place = tuple(np.argwhere(lost)[0])
        later = (*place[:-1], place[-1] + 1)
        one, two = (digits_of(float(times[i])) for i in (place, later))
        raise ValueError(
            f"ts{list(map(int, place))} is {one} and ts{list(map(int, later))} is {two}, which are "
            f"one number in {np.dtype(kept).name}: subtract ts[0] first, in float64, or set "
            "jax_enable_x64."
        )

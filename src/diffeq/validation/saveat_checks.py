"""Checks of `saveat` and `save`."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..core.time_resolution import digits_of
from .values import axes_of, concrete, is_real, shown

__all__ = ["arrays_of", "check_save", "check_saveat", "times_of"]


def check_save(save: PyTree) -> None:
    """Refuses what is no function."""
    for key, f in save.items() if isinstance(save, dict) else [(None, save)]:
        name = "save" if key is None else f"save[{key!r}]"
        if not (f is None or callable(f)):
            raise TypeError(
                f"{name} is {shown(f)}; a function save(t, y, args) is wanted, or None for y."
            )


def check_saveat(saveat: PyTree, save: PyTree, span: PyTree, eps: float) -> None:
    """Refuses times that are no times, or not in order and inside of the span."""
    if isinstance(save, dict) and not (isinstance(saveat, dict) and set(save) <= set(saveat)):
        raise ValueError(
            f"save has the keys {sorted(map(str, save))}; saveat must be a dict with the same keys."
        )
    if isinstance(saveat, dict) and not saveat:
        raise ValueError("saveat is {}; at least one key is wanted, or None for the state at t1.")
    for key, at in saveat.items() if isinstance(saveat, dict) else [(None, saveat)]:
        name = "saveat" if key is None else f"saveat[{key!r}]"
        if at is None or isinstance(at, str):
            if at not in (None, "steps"):
                raise ValueError(f'{name} is {at!r}; times, "steps" or None is wanted.')
            continue
        _check_times(name, at, span, eps)


def _check_times(name: str, at: Any, span: PyTree, eps: float) -> None:
    if axes_of(at) != 1 or not is_real(at):
        raise ValueError(f"{name} is {shown(at)}; a sequence of times is wanted.")
    if np.size(at) == 0:
        raise ValueError(
            f"{name} is empty; at least one time is wanted, or None for the state at t1 alone."
        )
    if span is None or not concrete(at):
        return
    times = np.asarray(at, float)
    t0, t1 = span
    turn = 1.0 if t1 >= t0 else -1.0
    known = times[~np.isnan(times)]
    if np.isnan(times[: len(known)]).any():
        raise ValueError(f"{name} has NaN before a number; NaN is padding, at the end only.")
    if (np.diff(turn * known) < 0).any():
        ordered = f"jnp.sort({name})" + ("" if turn > 0 else "[::-1], the latest time first")
        raise ValueError(
            f"{name} is not sorted along the direction of time, from t0 = {digits_of(t0)} to "
            f"t1 = {digits_of(t1)}: give {ordered}."
        )
    slack = 4 * eps * max(abs(t0), abs(t1))
    outside = known[(turn * known < turn * t0 - slack) | (turn * known > turn * t1 + slack)]
    if len(outside):
        raise ValueError(
            f"{name} has {digits_of(outside[0])}, outside "
            f"tspan = ({digits_of(t0)}, {digits_of(t1)})."
        )


def times_of(name: str, x: Any) -> Array | None:
    """A sequence of times as an array; None where there are none."""
    if x is None or (isinstance(x, (tuple, list)) and not x):
        return None
    x = arrays_of(x)
    if axes_of(x) != 1 or not is_real(x):
        raise ValueError(f"{name} is {shown(x)}; a sequence of times is wanted.")
    return jnp.asarray(x) if np.size(x) else None


def arrays_of(saveat: PyTree) -> PyTree:
    """Save times as arrays, where they are lists of numbers."""
    if isinstance(saveat, dict):
        return {k: arrays_of(v) for k, v in saveat.items()}
    if not isinstance(saveat, Sequence) or isinstance(saveat, str):
        return saveat
    try:
        return jnp.asarray(saveat)
    except (TypeError, ValueError):
        return saveat  # what is no array is refused by its name

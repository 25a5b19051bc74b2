"""One irregular series as arrays without NaN, and the checks of what a user gives as one."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..core.promotion import floating_dtype
from ..core.time_resolution import check_resolution
from ..validation.values import concrete, is_real, shown

__all__ = [
    "SERIES_PARTS",
    "Series",
    "check_batch",
    "check_channels",
    "end_of",
    "fixed_time",
    "from_start",
    "mask_of",
    "nan_before",
    "readings",
    "seen_part",
    "series_of",
    "start_of",
]

SERIES_PARTS = ("ts", "xs", "mask", "given")


class Series(NamedTuple):
    """A series: what was observed, and when.

    Attributes:
        times: sorted; behind the end of a series that is shorter its last time (of an empty one
            t0, or 0).
        values: 0 where nothing was observed.
        mask: True where something was.
    """

    times: Float[Array, " n"]
    values: Float[Array, "n channels"]
    mask: Bool[Array, "n channels"]

    @property
    def first(self) -> Float[Array, ""]:
        """The first time."""
        return self.times[0]

    @property
    def last(self) -> Float[Array, ""]:
        """The last time."""
        return self.times[-1]


def series_of(
    ts: PyTree, xs: PyTree, mask: PyTree = None, t0: float | None = None, t1: float | None = None
) -> Series:
    """A series from times (n,), values (n, channels) and a mask (n,) or (n, channels).

    NaN at the end of `ts` is padding. Without a mask NaN in `xs` is what was not observed. All
    times are from t0 on and up to t1, where these are given.

    Numbers that are not known yet cannot be refused. A series whose times decrease, or have NaN
    between them, or are outside of (t0, t1), is then one of NaN, as all that is computed from it.

    Raises:
        ValueError: shapes that do not fit; and, where the numbers are known, times that decrease,
            NaN between them, times outside of (t0, t1), and NaN in `xs` where the mask is True.
    """
    check_resolution(ts)
    ts, xs = jnp.asarray(ts), jnp.asarray(xs)
    if ts.ndim != 1 or xs.ndim != 2 or xs.shape[0] != ts.shape[0] or not ts.shape[0]:
        raise ValueError(
            f"ts has shape {ts.shape} and xs {xs.shape}; of one series (n,) and (n, channels) are "
            "wanted, with n ≥ 1. Batches are jax.vmap, or the method `loss`."
        )
    check_values(ts, xs, mask, t0, t1)
    dtype = floating_dtype(xs)
    ts, xs = ts.astype(floating_dtype(ts)), xs.astype(dtype)
    padding = jnp.isnan(ts)
    known = mask_of(xs, mask) & ~padding[:, None]
    last = jnp.max(jnp.where(padding, -jnp.inf, ts))
    empty = jnp.asarray(0 if t0 is None else t0, ts.dtype)
    times = jnp.where(padding, jnp.where(jnp.all(padding), empty, last), ts)
    wrong = jnp.any(times[1:] < times[:-1]) | jnp.any(padding[:-1] & ~padding[1:])
    for outside in _outside(times, t0, t1):
        wrong = wrong | jnp.any(outside)
    values = jnp.where(known, jnp.where(wrong, jnp.nan, xs), 0)
    return Series(jnp.where(wrong, jnp.nan, times), values, known)


def start_of(series: Series, t0: float | None = None) -> Float[Array, ""]:
    """The time at which a model of a series starts: t0; None: the first time of the series. It is
    NaN for a series of NaN (`series_of`).
    """
    if t0 is None:
        return series.first
    return jnp.where(jnp.isnan(series.first), jnp.nan, jnp.asarray(t0, series.times.dtype))


def _outside(
    times: Array | np.ndarray, t0: float | None, t1: float | None
) -> tuple[Array | np.ndarray, Array | np.ndarray]:
    """Which times are before t0, and which after t1, compared as numbers of their dtype."""
    none = np.zeros(times.shape, bool)
    early = none if t0 is None else times < np.asarray(t0, times.dtype)
    return early, none if t1 is None else times > np.asarray(t1, times.dtype)


def fixed_time(name: str, t: PyTree) -> float:
    """A time that is a constant of a model.

    >>> fixed_time("t0", "a")
    Traceback (most recent call last):
    TypeError: t0 is 'a'; a finite number that is known before tracing is wanted, or None.
    """
    if not (concrete(t) and is_real(t) and np.ndim(t) == 0 and np.isfinite(t)):
        raise TypeError(
            f"{name} is {shown(t)}; a finite number that is known before tracing is wanted, or "
            "None."
        )
    return float(t)


def from_start(at: Float[Array, " m"], t0: ArrayLike) -> Float[Array, " m"]:
    """The times of a forecast, with t0 in place of those before it; NaN, padding, stays."""
    return jnp.where(at < t0, t0, at)


def nan_before(rows: Float[Array, "m channels"], at: Float[Array, " m"], t0: ArrayLike) -> Array:
    """The rows of a forecast, NaN at times before t0: there a model says nothing."""
    return jnp.where((jnp.isnan(at) | (at >= t0))[:, None], rows, jnp.nan)


def mask_of(xs: Float[Array, "n channels"], mask: PyTree) -> Bool[Array, "n channels"]:
    """A mask for each number of `xs`; None is what is no NaN."""
    if mask is None:
        return ~jnp.isnan(xs)
    mask = checked_mask(xs, mask)
    return jnp.broadcast_to(mask.astype(bool).reshape(len(xs), -1), xs.shape)


def checked_mask(xs: Array, mask: PyTree) -> Array:
    """A mask as an array, of the shape of xs or of its rows; numbers are True where not 0."""
    mask = jnp.asarray(mask)
    if mask.shape not in (xs.shape, xs.shape[:-1]):
        raise ValueError(
            f"mask has shape {mask.shape}; that of xs, {xs.shape}, or one flag a row, "
            f"{xs.shape[:-1]}, is wanted."
        )
    return mask


def seen_part(series: Series, given: PyTree) -> Series:
    """The part of a series that an encoder sees: all of it, or what is `given` of it, as a mask."""
    if given is None:
        return series
    mask = series.mask & mask_of(series.values, given)
    return series._replace(mask=mask, values=jnp.where(mask, series.values, 0))


def end_of(at: Float[Array, " m"], t0: ArrayLike) -> Float[Array, ""]:
    """The one of sorted times that is the furthest from t0; NaN is padding."""
    known = jnp.where(jnp.isnan(at), t0, at)
    return known[jnp.argmax(jnp.abs(known - t0))]


def readings(
    ts: PyTree, xs: PyTree, mask: PyTree
) -> tuple[Float[Array, "n inputs"], Bool[Array, " n"]]:
    """The rows (t, x, mask) that an encoder reads, and in which of them something was observed."""
    ts, xs, mask = (jnp.asarray(x) for x in (ts, xs, mask))
    rows = jnp.concatenate([ts[:, None].astype(xs.dtype), xs, mask.astype(xs.dtype)], axis=1)
    return rows, jnp.any(mask, axis=1)


def check_channels(xs: Array, channels: int, reader: str) -> None:
    """Refuses rows of another length than what reads them was made for.

    >>> check_channels(jnp.ones((4, 2)), 3, "the encoder")
    Traceback (most recent call last):
    ValueError: xs has shape (4, 2), rows of 2 channels; the encoder was made for 3.
    """
    if xs.shape[-1] != channels:
        raise ValueError(
            f"xs has shape {xs.shape}, rows of {xs.shape[-1]} channels; {reader} was made for "
            f"{channels}."
        )


# --- checks of numbers ----------------------------------------------------------------------------


def check_batch(
    batch: PyTree, names: tuple[str, ...], t0: float | None = None, t1: float | None = None
) -> tuple:
    """A batch as a tuple of its parts, all of whose arrays have one first axis, with times from t0
    on and up to t1, where these are given.

    Raises:
        TypeError, ValueError: it is no such tuple (or a dictionary with these names); a series in
            it is none.
    """
    if isinstance(batch, dict):
        unknown = [name for name in batch if name not in names]
        if unknown or not {"ts", "xs"} <= batch.keys():
            raise TypeError(f"the batch has {list(batch)}; ts and xs of {list(names)} are wanted.")
        batch = tuple(batch.get(name) for name in names)
    if not isinstance(batch, (tuple, list)) or not 2 <= len(batch) <= len(names):
        raise TypeError(f"the batch is a {type(batch).__name__}; ({', '.join(names)}) is wanted.")
    check_resolution(batch[0])
    batch = tuple(None if part is None else jnp.asarray(part) for part in batch)
    ts, xs, *masks = batch
    if ts.ndim != 2 or xs.ndim != 3 or any(len(x) != len(ts) for x in batch if x is not None):
        shapes = [None if x is None else x.shape for x in batch]
        raise ValueError(
            f"the batch has shapes {shapes} of {', '.join(names)}; (series, n) and (series, n, "
            "channels) are wanted: series of different length are padded with NaN in ts."
        )
    check_values(ts, xs, masks[0] if masks else None, t0, t1)
    for mask in masks[1:]:
        if mask is not None:
            checked_mask(xs, mask)
    return batch


def check_values(
    ts: Array, xs: Array, mask: PyTree, t0: float | None = None, t1: float | None = None
) -> None:
    """Refuses times that decrease or are outside of (t0, t1), and NaN where there has to be a
    number, in one series or in a batch of them. Numbers that are not known yet are not looked at.
    """
    for name, x in (("ts", ts), ("xs", xs)):
        if not is_real(x):
            raise TypeError(f"{name} has dtype {x.dtype}; real numbers are wanted.")
    if not concrete((ts, xs, mask)):
        return
    times, values = np.asarray(ts, float), np.asarray(xs, float)
    gap = np.isnan(times[..., :-1]) & ~np.isnan(times[..., 1:])
    if gap.any():
        raise ValueError(
            f"ts{_first_place(gap)} is NaN, and a time comes after it; NaN is padding, at the end "
            "only."
        )
    falls = times[..., 1:] < times[..., :-1]
    if falls.any():
        place = tuple(np.argwhere(falls)[0])
        later = (*place[:-1], place[-1] + 1)
        raise ValueError(
            f"ts{list(map(int, later))} is {times[later]:g}, after {times[place]:g}; times must "
            "not decrease."
        )
    if np.isinf(times).any():
        raise ValueError(f"ts{_first_place(np.isinf(times))} is infinite; NaN is padding.")
    _check_inside(np.asarray(ts, floating_dtype(ts)), t0, t1)
    everywhere = np.ones(times.shape, bool)
    given = everywhere if mask is None else np.asarray(checked_mask(xs, mask)).astype(bool)
    given = given if given.ndim == values.ndim else given[..., None]
    given = given & ~np.isnan(times)[..., None]
    bad = given & (np.isinf(values) if mask is None else ~np.isfinite(values))
    if bad.any():
        place = tuple(np.argwhere(bad)[0])
        said = "" if mask is None else ", where mask says that it was observed"
        raise ValueError(f"xs{list(map(int, place))} is {values[place]:g}{said}.")


def _check_inside(times: np.ndarray, t0: float | None, t1: float | None) -> None:
    """Refuses times before t0 or after t1: what is observed there has no state."""
    words = (
        ("before t0", t0, "t0 must not be after the first"),
        ("after t1", t1, "t1 must not be before the last"),
    )
    for flags, (where, end, wanted) in zip(_outside(times, t0, t1), words, strict=True):
        if np.any(flags):
            place = _first_place(np.asarray(flags))
            raise ValueError(
                f"ts{place} is {times[tuple(place)]:g}, {where} = {end:g}; {wanted} time of any "
                "series."
            )


def _first_place(flags: np.ndarray) -> list[int]:
    return list(map(int, np.argwhere(flags)[0]))

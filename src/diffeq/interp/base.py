"""Inputs: functions of time from tables. Those that jump say when, by `core.jumps.jumping`."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PyTree, Real

from ..autodiff.jax_internals import Tracer
from ..core.promotion import standard_promotion

__all__ = ["InputFunction", "Table"]

_FEW = 32


class InputFunction(eqx.Module):
    """The base of all inputs: called with t, a time or an array of times."""

    @standard_promotion()
    def __call__(self, t: ArrayLike) -> PyTree:
        """The value at t."""
        t = jnp.asarray(t)
        return self.at(t) if t.ndim == 0 else jax.vmap(self)(t)

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The value at one time."""
        raise NotImplementedError


class Table(InputFunction):
    """The base of inputs from values `xs`, a tree of arrays, at increasing times `ts`.

    Before the first and after the last of the times it stays as it is there.
    """

    ts: Real[Array, " rows"]
    xs: PyTree

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree, *, padded: bool = False) -> None:
        self.ts = _increasing(ts, padded)
        try:
            self.xs = jax.tree.map(jnp.asarray, _list_as_array(xs))
        except TypeError as error:
            raise TypeError(f"xs is {xs!r}; numbers are wanted, one row for each time.") from error
        for path, x in jax.tree.flatten_with_path(self.xs)[0]:
            if jnp.shape(x)[:1] != self.ts.shape:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"xs{where} has shape {jnp.shape(x)}; its first axis must be that of ts, "
                    f"{self.ts.shape[0]}."
                )
            self._check_known(x, jax.tree_util.keystr(path))

    def _check_known(self, x: Array, where: str) -> None:
        """Refuses NaN at a time that is there: every solve that reads it would fail."""
        if isinstance(x, Tracer) or isinstance(self.ts, Tracer):
            return
        rows = np.asarray(x)[np.isfinite(np.asarray(self.ts))]
        if jnp.issubdtype(rows.dtype, jnp.inexact) and np.isnan(rows).any():
            row = int(np.argwhere(np.isnan(rows))[0][0])
            raise ValueError(
                f"xs{where} has NaN at ts[{row}] = {np.asarray(self.ts)[row]:g}: leave out the "
                "times at which nothing was measured, or fill in what is missing."
            )

    def place(self, t: Real[Array, ""]) -> Int[Array, ""]:
        """The index of the last time that is not after t; 0 before the first."""
        return index_not_after(self.ts, t)


def index_not_after(ts: Real[Array, " n"], t: Real[Array, ""]) -> Int[Array, ""]:
    """The index of the last of increasing times that is not after t; 0 before the first.

    Of many, the place that equal distances would give and its neighbour are tried first, and then
    halves: of a regular table two numbers are read, however long it is.
    """
    ts, t = lax.stop_gradient((ts, t))
    count = ts.shape[0]
    if count <= _FEW:
        return _last_not_after(ts, t)
    # Two short counts, of blocks and then inside of one: a bisection is a loop in the loop, or a
    # gather a level, written out at every stage.
    width = math.isqrt(count - 1) + 1
    first = jnp.minimum(width * _last_not_after(ts[::width], t), count - width)
    return first + _last_not_after(lax.dynamic_slice_in_dim(ts, first, width), t)


def _last_not_after(ts: Real[Array, " n"], t: Real[Array, ""]) -> Int[Array, ""]:
    return jnp.maximum(jnp.sum(ts <= t, dtype=jnp.int32) - 1, 0)


def position(t: Real[Array, ""], t0: Real[Array, ""], t1: Real[Array, ""]) -> Real[Array, ""]:
    """The position of t between t0 and t1, from 0 to 1: 0 before, 1 after.

    At both ends it differentiates as it does inside: a clip has half of that derivative at a tie.
    """
    inside = (t - t0) / (t1 - t0)
    return jnp.where(t < t0, 0, jnp.where(t > t1, 1, inside))


def tree_row(xs: PyTree, place: Int[Array, ""]) -> PyTree:
    """A row of a tree."""
    return jax.tree.map(lambda x: x.at[place].get(mode="clip"), xs)


def _list_as_array(x: PyTree) -> PyTree:
    """Lists of numbers are arrays; lists of arrays are trees."""
    numbers = isinstance(x, (list, tuple)) and all(np.ndim(v) == 0 for v in jax.tree.leaves(x))
    return jnp.asarray(x) if numbers else x


def _increasing(ts: ArrayLike | Sequence, padded: bool) -> Array:
    """Times as an array, if that is what they are."""
    try:
        ts = jnp.asarray(ts)
    except (TypeError, ValueError) as error:
        raise TypeError(f"ts is {ts!r}; a sequence of times is wanted.") from error
    if ts.dtype == bool or jnp.iscomplexobj(ts) or ts.ndim != 1 or not ts.shape[0]:
        raise ValueError(
            f"ts has shape {ts.shape} and dtype {ts.dtype}; a sequence of times is wanted."
        )
    ts = ts if jnp.issubdtype(ts.dtype, jnp.floating) else ts.astype(float)
    if not isinstance(ts, Tracer):
        known = np.asarray(ts)[~np.isnan(ts)] if padded else np.asarray(ts)
        if not (np.diff(known) > 0).all() or np.isnan(known).any():
            raise ValueError("ts must increase" + ("" if padded else ", without NaN") + ".")
        if np.isnan(np.asarray(ts)[: len(known)]).any():
            raise ValueError("ts has NaN before a number; NaN is padding, at the end only.")
    return jnp.where(jnp.isnan(ts), jnp.inf, ts) if padded else ts

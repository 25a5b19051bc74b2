"""Inputs: functions of time from tables, which say where they jump."""

import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Real

from ..closures import Captured
from ..closures.reading import contents_of
from ..core.primitive import Tracer

__all__ = ["Input", "Table", "jumps_in"]

_FEW = 32


class Input(eqx.Module):
    """The base of all inputs: called with t, a time or an array of times."""

    def __call__(self, t: Any) -> Any:
        """The value at t."""
        t = jnp.asarray(t)
        return self.at(t) if t.ndim == 0 else jax.vmap(self)(t)

    def at(self, t: Real[Array, ""]) -> Any:
        """The value at one time."""
        raise NotImplementedError

    @property
    def jumps(self) -> Real[Array, " jumps"] | None:
        """The times at which it jumps (NaN: none); None if it never does."""
        return None


class Table(Input):
    """The base of inputs from values `xs`, a tree of arrays, at increasing times `ts`.

    Before the first and after the last of the times it stays as it is there.
    """

    ts: Any
    xs: Any

    def __init__(self, ts: Any, xs: Any, *, padded: bool = False) -> None:
        self.ts = _increasing(ts, padded)
        self.xs = jax.tree.map(jnp.asarray, _list_as_array(xs))
        for path, x in jax.tree.flatten_with_path(self.xs)[0]:
            if jnp.shape(x)[:1] != self.ts.shape:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"xs{where} has shape {jnp.shape(x)}; its first axis must be that of ts, "
                    f"{self.ts.shape[0]}."
                )

    def place(self, t: Real[Array, ""]) -> Int[Array, ""]:
        """The index of the last time that is not after t; 0 before the first."""
        return place_of(self.ts, t)


def place_of(ts: Real[Array, " n"], t: Real[Array, ""]) -> Int[Array, ""]:
    """The index of the last of increasing times that is not after t; 0 before the first."""
    ts, t = lax.stop_gradient((ts, t))
    count = ts.shape[0]
    if count <= _FEW:
        return jnp.maximum(jnp.sum(ts <= t, dtype=jnp.int32) - 1, 0)
    place = jnp.zeros((), jnp.int32)
    for power in reversed(range((count - 1).bit_length())):  # without a loop in the loop
        ahead = place + 2**power
        time = ts.at[ahead].get(mode="fill", fill_value=jnp.inf)
        place = jnp.where(time <= t, ahead, place)
    return place


def row(xs: Any, place: Int[Array, ""]) -> Any:
    """A row of a tree."""
    return jax.tree.map(lambda x: x.at[place].get(mode="clip"), xs)


def jumps_in(*roots: Any) -> list[Array]:
    """The times at which inputs jump that are found in `roots`: in trees, in the fields of objects,
    and in what functions close over.
    """
    found: dict[int, Input] = {id(x): x for x in _inputs(roots, set())}
    jumps = [x.jumps for x in found.values()]
    known = [jump for root in roots if isinstance(root, Captured) for jump in root.jumps]
    return [*known, *(jnp.asarray(x) for x in jumps if x is not None)]


def _inputs(x: Any, seen: set[int]) -> Iterator[Input]:
    if id(x) in seen:
        return
    seen.add(id(x))
    if isinstance(x, Input):
        yield x
        return
    for part in _parts(x):
        yield from _inputs(part, seen)


def _parts(x: Any) -> Iterable:
    """What an object holds: what a function closes over, fields (static ones, too), branches."""
    if isinstance(x, types.FunctionType):
        return contents_of(x)
    if isinstance(x, types.MethodType):
        return x.__self__, x.__func__
    if isinstance(x, functools.partial):
        return x.func, x.args, x.keywords
    if isinstance(x, dict):
        return x.values()  # whose keys need not be such as JAX can sort
    inside = lambda v: v is not x and _holds(v)  # noqa: E731
    leaf = jax.tree_util.all_leaves([x], is_leaf=inside)
    fields = ()
    if callable(x) and not isinstance(x, type) and (leaf or isinstance(x, eqx.Module)):
        fields = tuple(getattr(x, "__dict__", {}).values())
    if leaf:
        return fields
    return *fields, *jax.tree.leaves(x, is_leaf=inside)


def _holds(x: Any) -> bool:
    """Whether there may be more in it than its leaves."""
    return isinstance(x, (Input, dict, functools.partial)) or callable(x)


def _list_as_array(x: Any) -> Any:
    """Lists of numbers are arrays; lists of arrays are trees."""
    numbers = isinstance(x, (list, tuple)) and all(np.ndim(v) == 0 for v in jax.tree.leaves(x))
    return jnp.asarray(x) if numbers else x


def _increasing(ts: Any, padded: bool) -> Array:
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

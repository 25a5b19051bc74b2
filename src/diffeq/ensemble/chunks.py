"""Trajectories in chunks, each chunk with a loop of its own, on all cores.

`vmap` runs one loop for all trajectories until the last is done: every one of them waits for the
slowest, and their arrays travel through memory at each step. Here some dozens are stepped together,
a chunk: the batch axis is last, so that each component of a state is one short vector that stays in
the cache and is computed by vector instructions (`autodiff/batch_last.py`), in a loop that ends
when its own trajectories are done, and which XLA compiles to one native function. Chunks are even
where trajectories that take equally many steps are neighbours; `order_by_cost` makes them so.

XLA on a CPU runs independent loops of one program one after the other. Where numbers are known, the
program is therefore compiled for a share of the chunks, and each core runs one: from threads of the
host, which wait without Python's lock.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree, Real

__all__ = [
    "Costs",
    "Index",
    "available_cores",
    "cached",
    "compiled_program",
    "in_chunks",
    "on_cores",
    "order_by_cost",
    "through_chunks",
]

type Index = Int[Array | np.ndarray, " n"]
"""The numbers of trajectories; −1 stands for none."""

type Costs = Real[Array | np.ndarray, " n"]
"""The costs of trajectories, relative to each other: their first step sizes, or their attempts."""

_WORTH = 1.1  # the ratio of waiting times above which it is worth to move rows
_KEPT = 64  # compiled programs


def in_chunks(
    one: Callable[..., PyTree], rows: PyTree, index: Int[Array, " n"], chunk: int
) -> PyTree:
    """`one(rows[i], index[i])` for every i, `chunk` of them at a time, with a loop of their own.

    The last chunk is filled up with trajectories that are there already, and cut off again.

    >>> in_chunks(lambda x, i: x * i, jnp.arange(5.0), jnp.arange(5), 2)
    Array([ 0.,  1.,  4.,  9., 16.], dtype=float32)
    """
    _, out = through_chunks(
        lambda state, xs, _: (state, jax.vmap(one)(*xs)), 0, (rows, index), chunk
    )
    return out


def through_chunks(
    step: Callable[[PyTree, PyTree, Bool[Array, " chunk"]], tuple[PyTree, PyTree]],
    state: PyTree,
    xs: PyTree,
    chunk: int,
) -> tuple[PyTree, PyTree]:
    """Runs `state, out = step(state, xs of a chunk, flags of those that count)` for one chunk after
    another; returns the last state, and all outputs.
    """
    size = jax.tree.leaves(xs)[0].shape[0]
    count = -(-size // chunk)

    def cut(x: Array) -> Array:
        fill = jnp.broadcast_to(x[-1:], (count * chunk - size, *x.shape[1:]))
        return jnp.concatenate([x, fill]).reshape(count, chunk, *x.shape[1:])

    counts = (jnp.arange(count * chunk) < size).reshape(count, chunk)
    state, out = lax.scan(lambda s, x: step(s, *x), state, (jax.tree.map(cut, xs), counts))
    return state, jax.tree.map(lambda x: x.reshape(count * chunk, *x.shape[2:])[:size], out)


def order_by_cost(costs: Costs, chunk: int, xp: ModuleType = jnp) -> Index:
    """An order of the trajectories in which the costs within a chunk differ little; the given order
    if sorting gains little, as in a sweep, whose neighbours are alike.

    `xp`: NumPy where the costs are known, so that nothing is compiled.

    >>> order_by_cost(jnp.array([1.0, 9.0, 1.0, 9.0]), 2).tolist()
    [1, 3, 0, 2]
    >>> order_by_cost(jnp.array([1.0, 1.0, 9.0, 9.0]), 2).tolist()
    [0, 1, 2, 3]
    """
    costs = xp.where(xp.isfinite(costs), costs, 0)
    order = xp.argsort(-costs, stable=True)

    def waited(costs: Costs) -> Array:
        full = xp.concatenate([costs, xp.zeros(-costs.shape[0] % chunk, costs.dtype)])
        return xp.sum(xp.max(full.reshape(-1, chunk), axis=1))

    better = waited(costs) > _WORTH * waited(costs[order])
    return xp.where(better, order, xp.arange(costs.shape[0]))


def available_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_cores(
    run: Callable,
    rows: Sequence[Array | np.ndarray],
    index: Index,
    order: np.ndarray,
    chunk: int,
    shares: int,
) -> tuple[list, Callable]:
    """Calls `run(rows, index)` for a share of the chunks on each core. Returns the results of the
    cores, and a function that joins their arrays in the order of `rows` and `index`.

    Chunks are dealt out to the cores one by one in this order, so that every core gets expensive
    and cheap ones; missing trajectories in the last chunks have the index −1.
    """
    size = order.shape[0]
    length = -(-size // (chunk * shares)) * chunk
    filled = np.concatenate([order, np.full(length * shares - size, order[-1])])
    deal = lambda x: x.reshape(-1, shares, chunk).swapaxes(0, 1).reshape(shares, length)  # noqa: E731
    mine, there = deal(filled), deal(np.arange(length * shares) < size)
    known = [np.asarray(row) for row in rows]
    numbers = np.where(there, np.asarray(index)[mine], -1).astype(np.int32)
    parts = [([row[i] for row in known], number) for i, number in zip(mine, numbers, strict=True)]
    found = list(_pool().map(lambda part: jax.block_until_ready(run(*part)), parts))
    back = np.empty(size, np.intp)
    back[mine[there]] = np.flatnonzero(there)

    def together(*trees: PyTree) -> PyTree:
        return jax.device_put(jax.tree.map(lambda *xs: np.concatenate(xs)[back], *trees))

    return found, together


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="diffeq")


class CompiledProgram:
    """A function that is compiled, or being compiled; `out` are the shapes of its results."""

    def __init__(self, lowered: jax.stages.Lowered) -> None:
        self.out = lowered.out_info
        self._compiling = _pool().submit(lowered.compile)

    def __call__(self, *args: PyTree) -> PyTree:
        return self._compiling.result()(*args)


_programs: OrderedDict[Hashable, CompiledProgram] = OrderedDict()


def compiled_program(
    function: jax.stages.Wrapped, statics: tuple, *args: PyTree
) -> CompiledProgram:
    """A jitted function of (*statics, *args), compiled for such args (or their shapes).

    It is compiled in another thread while the caller goes on, and cached; a call does not depend on
    the settings of the thread that makes it.
    """
    leaves, tree = jax.tree.flatten(args)
    kinds = tuple(map(_aval_key, leaves))
    settings = (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision)  # pyright: ignore[reportAttributeAccessIssue]
    key = (function, statics, tree, kinds, settings)
    return cached(_programs, key, lambda: CompiledProgram(function.lower(*statics, *args)), _KEPT)


def cached[T](
    known: OrderedDict[Hashable, T], key: Hashable, make: Callable[[], T], most: int
) -> T:
    """The cached value of a key; computed by `make` if there is none. The `most` values that were
    used last are kept.

    >>> known = OrderedDict()
    >>> [cached(known, key, lambda: key.upper(), 2) for key in "abac"], list(known)
    (['A', 'B', 'A', 'C'], ['a', 'c'])
    """
    if key not in known:
        known[key] = make()
        if len(known) > most:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


def _aval_key(x: PyTree) -> tuple:
    """The shape and dtype for which a program is compiled; of a Python number, its type."""
    if not hasattr(x, "shape"):
        return type(x), getattr(x, "dtype", None)
    return x.shape, x.dtype, getattr(x, "weak_type", False)

"""`chunk="tuned"`: the fastest layout of an ensemble, found by timing each, and then cached.

The best layout depends on the number of numbers of a trajectory, on the similarity of neighbours,
and on the machine. To time a sample costs a compilation for each layout, which pays where one
ensemble is solved again and again.
"""

import itertools
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .chunks import cached
from .gpu_kernel import NoKernel
from .gpu_kernel.launch import Tuning
from .strategies import Ensemble

__all__ = ["tuned"]

_CHUNKS = (16, 32, 64, 128, 256)
_BLOCKS, _WARPS = (32, 64, 128), (1, 2, 4)
_SAMPLE = {"lanes": 8192, "kernel": 131_072}  # trajectories, enough for all cores of either
_TIMES = 3
_KEPT = 64  # layouts

_known: OrderedDict[Any, Any] = OrderedDict()


def tuned(ensemble: Ensemble) -> Ensemble:
    """The ensemble, whose strategy is chosen, in its fastest layout."""
    if ensemble.strategy not in _SAMPLE:
        return ensemble

    def fastest() -> int | Tuning:
        if ensemble.traced:
            raise TypeError(
                "chunk is 'tuned', and nothing can be measured inside jit, vmap or a derivative: "
                "solve the ensemble once outside, which is remembered, or give a number."
            )
        return min(_layouts(ensemble), key=lambda layout: _time_layout(ensemble, layout))

    return _laid_out(ensemble, cached(_known, _layout_key(ensemble), fastest, _KEPT))


def _layout_key(ensemble: Ensemble) -> tuple:
    """The cache key of a layout: ensembles of one key have the same fastest layout."""
    leaves, structure = ensemble.parts
    shapes = tuple((jnp.shape(x), jnp.result_type(x)) for x in (*leaves, *ensemble.inputs.rows))
    return ensemble.plan, structure, ensemble.strategy, shapes


def _layouts(ensemble: Ensemble) -> list:
    """The layouts to try: chunks; or blocks with fewer threads than lanes, or with the default
    number of threads.
    """
    if ensemble.plan.kernel is None:
        return list(_CHUNKS)
    pairs = itertools.product(_BLOCKS, _WARPS)
    return [
        replace(ensemble.plan.kernel, block=block, warps=warps if warps * 32 < block else None)
        for block, warps in pairs
        if warps * 32 <= block
    ]


def _laid_out(ensemble: Ensemble, layout: int | Tuning) -> Ensemble:
    """The ensemble in a layout."""
    new = {"kernel": layout} if isinstance(layout, Tuning) else {"chunk": layout}
    return replace(ensemble, plan=replace(ensemble.plan, **new))


def _time_layout(ensemble: Ensemble, layout: int | Tuning) -> float:
    """The time in seconds of a sample in a layout, once it is compiled; infinity if it has no
    kernel.
    """
    size = ensemble.inputs.size
    count = min(size, _SAMPLE[ensemble.strategy])
    sample = np.linspace(0, size - 1, count).astype(np.int32)
    candidate = _laid_out(ensemble, layout)
    try:
        jax.block_until_ready(candidate.part(sample))
    except NoKernel:
        return float("inf")
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        jax.block_until_ready(candidate.part(sample))
        seconds.append(time.perf_counter() - start)
    return min(seconds)

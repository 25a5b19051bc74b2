"""Arrays of which other processes hold parts (`jax.distributed`): what of them is here.

A process that asked for the rest would wait until all others ask, too. So what is said of a
solution on the host is said of the part that this process has.
"""

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

__all__ = ["here", "row_places"]


def here(x: ArrayLike) -> np.ndarray:
    """The numbers that this process has of an array; of one with parts elsewhere, whole rows.

    >>> here(jax.numpy.arange(3)).tolist()
    [0, 1, 2]
    """
    shards = _shards(x)
    if shards is None:
        return np.asarray(x)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def row_places(x: Array | np.ndarray) -> np.ndarray:
    """The places of these rows in the array; None of a number alone.

    >>> row_places(jax.numpy.zeros((3, 2))).tolist()
    [0, 1, 2]
    """
    shards = _shards(x)
    if shards is None:
        return np.arange(len(x))
    ranges = [np.arange(*shard.index[0].indices(x.shape[0])) for shard in shards]
    return np.concatenate(ranges)


def _shards(x: ArrayLike) -> list | None:
    """Of an array with parts elsewhere: the different ones that are here, as they follow."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return None
    first = {shard.index[0].indices(x.shape[0])[0]: shard for shard in x.addressable_shards}
    return [first[start] for start in sorted(first)]

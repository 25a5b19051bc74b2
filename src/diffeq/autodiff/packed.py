"""`pack` and `unpack`: arrays in one vector for each dtype.

What a loop carries is a buffer for each array, which something has to fill before it starts. XLA on
a CPU evaluates up to eight tasks that are ready in the thread that it has, and wakes others for
more.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["pack", "unpack"]


def pack(arrays: Sequence) -> list[Array]:
    """The numbers of all arrays, those of each dtype in a vector. Constants among them are numbers
    of Python or NumPy, as JAX evaluates the literals of a jaxpr.

    >>> [x.tolist() for x in pack([jnp.ones(2), jnp.array(3), np.float32(0.0)])]
    [[1.0, 1.0, 0.0], [3]]
    """
    arrays = [jnp.asarray(x) for x in arrays]
    return [
        jnp.concatenate([arrays[i].ravel() for i in numbers]) for numbers in _of_each_dtype(arrays)
    ]


def unpack(vectors: Sequence[Array], like: Sequence) -> list[Array]:
    """The arrays that were packed, of the shapes and dtypes of `like`.

    >>> arrays = [jnp.ones(2), jnp.array(3), jnp.zeros(())]
    >>> [x.tolist() for x in unpack(pack(arrays), arrays)]
    [[1.0, 1.0], 3, 0.0]
    """
    found: dict[int, Array] = {}
    for vector, numbers in zip(vectors, _of_each_dtype(like), strict=True):
        start = 0
        for i in numbers:
            stop = start + int(np.prod(like[i].shape, dtype=int))
            found[i], start = vector[start:stop].reshape(like[i].shape), stop
    return [found[i] for i in range(len(like))]


def _of_each_dtype(arrays: Sequence) -> list[list[int]]:
    """The numbers of the arrays of each dtype."""
    found: dict[np.dtype, list[int]] = {}
    for i, x in enumerate(arrays):
        found.setdefault(x.dtype, []).append(i)
    return list(found.values())

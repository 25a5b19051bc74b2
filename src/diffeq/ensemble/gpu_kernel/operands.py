"""Operands of the rules: arrays of entries (`scalar_values.py`), and arrays in memory."""

from collections.abc import Sequence
from typing import TypeGuard

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .scalar_values import KeyWords, NoKernel, Number

__all__ = [
    "Operand",
    "Operands",
    "Stored",
    "all_entries",
    "entry_dtype",
    "entry_of",
    "has_lanes",
    "is_known",
]

MOST_LOADED = 4096  # the most numbers of an array in memory that is loaded whole


class Stored:
    """An array in memory, of a shape and a dtype. `anywhere` is True if each thread may read all of
    it; of a written array, a thread reads only entries that it wrote itself.
    """

    varies, anywhere = True, False

    def __init__(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.shape, self.dtype = tuple(shape), jnp.dtype(dtype)
        self.size = int(np.prod(self.shape))

    def read(self, place: Number) -> Number:
        """The entry at a place (itself an entry) of the flat array."""
        raise NotImplementedError

    def reshaped(self, shape: Sequence[int]) -> "Stored":
        """The memory with another shape."""
        raise NotImplementedError


type Operand = np.ndarray | Stored
"""An input or output of a rule: an array of entries, or an array in memory."""

type Operands = Sequence[Operand]


def is_known(x: Operand) -> TypeGuard[np.ndarray]:
    """True if all of an array is known while tracing."""
    return isinstance(x, np.ndarray) and x.dtype != object


def has_lanes(x: Operand) -> bool:
    """True if some entry of an array differs from lane to lane."""
    if isinstance(x, Stored):
        return x.varies
    return not is_known(x) and any(
        np.ndim(word)
        for entry in x.flat
        for word in (entry if isinstance(entry, KeyWords) else (entry,))
    )


def entry_dtype(x: Operand) -> np.dtype:
    """The dtype of the entries of an array, which has some."""
    return x.dtype if isinstance(x, Stored) or is_known(x) else x.flat[0].dtype


def entry_of(x: Operand) -> Number:
    """The entry of an array without axes."""
    return all_entries(x).flat[0]


def all_entries(x: Operand) -> np.ndarray:
    """All entries of an array that may be in memory."""
    if isinstance(x, np.ndarray):
        return x
    if x.size > MOST_LOADED:
        raise NoKernel(
            f"an array of {x.size} numbers is wanted whole, and {MOST_LOADED} are the most"
        )
    out = np.empty(x.size, object)
    for k in range(x.size):
        out[k] = x.read(np.int32(k))
    return out.reshape(x.shape)

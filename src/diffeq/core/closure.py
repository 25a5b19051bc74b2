"""`Closure`: anything that a user wrote, as a pytree whose leaves are the JAX arrays in it.

A program that takes a closure as an argument is found again for another one that is equal but for
the values of its arrays: for a fresh lambda of the same code, or `optax.adam(0.1)` made anew.
"""

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from .lift import flatten, unflatten

__all__ = ["Closure", "Constants"]


class Constants:
    """Static values, equal by value, arrays by their bytes. None stands for what is no constant."""

    def __init__(self, structure: Hashable, leaves: list) -> None:
        self.structure, self.leaves = structure, leaves
        self._key = (structure, tuple(_content(x) for x in leaves))
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Constants) and other._key == self._key)

    def __repr__(self) -> str:
        return f"Constants({len(self.leaves)})"


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["constants"])
@dataclass(frozen=True)
class Closure:
    """Functions with what they close over, objects, trees: the JAX arrays in them, and the rest.

    The rest (code, names, Python numbers, NumPy arrays, objects) is static and compared by value.

    >>> scale = jax.numpy.asarray(2.0)
    >>> closure = Closure.of(lambda x: scale * x)
    >>> jax.tree.map(lambda s: s + 1, closure).value(5.0).tolist()
    15.0
    """

    arrays: list
    constants: Constants

    @classmethod
    def of(cls, value: Any) -> "Closure":
        """`value` with its JAX arrays as leaves."""
        leaves, structure = _flattened(value)
        dynamic = [isinstance(x, jax.Array) for x in leaves]
        rest = [None if d else x for x, d in zip(leaves, dynamic, strict=True)]
        return cls(
            [x for x, d in zip(leaves, dynamic, strict=True) if d], Constants(structure, rest)
        )

    @classmethod
    def constant(cls, value: Any) -> "Closure":
        """`value` without leaves: its JAX arrays, which nothing can change, are compared by
        identity. So their numbers are known while a program is traced.
        """
        leaves, structure = _flattened(value)
        return cls([], Constants(structure, leaves))

    @property
    def value(self) -> Any:
        """What it was made of, with the arrays that it has now."""
        rest = iter(self.arrays)
        leaves = [next(rest) if x is None else x for x in self.constants.leaves]
        structure = self.constants.structure
        return structure.value if isinstance(structure, _Once) else unflatten(structure, leaves)


def _flattened(value: Any) -> tuple[list, Hashable]:
    """`flatten(value)`; what it cannot take apart is whole, and equal to nothing else.

    Here to compile once more is no news, so its notice of what is compared by identity is left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return flatten(value)
        except Exception:
            return [], _Once(value)


class _Once:
    """A value that no other is equal to."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _content(x: Any) -> Hashable:
    """What two leaves have to share to be the same constant."""
    if isinstance(x, jax.Array):
        return _Identity(x)
    if isinstance(x, (np.ndarray, np.generic, float, complex)):
        array = np.asarray(x)  # by its bytes: 0.0 == -0.0, and NaN is not NaN
        return type(x), array.shape, array.dtype.str, array.tobytes()
    return type(x), x


class _Identity:
    """An object that is equal to itself alone; it keeps it alive, so that no other has its id."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

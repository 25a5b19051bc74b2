"""`flatten`: anything a user writes, as its arrays and numbers and a hashable structure.

In data (args, y0, tolerances) every array and every number is a leaf. Functions and other objects
are part of the structure: compared by what a trace would read of them, where that is certain, and
else by identity.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .reading import attributes_of, reading_key

__all__ = [
    "Static",
    "code_of",
    "flatten",
    "flatten_fields",
    "is_numeric",
    "unflatten",
    "unflatten_fields",
]


def flatten(x: PyTree, *, functions: bool = False) -> tuple[list, Hashable]:
    """The arrays and numbers of `x`, and a hashable structure that `unflatten` needs. In what are
    `functions` (a network, a partial) arrays of JAX alone are leaves: their numbers are lengths and
    switches.

    >>> leaves, structure = flatten({"rate": 2.0, "name": "decay"})
    >>> leaves, unflatten(structure, [3.0])
    ([2.0], {'name': 'decay', 'rate': 3.0})
    """
    is_leaf = _is_jax_array if functions else is_numeric
    leaves, tree = jax.tree.flatten(x)
    rest = tuple(None if is_leaf(leaf) else Static(leaf) for leaf in leaves)
    return [leaf for leaf in leaves if is_leaf(leaf)], (tree, rest)


def flatten_fields(
    x: object, names: Sequence[str], functions: Sequence[str]
) -> tuple[list, Hashable]:
    """The fields of an object as `flatten` takes them, of which some are `functions`."""
    own = [name for name in names if name in functions]
    data, structure = flatten({name: getattr(x, name) for name in names if name not in own})
    arrays, programs = flatten({name: getattr(x, name) for name in own}, functions=True)
    return [*data, *arrays], (len(data), structure, programs)


def unflatten_fields(structure: Hashable, leaves: Sequence) -> dict[str, PyTree]:
    """The fields again."""
    assert isinstance(structure, tuple)
    count, data, programs = structure
    return unflatten(data, leaves[:count]) | unflatten(programs, leaves[count:])


def unflatten(structure: Hashable, leaves: Sequence) -> PyTree:
    """The inverse of `flatten`, with other leaves of the same kinds."""
    assert isinstance(structure, tuple)
    tree, rest = structure
    found = iter(leaves)
    return jax.tree.unflatten(tree, [next(found) if s is None else s.value for s in rest])


def _is_jax_array(x: PyTree) -> bool:
    return isinstance(x, (jax.Array, jax.ShapeDtypeStruct))


def is_numeric(x: PyTree) -> bool:
    """True if x is an array or a number, or stands for one by its shape and dtype."""
    numbers = (jax.Array, np.ndarray, np.generic, float, int, complex, jax.ShapeDtypeStruct)
    return isinstance(x, numbers) and getattr(x, "dtype", None) != np.dtype(object)


class Static:
    """A value that is part of a program: equal to what a trace could not tell from it. It is read
    when it is made, so that a change of the value is another one.
    """

    def __init__(self, value: Any) -> None:
        self.value, self.key = value, reading_key(value)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.key == other.key

    def __repr__(self) -> str:
        return f"Static({self.value!r})"


def code_of(*objects: object) -> Static:
    """The code that solver objects bring along: their classes, and the functions that they hold.

    A method or a controller that a user wrote is traced like a field, and a change of what it reads
    is another program.
    """
    return Static(tuple(part for x in objects for part in _code_in(x)))


def _code_in(x: object) -> Iterator[object]:
    if isinstance(x, eqx.Module):
        yield type(x)
        for _, value in attributes_of(x):
            yield from _code_in(value)
    elif isinstance(x, (tuple, list)):
        for value in x:
            yield from _code_in(value)
    elif callable(x):
        yield x

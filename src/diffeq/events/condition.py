"""A user's condition as numbers that change sign where it happens, and as booleans."""

from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..autodiff.comparison import compared
from ..autodiff.jax_internals import input_types, output_types
from ..problems.lowering import Traced

__all__ = ["Condition"]


class Condition:
    """A condition, traced: k numbers (a lone one is a vector of one) that cross zero upwards or
    downwards, as `direction` says.

    `level`: it was a boolean, which happens when it becomes true. Where that ends in comparisons
    a ⋚ b its numbers are a − b, positive where it is true; else they are ±1, it is not `smooth`,
    and the time at which it happens has no derivative.
    """

    def __init__(
        self,
        f: Callable,
        name: str,
        t: jax.ShapeDtypeStruct,
        tree: PyTree,
        leaves: list,
        structure: Hashable,
        direction: int | tuple[int, ...] = 0,
        *,
        boolean: bool = False,
    ) -> None:
        check = _truth if boolean else _number_or_truth
        traced = Traced(f, name, "t, y, args", t, (tree,), leaves, structure, fits=check)
        aval = output_types(traced.equations)[0]
        self.traced, self.vector = traced, aval.ndim == 1
        self.count = aval.shape[0] if self.vector else 1
        self.level = np.full(self.count, aval.dtype == bool)
        how = compared(traced.equations) if aval.dtype == bool else None
        if how is not None and how[0] == "equality" and not boolean:
            raise TypeError(
                f"{name} ends in a == b, which is true at single points: no step would end on one. "
                "Return a - b, which changes sign there."
            )
        self.difference = how[1] if how is not None else None
        self.smooth = aval.dtype != bool or how is not None
        self.direction = _directions(name, direction, self.count, aval.dtype == bool)

    def truths(self, hoisted: list, leaves: list, t: Array, tree: PyTree) -> Array:
        """Evaluates whether the condition is true: (k,)."""
        value = jnp.asarray(self.traced.at(leaves, hoisted, t, tree))
        return jnp.atleast_1d(value if value.dtype == bool else value > 0)

    def numbers(self, hoisted: list, leaves: list, t: Array, tree: PyTree) -> Array:
        """Evaluates the numbers that cross zero: (k,)."""
        if self.difference is not None:
            flat = [t, *jax.tree.leaves(tree), *leaves]
            avals = input_types(self.traced.equations)
            flat = [jnp.asarray(x, a.dtype) for x, a in zip(flat, avals, strict=True)]
            return jnp.atleast_1d(self.difference(hoisted, *flat))
        value = jnp.asarray(self.traced.at(leaves, hoisted, t, tree))
        return jnp.atleast_1d(jnp.where(value, 1.0, -1.0) if value.dtype == bool else value)


def _number_or_truth(name: str, value: PyTree, parts: tuple) -> Array:
    del parts
    if isinstance(value, (list, tuple)) and value and all(jnp.shape(x) == () for x in value):
        value = jnp.stack([jnp.asarray(x) for x in value])
    leaves = jax.tree.leaves(value)
    one = len(leaves) == 1 and jax.tree_util.all_leaves([value])
    if not one or len(np.shape(value)) > 1 or np.shape(value) == (0,):
        shapes = jax.tree.map(jnp.shape, value) if leaves else value
        raise TypeError(
            f"{name} returned {shapes if leaves else repr(value)}; one number is wanted, or a "
            "boolean, or a vector (k,) of either."
        )
    if isinstance(leaves[0], str):
        raise TypeError(
            f"{name} returned the string {leaves[0]!r}; a real number that changes sign at the "
            "event is wanted, or a boolean."
        )
    dtype = jnp.result_type(value)
    if not (jnp.issubdtype(dtype, jnp.bool) or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(
            f"{name} returned dtype {dtype}; a real number that changes sign at the event is "
            "wanted, or a boolean."
        )
    return jnp.asarray(value)


def _truth(name: str, value: PyTree, parts: tuple) -> Array:
    value = _number_or_truth(name, value, parts)
    if value.dtype != bool:
        raise TypeError(f"{name} returned dtype {value.dtype}; booleans are wanted: a > b.")
    return value


def _directions(name: str, direction: int | tuple[int, ...], count: int, level: bool) -> np.ndarray:
    if isinstance(direction, tuple) and len(direction) != count:
        raise ValueError(
            f"direction has {len(direction)} entries; {name} returns {count}: one number, or one "
            "for each, is wanted."
        )
    directions = np.broadcast_to(np.asarray(direction, np.int32), (count,))
    return np.where(directions == 0, np.int32(1), directions) if level else directions

"""A state as one array: a single array stays as it is, a tree of several becomes a vector."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

__all__ = ["Held", "Packing", "as_state", "hold", "moving", "released"]


def as_state(y: Any) -> Any:
    """A list or tuple of bare numbers is an array; every other tree is kept.

    >>> as_state([1.0, 2])
    Array([1., 2.], dtype=float32)
    >>> as_state({"x": [1.0, 2.0]})["x"]
    [1.0, 2.0]
    """
    if isinstance(y, (list, tuple)) and type(y) in (list, tuple) and y and all(map(_is_scalar, y)):
        return jnp.stack([jnp.asarray(v) for v in y]) if any(map(_is_array, y)) else jnp.asarray(y)
    return y


def _is_scalar(v: Any) -> bool:
    return isinstance(v, (int, float, complex, np.generic)) or (_is_array(v) and v.ndim == 0)


def _is_array(v: Any) -> bool:
    return isinstance(v, (jax.Array, np.ndarray))


class Held:
    """A leaf of a state that only events change; `hold` makes it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"hold({self.value!r})"


jax.tree_util.register_pytree_node(Held, lambda x: ((x.value,), None), lambda _, xs: Held(*xs))


def hold(x: Any) -> Any:
    """Marks a leaf of y0 that stays as it is between events: a control, a mode, a count.

    Functions see it as a part of y like any other, and events change it. It is no part of what is
    solved: it is in no stage, error norm or Newton matrix, so it may be of any dtype, and its rate
    in what f returns may be None, anything, or (of a dictionary) left out.

    Args:
        x: an array or a number of any kind; or a tree, all of whose leaves are held.

    Raises:
        TypeError: (by `solve`) an affect changes its shape or dtype; nothing else is in y0.

    Example:
        Heating that a thermostat switches:

        >>> import diffeq as de
        >>> room = lambda t, y, a: {"T": 5.0 * y["on"] - 0.1 * y["T"]}
        >>> switch = lambda on: lambda t, y, a: {**y, "on": on}
        >>> cold = de.Event(lambda t, y, a: y["T"] - 18, switch(True), direction=-1)
        >>> warm = de.Event(lambda t, y, a: y["T"] - 22, switch(False), direction=1)
        >>> y0 = {"T": 15.0, "on": de.hold(True)}
        >>> sol = de.solve(de.ODEProblem(room, y0, (0.0, 8.0)), events=(cold, warm))
        >>> sol.events[0].num, sol.events[1].num, bool(sol.y1["on"])
        (Array(3, dtype=int32), Array(3, dtype=int32), True)
    """
    held = lambda leaf: isinstance(leaf, Held)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf if held(leaf) else Held(leaf), x, is_leaf=held)


def _is_held(x: Any) -> bool:
    return isinstance(x, Held)


def released(tree: Any) -> Any:
    """The tree with plain values where leaves are held.

    >>> released({"x": 1.0, "u": hold(2.0)})
    {'x': 1.0, 'u': 2.0}
    """
    return jax.tree.map(lambda x: x.value if _is_held(x) else x, tree, is_leaf=_is_held)


def moving(tree: Any) -> Any:
    """The tree with None where leaves are held: what has a rate.

    >>> moving({"x": 1.0, "u": hold(2.0)})
    {'x': 1.0, 'u': None}
    """
    return jax.tree.map(lambda x: None if _is_held(x) else x, tree, is_leaf=_is_held)


class Packing:
    """How a tree of arrays lies in one array, beside a list of those that are held.

    >>> packing = Packing((jnp.zeros(2), jnp.zeros(())))
    >>> packing.pack((jnp.array([1.0, 2.0]), jnp.array(3.0)))
    Array([1., 2., 3.], dtype=float32)

    Beside complex leaves a real one is a complex part of the array, and real again in the tree.
    """

    def __init__(self, tree: Any, dtype: Any = None) -> None:
        marked = jax.tree.leaves(tree, is_leaf=_is_held)
        self.held = [_is_held(leaf) for leaf in marked]
        self.tree = jax.tree.structure(released(tree))
        self.rates = jax.tree.structure(moving(tree))
        leaves = [leaf for leaf in marked if not _is_held(leaf)]
        self.shapes = [jnp.shape(leaf) for leaf in leaves]
        self.all_shapes = [jnp.shape(x) for x in jax.tree.leaves(tree)]
        self.dtype = jnp.result_type(*leaves or [float]) if dtype is None else dtype
        self.real = [not jnp.iscomplexobj(leaf) for leaf in leaves]
        self.single = len(leaves) == 1
        self.cuts = np.cumsum([math.prod(s) for s in self.shapes])[:-1].tolist()
        self.kept: tuple = ()  # what is held, where it is in place (`beside`)

    def _key(self) -> tuple:
        shapes = (tuple(self.shapes), tuple(self.all_shapes))
        return self.tree, self.rates, shapes, self.dtype, tuple(self.real)

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packing) and other._key() == self._key()

    @property
    def holds(self) -> bool:
        """Whether any leaf is held."""
        return any(self.held)

    def pack(self, tree: Any) -> Array:
        """The tree (of all leaves, or of those that are not held) as one array."""
        leaves = jax.tree.leaves(tree)
        if self.holds and len(leaves) == len(self.held):
            leaves = [x for x, held in zip(leaves, self.held, strict=True) if not held]
        if self.single:
            return jnp.asarray(leaves[0], self.dtype)
        return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, self.dtype)) for leaf in leaves])

    def held_of(self, tree: Any) -> tuple:
        """The leaves that are held."""
        each = zip(jax.tree.leaves(tree), self.held, strict=True)
        return tuple(jnp.asarray(x) for x, held in each if held)

    def unpack(self, array: Array, held: Any = ()) -> Any:
        """The array, and what is held, as the tree; leading axes (time) stay in front."""
        if self.single:
            leaves = [_as_real(array) if self.real[0] else array]
        else:
            parts = jnp.split(array, self.cuts, axis=-1)
            lead = array.shape[:-1]
            leaves = [p.reshape(*lead, *s) for p, s in zip(parts, self.shapes, strict=True)]
            each = zip(leaves, self.real, strict=True)
            leaves = [_as_real(x) if real else x for x, real in each]
        if not self.holds:
            return jax.tree.unflatten(self.tree, leaves)
        own, kept = iter(leaves), iter(held)
        return jax.tree.unflatten(self.tree, [next(kept if h else own) for h in self.held])

    def marked(self, array: Array, held: Any = ()) -> Any:
        """The tree with marks where leaves are held."""
        return self.unpack(array, [Held(x) for x in held])

    def rates_of(self, array: Array) -> Any:
        """The array as the tree, with None where leaves are held."""
        held = [None] * sum(self.held)
        return self.unpack(array, held)

    def beside(self, held: Any) -> Any:
        """The same with what is held in place, so that `unpack` wants the array alone."""
        return _Beside(self, held) if self.holds else self


class _Beside:
    """A packing with what is held in place."""

    def __init__(self, packing: Packing, held: Any) -> None:
        self.packing, self.kept = packing, held
        self.pack, self.shapes, self.dtype = packing.pack, packing.shapes, packing.dtype

    def unpack(self, array: Array) -> Any:
        return self.packing.unpack(array, self.kept)

    def marked(self, array: Array) -> Any:
        return self.packing.marked(array, self.kept)


def _as_real(x: Array) -> Array:
    return lax.real(x) if jnp.iscomplexobj(x) else x

"""A state as one array: a single array stays as it is, a tree of several becomes a vector."""

import copy
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

__all__ = [
    "Held",
    "Packing",
    "TreeDef",
    "Treelike",
    "as_state",
    "hold",
    "holds",
    "moving_leaves",
    "released",
    "without_held",
]

type TreeDef = jax.tree_util.PyTreeDef  # pyright: ignore[reportInvalidTypeForm] - of a C module
"""The structure of a tree, without its leaves."""


def as_state(y: PyTree) -> PyTree:
    """A list or tuple of bare numbers is an array; every other tree is kept.

    >>> as_state([1.0, 2])
    Array([1., 2.], dtype=float32)
    >>> as_state({"x": [1.0, 2.0]})["x"]
    [1.0, 2.0]
    """
    if isinstance(y, (list, tuple)) and type(y) in (list, tuple) and y and all(map(_is_scalar, y)):
        return jnp.stack([jnp.asarray(v) for v in y]) if any(map(_is_array, y)) else jnp.asarray(y)
    return y


def _is_scalar(v: PyTree) -> bool:
    return isinstance(v, (int, float, complex, np.generic)) or (_is_array(v) and v.ndim == 0)


def _is_array(v: PyTree) -> bool:
    return isinstance(v, (jax.Array, np.ndarray))


class Held:
    """A leaf of a state that only events change; `hold` makes it."""

    def __init__(self, value: PyTree) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"hold({self.value!r})"


jax.tree_util.register_pytree_node(Held, lambda x: ((x.value,), None), lambda _, xs: Held(*xs))


def hold(x: PyTree) -> PyTree:
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
        (Array(2, dtype=int32), Array(2, dtype=int32), True)
    """
    held = lambda leaf: isinstance(leaf, Held)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf if held(leaf) else Held(leaf), x, is_leaf=held)


def _is_held(x: PyTree) -> bool:
    return isinstance(x, Held)


def holds(tree: PyTree) -> bool:
    """True if any leaf is held."""
    return any(map(_is_held, jax.tree.leaves(tree, is_leaf=_is_held)))


def released(tree: PyTree) -> PyTree:
    """The tree with plain values where leaves are held.

    >>> released({"x": 1.0, "u": hold(2.0)})
    {'u': 2.0, 'x': 1.0}
    """
    return jax.tree.map(lambda x: x.value if _is_held(x) else x, tree, is_leaf=_is_held)


def moving_leaves(tree: PyTree) -> PyTree:
    """The tree with None where leaves are held: what has a rate.

    >>> moving_leaves({"x": 1.0, "u": hold(2.0)})
    {'u': None, 'x': 1.0}
    """
    return jax.tree.map(lambda x: None if _is_held(x) else x, tree, is_leaf=_is_held)


def without_held(value: PyTree, like: PyTree) -> PyTree:
    """The value with None where `like` is held; dictionaries may leave such keys out."""
    if not jax.tree.leaves(moving_leaves(like)):
        return moving_leaves(like)
    if isinstance(like, dict) and isinstance(value, dict) and not value.keys() - like.keys():
        found = {
            k: without_held(value.get(k), x)
            for k, x in like.items()
            if k in value or not jax.tree.leaves(moving_leaves(x))
        }
        return type(value)(found) if type(value) is dict else found
    if isinstance(like, (tuple, list)) and isinstance(value, (tuple, list)):
        if len(value) == len(like):
            parts = [without_held(v, x) for v, x in zip(value, like, strict=True)]
            return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
        return value
    return as_state(value)


class Treelike:
    """Has a tree structure `tree`, which is pickled as a tree: structures lose the identity of what
    their nodes hold.
    """

    tree: Any

    def __getstate__(self) -> dict:
        tree = self.tree
        if tree is not None:
            tree = jax.tree.unflatten(tree, range(tree.num_leaves))
        return {**self.__dict__, "tree": tree}

    def __setstate__(self, state: dict) -> None:
        tree = state["tree"]
        tree = None if tree is None else jax.tree.structure(tree)
        self.__dict__.update(state, tree=tree)


class Packing(Treelike):
    """The layout of a tree of arrays in one array, and a list of the leaves that are held.

    >>> packing = Packing((jnp.zeros(2), jnp.zeros(())))
    >>> packing.pack((jnp.array([1.0, 2.0]), jnp.array(3.0)))
    Array([1., 2., 3.], dtype=float32)

    Among complex leaves a real one is a complex part of the array, and real again in the tree.

    `real`: a complex array is packed as its real view, real parts before imaginary ones on a new
    first axis. Implicit methods see a state like that, for a field need not be complex
    differentiable.

    >>> Packing(jnp.array([1 + 2j, 3.0]), real=True).pack(jnp.array([1 + 2j, 3.0]))
    Array([[1., 3.],
           [2., 0.]], dtype=float32)
    """

    def __init__(self, tree: PyTree, dtype: DTypeLike | None = None, *, real: bool = False) -> None:
        marked = jax.tree.leaves(tree, is_leaf=_is_held)
        self.held = [_is_held(leaf) for leaf in marked]
        self.tree = jax.tree.structure(released(tree))
        leaves = [leaf for leaf in marked if not _is_held(leaf)]
        self.shapes = [jnp.shape(leaf) for leaf in leaves]
        self.all_shapes = [jnp.shape(x) for x in jax.tree.leaves(tree)]
        self.dtype = jnp.result_type(*leaves or [float]) if dtype is None else dtype
        self.real = [not jnp.iscomplexobj(leaf) for leaf in leaves]
        self.single = len(leaves) == 1
        self.cuts = np.cumsum([math.prod(s) for s in self.shapes])[:-1].tolist()
        self.viewed = real and jnp.issubdtype(self.dtype, jnp.complexfloating)
        self.kept: tuple = ()  # what is held, where it is in place (`with_held`)
        self.shown: Any = None  # the key of what is shown, if that is a part of it (`with_view`)

    @property
    def rates(self) -> PyTree:
        """The structure of what has a rate: None where leaves are held."""
        return jax.tree.structure(moving_leaves(self.marks))

    def names(self, root: str) -> list[str]:
        """The names that a user has for the numbers of the packed state, where the tree is called
        `root`.

        >>> Packing({"q": jnp.zeros(2), "w": jnp.zeros(())}).names("y")
        ["y['q'][0]", "y['q'][1]", "y['w']"]
        """
        marks = jax.tree.unflatten(self.tree, range(self.tree.num_leaves))
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.flatten_with_path(marks)[0]]
        own = [path for path, held in zip(paths, self.held, strict=True) if not held]
        names = []
        for path, shape in zip(own, self.shapes, strict=True):
            places = [f"[{', '.join(map(str, i))}]" if i else "" for i in np.ndindex(*shape)]
            names += [root + path + place for place in places]
        return names + [f"the imaginary part of {n}" for n in names] if self.viewed else names

    @property
    def size(self) -> int:
        """The number of numbers to solve for, real or complex."""
        return sum(map(math.prod, self.shapes))

    def _key(self) -> tuple:
        shapes = (tuple(self.shapes), tuple(self.all_shapes))
        seen = (self.viewed, self.shown)
        return self.tree, tuple(self.held), shapes, self.dtype, tuple(self.real), *seen

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packing) and other._key() == self._key()

    @property
    def marks(self) -> PyTree:
        """The tree with marks where leaves are held, and numbers elsewhere."""
        return jax.tree.unflatten(self.tree, [Held(0.0) if h else 0.0 for h in self.held])

    @property
    def holds(self) -> bool:
        """True if any leaf is held."""
        return any(self.held)

    def pack(self, tree: PyTree) -> Array:
        """The tree (of all leaves, or of those that are not held) as one array of the common dtype,
        or its real view.
        """
        leaves = jax.tree.leaves(tree)
        if self.holds and len(leaves) == len(self.held):
            leaves = [x for x, held in zip(leaves, self.held, strict=True) if not held]
        array = self._joined(leaves)
        return jnp.stack([array.real, array.imag]) if self.viewed else array

    def _joined(self, leaves: list) -> Array:
        if self.single:
            return jnp.asarray(leaves[0], self.dtype)
        return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, self.dtype)) for leaf in leaves])

    def matrix(self, rows: PyTree) -> Array:
        """A tree of trees, as `jax.jacfwd` makes one, as a matrix over the ravelled array.

        >>> f = lambda y: {"x": y["x"] ** 2, "v": y["v"] * y["x"][0]}
        >>> y = {"x": jnp.array([1.0, 2.0]), "v": jnp.array(3.0)}
        >>> Packing(y).matrix(jax.jacfwd(f)(y))  # "v" before "x"
        Array([[1., 3., 0.],
               [0., 2., 0.],
               [0., 0., 4.]], dtype=float32)
        """
        sizes = [math.prod(s) for s in self.shapes]
        blocks = [jnp.asarray(x, self.dtype) for x in jax.tree.leaves(rows)]
        if self.single:
            return self.matrix_view(jnp.concatenate([b.ravel() for b in blocks]).reshape(sizes * 2))
        found = iter(blocks)
        return self.matrix_view(
            jnp.block([[next(found).reshape(m, n) for n in sizes] for m in sizes])
        )

    @property
    def real_mask(self) -> np.ndarray:
        """True for the numbers of a real view that there are: a real leaf has no imaginary part."""
        sizes = [math.prod(s) for s in self.shapes]
        parts = [np.full(n, not r) for r, n in zip(self.real, sizes, strict=True)]
        return np.concatenate([np.ones(self.size, bool), *parts])

    def matrix_view(self, matrix: Array) -> Array:
        """A matrix over the numbers of a state, over their real view where that is what is packed.

        A real leaf has no imaginary part: neither does it depend on one.
        """
        if not self.viewed:
            return matrix
        re, im = matrix.real, matrix.imag
        return jnp.block([[re, -im], [im, re]]) * (self.real_mask[:, None] & self.real_mask)

    def held_of(self, tree: PyTree) -> tuple:
        """The leaves that are held."""
        each = zip(jax.tree.leaves(tree), self.held, strict=True)
        return tuple(jnp.asarray(x) for x, held in each if held)

    def unpack(self, array: Array, held: PyTree = ()) -> PyTree:
        """The array, and what is held, as the tree; leading axes (time) stay in front."""
        if self.viewed:
            depth = len(self.shapes[0]) if self.single else 1
            re, im = (jnp.take(array, i, axis=-1 - depth) for i in (0, 1))
            array = lax.complex(re, im)
        if self.single:
            leaves = [_real_part(array) if self.real[0] else array]
        else:
            parts = jnp.split(array, self.cuts, axis=-1)
            lead = array.shape[:-1]
            leaves = [p.reshape(*lead, *s) for p, s in zip(parts, self.shapes, strict=True)]
            each = zip(leaves, self.real, strict=True)
            leaves = [_real_part(x) if real else x for x, real in each]
        if self.holds:
            own, kept = iter(leaves), iter(held or self.kept)
            leaves = [next(kept if h else own) for h in self.held]
        tree = jax.tree.unflatten(self.tree, leaves)
        return tree if self.shown is None else tree[self.shown]

    def marked(self, array: Array, held: PyTree = ()) -> PyTree:
        """The tree with marks where leaves are held."""
        return self.unpack(array, [Held(x) for x in held or self.kept])

    def rates_of(self, array: Array) -> PyTree:
        """The array as the tree, with None where leaves are held."""
        held = [None] * sum(self.held)
        return self.unpack(array, held)

    def with_view(self, key: str | int | None) -> "Packing":
        """Returns the packing of which `unpack` shows the subtree at this key: the rest is not the
        user's.

        >>> Packing({"y": 1.0, "own": 2.0}).with_view("y").unpack(jnp.array([2.0, 1.0]))
        Array(1., dtype=float32)
        """
        packing = copy.copy(self)
        packing.shown = key
        return packing

    def with_held(self, held: PyTree) -> "Packing":
        """Returns the packing with these leaves held, so that `unpack` takes the array alone."""
        if not self.holds:
            return self
        packing = copy.copy(self)
        packing.kept = held
        return packing


def _real_part(x: Array) -> Array:
    return lax.real(x) if jnp.iscomplexobj(x) else x

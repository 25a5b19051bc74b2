"""`FewArrays`: a tree of arrays of which the small ones are in one vector for each dtype.

A compiled function spends some microseconds on each array that it returns or takes, and a solve has
dozens: what its derivative keeps, and how it went.
"""

import math

import jax
from jaxtyping import PyTree

from ..autodiff.jax_internals import is_key, shape_of
from ..autodiff.packed import pack, unpack
from ..core.packing import TreeDef

__all__ = ["FewArrays"]

_SMALL = 4096  # bytes


class _Layout:
    """The arrays that are packed, by their places among the leaves of a tree. Compared by identity:
    a trace makes one, and all that its program returns have it.
    """

    def __init__(self, tree: TreeDef, places: list[int], like: list[jax.ShapeDtypeStruct]) -> None:
        self.tree, self.places, self.like = tree, places, like


@jax.tree_util.register_pytree_node_class
class FewArrays:
    """A tree of arrays in few.

    >>> small = FewArrays.of({"steps": jax.numpy.array(3), "dt": jax.numpy.ones(2)})
    >>> [x.tolist() for x in jax.tree.leaves(small)], small.tree()["steps"].item()
    ([[1.0, 1.0], [3]], 3)
    """

    def __init__(self, vectors: PyTree, kept: PyTree, layout: _Layout) -> None:
        self.vectors, self.kept, self.layout = vectors, kept, layout

    @classmethod
    def of(cls, tree: PyTree) -> "FewArrays":
        """Packs the small arrays of a tree."""
        leaves, structure = jax.tree.flatten(tree)
        types = list(map(shape_of, leaves))
        sizes = [math.prod(a.shape) * a.dtype.itemsize for a in types]
        places = [i for i, a in enumerate(types) if not is_key(a) and sizes[i] <= _SMALL]
        kept = [x for i, x in enumerate(leaves) if i not in places]
        layout = _Layout(structure, places, [types[i] for i in places])
        return cls(pack([leaves[i] for i in places]), kept, layout)

    def tree(self) -> PyTree:
        """The tree of arrays again."""
        places, like = self.layout.places, self.layout.like
        found, rest = dict(zip(places, unpack(self.vectors, like), strict=True)), iter(self.kept)
        count = self.layout.tree.num_leaves
        leaves = [found[i] if i in found else next(rest) for i in range(count)]
        return jax.tree.unflatten(self.layout.tree, leaves)

    def tree_flatten(self) -> tuple[tuple, _Layout]:
        """The arrays, for JAX."""
        return (self.vectors, self.kept), self.layout

    @classmethod
    def tree_unflatten(cls, layout: _Layout, arrays: tuple) -> "FewArrays":
        """The inverse, for JAX."""
        vectors, kept = arrays
        return cls(vectors, kept, layout)

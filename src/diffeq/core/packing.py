"""A state as one array: a single array stays as it is, a tree of several becomes a vector."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

__all__ = ["Packing", "as_state"]


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


class Packing:
    """How a tree of arrays lies in one array.

    >>> packing = Packing((jnp.zeros(2), jnp.zeros(())))
    >>> packing.pack((jnp.array([1.0, 2.0]), jnp.array(3.0)))
    Array([1., 2., 3.], dtype=float32)

    Beside complex leaves a real one is a complex part of the array, and real again in the tree.

    `real`: a complex array is packed as its real view, real parts before imaginary ones on a new
    first axis. Implicit methods see a state like that, for a field need not be complex
    differentiable.

    >>> Packing(jnp.array([1 + 2j, 3.0]), real=True).pack(jnp.array([1 + 2j, 3.0]))
    Array([[1., 3.],
           [2., 0.]], dtype=float32)
    """

    def __init__(self, tree: Any, dtype: Any = None, *, real: bool = False) -> None:
        leaves, self.tree = jax.tree.flatten(tree)
        self.shapes = [jnp.shape(leaf) for leaf in leaves]
        self.dtype = jnp.result_type(*leaves or [float]) if dtype is None else dtype
        self.real = [not jnp.iscomplexobj(leaf) for leaf in leaves]
        self.single = len(leaves) == 1
        self.cuts = np.cumsum([math.prod(s) for s in self.shapes])[:-1].tolist()
        self.viewed = real and jnp.issubdtype(self.dtype, jnp.complexfloating)

    @property
    def size(self) -> int:
        """How many numbers there are, real or complex."""
        return sum(map(math.prod, self.shapes))

    def _key(self) -> tuple:
        return self.tree, tuple(self.shapes), self.dtype, tuple(self.real), self.viewed

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packing) and other._key() == self._key()

    def pack(self, tree: Any) -> Array:
        """The tree as one array of the common dtype, or its real view."""
        array = self._joined(jax.tree.leaves(tree))
        return jnp.stack([array.real, array.imag]) if self.viewed else array

    def _joined(self, leaves: list) -> Array:
        if self.single:
            return jnp.asarray(leaves[0], self.dtype)
        return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, self.dtype)) for leaf in leaves])

    def matrix(self, rows: Any) -> Array:
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
        return self.matrix_view(jnp.block([[next(found).reshape(m, n) for n in sizes]
                                           for m in sizes]))  # fmt: skip

    def matrix_view(self, matrix: Array) -> Array:
        """A matrix over the numbers of a state, over their real view where that is what is packed.

        A real leaf has no imaginary part: neither does it depend on one.
        """
        if not self.viewed:
            return matrix
        re, im = matrix.real, matrix.imag
        sizes = [math.prod(s) for s in self.shapes]
        there = np.concatenate([np.full(n, not r) for r, n in zip(self.real, sizes, strict=True)])
        keep = np.concatenate([np.ones(self.size, bool), there])
        return jnp.block([[re, -im], [im, re]]) * (keep[:, None] & keep)

    def unpack(self, array: Array) -> Any:
        """The array as the tree; leading axes (time) stay in front."""
        if self.viewed:
            depth = len(self.shapes[0]) if self.single else 1
            re, im = (jnp.take(array, i, axis=-1 - depth) for i in (0, 1))
            array = lax.complex(re, im)
        if self.single:
            return jax.tree.unflatten(self.tree, [_as_real(array) if self.real[0] else array])
        parts = jnp.split(array, self.cuts, axis=-1)
        lead = array.shape[:-1]
        leaves = [p.reshape(*lead, *s) for p, s in zip(parts, self.shapes, strict=True)]
        leaves = [_as_real(x) if real else x for x, real in zip(leaves, self.real, strict=True)]
        return jax.tree.unflatten(self.tree, leaves)


def _as_real(x: Array) -> Array:
    return lax.real(x) if jnp.iscomplexobj(x) else x

"""LU of a banded matrix by cyclic reduction of its block rows, with row pivoting.

With lower + upper = w, the rows of a banded matrix fall into groups of w that see two neighbouring
blocks of w unknowns each, S_k x_k + R_k x_{k+1} = f_k, but for `lower` rows at the beginning that
see the first block alone, and `upper` rows at the end that see the last one. Of two neighbouring
groups the unknowns between them are eliminated, by Gauss and Jordan with the pivots taken from all
2w rows: they are in no other row, so that pivots exist where the matrix is regular. Half as many
groups of the same shape are left, and in the end a dense system.

All pairs of a level are eliminated side by side, in log₂(n/w) levels, where the elimination of one
row after the other would be n short turns of a loop: as many operations again, none of which waits
for its neighbour. The solution of a system is a sum of products at each level, linear in the right
side, so that the transposed solution is its transpose.

Reference: amodio2000; wright1992.
"""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Inexact

from .linear import AbstractInverse, Factors, factored, linear_solve

__all__ = ["BandedFactors", "banded_lu"]

_DENSE = 32  # unknowns that are left to a dense system
_WRITTEN_OUT = 12  # terms of a sum that are no product of matrices


class BandedFactors(AbstractInverse):
    """The elimination of all levels, and the dense system that is left: b ↦ A⁻¹ b.

    The rows, and b with them, are multiplied by `units`. At each level `mid` gives the unknowns
    between two groups from their right sides, less `sides` times the unknowns left and right of
    them; and `rest` the right sides of the next level. All three are (w, 2w, pairs).
    """

    levels: tuple[tuple[Array, Array, Array], ...]
    last: Factors
    units: Array
    lower: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __call__(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        """The x with A x = b."""
        w, n = self.width, len(b)
        padded = jnp.pad(b * self.units, (0, -n % w))
        count = len(padded) // w - 1
        head, middle, tail = jnp.split(padded, [self.lower, self.lower + count * w])
        right = middle.reshape(count, w).T
        kept = []
        for mid, _, rest in self.levels:
            pairs = right.shape[-1] // 2
            both = jnp.concatenate([right[:, 0 : 2 * pairs : 2], right[:, 1 : 2 * pairs : 2]])
            kept.append(_product(mid, both))
            right = jnp.concatenate([_product(rest, both), right[:, 2 * pairs :]], axis=-1)
        ends = linear_solve(self.last, jnp.concatenate([head, right.T.ravel(), tail]))
        x = ends.reshape(-1, w).T
        for (_, sides, _), found in zip(reversed(self.levels), reversed(kept), strict=True):
            pairs = found.shape[-1]
            near = jnp.concatenate([x[:, :pairs], x[:, 1 : pairs + 1]])
            between = found - _product(sides, near)
            woven = jnp.stack([x[:, :pairs], between], axis=-1).reshape(w, 2 * pairs)
            x = jnp.concatenate([woven, x[:, pairs:]], axis=-1)
        return x.T.ravel()[:n]


def banded_lu(bands: Inexact[Array, "w n"], lower: int) -> BandedFactors:
    """The factors of the matrix with A[i, i + o] = bands[lower + o, i]; entries of `bands` that are
    outside of the matrix are zero. It has at least two blocks, n > w − 1.

    >>> bands = jnp.array([[0.0, 1.0, 1.0, 1.0], [2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 1.0, 0.0]])
    >>> x = banded_lu(bands, 1)(jnp.array([4.0, 10.0, 18.0, 23.0]))
    >>> [round(float(v), 5) for v in x]
    [1.0, 2.0, 3.0, 4.0]
    """
    w, units = len(bands) - 1, _row_units(bands)
    bands, blocks = _whole_blocks(bands * units, lower)
    groups = _groups(bands, lower, blocks)
    levels = []
    while groups.shape[-1] > 1 and (groups.shape[-1] + 1) * w > _DENSE:
        pairs = groups.shape[-1] // 2
        mid, sides, rest, merged = _eliminated(groups[..., : 2 * pairs])
        levels.append((mid, sides, rest))
        groups = jnp.concatenate([merged, groups[..., 2 * pairs :]], axis=-1)
    matrix = _matrix_of(groups, *_corner_rows(bands, lower))
    return BandedFactors(tuple(levels), factored(matrix), units, lower, w)


def _row_units(bands: Inexact[Array, "w n"]) -> Inexact[Array, " n"]:
    """Powers of two that bring the largest entry of each row near 1, so that a pivot is chosen by
    the size of an entry in its own row; 1 for rows of zeros, or of numbers that are not finite.
    """
    size = lax.stop_gradient(jnp.max(jnp.abs(bands), axis=0))
    most = jnp.finfo(bands.dtype).maxexp - 2
    _, exponent = jnp.frexp(size)
    exponent = jnp.where(jnp.isfinite(size), exponent, 0)
    return jnp.ldexp(jnp.ones_like(size), -jnp.clip(exponent, -most, most))


def _whole_blocks(bands: Array, lower: int) -> tuple[Array, int]:
    """The bands with rows of the unit matrix at the end, up to a whole number of blocks of w; and
    how many blocks there are.
    """
    w, n = len(bands) - 1, bands.shape[1]
    more = -n % w
    unit = jnp.zeros((w + 1, more), bands.dtype).at[lower].set(1)
    return jnp.concatenate([bands, unit], axis=1), (n + more) // w


def _groups(bands: Array, lower: int, blocks: int) -> Array:
    """[S_k R_k], the rows lower + k w + s over the columns k w + c, as (w, 2w, groups): the entry
    (s, c) is bands[c − s]. Rows that become longer by one move each of them one place to the right.
    """
    w, count = len(bands) - 1, blocks - 1
    rows = bands[:, lower : lower + count * w].reshape(w + 1, count, w)
    rows = jnp.pad(jnp.transpose(rows, (2, 0, 1)), ((0, 0), (0, w), (0, 0)))
    return rows.reshape(w * (2 * w + 1), count)[: 2 * w * w].reshape(w, 2 * w, count)


def _corner_rows(bands: Array, lower: int) -> tuple[Array, Array]:
    """The rows that see the first block alone, (lower, w), and the last alone, (upper, w)."""
    w, n = len(bands) - 1, bands.shape[1]

    def block(rows: np.ndarray, columns: np.ndarray) -> Array:
        place = lower + columns - rows[:, None]
        inside = (place >= 0) & (place <= w)
        return jnp.where(inside, bands[np.clip(place, 0, w), rows[:, None]], 0)

    upper = w - lower
    first = block(np.arange(lower), np.arange(w))
    return first, block(np.arange(n - upper, n), np.arange(n - w, n))


def _matrix_of(groups: Array, first: Array, end: Array) -> Inexact[Array, "n n"]:
    """The matrix of the groups that are left, between the rows that see an end alone."""
    w, _, count = groups.shape
    place, lower = np.arange(count)[:, None, None] * w, len(first)
    rows, columns = place + np.arange(lower, lower + w)[:, None], place + np.arange(2 * w)
    size = (count + 1) * w
    matrix = jnp.zeros((size, size), groups.dtype)
    matrix = matrix.at[rows, columns].set(jnp.moveaxis(groups, -1, 0), unique_indices=True)
    matrix = matrix.at[:lower, :w].set(first)
    return matrix.at[size - len(end) :, size - w :].set(end)


def _eliminated(groups: Array) -> tuple[Array, Array, Array, Array]:
    """Of each pair of groups what gives the unknowns between them, and what is left: `mid`, `sides`
    and `rest` of `BandedFactors`, and the groups of the next level.
    """
    w = len(groups)
    upper, lower = groups[..., 0::2], groups[..., 1::2]
    blank = jnp.zeros((w, w, upper.shape[-1]), groups.dtype)
    top = jnp.concatenate([upper[:, w:], upper[:, :w], blank], axis=1)
    bottom = jnp.concatenate([lower[:, :w], blank, lower[:, w:]], axis=1)
    rows = jnp.concatenate([top, bottom])
    unit = jnp.eye(2 * w, dtype=groups.dtype)[..., None]
    unit = jnp.broadcast_to(unit, (2 * w, 2 * w, rows.shape[-1]))
    rows = jnp.concatenate([rows, unit], axis=1)
    # A loop, also where w is small: each turn as code of its own would take as long to compile.
    rows = lax.fori_loop(0, w, partial(_pivoted, 2 * w), rows)
    solved, left = rows[:w], rows[w:]
    return solved[:, 3 * w :], solved[:, w : 3 * w], left[:, 3 * w :], left[:, w : 3 * w]


def _pivoted(count: int, k: Array | int, rows: Array) -> Array:
    """The column k eliminated from all rows but the k-th, which becomes the one from there on whose
    entry in it is largest, divided by that entry.
    """
    place = jnp.arange(count)[:, None]
    column = lax.dynamic_index_in_dim(rows, k, 1, keepdims=False)
    size = (
        jnp.abs(column.real) + jnp.abs(column.imag) if jnp.iscomplexobj(rows) else jnp.abs(column)
    )
    chosen = jnp.argmax(jnp.where(place >= k, size, -1), axis=0)
    is_chosen, is_kth = (place == chosen)[:, None], (place == k)[:, None]
    pivot = jnp.sum(jnp.where(is_chosen, rows, 0), axis=0)
    other = lax.dynamic_index_in_dim(rows, k, 0, keepdims=False)
    at_pivot = jnp.sum(jnp.where(is_chosen[:, 0], column, 0), axis=0)
    pivot = pivot / at_pivot
    rows = jnp.where(is_chosen, other, rows)
    column = jnp.where(place == chosen, lax.dynamic_index_in_dim(column, k, 0), column)
    return jnp.where(is_kth, pivot, rows - column[:, None] * pivot)


def _product(matrices: Array, x: Array) -> Array:
    """The products of matrices (m, k, lanes) with vectors (k, lanes)."""
    if matrices.shape[1] <= _WRITTEN_OUT:
        return jnp.sum(matrices * x, axis=1)
    return jnp.einsum("mkl,kl->ml", matrices, x)

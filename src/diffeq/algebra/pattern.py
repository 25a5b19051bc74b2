"""The places of the entries of a sparse matrix, and colours for its columns."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from ..autodiff.jax_internals import Tracer

__all__ = ["Pattern", "colour_columns", "full_rows", "pattern_of"]

_ROW = 2  # colours that a row costs which is found alone: the transposed map takes twice as long


class Pattern:
    """The places of the entries of an n×n matrix, row by row, its diagonal among them.

    >>> Pattern(2, np.array([0]), np.array([1])).rows.tolist()
    [0, 0, 1]
    """

    def __init__(self, n: int, rows: Int[np.ndarray, " k"], columns: Int[np.ndarray, " k"]) -> None:
        whole = np.unique(np.concatenate([rows * n + columns, np.arange(n) * (n + 1)]))
        self.n, self.rows, self.columns = n, whole // n, whole % n
        self.key = hashlib.blake2b(whole.tobytes(), digest_size=16).digest()

    def __hash__(self) -> int:
        return hash((self.n, self.key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and (self.n, self.key) == (other.n, other.key)

    def __repr__(self) -> str:
        return f"{self.n}×{self.n}, {len(self.rows)} entries"

    def united(self, other: "Pattern") -> "Pattern":
        """The pattern of a sum of two matrices."""
        rows = np.concatenate([self.rows, other.rows])
        return Pattern(self.n, rows, np.concatenate([self.columns, other.columns]))

    def without_rows(self, rows: Int[np.ndarray, " m"]) -> "Pattern":
        """The pattern with nothing but the diagonal in these rows."""
        others = ~np.isin(self.rows, rows)
        return Pattern(self.n, self.rows[others], self.columns[others])

    def interleaved(self, count: int, *, heavy: bool) -> "Pattern":
        """The pattern of `count` copies of the rows and columns, which are neighbours: each copy
        has these entries, and sees the others of its own column; or where M is `heavy`, of all.

        >>> Pattern(2, np.array([0]), np.array([1])).interleaved(2, heavy=False)
        4×4, 10 entries
        """
        copy, other = (x.ravel() for x in np.indices((count, count)))
        kept = (self.rows == self.columns)[:, None] | (copy == other) | heavy
        rows = (count * self.rows[:, None] + copy)[kept]
        return Pattern(count * self.n, rows, (count * self.columns[:, None] + other)[kept])

    @property
    def diagonal(self) -> Int[np.ndarray, " n"]:
        """The numbers of the entries on the diagonal."""
        return np.flatnonzero(self.rows == self.columns)


@lru_cache(maxsize=32)
def colour_columns(pattern: Pattern) -> Int[np.ndarray, " n"]:
    """The colours of the columns: those of most neighbours first, each the least colour of no
    column with which it shares a row.

    Reference: curtis1974.

    >>> line = np.arange(4)
    >>> colour_columns(Pattern(4, line[1:], line[:-1])).tolist()
    [1, 0, 1, 0]
    """
    n, rows, columns = pattern.n, pattern.rows, pattern.columns
    by_row = np.split(columns, np.searchsorted(rows, np.arange(1, n)))
    order = np.argsort(columns, kind="stable")
    by_column = np.split(rows[order], np.searchsorted(columns[order], np.arange(1, n)))
    lists = [row.tolist() for row in by_row]
    size = np.array([sum(len(lists[i]) for i in own) for own in by_column])
    colour = [-1] * n
    for j in np.argsort(-size, kind="stable").tolist():
        taken = {colour[k] for i in by_column[j].tolist() for k in lists[i]}
        colour[j] = next(c for c in count() if c not in taken)
    return np.array(colour)


@lru_cache(maxsize=32)
def full_rows(pattern: Pattern) -> Int[np.ndarray, " m"]:
    """The rows that are better found one by one, by the transposed map: a row with k entries gives
    its columns k colours, as long as it is among those that columns are found by.

    The fullest ones are taken, as many as make the least of two for each and of what the fullest of
    the others asks for; none of them if that saves less than half.

    Reference: coleman1998.

    >>> arrow = np.arange(20)
    >>> full_rows(Pattern(20, 0 * arrow, arrow)).tolist()
    [0]
    """
    counts = np.bincount(pattern.rows, minlength=pattern.n)
    order = np.argsort(-counts, kind="stable")
    cost = counts[order] + _ROW * np.arange(pattern.n)
    found = np.sort(order[: int(np.argmin(cost))])
    if not found.size:
        return found
    colours = int(colour_columns(pattern.without_rows(found)).max()) + 1
    worth = 2 * (colours + _ROW * found.size) <= counts.max()
    return found if worth else found[:0]


def pattern_of(pattern: Any) -> Pattern:
    """The pattern that a user gave, as an array, a sparse matrix or a list of rows."""
    if isinstance(pattern, Pattern):
        return pattern
    if isinstance(pattern, (list, tuple)):
        pattern = _of_rows(pattern)
    shape = getattr(pattern, "shape", None)
    if shape is None or any(isinstance(x, Tracer) for x in jax.tree.leaves(pattern)):
        raise TypeError(
            f"pattern is {pattern!r}; an (n, n) array that is known is wanted, a sparse matrix of "
            'SciPy, or "detect".'
        )
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"pattern has shape {tuple(shape)}; (n, n) is wanted for n equations.")
    n = int(shape[0])
    stored = _stored_places(pattern)
    if stored is not None:
        places = np.stack([np.asarray(x, int) for x in stored])
        return Pattern(n, *places[:, (places < n).all(axis=0)])
    dense = np.asarray(pattern)
    if dense.dtype.kind not in "biufc":
        raise TypeError(f"pattern has dtype {dense.dtype}; numbers or booleans are wanted.")
    return Pattern(n, *np.nonzero(dense))


def _of_rows(rows: Sequence) -> np.ndarray:
    """A list of rows as an array."""
    try:
        return np.asarray(rows)
    except ValueError as error:
        lengths = [np.shape(row)[0] if np.shape(row) else None for row in rows]
        raise ValueError(
            f"pattern is a list whose rows have the lengths {lengths}; n rows of n numbers are "
            "wanted."
        ) from error


def _stored_places(pattern: Any) -> tuple[Any, Any] | None:
    """The rows and the columns of the entries that a sparse matrix of SciPy or JAX stores; a matrix
    of JAX may fill up with places outside. None of an array.
    """
    if hasattr(pattern, "tocoo"):  # of SciPy
        stored = pattern.tocoo()
        return stored.row, stored.col
    if getattr(pattern, "n_batch", 0) or getattr(pattern, "n_dense", 0):
        raise ValueError(
            f"pattern is {pattern!r}, of which some axes are not sparse; one with two sparse axes "
            "is wanted, such as BCOO.fromdense(pattern.todense())."
        )
    # Those of JAX are told by what they have: to import them takes half a second.
    if hasattr(pattern, "indptr"):  # BCSR, CSR, CSC
        ends = np.asarray(pattern.indptr)
        along, across = np.repeat(np.arange(len(ends) - 1), np.diff(ends)), pattern.indices
        across = np.asarray(across)[: len(along)]
        return (across, along) if type(pattern).__name__ == "CSC" else (along, across)
    if hasattr(pattern, "indices"):  # BCOO
        return tuple(np.asarray(pattern.indices).T)
    return (pattern.row, pattern.col) if hasattr(pattern, "row") else None  # COO

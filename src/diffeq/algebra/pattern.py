"""The places of the entries of a sparse matrix, and colours for its columns."""

import hashlib
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
from jaxtyping import Int

from ..autodiff.jax_internals import Tracer

__all__ = ["Pattern", "colour_columns", "pattern_of"]


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


def pattern_of(pattern: Any) -> Pattern:
    """The pattern that a user gave, as an array, a sparse matrix or a list of rows."""
    if isinstance(pattern, Pattern):
        return pattern
    if isinstance(pattern, (list, tuple)):
        pattern = np.asarray(pattern)
    shape = getattr(pattern, "shape", None)
    if shape is None or isinstance(pattern, Tracer):
        raise TypeError(
            f"pattern is {pattern!r}; an (n, n) array that is known is wanted, a sparse matrix of "
            'SciPy, or "detect".'
        )
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"pattern has shape {tuple(shape)}; (n, n) is wanted for n equations.")
    n = int(shape[0])
    if hasattr(pattern, "tocoo"):  # of SciPy
        stored = pattern.tocoo()
        return Pattern(n, np.asarray(stored.row, int), np.asarray(stored.col, int))
    if hasattr(pattern, "indices"):  # of JAX, which fills up with places outside
        places = np.asarray(pattern.indices, int)
        return Pattern(n, *places[(places < n).all(axis=1)].T)
    dense = np.asarray(pattern)
    if dense.dtype.kind not in "biufc":
        raise TypeError(f"pattern has dtype {dense.dtype}; numbers or booleans are wanted.")
    return Pattern(n, *np.nonzero(dense))

"""Weighted sums of the stages of a step, given one by one or as the rows of a table."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Shaped

__all__ = ["Stages", "combine", "combine_columns", "weighted"]

type Terms = Sequence[ArrayLike] | Shaped[Array, "_ ..."]
type Stages = Sequence[Array] | Shaped[Array, "_ ..."]
"""The stages of a step: a sequence where they were evaluated one by one, a table with a row for
each where a loop has evaluated them."""


def combine(weights: Iterable, terms: Terms) -> Any:
    """Σ w_i x_i over the weights that are not exactly zero; None when all are.

    >>> combine((2.0, 0.0, 1.0), (1.0, 5.0, 3.0))
    5.0
    >>> combine(np.array([2.0, 1.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array([5., 8.], dtype=float32)
    """
    weights = list(weights)
    if isinstance(terms, jax.Array):
        return weighted(np.asarray(weights), terms) if np.any(weights) else None
    total = None
    for w, x in zip(weights, terms, strict=True):
        if isinstance(w, (float, np.floating)):
            if w == 0.0:
                continue
            w = float(w)  # noqa: PLW2901 - a Python number is weak and keeps float32 states float32
        total = w * x if total is None else total + w * x
    return total


def combine_columns(
    columns: np.ndarray, terms: Terms, factor: Array | float = 1.0
) -> tuple[Array, ...] | Shaped[Array, "columns ..."]:
    """The sums `factor` Σ_i w_i x_i by the columns of a matrix, which has a row for each term: a
    tuple, or for a table of terms the table of the sums, which is one array to carry and to store.

    >>> columns = np.array([[1.0, 0.5], [1.0, 2.0]])
    >>> combine_columns(columns, (2.0, 4.0)), combine_columns(columns, jnp.array([2.0, 4.0]))
    ((6.0, 9.0), Array([6., 9.], dtype=float32))
    """
    if isinstance(terms, jax.Array):
        spread = jnp.asarray(columns, terms.dtype).T[:, :, None]
        sums = jnp.sum(spread * _flat_rows(terms), axis=1)
        return factor * sums.reshape(-1, *terms.shape[1:])
    return tuple(factor * combine(column, terms) for column in columns.T)


def weighted(weights: np.ndarray | Array, table: Shaped[Array, "rows ..."]) -> Array:
    """Σ w_i x_i over the rows of a table; not a product of matrices, which is a library call.

    >>> weighted(np.array([1.0, 2.0]), jnp.array([[1.0], [3.0]]))
    Array([7.], dtype=float32)
    """
    weights = jnp.asarray(weights, table.dtype)
    return jnp.sum(weights[:, None] * _flat_rows(table), axis=0).reshape(table.shape[1:])


def _flat_rows(table: Shaped[Array, "rows ..."]) -> Shaped[Array, "rows size"]:
    """Each row as a vector: the loops that XLA makes of a sum over the rows of a table with more
    axes are not vectorised on a CPU, and take 25 times as long.
    """
    return table.reshape(table.shape[0], math.prod(table.shape[1:]))

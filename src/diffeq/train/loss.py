"""Losses for data with missing values."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..validation.values import shown

__all__ = ["mse"]


def mse(y: PyTree, data: PyTree, mask: PyTree = None) -> Array:
    """The mean of |y − data|² over the numbers that were measured.

    A number that is masked, or NaN in `data`, counts in neither the sum nor the mean, and its
    derivative is exactly zero, even where y itself is NaN there (a row that a failed solve did not
    reach, or that is padding). A NaN of y where there is data is a NaN of the loss. What is done to
    such a row before (`sol.ys / volume`) has a derivative of its own, 0 · NaN: write
    `sol.filled(1.0) / volume`.

    Args:
        y: an array, or a tree of arrays: the mean is over all of its numbers.
        data: the same tree with the same shapes; nothing is broadcast.
        mask: what to use: an array of bools whose axes are the first axes of `data` (`sol.saved`
            is one), or a tree of such.

    Raises:
        TypeError: what is no number in y or data; a mask that is not of bools.
        ValueError: shapes that differ.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> data = jnp.array([1.0, jnp.nan, 3.0])
        >>> print(de.mse(jnp.array([2.0, 5.0, 3.0]), data))
        0.5
        >>> print(jax.grad(de.mse)(jnp.array([2.0, jnp.nan, 3.0]), data))
        [1. 0. 0.]
    """
    if jax.tree.structure(y) != jax.tree.structure(data):
        raise ValueError(
            f"y is {jax.tree.structure(y)}; data is {jax.tree.structure(data)}: they must match."
        )
    masks = _masks(mask, data)
    sums = [
        _squared_error(*each)
        for each in zip(jax.tree.leaves(y), jax.tree.leaves(data), masks, strict=True)
    ]
    if not sums:
        raise ValueError("y has no arrays in it.")
    total, count = (sum(part) for part in zip(*sums, strict=True))
    return total / jnp.maximum(count, 1)


def _masks(mask: PyTree, data: PyTree) -> list:
    """One mask a leaf of data, from a prefix tree."""
    if mask is None:
        return [True] * len(jax.tree.leaves(data))
    return jax.tree.leaves(
        jax.tree.map(lambda m, part: jax.tree.map(lambda _: m, part), mask, data)
    )


def _array_of(name: str, x: PyTree) -> Array:
    try:
        return jnp.asarray(x)
    except TypeError as error:
        raise TypeError(f"{name} has {shown(x)}; an array of numbers is wanted.") from error


def _squared_error(y: PyTree, data: PyTree, mask: PyTree) -> tuple[Array, Array]:
    y, data, mask = _array_of("y", y), _array_of("data", data), _array_of("mask", mask)
    if mask.dtype != bool:
        raise TypeError(
            f"mask has dtype {mask.dtype}; bools are wanted: mask > 0. Weights go with both: "
            "de.mse(w * y, w * data)."
        )
    if y.shape != data.shape:
        raise ValueError(
            f"y has shape {y.shape}; data has {data.shape}: nothing is broadcast here."
        )
    if mask.shape != data.shape[: mask.ndim]:
        raise ValueError(
            f"mask has shape {mask.shape}; the first axes of data are {data.shape[: mask.ndim]}."
        )
    used = mask.reshape(mask.shape + (1,) * (data.ndim - mask.ndim)) & ~jnp.isnan(data)
    # Both are replaced before the difference: where(used, y - data, 0) alone has NaN gradients.
    error = jnp.where(used, y, 0) - jnp.where(used, data, 0)
    squared = jnp.real(error * jnp.conj(error))
    return jnp.sum(squared), jnp.sum(used, dtype=squared.dtype)

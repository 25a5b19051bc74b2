"""Brackets of vector fields, by which a log-signature drives an equation (the log-ODE method)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from ..core.lyndon import lyndon_words
from .forms import apply_diffusion

__all__ = ["driven_by_brackets"]


def driven_by_brackets(
    columns: Callable[[Array], Array],
    y: Array,
    weights: Inexact[Array, " words"],
    channels: int,
    depth: int,
) -> Array:
    """Σ_w weights_w f_w(y) over the Lyndon words of the channels, of which f_w is that bracket of
    the columns f_i which stands for w; [f, g] = (∂g/∂y) f − (∂f/∂y) g.

    `columns(y)` has the channels as its last axis, behind those of y. The brackets are not formed
    one by one: Σ_ij A_ij [f_i, f_j]/2 with antisymmetric A is Σ_j (∂f_j/∂y) Σ_i A_ij f_i, one
    derivative a channel, and a derivative of that along each f_m makes the third order.

    >>> matrices = jnp.array([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])
    >>> f = lambda y: jnp.stack([m @ y for m in matrices], -1)
    >>> weights = jnp.array([0.0, 0.0, 1.0])
    >>> driven_by_brackets(f, jnp.array([0.0, 1.0]), weights, 2, 2).tolist()
    [1.0, 0.0]
    """
    words = lyndon_words(channels, depth)
    count = [sum(len(word) == n for word in words) for n in (1, 2, 3)]
    first, second, third = jnp.split(weights, np.cumsum(count)[:2])
    found = apply_diffusion("general", columns(y), first)
    if depth > 1:
        areas = jnp.tensordot(second, _areas(words, channels), 1)
        found = found + _area_field(columns, areas)(y)
    if depth > 2:
        found = found + _third_order(columns, y, jnp.tensordot(third, _nested(words, channels), 1))
    return found


def _areas(words: list, channels: int) -> np.ndarray:
    """Of each word of two letters (i, j) the antisymmetric matrix with 1 at (i, j)."""
    pairs = [word for word in words if len(word) == 2]
    found = np.zeros((len(pairs), channels, channels))
    for matrix, (i, j) in zip(found, pairs, strict=True):
        matrix[i, j], matrix[j, i] = 1, -1
    return found


def _nested(words: list, channels: int) -> np.ndarray:
    """Of each word of three letters the antisymmetric matrices A^m for which its bracket is
    Σ_m [m, Σ_ij A^m_ij [i, j]/2].
    """
    triples = [word for word in words if len(word) == 3]
    found = np.zeros((len(triples), channels, channels, channels))
    for matrices, (a, b, c) in zip(found, triples, strict=True):
        # (i, i, j) and (i, j, k) are [a, [b, c]]; (i, j, j) and (i, k, j) are [[a, b], c].
        outer, (i, j), sign = (a, (b, c), 1) if a == b or b < c else (c, (a, b), -1)
        matrices[outer, i, j], matrices[outer, j, i] = sign, -sign
    return found


def _area_field(columns: Callable[[Array], Array], areas: Array) -> Callable[[Array], Array]:
    """The field Σ_j (∂f_j/∂y) Σ_i A_ij f_i."""

    def field(y: Array) -> Array:
        value = columns(y)
        along = (value @ areas.astype(value.dtype)).astype(y.dtype)
        moved = jax.vmap(lambda v: jax.jvp(columns, (y,), (v,))[1], -1, -1)(along)
        return jnp.trace(moved, axis1=-2, axis2=-1)

    return field


def _third_order(columns: Callable[[Array], Array], y: Array, nested: Array) -> Array:
    """Σ_m [f_m, g_m] with g_m, the field of the areas A^m."""

    def bracket(areas: Array, own: Array) -> tuple[Array, Array]:
        g, moved = jax.jvp(_area_field(columns, areas), (y,), (own,))
        return moved, jax.jvp(columns, (y,), (g,))[1]

    moved, back = jax.vmap(bracket, (0, -1), -1)(nested, columns(y).astype(y.dtype))
    return jnp.sum(moved, axis=-1) - jnp.trace(back, axis1=-2, axis2=-1)

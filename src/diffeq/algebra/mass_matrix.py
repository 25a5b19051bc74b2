"""The mass matrix M of M y' = f: a matrix, its diagonal as a vector, or None for 1."""

import jax.numpy as jnp
from jaxtyping import Array

from .jacobian import identity
from .linear import AbstractMatrix

__all__ = ["apply_mass", "plus_mass", "system_matrix"]


def apply_mass(mass: Array | None, x: Array) -> Array:
    """M x.

    >>> apply_mass(jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0]))
    Array([2., 0.], dtype=float32)
    """
    if mass is None:
        return x
    return mass * x if mass.ndim == 1 else mass @ x


def plus_mass(mass: Array | None, matrix: Array) -> Array:
    """M + a matrix of which all entries are written down.

    >>> plus_mass(None, jnp.ones((2, 2)))
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    if mass is None:
        return matrix + identity(len(matrix), matrix.dtype)
    return matrix + (jnp.diag(mass) if mass.ndim == 1 else mass)


def system_matrix(
    mass: Array | None, by_y: Array | AbstractMatrix, scale: Array, dt: Array
) -> Array | AbstractMatrix:
    """M − scale J, the matrix of every linear system in a step. In a step of dt = 0 (of an idle
    lane, or between events at one time), which changes nothing, it is 1, for M may be singular.

    >>> system_matrix(None, jnp.ones((2, 2)), jnp.array(0.5), jnp.array(1.0)).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    if isinstance(by_y, AbstractMatrix):
        matrix = by_y.scaled(-scale).plus(mass)
        return matrix if mass is None else matrix.or_identity(dt == 0)
    matrix = plus_mass(mass, -scale * by_y)
    if mass is None:
        return matrix
    return jnp.where(dt == 0, jnp.eye(len(matrix), dtype=matrix.dtype), matrix)

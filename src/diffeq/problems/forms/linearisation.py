"""The linearisation of an equation near a point, M y' = J y + const."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...algebra import AbstractMatrix, JacobianStructure, apply_mass, jacobian

__all__ = ["Linearisation", "linearised_field"]


class Linearisation(NamedTuple):
    """M (None for 1) and J of M y' = J y + …, over the ravelled state; or the products with them,
    as functions.
    """

    mass: Array | Callable[[Array], Array] | None
    by_y: Array | AbstractMatrix | Callable[[Array], Array]


def linearised_field(
    field: Callable[..., Array],
    t: Array,
    y: Array,
    jac: Callable[..., Array] | JacobianStructure | None = None,
    mass: Array | None = None,
    *,
    by_products: bool = False,
) -> Linearisation:
    """Linearises M y' = f(t, y) at (t, y): J = ∂f/∂y."""
    if not by_products:
        return Linearisation(mass, jacobian(field, t, y, jac))
    if callable(jac):
        push = partial(jnp.matmul, jac(t, y))
    else:  # products have no need of a structure
        _, push = jax.linearize(lambda y_flat: field(t, y_flat.reshape(y.shape)).ravel(), y.ravel())
    return Linearisation(partial(apply_mass, mass), push)

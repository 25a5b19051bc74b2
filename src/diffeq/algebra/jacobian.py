"""The derivatives of a field that implicit methods want: ∂f/∂y as a matrix, and ∂f/∂t."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact, Real

from ..autodiff.jax_internals import dependents
from .jacobian_structure import JacobianStructure
from .structured_matrix import StructuredMatrix, structured_jacobian

__all__ = ["Slopes", "field_derivatives", "identity", "jacobian"]

_FEW = 64  # unit vectors


class Slopes(NamedTuple):
    """A field and its derivatives at (t, y), all over the ravelled state; m = n, but for equations
    stacked with their derivatives.
    """

    value: Inexact[Array, " m"]
    by_y: Any  # an array (m, n), or a `StructuredMatrix`
    by_t: Inexact[Array, " m"] | None


def jacobian(
    field: Callable,
    t: Real[Array, ""],
    y: Inexact[Array, "..."],
    jac: Callable | JacobianStructure | None = None,
) -> Any:
    """∂f/∂y at (t, y) over the ravelled state: by `jac(t, y)` if there is one, else forward; in the
    structure that `jac` is, if it is one.

    Forward mode costs n tangents of the field, side by side, and no tape. y is real: a complex
    state is packed as its real view, for a field need not be complex differentiable.

    >>> jacobian(lambda t, y: y**2, jnp.array(0.0), jnp.array([1.0, 3.0]))
    Array([[2., 0.],
           [0., 6.]], dtype=float32)
    """
    return field_derivatives(field, t, y, jac, by_t=False).by_y


def field_derivatives(
    field: Callable,
    t: Real[Array, ""],
    y: Inexact[Array, "..."],
    jac: Callable | JacobianStructure | None = None,
    *,
    by_t: bool = True,
) -> Slopes:
    """The field's value, ∂f/∂y and ∂f/∂t at (t, y); ∂f/∂t is None where f does not depend on t.

    >>> y = jnp.array([1.0, 3.0])
    >>> value, by_y, by_t = field_derivatives(lambda t, y: t * y, jnp.array(2.0), y)
    >>> value, by_y.tolist(), by_t
    (Array([2., 6.], dtype=float32), [[2.0, 0.0], [0.0, 2.0]], Array([1., 3.], dtype=float32))
    >>> field_derivatives(lambda t, y: y, jnp.array(2.0), jnp.array([1.0])).by_t is None
    True
    """
    flat = lambda t, y_flat: field(t, y_flat.reshape(y.shape)).ravel()  # noqa: E731
    point = y.ravel()
    # In y alone: along (0, v) an infinite ∂f/∂t, that of √t at 0, would make 0 · ∞ of each column.
    if callable(jac):
        value, matrix = flat(t, point), jac(t, y)
    else:
        value, push = jax.linearize(partial(flat, t), point)
        matrix = _of_map(push, jac, point)
    if not (by_t and _depends_on_time(flat, t, point)):
        return Slopes(value, matrix, None)
    _, rate = jax.jvp(lambda t: flat(t, point), (t,), (jnp.ones_like(t),))
    return Slopes(value, matrix, rate)


def _of_map(
    push: Callable, structure: JacobianStructure | None, like: Array
) -> Array | StructuredMatrix:
    """The matrix of a linear map: of its values at all unit vectors, or at one a colour."""
    if structure is not None:
        return structured_jacobian(push, structure, like)
    return jax.vmap(push, out_axes=1)(identity(like.size, like.dtype))


def identity(n: int, dtype: DTypeLike) -> Array | np.ndarray:
    """The unit matrix: small ones a literal. What is computed, and always the same, XLA moves out
    of all loops, as a task of its own.

    >>> identity(2, jnp.float32).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return np.eye(n, dtype=dtype) if n <= _FEW else jnp.eye(n, dtype=dtype)


def _depends_on_time(field: Callable, t: Array, y: Array) -> bool:
    """True if the field depends on t; known from its equations, before anything runs."""
    return any(dependents(jax.make_jaxpr(field)(t, y), [True, False]))

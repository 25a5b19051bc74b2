"""A check that ∂f/∂y has no entry that its declared structure leaves out."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from ..algebra import JacobianStructure, jacobian
from ..algebra.newton import stop_closure_gradient
from ..core.unequal_numbers import unequal_numbers
from ..problems.forms import Form, Mass, Ode, Split
from .nearby_states import nearby

__all__ = ["TURNS", "declared_structure", "has_declared_entries", "missed_by_rows"]

TURNS = (0.0, 2.0)  # of `nearby`: y0 itself, and a state near it where no number is zero


def declared_structure(form: Form) -> JacobianStructure | None:
    """The structure that was declared of ∂f/∂y, if any."""
    jac = getattr(form, "jac", None)
    return jac if isinstance(jac, JacobianStructure) else None


def has_declared_entries(
    form: Ode | Split | Mass, t: Array, y: Array, span: Array
) -> Bool[Array, ""]:
    """True if J v is the same with and without the structure, for a v at random, at the start and
    near it. A column that is left out would be added to another one, and be wrong in silence.
    """

    def wrong(turn: Array) -> Array:
        there, at, _ = nearby(form, turn, t, y, span)
        return jnp.any(missed_by_rows(form, there, at))

    like = jnp.zeros_like(y.ravel()[0])
    found = lax.map(stop_closure_gradient(wrong, like), jnp.asarray(TURNS, like.dtype))
    return ~jnp.any(found)


def missed_by_rows(form: Ode | Split | Mass, t: Array, y: Array) -> Bool[Array, " n"]:
    """The rows of ∂f/∂y, or of M, in which an entry is outside of the declared structure; none
    where the derivative is not finite.
    """
    structure, field, mass = declared_structure(form), form.solved_field, form.mass
    _, push = jax.linearize(lambda x: field(t, x.reshape(y.shape)).ravel(), y.ravel())
    x = unequal_numbers(y.size, y.dtype)
    x = jnp.where(jnp.arange(y.size) % 3 == 1, -x, x)
    matrix = jacobian(field, t, y, structure)
    missed = _differs(push(x), matrix.times(x), matrix.row_sums(jnp.abs(x)))
    if mass is None or mass.ndim == 1:
        return missed
    kept = matrix.scaled(jnp.zeros_like(x[0])).plus(mass)
    return missed | _differs(mass @ x, kept.times(x), kept.row_sums(jnp.abs(x)))


def _differs(a: Array, b: Array, size: Array) -> Array:
    """True where two sums of terms of this size differ by more than rounding."""
    difference = jnp.abs(a - b)
    margin = float(jnp.finfo(a.dtype).eps) ** 0.5
    return (difference > margin * size) & jnp.isfinite(difference)

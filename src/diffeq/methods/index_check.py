"""A check that the equations have the index that they are solved as."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from ..algebra.newton import stop_closure_gradient
from ..problems.forms import DifferentialAlgebraic
from .nearby_states import nearby

__all__ = ["is_determined"]

_PLACES = 3


def is_determined(form: DifferentialAlgebraic, t: Array, y: Array, span: Array) -> Bool[Array, ""]:
    """True if the algebraic equations determine the algebraic components at (t, y), or near it.

    Their matrix is singular at each point where the index is another. At a single one, such as a
    start on a fold, it may be singular where the index is right: so it is regular if it is so in
    one of a few places, a relative distance of ε^(1/4) apart. Places where the field is not finite
    say nothing; if (t, y) itself is such a place, the first step fails there.
    """

    def regular(number: Array) -> Array:
        good, known = form.is_regular(*nearby(form, number, t, y, span))
        return jnp.where(known, good, number == 0)

    regular = stop_closure_gradient(regular, jnp.zeros_like(y.ravel()[0]))

    def turn(state: tuple) -> tuple:
        number, _ = state
        return number + 1, ~regular(number)

    start = jnp.zeros((), y.dtype), jnp.ones((), bool)
    _, singular = lax.while_loop(lambda s: s[1] & (s[0] < _PLACES), turn, start)
    return ~singular

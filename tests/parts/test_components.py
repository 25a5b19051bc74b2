"""Which component of an output depends on which of the input, as jaxprs tell."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from diffeq.autodiff.component_dependence import own_components

THREE = jnp.array([1.0, 2.0, 3.0])
OWN = {
    "elementwise": lambda y: jnp.where(y > 0, jnp.sin(y), y**2),
    "stacked": lambda y: jnp.stack([y[0] ** 2, 0.3 * y[1], jnp.ones(())]),
    "set": lambda y: y.at[1].set(0.1 * y[1]),
    "indexed": lambda y: y[jnp.array([0, 1, 2])] * THREE,
    "twice turned": lambda y: y[::-1][::-1],
    "a batch": lambda y: jax.jit(jax.vmap(jnp.sqrt))(y.reshape(3, 1)).ravel(),
    "a branch": lambda y: lax.cond(THREE[0] > 0.5, lambda y: y, lambda y: 2 * y, y),
    "a product of batches": lambda y: jnp.einsum("i,i->i", y, THREE),
    "nothing": lambda y: THREE,
}
OTHERS = {
    "a price and its volatility": lambda y: jnp.stack([y[1] * y[0], y[1], y[2]]),
    "turned": lambda y: y[::-1],
    "a sum": lambda y: y * y.sum(),
    "a norm": lambda y: y / jnp.linalg.norm(y),
    "a comparison": lambda y: jnp.where(y[0] > 0, y, 2 * y),
    "a branch": lambda y: lax.cond(y[2] > 0.5, lambda y: y, lambda y: 2 * y, y),
    "a matrix": lambda y: jnp.ones((3, 3)) @ y,
    "a running sum": jnp.cumsum,
    "a place that y chooses": lambda y: y[jnp.argmax(y)] * jnp.ones(3),
    "a loop": lambda y: lax.fori_loop(0, 3, lambda i, x: jnp.roll(x, 1), y),
}


@pytest.mark.parametrize("what", OWN)
def test_components_of_their_own(what):
    assert own_components(jax.make_jaxpr(OWN[what])(THREE), [True])


@pytest.mark.parametrize("what", OTHERS)
def test_components_that_see_others(what):
    assert not own_components(jax.make_jaxpr(OTHERS[what])(THREE), [True])


def test_components_of_a_tree_are_in_order():
    pair = jax.make_jaxpr(lambda a, b: (a * 2, jnp.sin(b)))(THREE, 1.0)
    crossed = jax.make_jaxpr(lambda a, b: (a * b, b))(THREE, 1.0)
    assert own_components(pair, [True, True])
    assert not own_components(crossed, [True, True])
    assert own_components(crossed, [True, False]) is False  # the second output is missing in y
    assert own_components(jax.make_jaxpr(lambda a, b: a * b)(THREE, 1.0), [True, False])

"""Which functions are taken for neural networks, as jaxprs tell."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffeq.autodiff.network_layers import has_hidden_layer

IN, OUT = jnp.ones((2, 3)), jnp.ones((3, 2))
PERCEPTRON = eqx.nn.MLP(2, 2, 8, 1, key=jax.random.key(0))
LAYERS = jnp.ones((4, 2, 2))
STOICHIOMETRY, EXPONENTS = np.ones((2, 3)), np.ones((3, 2))


def stacked(y, w):
    return lax.scan(lambda y, layer: (jnp.tanh(layer @ y), None), y, LAYERS)[0]


NETWORKS = {
    "tanh": lambda y, w: OUT.T @ jnp.tanh(IN.T @ y),
    "weights in args": lambda y, w: w @ jax.nn.softplus(w @ y**3),
    "a term of an equation": lambda y, w: -y + w @ jax.nn.gelu(w @ y),
    "branches that are activations": lambda y, w: w @ jax.nn.elu(w @ y),
    "a module that is closed over": lambda y, w: PERCEPTRON(y),
    "under jit": lambda y, w: jax.jit(lambda y: w @ jax.nn.relu(w @ y))(y),
    "layers in a loop": stacked,
}
LAWS = {
    "a linear equation": lambda y, w: w @ y,
    "diffusion": lambda y, w: w @ (w @ y),
    "competition": lambda y, w: y * (1 - w @ y),
    "mass action": lambda y, w: STOICHIOMETRY @ jnp.exp(EXPONENTS @ jnp.log(jnp.maximum(y, 1e-9))),
    "mass action, matrices in args": lambda y, w: w @ jnp.exp(w @ jnp.log(y)),
    "a table of NumPy": lambda y, w: STOICHIOMETRY @ jnp.tanh(EXPONENTS @ y),
    "a network of parameters alone": lambda y, w: y * jnp.sum(w @ jnp.tanh(w @ w)),
    "a network of which nothing is returned": lambda y, w: y + 0 * len(w @ jnp.tanh(w @ y)),
}


def found(function):
    jaxpr = jax.make_jaxpr(function)(jnp.ones(2), jnp.ones((2, 2)))
    return has_hidden_layer(jaxpr, [True, False], [False, True])


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    assert found(NETWORKS[name])


@pytest.mark.parametrize("name", LAWS)
def test_laws_of_nature(name):
    assert not found(LAWS[name])

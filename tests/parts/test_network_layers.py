"""Which functions are taken for neural networks, as jaxprs tell."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffeq.autodiff.network_layers import is_network

IN, OUT = jnp.ones((2, 3)), jnp.ones((3, 2))
PERCEPTRON = eqx.nn.MLP(2, 2, 8, 1, key=jax.random.key(0))
LAYERS = jnp.ones((4, 2, 2))
STOICHIOMETRY, EXPONENTS = np.ones((2, 3)), np.ones((3, 2))


def stacked(y):
    return lax.scan(lambda y, layer: (jnp.tanh(layer @ y), None), y, LAYERS)[0]


NETWORKS = {
    "tanh": lambda y, v, w: OUT.T @ jnp.tanh(IN.T @ y),
    "weights in args": lambda y, v, w: v @ jax.nn.softplus(w @ y**3),
    "GELU": lambda y, v, w: v @ jax.nn.gelu(w @ y),
    "SiLU": lambda y, v, w: v @ jax.nn.silu(w @ y),
    "ELU": lambda y, v, w: v @ jax.nn.elu(w @ y),
    "a block that skips": lambda y, v, w: v @ jnp.tanh((h := w @ y) + v @ jnp.tanh(h)),
    "a module that is closed over": lambda y, v, w: PERCEPTRON(y),
    "under jit": lambda y, v, w: jax.jit(lambda y: v @ jax.nn.relu(w @ y))(y),
    "layers in a loop": lambda y, v, w: stacked(y),
    "outputs in parts": lambda y, v, w: jnp.stack([(v @ jnp.tanh(w @ y))[0], jnp.sum(v)]),
}
LAWS = {
    "a linear equation": lambda y, v, w: w @ y,
    "diffusion": lambda y, v, w: v @ (w @ y),
    "competition": lambda y, v, w: y * (1 - w @ y),
    "mass action": lambda y, v, w: STOICHIOMETRY @ jnp.exp(EXPONENTS @ jnp.log(y)),
    "mass action, matrices in args": lambda y, v, w: v @ jnp.exp(w @ jnp.log(y)),
    "oscillators, coupled by one matrix": lambda y, v, w: -w.T @ jnp.sin(w @ y),
    "a limited flux": lambda y, v, w: w.T @ jnp.maximum(w @ y, 0.0),
    "a law with a network in it": lambda y, v, w: -1e5 * y + v @ jnp.tanh(w @ y),
    "a network as a rate": lambda y, v, w: y * (v @ jnp.tanh(w @ y)),
    "a law and a network": lambda y, v, w: jnp.stack([y[0] * y[1], (v @ jnp.tanh(w @ y))[0]]),
    "a table of NumPy": lambda y, v, w: STOICHIOMETRY @ jnp.tanh(EXPONENTS @ y),
    "a network of parameters alone": lambda y, v, w: y * jnp.sum(v @ jnp.tanh(w @ w)),
}


def found(function):
    jaxpr = jax.make_jaxpr(function)(jnp.ones(2), jnp.ones((2, 2)), jnp.ones((2, 2)))
    return is_network(jaxpr, [True, False, False], [False, True, True])


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    assert found(NETWORKS[name])


@pytest.mark.parametrize("name", LAWS)
def test_laws_of_nature(name):
    assert not found(LAWS[name])

"""A user without a neural-network library: parameters in a dictionary, a function, `fit`."""

import jax
import jax.numpy as jnp
import optax
import pytest

import diffeq as de


@pytest.mark.thorough
def test_a_network_of_plain_functions_is_trained():
    keys = jax.random.split(jax.random.key(0))
    parameters = {
        "in": 0.5 * jax.random.normal(keys[0], (8, 2)),
        "out": 0.1 * jax.random.normal(keys[1], (2, 8)),
        "rate": 1.0,
    }

    def field(p, t, y, args):
        return p["out"] @ jnp.tanh(p["in"] @ y) - p["rate"] * y

    ts = jnp.linspace(0.0, 2.0, 11)
    layer = de.nn.Layer(parameters, tspan=(0.0, 2.0), saveat=ts, field=field)
    y0s = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.7, -0.7]])
    angle, shrink = jnp.array([[0.0, 1.0], [-1.0, 0.0]]), 0.3
    turned = jax.vmap(lambda t: jax.scipy.linalg.expm(t * (angle - shrink * jnp.eye(2))))(ts)
    data = jnp.einsum("tij,bj->bti", turned, y0s)

    def loss(layer, batch):
        y0, ys = batch
        return de.mse(jax.vmap(lambda y: layer(y).ys)(y0), ys)

    fit = de.fit(layer, loss, (y0s, data), optimizer=optax.adam(0.03), steps=150)
    assert fit.loss < 1e-2 * fit.history[0]
    assert set(fit.model.net) == {"in", "out", "rate"}
    assert fit.model.net["in"].shape == (8, 2)

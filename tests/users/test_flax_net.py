"""A user of Flax NNX: a network with normalisation and dropout, in a field and trained by `fit`."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import diffeq as de


class Net(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(2, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.down = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, y, *, key=None):
        hidden = self.norm(jnp.tanh(self.up(y)))
        return self.down(self.dropout(hidden, rngs=key))


def make():
    return Net(nnx.Rngs(0))


TS = jnp.linspace(0.0, 1.0, 5, dtype=jnp.float32)
Y0 = jnp.array([1.0, 0.5], jnp.float32)


WAYS = {
    "layer": lambda net: de.nn.NeuralODE(net, tspan=(0.0, 1.0))(Y0),
    "args": lambda net: de.solve(de.ODEProblem(lambda t, y, net: net(y), Y0, (0.0, 1.0), net)),
    "closure": lambda net: de.solve(de.ODEProblem(lambda t, y, _: net(y), Y0, (0.0, 1.0))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_write_to_state_is_refused_by_name(way):
    net = make()
    with pytest.raises(TypeError, match=r"f wrote to .*norm\.mean.* of Net.*model\.eval\(\)"):
        WAYS[way](net)


@pytest.mark.thorough
def test_fit_in_evaluation_mode_returns_a_module():
    net = make()
    net.eval()
    layer = de.nn.NeuralODE(net, tspan=(0.0, 1.0), saveat=TS)
    data = jnp.stack([jnp.exp(-TS), 0.5 * jnp.exp(-TS)], axis=1)

    def loss(layer):
        return de.mse(layer(Y0).ys, data)

    fit = de.fit(layer, loss, optimizer=optax.adam(0.02), steps=40)
    assert isinstance(fit.model.net, Net)
    assert fit.loss < fit.history[0] / 10
    assert fit.model.net.norm.mean[...].tolist() == [0.0] * 8, "a running average is not trained"
    # Two programs round an error estimate in float32 each in its own way, and the steps follow it.
    assert float(loss(fit.model)) == pytest.approx(fit.loss, rel=1e-3)
    assert jnp.any(fit.model.net.up.kernel[...] != net.up.kernel[...])


def test_dropout_takes_one_key_a_solve():
    net = make()
    net.norm.eval()
    layer = de.nn.NeuralODE(net, tspan=(0.0, 1.0))
    keys = jax.random.split(jax.random.key(1), 2)
    first, again, other = (layer(Y0, key=key).y1 for key in (keys[0], keys[0], keys[1]))
    assert jnp.all(first == again)
    assert jnp.any(first != other)


def test_batch_statistics_outside_the_field_are_updated():
    class Encoded(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
            self.rate = nnx.Param(jnp.array(0.1, jnp.float32))

    ys = jax.random.normal(jax.random.key(0), (16, 2), jnp.float32) + 3.0

    def loss(model, ys):
        y0 = model.norm(ys)
        problem = de.ODEProblem(lambda t, y, rate: -rate * y, y0, (0.0, 1.0), model.rate[...])
        return jnp.mean(de.solve(problem, de.Tsit5()).y1 ** 2)

    model = Encoded()
    fit = de.fit(model, loss, ys, optimizer=optax.sgd(0.1), steps=10, batch_size=8)
    assert isinstance(fit.model, Encoded)
    assert float(fit.model.norm.mean[...][0]) > 0.1
    assert model.norm.mean[...][0] == 0.0, "the model that was given is as it was"

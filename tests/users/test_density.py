"""A statistician: the density of two moons of data by FFJORD, its samples, and a condition."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de


def moons(key, count):
    """Two half circles, and which of them a point is of."""
    keys = jax.random.split(key, 3)
    angle = jnp.pi * jax.random.uniform(keys[0], (count,))
    label = jax.random.bernoulli(keys[1], 0.5, (count,)).astype(jnp.float32)
    sign = 2 * label - 1
    x = jnp.stack([jnp.cos(angle) + 0.5 * sign, sign * (0.25 - jnp.sin(angle))], axis=1)
    return x + 0.1 * jax.random.normal(keys[2], x.shape), label


def field(net, t, z, label):
    return net(jnp.concatenate([z, jnp.stack([t, label])]))


@pytest.mark.thorough
def test_a_conditional_density_is_learnt_sampled_and_judged():
    net = eqx.nn.MLP(4, 2, 32, 2, jnp.tanh, key=jax.random.key(0), dtype=jnp.float32)
    flow = de.nn.FFJORD(net, 2, field=field, rtol=1e-2, atol=1e-2)
    data = moons(jax.random.key(1), 512)
    data = jax.tree.map(lambda x: x.astype(jnp.float32), data)

    def loss(flow, batch, key):
        """Noisy for training: Hutchinson's estimate, a cost on long ways."""
        keys = jax.random.split(key, len(batch[0]))
        one = lambda x, label, key: flow.regularised(x, label, key=key)
        found = jax.vmap(one)(*batch, keys)
        return jnp.mean(-found.log_prob + 0.01 * found.kinetic + 0.01 * found.jacobian)

    fit = de.fit(
        flow, loss, data, optimizer=optax.adam(5e-3), steps=150, batch_size=64,
        key=jax.random.key(2), progress=False,
    )  # fmt: skip

    fresh = jax.tree.map(lambda x: x.astype(jnp.float32), moons(jax.random.key(3), 256))
    exact = lambda flow: -float(jnp.mean(jax.jit(jax.vmap(flow.log_prob))(*fresh)))
    # The best normal of each label, as a floor that means something.
    normal = 0.0
    for label in (0.0, 1.0):
        own = np.asarray(data[0])[np.asarray(data[1]) == label]
        normal += 0.5 * (np.log(2 * np.pi * np.e) + 0.5 * np.log(np.linalg.det(np.cov(own.T))))
    before, after = exact(flow), exact(fit.model)
    assert after < normal
    assert after < before - 0.5

    keys = jax.random.split(jax.random.key(4), 400)
    for label, way in ((0.0, 1.0), (1.0, -1.0)):
        draws = jax.jit(jax.vmap(lambda key, label=label: fit.model.sample(key, label)))(keys)
        inside = np.asarray(draws)[:, 1] * way > -0.35  # which half plane its moon opens into
        assert inside.mean() > 0.9

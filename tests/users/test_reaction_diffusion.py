"""A biologist: a line of cells with diffusion, where a network is the reaction."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de

N = 20
DX = 1.0 / N
X = (jnp.arange(N) + 0.5) * DX
TS = jnp.linspace(0.0, 1.0, 6)
DIFFUSION = 0.02


def laplacian(u):
    """No flux through the ends."""
    wide = jnp.concatenate([u[:1], u, u[-1:]])
    return (wide[2:] - 2 * u + wide[:-2]) / DX**2


def logistic(u):
    return 4.0 * u * (1.0 - u)


def line(reaction, u0):
    field = lambda t, u, args: DIFFUSION * laplacian(u) + reaction(u)
    return de.ODEProblem(field, u0, (0.0, 1.0))


START = jnp.exp(-(((X - 0.2) / 0.1) ** 2))
STARTS = jnp.stack([START, 0.6 + 0.4 * jnp.sin(2 * jnp.pi * X)])
OPTIONS = {"method": de.Bosh3(), "saveat": TS, "rtol": 1e-4, "atol": 1e-6}


@pytest.mark.thorough
def test_the_reaction_of_a_line_is_learnt_and_serves_another_start():
    grown = jax.jit(lambda u0: de.solve(line(logistic, u0), **OPTIONS).ys)
    data = jnp.stack([grown(u0) for u0 in STARTS])
    # Without reaction nothing is made: the method of lines keeps the mass.
    still = de.solve(line(jnp.zeros_like, START), **OPTIONS).ys
    np.testing.assert_allclose(still.sum(axis=1), START.sum(), rtol=1e-10)

    net = eqx.nn.MLP("scalar", "scalar", 8, 1, jnp.tanh, key=jax.random.key(0))
    layer = de.nn.Layer(
        net, tspan=(0.0, 1.0), **OPTIONS,
        field=lambda net, t, u, args: DIFFUSION * laplacian(u) + jax.vmap(net)(u),
    )  # fmt: skip
    fit = de.fit(
        layer, lambda layer: de.mse(jax.vmap(lambda u0: layer(u0).ys)(STARTS), data),
        progress=False, optimizer=[(optax.adam(0.03), 200), (optax.lbfgs(), 80)],
    )  # fmt: skip
    assert fit.loss < 1e-3 * fit.history[0]

    levels = jnp.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(jax.vmap(fit.model.net)(levels), logistic(levels), atol=0.15)
    other = 0.5 + 0.3 * jnp.cos(jnp.pi * X)
    assert float(jnp.max(jnp.abs(fit.model(other).ys - grown(other)))) < 0.03

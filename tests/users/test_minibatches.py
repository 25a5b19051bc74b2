"""Training on series of different length and times: padded, masked, vmapped, one jitted step."""
# ruff: noqa: B023

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de

TRUE = jnp.array([[-0.1, 2.0], [-2.0, -0.1]])
NAN = jnp.nan


def field(t, y, net):
    return net(y**3)


def series():
    """Four samples, each with its own start, times and number of rows; the rest is padding."""
    times = jnp.array([
        [0.0, 0.2, 0.5, 1.0], [0.1, 0.4, NAN, NAN], [0.0, 0.9, 1.2, NAN], [0.3, NAN, NAN, NAN]
    ])  # fmt: skip
    y0s = jnp.array([[2.0, 0.0], [1.5, 0.5], [0.0, 1.0], [1.0, 1.0]])
    truth = de.ODEProblem(lambda t, y, a: a @ y**3, y0s[0], (0.0, 1.2), TRUE)
    ys = jax.vmap(
        lambda y0, ts: de.solve(truth.replace(y0=y0), de.Vern7(), saveat=ts, rtol=1e-8).ys
    )(y0s, times)
    return y0s, times, ys


def loss(net, batch):
    def one(y0, ts, ys):
        end = jnp.nanmax(ts)
        return de.solve(de.ODEProblem(field, y0, (0.0, end), net), de.Tsit5(), saveat=ts).ys

    y0s, times, ys = batch
    return de.mse(jax.vmap(one)(y0s, times, ys), ys)


def network():
    return eqx.nn.MLP(2, 2, 8, 1, jnp.tanh, key=jax.random.key(0))


@pytest.mark.thorough
def test_padding_enters_neither_value_nor_gradient():
    batch, net = jax.tree.map(lambda x: x[:2], series()), network()
    value, grad = eqx.filter_jit(eqx.filter_value_and_grad(loss))(net, batch)
    y0s, times, ys = jax.tree.map(np.asarray, batch)

    def by_hand(net):
        total, count = 0.0, 0
        for y0, ts, y in zip(y0s, times, ys, strict=True):
            known = np.flatnonzero(~np.isnan(ts))
            end = ts[known[-1]]
            found = de.solve(
                de.ODEProblem(field, y0, (0.0, end), net), de.Tsit5(), saveat=ts[known]
            ).ys
            total, count = total + jnp.sum((found - y[known]) ** 2), count + found.size
        return total / count

    want, want_grad = eqx.filter_jit(eqx.filter_value_and_grad(by_hand))(net)
    np.testing.assert_allclose(value, want, rtol=1e-10)
    for a, b in zip(jax.tree.leaves(grad), jax.tree.leaves(want_grad), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.thorough
def test_a_sample_without_any_time_changes_nothing():
    """A batch that is filled up with empty samples: rates that all samples share stay finite."""
    y0s, times, _ = series()
    empty = times.at[3].set(NAN)

    def total(rates, y0s, times):
        problem = de.ODEProblem(lambda t, y, a: a @ y**3, y0s[0], (0.0, 1.2), rates)
        one = lambda y0, ts: de.solve(problem.replace(y0=y0), de.Tsit5(), saveat=ts).filled(0.0)
        return jnp.sum(jax.vmap(one)(y0s, times) ** 2)

    got, want = (jax.jit(jax.grad(total))(TRUE, y0s[:n], empty[:n]) for n in (4, 3))
    np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.thorough
def test_a_jitted_training_step_compiles_once_and_learns():
    batch, net = series(), network()
    optimizer = optax.adam(0.02)
    traces = []

    @eqx.filter_jit
    def step(net, state, batch):
        traces.append(1)
        value, grad = eqx.filter_value_and_grad(loss)(net, batch)
        updates, state = optimizer.update(grad, state)
        return eqx.apply_updates(net, updates), state, value

    state = optimizer.init(eqx.filter(net, eqx.is_array))
    values = []
    order = np.arange(4)
    for i in range(40):
        some = jax.tree.map(lambda x: x[np.roll(order, i)[:2]], batch)
        net, state, value = step(net, state, some)
        values.append(float(value))
    assert len(traces) == 1
    assert np.isfinite(values).all()
    assert np.mean(values[-4:]) < 0.7 * np.mean(values[:4])

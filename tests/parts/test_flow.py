"""Continuous normalising flows: densities that are right, sampled and differentiated as such."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.scipy import stats
from scipy.linalg import expm
from scipy.stats import multivariate_normal
from tests.tiers import shortly

import diffeq as de

KEY = jax.random.key(0)
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def linear(net, t, z, args):
    return net["A"] @ z + net["b"]


AFFINE = {"A": np.array([[0.3, -0.8], [0.5, -0.2]]), "b": np.array([0.4, -1.0])}


def curved():
    return eqx.nn.MLP(2, 2, 8, 1, jnp.tanh, key=KEY)


def test_an_affine_flow_has_the_density_of_a_normal():
    """Z' = Az + b is e^A z plus a constant: the density of its normal is known."""
    flow = de.nn.FFJORD(AFFINE, 2, field=linear, **TIGHT)
    spread = expm(AFFINE["A"])
    mean = np.linalg.solve(AFFINE["A"], (spread - np.eye(2)) @ AFFINE["b"])
    points = np.random.default_rng(0).normal(size=(5, 2)) + mean
    wanted = multivariate_normal(mean, spread @ spread.T).logpdf(points)
    # Of an affine field, both costs are integrals of what is known along the way.
    costs = jax.jit(jax.vmap(flow.regularised))(points)
    np.testing.assert_allclose(costs.log_prob, wanted, rtol=1e-8)
    np.testing.assert_allclose(costs.jacobian, np.sum(AFFINE["A"] ** 2), rtol=1e-8)
    z0 = np.linalg.solve(spread, points[0] - mean)
    path = np.asarray(flow(z0, saveat=np.linspace(0.0, 1.0, 2001)).ys)
    speed = np.sum((path @ AFFINE["A"].T + AFFINE["b"]) ** 2, axis=1)
    assert float(costs.kinetic[0]) == pytest.approx(np.trapezoid(speed, dx=5e-4), rel=1e-6)
    assert float(flow.log_prob(points[0])) == pytest.approx(wanted[0], rel=1e-8)


@pytest.mark.parametrize("kind", ["equinox", "nnx", "plain"])
def test_the_density_of_any_network_integrates_to_one(kind):
    def hidden(net, t, z, args):
        return net["out"] @ jnp.tanh(net["in"] @ z + t)

    class Net(nnx.Module):
        def __init__(self):
            self.up = nnx.Linear(1, 8, rngs=nnx.Rngs(0), param_dtype=float)
            self.down = nnx.Linear(8, 1, rngs=nnx.Rngs(1), param_dtype=float)

        def __call__(self, z):
            return self.down(jnp.tanh(self.up(z)))

    draws = jax.random.normal(KEY, (2, 8))
    net, field = {
        "equinox": (eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=KEY), None),
        "nnx": (Net(), None),
        "plain": ({"in": draws[0][:, None], "out": draws[1][None]}, hidden),
    }[kind]
    flow = de.nn.FFJORD(net, 1, field=field, rtol=1e-6, atol=1e-6)
    x = jnp.linspace(-20.0, 20.0, 2001)
    density = jnp.exp(jax.jit(jax.vmap(flow.log_prob))(x[:, None]))
    assert float(jnp.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-4)


def test_samples_have_the_density_that_is_said():
    flow = de.nn.FFJORD(curved(), 2, rtol=1e-8, atol=1e-8)

    @jax.jit
    @jax.vmap
    def draw(key):
        return *flow.sample_and_log_prob(key), flow.sample(key)

    xs, log_ps, same = jax.device_get(draw(jax.random.split(KEY, 4000)))
    np.testing.assert_allclose(same, xs, atol=1e-6)
    # Samples have their mean: E x by many samples is ∫ x p(x) dx by quadrature.
    axis = np.linspace(-6.0, 6.0, 61)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    found = np.asarray(jax.jit(jax.vmap(flow.log_prob))(np.concatenate([xs[:4], grid])))
    np.testing.assert_allclose(found[:4], log_ps[:4], atol=1e-6)
    p = np.exp(found[4:]) * (axis[1] - axis[0]) ** 2
    assert p.sum() == pytest.approx(1.0, abs=1e-3)
    assert np.all(np.abs(xs.mean(axis=0) - p @ grid) < 4 * xs.std(axis=0) / np.sqrt(len(xs)))


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_hutchinson_is_right_in_the_mean(noise):
    flow = de.nn.FFJORD(curved(), 2, noise=noise, rtol=1e-6, atol=1e-6)
    x = jnp.array([0.3, -0.5])
    each = jax.jit(jax.vmap(lambda key: flow.regularised(x, key=key)))
    found = each(jax.random.split(KEY, 2000))
    exact = flow.regularised(x)
    for name in ("log_prob", "jacobian"):
        values = getattr(found, name)
        error = 4 * values.std() / jnp.sqrt(len(values))
        assert values.std() > 1e-3, "it is an estimate"
        assert abs(float(values.mean() - getattr(exact, name))) < float(error)
    np.testing.assert_allclose(found.kinetic, exact.kinetic, rtol=1e-4)


def test_one_dimension_has_no_noise():
    """In one dimension the estimate with ε = ±1 is the trace, and all keys agree."""
    net = eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=KEY)
    flow = de.nn.FFJORD(net, 1, **TIGHT)
    x = jnp.array([0.4])
    assert float(flow.log_prob(x, key=KEY)) == pytest.approx(float(flow.log_prob(x)), rel=1e-10)


@pytest.mark.parametrize("key", shortly([None, KEY], None))
def test_gradients_by_the_network_and_by_x(key):
    flow = de.nn.FFJORD(curved(), 2, rtol=1e-10, atol=1e-10)
    x = jnp.array([0.3, -0.5])
    direction = jax.tree.map(
        lambda w: jnp.cos(jnp.arange(w.size, dtype=float)).reshape(w.shape),
        eqx.filter(flow, eqx.is_inexact_array),
    )

    def value(s):
        moved = eqx.apply_updates(flow, jax.tree.map(lambda d: s * d, direction))
        return moved.log_prob(x + s, key=key)

    program = jax.jit(lambda s: (*jax.value_and_grad(value)(s), jax.jvp(value, (s,), (1.0,))[1]))
    h = 1e-5
    difference = float(program(h)[0] - program(-h)[0]) / (2 * h)
    _, *slopes = program(0.0)
    np.testing.assert_allclose(slopes, difference, rtol=1e-6)


def test_conditions_and_a_base_of_ones_own():
    class Shifted(eqx.Module):
        mean: jax.Array

        def log_prob(self, z):
            return stats.norm.logpdf(z, self.mean)  # one for each component

        def sample(self, key):
            return self.mean + jax.random.normal(key, self.mean.shape)

    flow = de.nn.FFJORD(
        {"w": jnp.array(1.0)}, 2, base=Shifted(jnp.array([1.0, -2.0])), tspan=(0.0, 2.0),
        field=lambda net, t, z, args: net["w"] * args + 0 * z, **TIGHT,
    )  # fmt: skip
    x, move = jnp.array([0.5, 0.5]), jnp.array([0.25, 1.0])
    wanted = jnp.sum(stats.norm.logpdf(x - 2 * move, jnp.array([1.0, -2.0])))
    assert float(flow.log_prob(x, move)) == pytest.approx(float(wanted), rel=1e-8)
    gradient = eqx.filter_grad(lambda flow: flow.log_prob(x, move))(flow)
    np.testing.assert_allclose(gradient.base.mean, x - 2 * move - jnp.array([1.0, -2.0]), rtol=1e-6)


def test_whole_numbers():
    """As a sample they are the same numbers with a point; as a shape NumPy's are taken."""
    flow = de.nn.FFJORD(lambda z: -z, np.int64(2))
    assert flow.event_shape == (2,)
    assert flow.log_prob([1, 2]) == flow.log_prob([1.0, 2.0])
    assert flow.log_prob([1, 2]).dtype == jnp.float64


def test_refusals():
    flow = de.nn.FFJORD(curved(), 2)
    with pytest.raises(ValueError, match=r"x has shape \(3, 2\); a sample of this flow has \(2,\)"):
        flow.log_prob(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"noise is 'uniform'; one of 'rademacher', 'gaussian'"):
        de.nn.FFJORD(curved(), 2, noise="uniform")
    for shape in (2.0, -2, True, (2, 0), "ab"):
        with pytest.raises(
            TypeError, match=r"shape is .*; that of one sample is wanted, a positive"
        ):
            de.nn.FFJORD(curved(), shape)
    with pytest.raises(TypeError, match=r"base is 3; a distribution with log_prob\(z\) and sample"):
        de.nn.FFJORD(curved(), 2, base=3)
    with pytest.raises(
        ValueError, match=r"base has samples of shape \(3,\), and the flow .*\(2,\)"
    ):
        de.nn.FFJORD(curved(), 2, base=de.nn.FFJORD(curved(), 3).base)
    for call in (flow.sample, flow.sample_and_log_prob):
        with pytest.raises(TypeError, match=r"key is 0; one key is wanted, such as jax.random.key"):
            call(0)
    with pytest.raises(TypeError, match="key is 0; one key is wanted"):
        flow.log_prob(jnp.ones(2), key=0)
    with pytest.raises(TypeError, match=r"FFJORD takes no events: .* no density"):
        de.nn.FFJORD(curved(), 2, events=de.PresetTimes([0.5], lambda t, z, args: z))

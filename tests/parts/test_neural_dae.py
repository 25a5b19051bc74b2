"""Networks with algebraic equations beside them: which rows are whose, and their derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

KEY = jax.random.key(0)
TS = jnp.array([0.0, 0.5, 1.0])
Y0 = jnp.array([0.6, 0.9, 0.3])


def whole(t, y, total):
    return [jnp.sum(y) - total]


def known(y, t, a):
    """The equation y0' = −y0 + y2, y2' = −y2, of which y1 is what is left."""
    return jnp.stack([-y[0] + y[2], -y[2]])


EXACT = jnp.stack([(0.6 + 0.3 * TS) * jnp.exp(-TS), TS, 0.3 * jnp.exp(-TS)], 1)
EXACT = EXACT.at[:, 1].set(1.0 - EXACT[:, 0] - EXACT[:, 2])
OPTIONS = {"tspan": (0.0, 1.0), "saveat": TS, "rtol": 1e-8, "atol": 1e-10}
FLAGS = [True, False, True]
SPAN = {"tspan": (0.0, 1.0)}


def squared(net, t, y, dy, args):
    """A residual that is not solved for the slope: 0 = s + s³ with s = dy − net(y)."""
    missed = jnp.stack([dy[0], dy[2]]) - net(y)
    return missed + missed**3


@pytest.mark.parametrize("field", shortly([None, squared], None), ids=["slopes", "residual"])
def test_a_known_network_in_a_neural_dae(field):
    """Rows are put into their places, whichever components are algebraic."""
    layer = de.nn.NeuralDAE(
        lambda y: known(y, 0.0, None), whole, differential=FLAGS, field=field, **OPTIONS
    )
    np.testing.assert_allclose(layer(Y0, 1.0).ys, EXACT, atol=2e-7)


def test_a_known_network_with_constraints():
    """The same with the algebraic component last."""
    order = jnp.array([0, 2, 1])
    layer = de.nn.NeuralODE(lambda y: known(y[order], 0.0, None), constraints=whole, **OPTIONS)
    np.testing.assert_allclose(layer(Y0[order], 1.0).ys, EXACT[:, order], atol=1e-7)


def test_a_mass_matrix():
    """It is the problem's, with constraints and without, and is not trained."""
    matrix = jnp.diag(jnp.array([2.0, 3.0, 0.0]))
    layer = de.nn.NeuralODE(lambda y: y[:2], constraints=whole, mass_matrix=matrix, **OPTIONS)
    problem = layer.problem(Y0, 1.0)
    np.testing.assert_array_equal(problem.mass_matrix, matrix)
    np.testing.assert_allclose(problem.f(0.0, Y0, 1.0), [0.6, 0.9, 0.8])
    assert not jax.tree.leaves(eqx.filter(layer, eqx.is_inexact_array))
    tree = de.nn.NeuralODE(lambda y: y, mass_matrix={"a": 2.0}, tspan=(0.0, 1.0))
    assert tree.problem({"a": 1.0}).mass_matrix == {"a": 2.0}


LAYERS = {
    "dae": lambda net: de.nn.NeuralDAE(
        net,
        whole,
        differential=[True, True, False],
        tspan=(0.0, 1.0),
        method=de.RadauIIA5(),
        dt=0.25,
    ),
    "mass": lambda net: de.nn.NeuralODE(
        net, constraints=whole, tspan=(0.0, 1.0), method=de.Rosenbrock23(), dt=0.25
    ),
}


@pytest.mark.parametrize("name", shortly(LAYERS, "mass"))
def test_gradients_of_a_batch(name):
    """By the network's weights, against a difference along a direction; the sum of each sample is
    its own, and stays.
    """
    net = eqx.nn.MLP(3, 2, 4, 1, jnp.tanh, key=KEY, dtype=float)
    weights, rest = eqx.partition(net, eqx.is_inexact_array)
    totals = jnp.array([1.0, 1.3])

    @jax.jit
    def value_and_slope(weights):
        def loss(weights):
            layer = LAYERS[name](eqx.combine(weights, rest))
            y1 = jax.vmap(lambda total: layer(Y0, total).y1)(totals)
            return jnp.sum(y1[:, :2] ** 2), y1

        (value, y1), slope = jax.value_and_grad(loss, has_aux=True)(weights)
        return value, y1, slope

    along = jax.tree.map(
        lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), weights
    )
    moved = lambda h: jax.tree.map(lambda x, d: x + h * d, weights, along)
    _, y1, slope = value_and_slope(weights)
    np.testing.assert_allclose(y1.sum(1), totals, atol=1e-12)
    found = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (slope, along)), strict=True))
    up, down = (value_and_slope(moved(h))[0] for h in (1e-5, -1e-5))
    np.testing.assert_allclose(found, (up - down) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: de.nn.NeuralDAE(n, None, differential=FLAGS), "constraints is None; a function"),
        (lambda n: de.nn.NeuralDAE(n, whole, differential=[1, 0, 1]), "differential is .*booleans"),
        (
            lambda n: de.nn.NeuralDAE(n, whole, differential=[True])(Y0, **SPAN),
            "y0 has 3 .* speaks of 1",
        ),
        (
            lambda n: de.nn.NeuralDAE(n, whole, differential=[True] * 3)(Y0, 1.0, **SPAN),
            "the network gives 2 numbers; .* there are 3",
        ),
        (
            lambda n: de.nn.NeuralDAE(n, lambda t, y, a: y, differential=FLAGS)(Y0, **SPAN),
            "constraints gives 3 numbers; .*algebraic.* there are 1",
        ),
        (lambda n: de.nn.NeuralODE(n, constraints=3.0), r"constraints is 3\.0; a function"),
        (
            lambda n: de.nn.NeuralODE(n, constraints=lambda t, y, a: y)(Y0, **SPAN),
            "network gives 2 numbers and the constraints 3; .* 3",
        ),
        (
            lambda n: de.nn.NeuralDAE(n, lambda y: y, differential=FLAGS)(Y0, **SPAN),
            r"constraints\(y\) cannot be called as constraints\(t, y, args\)",
        ),
        (
            lambda n: de.nn.NeuralODE(n, constraints=lambda y: y)(Y0, **SPAN),
            r"constraints\(y\) cannot be called as constraints\(t, y, args\)",
        ),
        (
            lambda n: de.nn.NeuralODE(n, field=lambda net, y: net(y))(Y0, **SPAN),
            r"field\(net, y\) cannot be called as field\(net, t, y, args\)",
        ),
        (
            lambda n: jax.jit(lambda d: de.nn.NeuralDAE(n, whole, differential=d).differential)(
                jnp.array(FLAGS)
            ),
            "differential is .*known before tracing are wanted",
        ),
        (
            lambda n: de.nn.NeuralODE(n, constraints=whole)({"a": Y0}, **SPAN),
            "y0 is .* a vector is wanted",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make(lambda y: y[:2])

"""Derivatives through the past: by args, lag, history, y0, tspan and save times, in every mode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TS = jnp.array([0.35, 0.9, 1.7])
# rate, lag, history, start, end, and a jump at the start
X = jnp.array([1.2, 0.7, 0.5, 0.1, 2.3])


def field(t, y, past, x):
    return x[0] * past(t - x[1]) * (1 - y)


def values(x):
    problem = de.DDEProblem(
        field, None, lambda x: (x[3], x[4]), x, history=lambda t, x: x[2] * jnp.cos(t),
        lags=lambda x: x[1],
    )  # fmt: skip
    sol = de.solve(problem, de.Tsit5(), saveat={"inside": TS, "end": None}, rtol=1e-11, atol=1e-13)
    return jnp.append(sol.ys["inside"], sol.y1)


def weighted(x):
    return values(x) @ jnp.array([0.3, -0.5, 0.7, 1.0])


def differences(f, x, dt=1e-4):
    """Of fourth order."""
    rows = []
    for i in range(len(x)):
        e = jnp.zeros_like(x).at[i].set(dt)
        rows.append((f(x - 2 * e) - 8 * f(x - e) + 8 * f(x + e) - f(x + 2 * e)) / (12 * dt))
    return jnp.stack(rows)


GRADIENT = jax.jit(jax.grad(weighted))


@pytest.mark.thorough
def test_every_mode_and_the_second_order():
    expected = differences(jax.jit(weighted), X)
    np.testing.assert_allclose(GRADIENT(X), expected, atol=2e-9)
    e = jnp.array([0.3, -1.0, 0.5, 0.2, 0.7])
    slope, (_, curve) = jax.jit(
        lambda x: (jax.jvp(weighted, (x,), (e,))[1], jax.jvp(jax.grad(weighted), (x,), (e,)))
    )(X)
    np.testing.assert_allclose(slope, expected @ e, atol=2e-9)
    np.testing.assert_allclose(curve, e @ differences(GRADIENT, X), atol=1e-7)


@pytest.mark.thorough
def test_a_batch_is_a_loop():
    xs = X + 0.02 * jnp.arange(3)[:, None]
    total = jax.jit(jax.grad(lambda xs: jax.vmap(weighted)(xs).sum()))(xs)
    np.testing.assert_allclose(total, jnp.stack([GRADIENT(x) for x in xs]), rtol=1e-10)


@pytest.mark.thorough
def test_steps_that_look_at_themselves():
    """The tangent is that of the fixed point, and not of the last turn; steps are given, so that
    differences are of the same function.
    """

    def end(x):
        problem = de.DDEProblem(
            lambda t, y, past, x: -x[0] * past(t - x[1]) * y, None, (0.0, 3.0), x,
            history=lambda t, x: jnp.cos(x[2] * t), lags=(),
        )  # fmt: skip
        return de.solve(problem, de.Tsit5(), dt=0.1).y1

    x = jnp.array([1.0, 0.045, 0.7])
    gradient = jax.jit(jax.grad(end))(x)
    np.testing.assert_allclose(gradient, differences(jax.jit(end), x, 1e-3), atol=1e-9)


@pytest.mark.thorough
def test_a_jump_at_the_start_and_a_lag_of_the_state():
    def end(x):
        problem = de.DDEProblem(
            lambda t, y, past, x: -past(t - x[0] - 0.1 * y**2), lambda x: x[1], (0.0, 1.0), x,
            history=lambda t, x: x[2] + t, lags=lambda t, y, x: x[0] + 0.1 * y**2,
        )  # fmt: skip
        return de.solve(problem, de.Tsit5(), rtol=1e-9, atol=1e-11).y1

    x = jnp.array([1.2, 0.8, 0.3])
    np.testing.assert_allclose(jax.jit(jax.grad(end))(x), differences(jax.jit(end), x), atol=1e-7)


@pytest.mark.thorough
def test_the_tables_are_changed_in_place():
    """No turn of the loop, forwards or in reverse, copies the past."""
    text = GRADIENT.lower(X).compile().as_text()
    bodies = [part for part in text.split("\n\n") if not part.lstrip().startswith("ENTRY")]
    assert any(" = f64[1025,9]" in body for body in bodies)
    assert not any("] copy(" in line and " = f64[1025,9]" in line
                   for body in bodies for line in body.splitlines())  # fmt: skip


@pytest.mark.thorough
def test_a_network_and_its_lag_in_a_layer():
    net = eqx.nn.MLP(4, 2, 4, 1, jnp.tanh, key=jax.random.key(0))
    layer = de.nn.NeuralDDE(
        net, lags=jnp.array([0.3]), tspan=(0.0, 1.0), method=de.Tsit5(),
        saveat=jnp.linspace(0.0, 1.0, 5), rtol=1e-8, atol=1e-10,
    )  # fmt: skip

    def loss(layer):
        return jnp.sum(layer(jnp.array([2.0, -1.0])).ys ** 2)

    moved = lambda d: eqx.tree_at(lambda m: m.lags, layer, layer.lags + d)
    gradient = eqx.filter_jit(eqx.filter_grad(loss))(layer)
    run = eqx.filter_jit(loss)
    slope = (run(moved(1e-4)) - run(moved(-1e-4))) / 2e-4
    np.testing.assert_allclose(gradient.lags[0], slope, rtol=1e-5)
    assert all(jnp.any(x != 0) for x in jax.tree.leaves(gradient.net))

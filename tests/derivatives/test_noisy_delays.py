"""Derivatives of stochastic delay equations along their paths: by args, lag, history, y0, in both
modes; and that a batch is a loop.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

# rate, lag (of no whole number of steps), strength of the noise, history, y0
X = jnp.array([1.1, 0.43, 0.4, 0.7, 1.2])
KEY = jax.random.key(5)


def drift(t, y, past, x):
    return -x[0] * past(t - x[1]) * y


def diffusion(t, y, past, x):
    return x[2] * jnp.sin(past(t - x[1])) * y


def loss(x, key, *, jump=False, stratonovich=False, **options):
    problem = de.SDDEProblem(
        drift, diffusion, (lambda x: x[4]) if jump else None, (0.0, 2.0), x,
        history=lambda t, x: x[3] * jnp.cos(t), lags=lambda x: x[1],
        interpretation="stratonovich" if stratonovich else "ito",
    )  # fmt: skip
    saves = None if jump else jnp.array([0.33, 1.0, 1.77])
    sol = de.solve(problem, key=key, saveat=saves, **{"dt": 0.1, **options})
    return sol.ys @ jnp.array([0.3, -0.5, 0.7])[: sol.ys.size] + sol.y1**2


def differences(f, eps=1e-6):
    return jnp.stack([(f(X + e) - f(X - e)) / (2 * eps) for e in eps * jnp.eye(X.size)])


@pytest.mark.parametrize(
    "way",
    [
        {},
        pytest.param({"jump": True}, marks=pytest.mark.thorough),
        # From its end a step of 0.5 looks at itself.
        pytest.param({"stratonovich": True, "jump": True, "dt": 0.5}, marks=pytest.mark.thorough),
        pytest.param({"method": de.ImplicitEM(), "jump": True}, marks=pytest.mark.thorough),
    ],
    ids=["path", "jump", "itself", "implicit"],
)  # fmt: skip
def test_gradients_in_both_modes(way):
    """Where y0 jumps the steps move along with the lag, and rows inside of them do not."""
    value = jax.jit(lambda x: loss(x, KEY, **way))
    both = jax.jit(lambda x: (jax.grad(value)(x), jax.jacfwd(value)(x)))
    reverse, forward = both(X)
    np.testing.assert_allclose(reverse, forward, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(reverse, differences(value), rtol=1e-6, atol=1e-8)
    assert (jnp.abs(reverse[: 5 if "jump" in way else 4]) > 1e-4).all()


@pytest.mark.thorough
def test_a_batch_is_a_loop():
    """Over keys and parameters, also of the derivative."""
    slope = jax.value_and_grad(loss)
    keys, xs = jax.random.split(KEY, 3), X + 0.03 * jnp.arange(3)[:, None]
    batch, one = jax.jit(jax.vmap(slope)), jax.jit(slope)
    for found, wanted in zip(batch(xs, keys), zip(*map(one, xs, keys), strict=True), strict=True):
        np.testing.assert_allclose(found, jnp.stack(wanted), rtol=1e-11)
    assert len({float(v) for v in batch(jnp.stack([X] * 3), keys)[0]}) == 3
    eager = loss(xs[1], keys[1])
    np.testing.assert_allclose(eager, one(xs[1], keys[1])[0], rtol=1e-13)

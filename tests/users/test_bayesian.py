"""A sampler over chains, some of which wander where the equation has no solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TS = jnp.array([0.5, 1.0, 1.5])
DATA = 1 / (1 - 0.3 * TS)
PROBLEM = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 1.5))


def log_posterior(a):
    sol = de.solve(PROBLEM.replace(args=a), de.Tsit5(), saveat=TS, rtol=1e-6, atol=1e-8)
    fit = -0.5 * jnp.sum((sol.filled(1.0) - DATA) ** 2) / 0.1**2
    return jnp.where(sol.success, fit, -jnp.inf) - 0.5 * a**2


def exact(a):
    return -0.5 * jnp.sum((1 / (1 - a * TS) - DATA) ** 2) / 0.1**2 - 0.5 * a**2


CHAINS = jnp.array([0.1, 0.9, 0.3, -0.5, 2.0])  # those above 2/3 blow up before the last row
GOOD = np.array([True, False, True, True, False])


def test_values_and_gradients_of_the_other_chains_are_right():
    values, grads = jax.jit(jax.vmap(jax.value_and_grad(log_posterior)))(CHAINS)
    want, want_grads = jax.vmap(jax.value_and_grad(exact))(CHAINS)
    np.testing.assert_allclose(values[GOOD], want[GOOD], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(grads[GOOD], want_grads[GOOD], rtol=1e-3, atol=1e-2)
    assert (values[~GOOD] == -np.inf).all()
    np.testing.assert_allclose(grads[~GOOD], -CHAINS[~GOOD])  # the prior's alone


@pytest.mark.thorough
def test_a_walk_of_all_chains_in_one_compiled_scan():
    @jax.jit
    def sample(chains, key):
        def move(state, key):
            chains, values, grads = state
            noise, coin = jax.random.normal(key, (2, *chains.shape))
            proposed = chains + 1e-4 * jnp.nan_to_num(grads) + 0.02 * noise
            new, new_grads = jax.vmap(jax.value_and_grad(log_posterior))(proposed)
            accept = new - values > jnp.log(jax.scipy.stats.norm.cdf(coin))
            pick = lambda a, b: jnp.where(accept, a, b)
            state = pick(proposed, chains), pick(new, values), pick(new_grads, grads)
            return state, state[0]

        start = chains, *jax.vmap(jax.value_and_grad(log_posterior))(chains)
        return jax.lax.scan(move, start, jax.random.split(key, 60))

    (chains, values, _), _ = sample(CHAINS[:3].at[1].set(0.7), jax.random.key(0))
    assert np.isfinite(chains).all()
    np.testing.assert_allclose(chains[jnp.array([0, 2])], 0.3, atol=0.15)
    assert not np.isnan(values).any()


@pytest.mark.thorough
def test_the_hessian_at_the_mode():
    found = jax.jit(jax.hessian(log_posterior))(0.3)
    np.testing.assert_allclose(found, jax.hessian(exact)(0.3), rtol=1e-3)

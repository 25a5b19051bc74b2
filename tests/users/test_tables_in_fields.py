"""Someone whose field looks numbers up in a table: `jnp.interp`, `searchsorted`, `where`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TABLE = jnp.linspace(0.0, 1.0, 300)


def field(t, y, args):
    return -args * y * jnp.interp(t, TABLE, TABLE)


def end(args):
    return de.solve(de.ODEProblem(field, 1.0, (0.0, 1.0), args), rtol=1e-8, atol=1e-8).y1


@pytest.mark.thorough
def test_a_table_in_the_field_in_every_mode():
    exact = np.exp(-0.5)
    np.testing.assert_allclose(end(1.0), exact, rtol=1e-7)
    np.testing.assert_allclose(jax.grad(end)(1.0), -0.5 * exact, rtol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(end)(1.0), -0.5 * exact, rtol=1e-7)
    np.testing.assert_allclose(jax.vmap(end)(jnp.ones(2)), exact, rtol=1e-7)


def test_many_save_times():
    """More than fit into one comparison: they are searched."""
    ts = jnp.linspace(0.0, 1.0, 500)
    sol = de.solve(de.ODEProblem(field, 1.0, (0.0, 1.0), 1.0), saveat=ts, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(sol.ys, np.exp(-(ts**2) / 2), rtol=1e-6)


@pytest.mark.parametrize("method", [de.Tsit5(), de.RadauIIA5(), de.Rodas5P()], ids=repr)
def test_rows_that_are_put_together(method):
    """`jnp.append` and its like are primitives that JAX lowers to others first."""
    rates = jnp.array([1.0, 2.0])

    def coupled(t, y, args):
        return -jnp.append(y[:1] * rates[0], y[1:] * jnp.interp(0.5, TABLE, 4 * TABLE))

    sol = de.solve(de.ODEProblem(coupled, jnp.ones(2), (0.0, 1.0)), method, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(sol.y1, np.exp(-np.array([1.0, 2.0])), rtol=1e-6)

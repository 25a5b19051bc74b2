"""Orders on a non-linear, non-autonomous equation of index 1, with its exact solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import slope_of

import diffeq as de
from diffeq.methods import METHODS

NAMES = [name for name in METHODS if issubclass(METHODS[name], de.Rosenbrock)]
ORDERS = {"Rosenbrock23": (2, 1), "Rodas4": (4, 4), "Rodas5P": (5, 4)}  # of y and of z
STEPS = np.array([8, 12, 18, 27, 40, 60, 90, 135])


def exact(t):
    return jnp.stack([jnp.exp(jnp.sin(t)), jnp.cos(t)])


def equations(t, u, args):
    """Y' = y z and 0 = z³ + y z − …, solved by y = exp(sin t), z = cos t."""
    y, z = u
    known = exact(t)
    return jnp.stack([y * z, z**3 + y * z - known[1] ** 3 - known[0] * known[1]])


@pytest.mark.parametrize("name", NAMES)
def test_order(name):
    """At the end; and between steps that of the interpolant, of algebraic parts too."""
    problem = de.DAEProblem(equations, exact(0.0), (0.0, 2.0), mass_matrix=[1.0, 0.0])
    at = jnp.array([0.37, 1.21, 1.83])

    def errors(dt):
        sol = de.solve(problem, METHODS[name](), dt=dt, saveat=at, max_steps=140)
        return jnp.abs(sol.y1 - exact(2.0)), jnp.max(jnp.abs(sol.ys - exact(at).T))

    ends, inside = jax.device_get(jax.jit(jax.vmap(errors))(2.0 / STEPS))
    y, z = (slope_of(column, 2.0 / STEPS, 1e-12) for column in ends.T)
    assert y == pytest.approx(ORDERS[name][0], abs=0.25)
    assert z > ORDERS[name][1] - 0.25
    order = min(METHODS[name]().tableau.dense_order, ORDERS[name][1])
    # θ differs from grid to grid: the slope over all of them.
    assert np.polyfit(np.log(STEPS), np.log(inside), 1)[0] < -(order - 0.3)

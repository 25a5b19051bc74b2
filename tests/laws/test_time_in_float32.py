"""A time in float32 carries what it loses to rounding: short steps at late times are whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de


@pytest.fixture(autouse=True)
def single_precision():
    with jax.enable_x64(False):
        yield


@pytest.mark.parametrize("method", [de.RK4(), de.Rodas5P()], ids=repr)
def test_the_end_is_not_reached_early(method):
    """A thousand steps of 1/64 of the distance between two numbers at t0."""
    problem = de.ODEProblem(lambda t, y, a: 1.0 + 0 * y, 0.0, (86400.0, 86400.125))
    sol = de.solve(problem, method, dt=0.125 / 1000)
    assert sol.stats["steps"] == 1000
    np.testing.assert_allclose(sol.y1, 0.125, rtol=2e-5)


def test_steps_below_the_distance_of_numbers_are_taken():
    """The first one is rejected, and the ones after it move t by less than its last digit."""
    problem = de.ODEProblem(lambda t, y, a: -1e5 * (y - jnp.cos(1000.0)), 0.0, (1000.0, 1000.001))
    sol = de.solve(problem, de.Bosh3(), rtol=1e-4, atol=1e-6, dt0=1e-4)
    assert sol.stats["rejected"] > 0
    np.testing.assert_allclose(sol.y1, np.cos(1000.0), rtol=1e-4)


def test_what_blows_up_is_still_told():
    problem = de.ODEProblem(lambda t, y, a: y**2, 1.0, (0.0, 2.0))
    sol = de.solve(problem, de.Tsit5(), throw=False)
    assert sol.status != 0
    np.testing.assert_allclose(sol.last.t, 1.0, rtol=1e-4)

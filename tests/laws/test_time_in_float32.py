"""A time in float32 carries what it loses to rounding: short steps at late times are whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

pytestmark = pytest.mark.filterwarnings("ignore:.* is short for times of its size")


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


# --- times that are rounded together --------------------------------------------------------------

NOW = 1.7e9  # a timestamp, in seconds; the next number of float32 is 128 later


def aged(seconds, dtype=jnp.float32):
    """A decay over so many seconds."""
    start = jnp.ones((), dtype)
    return de.ODEProblem(lambda t, y, a: -y / 1e4, start, (NOW, NOW + seconds))


def test_a_span_that_is_one_time_is_refused():
    with pytest.raises(ValueError, match=r"single time in float32: .*\(0, 10\), or set jax_enable"):
        de.solve(aged(10.0))
    with pytest.raises(ValueError, match=r"single time in float32"):
        jax.grad(lambda y: de.solve(aged(10.0).replace(y0=y)).y1)(1.0)
    assert de.solve(aged(0.0)).y1 == 1.0
    with jax.enable_x64(True):
        np.testing.assert_allclose(de.solve(aged(10.0, jnp.float64)).y1, np.exp(-1e-3), rtol=1e-6)
        with pytest.raises(ValueError, match=r"float32: .* or tspan in float64"):
            de.solve(aged(10.0))
        wide = aged(10.0).replace(tspan=jnp.array([NOW, NOW + 10.0]))
        np.testing.assert_allclose(de.solve(wide).y1, np.exp(-1e-3), rtol=1e-6)


@pytest.mark.filterwarnings("default")
def test_a_span_in_which_few_times_differ_is_warned_of():
    with pytest.warns(UserWarning, match=r"apart by 2e\+02, 2\.0% of the span.*\(0, 10000\)"):
        de.solve(aged(1e4))


@pytest.mark.filterwarnings("error")
def test_a_span_that_begins_near_zero_is_no_matter_of_precision():
    de.solve(aged(1e4).replace(tspan=(0.0, NOW)))
    de.solve(aged(1e4).replace(y0=jnp.ones((), jnp.bfloat16), tspan=(0.0, 1e4)), de.Heun(), dt=1e3)


def test_knots_that_are_one_time_are_refused():
    ts = NOW + np.arange(4.0)
    with pytest.raises(ValueError, match=r"which are one number in float32: subtract ts\[0\]"):
        de.interp.Linear(ts, jnp.zeros(4))
    with pytest.raises(ValueError, match=r"ts\[2\] is 1, after 3; ts must increase\."):
        de.interp.Linear([0.0, 3.0, 1.0], jnp.zeros(3))
    with pytest.raises(ValueError, match=r"ts has NaN before a number"):
        de.interp.Linear([0.0, np.nan, 1.0], jnp.zeros(3))
    with pytest.raises(ValueError, match=r"ts\[1\] is NaN; ts must increase"):
        de.interp.Cubic([0.0, np.nan, 1.0, 2.0], jnp.zeros(4))

"""Implicit methods on delay equations: their order, how few steps they take, their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

FAST = 1e4


def sine(rate, method, **options):
    """Y' = −rate (y − y(t − 1)/2 − (what makes y = sin t of it)) + cos t."""

    def field(t, y, past, rate):
        return -rate * (y - past(t - 1) / 2 - jnp.sin(t) + jnp.sin(t - 1) / 2) + jnp.cos(t)

    problem = de.DDEProblem(
        field, None, (0.0, 5.0), rate, history=lambda t, rate: jnp.sin(t), lags=1.0
    )
    return de.solve(problem, method, rtol=1e-6, atol=1e-9, **options)


@pytest.mark.parametrize("method", shortly([de.Rodas5P(), de.RadauIIA5(), de.BDF()], de.Rodas5P()))
def test_stiffness_costs_no_steps(method):
    sol = sine(FAST, method)
    assert abs(sol.y1 - np.sin(5.0)) < 1e-6
    assert int(sol.stats["steps"] + sol.stats["rejected"]) < 250
    assert 0 < int(sol.stats["evaluations"]) < 1500


def test_where_an_explicit_method_needs_thousands():
    """Stability holds its step at 3.3/FAST: 15,000 for the whole."""
    sol = sine(FAST, de.Tsit5(), max_steps=2000, throw=False)
    assert de.Status(int(sol.status)).name == "max_steps"
    assert sol.last.t < 1.0


def logistic(method, x=(1.5, 0.75), lags=True, **options):
    """A kink at each multiple of the lag, at first in y'."""
    problem = de.DDEProblem(
        lambda t, y, past, x: x[0] * y * (1 - past(t - x[1])), None, (0.0, 3.0), jnp.asarray(x),
        history=lambda t, x: 0.5 + 0.2 * jnp.sin(t), lags=(lambda x: x[1]) if lags else (),
    )  # fmt: skip
    return de.solve(problem, method, **options).y1


REFERENCE = jax.jit(lambda x: logistic(de.Vern9(), x, rtol=1e-13, atol=1e-15))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "order"),
    [(de.Rodas5P(), 5), (de.Kvaerno3(), 3), (de.KenCarp5(), 5), (de.RadauIIA5(), 5)],
)
def test_the_order_goes_through_the_kinks(method, order):
    """That of the method, whose dense output, through which it sees the past, is good enough."""
    run = jax.jit(lambda dt: logistic(method, dt=dt))
    end = REFERENCE(np.array([1.5, 0.75]))
    errors = [abs(run(0.25 / 2**k) - end) for k in (0, 1, 2)]
    slopes = np.log2(np.divide(errors[:-1], errors[1:]))
    assert abs(slopes[-1] - order) < 0.25


def differences(f, x, d):
    """Of fourth order."""
    steps = d * np.eye(len(x))
    return [(f(x - 2 * e) - 8 * f(x - e) + 8 * f(x + e) - f(x + 2 * e)) / (12 * d) for e in steps]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "options", "close"),
    [
        (de.Rodas5P(), {"dt": 0.1, "lags": False}, 1e-8),  # longer than the lag
        (de.KenCarp4(), {"rtol": 1e-9, "atol": 1e-11}, 1e-6),
        (de.BDF(), {"rtol": 1e-9, "atol": 1e-11}, 1e-6),
    ],
)
def test_derivatives_by_a_rate_and_a_lag(method, options, close):
    """Of steps that look at themselves, differences are taken of the same steps; else of a solve
    by another method.
    """
    own = "dt" in options
    x = np.array([1.5, 0.045 if own else 0.75])
    end = lambda x: logistic(method, x, **options)
    expected = differences(jax.jit(end) if own else REFERENCE, x, 1e-3)
    np.testing.assert_allclose(jax.jit(jax.grad(end))(x), expected, rtol=0, atol=close)


def test_a_stage_beyond_the_end_of_a_step_is_refused():
    with pytest.raises(TypeError, match="stage beyond the end"):
        logistic(de.Kvaerno5(), dt=0.1)

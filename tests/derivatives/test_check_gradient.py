"""`check_gradient` says whether a derivative is to be trusted, and if not, why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.adjoints.check_gradient import make_report


def at_rest(a, tolerance=1e-5):
    """From a steady state: the error of y is zero, that of its tangent is not."""
    rates = lambda t, y, a: jnp.stack([a * y[0] - y[0] * y[1], -a * y[1] + y[0] * y[1]])
    problem = de.ODEProblem(rates, jnp.array([1.0, 1.0]), (0.0, 10.0), a)
    ts = jnp.linspace(0, 10, 101)
    sol = de.solve(problem, de.Tsit5(), saveat=ts, rtol=tolerance, atol=tolerance)
    return jnp.sum(sol.ys)


@pytest.mark.parametrize("x", [1, np.array([1, 2]), None, jnp.ones(0)])
def test_a_point_with_nothing_to_vary_is_refused(x):
    with pytest.raises(TypeError, match=r"no floats to vary; write 1\.0 for 1"):
        de.check_gradient(lambda x: at_rest(1.0), x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"directions": 0}, ValueError, "directions is 0; a positive whole number"),
        ({"rtol": -1.0}, ValueError, "rtol is -1.0; a positive number"),
    ],
)
def test_options_of_a_check_that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        de.check_gradient(lambda x: x, 1.0, **options)


@pytest.mark.thorough
def test_the_norm_trap_is_found_in_a_compiled_loss():
    loss = jax.jit(at_rest)
    before = jax.grad(loss)(1.0)
    report = de.check_gradient(loss, 1.0, directions=1)
    assert not report
    assert "norm trap" in report.cause
    assert 'de.Gauss(integral="adaptive")' in report.cause
    assert report.tangent_error > 1e3
    with pytest.raises(RuntimeError, match="not to be trusted"):
        report.check()
    assert jax.grad(loss)(1.0) == before  # nothing of the check is left in what was compiled


@pytest.mark.thorough
def test_what_is_right_is_said_to_be_right_and_what_cannot_be_had_is_noted():
    def loss(k):
        problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), k)
        return de.solve(problem, de.Tsit5(), rtol=1e-5, dense=True, max_saves=64)(0.5)

    report = de.check_gradient(loss, 1.0, directions=1)
    assert report.agrees
    assert report.check() is report
    assert report.disagreement < 1e-3
    assert "agrees" in repr(report)
    assert any("Forward does not serve dense output" in note for note in report.notes)


@pytest.mark.parametrize(
    ("slopes", "wide", "tangent_error", "cause"),
    [
        ((1.0, 1.0, 1.0, 1.0), 0.0, 1.0, ""),
        ((1.0, np.nan, 1.0, 1.0), 0.0, np.nan, ""),
        ((6.0, 1.0, 6.0, 1.0), 0.0, 1e4, "norm trap"),
        ((2.0, 2.0, 2.0, 9.0), 9.0, 1.0, ""),
        ((1.2, 1.2, 1.0, 1.0), 0.0, 2.0, "too loose"),
        ((1.0, 1.0, 1.0, 3.0), 0.0, 1.0, "discontinuous"),
        ((1.0, 1.0, 3.0, 9.0), 9.0, 1.0, "do not settle"),
        ((np.nan, 1.0, 1.0, 1.0), 0.0, 1.0, "not finite"),
    ],
)
def test_who_agrees_with_whom(slopes, wide, tangent_error, cause):
    """As it is, by Forward, at tighter tolerances, by differences."""
    names = ("as it is", "Forward", "tighter", "differences")
    named = {name: np.array([slope]) for name, slope in zip(names, slopes, strict=True)}
    report = make_report(named, np.array([wide]), tangent_error, 1e-2, [])
    assert report.agrees == (cause == "")
    assert cause in report.cause

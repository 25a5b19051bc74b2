"""Delay equations against closed forms and against the chain of ODEs that the method of steps
makes of them; in trees, backwards, in single precision.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import diffeq as de

CASES = {case.name: case for case in de.zoo.delay_cases()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_errors_follow_the_tolerance(case):
    sol = de.solve(case.problem(), de.Tsit5(), rtol=1e-10, atol=1e-12)
    assert jnp.max(jnp.abs(sol.y1 - case.y1)) < 2e-8


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("hutchinson", lambda y, delayed: 2.0 * y * (1 - delayed)),
        ("mackey_glass", lambda y, delayed: 0.2 * delayed / (1 + delayed**10) - 0.1 * y),
    ],
)
def test_stored_ends_are_those_of_the_chain_of_odes(name, field):
    """On each stretch of one lag the past is another unknown of an ordinary equation."""
    case = CASES[name]
    lag, (start,) = case.args[-1], case.history
    ends = [start]
    for _ in range(round(case.tspan[1] / lag)):
        chain = solve_ivp(
            lambda _, z: field(z, np.concatenate([[start], z[:-1]])), (0, lag), ends,
            method="DOP853", rtol=1e-13, atol=1e-15,
        )  # fmt: skip
        ends.append(chain.y[-1, -1])
    assert abs(ends[-1] - case.y1[0]) < 1e-12


def test_polynomials_are_exact_across_their_kinks():
    """Degree one more in each unit of time: a fifth-order method makes no error to degree five."""
    case = CASES["delayed_decay"]
    ts = jnp.array([0.5, 1.0, 1.7, 2.0, 3.3, 5.0])
    sol = de.solve(case.problem(), de.Tsit5(), saveat=ts, rtol=1e-6, dense=True)
    exact = np.stack([case.exact(float(t)) for t in ts])
    np.testing.assert_allclose(sol.ys[:-1], exact[:-1], atol=1e-12)
    assert abs(sol(1.7) - exact[2]) < 1e-12
    assert int(sol.stats["stops"]) == 4  # the fifth kink is the end


def test_a_declared_lag_that_vanishes_at_the_start():
    """A series solves y' = −y(t/2): the first step is not as short as the lag, which is 0."""
    half = de.DDEProblem(
        lambda t, y, past, a: -past(t / 2), None, (0.0, 1.0), history=1.0,
        lags=lambda t, y, a: t / 2,
    )  # fmt: skip
    terms = np.cumprod([1.0, *(-(0.5**n) / (n + 1) for n in range(20))])
    assert abs(de.solve(half, rtol=1e-9, atol=1e-9).y1 - terms.sum()) < 1e-8


def test_a_jump_at_the_start_is_seen_from_its_own_side():
    """Y = 2 from 0 on, and 1 before: y = 2 − t, then the integral of that, and of that."""
    problem = de.DDEProblem(
        lambda t, y, past, a: -past(t - a), 2.0, (10.0, 12.5), 1.0, history=1.0, lags=lambda a: a
    )
    for method in (de.Bosh3(), de.RK4()):
        options = {} if method.adaptive else {"dt": 0.1}
        sol = de.solve(problem, method, **options)
        assert abs(sol.y1 - (-0.5 - (0.5 - 0.25 + 0.125 / 6))) < 1e-12


def test_backwards_the_past_lies_at_later_times():
    problem = de.DDEProblem(
        lambda t, y, past, a: past(t + 1.0), None, (0.0, -3.0), history=1.0, lags=1.0
    )
    forwards = CASES["delayed_decay"].exact(3.0)
    end = lambda t1: de.solve(problem.replace(tspan=(0.0, t1)), de.Bosh3(), rtol=1e-8).y1
    np.testing.assert_allclose(end(-3.0), forwards[0], atol=1e-12)
    free = jax.jit(end)
    np.testing.assert_allclose(free(-3.0), forwards[0], atol=1e-12)


@pytest.mark.thorough
def test_trees_complex_states_and_many_times_at_once():
    def f(t, y, past, lags):
        old = past(t - lags)
        assert old["z"].shape == (2,)
        return {"x": -old["x"][0], "z": 1j * old["z"][1] + y["x"][0] - y["x"][0]}

    y0 = {"x": jnp.ones(2), "z": jnp.array(1.0 + 0j)}
    lags = jnp.array([1.0, 0.5])
    problem = de.DDEProblem(f, None, (0.0, 2.0), lags, history=y0, lags=lambda lags: lags)
    y1 = de.solve(problem, rtol=1e-9, atol=1e-11).y1
    np.testing.assert_allclose(y1["x"], CASES["delayed_decay"].exact(2.0)[0], atol=1e-12)
    half = sum(
        (1j) ** k * (2.0 - (k - 1) * 0.5) ** k / np.prod(np.arange(1, k + 1)) for k in range(6)
    )
    np.testing.assert_allclose(y1["z"], half, atol=1e-8)


def test_single_precision():
    problem = CASES["hutchinson"].problem()
    problem = problem.replace(
        history=jnp.array([0.5], jnp.float32), args=jnp.array([2.0, 1.0], jnp.float32)
    )
    sol = de.solve(problem, rtol=1e-5, atol=1e-6)
    assert sol.y1.dtype == jnp.float32
    assert abs(sol.y1[0] - CASES["hutchinson"].y1[0]) < 2e-3


@pytest.mark.thorough
def test_steps_longer_than_the_lag_look_at_themselves():
    """With no kink declared the step grows beyond the lag; it agrees with one that may not."""
    problem = de.DDEProblem(
        lambda t, y, past, a: -past(t - 0.01),
        None,
        (0.0, 3.0),
        history=lambda t, _: jnp.cos(t),
        lags=(),
    )
    long = de.solve(problem, rtol=1e-9, atol=1e-11)
    short = de.solve(problem, rtol=1e-9, atol=1e-11, controller=de.PI(dtmax=0.009))
    assert long.stats["steps"] < 60 < short.stats["steps"]
    assert abs(long.y1 - short.y1) < 1e-8
    given = de.solve(problem, de.RK4(), dt=0.05)  # and so do given steps, to rounding
    assert abs(given.y1 - short.y1) < 1e-5

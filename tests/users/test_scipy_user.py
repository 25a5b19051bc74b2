"""Someone who knows `scipy.integrate.solve_ivp`: lists, floats, NumPy, nothing of JAX."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import diffeq as de


def lotka_volterra(t, y, args):
    prey, predator = y
    a, b, c, d = args
    return [a * prey - b * prey * predator, -c * predator + d * prey * predator]


def test_lists_and_floats_agree_with_scipy():
    times = [0.0, 1.0, 2.5, 4.0]
    args = [1.5, 1.0, 3.0, 1.0]
    problem = de.ODEProblem(lotka_volterra, [1, 1.0], [0, 4], args)
    sol = de.solve(problem, saveat=times, rtol=1e-9, atol=1e-9)
    theirs = solve_ivp(
        lambda t, y: lotka_volterra(t, y, args),
        (0, 4),
        [1.0, 1.0],
        t_eval=times,
        rtol=1e-10,
        atol=1e-10,
    )
    np.testing.assert_allclose(sol.ys, theirs.y.T, rtol=1e-6)
    assert np.asarray(sol.ts).tolist() == times
    assert "success" in repr(sol)


def test_a_float_is_a_state():
    sol = de.solve(
        de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0), rtol=1e-8, atol=1e-8
    )
    assert sol.ys.shape == (1,)
    assert float(sol.y1) == pytest.approx(math.exp(-2.0), rel=1e-6)


def test_numpy_arrays_and_scalars():
    problem = de.ODEProblem(lambda t, y, k: -k @ y, np.ones(2), np.array([0.0, 1.0]), np.eye(2))
    sol = de.solve(problem, saveat=np.linspace(0, 1, 5), rtol=np.float64(1e-8), atol=[1e-9, 1e-8])
    np.testing.assert_allclose(sol.ys[:, 0], np.exp(-np.linspace(0, 1, 5)), rtol=1e-6)


def test_a_linspace_from_a_computed_end_is_inside():
    end = 0.1 + 0.2
    problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 0.3))
    sol = de.solve(problem, saveat=np.linspace(0, end, 4))
    assert bool(sol.success)
    assert float(sol.ys[-1]) == float(sol.y1)


def test_arrays_of_numpy_are_taken_in_single_precision_without_a_word():
    """Warnings are errors here; JAX has one of its own for the dtype of such an array."""
    with jax.enable_x64(False):
        y0, rates, ts = np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.linspace(0.0, 1.0, 3)
        problem = de.ODEProblem(lambda t, y, k: -k * y, y0, (0.0, 1.0), rates)
        sol = de.solve(problem, saveat=ts, rtol=1e-5)
        gradient = jax.grad(lambda k: de.solve(problem.replace(args=k), rtol=1e-5).y1.sum())(rates)
    assert sol.ys.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys, y0 * np.exp(-np.outer(ts, rates)), rtol=1e-4)
    np.testing.assert_allclose(gradient, -y0 * np.exp(-rates), rtol=1e-4)

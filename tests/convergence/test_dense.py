"""A step: its estimate, and its polynomial, with order inside the step, ends, slope and saves."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import ALL, by_scipy, example, form_of, problem, slope_of

import diffeq as de
from diffeq.controllers.tolerance import Tolerance
from diffeq.methods import METHODS

T0 = 0.3
THETAS = np.array([0.0, 0.15, 0.4, 0.75, 1.0])
DTS = 0.6 * 0.8 ** np.arange(24)
UNIT = Tolerance(jnp.array(0.0), jnp.array(1.0))  # an error in its own units
TENTH = 8  # from here on they are of a tenth, and shorter
# What is left of an error when dt is short: coefficients that cancel, or x1 − x0 over dt in v.
FLOOR = {"Vern6": 1e-11, "Vern7": 1e-11, "Vern8": 1e-10, "Vern9": 1e-11}


def local_exponent(method):
    """The error of one step inside it is O(dt^this)."""
    own = getattr(method.tableau, "dense_order", None)
    if own is not None:
        return min(method.order, own) + 1
    if method.form == "partitioned" and method.order > 3:
        return min(method.order, 5)  # that of v, the slope of x
    return min(method.order, 3) + 1


def steps_of(method):
    """Steps of the lengths DTS from one state: (y, at the ends, errors, inside, slopes, rates)."""
    form, y = form_of(method)
    t = jnp.array(T0)

    def one(dt):
        step = method.step(form, t, y, dt, method.init(form, t, y))
        polynomial = method.interpolant(form, t, y, dt, step)
        at = lambda theta: (
            *jax.jvp(polynomial, (theta,), (jnp.ones(()),)), polynomial.slope(theta),
        )  # fmt: skip
        error = step.error
        if isinstance(error, tuple):  # of Dopri8, which blends two: the size that is judged
            error = jnp.sqrt(UNIT.squared(error, y, step.y, None)[0])
        return step.y, error, *jax.vmap(at)(jnp.asarray(THETAS))

    program = jax.jit(one)
    steps = jax.device_get([program(dt) for dt in DTS])
    end, error, inside, rate, slope = (np.array(part) for part in zip(*steps, strict=True))
    return np.asarray(y), end, error, inside, rate / DTS.reshape(-1, *[1] * (rate.ndim - 1)), slope


@cache
def exact(name):
    """The solution at each θ of each step, from the same state, on the problem of this method."""
    ts, where = np.unique(T0 + np.outer(DTS, THETAS), return_inverse=True)
    equation = problem(METHODS[name]()).replace(tspan=(T0, T0 + DTS[0]))
    return by_scipy(equation, ts)[where.reshape(len(DTS), -1)]


@pytest.mark.parametrize("name", ALL)
def test_a_step_and_its_polynomial(name):
    method = METHODS[name]()
    y, end, error, inside, rate, slope = steps_of(method)
    # Order inside the step.
    gaps = inside.reshape(*inside.shape[:2], -1) - exact(example(method))
    gaps = np.abs(gaps[:, 1:-1]).max(axis=(1, 2))
    assert slope_of(gaps, DTS, FLOOR.get(name, 1e-12)) > local_exponent(method) - 0.3
    # Ends: Vern7's and Vern9's interpolants are printed to 1e-11; that of Vern8 cancels to 1e-10.
    np.testing.assert_allclose(inside[:, 0], np.broadcast_to(y, end.shape), atol=1e-14)
    np.testing.assert_allclose(inside[TENTH:, -1], end[TENTH:], rtol=0, atol=1e-10)
    # The slope is the derivative.
    np.testing.assert_allclose(slope[TENTH], rate[TENTH], rtol=1e-9, atol=1e-9)
    # The estimate is O(dt^error_order).
    if method.adaptive:
        sizes = np.abs(error).reshape(len(DTS), -1).max(axis=1)
        floor = 1e-12 if name == "Vern6" else 1e-14
        assert slope_of(sizes, DTS, floor) == pytest.approx(method.error_order, abs=0.3)


@pytest.mark.parametrize("name", ["RK4", "BS5", "ForestRuth", "DPRKN6"])
def test_saving_more_changes_nothing(name):
    """By cubics, by more stages, and of splittings and Nyström's methods."""
    method = METHODS[name]()
    solve = lambda at: de.solve(problem(method, 1.0), method, dt=0.1, saveat=at)
    one, two = solve(np.array([0.33, 1.0])), solve(np.linspace(0.0, 1.0, 101))
    for a, b, c in zip(*map(jax.tree.leaves, (one.ys, two.ys, two.y1)), strict=True):
        np.testing.assert_allclose(a, b[np.array([33, 100])], rtol=0, atol=1e-14)
        np.testing.assert_allclose(b[-1], c, rtol=0, atol=1e-14)

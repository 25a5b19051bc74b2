"""A step as a polynomial: its order inside the step, its ends, its slope, and saves through it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import ALL, example, form_of, problem, slope_of

import diffeq as de
from diffeq.methods import METHODS

T0 = 0.3
THETAS = np.array([0.15, 0.4, 0.75])
DTS = 0.6 * 0.8 ** np.arange(24)
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


def stepper(name):
    method = METHODS[name]()
    form, y = form_of(method)
    t = jnp.array(T0)

    def polynomial(dt):
        step = method.step(form, t, y, dt, method.init(form, t, y))
        return step, method.interpolant(form, t, y, dt, step)

    return y, polynomial


@cache
def reference(name):
    """The solution at each θ of each step, from the same state, on the problem of this method."""
    method = METHODS[name]()

    def inside(dt):
        inner = problem(method).replace(tspan=(T0, T0 + dt))
        sol = de.solve(inner, de.Vern9(), dt=dt / 20, saveat=T0 + THETAS * dt, max_steps=24)
        return jnp.concatenate([x.reshape(3, -1) for x in jax.tree.leaves(sol.ys)], axis=1)

    return np.asarray(jax.jit(jax.vmap(inside))(jnp.asarray(DTS)))


@pytest.mark.parametrize("name", ALL)
def test_order_inside_a_step(name):
    method = METHODS[name]()
    _, polynomial = stepper(name)
    found = jax.jit(jax.vmap(lambda dt: jax.vmap(polynomial(dt)[1])(jnp.asarray(THETAS))))(DTS)
    errors = np.abs(found.reshape(*DTS.shape, 3, -1) - reference(example(method))).max(axis=(1, 2))
    assert slope_of(errors, DTS, FLOOR.get(name, 1e-12)) > local_exponent(method) - 0.3


@pytest.mark.parametrize("name", ALL)
def test_ends_and_slopes(name):
    y, polynomial = stepper(name)
    dt = jnp.array(0.1)
    step, inside = polynomial(dt)
    at = lambda theta: inside(jnp.asarray(theta, float))
    # The interpolants of Vern7 and Vern9 are printed to 1e-11; that of Vern8 cancels to 1e-10.
    np.testing.assert_allclose(at(0.0), y, atol=1e-14)
    np.testing.assert_allclose(at(1.0), step.y, rtol=0, atol=1e-10)
    for theta in jnp.asarray(THETAS):
        _, derivative = jax.jvp(inside, (theta,), (jnp.ones(()),))
        np.testing.assert_allclose(inside.slope(theta), derivative / dt, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["RK4", "Tsit5", "Vern7", "ForestRuth", "KahanLi8", "DPRKN6"])
def test_saving_more_changes_nothing(name):
    method = METHODS[name]()
    few, many = jnp.array([0.33, 1.0]), jnp.linspace(0.0, 1.0, 101)
    inner = problem(method, 1.0)
    one = de.solve(inner, method, dt=0.1, saveat=few).ys
    two = de.solve(inner, method, dt=0.1, saveat=many).ys
    last = de.solve(inner, method, dt=0.1).y1
    for a, b, c in zip(*map(jax.tree.leaves, (one, two, last)), strict=True):
        np.testing.assert_allclose(a, b[jnp.array([33, 100])], rtol=0, atol=1e-14)
        np.testing.assert_allclose(b[-1], c, rtol=0, atol=1e-14)

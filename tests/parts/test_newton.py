"""Newton's method inside a step: when it stops, and the derivative of what it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffeq.algebra.newton import Bounds, simplified_newton
from diffeq.algebra.roots import implicit_root

CLOSE = Bounds(jnp.abs, 1e-8, 10)


def linear(rate, factor=1.0, bounds=CLOSE):
    """r(x) = 1 − x, with a matrix that makes the updates shrink by this rate."""
    return simplified_newton(
        lambda x: 1 - x, lambda r: (1 - rate) * r, jnp.array(0.0), bounds, factor
    )


def test_a_right_matrix_takes_one_turn_and_one_to_see_it():
    found = linear(0.0)
    assert (int(found.turns), float(found.x), bool(found.found)) == (2, 1.0, True)
    # With a rate known from elsewhere, one is enough.
    assert int(linear(0.0, factor=1e-9).turns) == 1


@pytest.mark.parametrize("rate", [1e-3, 0.05, 0.12])
def test_what_is_left_is_within_the_limit(rate):
    found = linear(rate)
    assert bool(found.found)
    assert abs(float(found.x) - 1) <= 1e-8
    # And no turn more than the rate asks for.
    assert int(found.turns) <= 2 + np.ceil(np.log(1e-8) / np.log(rate))
    assert float(found.factor) == pytest.approx(rate / (1 - rate), rel=1e-3)


@pytest.mark.parametrize(("rate", "turns"), [(0.9, 2), (1.5, 2), (-2.0, 2), (np.nan, 1)])
def test_hopeless_turns_are_not_taken(rate, turns):
    found = linear(rate)
    assert (bool(found.found), int(found.turns)) == (False, turns)


def test_more_turns_are_taken_where_nobody_tries_again():
    assert not linear(0.5).found
    assert linear(0.5, bounds=CLOSE._replace(turns=50)).found


def test_less_than_the_rounding_of_an_iterate_is_not_asked_for():
    """Updates of 2e-6 that no longer shrink are noise where x = 1 is only known to 1e-5."""
    update = lambda r: 0.9 * r + 1e-6 * jnp.sign(r)
    noisy = lambda bounds: simplified_newton(lambda x: 1 - x, update, jnp.array(0.0), bounds)
    assert not noisy(CLOSE).found
    assert noisy(CLOSE._replace(rounding=lambda x: 1e-5 * jnp.abs(x))).found


def test_lanes_stop_on_their_own():
    rates = jnp.array([0.0, 0.1, 0.9, 1e-3])
    lanes = jax.jit(jax.vmap(linear))(rates)
    for i, rate in enumerate(rates):
        for lane, alone in zip(lanes, linear(rate), strict=True):
            np.testing.assert_array_equal(lane[i], alone)


def test_the_turns_have_no_derivative():
    def x(a):
        return simplified_newton(lambda x: a - x**2, lambda r: r / (2 * a), a, CLOSE).x

    assert jax.grad(x)(jnp.array(1.2)) == 0.0


# --- the derivative of the root -------------------------------------------------------------------


def cube_root(a, b=1.0):
    """x³ b = a, solved beforehand."""
    x = jnp.array((a / b) ** (1 / 3))
    return implicit_root(lambda x: a - b * x**3, x, lambda x, r: r / (3 * b * x**2))


def test_every_order():
    f, exact = cube_root, lambda a: a ** (1 / 3)
    for _ in range(4):
        assert float(f(1.7)) == pytest.approx(float(exact(1.7)), rel=1e-12)
        f, exact = jax.grad(f), jax.grad(exact)


def test_by_each_of_two_inputs():
    exact = lambda a, b: (a / b) ** (1 / 3)
    for transform in (jax.grad, jax.jacfwd, jax.hessian):
        found = transform(cube_root, argnums=(0, 1))(1.7, 0.6)
        np.testing.assert_allclose(
            jnp.array(found), jnp.array(transform(exact, argnums=(0, 1))(1.7, 0.6)), rtol=1e-11
        )


@pytest.mark.thorough
def test_of_systems_and_lanes():
    M = jnp.array([[2.0, 0.3], [-0.4, 1.5]])

    def solution(b):
        def residual(x):
            return b - M @ x - 0.1 * x**3

        def inverse(x, r):
            return jnp.linalg.solve(M + jnp.diag(0.3 * x**2), r)

        bounds = Bounds(lambda d: jnp.max(jnp.abs(d)), 1e-14, 60)
        found = simplified_newton(residual, lambda r: jnp.linalg.solve(M, r), jnp.zeros(2), bounds)
        return implicit_root(residual, found.x, inverse)

    def unrolled(b):
        x = jnp.zeros(2)
        for _ in range(12):
            step = jnp.linalg.solve(M + jnp.diag(0.3 * x**2), b - M @ x - 0.1 * x**3)
            x = x + step
        return x

    b = jnp.array([0.9, -1.1])
    for transform in (jax.jacrev, jax.jacfwd, jax.hessian):
        np.testing.assert_allclose(transform(solution)(b), transform(unrolled)(b), atol=1e-12)
    lanes = jnp.stack([b, 2 * b, b[::-1]])
    each = jnp.stack([jax.jacrev(solution)(x) for x in lanes])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.jacrev(solution)))(lanes), each, atol=1e-13)

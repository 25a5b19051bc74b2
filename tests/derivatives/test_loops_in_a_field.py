"""Branches and loops in a field: both modes go through all but a `while`, which is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import diffeq as de

K = 1.3


def halved(k):
    """A number of turns that is known as it runs."""

    def field(t, y, args):
        turns = jnp.where(y > 0.5, 3, 2)
        return -lax.while_loop(  # here
            lambda state: state[0] < turns, lambda state: (state[0] + 1, state[1] * k / 2), (0, y)
        )[1]

    return field


def within(k):
    """The same loop in a branch."""
    return lambda t, y, args: lax.cond(y > 0.1, lambda y: halved(k)(t, y, args), lambda y: y, y)


def end(field, k, method=None, adjoint=None):
    problem = de.ODEProblem(field(k), 1.0, (0.0, 0.5))
    return de.solve(problem, method or de.Heun(), rtol=1e-2, adjoint=adjoint).y1


@pytest.mark.parametrize(
    ("field", "method", "adjoint"),
    [
        (halved, de.Heun(), None),
        (within, de.Rosenbrock23(), None),
        (within, de.Heun(), de.Gauss()),
    ],
)
def test_a_while_loop_in_reverse_mode_is_named_by_its_line(field, method, adjoint):
    line = halved.__code__.co_firstlineno + 5
    said = rf"while loop in the field.*test_loops_in_a_field\.py:{line}.*lax\.scan.*jax\.jacfwd"
    with pytest.raises(ValueError, match=said):
        jax.grad(lambda k: end(field, k, method, adjoint))(K)


def scanned(k):
    """As `halved`, with turns that change nothing."""

    def turn(y, turn, turns):
        return jnp.where(turn < turns, y * k / 2, y), None

    def field(t, y, args):
        turns = jnp.where(y > 0.5, 3, 2)
        return -lax.scan(lambda y, i: turn(y, i, turns), y, jnp.arange(3))[0]

    return field


def bounded(k):
    """As `halved`, by a loop between Python numbers."""

    def field(t, y, args):
        turns = jnp.where(y > 0.5, 3, 2)
        return -lax.fori_loop(0, 3, lambda i, y: jnp.where(i < turns, y * k / 2, y), y)

    return field


def rooted(k):
    """−x with x³ = (k y / 2)³ by Newton's method, as often as that takes."""

    def newton(f, x):
        step = lambda x: x - f(x) / jax.grad(f)(x)
        return lax.while_loop(lambda x: jnp.abs(f(x)) > 1e-12, step, x)

    def field(t, y, args):
        equation = lambda x: x**3 - (k * y / 2) ** 3
        return -lax.custom_root(equation, y, newton, lambda slope, b: b / slope(1.0))

    return field


def chosen(k):
    """Branches by state and by an index."""

    def field(t, y, args):
        y = lax.cond(y > 0.5, lambda y: k * y, lambda y: y, y)
        return lax.switch((3 * y).astype(int), [lambda y: -y, lambda y: -k * y], y)

    return field


@pytest.mark.parametrize("field", [scanned, bounded, rooted, chosen])
def test_the_ways_out_work(field):
    backward, forward = (
        jax.jacrev(lambda k: end(field, k))(K),
        jax.jacfwd(lambda k: end(field, k))(K),
    )
    np.testing.assert_allclose(backward, forward, rtol=1e-12)
    if field in (scanned, bounded):
        through = jax.jacfwd(lambda k: end(halved, k))(K)
        np.testing.assert_allclose(backward, through, rtol=1e-12)


def test_forward_mode_goes_through_a_while_loop():
    slope = jax.jacfwd(lambda k: end(halved, k, adjoint=de.Forward()))(K)
    difference = (end(halved, K + 1e-6) - end(halved, K - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def rooted_where_positive(k):
    """√y, whose slope is not finite where the other branch is chosen."""
    return lambda t, y, args: lax.cond(y > 0, lambda y: -k * jnp.sqrt(y), lambda y: 0 * y - k, y)


def in_a_loop(k):
    return lambda t, y, args: lax.scan(
        lambda y, i: (rooted_where_positive(k)(t, y, args), None), y, jnp.arange(1)
    )[0]


@pytest.mark.parametrize(
    ("field", "method"),
    [
        (rooted_where_positive, de.Heun()),
        (in_a_loop, de.Heun()),
        (rooted_where_positive, de.Tsit5()),  # whose first stage is remembered
        (rooted_where_positive, de.Rosenbrock23()),
    ],
)
def test_branches_that_differ_between_lanes(field, method):
    """Lanes inside of a derivative: grad of vmap, and an ensemble in lockstep."""
    starts = jnp.array([1.0, 0.0, -1.0])

    def one(k, y0):
        problem = de.ODEProblem(field(k), y0, (0.0, 0.5))
        return de.solve(problem, method, dt=0.125).y1

    each = jnp.stack([jax.grad(one)(K, y0) for y0 in starts])
    together = jax.jit(jax.grad(lambda k: jax.vmap(lambda y0: one(k, y0))(starts).sum()))(K)
    assert jnp.isfinite(each).all()
    np.testing.assert_allclose(together, each.sum(), rtol=1e-12)

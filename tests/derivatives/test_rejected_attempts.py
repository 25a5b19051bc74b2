"""Rejected attempts: a derivative goes back over the accepted ones alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.adjoints.tape import Recorder

jax.config.update("jax_enable_x64", True)

COUNTED = []


@jax.custom_vjp
def counted(x):
    """x, whose reverse derivative is counted."""
    return x


def _count(ct):
    COUNTED.append(1)
    return ct


counted.defvjp(
    lambda x: (x, None),
    lambda _, ct: (jax.pure_callback(_count, jax.ShapeDtypeStruct(ct.shape, ct.dtype), ct),),
)


def relaxation(t, y, k):
    """Van der Pol's oscillator, whose fast parts reject attempts."""
    return jnp.stack([y[1], k * (1.0 - y[0] ** 2) * y[1] - y[0]])


def solve(field, k, adjoint, method=None, y0=(2.0, 0.0)):
    problem = de.ODEProblem(field, jnp.array(y0), (0.0, 12.0), k)
    return de.solve(problem, method or de.Tsit5(), rtol=1e-4, atol=1e-6, adjoint=adjoint)


@pytest.mark.parametrize("rows", [None, 16])
def test_each_accepted_step_is_differentiated_once(rows):
    """Six stages each, of a whole tape and of the windows of a thinned one."""
    field = lambda t, y, k: counted(relaxation(t, y, k))
    adjoint = de.Discrete(rows=rows)
    stats = solve(field, 5.0, adjoint).stats
    steps, rejected = int(stats["steps"]), int(stats["rejected"])
    assert rejected > 3
    COUNTED.clear()
    slope = jax.grad(lambda k: solve(field, k, adjoint).y1[0])(5.0)
    jax.block_until_ready(slope)
    # The first stage of a step is the last one of the step before: one more, and the first step
    # size's evaluations, whose derivative is none.
    assert 6 * steps <= len(COUNTED) <= 6 * steps + 3 < 6 * (steps + rejected)


@pytest.mark.parametrize(
    ("size", "multiplies", "again"),
    [(64, False, 6), (2000, False, 7), (2000, True, 6), (20_000, True, 7)],
)
def test_a_first_stage_on_the_tape_is_not_evaluated_again(size, multiplies, again):
    """It is there where it is small, and where it is not large and costs products."""
    evaluated = []

    def rates(t, y, k):
        like = jax.ShapeDtypeStruct((), y.dtype)
        one = jax.pure_callback(lambda t: evaluated.append(1) or np.ones_like(t), like, t)
        y = (y.reshape(-1, 4) @ jnp.eye(4)).ravel() if multiplies else y
        return -k * one * y

    problem = de.ODEProblem(rates, jnp.ones(size), (0.0, 1.0), 1.0)
    end = lambda k: jnp.mean(de.solve(problem.replace(args=k), de.Tsit5(), dt=0.25).y1)
    slope = jax.block_until_ready(jax.grad(end)(1.0))
    # The first stage is evaluated once by the solve, and once by its derivative.
    assert len(evaluated) == (1 + 4 * 6) + (1 + 4 * again)
    assert float(slope) == pytest.approx(-math.exp(-1.0), rel=1e-3)


@pytest.mark.parametrize("method", [de.Tsit5(), None], ids=["Tsit5", "default"])
def test_lanes_that_reject_differently_have_the_derivatives_of_each_alone(method):
    rates = jnp.array([1.0, 5.0, 9.0])
    end = lambda k: jnp.sum(solve(relaxation, k, None, method).y1)
    stats = jax.vmap(lambda k: solve(relaxation, k, None, method).stats)(rates)
    assert len(set(stats["rejected"].tolist())) == 3
    for of in (jax.grad, lambda f: jax.jacfwd(jax.grad(f))):
        alone = jnp.stack([of(end)(k) for k in rates])
        within = jax.vmap(of(end))(rates)
        around = of(lambda ks: jnp.sum(jax.vmap(end)(ks)))(rates)
        around = jnp.diagonal(around) if around.ndim > 1 else around
        np.testing.assert_allclose(within, alone, rtol=1e-7)
        np.testing.assert_allclose(around, alone, rtol=1e-7)


def test_lanes_list_their_accepted_attempts_where_steps_multiply_matrices(monkeypatch):
    """Each reads its rows number by number, which is not worth it for a few scalar operations."""
    listed, accepted = [], Recorder.accepted
    monkeypatch.setattr(
        Recorder, "accepted", lambda self, *rows: listed.append(1) or accepted(self, *rows)
    )
    weights = jnp.eye(2) + 0.1
    network = lambda t, y, k: jnp.tanh(weights @ y) - k * y
    end = lambda field: lambda k: jnp.sum(solve(field, k, None).y1)
    rates = jnp.array([1.0, 2.0])
    for field, in_lanes in ((relaxation, False), (network, True)):
        gradient = jax.grad(end(field))
        for run, at, expected in ((gradient, 1.0, True), (jax.vmap(gradient), rates, in_lanes)):
            listed.clear()
            jax.make_jaxpr(run)(at)
            assert bool(listed) == expected


def test_a_solve_without_an_accepted_step_has_a_gradient_of_nan():
    """And the other element of a batch its own."""
    field = lambda t, y, k: -k * y / jnp.where(k > 1, 1.0, 0.0)
    problem = lambda k: de.ODEProblem(field, 1.0, (0.0, 1.0), k)
    end = lambda k: de.solve(problem(k), de.Rosenbrock23(), rtol=1e-6).y1
    rates = jnp.array([0.5, 2.0])
    steps = lambda k: de.solve(problem(k), de.Rosenbrock23(), rtol=1e-6).stats["steps"]
    assert jax.jit(jax.vmap(steps))(rates)[0] == 0
    total = lambda ks: jnp.sum(jax.vmap(end)(ks))
    for gradient in (jax.vmap(jax.grad(end)), jax.grad(total)):
        found = jax.jit(gradient)(rates)
        assert jnp.isnan(found[0])
        np.testing.assert_allclose(found[1], -np.exp(-2.0), rtol=1e-4)
    assert jnp.isnan(jax.jit(jax.grad(end))(0.5))

"""A digital controller: sampled, held in between, differentiable, with an end of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import diffeq as de

PERIOD = 0.2


def cart(t, y, gain):
    return {"x": jnp.stack([y["x"][1], y["u"]])}


def sample(t, y, gain):
    return {**y, "u": -gain @ y["x"]}


def start():
    return {"x": jnp.array([1.0, 0.0]), "u": de.hold(0.0)}


LOOP = de.Periodic(PERIOD, sample, phase=0.0)


def by_matrices(gain, steps):
    """X ← A x + B u with u = −gain · x, which is what a held control of a linear plant is."""
    block = expm(np.block([[np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])],
                           [np.zeros((1, 3))]]) * PERIOD)  # fmt: skip
    x, rows = np.array([1.0, 0.0]), []
    for _ in range(steps):
        x = block[:2, :2] @ x + block[:2, 2] * -(np.asarray(gain) @ x)
        rows.append(x)
    return np.array(rows)


def test_sampled_control_is_exact():
    gain = jnp.array([2.0, 1.5])
    problem = de.ODEProblem(cart, start(), (0.0, 2.0), gain)
    ts = PERIOD * jnp.arange(1, 11)
    sol = de.solve(problem, events=LOOP, saveat=ts)
    np.testing.assert_allclose(sol.ys["x"], by_matrices(gain, 10), atol=1e-9)
    assert int(sol.events[0].num) == 11
    held = -(np.vstack([[1.0, 0.0], by_matrices(gain, 10)]) @ np.asarray(gain))
    np.testing.assert_allclose(sol.ys["u"], held[1:], atol=1e-9)  # at a sample, the new one


@pytest.mark.thorough
def test_the_time_of_arrival_differentiates_by_the_gain():
    """The end of the run depends on the gain: it stops when the cart passes 0.1."""
    there = de.Event(lambda t, y, gain: y["x"][0] - 0.1, direction=-1)

    def run(gain):
        problem = de.ODEProblem(cart, start(), (0.0, 10.0), gain)
        return de.solve(problem, events=(LOOP, there), max_events=64)

    gain = jnp.array([1.0, 1.0])
    arrival = lambda gain: run(gain).t1
    found = jax.jit(jax.grad(arrival))(gain)
    want = [(arrival(gain + h) - arrival(gain - h)) / 2e-5 for h in 1e-5 * np.eye(2)]
    np.testing.assert_allclose(found, want, rtol=1e-5)

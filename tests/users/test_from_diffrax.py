"""Someone who comes from diffrax: what was SubSaveAt, StepTo and a solver of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.methods.base import Step

PROBLEM = de.ODEProblem(lambda t, y, k: -k * y, jnp.array([1.0, 2.0]), (0.0, 1.0), 0.7)


def test_several_things_at_several_times():
    sol = de.solve(
        PROBLEM,
        saveat={"fine": jnp.linspace(0, 1, 11), "end": None, "sum": jnp.array([0.5])},
        save={"sum": lambda t, y, k: {"total": y.sum(), "t": t}},
        rtol=1e-8, atol=1e-8,
    )  # fmt: skip
    assert sol.ys["fine"].shape == (11, 2)
    assert sol.ys["end"].shape == (1, 2)
    np.testing.assert_allclose(sol.ys["sum"]["total"], [3 * np.exp(-0.35)], rtol=1e-7)
    assert float(sol.ys["sum"]["t"][0]) == 0.5
    assert set(sol.ts) == set(sol.saved) == set(sol.num) == {"fine", "end", "sum"}


def test_a_fixed_list_of_steps():
    ts = jnp.array([0.0, 0.1, 0.15, 0.6, 1.0])
    solve = lambda ts: de.solve(
        PROBLEM, de.RK4(), controller=de.Fixed(ts), saveat="steps", max_saves=8
    )
    sol = solve(ts)
    np.testing.assert_array_equal(sol.ts, ts)
    assert int(sol.stats["steps"]) == 4
    y, a = PROBLEM.y0, PROBLEM.args
    for dt in np.diff(ts):
        y = y * (1 - a * dt + (a * dt) ** 2 / 2 - (a * dt) ** 3 / 6 + (a * dt) ** 4 / 24)
    np.testing.assert_allclose(sol.y1, y, rtol=1e-14)
    lists = jnp.stack([ts, jnp.array([0.0, 0.2, 0.4, 0.8, 1.0])])
    many = jax.vmap(lambda ts: solve(ts).y1)(lists)
    np.testing.assert_allclose(many[0], sol.y1, rtol=1e-13)
    np.testing.assert_allclose(many[1], solve(lists[1]).y1, rtol=1e-13)
    back = de.solve(
        PROBLEM.replace(tspan=(1.0, 0.0)), de.RK4(), controller=de.Fixed(ts[::-1]), saveat="steps"
    )
    np.testing.assert_allclose(back.ts, ts[::-1], atol=1e-15)


class Ralston(de.Method):
    """Ralston's method of second order, with Euler's inside it for the error."""

    weight: float = 0.75

    @property
    def order(self):
        return 2

    @property
    def adaptive(self):
        return True

    def step(self, form, t, y, dt, memory):
        k1 = form.field(t, y)
        k2 = form.field(t + dt * 2 / 3, y + dt * 2 / 3 * k1)
        y1 = y + dt * ((1 - self.weight) * k1 + self.weight * k2)
        return Step(y1, y1 - (y + dt * k1), memory, (k1, k2))


@pytest.mark.thorough
def test_a_method_of_their_own():
    exact = PROBLEM.y0 * jnp.exp(-0.7)
    errors = [jnp.abs(de.solve(PROBLEM, Ralston(), dt=dt).y1 - exact).max() for dt in (0.1, 0.05)]
    assert 3.5 < errors[0] / errors[1] < 4.5
    adaptive = de.solve(
        PROBLEM, Ralston(), rtol=1e-5, atol=1e-5, saveat=jnp.array([0.3]), dense=True
    )
    np.testing.assert_allclose(adaptive.ys[0], PROBLEM.y0 * jnp.exp(-0.21), rtol=1e-3)
    np.testing.assert_allclose(adaptive(0.3), adaptive.ys[0], rtol=1e-12)
    end = lambda k: de.solve(PROBLEM.replace(args=k), Ralston(), dt=0.1).y1[0]
    step = lambda k: (1 - 0.1 * k + 0.005 * k**2) ** 10
    for transform in (jax.grad, jax.hessian):
        np.testing.assert_allclose(transform(end)(0.7), transform(step)(0.7), rtol=1e-12)


def test_a_coefficient_of_their_method_differentiates():
    end = lambda weight: de.solve(PROBLEM, Ralston(weight), dt=0.1).y1[0]
    step = lambda w: (1 - 0.07 + w * 2 / 3 * 0.07**2) ** 10
    np.testing.assert_allclose(jax.grad(end)(0.75), jax.grad(step)(0.75), rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(end)(jnp.array([0.5, 0.75]))[1], end(0.75), rtol=1e-14)


def test_what_they_will_type_first_is_refused_helpfully():
    with pytest.raises(TypeError):
        de.solve(PROBLEM, de.Tsit5)
    with pytest.raises(TypeError, match="stepsize_controller"):
        de.solve(PROBLEM, de.Tsit5(), stepsize_controller=de.PID())

"""No derivative sees a user's method at dt = 0: a quotient by dt, NaN there, reaches none, though
steps are rejected and lanes end at different times.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.own_methods import ExponentialEuler
from tests.tiers import shortly

import diffeq as de
from diffeq.adjoints.forward_accumulation import ForwardAccumulation

RATE, T1 = 20.0, 1.0
METHOD = ExponentialEuler(jnp.array(RATE))
# dt0 is far too long: the first attempts are rejected.
OPTIONS = {"method": METHOD, "rtol": 1e-2, "atol": 1e-3, "dt0": 0.5}


def rest(t, y, k):
    return RATE * jnp.sin(k * t) + 0.3 * y**2


PROBLEM = de.ODEProblem(lambda t, y, k: -RATE * y + rest(t, y, k), 1.0, (0.0, T1), 1.3)
EVENTS = {
    "times": de.PresetTimes(jnp.array([0.3, 0.8]), lambda t, y, k: y + 0.1 * k),
    "crossing": de.Event(lambda t, y, k: y - 0.5, lambda t, y, k: y - 0.2 * k, direction=-1),
}


def along(ts, k):
    """The end by the same arithmetic, in a scan over the steps that were accepted."""

    def step(y, span):
        t, dt = span
        z = -RATE * dt
        return jnp.exp(z) * y + dt * jnp.expm1(z) / z * rest(t, y, k), None

    return jax.lax.scan(step, jnp.asarray(1.0), (ts[:-1], jnp.diff(ts)))[0]


def test_gradient_after_rejected_steps_is_that_of_the_accepted_ones():
    sol = de.solve(PROBLEM, saveat="steps", **OPTIONS)
    assert sol.stats["rejected"] > 0
    end = lambda k, **o: de.solve(PROBLEM.replace(args=k), **OPTIONS, **o).y1
    exact = lambda k: along(jnp.asarray(sol.ts), k)
    np.testing.assert_allclose(jax.grad(end)(1.3), jax.grad(exact)(1.3), rtol=1e-12)
    thinned = lambda k: end(k, adjoint=de.Discrete(rows=8))
    np.testing.assert_allclose(jax.grad(thinned)(1.3), jax.grad(exact)(1.3), rtol=1e-12)
    second = lambda f: jax.jacfwd(jax.jacfwd(f))(1.3)
    np.testing.assert_allclose(second(end), second(exact), rtol=1e-11)


def test_tangents_beside_the_solve_are_those_along_its_tape():
    end = lambda k, a: de.solve(PROBLEM.replace(args=k), adjoint=a, **OPTIONS).y1
    one, other = (jax.jacfwd(end)(1.3, a) for a in (de.Discrete(), ForwardAccumulation()))
    assert np.isfinite(one)
    np.testing.assert_allclose(one, other, rtol=1e-13)


def test_tangents_that_are_solved_along_agree():
    """Their errors are those of a method of first order, at this tolerance about one percent."""
    end = lambda k, a: de.solve(PROBLEM.replace(y0=k, args=k), adjoint=a, **OPTIONS).y1
    one, other = (jax.jacfwd(end)(1.3, a) for a in (de.Discrete(), de.Forward()))
    np.testing.assert_allclose(one, other, rtol=4e-2)


@pytest.mark.parametrize("saved", shortly([True, False], True))
def test_lanes_that_end_at_different_times(saved):
    """With an empty span among them, in which no step is made."""
    ends = jnp.array([1.0, 0.2, 0.0, 0.6])

    def one(k, t1):
        saveat = jnp.linspace(0.0, 1.0, 4) * t1 if saved else None
        sol = de.solve(PROBLEM.replace(args=k, tspan=(0.0, t1)), saveat=saveat, **OPTIONS)
        return jnp.sum(sol.ys) if saved else sol.y1

    many = jax.jit(jax.vmap(jax.value_and_grad(one, (0, 1)), (None, 0)))(1.3, ends)
    alone = jax.jit(jax.value_and_grad(one, (0, 1)))
    each = [alone(1.3, t1) for t1 in ends]
    jax.tree.map(
        lambda a, *b: np.testing.assert_allclose(a, jnp.stack(b), rtol=1e-11, atol=1e-13),
        many, *each,
    )  # fmt: skip


@pytest.mark.parametrize("name", shortly(EVENTS, "times"))
def test_events(name):
    """Against a solve by another method, so that the errors of this one show."""
    saveat = jnp.linspace(0.1, T1, 4)

    def rows(k, **options):
        problem = PROBLEM.replace(args=k)
        return jnp.sum(de.solve(problem, saveat=saveat, events=EVENTS[name], **options).ys)

    found = jax.grad(lambda k: rows(k, **OPTIONS))(1.3)
    wanted = jax.grad(lambda k: rows(k, method=de.Tsit5(), rtol=1e-6))(1.3)
    np.testing.assert_allclose(found, wanted, rtol=3e-2)


class Quotient(de.Method):
    """Heun's method, with the second derivative as a quotient."""

    @property
    def order(self):
        return 2

    def step(self, form, t, y, dt, memory):
        slope = form.field(t, y)
        bend = (form.field(t + dt, y + dt * slope) - slope) / dt
        return de.Step(y + dt * slope + dt**2 / 2 * bend, None, (), ())


def test_a_lane_whose_given_steps_fail_keeps_its_gradient_to_itself():
    def total(k, slopes):
        # The square root is NaN from t = 1/slope on.
        field = lambda t, y, a: -RATE * y + a[0] * jnp.sqrt(1 - a[1] * t)
        one = lambda slope: de.solve(
            de.ODEProblem(field, 1.0, (0.0, 0.5), (k, slope)), Quotient(), dt=0.1, throw=False
        )
        sol = jax.vmap(one)(slopes)
        return jnp.sum(jnp.where(sol.success, sol.last.y, 0.0))

    sound = jax.grad(total)(1.3, jnp.array([1.0, 0.5]))
    both = jax.grad(total)(1.3, jnp.array([1.0, 4.0, 0.5]))
    np.testing.assert_allclose(both, sound, rtol=1e-12)

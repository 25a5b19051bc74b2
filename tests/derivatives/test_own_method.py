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


class Projected(de.Method):
    """A midpoint rule that projects on the first slope, and so divides by its memory."""

    @property
    def order(self):
        return 2

    @property
    def adaptive(self):
        return True

    def init(self, form, t, y):
        return form.field(t, y)

    def step(self, form, t, y, dt, memory):
        middle = form.field(t + dt / 2, y + dt / 2 * memory)
        along = memory / jnp.sqrt(jnp.sum(memory**2))
        share = along * jnp.sum(along * middle)
        y1 = y + dt * share + dt * (middle - share)
        last = form.field(t + dt, y1)
        return de.Step(y1, dt / 2 * (memory - 2 * middle + last), last, ())


@pytest.mark.parametrize("rows", [None, 16], ids=["a tape", "windows"])
def test_a_rejected_attempt_has_a_memory_that_init_makes(rows):
    spring = de.ODEProblem(
        lambda t, y, k: jnp.array([y[1], -k * y[0]]), [1.0, 0.2], (0.0, 2.0), 3.0
    )
    options = {"rtol": 1e-4, "atol": 1e-5, "dt0": 1.0, "max_steps": 200}

    def end(k, adjoint):
        sol = de.solve(spring.replace(args=k), Projected(), adjoint=adjoint, **options)
        return sol.y1[0]

    found = jax.grad(end)(3.0, de.Discrete(rows=rows) if rows else de.Discrete())
    wanted = jax.jacfwd(end)(3.0, de.Forward())
    plain = jax.grad(lambda k: de.solve(spring.replace(args=k), rtol=1e-8).y1[0])(3.0)
    np.testing.assert_allclose([found, wanted], plain, rtol=1e-2)


class Counting(de.ExplicitRK):
    """Tsit5 with the number of steps in its memory beside the first stage."""

    def init(self, form, t, y):
        return super().init(form, t, y), jnp.zeros(())

    def step(self, form, t, y, dt, memory):
        first, count = memory
        step = super().step(form, t, y, dt, first)
        return step._replace(memory=(step.memory, count + 0.0 * count))


def test_a_memory_of_ones_own_on_top_of_a_family():
    """What `init` of a subclass makes is what the first step gets, and it has a derivative."""
    problem = de.ODEProblem(lambda t, y, k: -k * y, jnp.ones(2), (0.0, 1.0), 1.3)
    end = lambda k, method: jnp.sum(de.solve(problem.replace(args=k), method, rtol=1e-6).y1)
    own, named = (
        jax.value_and_grad(end)(1.3, method)
        for method in (Counting(de.Tsit5().tableau), de.Tsit5())
    )
    np.testing.assert_allclose(own, named, rtol=1e-13)


def test_forward_derivatives_by_the_start_have_those_of_the_first_slope():
    """The first slope is found with the first step size, from which nothing is differentiated."""
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 0.02), 2.0)

    def end(y0, t0):
        tspan = (t0, 0.02)
        return de.solve(
            problem.replace(y0=y0, tspan=tspan), de.Tsit5(), rtol=1e-3, adjoint=de.Forward()
        ).y1

    by_y0, by_t0 = jax.jacfwd(end, (0, 1))(1.0, 0.0)
    exact = np.exp(-0.04)
    np.testing.assert_allclose([by_y0, by_t0], [exact, 2 * exact], rtol=1e-9)


def test_a_branch_in_the_field_has_second_derivatives():
    """A branch is a walk of one step, whose operands may enter by their derivatives alone."""
    field = lambda t, y, k: jax.lax.cond(y > -9.0, lambda y: jnp.sin(y) * k, lambda y: -y * k, y)

    def end(v, field=field):
        return de.solve(de.ODEProblem(field, v[0], (0.0, 1.0), v[1]), de.Bosh3(), dt=0.5).y1

    at, along = jnp.array([0.7, 1.1]), jnp.array([0.3, 0.7])
    plain = lambda v: end(v, lambda t, y, k: jnp.sin(y) * k)
    wanted = jax.jvp(jax.grad(plain), (at,), (along,))[1]
    for of in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(jax.jvp(of(end), (at,), (along,))[1], wanted, rtol=1e-12)

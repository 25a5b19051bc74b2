"""BDF: its formulas against the calculus of differences, its past, its derivative, its solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq import zoo
from diffeq.methods import bdf
from diffeq.problems.forms import Mass

ORDERS = [1, 2, 3, 4, 5]


def exact(t, np=np):
    return np.stack([np.exp(np.sin(2 * t)), np.cos(3 * t)], -1)


def field(t, y):
    """Non-linear and non-autonomous, solved by `exact`."""
    a, b = exact(t, jnp)
    return jnp.stack([2 * jnp.cos(2 * t) * y[0], -3 * jnp.sin(3 * t) + y[1] ** 2 - b**2 + y[0] - a])


def past_of(values, k, dt):
    """The past of a method of order k, from y at t, t − dt, t − 2 dt, ..."""
    rows, differences = np.asarray(values), []
    for _ in range(bdf.ORDERS + 2):
        rows = rows[:-1] - rows[1:]
        differences.append(rows[0])
    return bdf._Differences(jnp.array(differences), jnp.array([dt, k, 0.0, 1.0]))


@jax.jit
def step_of(t, y, dt, past):
    return de.BDF().step(Mass(field), t, y, dt, past)


def step_from_exact_values(k, dt, t=0.4):
    values = exact(t - dt * np.arange(bdf.ORDERS + 3))
    step = step_of(t, exact(t), dt, past_of(values, k, dt))
    assert bool(step.solved)
    return step, step.y - exact(t + dt)


@pytest.mark.parametrize("k", ORDERS)
def test_one_step_of_each_order(k):
    """The local error is O(dt^(k+1)), and is what the estimate says."""
    dts = np.array([2.0**-5, 2.0**-6])
    steps = [step_from_exact_values(k, dt) for dt in dts]
    sizes = [np.linalg.norm(error) for _, error in steps]
    assert np.log2(sizes[0] / sizes[1]) == pytest.approx(k + 1, abs=0.3)
    step, error = steps[1]
    # y1 = ŷ1 + d solves the formula, which leaves C_k ∇ᵏ⁺¹y, times α_k.
    np.testing.assert_allclose(step.error / bdf.ALPHA[k], error, rtol=0.4, atol=0.3 * sizes[1])
    assert int(step.order) == k + 1


def test_constants_are_those_of_the_paper():
    """Shampine and Reichelt's table 1: how many percent longer the steps of each order are."""
    classical = 1 / np.arange(2, 6)
    longer = (classical / np.abs(bdf.ERROR[1:5])) ** (1 / np.arange(2, 6)) - 1
    np.testing.assert_allclose(longer, [0.26, 0.26, 0.26, 0.12], atol=0.01)


def test_the_past_at_another_spacing():
    """The same polynomial, whatever the spacing: of its degree and no higher."""
    dt, k = 0.1, 4
    values = lambda spacing: np.outer(
        np.polyval([0.3, -1.0, 2.0, 0.5, 1.0], -spacing * np.arange(8.0)), [1.0, 2.0]
    )
    past = past_of(values(dt), k, dt)
    for ratio in (0.3, 1.0, 2.5):
        other = past_of(values(ratio * dt), k, ratio * dt)
        found = past.at(jnp.array(ratio * dt))
        np.testing.assert_allclose(found.differences[:k], other.differences[:k], atol=1e-12)
        assert float(found.equal) == float(past.equal)


def test_a_step_extends_the_past():
    dt, k = 0.05, 3
    values = exact(0.4 - dt * np.arange(9.0))
    past = past_of(values[1:], k, dt)
    predicted = values[1] + np.sum(past.differences[:k], axis=0)
    found = past.extended(values[0] - predicted)
    expected = past_of(values, k, dt)
    np.testing.assert_allclose(
        found.differences[: k + 1], expected.differences[: k + 1], atol=1e-13
    )


CASES = {case.name: case for case in zoo.cases() if case.stiff and case.name != "robertson_long"}


@pytest.mark.parametrize("name", ["robertson", "van_der_pol_stiff", "hires"])
def test_errors_and_steps(name):
    """Of the size that a BDF reaches, in about as many steps as SciPy's of the same formulas."""
    case, rtol = CASES[name], 1e-6
    sol = de.solve(case.problem(), de.BDF(), saveat=case.reference.ts, rtol=rtol, atol=1e-12)
    error = np.abs(sol.ys - case.reference.ys) / (1e-6 + np.abs(case.reference.ys))
    assert 0 < error.max() < 50 * rtol
    scipy = {"robertson": 392, "van_der_pol_stiff": 1272, "hires": 345}[name]
    assert float(sol.stats["steps"]) == pytest.approx(scipy, rel=0.2)


def robertson(t, y, k):
    a, b, c = y
    slow, fast = k[0] * a - k[2] * b * c, k[1] * b**2
    return jnp.stack([-slow, slow - fast, a + b + c - 1])


def test_an_equation_with_a_singular_mass_matrix():
    case = CASES["robertson"]
    problem = de.DAEProblem(
        robertson, [1.0, 0.0, 0.5], case.tspan, case.args, mass_matrix=[1.0, 1.0, 0.0]
    )
    sol = de.solve(problem, de.BDF(), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(sol.y1, case.reference.y1, rtol=2e-5)


PENDULUM = de.ODEProblem(
    lambda t, y, k: jnp.stack(
        [-k[0] * (y[0] - jnp.cos(t)) - y[1] * y[0], -k[1] * y[1] * y[0] + jnp.sin(k[2] * t)]
    ),
    [0.3, 0.8], (0.0, 3.0), jnp.array([20.0, 1.0, 2.0]),
)  # fmt: skip
X = jnp.array([20.0, 1.0, 2.0, 0.3, 0.8])
AT = jnp.array([0.71, 1.9, 3.0])
FIXED = {"dt": 0.04, "rtol": 1e-13, "atol": 1e-15}
ADAPTIVE = {"rtol": 1e-5, "atol": 1e-7}


def loss(x, **options):
    problem = PENDULUM.replace(args=x[:3], y0=x[3:])
    sol = de.solve(problem, de.BDF(), saveat=AT, **options)
    return jnp.sum(sol.ys**2) + sol.ys[1, 0]


@pytest.mark.thorough
def test_derivatives_are_central_differences():
    """With fixed steps, and orders that small changes do not move: through the past, twice."""

    def slope(x):
        value, gradient = jax.value_and_grad(lambda x: loss(x, **FIXED))(x)
        return gradient, (value, gradient)

    program = jax.jit(jax.jacfwd(slope, has_aux=True))
    hessian, (_, gradient) = program(X)
    h = 1e-5
    sides = [[program(X + s * v)[1] for s in (h, -h)] for v in np.eye(5)]
    differences = [(above[0] - below[0]) / (2 * h) for above, below in sides]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-8)
    differences = [(above[1] - below[1]) / (2 * h) for above, below in sides]
    np.testing.assert_allclose(hessian, differences, rtol=1e-5, atol=1e-7)


@pytest.mark.thorough
def test_gradient_of_a_thinned_tape_and_of_batches():
    whole = jax.jit(jax.value_and_grad(lambda x: loss(x, **ADAPTIVE)))
    options = {"adjoint": de.Discrete(rows=16), "max_steps": 250, **ADAPTIVE}
    lanes = jax.vmap(jax.value_and_grad(lambda x: loss(x, **options)))
    xs = X * (1 + 0.05 * np.random.default_rng(0).normal(size=(3, 5)))
    for x, value, slope in zip(xs, *jax.jit(lanes)(xs), strict=True):
        alone = whole(x)
        np.testing.assert_allclose(value, alone[0], rtol=1e-12)
        np.testing.assert_allclose(slope, alone[1], rtol=1e-10, atol=1e-12)


def test_dense_output_and_stops():
    """What is read between steps is as good as they are; at a stop the method starts afresh."""
    jump = lambda t, y, a: jnp.where(t < 1.0, 1.0, -2.0) - 50 * (y - jnp.sin(t))
    problem = de.ODEProblem(jump, 0.0, (0.0, 2.0))
    at = np.linspace(0, 2, 41)
    sol = de.solve(problem, de.BDF(), rtol=1e-7, atol=1e-9, saveat=at, stops=[1.0])
    forced = lambda t: (2500 * np.sin(t) - 50 * np.cos(t)) / 2501
    before = 0.02 + forced(at) - (0.02 + forced(0)) * np.exp(-50 * at)
    after = -0.04 + forced(at) + 0.06 * np.exp(-50 * (at - 1))  # e⁻⁵⁰ is nothing
    np.testing.assert_allclose(sol.ys, np.where(at < 1, before, after), atol=2e-6)
    assert int(sol.stats["stops"]) == 1


def test_by_hand():
    options = {"rtol": 1e-6, "atol": 1e-8}
    state = de.init(PENDULUM, de.BDF(), **options)
    for _ in range(4):
        state = de.step(state)
    end = de.advance(state, 3.0)
    sol = de.solve(PENDULUM, de.BDF(), **options)
    np.testing.assert_allclose(end.y, sol.y1, rtol=1e-9)


@pytest.mark.parametrize("order", [0, 6, True])
def test_wrong_orders(order):
    with pytest.raises(ValueError, match=r"max_order is .*; 1, 2, 3, 4 or 5 is wanted"):
        de.BDF(max_order=order)


def test_max_order_holds():
    sol = de.solve(PENDULUM, de.BDF(max_order=1), rtol=1e-4, atol=1e-6)
    more = de.solve(PENDULUM, de.BDF(), rtol=1e-4, atol=1e-6)
    assert float(sol.stats["steps"]) > 2 * float(more.stats["steps"])


def test_it_shows_what_a_user_gave():
    assert repr(de.BDF(max_order=3)) == "BDF(max_order=3)"
    assert repr(de.RadauIIA5()) == "RadauIIA5()"

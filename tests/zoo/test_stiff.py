"""The stiff part of the zoo: its references, and what stiff methods make of it."""

import json
import warnings
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from tests.tiers import shortly

import diffeq as de
from diffeq import zoo

CASES = {case.name: case for case in zoo.cases() if case.stiff}
STORED = json.loads((resources.files("diffeq.zoo") / "references_stiff.json").read_text())["cases"]
# What counts as small in each case: a millionth, or what its small components ask for.
SMALL = {"robertson_long": 1e-10, "pollution": 1e-5}

every = pytest.mark.parametrize("name", CASES)


@every
def test_the_reference_is_of_this_problem(name):
    case, stored = CASES[name], STORED[name]
    assert case.y0.tolist() == stored["y0"]
    assert list(case.tspan) == stored["tspan"]
    assert ([] if case.args is None else case.args.tolist()) == stored["args"]
    agreement = case.reference.agreement
    assert agreement["radau"] < 1e-15  # of two runs in 34 and 40 digits
    assert agreement["scipy"] < 1e-11
    assert agreement.get("published", 0.0) < 1e-12  # Hairer, Mazzia and Magherini


@pytest.mark.thorough
@every
def test_scipy_agrees(name):
    # The field of the package, against states that come from another text of it.
    case = CASES[name]
    field, jac = jax.jit(case.field), jax.jit(jax.jacfwd(case.field, 1))
    solution = solve_ivp(
        lambda t, y: np.asarray(field(t, y, case.args)),
        case.tspan, case.y0, method="Radau", rtol=1e-8, atol=1e-8 * SMALL.get(name, 1e-6),
        jac=lambda t, y: np.asarray(jac(t, y, case.args)),
    )  # fmt: skip
    np.testing.assert_allclose(solution.y[:, -1], case.reference.y1, rtol=1e-5)


@every
def test_error_is_of_the_tolerance(name):
    method = de.Rodas4() if name in ("hires", "pollution") else de.Rodas5P()
    case, rtol, small = CASES[name], 1e-6, SMALL.get(name, 1e-6)
    at = case.reference.ts
    sol = de.solve(case.problem(), method, saveat=at, rtol=rtol, atol=rtol * small)
    error = np.abs(sol.ys - case.reference.ys) / (small + np.abs(case.reference.ys))
    assert 0 < error[-1].max() < 10 * rtol


def test_robertson_to_the_end():
    """Hairer's values where a, b and c have settled; and how many steps that takes."""
    case = zoo.robertson_long()
    sol = de.solve(case.problem(), de.Rodas5P(), rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(sol.y1, [2.083e-8, 8.33e-14, 1 - 2.1e-8], rtol=1e-2)
    np.testing.assert_allclose(sol.y1, case.reference.y1, rtol=1e-3)
    assert int(sol.stats["steps"] + sol.stats["rejected"]) < 300
    assert abs(float(jnp.sum(sol.y1)) - 1) < 1e-13  # linear invariants are kept


def test_explicit_methods_say_what_to_take():
    with pytest.raises(de.SolveError, match="The problem is stiff: try Rodas5P") as caught:
        de.solve(zoo.robertson_long().problem(), de.Tsit5(), rtol=1e-6, atol=1e-10)
    assert caught.value.status == de.Status.max_steps
    assert "in this version" not in str(caught.value)


def test_fast_oscillations_that_are_hardly_in_the_solution_are_said_to_be_stiff():
    """An oscillator on its slow solution x = cos t; and one that swings."""
    rate = 1e4
    slow = de.ODEProblem(
        lambda t, y, a: jnp.stack([y[1], -(rate**2) * (y[0] - jnp.cos(t)) - jnp.cos(t)]),
        jnp.array([1.0, 0.0]), (0.0, 1.0),
    )  # fmt: skip
    with pytest.raises(de.SolveError, match="stiff by fast oscillations that are hardly"):
        de.solve(slow, de.Tsit5(), rtol=1e-5, atol=1e-8, max_steps=2_000)
    fast = de.ODEProblem(lambda t, y, a: jnp.stack([y[1], -(rate**2) * y[0]]), [1.0, 0.0], (0, 9))
    with pytest.raises(de.SolveError, match="Give more with max_steps="):
        de.solve(fast, de.Tsit5(), max_steps=2_000)


def heat(n, end):
    """A reaction that diffuses through n cells."""
    start = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))

    def field(t, u, k):
        padded = jnp.pad(u, 1)
        return k * (n + 1) ** 2 * (padded[2:] - 2 * u + padded[:-2]) + u * (1 - u)

    return de.ODEProblem(field, start, (0.0, end), 1.0)


def test_the_default_above_64_numbers_warns_of_stiffness():
    problem = heat(72, 0.4)
    with pytest.warns(UserWarning, match=r"default took 2\d{3} attempts by Tsit5.*is stiff"):
        de.solve(problem)
    waves = de.ODEProblem(
        lambda t, y, a: jnp.stack([y[1], -jnp.sin(y[0])]), np.ones((2, 40)), (0.0, 1200.0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(de.solve(waves).stats["steps"]) > 1_000
        de.solve(problem, de.Tsit5())  # which was asked for by name
        de.solve(heat(72, 0.05))
        jax.jit(lambda k: de.solve(problem.replace(args=k)).y1)(1.0)


def test_the_default_for_an_equation_of_second_order_warns_of_stiffness():
    damped = de.SecondOrderProblem(
        lambda t, x, v, a: -2000 * v - 1000 * x, np.ones(40), np.zeros(40), (0.0, 2.0)
    )
    with pytest.warns(UserWarning, match=r"attempts by Tsit5.*is stiff") as caught:
        de.solve(damped)
    assert "jac=" not in str(caught[0].message)  # which it does not take


def test_single_precision():
    case = zoo.hires()
    problem = case.problem().replace(y0=jnp.asarray(case.y0, jnp.float32))
    sol = de.solve(problem, de.Rosenbrock23(), rtol=1e-4, atol=1e-7)
    assert sol.y1.dtype == jnp.float32
    np.testing.assert_allclose(sol.y1, case.reference.y1, rtol=2e-3)


@pytest.mark.parametrize("method", shortly([de.TRBDF2(), de.Kvaerno5(), de.BDF()], de.TRBDF2()))
def test_given_steps_in_single_precision_from_a_component_of_zero(method):
    """Van der Pol's oscillator follows its slow manifold, y₁ (1 − y₀²) μ = y₀, where y₁ moves from
    0 to −7e-4 at once: Newton's method cannot be more exact than that, rounded.
    """

    def field(t, y, mu):
        return jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    def solved(dtype, method, **options):
        start = jnp.array([2.0, 0.0], dtype)
        problem = de.ODEProblem(field, start, (0.0, 5.0), jnp.asarray(1e3, dtype))
        return de.solve(problem, method, **options).y1

    reference = solved(jnp.float64, de.RadauIIA5(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(solved(jnp.float32, method, dt=0.1), reference, rtol=1e-4)


def test_a_batch_of_rates_is_a_loop():
    case = zoo.robertson()
    factors = jnp.array([0.5, 1.0, 3.0])
    solve = lambda s: de.solve(
        case.problem().replace(args=case.args * s), de.Rosenbrock23(), rtol=1e-6, throw=False
    )
    together = jax.vmap(solve)(factors)
    for i, s in enumerate(factors):
        alone = solve(s)
        assert together.stats["steps"][i] == alone.stats["steps"]
        np.testing.assert_allclose(together.y1[i], alone.y1, rtol=1e-9)

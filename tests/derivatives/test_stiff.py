"""Derivatives of stiff solves and of DAEs, to the digits that central differences have.

Differences are taken with the steps that the solve chose held fixed, for that is what is
differentiated: the numbers of the solve, and not the choice of its steps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

RATES = jnp.array([0.04, 3e7, 1e4])
WEIGHTS = jnp.array([1.0, 1e4, -2.0])


def robertson(t, y, k):
    a, b, c = y
    slow, back, fast = k[0] * a, k[2] * b * c, k[1] * b * b
    return jnp.stack([back - slow, slow - back - fast, fast])


def balanced(t, y, k):
    return robertson(t, y, k).at[2].set(jnp.sum(y) - 1 - 0.1 * jnp.sin(t / 100) * (k[0] / 0.04 - 1))


ODE = de.ODEProblem(robertson, [1.0, 0.0, 0.0], (0.0, 500.0), RATES)
DAE = de.DAEProblem(
    balanced,
    [1.0, 0.0, 0.4],
    (0.0, 500.0),
    RATES,
    mass_matrix=lambda k: jnp.array([1, k[0] / 0.04, 0]),
)
CASES = {"ode": ODE, "dae": DAE}
AT = jnp.array([3.0, 70.0, 500.0])


def loss_of(name, method, **options):
    """A loss of what is saved, by factors of the rates and a shift of y0."""
    problem = CASES[name]

    def loss(x, **more):
        k, y0 = RATES * x[:3], jnp.asarray(problem.y0) + x[3:] * jnp.array([1.0, 1e-4, 0.1])
        sol = de.solve(problem.replace(args=k, y0=y0), method, saveat=AT, **options, **more)
        return jnp.sum(sol.ys @ WEIGHTS) + jnp.sum(sol.ys[1] ** 2)

    return loss


X = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
# Away from the stiff directions, along which a difference of 1e-5 is not small.
DIRECTIONS = np.eye(6)[:4]


def central(f, h=1e-5):
    return np.array([(f(X + h * v) - f(X - h * v)) / (2 * h) for v in DIRECTIONS])


# --- with fixed steps, which differences may be taken of ------------------------------------------

STEPS = np.concatenate([[0.0], np.geomspace(1e-4, 500.0, 50)])


def fixed(name):
    return loss_of(name, de.Rosenbrock23(), controller=de.Fixed(STEPS), max_steps=64)


@functools.cache
def derivatives_of(name):
    """The loss, and its derivative in both modes."""
    loss = fixed(name)
    return jax.jit(lambda x: (*jax.value_and_grad(loss)(x), jax.jacfwd(loss)(x)))


@pytest.mark.parametrize("name", shortly(CASES, "ode"))
def test_both_modes_are_the_central_difference(name):
    derivatives = derivatives_of(name)
    differences = central(lambda x: derivatives(x)[0])
    for found in derivatives(X)[1:]:
        np.testing.assert_allclose(found @ DIRECTIONS.T, differences, rtol=1e-6)
        if name == "dae":
            assert found[5] == 0, "the guess has no derivative"


@pytest.mark.thorough
def test_batches_are_loops():
    def total(xs):
        values = jax.vmap(fixed("dae"))(xs)
        return jnp.sum(values), values

    xs = X + 0.02 * np.random.default_rng(0).normal(size=(3, 6)) * [1, 1, 1, 1, 0, 0]
    (_, values), slopes = jax.jit(jax.value_and_grad(total, has_aux=True))(xs)
    expected = [derivatives_of("dae")(x) for x in xs]
    np.testing.assert_allclose(values, [value for value, *_ in expected], rtol=1e-9)
    np.testing.assert_allclose(slopes, [slope for _, slope, _ in expected], rtol=1e-7, atol=1e-9)


@pytest.mark.thorough
def test_hessian_is_the_central_difference_of_the_gradient():
    differences = central(lambda x: derivatives_of("dae")(x)[1]) @ DIRECTIONS.T
    found = DIRECTIONS @ jax.jit(jax.hessian(fixed("dae")))(X) @ DIRECTIONS.T
    np.testing.assert_allclose(found, differences, rtol=1e-5, atol=1e-6 * np.abs(differences).max())


# --- with steps that follow a tolerance -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method"),
    [("ode", de.Rosenbrock23()), pytest.param("dae", de.Rodas4(), marks=pytest.mark.thorough)],
    ids=repr,
)
def test_the_gradient_is_that_of_the_flow(name, method):
    """Differences of the exact flow; and a small system calls no library, LAPACK's LU neither."""
    loss = loss_of(name, method)
    of = jax.value_and_grad(lambda x, tol: loss(x, rtol=tol, atol=1e-4 * tol))
    program = jax.jit(of).lower(X, 1e-5).compile()
    differences = central(lambda x: program(x, 1e-9)[0], 1e-3)
    np.testing.assert_allclose(program(X, 1e-5)[1][:3], differences[:3], rtol=2e-3)
    assert "lapack" not in program.as_text()


@pytest.mark.thorough
def test_by_the_end_and_by_the_mass_matrix():
    # m y' = −y z, 0 = z − 1: y = exp(−t / m).
    field = lambda t, y, m: jnp.stack([-y[0] * y[1], y[1] - 1])
    matrix = lambda m: jnp.array([[m, 0.0], [0.0, 0.0]])
    problem = de.DAEProblem(field, [1.0, 0.3], (0.0, 1.0), 2.0, mass_matrix=matrix)

    def end(x):
        turned = problem.replace(args=x[0], tspan=(0.0, x[1]))
        return de.solve(turned, de.Rodas4(), rtol=1e-10, atol=1e-12).y1[0]

    def slope(x):
        found = jax.grad(end)(x)
        return found, found

    m, t = x = np.array([2.0, 1.5])
    y = np.exp(-t / m)
    hessian, gradient = jax.jit(jax.jacfwd(slope, has_aux=True))(x)
    np.testing.assert_allclose(gradient, [y * t / m**2, -y / m], rtol=1e-7)
    mixed = y * (1 / m**2 - t / m**3)
    by_m = y * (t**2 / m**4 - 2 * t / m**3)
    np.testing.assert_allclose(hessian, [[by_m, mixed], [mixed, y / m**2]], rtol=1e-6)


# --- consistent starts ----------------------------------------------------------------------------


def test_the_guess_has_no_derivative_and_what_is_kept_has_one():
    start = jax.jit(jax.jacrev(lambda y0: de.consistent(DAE.replace(y0=y0)).y0))
    found = start(np.array([0.9, 1e-5, 0.4]))
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 1, 0], [-1, -1, 0]], atol=1e-12)


def test_consistent_values_by_parameters():
    # x² + z² = r², kept x: z'(r) = r/z, z'' = 1/z − r²/z³.
    circle = lambda t, y, r: jnp.stack([-y[1], y[0] ** 2 + y[1] ** 2 - r**2])
    problem = de.DAEProblem(circle, [0.6, 0.5], (0.0, 1.0), 1.0, mass_matrix=[1.0, 0.0])
    z = lambda r: de.consistent(problem.replace(args=r)).y0[1]
    ways = z, jax.grad(z), jax.grad(jax.grad(z)), jax.hessian(z)
    found = jax.jit(lambda r: [way(r) for way in ways])(1.0)
    np.testing.assert_allclose(found, [0.8, 1.25, -0.703125, -0.703125], rtol=1e-12)


@pytest.mark.thorough
def test_a_failed_start_poisons_its_own_gradient_alone():
    sum_to = lambda t, y, a: jnp.stack([-y[0], y[0] ** 2 + y[1] ** 2 - a])
    problem = de.DAEProblem(sum_to, [1.0, 0.8], (0.0, 1.0), 2.0, mass_matrix=[1.0, 0.0])
    end = lambda a: de.solve(problem.replace(args=a), de.Rosenbrock23(), rtol=1e-7).y1[1]
    found = jax.jit(jax.vmap(jax.grad(end)))(np.array([2.0, 0.5]))
    np.testing.assert_allclose(found[0], 0.5 / np.sqrt(2 - np.exp(-2)), rtol=1e-5)
    assert np.isnan(found[1])

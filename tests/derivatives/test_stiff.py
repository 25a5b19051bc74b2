"""Derivatives of stiff solves and of DAEs, to the digits that central differences have.

Differences are taken with the steps that the solve chose held fixed, for that is what is
differentiated: the numbers of the solve, and not the choice of its steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def loss_of(problem, method, **options):
    """A loss of what is saved, by factors of the rates and a shift of y0."""

    def loss(x):
        k, y0 = RATES * x[:3], jnp.asarray(problem.y0) + x[3:] * jnp.array([1.0, 1e-4, 0.1])
        sol = de.solve(problem.replace(args=k, y0=y0), method, saveat=AT, **options)
        return jnp.sum(sol.ys @ WEIGHTS) + jnp.sum(sol.ys[1] ** 2)

    return loss


X = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
# Away from the stiff directions, along which a difference of 1e-5 is not small.
DIRECTIONS = jnp.eye(6)[:4]


def steps_of(problem, method):
    sol = de.solve(problem, method, saveat="steps", rtol=1e-6, atol=1e-10)
    return sol.ts


@pytest.fixture(scope="module", params=["ode", "dae"])
def fixed(request):
    """The loss with fixed steps, which differences may be taken of."""
    problem = CASES[request.param]
    ts = steps_of(problem, de.Rodas5P())
    return loss_of(problem, de.Rodas5P(), controller=de.Fixed(ts), max_steps=len(ts) + 4)


def central(f, x, v, h=1e-5):
    return (f(x + h * v) - f(x - h * v)) / (2 * h)


def test_every_mode_is_the_central_difference(fixed):
    f = jax.jit(fixed)
    differences = np.array([central(f, X, v) for v in DIRECTIONS])
    for way in (jax.grad, jax.jacfwd):
        found = jax.jit(way(fixed))(X)
        np.testing.assert_allclose(found @ DIRECTIONS.T, differences, rtol=1e-6)
    along = jax.jit(lambda x, v: jax.jvp(fixed, (x,), (v,))[1])
    np.testing.assert_allclose([along(X, v) for v in DIRECTIONS], differences, rtol=1e-6)


def test_batches_are_loops(fixed):
    xs = X + 0.02 * jax.random.normal(jax.random.key(0), (3, 6)) * jnp.array([1, 1, 1, 1, 0, 0])
    one = jax.jit(jax.value_and_grad(fixed))
    expected = [one(x) for x in xs]
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(fixed)))(xs)
    total = jax.jit(jax.grad(lambda xs: jnp.sum(jax.vmap(fixed)(xs))))(xs)
    np.testing.assert_allclose(values, [value for value, _ in expected], rtol=1e-9)
    for found in (slopes, total):
        np.testing.assert_allclose(found, [slope for _, slope in expected], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "method"),
    [("ode", de.Rosenbrock23()), ("dae", de.Rodas4()), ("dae", de.Rodas5P())],
    ids=repr,
)
def test_the_gradient_is_that_of_the_flow(name, method):
    # Adaptive, with rejected steps on the tape, against the sensitivities of the exact flow.
    tolerance = {"rtol": 1e-5, "atol": 1e-9}
    found = jax.jit(jax.grad(loss_of(CASES[name], method, **tolerance)))(X)
    tight = jax.jit(jax.jacfwd(loss_of(CASES[name], de.Rodas5P(), rtol=1e-10, atol=1e-14)))(X)
    np.testing.assert_allclose(found[:3], tight[:3], rtol=2e-3)


def test_hessian_is_the_central_difference_of_the_gradient():
    ts = steps_of(DAE, de.Rodas5P())
    loss = loss_of(DAE, de.Rodas5P(), controller=de.Fixed(ts), max_steps=len(ts) + 4)
    slope = jax.jit(jax.grad(loss))
    differences = np.array([central(slope, X, v) for v in DIRECTIONS]) @ DIRECTIONS.T
    found = DIRECTIONS @ jax.jit(jax.hessian(loss))(X) @ DIRECTIONS.T
    np.testing.assert_allclose(found, differences, rtol=1e-5, atol=1e-6 * np.abs(differences).max())


def test_by_the_end_and_by_the_mass_matrix():
    # m y' = −y z, 0 = z − 1: y = exp(−t / m).
    field = lambda t, y, m: jnp.stack([-y[0] * y[1], y[1] - 1])
    matrix = lambda m: jnp.array([[m, 0.0], [0.0, 0.0]])
    problem = de.DAEProblem(field, [1.0, 0.3], (0.0, 1.0), 2.0, mass_matrix=matrix)

    def end(x):
        turned = problem.replace(args=x[0], tspan=(0.0, x[1]))
        return de.solve(turned, de.Rodas5P(), rtol=1e-10, atol=1e-12).y1[0]

    m, t = x = jnp.array([2.0, 1.5])
    y = np.exp(-t / m)
    np.testing.assert_allclose(jax.jit(jax.grad(end))(x), [y * t / m**2, -y / m], rtol=1e-7)
    hessian = jax.jit(jax.hessian(end))(x)
    mixed = y * (1 / m**2 - t / m**3)
    by_m = y * (t**2 / m**4 - 2 * t / m**3)
    np.testing.assert_allclose(hessian, [[by_m, mixed], [mixed, y / m**2]], rtol=1e-6)


def test_the_guess_has_no_derivative_and_what_is_kept_has_one():
    start = lambda y0: de.solve(DAE.replace(y0=y0), saveat=[0.0]).ys[0]
    found = jax.jacrev(start)(jnp.array([0.9, 1e-5, 0.4]))
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 1, 0], [-1, -1, 0]], atol=1e-12)


def test_consistent_values_by_parameters():
    # x² + z² = r², kept x: z'(r) = r/z, z'' = 1/z − r²/z³.
    circle = lambda t, y, r: jnp.stack([-y[1], y[0] ** 2 + y[1] ** 2 - r**2])
    problem = de.DAEProblem(circle, [0.6, 0.5], (0.0, 1.0), 1.0, mass_matrix=[1.0, 0.0])
    z = lambda r: de.consistent(problem.replace(args=r)).y0[1]
    found = [g(1.0) for g in (z, jax.grad(z), jax.grad(jax.grad(z)), jax.jit(jax.hessian(z)))]
    np.testing.assert_allclose(found, [0.8, 1.25, -0.703125, -0.703125], rtol=1e-12)


def test_a_failed_start_poisons_its_own_gradient_alone():
    sum_to = lambda t, y, a: jnp.stack([-y[0], y[0] ** 2 + y[1] ** 2 - a])
    problem = de.DAEProblem(sum_to, [1.0, 0.8], (0.0, 1.0), 2.0, mass_matrix=[1.0, 0.0])
    end = lambda a: de.solve(problem.replace(args=a), rtol=1e-6).y1[1]
    found = jax.vmap(jax.grad(end))(jnp.array([2.0, 0.5]))
    np.testing.assert_allclose(found[0], 0.5 / np.sqrt(2 - np.exp(-2)), rtol=1e-5)
    assert np.isnan(found[1])


def test_no_library_call_and_no_lu_of_derivatives():
    """The gradient of a small system compiles without a call of LAPACK."""
    text = jax.jit(jax.grad(loss_of(ODE, de.Rodas5P()))).lower(X).compile().as_text()
    assert "lapack" not in text

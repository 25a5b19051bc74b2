"""The iteration matrix of BDF and DIRK that steps take from those before: it is evaluated seldom,
costs no accuracy, and leaves derivatives, lanes and stops as they are.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

N = 64
RATES = jnp.array([0.05, 2.0])
PLACE = np.linspace(0, 1, N)
START = 0.1 + 0.5 * np.exp(-50 * (PLACE - 0.3) ** 2)
TOLERANCES = {"rtol": 1e-6, "atol": 1e-8}
METHODS = {"BDF": de.BDF(), "KenCarp4": de.KenCarp4(), "Kvaerno5": de.Kvaerno5()}


def diffused(t, y, k):
    wide = jnp.concatenate([y[:1], y, y[-1:]])
    return k[0] * N**2 * (wide[2:] - 2 * y + wide[:-2])


def grown(t, y, k):
    return k[1] * y * (1 - y) * (1.2 + jnp.sin(3 * t))


def line(t, y, k):
    return diffused(t, y, k) + grown(t, y, k)


PROBLEM = de.ODEProblem(line, START, (0.0, 3.0), RATES)
LINE = de.Banded(1, 1)


CALLS = []


def counted(field):
    """The Jacobian of a field as a function that counts its calls while a solve runs."""

    def jac(t, y, k):
        jax.debug.callback(lambda: CALLS.append(1))
        return jax.jacfwd(field, 1)(t, y, k)

    CALLS.clear()
    return jac


def calls():
    """The number of calls that were made."""
    jax.effects_barrier()
    return len(CALLS)


@pytest.fixture(scope="module")
def exact():
    """The end by another method, at tolerances far below."""
    return de.solve(PROBLEM.replace(jac=LINE), de.Rodas5P(), rtol=1e-11, atol=1e-13).y1


@pytest.mark.parametrize("name", shortly(METHODS, "BDF", "KenCarp4"))
def test_the_jacobian_is_evaluated_seldom(name, exact):
    jac = counted(line)
    sol = de.solve(PROBLEM.replace(jac=jac), METHODS[name], **TOLERANCES)
    attempts = int(sol.stats["steps"] + sol.stats["rejected"])
    assert 1 <= calls() <= attempts / 3
    np.testing.assert_allclose(sol.y1, exact, rtol=2e-5)


def test_a_small_system_evaluates_it_in_each_attempt():
    jac = counted(lambda t, y, k: -k * y)
    problem = de.ODEProblem(lambda t, y, k: -k * y, np.ones(3), (0.0, 1.0), 5.0, jac=jac)
    sol = de.solve(problem, de.BDF(), **TOLERANCES)
    assert calls() >= int(sol.stats["steps"])


def test_an_attempt_that_a_kept_matrix_has_spoilt_is_made_again_with_the_same_dt():
    """A step begins at the time t = 1 from which on all rates are a million times as large, as
    those steps see that end before and after it. Newton's method diverges with the matrix from
    before, and finds the root with a new one in a step as long.
    """

    def sudden(t, y, k):
        return -jnp.where(t <= 1.0, 1e-3, 1e3) * k * (y - 1)

    def jac(t, y, k):
        jax.debug.callback(lambda: CALLS.append(1))
        return -jnp.where(t < 1.0, 1e-3, 1e3) * jnp.diag(k)

    CALLS.clear()
    problem = de.ODEProblem(sudden, np.full(N, 2.0), (0.0, 1.5), jnp.linspace(1.0, 2.0, N), jac=jac)
    method, controller = de.KenCarp4(), de.PID(dtmax=0.25)
    sol = de.solve(problem, method, controller=controller, dt0=0.25, rtol=0.1, atol=1e3)
    assert sol.stats["rejected"] == 1
    assert sol.stats["steps"] == 6
    assert calls() == 2


@cache
def central_differences():
    """The gradient of the mean of the rows."""
    tight = {"rtol": 1e-11, "atol": 1e-13, "saveat": np.linspace(0, 3, 7)}
    banded = PROBLEM.replace(jac=LINE)
    mean = lambda k: jnp.mean(de.solve(banded.replace(args=k), de.Rodas5P(), **tight).ys ** 2)
    return [(mean(RATES + h) - mean(RATES - h)) / 2e-4 for h in 1e-4 * np.eye(2)]


@pytest.mark.parametrize(
    ("name", "jac"),
    [
        ("BDF", LINE),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in (("BDF", None), ("KenCarp4", de.Sparse("detect")), ("Kvaerno5", LINE))
        ),
    ],
)
def test_windows_of_a_tape_are_repeated_with_the_matrices_of_the_solve(name, jac):
    """A thinned tape gives the gradient of one that is not, which a window that drifts does not."""

    def mean(k, rows):
        sol = de.solve(
            PROBLEM.replace(args=k, jac=jac),
            METHODS[name],
            saveat=np.linspace(0, 3, 7),
            adjoint=de.Discrete(rows=rows),
            **TOLERANCES,
        )
        return jnp.mean(sol.ys**2)

    whole, thinned = (jax.grad(partial(mean, rows=rows))(RATES) for rows in (None, 8))
    np.testing.assert_allclose(thinned, whole, rtol=1e-12)
    np.testing.assert_allclose(whole, central_differences(), rtol=3e-4)


@pytest.mark.thorough
def test_forward_mode_and_backward_solves():
    last = lambda k, **how: jnp.sum(
        de.solve(PROBLEM.replace(args=k, jac=LINE), de.KenCarp4(), **TOLERANCES, **how).y1
    )
    backward = jax.grad(partial(last, adjoint=de.Gauss()))(RATES)
    recorded = jax.grad(last)(RATES)
    forward = jax.jacfwd(partial(last, adjoint=de.Forward()))(RATES)
    along = jax.jacfwd(last)(RATES)
    for other in (backward, forward, along):
        np.testing.assert_allclose(other, recorded, rtol=1e-3)


@pytest.mark.thorough
def test_second_derivatives():
    last = lambda k: jnp.sum(
        de.solve(PROBLEM.replace(args=k, jac=LINE), de.TRBDF2(), rtol=1e-5, atol=1e-7).y1 ** 2
    )
    _, pushed = jax.jvp(jax.grad(last), (RATES,), (jnp.array([1.0, 0.0]),))
    twice = jax.grad(lambda k: jax.grad(last)(k)[0])(RATES)
    np.testing.assert_allclose(pushed, twice, rtol=1e-6)


def test_lanes_are_solves_of_their_own():
    end = lambda k: de.solve(PROBLEM.replace(args=k, jac=LINE), de.BDF(), **TOLERANCES).y1
    rates = RATES * jnp.array([[1.0], [0.3], [1.5]])
    lanes = jax.vmap(end)(rates)
    np.testing.assert_allclose(lanes, jnp.stack([end(k) for k in rates]), rtol=1e-5)


def test_after_a_stop_the_jacobian_is_evaluated_again():
    """The field changes at given times, at which a matrix from before is not used again."""

    def switched(t, y, k):
        return jnp.where(t < 1.0, 1.0, 40.0) * diffused(t, y, k) + grown(t, y, k)

    jac = counted(switched)
    times = (1.0, 2.0)
    sol = de.solve(PROBLEM.replace(f=switched, jac=jac), de.BDF(), stops=times, **TOLERANCES)
    assert 3 <= calls() <= int(sol.stats["steps"]) / 3
    tight = {"rtol": 1e-11, "atol": 1e-13, "stops": times}
    exact = de.solve(PROBLEM.replace(f=switched, jac=LINE), de.Rodas5P(), **tight).y1
    np.testing.assert_allclose(sol.y1, exact, rtol=2e-5)


def test_a_mass_matrix_and_a_split_form(exact):
    weights = 1 + 0.5 * np.sin(np.arange(N))
    weighted = lambda t, y, k: weights * line(t, y, k)
    mass = de.DAEProblem(weighted, START, (0.0, 3.0), RATES, mass_matrix=weights, jac=LINE)
    split = de.SplitODEProblem(diffused, grown, START, (0.0, 3.0), RATES, jac=LINE)
    for problem, method in [(mass, de.BDF()), (mass, de.KenCarp4()), (split, de.KenCarp4())]:
        sol = de.solve(problem, method, **TOLERANCES)
        np.testing.assert_allclose(sol.y1, exact, rtol=2e-5)

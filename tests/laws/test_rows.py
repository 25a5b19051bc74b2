"""What is read between the ends of steps: never NaN in silence, and whatever else is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import ALL
from tests.tiers import shortly

import diffeq as de
from diffeq.methods import METHODS

PLAIN = [name for name in ALL if METHODS[name].form != "partitioned"]
ADAPTIVE = [name for name in PLAIN if METHODS[name]().adaptive]
# y = (1 − t/2)² empties at t = 2; what steps over zero, or looks beyond it, finds NaN.
EMPTYING = de.ODEProblem(lambda t, y, a: -jnp.sqrt(y), 1.0, (0.0, 1.0))
ENDS = np.array([1.9, 1.99, 1.999, 1.9999])
TOLERANCES = 10.0 ** -np.arange(1.0, 8.0)


def emptied(name, t1, tol, **options):
    options = {"rtol": tol, "atol": tol, "max_steps": 2000} | options
    method = None if name == "default" else METHODS[name]()
    problem = EMPTYING.replace(tspan=(0.0, t1))
    return de.solve(problem, method, throw=False, **options)


@pytest.mark.parametrize("name", shortly([*ADAPTIVE, "default"], "Dopri8"))
def test_a_saved_row_is_a_number(name):
    def rows(t1, tol):
        sol = emptied(name, t1, tol, saveat=t1 * jnp.linspace(0.0, 1.0, 60))
        return sol.ys, sol.saved, sol.status

    pairs = np.array([(t1, tol) for t1 in ENDS for tol in TOLERANCES])
    ys, saved, status = jax.jit(jax.vmap(rows))(*pairs.T)
    assert not np.any(np.isnan(ys) & saved)
    assert np.all(saved[status == de.Status.success])
    assert np.sum(status == de.Status.success) >= 4


@pytest.mark.parametrize("name", shortly(PLAIN, "RK4", "Tsit5"))
def test_a_saved_row_of_given_steps_is_a_number(name):
    """Where the last step ends below zero, or the slope at its end is asked for there."""

    def rows(dt):
        sol = emptied(name, 1.96, 1e-3, dt=dt, saveat=jnp.linspace(0.0, 1.96, 60))
        return sol.ys, sol.saved

    ys, saved = jax.jit(jax.vmap(rows))(1.96 / np.arange(1.0, 8.0))
    assert not np.any(np.isnan(ys) & saved)


def test_an_event_sees_numbers():
    level = 1e-3
    falls = de.Event(lambda t, y, a: y - level)

    def ending(tol):
        return emptied("Dopri8", 1.999, tol, events=falls).t1

    found = jax.jit(jax.vmap(ending))(TOLERANCES[2:])
    np.testing.assert_allclose(found, 2 * (1 - level**0.5), atol=0.05)


# --- whatever else is read ------------------------------------------------------------------------

STIFF = de.ODEProblem(lambda t, y, a: -1e6 * (y - jnp.sin(t)) + jnp.cos(t), 0.0, (0.0, 3.0))
FEW = np.array([0.7, 1.9, 2.2])


def test_rows_depend_on_no_other_rows():
    many = np.sort(np.concatenate([FEW, np.linspace(0.01, 2.9, 40)]))
    solve = lambda at: de.solve(STIFF, de.TRBDF2(), rtol=1e-5, atol=1e-5, saveat=at)
    few, all_of_them, none = solve(FEW), solve(many), solve(None)
    same = all_of_them.ys[np.searchsorted(many, FEW)]
    np.testing.assert_allclose(few.ys, same, rtol=0, atol=1e-12)
    np.testing.assert_allclose(all_of_them.ys, np.sin(many), atol=5e-5)
    # Where none is read, no step is made for them; nor where the only one is the end.
    end = solve(np.array([3.0]))
    assert int(none.stats["steps"]) == int(end.stats["steps"]) < int(few.stats["steps"]) / 3

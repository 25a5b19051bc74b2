"""The order of implicit methods where they are made for: split, differential-algebraic and very
stiff problems.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import STARTS, by_scipy, ends, field, slope_of

import diffeq as de

STEPS = np.array([8, 12, 18, 24, 36, 48, 72, 96, 144])
DAE = ["ImplicitEuler", "TRBDF2", "Kvaerno3", "Kvaerno5", "KenCarp3", "KenCarp4", "KenCarp5",
       "RadauIIA5"]  # fmt: skip


def implicit(t, y, args):
    a, b = y
    return jnp.stack([b - a, -2 * jnp.sin(b) * (1 + jnp.sin(t) / 2)])


@pytest.mark.parametrize("name", ["KenCarp3", "KenCarp4", "KenCarp5"])
def test_order_of_an_additive_pair(name):
    method, y0 = getattr(de, name)(), STARTS[:, :1]
    split = de.SplitODEProblem(
        implicit, lambda t, y, args: field(t, y, args) - implicit(t, y, args), y0, (0.0, 2.0)
    )
    errors = ends(method, split, 2.0 / STEPS) - by_scipy(
        de.ODEProblem(field, y0, (0.0, 2.0)), [2.0]
    )
    found = slope_of(np.abs(errors).max(axis=1), 2.0 / STEPS, 2e-12)
    assert found == pytest.approx(method.order, abs=0.25)


def index1(t, y, args):
    """A problem y' = f(y, z), 0 = g(y, z) with the solution y = sin t, z = exp(cos t)."""
    y, z = y
    rate = jnp.cos(t) + (y - jnp.sin(t)) * z + (z - jnp.exp(jnp.cos(t))) * y / 2
    return jnp.stack([rate, z - jnp.exp(jnp.cos(t)) * (1 + y - jnp.sin(t)) ** 2])


@pytest.mark.parametrize("name", DAE)
def test_order_of_both_components_at_index_1(name):
    method, e = getattr(de, name)(), float(np.e)
    dae = de.DAEProblem(index1, [0.0, e], (0.0, 2.0), None, mass_matrix=jnp.array([1.0, 0.0]))
    found = np.abs(ends(method, dae, 2.0 / STEPS) - [np.sin(2.0), np.exp(np.cos(2.0))])
    for component in found.T:
        assert slope_of(component, 2.0 / STEPS, 2e-12) == pytest.approx(method.order, abs=0.25)


@pytest.mark.parametrize(("name", "order"), [("TRBDF2", 2), ("Kvaerno5", 2), ("RadauIIA5", 3)])
def test_order_where_a_problem_is_infinitely_stiff(name, order):
    # Prothero and Robinson: what is left is the stage order (and 1/λ before it).
    rate = 1e6
    f = lambda t, y, a: -rate * (y - jnp.cos(t)) - jnp.sin(t)
    problem = de.ODEProblem(f, 1.0, (0.0, 2.0))
    method = getattr(de, name)()
    errors = rate * np.abs(ends(method, problem, 2.0 / STEPS)[:, 0] - np.cos(2.0))
    found = slope_of(errors, 2.0 / STEPS, 1e-7)
    assert found == pytest.approx(order, abs=0.4)

"""The order of implicit methods where they are made for: split, differential-algebraic and very
stiff problems.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import STARTS, field, slope

import diffeq as de

STEPS = np.array([8, 12, 18, 24, 36, 48, 72, 96, 144])
EXACT = {"rtol": 1e-14, "atol": 1e-14, "max_steps": 160}
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
    exact = de.solve(de.ODEProblem(field, y0, (0.0, 2.0)), de.Vern9(), dt=0.01).y1

    def error(dt):
        return jnp.max(jnp.abs(de.solve(split, method, dt=dt, **EXACT).y1 - exact))

    assert slope(error, 2.0 / STEPS, 2e-12) == pytest.approx(method.order, abs=0.25)


def index1(t, y, args):
    """A problem y' = f(y, z), 0 = g(y, z) with the solution y = sin t, z = exp(cos t)."""
    y, z = y
    rate = jnp.cos(t) + (y - jnp.sin(t)) * z + (z - jnp.exp(jnp.cos(t))) * y / 2
    return jnp.stack([rate, z - jnp.exp(jnp.cos(t)) * (1 + y - jnp.sin(t)) ** 2])


@pytest.mark.parametrize("name", DAE)
def test_order_of_both_components_at_index_1(name):
    method, e = getattr(de, name)(), float(np.e)
    dae = de.DAEProblem(index1, [0.0, e], (0.0, 2.0), None, mass_matrix=jnp.array([1.0, 0.0]))
    exact = jnp.array([jnp.sin(2.0), jnp.exp(jnp.cos(2.0))])
    for component in (0, 1):

        def error(dt, component=component):
            sol = de.solve(dae, method, dt=dt, init="given", **EXACT)
            return jnp.abs(sol.y1 - exact)[component]

        assert slope(error, 2.0 / STEPS, 2e-12) == pytest.approx(method.order, abs=0.25)


@pytest.mark.parametrize(("name", "order"), [("TRBDF2", 2), ("Kvaerno5", 2), ("RadauIIA5", 3)])
def test_order_where_a_problem_is_infinitely_stiff(name, order):
    # Prothero and Robinson: what is left is the stage order (and 1/λ before it).
    rate = 1e6
    f = lambda t, y, a: -rate * (y - jnp.cos(t)) - jnp.sin(t)
    problem = de.ODEProblem(f, 1.0, (0.0, 2.0))
    method = getattr(de, name)()

    def error(dt):
        sol = de.solve(problem, method, dt=dt, **EXACT)
        return rate * jnp.abs(sol.y1 - jnp.cos(2.0))

    found = slope(error, 2.0 / STEPS, 1e-7)
    assert found == pytest.approx(order, abs=0.4)

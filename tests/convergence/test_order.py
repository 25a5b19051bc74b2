"""Every method has the order that its table claims, by the slope of its error at fixed steps."""

import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import ALL, PARTITIONED, by_scipy, ends, problem, slope_of

import diffeq as de
from diffeq.methods import METHODS

T1 = 4.0
STEPS = np.array([8, 12, 18, 24, 36, 48, 72, 96, 144, 192, 288, 384])

# Their leading error is so small that, as far as doubles reach, the next term still shows.
SMALL_LEADING_ERROR = {"BS5", "Dopri8", "Vern6", "Vern7", "Vern8", "Vern9"}
# Weights of 176, and of 245, whose rounding leaves an error in every step.
FLOOR = {"Vern6": 1e-10, "KenCarp5": 1e-12}


@pytest.mark.parametrize("name", ALL)
def test_order(name):
    method = METHODS[name]()
    equation = problem(method, T1)
    errors = np.abs(ends(method, equation, T1 / STEPS) - by_scipy(equation, [T1])).max(axis=1)
    excess = slope_of(errors, T1 / STEPS, FLOOR.get(name, 2e-13)) - method.order
    assert -0.25 < excess < (1.3 if name in SMALL_LEADING_ERROR else 0.25)


def kinetic(t, p, args):
    return (1 + jnp.sin(t) / 2) * jnp.sum(p**2 / 2 + p**4 / 12)


def potential(t, q, args):
    return jnp.sum(q**4) / 4 + jnp.sum(q**2) / 2 - jnp.cos(3 * t) * jnp.sum(q**3) / 3


@pytest.mark.parametrize("name", [n for n in PARTITIONED if n != "DPRKN6"])
def test_order_on_a_hamiltonian(name):
    # McAte5 has order 5 where the kinetic energy is quadratic, and here it is not.
    method = METHODS[name]()
    energy = de.Separable(kinetic, potential)
    motion = de.HamiltonianProblem(energy, jnp.array([1.0]), jnp.array([0.3]), (0.0, 2.0))
    errors = np.abs(ends(method, motion, 2.0 / STEPS) - by_scipy(motion, [2.0])).max(axis=1)
    excess = slope_of(errors, 2.0 / STEPS, 2e-13) - (3 if name == "McAte5" else method.order)
    # Above rounding, KahanLi8 has here a slope that comes down to 8 from above: 10.7, 9.2, 8.7.
    assert -0.25 < excess < (0.8 if name == "KahanLi8" else 0.25)

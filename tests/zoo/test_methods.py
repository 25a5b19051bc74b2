"""Methods on the zoo: the error at the end is that of the tolerance, times what the flow makes of it."""
# ruff: noqa: E501

import jax
import numpy as np
import pytest

import diffeq as de
from diffeq import zoo

CASES = {case.name: case for case in zoo.cases()}
EASY = [
    "lotka_volterra",
    "spiral",
    "detest_b1",
    "detest_e2",
    "detest_a3",
    "van_der_pol",
    "detest_d3",
    "lorenz",
]
METHODS = {"Tsit5": 1e-6, "Dopri5": 1e-6, "BS5": 1e-6, "Vern7": 1e-9, "Dopri8": 1e-9}
PAIRS = [
    *((name, "Tsit5") for name in EASY),
    *(("lotka_volterra", method) for method in METHODS if method != "Tsit5"),
    *((name, "Vern7") for name in ("henon_heiles", "detest_d5", "brusselator", "detest_c1", "pleiades")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_error_is_of_the_tolerance(name, method):
    case, tolerance = CASES[name], METHODS[method]
    reference = case.reference
    sol = jax.jit(
        lambda problem, at: de.solve(
            problem, getattr(de, method)(), saveat=at, rtol=tolerance, atol=tolerance
        )
    )(case.problem(), reference.ts)
    sol.check()
    size = 1 + np.abs(reference.ys).max(axis=0)
    error = np.max(np.abs(sol.ys - reference.ys) / size)
    assert error < 50 * tolerance * max(1.0, reference.amplification)
    assert error > 0

"""Methods on the zoo: the error at the end is that of the tolerance, times what the flow makes of it."""
# ruff: noqa: E501

import jax
import numpy as np
import pytest

import diffeq as de
from diffeq import zoo

CASES = {case.name: case for case in zoo.cases()}
METHODS = {"Tsit5": 1e-6, "Dopri5": 1e-6, "BS5": 1e-6, "Vern7": 1e-9, "Dopri8": 1e-9}
PAIRS = [
    *((name, "Tsit5") for name in ("lotka_volterra", "van_der_pol", "lorenz")),
    ("detest_d3", "Dopri5"), ("spiral", "BS5"), ("detest_e2", "Dopri8"),
    *((name, "Vern7") for name in ("henon_heiles", "pleiades")),
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

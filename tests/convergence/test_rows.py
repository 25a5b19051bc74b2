"""Rows of `saveat` are as good as the steps in which they lie: every method, at every tolerance.

A row may be ten times worse than the ends of steps; but not be held to less than a tolerance, for
that is all that was asked for: of three components one may be off by √3 tolerances, where the norm
of the errors, which is a root mean square, is one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import ALL
from tests.convergence.rows import CASES, field, solution

import diffeq as de
from diffeq.methods import METHODS

WORSE, FLOOR = 10, np.sqrt(3)
ROWS, MOST = 120, 8_000
# Of low order: beyond that they would take more steps.
FINEST = {
    "ImplicitEuler": 1e-5, "Heun": 1e-6, "Midpoint": 1e-6, "Ralston": 1e-6, "Rosenbrock23": 1e-7,
    "TRBDF2": 1e-8, "Bosh3": 1e-9, "SSPRK43": 1e-9, "Kvaerno3": 1e-9, "KenCarp3": 1e-9,
}  # fmt: skip
# One of each family, and of each kind of interpolation.
FAMILIES = ["Heun", "Tsit5", "Vern9", "Dopri8", "KenCarp4", "Rodas5P", "RadauIIA5", "default"]
NAMES = [n for n in ALL if METHODS[n]().adaptive and METHODS[n].form != "partitioned"]


def tolerances(name, dtype):
    finest = max(FINEST.get(name, 0.0), 1e-12 if dtype == jnp.float64 else 1e-6)
    tens = 10.0 ** -np.arange(3.0, 13.0)
    return tens[tens > finest / 2]


def solved(name, dtype, tols):
    """Each case at each tolerance: how it ended, with the rows and the ends of its steps."""
    method = None if name == "default" else METHODS[name]()
    stiff = method is None or method.real_view
    pairs = [(number, tol) for number in range(len(CASES[stiff])) for tol in tols]
    cases = list(CASES[stiff].values())

    def one(number, y0, t1, k, rows, tol):
        problem = de.ODEProblem(field, y0, (jnp.zeros((), dtype), t1), (number, k))
        sol = de.solve(
            problem, method, saveat={"rows": rows, "ends": "steps"}, rtol=tol, atol=tol,
            max_steps=MOST, max_saves=MOST + 2, throw=False,
        )  # fmt: skip
        return sol.status, sol.ts, sol.ys

    each = ((cases[i].y0, cases[i].t1, cases[i].k, cases[i].rows(ROWS), tol) for i, tol in pairs)
    reals = (jnp.asarray(np.stack(x), dtype) for x in zip(*each, strict=True))
    found = jax.jit(jax.vmap(one))(jnp.asarray([i for i, _ in pairs]), *reals)
    found = jax.device_get(found)
    for lane, (i, tol) in enumerate(pairs):
        status, ts, ys = jax.tree.map(lambda x, lane=lane: x[lane], found)
        yield list(CASES[stiff])[i], stiff, tol, status, ts, ys


def worst(ts, ys, reference, tol):
    """The largest error, in tolerances."""
    there = np.isfinite(ts)
    exact = reference(np.asarray(ts[there], float))
    return np.max(np.abs(ys[there] - exact) / (tol * (1 + np.abs(exact))))


def check(name, dtype, tols):
    bad, count, total = [], 0, 0
    for case, stiff, tol, status, ts, ys in solved(name, dtype, tols):
        total += 1
        if status != de.Status.success:
            continue
        count += 1
        reference = solution(case, stiff=stiff)
        row, end = (worst(ts[key], ys[key], reference, tol) for key in ("rows", "ends"))
        if not row <= WORSE * max(end, FLOOR):
            bad.append(f"{case} at {tol:.0e}: {row:.3g} tolerances in rows, {end:.3g} at ends")
    assert not bad, "\n".join(bad)
    assert count > total / 2  # some fail: of low order, or with few digits


def test_rows_are_as_good_as_steps():
    check("Kvaerno5", jnp.float64, [1e-3, 1e-5, 1e-7])


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*NAMES, "default"])
def test_rows_of_every_method_at_every_tolerance(name):
    check(name, jnp.float64, tolerances(name, jnp.float64))


@pytest.mark.thorough
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_in_single_precision(name):
    check(name, jnp.float32, tolerances(name, jnp.float32))

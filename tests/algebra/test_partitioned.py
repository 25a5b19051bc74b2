"""Splittings and Nystrom tables: by bicoloured and Nystrom trees, and by the slope of the error."""

from fractions import Fraction
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

from diffeq.methods.order import (
    nystrom_order_of,
    nystrom_residuals,
    partitioned_residuals,
    precise,
    splitting_nystrom,
    splitting_order_of,
    splitting_tables,
)
from diffeq.methods.tableau import Splitting
from diffeq.methods.tableaus.partitioned import NYSTROM, SPLITTINGS

PRINTED = {"McAte5": 1e-17, "KahanLi8": 1e-24}  # digits of the papers
SYMMETRIC = {"VelocityVerlet", "ForestRuth", "CandyRoz4", "Yoshida6", "KahanLi8"}
BIBLIOGRAPHY = (Path(__file__).parents[2] / "docs" / "references.bib").read_text()

splittings = pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS.keys())
nystroms = pytest.mark.parametrize("tableau", NYSTROM.values(), ids=NYSTROM.keys())


def assert_order(residuals, order, tol):
    *held, broken = residuals
    assert len(held) == order
    assert max(held) <= tol
    assert broken > 1e-8


# --- splittings, by trees ----------------------------------------------------------------------


@splittings
def test_order(splitting):
    kick, drift = map(precise, splitting.exact)
    n = splitting.order + 1
    if splitting.quadratic_kinetic:
        residuals = nystrom_residuals(*splitting_nystrom(kick, drift), n)
    else:
        residuals = partitioned_residuals(*splitting_tables(kick, drift), n)
    assert_order(residuals, splitting.order, PRINTED.get(splitting.name, 1e-38))


@splittings
def test_order_on_all_hamiltonians(splitting):
    expected = 3 if splitting.name == "McAte5" else splitting.order
    assert splitting.quadratic_kinetic == (expected < splitting.order)
    assert splitting_order_of(splitting.kick, splitting.drift) == expected


@splittings
def test_sums_and_flags(splitting):
    kick, drift = splitting.exact
    assert abs(sum(kick) - 1) < Fraction(1, 10**17)
    assert abs(sum(drift) - 1) < Fraction(1, 10**17)
    assert splitting.kick.shape == splitting.drift.shape == (splitting.stages,)
    assert splitting.symmetric == (splitting.name in SYMMETRIC)
    assert splitting.fsal == (splitting.drift[-1] == 0 and splitting.kick[0] != 0)
    np.testing.assert_allclose(
        splitting.kick_c, np.cumsum(splitting.drift) - splitting.drift, atol=1e-15
    )
    np.testing.assert_allclose(splitting.drift_c, np.cumsum(splitting.kick), atol=1e-15)


def test_one_method_under_two_names():
    np.testing.assert_allclose(
        SPLITTINGS["ForestRuth"].kick, SPLITTINGS["CandyRoz4"].kick, rtol=1e-15
    )
    np.testing.assert_allclose(
        SPLITTINGS["ForestRuth"].drift, SPLITTINGS["CandyRoz4"].drift, rtol=1e-15
    )


@pytest.mark.parametrize("table", [*SPLITTINGS.values(), *NYSTROM.values()], ids=lambda t: t.name)
def test_entry_is_documented(table):
    assert table.description.endswith(".")
    assert f"{{{table.reference}," in BIBLIOGRAPHY
    assert f"{table.name} of order {table.order}" in repr(table)


def test_unequal_rows_are_refused():
    with pytest.raises(ValueError, match="equal length"):
        Splitting("kick | 1 0\ndrift | 1").exact  # noqa: B018


# --- splittings, by what they do ---------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def digits():
    with mp.workdps(40):
        yield


def numbers(rows):
    array = np.array(rows, dtype=object)
    flat = [mp.mpf(x.numerator) / x.denominator for x in array.flat]
    return np.array(flat, dtype=object).reshape(array.shape)


def clocks(splitting):
    kick, drift = map(numbers, splitting.exact)
    s = splitting.stages
    return (
        kick,
        drift,
        [sum(drift[:i], 0) for i in range(s)],
        [sum(kick[: i + 1], 0) for i in range(s)],
    )


def solve_splitting(splitting, force, velocity, n, q, p):
    """Goes from 0 to 1 in n steps, by the docstring of `Splitting`."""
    h, table = mp.mpf(1) / n, list(zip(*clocks(splitting), strict=True))
    for i in range(n):
        for kick, drift, kick_c, drift_c in table:
            p = p + kick * h * force((i + kick_c) * h, q)
            q = q + drift * h * velocity((i + drift_c) * h, p)
    return np.array([q, p])


def slope(solve, n):
    """From three solutions, each with twice the steps of the one before."""
    coarse, middle, fine = (solve(m) for m in (n, 2 * n, 4 * n))
    return float(mp.log(max(abs(coarse - middle)) / max(abs(middle - fine)), 2))


@splittings
def test_convergence(splitting):
    def force(t, q):
        return -(q**3) - q + mp.cos(3 * t) * q**2

    def velocity(t, p):
        return p if splitting.quadratic_kinetic else (1 + mp.sin(t) / 2) * (p + p**3 / 3)

    def solve(n):
        return solve_splitting(splitting, force, velocity, n, mp.mpf(1), mp.mpf(1) / 3)

    n = {1: 256, 2: 64}.get(splitting.order, 32)
    assert slope(solve, n) == pytest.approx(splitting.order, abs=0.25)


@splittings
def test_steps_preserve_area(splitting):
    # On q'' = -q a step is a matrix, and det = 1 is what symplectic means in the plane.
    columns = [
        solve_splitting(splitting, lambda t, q: -q, lambda t, p: p, 1, mp.mpf(q), mp.mpf(p))
        for q, p in ((1, 0), (0, 1))
    ]
    (a, c), (b, d) = columns
    assert abs(a * d - b * c - 1) < mp.mpf(10) ** -38


# --- Nystrom -----------------------------------------------------------------------------------


def exact_arrays(tableau):
    e = tableau.exact
    return tuple(map(precise, (e.A, e.b, e.b_dot, e.b_hat, e.b_dot_hat, e.c)))


@nystroms
def test_nystrom_orders(tableau):
    A, b, b_dot, b_hat, b_dot_hat, c = exact_arrays(tableau)
    order, embedded = tableau.order, tableau.embedded_order
    assert_order(nystrom_residuals(A, b, b_dot, c, order + 1), order, 1e-50)
    assert_order(nystrom_residuals(A, b_hat, b_dot_hat, c, embedded + 1), embedded, 1e-50)
    assert nystrom_order_of(tableau.A, tableau.b, tableau.b_dot, tableau.c) == order


@nystroms
def test_nystrom_rows(tableau):
    exact = tableau.exact
    gaps = [abs(sum(row) - c**2 / 2) for row, c in zip(exact.A, exact.c, strict=True)]
    assert max(gaps) < Fraction(1, 10**50)
    assert tableau.fsal
    assert tableau.velocity_free
    assert not np.any(np.triu(tableau.A))
    np.testing.assert_allclose(tableau.b_error, tableau.b - tableau.b_hat, atol=1e-15)
    np.testing.assert_allclose(tableau.b_dot_error, tableau.b_dot - tableau.b_dot_hat, atol=1e-15)


def dense_rows(tableau, theta):
    exact = tableau.exact
    b = [sum(x * theta ** (d + 2) for d, x in enumerate(row)) for row in exact.dense]
    b_dot = [sum(x * theta ** (d + 1) for d, x in enumerate(row)) for row in exact.dense_dot]
    return b, b_dot


@nystroms
@pytest.mark.parametrize("theta", [Fraction(1, 5), Fraction(5, 8), Fraction(1)])
def test_nystrom_dense_order(tableau, theta):
    A, *_, c = exact_arrays(tableau)
    b, b_dot = map(precise, dense_rows(tableau, theta))
    (point,) = precise([theta])
    order = tableau.dense_order
    assert max(nystrom_residuals(A, b, b_dot, c, order, point)) < 1e-50
    assert (nystrom_order_of(A, b, b_dot, c, theta=point) > order) == (theta == 1)


@nystroms
def test_nystrom_dense_ends_and_slopes(tableau):
    exact = tableau.exact
    b, b_dot = dense_rows(tableau, Fraction(1))
    assert max(abs(x - y) for x, y in zip(b, exact.b, strict=True)) < Fraction(1, 10**50)
    assert max(abs(x - y) for x, y in zip(b_dot, exact.b_dot, strict=True)) < Fraction(1, 10**50)
    # v(theta) is the derivative of x(theta).
    for x, v in zip(exact.dense, exact.dense_dot, strict=True):
        assert all(abs((d + 2) * a - w) < Fraction(1, 10**50)
                   for d, (a, w) in enumerate(zip(x, v, strict=True)))  # fmt: skip


def nystrom_step(tableau, t, x, v, h):
    e = tableau.exact
    A, b, b_dot, c = map(numbers, (e.A, e.b, e.b_dot, e.c))
    k = []
    for row, node in zip(A, c, strict=True):
        inner = sum((a * slope for a, slope in zip(row, k, strict=False)), mp.mpf(0))
        position = x + node * h * v + h**2 * inner
        k.append(mp.cos(3 * (t + node * h)) * position**2 - position**3)
    k = np.array(k)
    return x + h * v + h**2 * (b @ k), v + h * (b_dot @ k)


@nystroms
def test_nystrom_convergence(tableau):
    def solve(n):
        x, v, h = mp.mpf(1), mp.mpf(1) / 3, mp.mpf(1) / n
        for i in range(n):
            x, v = nystrom_step(tableau, i * h, x, v, h)
        return np.array([x, v])

    assert slope(solve, 24) == pytest.approx(tableau.order, abs=0.25)

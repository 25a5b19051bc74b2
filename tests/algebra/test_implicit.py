"""Implicit Runge-Kutta tables: order by trees of one and of two colours, stage order, stability."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from diffeq.methods.dirk import _step_coefficients
from diffeq.methods.firk import _stage_coefficients
from diffeq.methods.order import (
    additive_residuals,
    damping_at_infinity,
    dense_order_of,
    order_residuals,
    precise,
    row_sum_residual,
    stability_excess,
    stage_order_of,
)
from diffeq.methods.tableau import Tableau
from diffeq.methods.tableaus.dirk import DIRK_TABLES
from diffeq.methods.tableaus.firk import FIRK_TABLES

TABLES = DIRK_TABLES | FIRK_TABLES
PRINTED = {"Kvaerno5": 1e-38, "KenCarp3": 1e-25, "KenCarp4": 1e-24, "KenCarp5": 1e-23}
STAGE_ORDER = {"ImplicitEuler": 1, "ImplicitMidpoint": 1, "RadauIIA5": 3}
UNDAMPED = {"ImplicitMidpoint", "Trapezoid"}
BIBLIOGRAPHY = (Path(__file__).parents[2] / "docs" / "references.bib").read_text()

every = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
dirk = pytest.mark.parametrize("table", DIRK_TABLES.values(), ids=DIRK_TABLES.keys())
PAIRS = {name: table for name, table in DIRK_TABLES.items() if table.explicit_A is not None}
additive = pytest.mark.parametrize("table", PAIRS.values(), ids=PAIRS.keys())


def printed(table):
    return PRINTED.get(table.name, 1e-50)


def assert_order(residuals, order, tol):
    """Every condition up to the order holds, and some condition of the next one does not."""
    *held, broken = residuals
    assert len(held) == order
    assert max(held) <= tol
    assert broken > 1e-5


@every
def test_order(table):
    A, b, c = map(precise, (table.exact.A, table.exact.b, table.exact.c))
    assert_order(order_residuals(A, b, c, table.order + 1), table.order, printed(table))


@every
def test_embedded_and_dense_order(table):
    A, order = precise(table.exact.A), table.embedded_order
    if order is not None:
        b_hat = precise(table.exact.b_hat)
        assert_order(order_residuals(A, b_hat, None, order + 1), order, printed(table))
    if table.dense_order is not None:
        assert dense_order_of(table) == table.dense_order
        ends = [sum(row) - b for row, b in zip(table.exact.dense, table.exact.b, strict=True)]
        assert max(map(abs, ends)) <= printed(table)


@every
def test_stage_order(table):
    first = 0 if table.diagonally_implicit else 1
    A, c = table.A[first:, first:], table.c[first:]
    assert stage_order_of(A, c) == STAGE_ORDER.get(table.name, 2)


@every
def test_stability(table):
    A, b = precise(table.exact.A), precise(table.exact.b)
    assert stability_excess(A, b) < 1e-12
    # L-stable to the digits that are printed; and what R is at infinity for the symmetric ones.
    rest = damping_at_infinity(A, b)
    assert rest == pytest.approx(1.0 if table.name in UNDAMPED else 0.0, abs=1e-12)
    assert table.stiffly_accurate == (table.name != "ImplicitMidpoint")


@additive
def test_both_halves_have_the_order_for_every_colouring(table):
    exact = table.exact
    A, pairs, b, c = map(precise, (exact.A, exact.explicit_A, exact.b, exact.c))
    assert not np.any(np.triu(table.explicit_A))
    assert row_sum_residual(pairs, c) <= printed(table)
    tol, both = printed(table), (A, pairs)
    assert_order(additive_residuals(both, b, table.order + 1), table.order, tol)
    embedded = additive_residuals(both, precise(exact.b_hat), table.embedded_order + 1)
    assert_order(embedded, table.embedded_order, tol)
    for theta in (Fraction(1, 7), Fraction(5, 8)):
        powers = precise([theta ** (d + 1) for d in range(len(exact.dense[0]))])
        row, n = precise(exact.dense) @ powers, table.split_dense_order
        held = additive_residuals(both, row, n, precise([theta])[0])
        assert max(held) <= tol


def test_a_coupling_condition_that_fails_is_found():
    # Each half has order 2; together they would need a common c.
    halves = Tableau("""
        0   |
        1   | 1/2  1/2
        b   | 1/2  1/2
        e2  | 1/2
    """)
    A, pairs = precise(halves.exact.A), precise(halves.exact.explicit_A)
    b = precise(halves.exact.b)
    assert max(additive_residuals((A,), b, 2)) == 0
    assert additive_residuals((A, pairs), b, 2)[1] > 0.1


@dirk
def test_rows_of_displacements_say_what_the_tableau_says(table):
    # With any slopes z of the implicit and h of the explicit part, u = A z + A_explicit h.
    generator = np.random.default_rng(0)
    s, rows = table.stages, _step_coefficients(table, plain=True)
    split = table.explicit_A is not None
    z = generator.normal(size=s)
    h = generator.normal(size=s) if split else np.zeros(s)
    u = table.A @ z + (table.explicit_A @ h if split else 0)
    first = z[0] if table.A[0, 0] == 0 else 0.0

    def of(row):
        return row.first * first + row.moves @ u + row.pushes @ h

    known, _, c = rows.stages
    diagonal = np.diag(table.A)
    for i in range(s):
        if diagonal[i]:
            assert of(type(known)(*(x[i] for x in known))) + diagonal[i] * z[i] == pytest.approx(
                u[i]
            )
    assert of(rows.end) == pytest.approx(table.b @ (z + h))
    assert of(rows.slope) == pytest.approx(z[-1])
    np.testing.assert_array_equal(c, table.c)
    if rows.error is not None:
        assert of(rows.error) == pytest.approx(table.b_error @ (z + h), rel=1e-9)
        # Unbounded for stiff components where it depends on the slope at the start.
        bounded = np.isfinite(damping_at_infinity(table.A, table.b_hat))
        assert rows.damped == (not bounded)
    if rows.dense is not None:
        for d in range(len(rows.dense.first)):
            row = type(rows.dense)(*(x[d] for x in rows.dense))
            assert of(row) == pytest.approx(table.dense[:, d] @ (z + h), rel=1e-9)


@dirk
@pytest.mark.parametrize("plain", [True, False], ids=["slope", "mass"])
def test_newton_starts_on_a_curve_through_what_is_known(table, plain):
    # Exact for polynomials of as many terms as there are data: the slope at the start, and the
    # last one or two stages.
    _, guess, c = _step_coefficients(table, plain).stages
    starts = plain and table.A[0, 0] == 0
    for i in np.flatnonzero(np.diag(table.A)):
        nodes = {c[j] for j in range(i) if table.A[j, j] != 0}
        terms = range(1, 1 + min(2, len(nodes)) + starts)
        u = sum((c**k for k in terms), 0 * c)
        found = guess.first[i] * starts + guess.moves[i, :i] @ u[:i]
        assert found == pytest.approx(u[i], abs=1e-12)


def test_radau_in_the_eigenvectors():
    table = FIRK_TABLES["RadauIIA5"]
    numbers = _stage_coefficients(table)
    total = np.zeros((3, 3))
    for value, vector, dual in zip(numbers.values, numbers.vectors, numbers.duals, strict=True):
        part = value * np.outer(vector, dual)
        total += (2 if isinstance(value, complex) else 1) * part.real
    np.testing.assert_allclose(total @ table.A[1:, 1:], np.eye(3), atol=1e-13)
    assert [type(value) for value in numbers.values] == [float, complex]
    assert numbers.values[0] == pytest.approx(1 / table.b_hat[0])  # one matrix for both
    z = np.random.default_rng(1).normal(size=3)
    assert numbers.error[1] @ (table.A[1:, 1:] @ z) == pytest.approx(table.b_error[1:] @ z)


@pytest.mark.parametrize("text", ["0 |\n1 | 1\nb | 1 0\ne1 | 1", "0 |\n1 | 1\nb | 1\ne3 | 1"])
def test_explicit_halves_of_other_stages_are_refused(text):
    with pytest.raises(ValueError, match="e"):
        Tableau(text).exact  # noqa: B018


@every
def test_entry_is_documented(table):
    assert table.description.endswith(".")
    assert f"{{{table.reference}," in BIBLIOGRAPHY

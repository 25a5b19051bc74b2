"""Rosenbrock tables, proved by rooted trees: for ODEs, for any Jacobian, and for index 1."""

import numpy as np
import pytest

import diffeq as de
from diffeq.methods.order import (
    precise,
    rosenbrock_dense_residuals,
    rosenbrock_index1_residuals,
    rosenbrock_order_of,
    rosenbrock_residuals,
    rosenbrock_w_residuals,
    stability_function,
)
from diffeq.methods.tableaus.rosenbrock import ROSENBROCK

PRINTED = 1e-13  # 16 digits are printed, some before the point
FAILS = 1e-3
INDEX_1 = {"Rosenbrock23": (2, 1), "Rodas4": (4, 4), "Rodas5P": (5, 4)}

every = pytest.mark.parametrize("table", ROSENBROCK.values(), ids=ROSENBROCK)


def classical(table):
    return [None if x is None else precise(x) for x in table.classical]


def assert_order(residuals, order):
    *held, broken = residuals
    assert len(held) == order
    assert max(held) < PRINTED
    assert broken > FAILS


@every
def test_order_of_both_solutions(table):
    alpha, beta, b, b_hat = classical(table)
    assert_order(rosenbrock_residuals(alpha, beta, b, table.order + 1), table.order)
    embedded = table.embedded_order
    assert_order(rosenbrock_residuals(alpha, beta, b_hat, embedded + 1), embedded)


@every
def test_dense_order(table):
    alpha, beta, _, _ = classical(table)
    dense, order = table.classical_dense, table.dense_order
    assert_order(rosenbrock_dense_residuals(alpha, beta, dense, order + 1), order)
    np.testing.assert_allclose(table.dense.sum(axis=1), table.b, atol=1e-14)


@every
def test_nodes_are_row_sums(table):
    # Which makes the conditions of y' = f(t, y) follow from those of y' = f(y).
    alpha, beta, _, _ = table.classical
    np.testing.assert_allclose([float(sum(row)) for row in alpha], table.c, atol=1e-14)
    np.testing.assert_allclose([float(sum(row)) for row in beta], table.c + table.d, atol=1e-14)


@every
def test_order_on_index_1(table):
    alpha, beta, b, _ = classical(table)
    residuals = rosenbrock_index1_residuals(alpha, beta, b, table.order + 1)
    for part, order in enumerate(INDEX_1[table.name]):
        assert_order([pair[part] for pair in residuals[: order + 1]], order)


def test_any_jacobian_does_for_rosenbrock23():
    alpha, beta, b, _ = classical(ROSENBROCK["Rosenbrock23"])
    assert_order(rosenbrock_w_residuals(alpha, beta, b, 3), 2)
    alpha, beta, b, _ = classical(ROSENBROCK["Rodas4"])
    assert_order(rosenbrock_w_residuals(alpha, beta, b, 2), 1)


@every
def test_l_stable(table):
    _, beta, b, _ = classical(table)
    numerator, denominator = (np.asarray(x, float)[::-1] for x in stability_function(beta, b))
    value = lambda z: np.polyval(numerator, z) / np.polyval(denominator, z)
    # Bounded by 1 on the imaginary axis, and the only pole, 1/γ, is on the right: A-stable.
    assert np.abs(value(1j * np.geomspace(1e-3, 1e6, 4001))).max() <= 1 + 1e-12
    np.testing.assert_allclose(np.roots(denominator).real, 1 / table.gamma, rtol=0.05)
    assert abs(value(-1e10)) < 1e-8


@pytest.mark.parametrize("name", ["Rodas4", "Rodas5P"])
def test_stiffly_accurate(name):
    # The last row of beta is b, so that y1 is exact for y' = λ (y − φ(t)) as λ → −∞.
    _, beta, b, _ = ROSENBROCK[name].classical
    np.testing.assert_allclose([float(x) for x in beta[-1]], [float(x) for x in b], atol=1e-14)


def test_both_forms_of_a_table_are_one_method():
    codes = de.RosenbrockTableau("""
    gamma | 1/2
    0     |
    1     | 2
    C2    | -4
    b     | 3    1
    b_hat | 2    0
    h2    | 1    0
    """)
    alpha, beta, b, b_hat = codes.classical
    papers = de.RosenbrockTableau(f"""
    gamma | 1/2
    0     |
    1     | {alpha[1][0]}
    g2    | {beta[1][0] - alpha[1][0]}
    b     | {b[0]}  {b[1]}
    b_hat | {b_hat[0]}  {b_hat[1]}
    h2    | {codes.classical_dense[0][0] - b[0]}  {codes.classical_dense[1][0] - b[1]}
    """)
    assert papers.exact == codes.exact
    assert papers.order == rosenbrock_order_of(*map(precise, (alpha, beta, b))) == 2
    assert "C2" in str(codes)
    assert str(codes).splitlines()[1] == "gamma | 1/2"


def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match="rows gamma and b are needed"):
        de.RosenbrockTableau("0 |\nb | 1").order  # noqa: B018
    with pytest.raises(ValueError, match="unknown rows e2"):
        de.RosenbrockTableau("gamma | 1\n0 |\nb | 1\ne2 | 1").order  # noqa: B018

"""Explicit Runge-Kutta tables, proved twice: by rooted trees, and by the slope of their error.

The trees are exact up to 60 digits, so a condition holds to the digits that the paper prints, or
fails by far: there is no tolerance to argue about.
"""

import math
from fractions import Fraction
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

from diffeq.methods.order import (
    dense_order_of,
    dense_residuals,
    order_of,
    order_residuals,
    precise,
    real_stability_interval,
    row_sum_residual,
    stability_function,
)
from diffeq.methods.tableaus.explicit import EXPLICIT

PRINTED = 1e-27  # the shortest decimals, those of DOP853, have 30 digits
PRINTED_DENSE = {"Vern7": 1e-12, "Vern9": 1e-11}  # interpolants printed with an error of that size
CLEAR_FAILURE = 1e-8
RATIONAL = ["Euler", "Midpoint", "Heun", "Ralston", "RK4", "Bosh3", "BS5", "Dopri5", "Vern6",
            "SSPRK33", "SSPRK43", "SSPRK104"]  # fmt: skip
FSAL = {"Bosh3", "BS5", "Tsit5", "Dopri5", "Vern6"}
WITH_DENSE = [name for name, tableau in EXPLICIT.items() if tableau.dense_order]
WITH_PAIR = [name for name, tableau in EXPLICIT.items() if tableau.embedded_order]
BIBLIOGRAPHY = (Path(__file__).parents[2] / "docs" / "references.bib").read_text()

every = pytest.mark.parametrize("tableau", EXPLICIT.values(), ids=EXPLICIT.keys())
paired = pytest.mark.parametrize("tableau", [EXPLICIT[n] for n in WITH_PAIR], ids=WITH_PAIR)
dense = pytest.mark.parametrize("tableau", [EXPLICIT[n] for n in WITH_DENSE], ids=WITH_DENSE)


def assert_order(residuals, order, tol):
    """Every condition up to the order holds, and some condition of the next one does not."""
    *held, broken = residuals
    assert len(held) == order
    assert max(held) <= tol
    assert broken > CLEAR_FAILURE


# --- by trees ----------------------------------------------------------------------------------


@every
def test_order(tableau):
    A, b, c = map(precise, (tableau.exact.A, tableau.exact.b, tableau.exact.c))
    assert_order(order_residuals(A, b, c, tableau.order + 1), tableau.order, PRINTED)


@pytest.mark.parametrize("name", RATIONAL)
def test_rational_tables_are_exact(name):
    exact = EXPLICIT[name].exact
    A, b, c = (np.array(rows, dtype=object) for rows in (exact.A, exact.b, exact.c))
    assert not any(order_residuals(A, b, c, min(EXPLICIT[name].order, 5)))


@paired
def test_embedded_order(tableau):
    A, b_hat = precise(tableau.exact.A), precise(tableau.exact.b_hat)
    order = tableau.embedded_order
    assert_order(order_residuals(A, b_hat, None, order + 1), order, PRINTED)


def test_second_embedded_order():
    exact = EXPLICIT["Dopri8"].exact
    residuals = order_residuals(precise(exact.A), precise(exact.b_hat3), None, 4)
    assert_order(residuals, 3, PRINTED)


@dense
def test_dense_order(tableau):
    order = tableau.dense_order
    tol = PRINTED_DENSE.get(tableau.name, PRINTED)
    assert_order(dense_residuals(tableau, min(order + 1, 10)), order, tol)
    if tableau.stages < 10:  # the same walk again
        assert dense_order_of(tableau) == order


@dense
def test_dense_output_ends_at_the_step(tableau):
    b = np.zeros(len(tableau.dense))
    b[: tableau.stages] = tableau.b
    ends = np.array([float(sum(row)) for row in tableau.exact.dense])
    np.testing.assert_allclose(ends, b, atol=PRINTED_DENSE.get(tableau.name, 1e-15))


@dense
def test_dense_output_starts_with_the_slope(tableau):
    # y'(t0) = k_1 makes the interpolant C1 from step to step.
    np.testing.assert_array_equal(tableau.dense[:, 0], np.eye(len(tableau.dense))[0])


@every
def test_row_sums(tableau):
    assert row_sum_residual(precise(tableau.exact.A), precise(tableau.exact.c)) <= PRINTED
    if tableau.extra_stages:
        gaps = [
            abs(sum(row) - c)
            for row, c in zip(tableau.exact.extra_A, tableau.exact.extra_c, strict=True)
        ]
        assert max(gaps) <= PRINTED


@every
def test_shapes_and_flags(tableau):
    s, e = tableau.stages, tableau.extra_stages
    assert tableau.explicit
    assert tableau.A.shape == (s, s)
    assert tableau.b.shape == tableau.c.shape == (s,)
    assert tableau.extra_A.shape == (e, s + e)
    assert tableau.extra_c.shape == (e,)
    assert not np.any(np.triu(tableau.extra_A, s))
    assert tableau.fsal == (tableau.name in FSAL)
    if tableau.dense is not None:
        assert len(tableau.dense) == s + e
        assert tableau.end_stage is not None
    assert tableau.A.dtype == tableau.b.dtype == tableau.c.dtype == np.float64


@every
def test_differences_are_rounded_once(tableau):
    if tableau.b_hat is None:
        assert tableau.b_error is None
        return
    exact = [float(x - y) for x, y in zip(tableau.exact.b, tableau.exact.b_hat, strict=True)]
    np.testing.assert_array_equal(tableau.b_error, exact)


@every
def test_stability_function_is_the_exponential_to_the_order(tableau):
    numerator, denominator = stability_function(*map(precise, (tableau.exact.A, tableau.exact.b)))
    assert denominator.tolist() == [1]
    taylor = [Fraction(1, math.factorial(k)) for k in range(tableau.order + 1)]
    errors = abs(numerator[: tableau.order + 1] - precise(taylor))
    assert max(errors) <= PRINTED
    assert len(numerator) <= tableau.stages + 1


def test_stability_intervals():
    known = {"Euler": 2, "Heun": 2, "RK4": 2.785293563, "Dopri5": 3.306567892, "SSPRK104": 13.917}
    for name, interval in known.items():
        tableau = EXPLICIT[name]
        assert real_stability_interval(tableau.A, tableau.b) == pytest.approx(interval, rel=1e-4)


@every
def test_order_is_found_from_the_array_alone(tableau):
    if tableau.stages <= 10 and tableau.name != "Vern6":  # Vern6 cancels too much for floats
        assert order_of(tableau.A, tableau.b, tableau.c) == tableau.order


@every
def test_entry_is_documented(tableau):
    assert tableau.description.endswith(".")
    assert f"{{{tableau.reference}," in BIBLIOGRAPHY
    assert repr(tableau).startswith(f"Tableau {tableau.name} of order {tableau.order}")
    assert "\n" not in repr(tableau)
    assert str(tableau).startswith(f"{tableau!r}\n")


# --- by convergence ----------------------------------------------------------------------------
#
# Four coupled equations, non-linear in y and in t, solved by (exp(sin t^2), exp(5 sin t^2),
# 1 + sin t^2, cos t^2). In 60 digits, where rounding cannot hide the slope of an order-9 method,
# one step from the solution is enough: its error is of order p + 1.


def field(t, y):
    return np.array([
        2 * t * mp.root(y[1], 5) * y[3],
        10 * t * mp.exp(5 * (y[2] - 1)) * y[3],
        2 * t * y[3],
        -2 * t * mp.log(y[0]),
    ])  # fmt: skip


def solution(t):
    s = mp.sin(t * t)
    return np.array([mp.exp(s), mp.exp(5 * s), 1 + s, mp.cos(t * t)])


@pytest.fixture(autouse=True, scope="module")
def digits():
    with mp.workdps(60):
        yield


def numbers(rows):
    """Fractions in mpmath."""
    array = np.array(rows, dtype=object)
    flat = [mp.mpf(x.numerator) / x.denominator for x in array.flat]
    return np.array(flat, dtype=object).reshape(array.shape)


class Stepper:
    """A bare Runge-Kutta step, written from the formula."""

    def __init__(self, exact):
        self.A = [*map(numbers, exact.A), *map(numbers, exact.extra_A)]
        self.c = numbers((*exact.c, *exact.extra_c))
        self.s = len(exact.b)

    def stages(self, t, y, h, count):
        slopes = []
        for row, c in list(zip(self.A, self.c, strict=True))[:count]:
            terms = (a * k for a, k in zip(row, slopes, strict=False) if a)
            slopes.append(field(t + c * h, y + h * sum(terms, 0 * y)))
        return slopes


def combine(weights, slopes):
    return sum((w * k for w, k in zip(weights, slopes, strict=False) if w), 0 * slopes[0])


def norm(y):
    return max(map(abs, y))


def slope(coarse, fine):
    return float(mp.log(coarse / fine, 2))


def local_error(tableau, rows, thetas, h):
    """The worst error, over thetas, of one step from the solution with the weights rows[theta]."""
    stepper, t = Stepper(tableau.exact), mp.mpf(1) / 2
    y = solution(t)
    slopes = stepper.stages(t, y, h, None if len(rows[0]) > stepper.s else stepper.s)
    return max(
        norm(y + h * combine(row, slopes) - solution(t + theta * h))
        for row, theta in zip(rows, thetas, strict=True)
    )


def local_slope(tableau, rows, thetas, h):
    return slope(local_error(tableau, rows, thetas, h), local_error(tableau, rows, thetas, h / 2))


@every
def test_convergence(tableau):
    # The leading error of Vern6 is so small that the next ones hide it for all but tiny steps. The
    # methods of higher order show theirs, and would run out of printed digits.
    h = mp.mpf(2) ** (-18 if tableau.order <= 6 else -9)
    measured = local_slope(tableau, [numbers(tableau.exact.b)], [1], h)
    assert measured == pytest.approx(tableau.order + 1, abs=0.25)


@paired
def test_embedded_error(tableau):
    measured = local_slope(tableau, [numbers(tableau.exact.b_hat)], [1], mp.mpf(1) / 512)
    assert measured == pytest.approx(tableau.embedded_order + 1, abs=0.25)


@dense
def test_dense_error(tableau):
    # A lower bound on the slope, at steps where the digits of the printed interpolants suffice.
    h = mp.mpf(1) / (4 if tableau.name == "Vern9" else 12)
    thetas = [mp.mpf(k) / 5 for k in range(1, 5)]
    polynomials = numbers(tableau.exact.dense)
    powers = [[theta ** (d + 1) for d in range(polynomials.shape[1])] for theta in thetas]
    rows = [polynomials @ np.array(power) for power in powers]
    assert local_slope(tableau, rows, thetas, h) > tableau.dense_order + 1 - 0.35

"""The error inside steps of implicit methods: what is read there is no worse than what is judged.

On the equation of Prothero and Robinson, y' = λ (y − φ(t)) + φ'(t), a stiffly accurate method ends
each step on φ, however long it is, if λ is large; then neither the error at the end nor an estimate
of it says anything of the polynomial between. There the row `dense_error` of a table does, and in
problems that are not stiff it is of the order of the estimate, and limits no step by more.
"""

from functools import cache

import numpy as np
import pytest

from diffeq.methods.order import order_residuals, precise, rosenbrock_residuals
from diffeq.methods.tableaus.dirk import DIRK_TABLES
from diffeq.methods.tableaus.firk import FIRK_TABLES
from diffeq.methods.tableaus.rosenbrock import ROSENBROCK

RUNGE_KUTTA = {n: t for n, t in (DIRK_TABLES | FIRK_TABLES).items() if t.b_hat is not None}
TABLES = RUNGE_KUTTA | ROSENBROCK
WITH_ROW = {name: table for name, table in TABLES.items() if table.dense_error is not None}
THETAS = np.linspace(0.0, 1.0, 41)
STIFFNESS = -np.geomspace(1e-2, 1e7, 46)
STEPS = 4


def phi(t, derivative=0):
    """Sine and cosine at once: no error vanishes for the phase at which it is looked at."""
    return 1j**derivative * np.exp(1j * t)


def of_each(tables):
    return pytest.mark.parametrize("table", tables.values(), ids=tables.keys())


def cubic(table):
    """The weights of the slopes in Hermite's cubic, by powers of θ."""
    first, last = np.eye(table.stages)[[0, -1]]
    return np.stack([first, 3 * table.b - 2 * first - last, first + last - 2 * table.b], axis=1)


class RungeKutta:
    """A step of length dt from φ(t) + e0, z = λ dt: dt times the slopes of its stages."""

    def __init__(self, table):
        self.b, self.b_hat, self.row = table.b, table.b_hat, table.dense_error
        self.dense = cubic(table) if table.dense is None else table.dense
        self.A, self.c = table.A, table.c
        # Where the estimate depends on the slope at the start, it is damped.
        first = int(not table.A[0].any())
        weights = np.linalg.solve(table.A[first:, first:].T, (self.b - self.b_hat)[first:])
        start = (self.b - self.b_hat)[0] - weights @ table.A[first:, 0] if first else 0.0
        self.gamma = table.A[-1, -1] if table.diagonally_implicit else table.b_hat[0]
        self.damped = abs(start) > 1e-9

    def slopes(self, t, dt, z, e0):
        # (1 − z A) E = e0 + dt A φ' − (φ_i − φ_0) for E_i = Y_i − φ_i: no large numbers cancel.
        moved, rate = phi(t + self.c * dt) - phi(t), dt * phi(t + self.c * dt, 1)
        E = np.linalg.solve(np.eye(len(self.c)) - z * self.A, e0 + self.A @ rate - moved)
        return rate + z * E

    def estimate(self, slopes, z):
        return (self.b - self.b_hat) @ slopes / (1 - self.gamma * z if self.damped else 1)


class Rosenbrock:
    """The same of a Rosenbrock method; f_t = −λ φ' + φ''."""

    def __init__(self, table):
        alpha, beta, b, b_hat = (np.array(x, float) for x in table.classical)
        self.alpha, self.beta, self.b, self.b_hat = alpha, beta, b, b_hat
        self.dense = np.array(table.classical_dense, float)
        # Of u = Γ k, as the code has it.
        self.row = None if table.dense_error is None else table.dense_error @ (beta - alpha)

    def slopes(self, t, dt, z, e0):
        c, d = self.alpha.sum(axis=1), (self.beta - self.alpha).sum(axis=1)
        moved, rate = phi(t + c * dt) - phi(t), dt * phi(t + c * dt, 1)
        by_t = d * (dt**2 * phi(t, 2) - z * dt * phi(t, 1))
        return np.linalg.solve(np.eye(len(c)) - z * self.beta, rate + z * (e0 - moved) + by_t)

    def estimate(self, slopes, z):
        return (self.b - self.b_hat) @ slopes


@cache
def stepper(table):
    return (RungeKutta if table.name in RUNGE_KUTTA else Rosenbrock)(table)


def errors(table, dt, z):
    """Of the last of some steps: the error inside, at its ends, its estimate, and `dense_error`."""
    method = stepper(table)
    e1 = 0.0
    for n in range(STEPS):
        t, e0 = n * dt, e1
        slopes = method.slopes(t, dt, z, e0)
        e1 = e0 + method.b @ slopes - (phi(t + dt) - phi(t))
    powers = THETAS[:, None] ** np.arange(1, method.dense.shape[1] + 1)
    inside = e0 + powers @ method.dense.T @ slopes - (phi(t + THETAS * dt) - phi(t))
    row = 0.0 if method.row is None else abs(method.row @ slopes)
    if table.name in ROSENBROCK:  # or half the last term of the Chebyshev series
        row = min(row, abs(method.dense[:, -1] @ slopes) / 4 ** method.dense.shape[1])
    return abs(inside).max(), max(abs(e0), abs(e1)), abs(method.estimate(slopes, z)), row


@of_each(TABLES)
@pytest.mark.parametrize("dt", [0.3, 0.1, 0.03])
def test_inside_a_step_is_no_worse_than_what_is_judged(table, dt):
    for z in STIFFNESS:
        inside, ends, estimate, row = errors(table, dt, z)
        assert inside <= 6 * max(ends, estimate, row) + 1e-13


@of_each(WITH_ROW)
def test_without_the_row_nothing_tells(table):
    inside, ends, estimate, row = errors(table, 0.1, STIFFNESS[-1])
    assert inside > 10 * max(ends, estimate)
    assert row < 30 * inside


@of_each(WITH_ROW)
def test_the_row_limits_no_step_that_is_not_stiff(table):
    """It meets all conditions that the estimate does: both are of one order."""
    order = min(table.order, table.embedded_order)
    if table.name in RUNGE_KUTTA:
        A, row = precise(table.exact.A), precise(table.exact.dense_error)
        zero = order_residuals(A, precise(table.exact.b) + row, None, order)
    else:
        alpha, beta, b, _ = (precise(x) for x in table.classical)
        row = precise(table.exact.dense_error) @ (beta - alpha)
        zero = rosenbrock_residuals(alpha, beta, b + row, order)
    assert max(zero) < 1e-10
    # And where nothing is stiff it is no larger than the estimate and the error inside.
    inside, _, estimate, row = errors(table, 0.1, STIFFNESS[0])
    assert row <= max(4 * estimate, inside)

"""Events in delay equations: what they change comes back after each lag."""

from math import exp

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.optimize import brentq
from tests.tiers import shortly

import diffeq as de

LAG, END, LEVEL = 1.0, 4.0, 0.25


def of_steps(given):
    """The method of steps by hand, in polynomials, for y' = −u(t − 1) y(t − 1) − n(t − 1)/10 with
    y = u = 1 and n = 0 before the start. Where y falls through LEVEL: y + 1, 0.8 u, n + 1. `given`
    are (time, what is added to y), in order. Returns pieces (start, end, y, u, n), and crossings.
    """
    pieces = [(-np.inf, 0.0, Polynomial([1.0]), 1.0, 0)]
    t, y, u, n, crossings = 0.0, 1.0, 1.0, 0, []
    while t < END:
        ends = [e + LAG for _, e, *_ in pieces] + [s for s, _ in given] + [END]
        end = min(e for e in ends if e > t + 1e-12)
        _, _, p, v, m = next(x for x in pieces if x[0] <= (t + end) / 2 - LAG < x[1])
        rate = -v * p(Polynomial([-LAG, 1.0])) - m / 10
        curve = rate.integ(lbnd=t) + y
        roots = [r.real for r in (curve - LEVEL).roots() if abs(r.imag) < 1e-12]
        roots = [r for r in roots if t + 1e-9 < r < end and rate(r) < 0]
        crossing = min(roots, default=None)
        end = end if crossing is None else crossing
        pieces.append((t, end, curve, u, n))
        t, y = end, curve(end)
        if crossing is not None:
            y, u, n = y + 1, 0.8 * u, n + 1
            crossings.append(t)
        y += sum(amount for s, amount in given if abs(s - t) < 1e-12)
    return pieces, crossings


def everything(method, saveat):
    def field(t, y, past, args):
        old = past(t - LAG)
        return {"y": -old["u"] * old["y"] - old["n"] / 10}

    def again(t, y, args):
        return {"y": y["y"] + 1, "u": 0.8 * y["u"], "n": y["n"] + 1}

    start = {"y": 1.0, "u": de.hold(1.0), "n": de.hold(0)}
    problem = de.DDEProblem(
        field, start, (0.0, END), history={"y": 1.0, "u": 1.0, "n": 0}, lags=LAG
    )
    low = de.Event(lambda t, y, args: y["y"] - LEVEL, again, direction=-1)
    often = de.Periodic(1.3, lambda t, y, args: {**y, "y": y["y"] + 0.2})
    late = de.AfterStep(lambda t, y, args: t > END + 1, lambda t, y, args: {**y, "y": 0.0})
    return de.solve(problem, method, events=(low, often, de.doses([2.0], [-0.1], "y"), late),
                    saveat=saveat, rtol=1e-6, dense=True)  # fmt: skip


@pytest.mark.parametrize("method", shortly([de.Tsit5(), de.Rodas5P()], de.Tsit5()))
def test_jumps_come_back_as_the_method_of_steps_says(method):
    """Exactly, since each piece is a polynomial: no step goes over a discontinuity. y and what is
    held are seen in the past, on both sides of each jump; 2.0 is also where the kink at 1 returns.
    """
    pieces, crossings = of_steps([(1.3, 0.2), (2.0, -0.1), (2.6, 0.2), (3.9, 0.2)])
    ts = np.linspace(0.05, END - 0.06, 37)
    sol = everything(method, jnp.asarray(ts))
    at = [next(p for p in pieces if p[0] <= t < p[1]) for t in ts]
    np.testing.assert_allclose(
        sol.ys["y"], [p[2](t) for p, t in zip(at, ts, strict=True)], atol=1e-11
    )
    np.testing.assert_allclose(sol.ys["u"], [p[3] for p in at], rtol=1e-14)
    assert sol.ys["n"].tolist() == [p[4] for p in at]
    assert len(crossings) >= 2
    np.testing.assert_allclose(sol.events[0].ts[: int(sol.events[0].num)], crossings, atol=1e-11)
    np.testing.assert_allclose(
        sol(2.2)["y"], next(p for p in pieces if p[1] > 2.2)[2](2.2), atol=1e-11
    )


# --- a drug, and its effect after a while ---------------------------------------------------------

# absorption, loss, lag (the interval of the doses, too), time of the first dose, dose, limit
X = jnp.array([1.3, 0.6, 1.0, 0.2, 1.0, 0.45])
DOSES = np.arange(3.0)


def drug(x):
    """What is in the gut, and its effect; where that falls through the limit there is a rescue."""

    def field(t, y, past, x):
        return jnp.array([-x[0] * y[0], past(t - x[2])[0] - x[1] * y[1]])

    problem = de.DDEProblem(
        field, [0.0, 0.0], (0.0, 4.6), x, history=[0.0, 0.0], lags=lambda x: x[2]
    )
    given = de.doses(lambda x: x[3] + DOSES, lambda x: x[4] * jnp.array([1.0, 0.5, 0.0]), 0)
    rescue = de.Event(lambda t, y, x: y[1] - x[5], lambda t, y, x: y + x[4] / 4, direction=-1)
    return de.solve(problem, de.Tsit5(), events=(given, rescue), rtol=1e-10, atol=1e-12)


def bateman(x, t):
    """The effect of one unit that was given at 0."""
    a, k, lag = x[:3]
    s = t - lag
    return (exp(-k * s) - exp(-a * s)) / (a - k) if s > 0 else 0.0


def in_closed_form(x):
    """When the rescue comes, and the effect at the end."""
    doses = lambda t: x[4] * (bateman(x, t - x[3]) + bateman(x, t - x[3] - 1) / 2)
    rescue = brentq(lambda t: doses(t) - x[5], 2.5, 4.5, xtol=1e-14)
    left = 4.6 - rescue
    return rescue, doses(4.6) + x[4] / 4 * (bateman(x, left) + exp(-x[1] * left))


@pytest.mark.thorough
def test_a_delayed_effect_and_its_derivatives():
    """The second dose is given when the first one acts, at t = 1.2: the lag and the times of doses
    have derivatives of their own there. Lanes have each their own events.
    """
    xs = jnp.stack([X, X.at[2].set(0.9).at[5].set(0.4)])
    sols = jax.jit(jax.vmap(drug))(xs)
    for i, x in enumerate(np.asarray(xs)):
        rescue, end = in_closed_form(x)
        assert int(sols.events[1].num[i]) == 1
        assert abs(sols.events[1].ts[i, 0] - rescue) < 1e-9
        assert abs(sols.y1[i, 1] - end) < 1e-9
    gradient = jax.jit(jax.grad(lambda x: drug(x).y1[1]))(X)
    for i, d in enumerate(1e-3 * np.eye(len(X))):
        f = [in_closed_form(np.asarray(X) + k * d)[1] for k in (-2, -1, 1, 2)]
        assert abs(gradient[i] - (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / 12e-3) < 1e-8


def test_a_dose_before_a_rejected_attempt_comes_back_with_its_derivative():
    """The first attempt after the dose would step over a pulse, and is rejected. The dose is one
    unit until t = x + 1, and is lost at the rate of one unit from then on.
    """

    def field(t, y, past, x):
        return -past(t - 1.0) + 10 * jnp.exp(-(((t - 0.6) / 0.1) ** 2))

    def solved(x):
        problem = de.DDEProblem(field, 0.0, (0.0, 1.7), x, history=0.0, lags=1.0)
        dose = de.PresetTimes(lambda x: x[None], lambda t, y, x: y + 1)
        return de.solve(problem, de.Tsit5(), events=dose, rtol=1e-8, atol=1e-8)

    gradient, sol = jax.grad(lambda x: ((sol := solved(x)).y1, sol), has_aux=True)(0.2)
    assert int(sol.stats["rejected"]) > 0
    assert abs(gradient - 1) < 1e-6


def test_what_comes_back_nobody_knows_when_has_no_derivative():
    def end(x, lags):
        problem = de.DDEProblem(
            lambda t, y, past, x: -past(t - 0.5), None, (0.0, 1.0), history=1.0, lags=lags
        )
        return de.solve(
            problem, events=de.PresetTimes([0.2], lambda t, y, args: y + x), rtol=1e-8
        ).y1

    with pytest.raises(TypeError, match="Declare constant lags"):
        jax.grad(end)(1.0, ())
    # y falls by 0.5 until 0.5, then by the integral of what y was: 1 − t, and 2 − t from 0.2 on.
    assert abs(end(1.0, ()) - (2 - 0.5 - 0.18 - 0.495)) < 1e-4

"""Patients with doses and samples of their own, one model, five positive parameters."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

import diffeq as de

NAN = jnp.nan
TRUE = {"absorb": 1.1, "clear": 0.25, "out": 0.4, "back": 0.3, "volume": 12.0}
DOSED = jnp.array([[0.0, 8.0, 16.0], [0.0, 12.0, NAN], [2.0, NAN, NAN]])
AMOUNTS = jnp.array([[80.0, 80.0, 80.0], [150.0, 75.0, 0.0], [200.0, 0.0, 0.0]])
DRIP = jnp.array([4.0, NAN, 6.0])  # the start of a two-hour infusion
SAMPLED = jnp.array([[1.0, 4.0, 8.0, 10.0, 20.0], [0.5, 6.0, 14.0, 24.0, NAN],
                     [3.0, 8.0, 20.0, NAN, NAN]])  # fmt: skip


def body(t, y, args):
    p, drip = args
    absorbed, between = p["absorb"] * y["gut"], p["out"] * y["blood"] - p["back"] * y["tissue"]
    return {
        "gut": -absorbed,
        "blood": absorbed + drip(t) - p["clear"] * y["blood"] - between,
        "tissue": between,
    }


def patient(p, dosed, amounts, drip, sampled):
    args = (p, de.infusions(drip[None], jnp.array([20.0]), 2.0))
    problem = de.ODEProblem(body, dict.fromkeys(("gut", "blood", "tissue"), 0.0), (0.0, 24.0), args)
    concentration = lambda t, y, args: y["blood"] / args[0]["volume"]
    return de.solve(
        problem, events=de.doses(dosed, amounts, "gut"), saveat=sampled, save=concentration,
        method=de.Bosh3(), rtol=1e-7, atol=1e-7,
    ).ys  # fmt: skip


everyone = jax.vmap(patient, (None, 0, 0, 0, 0))


def by_scipy(p, dosed, amounts, drip, sampled):
    """From dose to dose and over the infusion, by hand."""
    infused = not np.isnan(drip)
    cuts = {0.0, 24.0, *dosed[~np.isnan(dosed)], *([drip, drip + 2.0] if infused else [])}
    y, found = np.zeros(3), {}
    for a, b in itertools.pairwise(sorted(cuts)):
        y[0] += sum(m for d, m in zip(dosed, amounts, strict=True) if d == a)
        on = 20.0 if infused and drip <= a < drip + 2.0 else 0.0

        def field(t, y, on=on):
            between = p["out"] * y[1] - p["back"] * y[2]
            taken = p["absorb"] * y[0]
            return [-taken, taken + on - p["clear"] * y[1] - between, between]

        run = solve_ivp(field, (a, b), y, rtol=1e-10, atol=1e-10, dense_output=True)
        found |= {t: run.sol(t)[1] / p["volume"] for t in sampled if a <= t < b}
        y = run.y[:, -1]
    found[24.0] = y[1] / p["volume"]
    return [found.get(float(t), np.nan) for t in sampled]


@pytest.mark.thorough
def test_concentrations_and_the_fit():
    data = everyone(TRUE, DOSED, AMOUNTS, DRIP, SAMPLED)
    each = map(np.asarray, (DOSED, AMOUNTS, DRIP, SAMPLED))
    want = [by_scipy(TRUE, *row) for row in zip(*each, strict=True)]
    np.testing.assert_allclose(data, want, rtol=1e-5)

    loss = lambda p: de.mse(everyone(p, DOSED, AMOUNTS, DRIP, SAMPLED), data)
    start = {"absorb": 0.7, "clear": 0.4, "out": 0.2, "back": 0.5, "volume": 20.0}
    fit = de.fit(start, loss, optimizer=optax.lbfgs(), steps=60, bounds=(0.0, None), progress=False)
    for name, value in TRUE.items():
        np.testing.assert_allclose(fit.model[name], value, rtol=2e-2)

"""A quant: Heston's model with correlated noise; prices in a confidence band, and Greeks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

RATE, START, SPAN, PATHS = 0.03, 100.0, 1.0, 4000
ARGS = {"kappa": 2.0, "theta": 0.04, "xi": 0.3, "rho": -0.7, "v0": 0.06}
STRIKES = np.array([80.0, 100.0, 120.0])
KEYS = jax.random.split(jax.random.key(0), PATHS)


def drift(t, y, a):
    """Of the log price and of the variance, which is kept from below zero."""
    v = jnp.maximum(y["v"], 0.0)
    return {"x": RATE - v / 2, "v": a["kappa"] * (a["theta"] - v)}


def diffusion(t, y, a):
    """Two Brownian motions: each leaf has one column for each, rows of a Cholesky factor."""
    # From just above zero, where a root has a slope: 0 · ∞ is no derivative.
    root, rho = jnp.sqrt(jnp.maximum(y["v"], 1e-10)), a["rho"]
    return {
        "x": root * jnp.array([1.0, 0.0]),
        "v": a["xi"] * root * jnp.stack([rho, jnp.sqrt(1 - rho**2)]),
    }


HESTON = de.SDEProblem(
    drift, diffusion, y0=lambda a: {"x": a["x0"], "v": a["v0"]}, tspan=(0.0, SPAN),
    args=ARGS | {"x0": np.log(START)}, noise="general",
)  # fmt: skip


def payoffs(args):
    """Discounted, of calls at all strikes: one row for each path."""
    end = lambda key: de.solve(HESTON.replace(args=args), key=key, dt=0.02).y1["x"]
    prices = jnp.exp(jax.vmap(end)(KEYS))
    return np.exp(-RATE * SPAN) * jnp.maximum(prices[:, None] - STRIKES, 0.0)


def probability(u, shift, a):
    """The integrand of Heston's P₁ (shift 1) and P₂ (shift 0), in the form without branch cuts."""
    b = a["kappa"] - (a["rho"] * a["xi"] if shift else 0.0)
    sign = 0.5 if shift else -0.5
    turn = a["rho"] * a["xi"] * 1j * u
    d = np.sqrt((turn - b) ** 2 - a["xi"] ** 2 * (2 * sign * 1j * u - u**2))
    g = (b - turn - d) / (b - turn + d)
    decay = np.exp(-d * SPAN)
    level = (b - turn - d) * SPAN - 2 * np.log((1 - g * decay) / (1 - g))
    of_theta = a["kappa"] * a["theta"] / a["xi"] ** 2 * level
    of_v = (b - turn - d) / a["xi"] ** 2 * (1 - decay) / (1 - g * decay)
    return np.exp(of_theta + of_v * a["v0"] + 1j * u * (np.log(START) + RATE * SPAN))


def closed_form(a):
    """Prices of calls, and their slopes by the price today (P₁)."""
    u = np.linspace(1e-6, 200.0, 40_001)[:, None]
    p = [
        0.5 + np.trapezoid(
            (np.exp(-1j * u * np.log(STRIKES)) * probability(u, s, a) / (1j * u)).real, u, axis=0
        ) / np.pi
        for s in (1, 0)
    ]  # fmt: skip
    return START * p[0] - STRIKES * np.exp(-RATE * SPAN) * p[1], p[0]


def band(samples):
    """The mean, and three standard errors of it."""
    samples = np.asarray(samples)
    return samples.mean(0), 3 * samples.std(0) / np.sqrt(len(samples))


@pytest.fixture(scope="module")
def found():
    """Payoffs, and their derivatives by log price and first variance, path by path."""
    names = ("x0", "v0")
    at = {name: jnp.asarray(HESTON.args[name]) for name in names}
    along = [{n: jnp.asarray(1.0 if n == m else 0.0) for n in names} for m in names]
    function = lambda moved: payoffs(HESTON.args | moved)
    both = jax.jit(lambda: [jax.jvp(function, (at,), (d,)) for d in along])()
    return both[0][0], both[0][1], both[1][1]


def test_prices_lie_in_their_band(found):
    mean, width = band(found[0])
    exact = closed_form(ARGS)[0]
    assert np.all(np.abs(mean - exact) < width)
    assert np.all(width < 0.05 * exact + 0.2)
    # The correlation is in the numbers: without it the wings are elsewhere, by many bands.
    other = closed_form(ARGS | {"rho": 0.7})[0]
    assert np.abs(mean - other)[2] > 2 * width[2]


def test_greeks_are_means_of_derivatives_along_paths(found):
    delta, width = band(found[1] / START)
    assert np.all(np.abs(delta - closed_form(ARGS)[1]) < width)
    eps = 1e-4
    up, down = (closed_form(ARGS | {"v0": ARGS["v0"] + e})[0] for e in (eps, -eps))
    vega, width = band(found[2])
    assert np.all(np.abs(vega - (up - down) / (2 * eps)) < width)


def test_one_factor_is_shared_and_the_other_is_not():
    """A key that is not batched is the same market; parameters differ along it."""
    rho = jnp.array([-0.7, 0.0, 0.7])
    end = lambda r: de.solve(HESTON.replace(args=HESTON.args | {"rho": r}), key=KEYS[0], dt=0.02).y1
    ends = jax.vmap(end)(rho)
    one = de.solve(HESTON, key=KEYS[0], dt=0.02).y1
    np.testing.assert_allclose(ends["v"][0], one["v"], rtol=1e-12)
    assert float(jnp.abs(jnp.diff(ends["v"])).min()) > 1e-4

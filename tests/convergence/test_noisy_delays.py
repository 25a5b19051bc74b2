"""Stochastic delay equations: as equations that have no noise, or no delay; strong order by
refinement of the same paths; and moments.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.brownian import Steps
from diffeq.controllers import PI
from diffeq.integrator import integrate
from diffeq.integrator.build import build
from diffeq.integrator.call import Call, StaticOptions

FINE, LEVELS, PATHS, SPAN = 2048, (16, 32, 64, 128), 200, 2.0


def late(**changes):
    """Nothing in it but what each of the tests below changes."""
    whole = de.SDDEProblem(
        lambda t, y, past, a: jnp.sin(past(t - a)) - y,
        lambda t, y, past, a: 0.4 * jnp.cos(y + past(t - a)),
        None, (0.0, SPAN), 0.37, history=lambda t, a: jnp.array([0.5 + jnp.sin(t), t]),
        lags=lambda a: a,
    )  # fmt: skip
    return whole.replace(**changes)


# --- what is known already ------------------------------------------------------------------------


@pytest.mark.parametrize("method", [de.EulerMaruyama(), de.EulerHeun()])
def test_without_delay_it_is_the_equation_with_noise(method):
    """Also between the steps, where rows are read from the bridge, and not from the line."""
    drift = lambda t, y, a: jnp.cos(t) - a * y
    diffusion = lambda t, y, a: 0.3 * y * (1 + jnp.sin(t))
    ts = jnp.array([0.0, 0.31, 1.0, 1.99])
    options = {"dt": 0.1, "key": jax.random.key(1), "saveat": ts}
    plain = de.SDEProblem(drift, diffusion, jnp.array([1.0, 2.0]), (0.0, SPAN), 0.5)
    delayed = late(
        drift=lambda t, y, past, a: drift(t, y, a), args=0.5, history=jnp.array([1.0, 2.0]),
        diffusion=lambda t, y, past, a: diffusion(t, y, a),
    )  # fmt: skip
    wanted, found = (de.solve(p, method, **options) for p in (plain, delayed))
    np.testing.assert_allclose(found.ys, wanted.ys, rtol=1e-14)


def test_without_noise_it_is_eulers_method_of_the_delay_equation():
    quiet = late(args=0.25, diffusion=lambda t, y, past, a: 0 * y)
    plain = de.DDEProblem(
        quiet.drift, None, quiet.tspan, 0.25, history=quiet.history, lags=quiet.lags
    )
    ts = jnp.array([0.25, 1.0, SPAN])
    wanted = de.solve(plain, de.Euler(), dt=0.05, saveat=ts)
    found = de.solve(quiet, dt=0.05, saveat=ts, key=jax.random.key(0))
    np.testing.assert_allclose(found.ys, wanted.ys, rtol=1e-13)


# --- strong order ---------------------------------------------------------------------------------


class Given(Steps):
    """The increments of a path that is given, and how many of its steps make one."""

    def whole(self, words, count=2, index=0):
        path, stride = words
        moved = path[(index + 1) * stride] - path[index * stride]
        return (moved / jnp.sqrt(stride * (SPAN / FINE)))[None]


def brownian():
    steps = np.random.default_rng(0).standard_normal((PATHS, FINE, 1)) * np.sqrt(SPAN / FINE)
    return jnp.asarray(np.concatenate([np.zeros((PATHS, 1, 1)), np.cumsum(steps, 1)], 1))


def ends(method, problem):
    """`(paths, stride)` to the ends of the solves; compiled once."""

    @jax.jit
    def run(paths, stride):
        dt = stride * (SPAN / FINE)
        call = Call(problem, method, PI(), 1e-12, 1e-14, dt=dt, key=jax.random.key(0))
        static = StaticOptions(1, None, max_steps=2 * FINE, max_events=1, floored=False)
        built = build(call, static)
        noise = Given(built.integrator.noise.shape, "float64", area=False)
        integrator = replace(built.integrator, noise=noise)

        def end(path):
            data = replace(built.data, noise=(path, stride))
            return integrate(integrator, data, built.start(dt, None).state(integrator, data))[0].y

        return jax.vmap(end)(paths)

    return run


HISTORY = {"history": jnp.array([0.5]), "args": 0.37}
STRONG = {
    # Of the lag no level is a divisor, so that each look goes between two steps.
    "EulerMaruyama": (0.5, late(**HISTORY)),
    "EulerHeun": (0.5, late(**HISTORY, interpretation="stratonovich")),
    "EulerMaruyama, additive": (
        1.0, late(**HISTORY, diffusion=lambda t, y, past, a: jnp.full_like(y, 0.6), additive=True)
    ),
    "Milstein": (1.0, late(**HISTORY, diffusion=lambda t, y, past, a: 0.6 * jnp.sqrt(1 + y**2))),
}  # fmt: skip


@pytest.mark.parametrize("lag", [0.37, 0.01])
def test_euler_maruyama_is_the_loop_by_hand(lag):
    """A step of 1/32 looks back over several steps, or into the one before it."""
    n = 64
    dt, paths = SPAN / n, brownian()
    w = np.asarray(paths)[:, :: FINE // n, 0]
    ys = [np.full(PATHS, 0.5)]
    for i in range(n):
        k, theta = divmod((i * dt - lag) / dt, 1.0)
        k = int(k)
        past = (1 - theta) * ys[k] + theta * ys[k + 1] if k >= 0 else ys[0]
        drift, diffusion = np.sin(past) - ys[i], 0.4 * np.cos(ys[i] + past)
        ys.append(ys[i] + dt * drift + diffusion * (w[:, i + 1] - w[:, i]))
    found = ends(de.EulerMaruyama(), late(**HISTORY | {"args": lag}))(paths, FINE // n)
    np.testing.assert_allclose(found[:, 0], ys[-1], rtol=1e-12)


@pytest.mark.parametrize("name", STRONG)
def test_strong_order_by_refinement(name):
    order, problem = STRONG[name]
    method = getattr(de, name.partition(",")[0])()
    paths = brownian()
    run = ends(method, problem)
    exact = run(paths, 1)
    errors = [jnp.sqrt(jnp.mean((run(paths, FINE // n) - exact) ** 2)) for n in LEVELS]
    slope = -np.polyfit(np.log(LEVELS), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.2)


@pytest.mark.thorough
def test_methods_of_either_kind_solve_the_same_equation():
    """Its drift is converted, with the past as it is; the other equation is another one."""
    paths = brownian()
    ito, other = STRONG["EulerMaruyama"][1], STRONG["EulerHeun"][1]
    found = ends(de.EulerMaruyama(), other)(paths, 1)
    apart = lambda method, problem: float(
        jnp.sqrt(jnp.mean((ends(method, problem)(paths, 1) - found) ** 2))
    )
    assert apart(de.EulerHeun(), other) < 0.004
    assert apart(de.EulerMaruyama(), ito) > 0.04


# --- moments --------------------------------------------------------------------------------------


def moments(problem, dt, paths=2000):
    """The mean and the variance at the end, each with its standard error."""
    keys = jax.random.split(jax.random.key(7), paths)
    y = np.asarray(jax.vmap(lambda key: de.solve(problem, dt=dt, key=key, max_saves=64).y1)(keys))
    square = (y - y.mean()) ** 2
    return [(x.mean(), x.std() / np.sqrt(paths)) for x in (y, square)]


def test_moments_where_the_noise_comes_back():
    """On the first unit of time y = 1 − t + s W, of which the second is the integral:
    y(2) = −1/2 + s ∫ u dW + s ∫ (1 − u) dB + s² ∫ W dB, with B what W does from 1 on.
    """
    s = 0.6
    problem = de.SDDEProblem(
        lambda t, y, past, s: -past(t - 1.0), lambda t, y, past, s: s * past(t - 1.0),
        None, (0.0, 2.0), s, history=1.0, lags=1.0,
    )  # fmt: skip
    mean, variance = moments(problem, 0.02)
    assert abs(mean[0] + 0.5) < 4 * mean[1]
    assert abs(variance[0] - (2 * s**2 / 3 + s**4 / 2)) < 4 * variance[1]


@pytest.mark.thorough
def test_the_mean_of_a_linear_equation_obeys_the_equation_without_noise():
    field = lambda t, y, past, a: 0.5 * y - 1.5 * past(t - a)
    mean = de.DDEProblem(field, None, (0.0, 3.0), 0.7, history=lambda t, a: 1 + t, lags=lambda a: a)
    noisy = de.SDDEProblem(
        field, lambda t, y, past, a: 0.3 * y + 0.3 * past(t - a), None, (0.0, 3.0), 0.7,
        history=mean.history, lags=mean.lags, noise="scalar",
    )  # fmt: skip
    (found, error), _ = moments(noisy, 0.02)
    assert abs(found - de.solve(mean, rtol=1e-8).y1) < 4 * error
    assert error < 0.05

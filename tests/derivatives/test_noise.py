"""Derivatives along a path: against differences of the same numbers, in every mode."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

KEY = jax.random.key(5)
A, Y0, T1 = jnp.array([1.5, 0.3]), jnp.array([1.0, 0.8]), 1.07
X = np.array([*A, *Y0])
EPS = 1e-6
STOPS = jnp.array([0.3, 0.77])


def drift(t, y, a):
    return jnp.stack([a[0] * y[0] - y[0] * y[1], -2 * y[1] + y[0] * y[1] * jnp.cos(t)])


DIFFUSIONS = {
    "diagonal": lambda t, y, a: a[1] * y * (1 + 0.1 * jnp.sin(t)),
    "scalar": lambda t, y, a: a[1] * y[::-1],
    "additive": lambda t, y, a: jnp.full_like(y, a[1]) * (1 + t),
    "general": lambda t, y, a: a[1] * jnp.stack([y, y[::-1]]),
}
WAYS = {
    "EulerHeun": ("general", de.EulerHeun(), {"dt": 0.05}),
    "Milstein": ("diagonal", de.Milstein(), {"dt": 0.05}),
    "ImplicitEM": ("scalar", de.ImplicitEM(), {"dt": 0.05}),
    "SOSRI": ("diagonal", de.SOSRI(), {"rtol": 1e-2, "atol": 1e-2}),
    "SOSRA, stops": ("additive", de.SOSRA(), {"rtol": 1e-2, "atol": 1e-2, "stops": STOPS}),
}  # fmt: skip


def loss_of(way, **changes):
    """Of args and y0, of t1 where it follows them, and of a key."""
    kind, method, options = WAYS[way]
    noise = {"additive": "diagonal"}.get(kind, kind)
    problem = de.SDEProblem(drift, DIFFUSIONS[kind], Y0, (0.0, T1), A, noise=noise)
    options = options | changes

    def loss(x, key):
        t1 = x[4] if x.size > X.size else T1
        problem_ = problem.replace(args=x[:2], y0=x[2:4], tspan=(0.0, t1))
        saves = t1 * jnp.array([0.0, 0.21, 0.5, 0.73])
        sol = de.solve(problem_, method, key=key, saveat=saves, **options)
        return jnp.sum(jnp.sin(sol.ys)) + jnp.sum(sol.y1**2)

    return loss


@functools.cache
def derivatives_of(way):
    """One program for all of this file: the loss, and its derivative in both modes."""
    loss = loss_of(way)
    return jax.jit(lambda x, key: (*jax.value_and_grad(loss)(x, key), jax.jacfwd(loss)(x, key)))


def differences(f, x, eps=EPS):
    return np.stack([(f(x + e) - f(x - e)) / (2 * eps) for e in eps * np.eye(x.size)])


@pytest.mark.parametrize("way", shortly(WAYS, "SOSRI"))
def test_gradients_in_both_modes(way):
    derivatives = derivatives_of(way)
    # W(t0 + s span) = √span B(s), with B the key's own: derivatives by the end are those of that.
    x = np.append(X, T1) if way == "SOSRI" else X
    _, reverse, forward = derivatives(x, KEY)
    np.testing.assert_allclose(reverse, forward, rtol=1e-11, atol=1e-12)
    wanted = differences(lambda x: derivatives(x, KEY)[0], x)
    np.testing.assert_allclose(reverse, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.thorough
def test_hessians():
    slope = lambda x: derivatives_of("SOSRI")(np.append(x, T1), KEY)[1][:-1]
    found = jax.jit(jax.hessian(loss_of("SOSRI")))(X, KEY)
    np.testing.assert_allclose(found, differences(slope, X), rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_a_thinned_tape_sees_the_same_noise():
    short = loss_of("EulerHeun", adjoint=de.Discrete(rows=8))
    whole = derivatives_of("EulerHeun")(X, KEY)[1]
    np.testing.assert_allclose(jax.jit(jax.grad(short))(X, KEY), whole, rtol=1e-10)


@pytest.mark.thorough
def test_lanes_with_paths_of_their_own():
    """On tapes of 48 rows: one lane thins its tape, and one does not."""
    short = loss_of("SOSRA, stops", adjoint=de.Discrete(rows=48))
    lanes, keys = X * np.array([[1, 1, 1, 1], [0.5, 1, 0.5, 0.5]]), jax.random.split(KEY)
    total = lambda xs: jnp.sum(jax.vmap(short)(xs, keys))
    each = [derivatives_of("SOSRA, stops")(*lane)[1] for lane in zip(lanes, keys, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.grad(total))(lanes), each, rtol=1e-10)


def test_pure_noise_by_the_end():
    w = de.SDEProblem(lambda t, y, a: 0 * y, lambda t, y, a: jnp.ones_like(y), 0.0, (0.0, 3.0))
    end = lambda t1: de.solve(w.replace(tspan=(0.0, t1)), key=KEY).y1
    value, slope = jax.jit(jax.value_and_grad(end))(3.0)
    np.testing.assert_allclose(slope, value / 6, rtol=1e-12)


def test_the_end_of_given_steps():
    """The last step, from 0.9, moves along with t1, as W = √h Z."""
    growth = de.SDEProblem(lambda t, y, a: -y, lambda t, y, a: 0.3 * y, 1.0, (0.0, 1.0))
    end = lambda t1: (
        de.solve(growth.replace(tspan=(0.0, t1)), de.EulerMaruyama(), dt=0.1, key=KEY).y1
    )
    program = jax.jit(jax.value_and_grad(end))
    wanted = (program(0.95 + EPS)[0] - program(0.95 - EPS)[0]) / (2 * EPS)
    np.testing.assert_allclose(program(0.95)[1], wanted, rtol=1e-7)


@pytest.mark.thorough
def test_by_hand_and_dense_output():
    problem = de.SDEProblem(drift, DIFFUSIONS["diagonal"], Y0, (0.0, T1), A)

    def both(a):
        turned = problem.replace(args=a)
        state = de.init(turned, key=KEY)
        by_hand = de.advance(de.advance(state, 0.4), 1.0).y
        dense = de.solve(turned, key=KEY, dense=True, max_saves=128)(jnp.array([0.4, 0.9]))
        return jnp.sum(by_hand) + jnp.sum(jnp.cos(dense))

    program = jax.jit(jax.value_and_grad(both))
    wanted = differences(lambda a: program(a)[0], A)
    np.testing.assert_allclose(program(A)[1], wanted, rtol=1e-6)


@pytest.mark.thorough
def test_derivatives_along_a_path_are_those_of_its_closed_form():
    """Geometric Brownian motion beside its own W, which scalar noise gives both."""
    growth = de.SDEProblem(
        lambda t, y, a: jnp.stack([a[0] * y[0], 0 * y[1]]),
        lambda t, y, a: jnp.stack([a[1] * y[0], jnp.ones_like(y[1])]),
        jnp.array([1.0, 0.0]), (0.0, 1.0), jnp.array([0.7, 0.5]), noise="scalar",
    )  # fmt: skip
    ts = jnp.array([0.0, 0.3, 2 / 3, 1.0])

    def rows(a, tolerance):
        problem = growth.replace(args=a)
        ys = de.solve(problem, key=KEY, saveat=ts, rtol=tolerance, atol=tolerance).ys
        return ys[:, 0], ys

    rates = growth.args
    both = jax.jit(jax.jacfwd(rows, has_aux=True))
    gaps = []
    for tolerance in (1e-2, 1e-4):
        found, ys = both(rates, tolerance)
        w = ys[:, 1]
        y = jnp.exp((rates[0] - rates[1] ** 2 / 2) * ts + rates[1] * w)
        wanted = jnp.stack([ts * y, (w - rates[1] * ts) * y], 1)
        gaps.append([float(jnp.abs(ys[:, 0] - y).max()), float(jnp.abs(found - wanted).max())])
    assert max(gaps[1]) < 1e-3, gaps
    assert all(4 * tight < loose for loose, tight in zip(*gaps, strict=True)), gaps


@pytest.mark.thorough
def test_a_layer_with_networks_in_both_places():
    net = lambda seed, out: eqx.nn.MLP(2, out, 4, 1, jnp.tanh, key=jax.random.key(seed))
    ts = jnp.array([0.3, 1.0])
    options = {"tspan": (0.0, 1.0), "saveat": ts}
    general = de.nn.NeuralSDE(net(0, 2), net(1, 6), noise=3, dt=0.1, **options)

    def squares(layer):
        ys = layer(Y0, key=KEY).ys
        return jnp.sum(ys**2), ys

    loss = eqx.filter_jit(eqx.filter_value_and_grad(squares, has_aux=True))
    (_, ys), gradient = loss(general)
    for where in (lambda l: l.net.layers[0].bias, lambda l: l.diffusion.layers[-1].bias):
        moved = [eqx.tree_at(where, general, where(general).at[0].add(e)) for e in (EPS, -EPS)]
        wanted = (loss(moved[0])[0][0] - loss(moved[1])[0][0]) / (2 * EPS)
        np.testing.assert_allclose(where(gradient)[0], wanted, rtol=1e-6, atol=1e-8)
    matrix = lambda y: net(1, 6)(y).reshape(2, 3)
    plain = de.SDEProblem(
        lambda t, y, a: net(0, 2)(y), lambda t, y, a: matrix(y), Y0, (0.0, 1.0), noise="general"
    )
    by_hand = de.solve(plain, key=KEY, dt=0.1, saveat=ts).ys
    np.testing.assert_allclose(ys, by_hand, rtol=1e-12)
    with pytest.raises(ValueError, match="key is None"):
        general(Y0)
    with pytest.raises(TypeError, match="diffusion_field"):
        de.nn.NeuralSDE(net(0, 2), {"scale": 0.1}, **options)

"""Derivatives along a path: against differences of the same numbers, in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

KEY = jax.random.key(5)
A, Y0, T1 = jnp.array([1.5, 0.3]), jnp.array([1.0, 0.8]), 1.07
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
    "EulerMaruyama": ("general", de.EulerMaruyama(), {"dt": 0.05}),
    "EulerHeun": ("general", de.EulerHeun(), {"dt": 0.05}),
    "Milstein": ("diagonal", de.Milstein(), {"dt": 0.05}),
    "SOSRI, given steps": ("scalar", de.SOSRI(), {"dt": 0.05}),
    "SOSRI": ("diagonal", de.SOSRI(), {"rtol": 1e-2, "atol": 1e-2}),
    "SRIW1": ("scalar", de.SRIW1(), {"rtol": 1e-2, "atol": 1e-2}),
    "SOSRA": ("additive", de.SOSRA(), {"rtol": 1e-2, "atol": 1e-2}),
    "stops": ("diagonal", de.SOSRI(), {"rtol": 1e-2, "atol": 1e-2, "stops": STOPS}),
}  # fmt: skip


def loss_of(way, **changes):
    kind, method, options = WAYS[way]
    noise = {"additive": "diagonal"}.get(kind, kind)
    problem = de.SDEProblem(drift, DIFFUSIONS[kind], Y0, (0.0, T1), A, noise=noise)
    options = options | changes

    def loss(a, y0, t1=T1):
        problem_ = problem.replace(args=a, y0=y0, tspan=(0.0, t1))
        saves = t1 * jnp.array([0.0, 0.21, 0.5, 0.73])
        sol = de.solve(problem_, method, key=KEY, saveat=saves, **options)
        return jnp.sum(jnp.sin(sol.ys)) + jnp.sum(sol.y1**2)

    return loss


def differences(f, x):
    steps = EPS * jnp.eye(x.size).reshape(-1, *x.shape)
    return jnp.stack([(f(x + e) - f(x - e)) / (2 * EPS) for e in steps]).reshape(x.shape)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_in_both_modes(way):
    loss = jax.jit(loss_of(way))
    reverse = jax.jit(jax.grad(loss, (0, 1)))(A, Y0)
    forward = jax.jit(jax.jacfwd(loss, (0, 1)))(A, Y0)
    wanted = differences(lambda a: loss(a, Y0), A), differences(lambda y: loss(A, y), Y0)
    for r, f, w in zip(reverse, forward, wanted, strict=True):
        np.testing.assert_allclose(r, w, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(r, f, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("way", ["SOSRI", "EulerMaruyama"])
def test_hessians_and_lanes(way):
    loss = loss_of(way)
    gradient = jax.jit(jax.grad(loss))
    wanted = jnp.stack([
        (gradient(A + e, Y0) - gradient(A - e, Y0)) / (2 * EPS) for e in EPS * jnp.eye(2)
    ])  # fmt: skip
    found = jax.jit(jax.hessian(loss))(A, Y0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacrev(jax.grad(loss)))(A, Y0), found, rtol=1e-10)
    starts = Y0 * jnp.array([[1.0], [1.2], [0.7]])
    each = jnp.stack([gradient(A, y) for y in starts])
    np.testing.assert_allclose(jax.vmap(gradient, (None, 0))(A, starts), each, rtol=1e-10)


@pytest.mark.parametrize("options", [{"rtol": 1e-2, "atol": 1e-2}, {"dt": 0.05}])
def test_lanes_with_paths_of_their_own(options):
    problem = de.SDEProblem(drift, DIFFUSIONS["diagonal"], Y0, (0.0, T1), A)
    end = lambda a, key: jnp.sum(de.solve(problem.replace(args=a), key=key, **options).y1)
    keys = jax.random.split(KEY, 4)
    mean = lambda a: jnp.mean(jax.vmap(end, (None, 0))(a, keys))
    each = jnp.mean(jnp.stack([jax.grad(end)(A, key) for key in keys]), 0)
    np.testing.assert_allclose(jax.jit(jax.grad(mean))(A), each, rtol=1e-11)


@pytest.mark.parametrize("way", ["SOSRI", "SOSRA"])
def test_the_path_moves_along_with_its_interval(way):
    # W(t0 + s span) = √span B(s), with B the key's own: derivatives by the ends are those of that.
    loss = jax.jit(loss_of(way))
    found = jax.grad(loss, 2)(A, Y0, T1)
    wanted = (loss(A, Y0, T1 + 1e-7) - loss(A, Y0, T1 - 1e-7)) / 2e-7
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_pure_noise_by_the_end():
    w = de.SDEProblem(lambda t, y, a: 0 * y, lambda t, y, a: jnp.ones_like(y), 0.0, (0.0, 3.0))
    end = lambda t1: de.solve(w.replace(tspan=(0.0, t1)), key=KEY).y1
    np.testing.assert_allclose(jax.grad(end)(3.0), end(3.0) / 6, rtol=1e-12)


@pytest.mark.parametrize("way", ["SOSRI", "SRIW1", "EulerMaruyama", "SOSRI, given steps", "stops"])
def test_a_thinned_tape_sees_the_same_noise(way):
    changes = {"max_steps": 200}
    if "dt" not in WAYS[way][2]:
        changes |= {"rtol": 3e-3, "atol": 3e-3}
    short = loss_of(way, adjoint=de.Discrete(rows=16), **changes)
    whole = loss_of(way, adjoint=de.Discrete(rows=200), **changes)
    for x, y in zip(jax.grad(short, (0, 1))(A, Y0), jax.grad(whole, (0, 1))(A, Y0), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10)
    lanes = lambda f: jax.vmap(lambda y: jax.grad(f)(A, y))(Y0 * jnp.array([[1.0], [1.3]]))
    np.testing.assert_allclose(lanes(short), lanes(whole), rtol=1e-10)


def test_by_hand_and_dense_output():
    problem = de.SDEProblem(drift, DIFFUSIONS["diagonal"], Y0, (0.0, T1), A)

    def by_hand(a):
        state = de.init(problem.replace(args=a), key=KEY)
        return jnp.sum(de.advance(de.advance(state, 0.4), 1.0).y)

    dense = lambda a: jnp.sum(
        de.solve(problem.replace(args=a), key=KEY, dense=True, max_saves=128)(jnp.array([0.4, 0.9]))
    )
    for f in (by_hand, dense):
        np.testing.assert_allclose(jax.grad(f)(A), differences(f, A), rtol=1e-6)


def test_a_path_in_a_network_and_in_a_closure():
    scale = jnp.array(0.4)
    make = lambda s: de.SDEProblem(
        lambda t, y, a: -y, lambda t, y, a: s * jnp.tanh(y), jnp.ones(2), (0.0, 1.0)
    )
    end = lambda s: jnp.sum(de.solve(make(s), key=KEY, rtol=1e-2).y1)
    wanted = (end(scale + EPS) - end(scale - EPS)) / (2 * EPS)
    np.testing.assert_allclose(jax.grad(end)(scale), wanted, rtol=1e-6)

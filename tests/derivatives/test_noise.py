"""Derivatives along a path: against differences of the same numbers, in every mode."""

import equinox as eqx
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
    "EulerHeun": ("general", de.EulerHeun(), {"dt": 0.05}),
    "Milstein": ("diagonal", de.Milstein(), {"dt": 0.05}),
    "ImplicitEM": ("scalar", de.ImplicitEM(), {"dt": 0.05}),
    "SOSRI": ("diagonal", de.SOSRI(), {"rtol": 1e-2, "atol": 1e-2}),
    "SOSRA, stops": ("additive", de.SOSRA(), {"rtol": 1e-2, "atol": 1e-2, "stops": STOPS}),
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


def test_hessians_and_lanes():
    loss = loss_of("SOSRI")
    gradient = jax.jit(jax.grad(loss))
    wanted = jnp.stack([
        (gradient(A + e, Y0) - gradient(A - e, Y0)) / (2 * EPS) for e in EPS * jnp.eye(2)
    ])  # fmt: skip
    found = jax.jit(jax.hessian(loss))(A, Y0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    starts = Y0 * jnp.array([[1.0], [1.2], [0.7]])
    each = jnp.stack([gradient(A, y) for y in starts])
    np.testing.assert_allclose(jax.vmap(gradient, (None, 0))(A, starts), each, rtol=1e-10)


def test_lanes_with_paths_of_their_own():
    problem = de.SDEProblem(drift, DIFFUSIONS["diagonal"], Y0, (0.0, T1), A)
    end = lambda a, key: jnp.sum(de.solve(problem.replace(args=a), key=key).y1)
    keys = jax.random.split(KEY, 4)
    mean = lambda a: jnp.mean(jax.vmap(end, (None, 0))(a, keys))
    each = jnp.mean(jnp.stack([jax.grad(end)(A, key) for key in keys]), 0)
    np.testing.assert_allclose(jax.jit(jax.grad(mean))(A), each, rtol=1e-11)


def test_the_path_moves_along_with_its_interval():
    # W(t0 + s span) = √span B(s), with B the key's own: derivatives by the ends are those of that.
    loss = jax.jit(loss_of("SOSRI"))
    found = jax.grad(loss, 2)(A, Y0, T1)
    wanted = (loss(A, Y0, T1 + 1e-7) - loss(A, Y0, T1 - 1e-7)) / 2e-7
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_pure_noise_by_the_end():
    w = de.SDEProblem(lambda t, y, a: 0 * y, lambda t, y, a: jnp.ones_like(y), 0.0, (0.0, 3.0))
    end = lambda t1: de.solve(w.replace(tspan=(0.0, t1)), key=KEY).y1
    np.testing.assert_allclose(jax.grad(end)(3.0), end(3.0) / 6, rtol=1e-12)


@pytest.mark.parametrize("way", ["SOSRI", "SOSRA, stops", "EulerHeun"])
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
    both = jax.jit(jax.jacrev(rows, has_aux=True))
    gaps = []
    for tolerance in (1e-2, 1e-4):
        found, ys = both(rates, tolerance)
        w = ys[:, 1]
        y = jnp.exp((rates[0] - rates[1] ** 2 / 2) * ts + rates[1] * w)
        wanted = jnp.stack([ts * y, (w - rates[1] * ts) * y], 1)
        gaps.append([float(jnp.abs(ys[:, 0] - y).max()), float(jnp.abs(found - wanted).max())])
    assert max(gaps[1]) < 1e-3, gaps
    assert all(4 * tight < loose for loose, tight in zip(*gaps, strict=True)), gaps


def test_a_layer_with_networks_in_both_places():
    net = lambda seed, out: eqx.nn.MLP(2, out, 4, 1, jnp.tanh, key=jax.random.key(seed))
    ts = jnp.array([0.3, 1.0])
    options = {"tspan": (0.0, 1.0), "saveat": ts}
    general = de.nn.NeuralSDE(net(0, 2), net(1, 6), noise=3, dt=0.1, **options)
    loss = eqx.filter_jit(eqx.filter_value_and_grad(lambda l: jnp.sum(l(Y0, key=KEY).ys ** 2)))
    gradient = loss(general)[1]
    for where in (lambda l: l.net.layers[0].bias, lambda l: l.diffusion.layers[-1].bias):
        moved = [eqx.tree_at(where, general, where(general).at[0].add(e)) for e in (EPS, -EPS)]
        wanted = (loss(moved[0])[0] - loss(moved[1])[0]) / (2 * EPS)
        np.testing.assert_allclose(where(gradient)[0], wanted, rtol=1e-6, atol=1e-8)
    matrix = lambda y: net(1, 6)(y).reshape(2, 3)
    plain = de.SDEProblem(
        lambda t, y, a: net(0, 2)(y), lambda t, y, a: matrix(y), Y0, (0.0, 1.0), noise="general"
    )
    by_hand = de.solve(plain, key=KEY, dt=0.1, saveat=ts).ys
    np.testing.assert_allclose(general(Y0, key=KEY).ys, by_hand, rtol=1e-12)
    with pytest.raises(ValueError, match="key is None"):
        general(Y0)
    with pytest.raises(TypeError, match="diffusion_field"):
        de.nn.NeuralSDE(net(0, 2), {"scale": 0.1}, **options)

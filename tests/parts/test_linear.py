"""Linear solves against numpy and against JAX's own, in value and in derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffeq.algebra import factored, jacobian, slopes, solve
from diffeq.algebra.roots import newton, rooted

SIZES = [1, 3, 4, 7, 10, 14]  # numbers, numbers with lanes, rows, LAPACK


def ours(matrix, b):
    return solve(factored(matrix), b)


def drawn(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("n", SIZES)
def test_solves_and_differentiates_as_jax_does(n):
    A, b = drawn(n, n) + 2 * jnp.eye(n), drawn(n, seed=1)
    loss = lambda way: lambda A, b: jnp.sum(jnp.sin(way(A, b)))
    hessian = [lambda f: jax.hessian(f, (0, 1))] if n in (3, 14) else []
    for of in (lambda f: f, lambda f: jax.grad(f, (0, 1)), *hessian):
        for x, y in zip(
            jax.tree.leaves(jax.jit(of(loss(ours)))(A, b)),
            jax.tree.leaves(jax.jit(of(loss(jnp.linalg.solve)))(A, b)),
            strict=True,
        ):
            np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("axes", [(2, 0), (2, None), (None, 0)])
def test_batches(n, axes):
    A = drawn(n, n, 5) + 3 * jnp.eye(n)[:, :, None]
    A, b = (A if axes[0] is not None else A[..., 0]), drawn(*((5, n) if axes[1] == 0 else (n,)))
    for way in (ours, jax.grad(lambda A, b: jnp.sum(ours(A, b) ** 2))):
        found = jax.jit(jax.vmap(way, axes))(A, b)
        for i in range(5):
            one = way(A if axes[0] is None else A[..., i], b if axes[1] is None else b[i])
            np.testing.assert_allclose(found[i], one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_factors_mean_the_same_with_and_without_lanes(n):
    A, bs = drawn(n, n) + 2 * jnp.eye(n), drawn(3, n, seed=1)
    alone = factored(A)
    together = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), alone)
    expected = np.linalg.solve(A, bs.T).T
    np.testing.assert_allclose(jax.vmap(solve)(together, bs), expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(solve(alone, bs.T).T, expected, rtol=1e-9, atol=1e-11)
    one = jax.tree.map(lambda x: x[1], jax.vmap(factored)(jnp.stack([A, -A])))
    np.testing.assert_allclose(solve(one, bs[0]), -expected[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("n", SIZES)
def test_pivots(n):
    # Without pivoting the growth would be 1e20.
    A = jnp.eye(n)[::-1] + 1e-20 * drawn(n, n) if n > 1 else jnp.ones((1, 1))
    x = drawn(n, seed=2)
    np.testing.assert_allclose(ours(A, A @ x), x, rtol=1e-13)
    C = drawn(n, n) + 1j * drawn(n, n, seed=3)
    np.testing.assert_allclose(C @ ours(C, x), x, atol=1e-11)


def test_singular_is_not_finite():
    assert not np.isfinite(ours(jnp.ones((3, 3)), jnp.arange(3.0))).any()


@pytest.mark.parametrize(("n", "calls"), [(3, False), (10, False), (14, True)])
def test_no_library_call_for_small_matrices(n, calls):
    text = jax.jit(ours).lower(drawn(n, n), drawn(n)).compile().as_text()
    assert ("custom-call" in text) == calls


def test_float32_stays_float32():
    x = ours(jnp.eye(2, dtype=jnp.float32), jnp.ones(2, jnp.float32))
    assert x.dtype == jnp.float32


def test_jacobian_is_jacfwd():
    field = lambda t, y: jnp.sin(t) * y**2 + jnp.roll(y, 1)
    t, y = jnp.array(0.7), drawn(2, 3)
    flat = jax.jacfwd(field, 1)(t, y).reshape(6, 6)
    found = slopes(field, t, y)
    np.testing.assert_allclose(found.by_y, flat, rtol=1e-14)
    np.testing.assert_allclose(found.by_t, (jnp.cos(t) * y**2).ravel(), rtol=1e-14)
    np.testing.assert_allclose(found.value, field(t, y).ravel(), rtol=1e-15)
    given = slopes(field, t, y, lambda t, y: jacobian(field, t, y))
    np.testing.assert_allclose(given.by_y, flat, rtol=1e-14)
    np.testing.assert_allclose(given.by_t, found.by_t, rtol=1e-14)
    assert slopes(lambda t, y: y**2, t, y).by_t is None


def test_newton_finds_roots_from_afar():
    # Powell's badly scaled function, and one whose full steps diverge.
    def powell(x):
        return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])

    root = jax.jit(lambda x: newton(powell, x))(jnp.array([0.0, 1.0]))
    assert bool(root.found)
    np.testing.assert_allclose(root.x, [1.098159e-5, 9.106146], rtol=1e-6)
    root = newton(jnp.arctan, jnp.array([20.0]))
    assert bool(root.found)
    np.testing.assert_allclose(root.x, 0, atol=1e-12)


@pytest.mark.parametrize(
    "residual", [lambda x: x**2 + 1, lambda x: 0 * x + 1, lambda x: x * jnp.nan]
)
def test_newton_says_when_there_is_none(residual):
    assert not bool(newton(residual, jnp.array([1.0])).found)


def test_roots_differentiate_to_every_order():
    cube_root = lambda p: rooted(lambda x: x**3 - p, jnp.cbrt(p))[0]
    f, p = (lambda q: cube_root(jnp.stack([q]))), 2.0
    derivatives = [f, jax.grad(f), jax.jacfwd(jax.grad(f)), jax.grad(jax.grad(jax.grad(f)))]
    third = 1 / 3
    exact = [p**third, third * p ** (-2 / 3), -2 / 9 * p ** (-5 / 3), 10 / 27 * p ** (-8 / 3)]
    np.testing.assert_allclose([d(p) for d in derivatives], exact, rtol=1e-12)
    both = jax.vmap(jax.grad(f))(jnp.array([2.0, 5.0]))
    np.testing.assert_allclose(both, [jax.grad(f)(2.0), jax.grad(f)(5.0)], rtol=1e-13)

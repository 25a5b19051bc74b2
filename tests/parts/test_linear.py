"""Linear solves against numpy and against JAX's own, in value and in derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

from diffeq.algebra import factored, field_derivatives, jacobian, linear_solve
from diffeq.algebra.roots import find_root, implicit_root

# Numbers; with lanes, too; rows, with lanes numbers; with lanes LAPACK; LAPACK without them, too.
SIZES = [1, 3, 5, 9, 13]


def ours(matrix, b):
    return linear_solve(factored(matrix), b)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def loss(A, b):
    return jnp.sum(jnp.sin(ours(A, b)))


def slope(A, b):
    """The gradient of `loss`, as one vector."""
    return jnp.concatenate([x.ravel() for x in jax.grad(loss, (0, 1))(A, b)])


def slope_by_hand(A, b):
    """The same in NumPy; of complex numbers, too."""
    x = np.linalg.solve(A, b)
    w = np.linalg.solve(A.T, np.cos(x))
    return np.append(-np.outer(w, x), w)


@pytest.mark.parametrize("n", shortly(SIZES, 3, 13))
def test_solves_and_differentiates_with_and_without_lanes(n):
    As, bs = 3 * np.eye(n) + drawn(3, n, n), drawn(3, n, seed=1)
    both = lambda A, b: (ours(A, b), slope(A, b))

    @jax.jit
    def program(As, bs):
        last = jnp.moveaxis(As, 0, 2)
        lanes = jax.vmap(both, (2, 0))(last, bs), jax.vmap(both, (0, None))(As, bs[0])
        return both(As[0], bs[0]), *lanes, jax.vmap(both, (None, 0))(As[0], bs)

    alone, *lanes = jax.device_get(program(As, bs))
    close(alone[0], np.linalg.solve(As[0], bs[0]))
    close(alone[1], slope_by_hand(As[0], bs[0]))
    same = lambda x: np.broadcast_to(x[0], x.shape)
    for (xs, gradients), A, b in zip(lanes, (As, As, same(As)), (bs, same(bs), bs), strict=True):
        close(xs, [np.linalg.solve(*each) for each in zip(A, b, strict=True)])
        close(gradients, [slope_by_hand(*each) for each in zip(A, b, strict=True)])


@pytest.mark.parametrize("n", [3, 13])
def test_hessians(n):
    """Against differences by an imaginary step."""
    z = np.append(3 * np.eye(n) + drawn(n, n), drawn(n, seed=1))
    parts = lambda z: (z[:-n].reshape(n, n), z[-n:])
    found = jax.jit(jax.hessian(lambda z: loss(*parts(z))))(z)
    close(found, [slope_by_hand(*parts(z + 1e-30j * e)).imag / 1e-30 for e in np.eye(z.size)])


@pytest.mark.parametrize("n", shortly(SIZES, 3, 13))
def test_factors_mean_the_same_with_and_without_lanes(n):
    @jax.jit
    def program(A, bs):
        alone = factored(A)
        together = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), alone)
        one = jax.tree.map(lambda x: x[1], jax.vmap(factored)(jnp.stack([A, -A])))
        return (
            jax.vmap(linear_solve)(together, bs),
            linear_solve(alone, bs.T).T,
            -linear_solve(one, bs.T).T,
        )

    A, bs = drawn(n, n) + 2 * np.eye(n), drawn(3, n, seed=1)
    for found in program(A, bs):
        close(found, np.linalg.solve(A, bs.T).T)


@pytest.mark.parametrize("n", SIZES)
def test_pivots_and_no_library_call_for_small_matrices(n):
    # Without pivoting the growth would be 1e20.
    A = np.eye(n)[::-1] + 1e-20 * drawn(n, n) if n > 1 else np.ones((1, 1))
    C, x = drawn(n, n) + 1j * drawn(n, n, seed=3), drawn(n, seed=2)
    program = jax.jit(lambda A, b, C, x: (ours(A, b), ours(C, x)))
    program = program.lower(A, A @ x, C, x).compile()
    real, other = program(A, A @ x, C, x)
    np.testing.assert_allclose(real, x, rtol=1e-13)
    np.testing.assert_allclose(C @ other, x, atol=1e-11)
    assert ("custom-call" in program.as_text()) == (n > 12)


def test_singular_is_not_finite():
    assert not np.isfinite(ours(jnp.ones((3, 3)), jnp.arange(3.0))).any()


def test_float32_stays_float32():
    x = ours(jnp.eye(2, dtype=jnp.float32), jnp.ones(2, jnp.float32))
    assert x.dtype == jnp.float32


def test_jacobian_is_jacfwd():
    field = lambda t, y: jnp.sin(t) * y**2 + jnp.roll(y, 1)
    t, y = 0.7, drawn(2, 3)

    @jax.jit
    def program(t, y):
        given = field_derivatives(field, t, y, lambda t, y: jacobian(field, t, y))
        return field_derivatives(field, t, y), given, jax.jacfwd(field, 1)(t, y).reshape(6, 6)

    found, given, flat = program(t, y)
    np.testing.assert_allclose(found.by_y, flat, rtol=1e-14)
    np.testing.assert_allclose(found.by_t, (np.cos(t) * y**2).ravel(), rtol=1e-14)
    np.testing.assert_allclose(found.value, field(t, y).ravel(), rtol=1e-15)
    np.testing.assert_allclose(given.by_y, flat, rtol=1e-14)
    np.testing.assert_allclose(given.by_t, found.by_t, rtol=1e-14)
    assert field_derivatives(lambda t, y: y**2, jnp.array(t), jnp.array(y)).by_t is None


def test_newton_finds_roots_from_afar():
    # Powell's badly scaled function, and one whose full steps diverge.
    def powell(x):
        return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])

    root = jax.jit(lambda x: find_root(powell, x))(jnp.array([0.0, 1.0]))
    assert bool(root.found)
    np.testing.assert_allclose(root.x, [1.098159e-5, 9.106146], rtol=1e-6)
    root = find_root(jnp.arctan, jnp.array([20.0]))
    assert bool(root.found)
    np.testing.assert_allclose(root.x, 0, atol=1e-12)


@pytest.mark.parametrize(
    "residual", [lambda x: x**2 + 1, lambda x: 0 * x + 1, lambda x: x * jnp.nan]
)
def test_newton_says_when_there_is_none(residual):
    assert not bool(find_root(residual, jnp.array([1.0])).found)


def test_roots_differentiate_to_every_order():
    cube_root = lambda p: implicit_root(lambda x: x**3 - p, jnp.cbrt(p))[0]
    f, p = (lambda q: cube_root(jnp.stack([q]))), 2.0
    derivatives = [f, jax.grad(f), jax.jacfwd(jax.grad(f)), jax.grad(jax.grad(jax.grad(f)))]
    third = 1 / 3
    exact = [p**third, third * p ** (-2 / 3), -2 / 9 * p ** (-5 / 3), 10 / 27 * p ** (-8 / 3)]
    found, both = jax.jit(
        lambda p: ([d(p) for d in derivatives], jax.vmap(jax.grad(f))(jnp.stack([p, 2.5 * p])))
    )(p)
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    np.testing.assert_allclose(both, [third * q ** (-2 / 3) for q in (2.0, 5.0)], rtol=1e-13)

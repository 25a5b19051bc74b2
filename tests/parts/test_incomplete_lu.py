"""The incomplete LU without fill, against its definition and against the LU of matrices that have
none.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffeq.algebra import Pattern
from diffeq.algebra.incomplete_lu import incomplete_lu
from diffeq.algebra.pattern import pattern_of

RNG = np.random.default_rng(7)


def matrix_with(places, diagonal=4.0):
    """A pattern, and a matrix with numbers at random in its places."""
    pattern = pattern_of(places)
    dense = np.zeros((pattern.n, pattern.n))
    dense[pattern.rows, pattern.columns] = RNG.normal(size=len(pattern.rows))
    return pattern, dense + diagonal * np.eye(pattern.n)


def inverse_of(pattern, dense):
    return incomplete_lu(pattern, jnp.asarray(dense[pattern.rows, pattern.columns]))


def by_rows(pattern, dense):
    """Elimination row by row, in which nothing is put where the pattern has no entry."""
    a, places = dense.copy(), np.zeros(dense.shape, bool)
    places[pattern.rows, pattern.columns] = True
    for i in range(1, pattern.n):
        for k in np.flatnonzero(places[i, :i]):
            a[i, k] /= a[k, k]
            later = places[i] & (np.arange(pattern.n) > k)
            a[i, later] -= a[i, k] * a[k, later]
    return np.tril(a, -1) + np.eye(pattern.n), np.triu(a)


def arrow(n):
    """Full in the last row and column, and on the diagonal."""
    places = np.eye(n)
    places[-1], places[:, -1] = 1, 1
    return places


@pytest.mark.parametrize(
    "places",
    [
        np.tri(50, k=1) * np.tri(50, k=1).T,
        np.kron(np.eye(9), np.ones((4, 4))),
        arrow(40),
        np.triu(np.ones((12, 12))),
        np.eye(5),
    ],
    ids=["three diagonals", "blocks", "arrow", "triangle", "diagonal"],
)
def test_without_fill_it_is_the_lu(places):
    pattern, dense = matrix_with(places, 20.0)
    inverse, b = inverse_of(pattern, dense), RNG.normal(size=pattern.n)
    np.testing.assert_allclose(inverse(jnp.asarray(b)), np.linalg.solve(dense, b), atol=1e-12)
    found = inverse.transposed(jnp.asarray(b))
    np.testing.assert_allclose(found, np.linalg.solve(dense.T, b), atol=1e-12)


@pytest.mark.parametrize(("n", "share"), [(60, 0.05), (60, 0.3), (300, 0.02)])
def test_the_product_is_the_matrix_in_the_pattern(n, share):
    pattern, dense = matrix_with((RNG.random((n, n)) < share) | np.eye(n, dtype=bool), 8.0)
    inverse = inverse_of(pattern, dense)
    product = np.linalg.inv(jax.vmap(inverse, out_axes=1)(jnp.eye(n)))
    inside = pattern.rows, pattern.columns
    np.testing.assert_allclose(product[inside], dense[inside], atol=1e-12 * n)
    lower, upper = by_rows(pattern, dense)
    np.testing.assert_allclose(product, lower @ upper, atol=1e-12 * n)
    turned = jax.vmap(inverse.transposed, out_axes=1)(jnp.eye(n))
    np.testing.assert_allclose(turned, jax.vmap(inverse)(jnp.eye(n)), atol=1e-12)


def test_rows_of_many_entries_and_levels_of_many_rows():
    """Sums of several slots, and levels of several turns, of which one in a hundred is wide."""
    n = 400
    places = np.eye(n) + np.eye(n, k=-1) * (np.arange(n) > 300)[:, None]
    places[:, :2], places[-2:], places[10] = 1, 1, 1
    pattern, dense = matrix_with(places, 50.0)
    lower, upper = by_rows(pattern, dense)
    b = RNG.normal(size=n)
    wanted = np.linalg.solve(lower @ upper, b)
    np.testing.assert_allclose(inverse_of(pattern, dense)(jnp.asarray(b)), wanted, atol=1e-12)


def test_in_lanes_and_as_a_linear_map():
    pattern, dense = matrix_with(np.tri(20, k=2) * np.tri(20, k=3).T)
    values = dense[pattern.rows, pattern.columns]
    many, b = jnp.asarray(values * np.array([[1.0], [2.0], [0.5]])), jnp.arange(20.0)
    found = jax.jit(jax.vmap(lambda v: incomplete_lu(pattern, v)(b)))(many)
    one = incomplete_lu(pattern, jnp.asarray(values))
    for scale, x in zip([1.0, 2.0, 0.5], found, strict=True):
        np.testing.assert_allclose(x, one(b) / scale, rtol=1e-12)
    by_jax = jax.linear_transpose(one, b)(b)[0]
    np.testing.assert_allclose(by_jax, one.transposed(b), rtol=1e-10)


def test_a_pivot_of_zero_is_no_number():
    pattern = Pattern(3, np.array([0, 1]), np.array([1, 0]))
    for values in ([0.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 2.0], [1.0, 0.0, 0.0, 1.0, 0.0]):
        found = incomplete_lu(pattern, jnp.array(values))(jnp.array([1.0, 2.0, 3.0]))
        assert not np.isfinite(found).all()

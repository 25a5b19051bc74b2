"""Bases against their definitions, tensor layers against sums, splines against SciPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev, legendre
from scipy.interpolate import CubicSpline

import diffeq as de

X = np.linspace(-1.3, 1.3, 14)
KEY = jax.random.key(0)
WAVES = [np.ones_like(X), *(f(j * X) for j in (1, 2, 3) for f in (np.cos, np.sin))]
BASES = {
    "Chebyshev": lambda n: chebyshev.chebvander(X, n - 1),
    "Legendre": lambda n: legendre.legvander(X, n - 1),
    "Polynomial": lambda n: np.vander(X, n, increasing=True),
    "Sin": lambda n: np.stack([np.sin(j * X) for j in range(1, n + 1)], axis=1),
    "Cos": lambda n: np.stack([np.cos(j * X) for j in range(n)], axis=1),
    "Fourier": lambda n: np.stack(WAVES[:n], axis=1),
}


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("name", BASES)
def test_a_basis_is_its_definition_everywhere(name, n):
    basis = getattr(de.nn, name)(n)
    found, slopes = jax.jit(jax.vmap(lambda x: (basis(x), jax.jacfwd(basis)(x))))(X)
    np.testing.assert_allclose(found, BASES[name](n), atol=1e-12)
    sides = jax.jit(jax.vmap(basis))(np.array([X + 1e-6, X - 1e-6]).ravel())
    above, below = np.split(np.asarray(sides), 2)
    np.testing.assert_allclose(slopes, (above - below) / 2e-6, atol=1e-6)


def test_a_tensor_layer_is_the_sum_over_products():
    bases = [de.nn.Chebyshev(3), de.nn.Fourier(2), de.nn.Legendre(4)]
    layer = de.nn.TensorLayer(bases, 2, key=KEY)
    x = jnp.array([0.3, -0.2, 1.1])
    parts = [basis(part) for basis, part in zip(bases, x, strict=True)]
    W = layer.weight.reshape(2, 3, 2, 4)
    np.testing.assert_allclose(layer(x), jnp.einsum("oijk,i,j,k->o", W, *parts), rtol=1e-12)
    trained = eqx.filter(layer, eqx.is_inexact_array)
    assert [leaf.shape for leaf in jax.tree.leaves(trained)] == [(2, 24)]
    field = de.nn.TensorLayer([de.nn.Legendre(3)] * 2, 2, key=KEY)
    node = de.nn.NeuralODE(field, tspan=(0.0, 1.0))
    assert jax.vmap(lambda y0: node(y0).y1)(jnp.ones((4, 2))).shape == (4, 2)


KNOTS = np.array([0.0, 0.4, 0.5, 1.3, 2.0, 2.1])
INSIDE = np.linspace(0.0, 2.1, 64)[1:-1]


def test_cubic_splines_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for n in (2, 3, 4, 6):
        values = rng.normal(size=(n, 2))
        spline, wanted = de.nn.Spline(KNOTS[:n], values), CubicSpline(KNOTS[:n], values)
        t = np.linspace(KNOTS[0], KNOTS[n - 1], 33)
        np.testing.assert_allclose(jax.vmap(spline)(t), wanted(t), atol=1e-12)
        np.testing.assert_allclose(jax.vmap(spline.derivative)(t), wanted(t, 1), atol=1e-11)


@pytest.mark.parametrize("kind", ["constant", "linear", "quadratic", "cubic"])
def test_splines(kind):
    values = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)))
    spline = de.nn.Spline(KNOTS, values, kind=kind)
    np.testing.assert_allclose(jax.vmap(spline)(KNOTS), values, atol=1e-12)
    outside = jax.vmap(spline)(jnp.array([-1.0, 9.0]))
    np.testing.assert_allclose(outside, values[np.array([0, -1])], rtol=1e-14)
    degree = ("constant", "linear", "quadratic", "cubic").index(kind)
    exact = de.nn.Spline(KNOTS, KNOTS**degree, kind=kind)
    np.testing.assert_allclose(jax.vmap(exact)(INSIDE), INSIDE**degree, atol=1e-12)
    # Linear in its values, and the slope is the derivative of the value.
    both = jax.jvp(lambda t: spline(t), (0.77,), (1.0,))
    np.testing.assert_allclose(both[1], spline.derivative(0.77), atol=1e-12)
    weights = jax.jacrev(lambda s: s(0.77)[0])(spline).values[:, 0]
    np.testing.assert_allclose(weights @ values, both[0], atol=1e-12)
    assert float(weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["constant", "linear", "quadratic", "cubic"])
def test_splines_through_whole_numbers(kind):
    whole, real = (de.nn.Spline([0, 1, 2], np.array([0, 1, 4], t), kind=kind) for t in (int, float))
    assert whole.values.dtype == jnp.float64
    assert whole(1.5) == real(1.5)
    assert whole.derivative(1.5) == real.derivative(1.5)


def test_quadratic_splines_are_smooth_where_their_parabolas_meet():
    values = np.random.default_rng(2).normal(size=6)
    spline = de.nn.Spline(KNOTS, values, kind="quadratic")
    middles = (KNOTS[1:] + KNOTS[:-1]) / 2
    at = np.sort(
        [*(middles - 1e-9), *(middles + 1e-9), *(KNOTS[1:-1] - 1e-9), *(KNOTS[1:-1] + 1e-9)]
    )
    sides, slopes = (np.asarray(jax.vmap(f)(at)) for f in (spline, spline.derivative))
    np.testing.assert_allclose(sides[::2], sides[1::2], atol=1e-6)
    np.testing.assert_allclose(slopes[::2], slopes[1::2], atol=1e-6)


def test_a_spline_as_an_input_is_trained_through_a_solve():
    def end(splines):
        field = lambda t, y, each: jnp.stack([u(t) for u in each])
        problem = de.ODEProblem(field, jnp.zeros(2), (0.0, 2.1), splines)
        sol = de.solve(problem, de.Bosh3(), rtol=1e-9, atol=1e-9, stops=KNOTS)
        return jnp.sum(sol.y1)

    each = tuple(de.nn.Spline(KNOTS, np.ones(6), kind=kind) for kind in ("constant", "linear"))
    constant, linear = (slope.values for slope in jax.jit(jax.grad(end))(each))
    h = np.diff(KNOTS)
    np.testing.assert_allclose(constant, [*h, 0.0], atol=1e-9)
    sides = [h[0] / 2, *(h[1:] + h[:-1]) / 2, h[-1] / 2]
    np.testing.assert_allclose(linear, sides, atol=1e-9)


def test_refusals():
    with pytest.raises(TypeError, match=r"n is 0; a positive whole number"):
        de.nn.Legendre(0)
    for basis in (de.nn.Sin, de.nn.Cos, de.nn.Fourier, de.nn.Legendre, de.nn.Polynomial):
        assert basis(np.int64(3))(0.5).shape == (3,)
        with pytest.raises(ValueError, match=r"x has shape \(3,\); a basis is of one number"):
            basis(3)(jnp.ones(3))
    for bases in (de.nn.Legendre(3), [], [3]):
        with pytest.raises(
            TypeError, match=r"bases is .*; a list is wanted, with a basis for each"
        ):
            de.nn.TensorLayer(bases, 1, key=KEY)
    with pytest.raises(TypeError, match="out is 'scalar'; a positive whole number"):
        de.nn.TensorLayer([de.nn.Sin(2)], "scalar", key=KEY)
    with pytest.raises(TypeError, match="key is 0; one key is wanted"):
        de.nn.TensorLayer([de.nn.Sin(2)], 1, key=0)
    with pytest.raises(ValueError, match=r"x has shape \(3,\); with a basis for each"):
        de.nn.TensorLayer([de.nn.Sin(2)] * 2, 1, key=KEY)(jnp.ones(3))
    with pytest.raises(ValueError, match=r"knots must be finite and rise"):
        de.nn.Spline([0.0, 1.0, 1.0], jnp.ones(3))
    with pytest.raises(ValueError, match=r"values have shape \(2,\); .* of the 3 knots"):
        de.nn.Spline([0.0, 1.0, 2.0], jnp.ones(2))
    with pytest.raises(ValueError, match=r"kind is 'akima'; one of 'constant'"):
        de.nn.Spline([0.0, 1.0], jnp.ones(2), kind="akima")
    spline = de.nn.Spline([0.0, 1.0], jnp.ones(2))
    for call in (spline, spline.derivative):
        with pytest.raises(ValueError, match=r"t has shape \(3,\); one time is wanted.* jax.vmap"):
            call(jnp.zeros(3))

"""Collocation: kernels against quadrature, local polynomials against polynomials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import diffeq as de
from diffeq.train.collocation import KERNELS

VARIANCES = {
    "epanechnikov": 1 / 5, "uniform": 1 / 3, "triangular": 1 / 6, "quartic": 1 / 7,
    "triweight": 1 / 9, "tricube": 35 / 243, "cosine": 1 - 8 / np.pi**2, "gaussian": 1.0,
    "logistic": np.pi**2 / 3, "sigmoid": np.pi**2 / 4, "silverman": 0.0,
}  # fmt: skip
TS = np.sort(np.random.default_rng(0).uniform(0.0, 3.0, 40))


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_a_density(name):
    """∫K = 1, ∫uK = 0 and the second moment that is known of it."""
    reach = 60.0 if name in ("gaussian", "logistic", "sigmoid", "silverman") else 1.0
    kernel = jax.jit(KERNELS[name])
    for power, wanted in ((0, 1.0), (1, 0.0), (2, VARIANCES[name])):
        parts = [quad(lambda u, p=power: u**p * float(kernel(u)), *ends, limit=200, epsabs=1e-11)[0]
                 for ends in ((-reach, 0.0), (0.0, reach))]  # fmt: skip
        assert sum(parts) == pytest.approx(wanted, abs=1e-8)
    assert float(kernel(0.3)) == pytest.approx(float(kernel(-0.3)), rel=1e-14)
    u = np.linspace(-500.0, 500.0, 5)
    assert np.all(np.isfinite(jax.vmap(jax.grad(kernel))(u)))


@pytest.mark.parametrize("name", KERNELS)
def test_polynomials_of_the_degree_are_exact(name):
    """A line is its own local line; a parabola has the slope of its own local parabola."""
    line = np.stack([2.0 - 3.0 * TS, TS], axis=1)
    at = np.linspace(0.3, 2.7, 7)
    found = de.collocate({"a": line, "b": TS**2 - TS}, TS, at=at, kernel=name, bandwidth=0.6)
    np.testing.assert_allclose(found.ys["a"], np.stack([2.0 - 3.0 * at, at], axis=1), atol=1e-8)
    np.testing.assert_allclose(found.dys["a"], [[-3.0, 1.0]] * 7, atol=1e-7)
    np.testing.assert_allclose(found.dys["b"], 2 * at - 1, atol=1e-7)


def test_smoothing_is_weighted_least_squares():
    """Against NumPy's own least squares, where weights have roots."""
    rng = np.random.default_rng(1)
    x, at, h = np.sin(TS) + 0.1 * rng.normal(size=40), 1.2, 0.5
    weights = np.sqrt(np.maximum(1 - np.abs(TS - at) / h, 0))
    line, parabola = (np.polyfit(TS - at, x, degree, w=weights) for degree in (1, 2))
    found = de.collocate(x, TS, at=[at], bandwidth=h)
    np.testing.assert_allclose([found.ys[0], found.dys[0]], [line[-1], parabola[-2]], rtol=1e-9)


def test_noise_is_smoothed_and_what_is_missing_is_left_out():
    rng = np.random.default_rng(2)
    ts = np.linspace(0.0, 6.0, 300)
    noisy = np.sin(ts) + 0.1 * rng.normal(size=300)
    holes = np.where(rng.uniform(size=300) < 0.3, np.nan, noisy)
    for data in (noisy, holes):
        found = de.collocate(data, ts, kernel="epanechnikov", bandwidth=0.5)
        assert np.sqrt(np.mean((found.ys - np.sin(ts)) ** 2)) < 0.05
        inner = slice(30, -30)
        assert np.sqrt(np.mean((found.dys - np.cos(ts))[inner] ** 2)) < 0.15
    kept = ~np.isnan(holes)
    without = de.collocate(holes[kept], ts[kept], at=ts, kernel="epanechnikov", bandwidth=0.5)
    np.testing.assert_allclose(without.ys, found.ys, atol=1e-10)
    order = rng.permutation(300)
    shuffled = de.collocate(holes[order], ts[order], at=ts, kernel="epanechnikov", bandwidth=0.5)
    np.testing.assert_allclose(shuffled.dys, found.dys, atol=1e-9)


def test_the_default_bandwidth_is_the_rule():
    x, n = np.cos(TS), 40
    h = n ** (-1 / 5) * n ** (-3 / 35) * np.log(n) ** (-1 / 16) * (TS[-1] - TS[0])
    one, two = de.collocate(x, TS), de.collocate(x, TS, bandwidth=h)
    np.testing.assert_allclose(one.dys, two.dys, rtol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "quadratic", "cubic"])
def test_interpolants(kind):
    degree = ("constant", "linear", "quadratic", "cubic").index(kind)
    at = np.linspace(TS[0], TS[-1], 50)[1:-1]
    found = de.collocate(np.stack([TS**degree, TS], axis=1), TS, at=at, interpolant=kind)
    np.testing.assert_allclose(found.ys, np.stack([at**degree, at], axis=1), atol=1e-9)
    slope = degree * at ** (degree - 1)
    np.testing.assert_allclose(found.dys, np.stack([slope, 1 + 0 * at], axis=1), atol=1e-6)


def test_in_a_trace_and_differentiated():
    x = np.sin(TS)
    plain = de.collocate(x, TS, bandwidth=0.7)
    jitted = jax.jit(lambda x, h: de.collocate(x, TS, bandwidth=h))(x, 0.7)
    np.testing.assert_allclose(jitted.dys, plain.dys, rtol=1e-10)
    slope = jax.grad(lambda x: jnp.sum(de.collocate(x, TS, bandwidth=0.7).ys))(x)
    assert float(slope.sum()) == pytest.approx(40.0), "weights of a level sum to one"
    far = jax.jit(lambda x: de.collocate(x, TS, at=jnp.array([1.0, 99.0]), bandwidth=0.7))(x)
    np.testing.assert_array_equal(np.isnan(far.ys), [False, True])


@pytest.mark.parametrize("kind", ["linear", "quadratic", "cubic"])
def test_interpolants_in_a_trace_and_differentiated(kind):
    x = np.sin(TS)
    plain = de.collocate(x, TS, interpolant=kind)
    jitted = jax.jit(lambda x: de.collocate(x, TS, interpolant=kind))(x)
    np.testing.assert_allclose(jitted.dys, plain.dys, rtol=1e-10, atol=1e-12)
    slope = jax.grad(lambda x: jnp.sum(de.collocate(x, TS, interpolant=kind).ys))(x)
    assert float(slope.sum()) == pytest.approx(40.0), "weights of a level sum to one"
    with pytest.raises(TypeError, match=r"ts is traced; an interpolant wants times"):
        jax.jit(lambda ts: de.collocate(x, ts, interpolant=kind))(TS)


def test_refusals():
    x = np.sin(TS)
    for other in ({"kernel": "gaussian"}, {"bandwidth": 0.5}):
        with pytest.raises(TypeError, match=r"interpolant goes through all data.*one or the other"):
            de.collocate(x, TS, interpolant="cubic", **other)
    with pytest.raises(TypeError, match=r"data is None; a tree of arrays is wanted"):
        de.collocate(None, TS)
    with pytest.raises(TypeError, match=r"bandwidth is .*; a number in the unit of ts"):
        de.collocate(x, TS, bandwidth=np.ones(2))
    with pytest.raises(ValueError, match=r"bandwidth is -1\.0; a positive number"):
        de.collocate(x, TS, bandwidth=-1.0)
    with pytest.raises(ValueError, match=r"0 measured points are within reach of t = 99"):
        de.collocate(x, TS, at=[99.0], bandwidth=0.1)
    with pytest.raises(ValueError, match=r"kernel is 'box'; one of 'epanechnikov'"):
        de.collocate(x, TS, kernel="box")
    with pytest.raises(ValueError, match=r"interpolant is 'akima'; one of 'linear'"):
        de.collocate(x, TS, interpolant="akima")
    with pytest.raises(ValueError, match=r"data has NaN"):
        de.collocate(np.where(TS > 2, np.nan, x), TS, interpolant="cubic")
    with pytest.raises(ValueError, match=r"data\['a'\] has shape \(39,\); .* 40 ts"):
        de.collocate({"a": x[1:]}, TS)
    with pytest.raises(TypeError, match=r"dtype int64; floats are wanted"):
        de.collocate(np.arange(40), TS)

"""Log-signatures: against iterated integrals in NumPy, by Chen's identity, and as a control."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.core.lyndon import lyndon_words

RNG = np.random.default_rng(0)


def product(a, b):
    """The product of two elements of the tensor algebra, up to third order."""
    outer = np.multiply.outer
    return [sum(outer(a[i], b[n - i]) for i in range(n + 1)) for n in range(4)]


def signature(xs):
    """The iterated integrals of the path through xs, line by line, by Chen's identity."""
    whole = [np.ones(()), *(np.zeros((xs.shape[1],) * n) for n in (1, 2, 3))]
    for dx in np.diff(xs, axis=0):
        outer = np.multiply.outer
        line = [np.ones(()), dx, outer(dx, dx) / 2, outer(outer(dx, dx), dx) / 6]
        whole = product(whole, line)
    return whole


def bracket(word, channels):
    """The bracket that belongs to a Lyndon word, as an element of the tensor algebra."""
    if len(word) == 1:
        found = [np.zeros((channels,) * n) for n in range(4)]
        found[1][word[0]] = 1.0
        return found
    # Its longest end that is a Lyndon word is the second factor.
    words = set(lyndon_words(channels, 3))
    cut = next(i for i in range(1, len(word)) if word[i:] in words)
    a, b = bracket(word[:cut], channels), bracket(word[cut:], channels)
    return [x - y for x, y in zip(product(a, b), product(b, a), strict=True)]


def exponential(log):
    """1 + L + L²/2 + L³/6."""
    square = product(log, log)
    cube = product(square, log)
    one = [np.ones(()), *(np.zeros_like(x) for x in log[1:])]
    return [o + x + y / 2 + z / 6 for o, x, y, z in zip(one, log, square, cube, strict=True)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_its_exponential_is_the_signature(channels):
    xs = RNG.normal(size=(7, channels))
    words = lyndon_words(channels, 3)
    assert len(words) == channels + channels * (channels - 1) // 2 + (channels**3 - channels) // 3
    found = np.asarray(de.interp.log_signature(xs, depth=3))
    log = [np.zeros((channels,) * n) for n in range(4)]
    for weight, word in zip(found, words, strict=True):
        log = [a + weight * b for a, b in zip(log, bracket(word, channels), strict=True)]
    for a, b in zip(exponential(log), signature(xs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    for depth in (1, 2):
        short = de.interp.log_signature(xs, depth=depth)
        np.testing.assert_allclose(short, found[: short.size], atol=1e-14)


def test_the_area_is_that_of_the_polygon():
    """Green's formula with the line back to the start."""
    xs = RNG.normal(size=(9, 2))
    x, y = (np.append(v, v[0]) for v in xs.T)
    area = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2
    np.testing.assert_allclose(de.interp.log_signature(xs, depth=2)[2], area, atol=1e-13)


def test_a_path_back_undoes_it_and_points_on_its_lines_change_nothing():
    xs = RNG.normal(size=(6, 3))
    found = de.interp.log_signature(xs, depth=3)
    np.testing.assert_allclose(de.interp.log_signature(xs[::-1], depth=3), -found, atol=1e-12)
    finer = np.insert(xs, np.arange(1, 6), (xs[1:] + xs[:-1]) / 2, axis=0)
    np.testing.assert_allclose(de.interp.log_signature(finer, depth=3), found, atol=1e-12)
    np.testing.assert_allclose(de.interp.log_signature(xs + 7.0, depth=3), found, atol=1e-11)


def test_its_derivative():
    xs, weights = RNG.normal(size=(5, 3)), RNG.normal(size=14)
    value = lambda xs: jnp.dot(weights, de.interp.log_signature(xs, depth=3))
    found = jax.grad(value)(jnp.asarray(xs))
    for i, j in itertools.product((0, 2, 4), (0, 2)):
        e = np.zeros_like(xs)
        e[i, j] = 1e-6
        want = (value(xs + e) - value(xs - e)) / 2e-6
        np.testing.assert_allclose(found[i, j], want, rtol=1e-7, atol=1e-8)


# --- as a control ---------------------------------------------------------------------------------

TS = np.sort(RNG.uniform(0.0, 3.0, 11))
XS = RNG.normal(size=(11, 3))


def test_windows_are_those_of_the_rows():
    """Three windows of four, four and two steps."""
    u = de.interp.LogSignature(TS, XS, depth=3, stride=4)
    cuts, total = (0, 4, 8, 10), np.zeros(14)
    for a, b in itertools.pairwise(cuts):
        want = de.interp.log_signature(XS[a : b + 1], depth=3)
        middle = (TS[a] + TS[b]) / 2
        np.testing.assert_allclose(u.derivative(middle), want / (TS[b] - TS[a]), atol=1e-12)
        np.testing.assert_allclose(u(middle), total + want / 2, atol=1e-12)
        total = total + want
    np.testing.assert_allclose(u(TS[-1] + 1.0), total, atol=1e-12)


def test_whole_numbers_of_numpy():
    found = de.interp.LogSignature(TS, XS, depth=np.int64(2), stride=np.int64(4))
    wanted = de.interp.LogSignature(TS, XS, depth=2, stride=4)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)


def test_windows_of_depth_one_are_lines():
    u = de.interp.LogSignature(TS, XS, depth=1, stride=1)
    line = de.interp.Linear(TS, XS)
    at = jnp.linspace(TS[0] - 0.1, TS[-1] + 0.1, 31)
    np.testing.assert_allclose(u(at), line(at) - XS[0], atol=1e-12)
    np.testing.assert_allclose(u.derivative(at), line.derivative(at), atol=1e-12)


@pytest.mark.parametrize("count", [11, 9, 6, 2])
def test_padding_changes_nothing(count):
    """Windows end at the last time that is there."""

    def value(ts, xs, at):
        u = de.interp.LogSignature(ts, xs, depth=3, stride=4)
        return jnp.sum(jnp.sin(u(at))) + jnp.sum(jnp.cos(u.derivative(at)))

    ts, xs = TS[:count], XS[:count]
    at = jnp.linspace(ts[0], ts[-1], 17)
    padded = np.full(11, np.nan), np.full((11, 3), np.nan)
    padded[0][:count], padded[1][:count] = ts, xs
    whole = jax.value_and_grad(value, (0, 1))
    want, (d_ts, d_xs) = whole(jnp.asarray(ts), jnp.asarray(xs), at)
    found, (p_ts, p_xs) = whole(*map(jnp.asarray, padded), at)
    np.testing.assert_allclose(found, want, rtol=1e-12)
    np.testing.assert_allclose(p_ts[:count], d_ts, atol=1e-10)
    np.testing.assert_allclose(p_xs[:count], d_xs, atol=1e-10)
    assert not np.any(p_ts[count:])
    assert not np.any(p_xs[count:])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: de.interp.log_signature(XS, depth=4), "depth is 4; 1, 2 or 3"),
        (lambda: de.interp.log_signature(XS[:, 0], depth=2), r"xs has shape \(11,\)"),
        (lambda: de.interp.log_signature(XS[:1], depth=2), "xs has one row"),
        (lambda: de.interp.LogSignature(TS, XS, depth=2, stride=0), "stride is 0"),
        (lambda: de.interp.LogSignature(TS, XS, depth=2, stride=True), "stride is True"),
        (lambda: de.interp.LogSignature(TS, XS, depth=True, stride=1), "depth is True; 1, 2 or 3"),
        (lambda: de.interp.LogSignature(TS, XS[:, 0], depth=2, stride=1), r"xs has shape \(11,\)"),
        (lambda: de.interp.LogSignature(TS[::-1], XS, depth=2, stride=1), "ts must increase"),
        (lambda: de.interp.LogSignature(TS, XS * np.nan, depth=2, stride=1), "xs has NaN at ts"),
    ],
)
def test_refusals(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()

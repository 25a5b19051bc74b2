"""Statistics of values that come in chunks are those of NumPy, of all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

RNG = np.random.default_rng(0)
VALUES = {"a": RNG.normal(size=(2000, 3, 2)) ** 3 + 5.0, "b": RNG.exponential(size=(2000, 3))}
COUNTS = RNG.random(2000) < 0.9
SEEN = jax.tree.map(lambda x: x[COUNTS], VALUES)
EDGES = np.linspace(0.0, 8.0, 9)
Q = (0.001, 0.03, 0.5, 0.98)


def taken(statistic, values, counts, chunk):
    """One half in chunks, the other one at once, and both merged."""
    half = len(counts) // 2
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), values)
    update = jax.jit(statistic.update)
    part = lambda i, j: (jax.tree.map(lambda x: x[i:j], values), counts[i:j])
    states = [statistic.init(like), update(statistic.init(like), *part(half, len(counts)))]
    for i in range(0, half, chunk):
        states[0] = update(states[0], *part(i, min(i + chunk, half)))
    return statistic.result(statistic.merge(*states))


@pytest.mark.parametrize(
    ("statistic", "of_leaf"),
    [
        (de.stats.Mean(), lambda x: x.mean(0)),
        (de.stats.Variance(ddof=1), lambda x: x.var(0, ddof=1)),
        (de.stats.Histogram(EDGES), lambda x: np.apply_along_axis(
            lambda v: np.histogram(v, EDGES)[0], 0, x).transpose(*range(1, x.ndim), 0)),
    ],
    ids=["mean", "variance", "histogram"],
)  # fmt: skip
def test_of_each_leaf(statistic, of_leaf):
    found = taken(statistic, VALUES, COUNTS, 250)
    for name, x in SEEN.items():
        np.testing.assert_allclose(found[name], of_leaf(x), rtol=1e-12)


def test_the_covariance_of_a_tree_and_of_complex_values():
    together = np.concatenate([SEEN["a"], SEEN["b"][..., None]], -1)
    found = taken(de.stats.Covariance(ddof=1), VALUES, COUNTS, 250)
    np.testing.assert_allclose(found, [np.cov(together[:, i].T) for i in range(3)], rtol=1e-11)
    z = VALUES["a"] * (1 + 0.5j) + 1j * VALUES["b"][..., None]
    found = taken(de.stats.Covariance(), z, COUNTS, 500)
    np.testing.assert_allclose(found[1], np.cov(z[COUNTS][:, 1].T, ddof=0), rtol=1e-11)
    found = taken(de.stats.Variance(), z, COUNTS, 500)
    np.testing.assert_allclose(found, z[COUNTS].var(0), rtol=1e-12)


def test_extremes_and_rows_that_count_alone():
    found = taken(de.stats.Extremes(), VALUES, COUNTS, 250)
    for name, x in SEEN.items():
        np.testing.assert_array_equal(found.least[name], x.min(0))
        np.testing.assert_array_equal(found.greatest[name], x.max(0))
    rows = RNG.random((2000, 3)) < 0.5
    padded = np.where(rows, VALUES["b"], np.nan)
    found = taken(de.stats.Mean(), padded, rows, 250)
    np.testing.assert_allclose(found, np.nanmean(padded, 0), rtol=1e-12)


def off(found, x):
    """How far the ranks of the quantiles found are from those asked for, at worst."""
    ranks = np.mean(x[None] < np.asarray(found)[:, None], 1).reshape(len(Q), -1)
    return np.max(np.abs(ranks - np.reshape(Q, (-1, 1))), 1)


@pytest.mark.parametrize("chunk", shortly([10, 400], 400))
def test_quantiles_of_many_are_near_in_rank(chunk):
    found = taken(de.stats.Quantile(Q, size=128), VALUES, COUNTS, chunk)
    bound = 2 * np.pi * np.sqrt(np.multiply(Q, np.subtract(1, Q))) / 128
    for name, x in SEEN.items():
        assert np.all(off(found[name], x) <= bound + 1 / len(x))


def test_quantiles_of_few_are_exact():
    few = jax.tree.map(lambda x: x[:100], VALUES)
    found = taken(de.stats.Quantile(0.3), few, np.ones(100, bool), 16)
    for name, x in few.items():
        np.testing.assert_allclose(found[name], np.quantile(x, 0.3, axis=0), rtol=1e-13)


def test_constants_given_as_arrays_are_those_of_lists():
    """Also as a part of the structure, which may hold no arrays."""
    pairs = [
        (
            de.stats.Quantile(np.array([0.1, 0.9]), size=np.int64(64)),
            de.stats.Quantile([0.1, 0.9], 64),
        ),
        (de.stats.Histogram(jnp.arange(3.0)), de.stats.Histogram([0, 1, 2])),
        (de.stats.Variance(ddof=np.int64(1)), de.stats.Variance(1)),
    ]
    for found, wanted in pairs:
        assert hash(jax.tree.structure(found)) == hash(jax.tree.structure(wanted))
        assert found == wanted


def test_nothing_seen_is_nan():
    none = np.zeros(4, bool)
    few = VALUES["b"][:4]
    for statistic in (de.stats.Mean(), de.stats.Variance(), de.stats.Quantile(0.5)):
        assert np.isnan(taken(statistic, few, none, 2)).all()
    assert np.isnan(taken(de.stats.Extremes(), few, none, 2).least).all()
    assert np.isnan(
        taken(de.stats.Variance(ddof=2), few, np.array([True, False, True, False]), 2)
    ).all()


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: de.stats.Quantile(1.5), ValueError, "q is 1.5"),
        (lambda: de.stats.Quantile(0.5, size=4), ValueError, "size is 4"),
        (lambda: de.stats.Quantile("a"), ValueError, "q is 'a'; probabilities between 0 and 1"),
        (lambda: de.stats.Quantile([[0.5]]), ValueError, r"q is \[\[0.5\]\]; probabilities"),
        (lambda: de.stats.Quantile(0.5, size=64.0), TypeError, "size is 64.0; a positive whole"),
        (lambda: de.stats.Histogram([1.0, 1.0]), ValueError, r"edges is \[1.0, 1.0\]"),
        (lambda: de.stats.Histogram(10), ValueError, "edges is 10; two or more increasing numbers"),
        (lambda: de.stats.Variance(ddof=2.5), TypeError, "ddof is 2.5; a whole number from 0 on"),
        (lambda: de.stats.Covariance(ddof=-1), TypeError, "ddof is -1; a whole number from 0 on"),
        (lambda: de.stats.Extremes().init(jnp.zeros(2, complex)), TypeError, "no order"),
        (lambda: de.stats.Covariance().init(jnp.zeros(())), ValueError, r"the shapes \[\(\)\]"),
    ],
)
def test_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()

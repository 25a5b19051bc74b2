"""Tables of stochastic methods by Rößler's order conditions; the bridge by its covariances; the
normal numbers by what is known of them.
"""

import functools
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from diffeq.brownian import counter_rng
from diffeq.brownian.increments import halves
from diffeq.methods.tableaus.stochastic import SRA_TABLES, SRI_TABLES

EXACT = {"SRIW1": 0, "SRA1": 0}  # the others have the digits of a double
PRINTED = Fraction(1, 10**13)
BIBLIOGRAPHY = (Path(__file__).parents[2] / "docs" / "references.bib").read_text("utf8")

sri = pytest.mark.parametrize("table", SRI_TABLES.values(), ids=SRI_TABLES)
sra = pytest.mark.parametrize("table", SRA_TABLES.values(), ids=SRA_TABLES)


def exact(table):
    """The fractions as arrays of objects."""
    return {key: np.array(value, dtype=object) for key, value in table.exact.items()}


def sri_residuals(x) -> list:
    """The 25 conditions of strong order 3/2 (Rößler 2010, theorem 3.1), as what is left over."""
    A0, A1, B0, B1 = x["A0"], x["A1"], x["B0"], x["B1"]
    a, b1, b2, b3, b4 = x["alpha"], x["beta1"], x["beta2"], x["beta3"], x["beta4"]
    e = np.array([Fraction(1)] * len(a), dtype=object)
    drift, kick, own = A0 @ e, B0 @ e, B1 @ e
    pairs = [
        (a @ e, 1), (b1 @ e, 1), (b2 @ e, 0), (b3 @ e, 0), (b4 @ e, 0),
        (b1 @ own, 0), (b2 @ own, 1), (b3 @ own, 0), (b4 @ own, 0),
        (a @ drift, Fraction(1, 2)), (a @ kick, 1), (a @ kick**2, Fraction(3, 2)),
        (b1 @ (A1 @ e), 1), (b2 @ (A1 @ e), 0), (b3 @ (A1 @ e), -1), (b4 @ (A1 @ e), 0),
        (b1 @ own**2, 1), (b2 @ own**2, 0), (b3 @ own**2, -1), (b4 @ own**2, 2),
        (b1 @ (B1 @ own), 0), (b2 @ (B1 @ own), 0), (b3 @ (B1 @ own), 0), (b4 @ (B1 @ own), 1),
        (b1 @ (A1 @ kick) / 2 + b3 @ (A1 @ kick) / 3, 0),
    ]  # fmt: skip
    return [abs(found - wanted) for found, wanted in pairs]


def sra_residuals(x) -> list:
    """Those for additive noise (theorem 4.1)."""
    a, b1, b2, c1 = x["alpha"], x["beta1"], x["beta2"], x["c1"]
    e = np.array([Fraction(1)] * len(a), dtype=object)
    kick = x["B0"] @ e
    pairs = [
        (a @ e, 1), (b1 @ e, 1), (b2 @ e, 0), (a @ (x["A0"] @ e), Fraction(1, 2)),
        (a @ kick, 1), (a @ kick**2, Fraction(3, 2)), (b1 @ c1, 1), (b2 @ c1, -1),
    ]  # fmt: skip
    return [abs(found - wanted) for found, wanted in pairs]


@sri
def test_sri_order_conditions(table):
    residuals = sri_residuals(exact(table))
    assert len(residuals) == 25
    assert max(residuals) <= EXACT.get(table.name, PRINTED)


@sra
def test_sra_order_conditions(table):
    assert max(sra_residuals(exact(table))) <= EXACT.get(table.name, PRINTED)


@pytest.mark.parametrize(
    "table", [*SRI_TABLES.values(), *SRA_TABLES.values()], ids=lambda t: t.name
)
def test_rows_and_nodes(table):
    x = exact(table)
    gap = EXACT.get(table.name, PRINTED)
    assert max(abs(x["A0"].sum(1) - x["c0"])) <= gap
    if not table.additive:
        assert max(abs(x["A1"].sum(1) - x["c1"])) <= gap
    for name in ("A0", "B0", "A1", "B1")[: 2 if table.additive else 4]:
        matrix = getattr(table, name)
        assert matrix.shape == (table.stages, table.stages)
        assert not np.triu(matrix).any(), "explicit"
    assert (table.strong, table.weak) == (1.5, 2.0)
    assert f"{{{table.reference}," in BIBLIOGRAPHY
    assert hash(table) == hash(type(table)(table._text))


def test_a_wrong_digit_is_found():
    x = exact(SRI_TABLES["SOSRI"])
    for key, value in x.items():
        changed = value.copy()
        place = tuple(np.argwhere(value != 0)[0])
        changed[place] += Fraction(1, 1000)
        if not key.startswith("c"):
            assert max(sri_residuals(x | {key: changed})) > 1e-6, key


# --- the bridge -----------------------------------------------------------------------------------


def test_halves_of_a_cell_are_brownian_and_make_the_whole():
    # W and H of a cell of length 1 and the two normals, as unit vectors: what comes out is linear.
    w, h, z, n = jnp.eye(4)
    left, h_left, right, h_right = (np.asarray(x) for x in halves(w, h, z, n, jnp.asarray(0.5)))
    rows = np.stack([left, h_left, right, h_right])
    covariance = rows @ np.diag([1, 1 / 12, 1, 1]) @ rows.T
    np.testing.assert_allclose(covariance, np.diag([1 / 2, 1 / 24, 1 / 2, 1 / 24]), atol=1e-15)
    np.testing.assert_allclose(left + right, w, atol=1e-15)
    area = lambda w, h: 0.5 * (w / 2 + h)
    whole = area(left, h_left) + area(right, h_right) + 0.5 * left
    np.testing.assert_allclose(whole, w / 2 + h, atol=1e-15)


# --- normal numbers -----------------------------------------------------------------------------


def test_the_block_function_is_the_one_of_jax():
    words = jnp.array([0x13198A2E, 0x03707344], jnp.uint32)
    ours = counter_rng.threefry(words, jnp.uint32(0x243F6A88), jnp.uint32(0x85A308D3))
    assert [hex(int(x)) for x in ours] == ["0xc4923a9c", "0x483df7a0"]  # Random123's own vector


def test_keys_of_all_kinds_give_two_words():
    for key in (jax.random.key(1), jax.random.PRNGKey(1), jax.random.key(1, impl="rbg")):
        assert counter_rng.key_words(key).shape == (2,)
    np.testing.assert_array_equal(
        counter_rng.key_words(jax.random.key(1)), counter_rng.key_words(jax.random.PRNGKey(1))
    )
    seeds = jax.vmap(counter_rng.key_words)(jax.random.split(jax.random.key(0), 1000))
    assert len({tuple(s) for s in np.asarray(seeds).tolist()}) == 1000


def test_the_normal_is_the_inverse_of_its_distribution():
    rng = np.random.default_rng(0)
    size = np.concatenate(
        [np.arange(2000), rng.integers(0, 2**31, 200_000), 2**31 - 1 - np.arange(2000)]
    )
    found = np.asarray(counter_rng._normal(jnp.asarray((size << 1).astype(np.uint32))), np.float64)
    exact = -special.ndtri((size + 0.5) * 2.0**-32)
    np.testing.assert_allclose(found, exact, rtol=2e-6, atol=6e-8)
    np.testing.assert_array_equal(
        counter_rng._normal(jnp.asarray((size << 1 | 1).astype(np.uint32))),
        -found.astype(np.float32),
    )


@functools.cache
def sample() -> np.ndarray:
    """Draws 0 … 2¹⁸ − 1 of one key, of shape (2,)."""
    words = counter_rng.key_words(jax.random.key(11))
    draw = jax.vmap(lambda i: counter_rng.normals(words, i, (2,), jnp.float64))
    return np.asarray(jax.jit(draw)(jnp.arange(2**18, dtype=jnp.int32)))


def test_moments_and_distribution():
    for x in sample().T:
        n = len(x)
        assert abs(x.mean()) < 4 / np.sqrt(n)
        assert abs(x.var() - 1) < 4 * np.sqrt(2 / n)
        assert abs(stats.skew(x)) < 4 * np.sqrt(6 / n)
        assert abs(stats.kurtosis(x)) < 4 * np.sqrt(24 / n)
        assert stats.kstest(x, "norm").pvalue > 1e-3


def test_neighbours_and_keys_are_independent():
    x = sample()
    n = len(x)
    for lag in (1, 2, 3, 64, 1024):  # neighbouring counters, and those of one bit in common
        for power in (1, 2):
            moved = x**power - (power == 2)
            found = np.mean(moved[lag:] * moved[:-lag], 0) / (1 if power == 1 else 2)
            assert np.all(np.abs(found) < 4.5 / np.sqrt(n))
    assert abs(np.mean(x[:, 0] * x[:, 1])) < 4.5 / np.sqrt(n)
    seeds = jax.vmap(counter_rng.key_words)(jax.random.split(jax.random.key(0), 2**15))
    first = jax.vmap(lambda w: counter_rng.normals(w, jnp.int32(0), (2,), jnp.float64))(seeds)
    first = np.asarray(first)
    assert stats.kstest(first.ravel(), "norm").pvalue > 1e-3
    assert abs(np.mean(first[1:] * first[:-1])) < 4.5 / np.sqrt(first.size)

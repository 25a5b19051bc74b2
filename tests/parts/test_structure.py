"""Matrices that know their zeros against dense ones: values, solutions, derivatives, lanes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from jax.experimental.sparse import BCOO, BCSR, COO, CSC, CSR
from tests.tiers import shortly

import diffeq as de
from diffeq.algebra import Pattern, factored, is_singular, jacobian, linear_solve, sparse_lu
from diffeq.algebra.pattern import colour_columns, full_rows
from diffeq.algebra.structured_matrix import StructuredMatrix, structured_jacobian

BANDS = [(10, 1, 1), (50, 2, 3), (37, 0, 1), (41, 3, 0), (9, 0, 0), (30, 9, 8), (301, 1, 1)]


def banded(n, lower, upper, seed=0):
    """A matrix with entries at random, of which the diagonal is none of the largest."""
    place = np.subtract.outer(np.arange(n), np.arange(n))
    drawn = np.random.default_rng(seed).normal(size=(n, n))
    return np.where((place <= lower) & (place >= -upper), drawn, 0.0)


def scattered(n, seed=0):
    draw = np.random.default_rng(seed)
    return np.where(draw.random((n, n)) < 3 / n, draw.normal(size=(n, n)), 0.0) + 2 * np.eye(n)


def blocks(count, size, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(count, size, size))
    return scipy.linalg.block_diag(*drawn)


CASES = {
    **{f"banded {case}": (de.Banded(*case[1:]), banded(*case)) for case in BANDS},
    "sparse, dense LU": (de.Sparse(scattered(40)), scattered(40)),
    "sparse, SuperLU": (de.Sparse(scattered(150)), scattered(150)),
    "blocks": (de.Block(3), blocks(5, 3)),
    "large blocks": (de.Block(20), blocks(2, 20)),
}


def stored(structure, dense):
    return structured_jacobian(lambda x: jnp.asarray(dense) @ x, structure, jnp.zeros(len(dense)))


def solution(matrix, b):
    return linear_solve(factored(matrix), b)


@pytest.mark.parametrize(
    "name", shortly(CASES, "banded (50, 2, 3)", "sparse, SuperLU", "blocks", "banded (9, 0, 0)")
)
def test_solutions_and_their_derivatives_are_those_of_the_dense_matrix(name):
    structure, dense = CASES[name]
    matrix, n = stored(structure, dense), len(dense)
    b, weights = np.random.default_rng(1).normal(size=(2, n))

    def found(values, b):
        return weights @ solution(StructuredMatrix(values, structure, n), b)

    def wanted(dense, b):
        return weights @ jnp.linalg.solve(dense, b)

    np.testing.assert_allclose(matrix.dense(), dense, atol=1e-15)
    scale = np.abs(np.linalg.solve(dense, b)).max()
    np.testing.assert_allclose(
        jax.jit(solution)(matrix, b), np.linalg.solve(dense, b), atol=1e-9 * scale
    )
    by_values, by_b = jax.jit(jax.grad(found, (0, 1)))(matrix.values, b)
    dense_by_values, dense_by_b = jax.grad(wanted, (0, 1))(jnp.asarray(dense), b)
    rows, columns = structure.entries(n)
    expected = np.where(rows >= 0, np.asarray(dense_by_values)[rows, columns], 0)
    expected = expected.reshape(matrix.values.shape)
    np.testing.assert_allclose(by_values, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(by_b, dense_by_b, atol=1e-9 * np.abs(dense_by_b).max())


def test_rows_of_a_band_may_be_of_any_size():
    """A solution, and a transposed one in the units of its rows, lose no digits to them."""
    n, structure = 60, de.Banded(2, 2)
    even, b = banded(n, 2, 2) + 8 * np.eye(n), np.random.default_rng(1).normal(size=n)
    size = 10.0 ** np.random.default_rng(2).uniform(-5, 5, size=n)
    factors = stored(structure, size[:, None] * even).factored()
    transposed = jax.linear_transpose(factors.solve, jnp.asarray(b))
    np.testing.assert_allclose(
        factors.solve(jnp.asarray(size * b)), np.linalg.solve(even, b), rtol=1e-12
    )
    np.testing.assert_allclose(
        size * transposed(jnp.asarray(b))[0], np.linalg.solve(even.T, b), rtol=1e-12
    )


@pytest.mark.parametrize("name", ["banded (50, 2, 3)", "sparse, SuperLU", "blocks"])
def test_lanes_are_solved_as_alone_and_in_single_precision(name):
    structure, dense = CASES[name]
    matrix, b = stored(structure, dense), np.random.default_rng(1).normal(size=(3, len(dense)))
    lanes = StructuredMatrix(
        jnp.stack([matrix.values * k for k in (1.0, 2.0, -1.0)]), structure, len(dense)
    )
    together = jax.jit(jax.vmap(solution))(lanes, b)
    one_matrix = jax.jit(jax.vmap(solution, in_axes=(None, 0)))(matrix, b)
    for k, (x, y) in enumerate(zip(together, one_matrix, strict=True)):
        alone = np.linalg.solve(dense, b[k])
        np.testing.assert_allclose(x, alone / (1.0, 2.0, -1.0)[k], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(y, alone, rtol=1e-8, atol=1e-10)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), matrix)
    x = solution(single, jnp.asarray(b[0], jnp.float32))
    assert x.dtype == jnp.float32
    size = np.abs(np.linalg.solve(dense, b[0])).max()
    np.testing.assert_allclose(x, np.linalg.solve(dense, b[0]), atol=2e-3 * size)


@pytest.mark.parametrize("name", ["banded (50, 2, 3)", "sparse, SuperLU", "blocks"])
def test_what_methods_do_with_matrices(name):
    structure, dense = CASES[name]
    matrix, n = stored(structure, dense), len(dense)
    mass, x = jnp.asarray(np.random.default_rng(2).normal(size=(2, n)))
    flags, full = jnp.arange(n) % 3 == 0, np.diag(mass) + 0.5 * dense
    np.testing.assert_allclose(matrix.scaled(jnp.array(-2.0)).dense(), -2 * dense)
    np.testing.assert_allclose(matrix.plus(None).dense(), dense + np.eye(n))
    np.testing.assert_allclose(matrix.plus(mass).dense(), dense + np.diag(mass))
    np.testing.assert_allclose(matrix.plus(jnp.asarray(full)).dense(), dense + full)
    np.testing.assert_allclose(matrix.rows_where(flags).dense(), flags[:, None] * dense)
    np.testing.assert_allclose(matrix.or_identity(jnp.array(True)).dense(), np.eye(n))
    np.testing.assert_allclose(matrix.or_identity(jnp.array(False)).dense(), dense)
    np.testing.assert_allclose(matrix.times(x), dense @ x, atol=1e-13)
    np.testing.assert_allclose(matrix.row_sums(x), np.abs(dense) @ x, atol=1e-13)
    np.testing.assert_allclose(matrix.column_sums(x), np.abs(dense).T @ x, atol=1e-13)
    units = matrix.in_units(x, mass).dense()
    np.testing.assert_allclose(units, x[:, None] * dense * mass, atol=1e-13)
    rows, columns, values = matrix.entries()
    np.testing.assert_array_equal(np.asarray(matrix.dense())[rows, columns], values)


def test_singular_matrices_are_found_in_any_units():
    units = 10.0 ** np.random.default_rng(0).uniform(-8, 8, size=(2, 40))
    for seed in range(3):
        dense = units[0][:, None] * banded(40, 1, 2, seed) * units[1]
        assert not is_singular(stored(de.Banded(1, 2), dense))
        dense[:, 7] = 0
        assert is_singular(stored(de.Banded(1, 2), dense))
    repeated = scattered(150)
    repeated[5] = repeated[6]
    assert is_singular(stored(de.Sparse(repeated), repeated))
    assert not is_singular(stored(de.Sparse(scattered(150)), scattered(150)))


def test_what_superlu_cannot_factor_solves_to_nan():
    dense = scattered(150)
    structure = de.Sparse(dense)
    for bad in (np.where(np.arange(150) == 3, 0.0, dense), dense * np.nan):
        assert jnp.isnan(solution(stored(structure, bad), jnp.ones(150))).all()


def test_factors_that_are_no_longer_kept_are_made_again(monkeypatch):
    monkeypatch.setattr(sparse_lu, "_MOST", 0)
    dense, structure = scattered(150), de.Sparse(scattered(150))
    first = factored(stored(structure, dense))
    for k in range(4):
        solution(stored(structure, dense * (k + 2)), jnp.ones(150))
    assert int(first.inverse.number) not in sparse_lu._kept.factors
    np.testing.assert_allclose(
        linear_solve(first, jnp.ones(150)), np.linalg.solve(dense, np.ones(150)), rtol=1e-9
    )


def test_columns_of_one_colour_share_no_row():
    for seed in range(3):
        dense = scattered(200, seed) != 0
        colours = colour_columns(Pattern(200, *np.nonzero(dense)))
        for c in range(colours.max() + 1):
            assert dense[:, colours == c].sum(axis=1).max() <= 1
    assert colour_columns(Pattern(60, *np.nonzero(banded(60, 1, 1)))).max() + 1 == 3


def test_a_jacobian_takes_as_many_tangents_as_there_are_colours():
    field = lambda t, y: jnp.sin(y) - jnp.roll(y, 1)
    ring = de.Sparse(np.eye(30) + np.roll(np.eye(30), 1, axis=0))
    y = jnp.linspace(0.0, 1.0, 30)
    found = jacobian(field, jnp.array(0.0), y, ring)
    assert ring.colours(30).max() + 1 == 2
    np.testing.assert_allclose(found.dense(), jax.jacfwd(field, 1)(0.0, y), atol=1e-15)


def total(field, form):
    """A field on which a quantity depends, the last one, that all others change."""
    return {
        "closed": lambda t, y: jnp.append(field(y[:-1]) * y[-1], jnp.sum(y[:-1] ** 2) - y[-1]),
        "a loop": lambda t, y: jnp.append(
            # A number of turns that is not known when it is traced: no transpose.
            jax.lax.fori_loop(0, jnp.where(t < 9, 2, 1), lambda _, x: field(x), y[:-1]) * y[-1],
            jnp.sum(y[:-1] ** 2),
        ),
    }[form]


@pytest.mark.parametrize("form", ["closed", "a loop"])
def test_full_rows_are_found_by_the_transposed_map(form):
    n = 40
    field = total(jnp.sin, form)
    pattern = np.eye(n)
    pattern[-1] = pattern[:, -1] = 1
    structure = de.Sparse(pattern)
    np.testing.assert_array_equal(full_rows(structure.known), [n - 1])
    # Without that row: the diagonal, and the last column.
    assert colour_columns(structure.known.without_rows(np.array([n - 1]))).max() + 1 == 2
    assert colour_columns(structure.known).max() + 1 == n
    y, t = jnp.linspace(0.5, 1.5, n), jnp.array(0.0)
    dense = lambda y: jax.jacfwd(field, 1)(t, y)
    found = lambda y: jacobian(field, t, y, structure).dense()
    np.testing.assert_allclose(found(y), dense(y), rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(found)(y + jnp.eye(n)), jax.vmap(dense)(y + jnp.eye(n)))
    if form == "closed":
        weights = jnp.sin(jnp.arange(n * n)).reshape(n, n)
        slopes = [jax.grad(lambda y, of=of: jnp.sum(weights * of(y)))(y) for of in (found, dense)]
        np.testing.assert_allclose(*slopes, rtol=1e-12)


def test_rows_are_taken_apart_only_where_that_saves_half():
    assert full_rows(Pattern(60, *np.nonzero(banded(60, 2, 2)))).size == 0
    assert full_rows(Pattern(200, *np.nonzero(scattered(200)))).size == 0
    assert full_rows(Pattern(5, *np.nonzero(np.ones((5, 5))))).size == 0
    two = np.eye(50) + np.eye(50, k=1)
    two[[3, 17]] = 1
    assert full_rows(Pattern(50, *np.nonzero(two))).tolist() == [3, 17]


def test_patterns_come_in_many_ways():
    dense = scattered(12)
    rows, columns = np.nonzero(dense)
    given = [
        dense,
        dense != 0,
        dense.tolist(),
        jnp.asarray(dense),
        scipy.sparse.csr_array(dense),
        *(f.fromdense(jnp.asarray(dense)) for f in (BCOO, BCSR, COO, CSR, CSC)),
        *(f.fromdense(jnp.asarray(dense), nse=100) for f in (BCOO, BCSR, CSR)),
    ]
    for pattern in given:
        assert de.Sparse(pattern).pattern == Pattern(12, rows, columns)
    assert repr(de.Sparse(np.eye(3))) == "Sparse(3×3, 3 entries)"
    assert repr(de.Sparse("detect")) == 'Sparse("detect")'


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: de.Banded(-1, 1), "lower is -1; a whole number from 0"),
        (lambda: de.Banded(1, -2), "upper is -2"),
        (lambda: de.Banded(1.0, 1), "lower is 1.0; a whole number"),
        (lambda: de.Banded(True, 1), "lower is True"),
        (lambda: de.Block(0), "size is 0; a whole number from 1"),
        (lambda: de.Sparse("guess"), "pattern is 'guess'; \"detect\" is wanted"),
        (lambda: de.Sparse([[1], [1, 2]]), r"rows have the lengths \[1, 2\]; n rows of n"),
        (lambda: de.Sparse(BCOO.fromdense(jnp.eye(3), n_dense=1)), "some axes are not sparse"),
        (lambda: de.Sparse(np.ones((3, 2))), r"shape \(3, 2\); \(n, n\) is wanted"),
        (lambda: de.Sparse(np.ones(3)), r"shape \(3,\)"),
        (lambda: de.Sparse(None), "pattern is None; an"),
        (lambda: de.Sparse(np.array([["a"]])), "dtype <U1; numbers or booleans"),
        (lambda: jax.jit(lambda x: de.Sparse(x).pattern.n)(np.eye(2)), "that is known is wanted"),
    ],
)
def test_bad_structures_are_refused(make, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        make()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read")
def test_factors_that_are_forgotten_take_no_memory(monkeypatch):
    """Whichever threads XLA calls from: SciPy frees factors in the thread alone that made them."""
    monkeypatch.setattr(sparse_lu, "_MOST", 0)
    n = 60
    cells = np.arange(n * n).reshape(n, n)
    pairs = [(cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1])]
    rows, columns = (np.concatenate([p[i].ravel() for p in pairs]) for i in (0, 1))
    pattern = Pattern(n * n, np.concatenate([rows, columns]), np.concatenate([columns, rows]))
    values = jnp.where(pattern.rows == pattern.columns, 5.0, -1.0)

    def resident():
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096

    threads = [ThreadPoolExecutor(1) for _ in range(3)]
    factor = lambda i: threads[i % 3].submit(sparse_lu._factor_on_host, pattern, values).result()
    for i in range(4):
        factor(i)
    before = resident()
    for i in range(60):
        factor(i)
    for thread in threads:
        thread.shutdown()
    assert resident() - before < 50e6

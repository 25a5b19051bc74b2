"""The pattern of a Jacobian, as it is read from a field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.tiers import shortly

import diffeq as de
from diffeq.capture_call import captured_problem
from diffeq.problems.known_pattern import with_known_pattern

N = 12
ORDER = np.random.default_rng(0).permutation(N)
WIDE = jnp.arange(1.0, N + 1)


def padded(y):
    return jnp.pad(y, 1)


def scanned(t, y, k):
    """Each adds what is before it."""
    return lax.scan(lambda s, v: (s + v, s * v), 0.0, y)[1]


def looped(t, y, k):
    return lax.fori_loop(0, N - 1, lambda i, r: r.at[i].add(k * y[i + 1]), -(y**2))


FIELDS = {
    "decay": lambda t, y, k: -k * y,
    "constant": lambda t, y, k: jnp.ones_like(y) * t,
    "heat": lambda t, y, k: padded(y)[2:] - 2 * y + padded(y)[:-2],
    "ring": lambda t, y, k: k * (jnp.roll(y, 1) - y),
    "where": lambda t, y, k: jnp.where(t < 1, y[::-1], jnp.roll(y, 2)),
    "where of y": lambda t, y, k: jnp.where(y > 0, y, jnp.roll(y, 1)),
    "gather": lambda t, y, k: jnp.sin(y[ORDER]) * y,
    "gather by jax indices": lambda t, y, k: y[jnp.asarray(ORDER)] ** 2,
    "scatter": lambda t, y, k: jnp.zeros_like(y).at[ORDER].add(y**2),
    "convolution": lambda t, y, k: jnp.convolve(y, jnp.array([1.0, 0.0, 2.0]), mode="same"),
    "scan": scanned,
    "loop": looped,
    "cumsum": lambda t, y, k: jnp.cumsum(y) / k,
    "mean": lambda t, y, k: y - y.mean(),
    "reshaped": lambda t, y, k: jnp.sum(y.reshape(4, 3), axis=1, keepdims=True).repeat(3),
    "matrix": lambda t, y, k: np.triu(np.ones((N, N)), 9) @ y,
    "products": lambda t, y, k: y * jnp.roll(y, 3) * jnp.roll(y, 6),
    "cond": lambda t, y, k: lax.cond(t > 0.5, lambda y: y, lambda y: jnp.roll(y, 1), y),
    "vmap": lambda t, y, k: jax.vmap(lambda a: jnp.stack([a[1], a[0] * a[2], a[2]]))(
        y.reshape(4, 3)
    ).ravel(),
    "network": lambda t, y, k: jnp.tanh(jnp.ones((3, 3)) @ y.reshape(3, 4)).ravel(),
    "lists": lambda t, y, k: [y[(i + 1) % N] - v for i, v in enumerate(y)],
    "clip": lambda t, y, k: jnp.clip(jnp.maximum(y, jnp.roll(y, 1)), 0.0, k),
}
# Patterns that are wider than they need be.
WIDER: set[str] = set()


def found_by(field, **changes):
    problem = de.ODEProblem(field, jnp.linspace(0.1, 1.0, N), (0.0, 1.0), 2.0)
    problem = captured_problem(problem.replace(jac=de.Sparse("detect"), **changes))
    return with_known_pattern(problem).jac.pattern


def written_down(pattern):
    dense = np.zeros((pattern.n, pattern.n), bool)
    dense[pattern.rows, pattern.columns] = True
    return dense


@pytest.mark.parametrize("name", FIELDS)
def test_the_pattern_holds_each_entry_that_is_not_zero(name):
    field, entries = FIELDS[name], np.eye(N, dtype=bool)
    stacked = lambda t, y: jnp.asarray(field(t, y, 2.0))
    for seed in range(6):
        t, y = seed / 5, jnp.asarray(np.random.default_rng(seed).normal(size=N))
        entries |= np.asarray(jax.jacfwd(stacked, 1)(t, y)) != 0
    found = written_down(found_by(field))
    assert not (entries & ~found).any()
    if name not in WIDER:
        np.testing.assert_array_equal(found, entries)


@pytest.mark.parametrize("name", shortly(["gather", "where", "mean"], "gather"))
def test_a_solve_with_a_detected_pattern_is_the_dense_one(name):
    problem = de.ODEProblem(FIELDS[name], jnp.linspace(0.1, 1.0, N), (0.0, 1.0), 2.0)
    dense = de.solve(problem, de.Rodas5P()).y1
    sparse = jax.jit(
        lambda k: de.solve(problem.replace(args=k, jac=de.Sparse("detect")), de.Rodas5P()).y1
    )(2.0)
    np.testing.assert_allclose(sparse, dense, rtol=1e-10)


def test_what_is_closed_over_and_in_args():
    """Indices that are known are constants; numbers of args and closures are anything."""
    places, scale = jnp.asarray(ORDER), jnp.zeros(N)
    by_closure = found_by(lambda t, y, k: scale * y[places])
    by_args = found_by(lambda t, y, k: y[k], args=jnp.asarray(ORDER))
    for found in (by_closure, by_args):
        wanted = np.eye(N, dtype=bool)
        wanted[np.arange(N), ORDER] = True
        np.testing.assert_array_equal(written_down(found), wanted)


def test_the_implicit_part_trees_and_masses_are_read():
    y0 = {"a": jnp.ones(3), "b": jnp.ones(2)}
    pair = de.SplitODEProblem(
        lambda t, y, k: {"a": -k * y["a"], "b": y["b"] * y["a"][0]},
        lambda t, y, k: {"a": y["a"] * y["b"].sum(), "b": y["b"]},
        y0, (0.0, 1.0), 2.0, jac=de.Sparse("detect"),
    )  # fmt: skip
    wanted = np.eye(5, dtype=bool)
    wanted[3:, 0] = True
    np.testing.assert_array_equal(written_down(with_known_pattern(pair).jac.pattern), wanted)


def test_a_pattern_is_read_once_and_again_for_another_field():
    first = found_by(lambda t, y, k: -k * y)
    assert found_by(lambda t, y, k: -k * y, y0=jnp.ones(N), args=3.0) is first
    assert found_by(FIELDS["ring"]) != first
    assert found_by(lambda t, y, k: y[k], args=jnp.asarray(ORDER)) != found_by(
        lambda t, y, k: y[k], args=jnp.arange(N)
    )

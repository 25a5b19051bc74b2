"""The pattern of a Jacobian, as it is read from a field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.tiers import shortly

import diffeq as de
from diffeq.algebra import jacobian_structure
from diffeq.algebra.pattern import pattern_of
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


@jax.custom_jvp
def turned_by_its_rule(y):
    return jnp.sin(y)


turned_by_its_rule.defjvp(lambda at, by: (jnp.sin(at[0]), jnp.roll(by[0], 2) * at[0]))


@jax.custom_jvp
def smoothed_step(y):
    return (y > 0).astype(y.dtype)


smoothed_step.defjvp(lambda at, by: (smoothed_step(at[0]), by[0] / (1 + at[0] ** 2)))


@jax.custom_jvp
def held(y):
    return y


held.defjvp(lambda at, by: (at[0], jnp.zeros_like(by[0])))


def attention(t, y, k):
    """Each of four places looks at those before it."""
    x = y.reshape(4, 3)
    seen = jnp.where(jnp.tril(jnp.ones((4, 4), bool)), x @ x.T, -jnp.inf)
    return (jax.nn.softmax(seen) @ x).ravel()


def low_precision(dtype):
    """A sum into the last places of an array that is longer than its dtype counts."""
    places = 2988 + ORDER

    def field(t, y, k):
        return jnp.zeros(3000, dtype).at[places].add(y.astype(dtype))[2988:].astype(y.dtype)

    return field


def shift_register(t, y, k):
    """A number that comes out after 60 turns of a loop that is not followed turn by turn."""
    start = (0, (y[0] * 2, *(jnp.zeros(()) for _ in range(60))))
    turn = lambda s: (s[0] + 1, (y[0] * 2, *s[1][:-1]))
    return y.at[1].set(lax.while_loop(lambda s: s[0] < 50 + k * 10, turn, start)[1][-1])


def loop_of_no_turns(t, y, k):
    """A loop that may end before its first turn."""
    start = (y[1], jnp.ones(()), jnp.zeros(80), 0)
    turn = lambda s: (s[1], jnp.zeros(()), jnp.roll(s[2], 1).at[0].set(y[2]), s[3] + 1)
    end = lax.while_loop(lambda s: (s[3] < 3) & (y[0] > 0), turn, start)
    return y.at[0].set(end[0] + end[2][0])


def grid(y):
    return y.reshape(4, 3)


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
    "softmax": lambda t, y, k: jax.nn.softmax(grid(y)).ravel(),
    "logsumexp": lambda t, y, k: jax.nn.logsumexp(grid(y), axis=1, keepdims=True).repeat(3),
    "less its mean": lambda t, y, k: (grid(y) - grid(y).mean(0, keepdims=True)).ravel(),
    "outer product": lambda t, y, k: jnp.outer(y, y[:3])[:, 0] * y,
    "row of a product": lambda t, y, k: (jnp.exp(-y)[:, None] * y[None])[0],
    "differences": lambda t, y, k: jnp.sin(y[None] - y[:, None])[ORDER, np.arange(N)],
    "pairs": lambda t, y, k: jnp.sin(y[None] - y[:, None]).sum(1),
    "tril": lambda t, y, k: jnp.tril(jnp.outer(y, y)).sum(1),
    "attention": attention,
    "choice of a scalar": lambda t, y, k: lax.select(t > 0.5, y, y[::-1]),
    "bounds of a scalar": lambda t, y, k: lax.clamp(-t, jnp.roll(y, 1), t),
    "relu": lambda t, y, k: jax.nn.relu(jnp.roll(y, 1)) - y,
    "silu": lambda t, y, k: jax.nn.silu(y[::-1]) * y,
    "a rule that turns": lambda t, y, k: turned_by_its_rule(y),
    "a rule of a step": lambda t, y, k: jax.vmap(smoothed_step)(jnp.roll(y, 1)),
    "a rule of zero": lambda t, y, k: held(y) * jnp.roll(y, 3),
    "no gradient": lambda t, y, k: lax.stop_gradient(y) * jnp.roll(y, 3),
    "bfloat16": low_precision(jnp.bfloat16),
    "float16": low_precision(jnp.float16),
    "shift register": shift_register,
    "loop of no turns": loop_of_no_turns,
    "long scan": lambda t, y, k: lax.scan(lambda s, v: (s, s * v), y[0], jnp.tile(y, 2000))[1][:N],
    "backwards": lambda t, y, k: lax.scan(lambda s, v: (s + v, s), 0.0, y, reverse=True)[1],
    "sort": lambda t, y, k: jnp.sort(y.reshape(4, 3)).ravel(),
    "subtract": lambda t, y, k: y.at[jnp.array([1, 1, -1])].subtract(y[:3] ** 2),
    "dropped": lambda t, y, k: y.at[jnp.array([1, 99])].add(y[3:5], mode="drop"),
    "written slice": lambda t, y, k: lax.dynamic_update_slice(y, y[:2] ** 2, (9,)),
    "a place by y": lambda t, y, k: y.at[0].set(y[jnp.argmax(y)]),
    "groups": lambda t, y, k: lax.conv_general_dilated(
        y.reshape(1, 3, 4), jnp.arange(9.0).reshape(3, 1, 3), (1,), "SAME", feature_group_count=3
    ).ravel(),
    "dilated": lambda t, y, k: lax.conv_general_dilated(
        y.reshape(1, 1, N), jnp.ones((1, 1, 2)), (2,), [(3, 1)], (2,), (3,)
    ).ravel(),
    "clip": lambda t, y, k: jnp.clip(jnp.maximum(y, jnp.roll(y, 1)), 0.0, k),
}
# Patterns that are wider than they need be.
WIDER = {"shift register", "loop of no turns", "long scan", "a place by y", "sort", "attention"}


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
    field = FIELDS[name]
    stacked = lambda t, y: jnp.asarray(field(t, y, 2.0))
    states = jnp.asarray(np.random.default_rng(0).normal(size=(20, N)))
    found = jax.jit(jax.vmap(jax.jacfwd(stacked, 1)))(jnp.linspace(0, 1.2, 20), states)
    entries = np.eye(N, dtype=bool) | np.any(found, axis=0)
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


UPPER = np.eye(N) + np.diag(np.full(N - 1, 0.2), 1)


def lagging(t, y, k):
    """Each follows the one before it."""
    return k * (jnp.pad(y, (1, 0))[:-1] - y)


def of_mass(mass, **changes):
    start = jnp.linspace(0.1, 1.0, N)
    problem = de.DAEProblem(lagging, start, (0.0, 0.1), 2.0, mass_matrix=mass)
    return problem.replace(**{"jac": de.Sparse("detect"), **changes})


def test_entries_of_a_mass_matrix_belong_to_the_pattern():
    wanted = (np.eye(N) + np.eye(N, k=1) + np.eye(N, k=-1)).astype(bool)
    for mass in (UPPER, lambda k: UPPER * k):
        known = with_known_pattern(captured_problem(of_mass(mass))).jac
        np.testing.assert_array_equal(written_down(known.pattern), wanted)
        assert with_known_pattern(captured_problem(of_mass(mass))).jac is known
    diagonal = with_known_pattern(captured_problem(of_mass(np.ones(N)))).jac
    np.testing.assert_array_equal(written_down(diagonal.pattern), np.tril(wanted))

    def entries(mass):  # that is not known has them all
        return len(with_known_pattern(captured_problem(of_mass(mass))).jac.pattern.rows)

    assert jax.jit(entries)(UPPER) == N**2


def test_a_solve_with_a_full_mass_matrix():
    def end(mass, jac):
        return de.solve(of_mass(mass, jac=jac), de.Rodas5P()).y1

    np.testing.assert_allclose(end(UPPER, de.Sparse("detect")), end(UPPER, None), rtol=1e-12)
    # Inside of a jit M is known as well, and what is wrong is said as outside.
    with pytest.raises(ValueError, match=r"mass_matrix\[0, 1\] is 0.2, and jac=Banded\(1, 0\)"):
        jax.jit(lambda k: de.solve(of_mass(UPPER, args=k, jac=de.Banded(1, 0))).y1)(2.0)


def test_an_entry_that_detection_misses_is_named_without_advice_to_detect(monkeypatch):
    blind = lambda function, x, *others: pattern_of(np.eye(x.size))
    monkeypatch.setattr(jacobian_structure, "detected_pattern", blind)
    problem = de.ODEProblem(
        lambda t, y, k: y[::-1] ** 3, jnp.ones(2), (0.0, 1.0), jac=de.Sparse("detect")
    )
    with pytest.raises(de.SolveError, match=r"∂f\[0\]/∂y\[1\] is 3 .*please report f") as caught:
        de.solve(problem, de.Rodas5P())
    assert "Give jac" not in str(caught.value)


def test_a_pattern_is_read_once_and_again_for_another_field():
    first = found_by(lambda t, y, k: -k * y)
    assert found_by(lambda t, y, k: -k * y, y0=jnp.ones(N), args=3.0) is first
    assert found_by(FIELDS["ring"]) != first
    assert found_by(lambda t, y, k: y[k], args=jnp.asarray(ORDER)) != found_by(
        lambda t, y, k: y[k], args=jnp.arange(N)
    )

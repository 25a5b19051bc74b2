"""What of a user's functions and objects is an input, and what belongs to the program."""

import copy
import dataclasses
import functools
import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.autodiff.loop_invariant import split_invariant
from diffeq.closures import captured, flatten, unflatten
from diffeq.closures.reading import reading_of
from diffeq.closures.same_program import key_of_jaxpr


def end(f, **options):
    return de.solve(de.ODEProblem(f, 1.0, (0.0, 1.0)), rtol=1e-9, atol=1e-9, **options).y1


@dataclasses.dataclass
class Settings:
    k: object
    turns: int = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    k: object
    turns: int = 3


class Deep:
    def __init__(self, k):
        self.physics, self.name = types.SimpleNamespace(k=k), "deep"


class Field:
    def __init__(self, k):
        self.k, self.turns, self.decays = k, 3, True

    def __call__(self, t, y, args):
        y = sum(y / self.turns for _ in range(self.turns))
        return -self.k * y if self.decays else self.k * y


def of_dict(k):
    table = {"k": [k], "turns": 3}
    return lambda t, y, args: -sum(table["k"][0] * y / 3 for _ in range(table["turns"]))


def of_record(make):
    def field(k):
        record = make(k)
        return lambda t, y, args: -sum(record.k * y / 3 for _ in range(record.turns))

    return field


def of_deep(k):
    record = Deep(k)
    return lambda t, y, args: -record.physics.k * y


FIELDS = {
    "partial": lambda k: functools.partial(lambda k, t, y, args: -k * y, k),
    "callable object": Field,
    "dict with a length": of_dict,
    "dataclass": of_record(Settings),
    "frozen dataclass with slots": of_record(Frozen),
    "namespace": of_record(lambda k: types.SimpleNamespace(k=k, turns=3)),
    "object in an object": of_deep,
}


@pytest.mark.parametrize("name", FIELDS)
def test_arrays_of_jax_are_inputs_wherever_they_are(name):
    """A fresh one is the same program; and it differentiates."""
    make, like = FIELDS[name], (0.0, 1.0, None)
    one, two = (captured(make(jnp.array(k)), *like) for k in (1.0, 2.0))
    assert one.program is two.program
    assert [float(x) for x in two.inputs] == [2.0]
    np.testing.assert_allclose(jax.grad(lambda k: end(make(k)))(2.0), -np.exp(-2.0), rtol=1e-7)


@pytest.mark.parametrize("name", FIELDS)
def test_numbers_are_constants_of_the_program(name):
    make, like = FIELDS[name], (0.0, 1.0, None)
    one, again, two = (captured(make(k), *like) for k in (1.5, 1.5, 2.5))
    assert one.program is again.program
    assert one.program is not two.program
    assert one.inputs == []


def test_a_function_that_reads_the_same_is_traced_once():
    traced = []
    scale = jnp.array(2.0)

    def field(t, y, args):
        record(traced)
        return -scale * y

    record = lambda seen: seen.append(1)
    first = captured(field, 0.0, 1.0, None)
    assert captured(field, 0.0, 1.0, None).program is first.program
    assert len(traced) > 1, "it reads a list that it changes, so it is traced again"

    pure = jax.tree_util.Partial(lambda k, t, y, args: -k * y, scale)
    assert captured(pure, 0.0, 1.0, None) is captured(pure, 0.0, 1.0, None)
    assert captured(pure, 0.0, jnp.ones(2), None) is not captured(pure, 0.0, 1.0, None)


def test_what_a_callback_fills_is_filled_by_each_solve():
    rows, table, record = [0.0], {0: 0.0}, types.SimpleNamespace(rows=[0.0], n=0)

    def keep(y):
        rows.append(y)
        table[len(table)] = y
        record.rows.append(y)
        record.n += 1

    def field(t, y, args):
        jax.debug.callback(keep, y)
        return -y

    lengths, compiled = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name.endswith("compile_duration") else None
    )
    for _ in range(2):
        del compiled[:]
        de.solve(de.ODEProblem(field, 1.0, (0.0, 1.0)), dt=0.5)
        jax.effects_barrier()
        lengths.append([len(rows), len(table), len(record.rows), record.n + 1])
    first, second = (np.array(x) - 1 for x in lengths)
    assert (first > 1).all()
    np.testing.assert_array_equal(second, 2 * first)
    assert compiled == [], "a callback runs later: what it keeps is no part of the program"


def test_a_reading_has_numbers_texts_code_and_attributes():
    seen = lambda x: reading_of(x).key
    assert seen(1) != seen(1.0) != seen(True)
    assert seen(0.0) != seen(-0.0)
    assert seen([1, 2]) != seen((1, 2))
    assert seen(np.ones(2)) == seen(np.ones(2)) != seen(np.ones(2, np.float32))
    one, same = jnp.ones(2), [1]
    assert seen(one) == seen(one) != seen(jnp.ones(2))
    assert seen([same, same]) != seen([[1], [1]]), "one list under two names, or two"
    assert reading_of(lambda: eval("1")).certain is False
    assert reading_of(np.random.default_rng(0)).certain is False
    assert reading_of(lambda: np.random.rand()).certain is False  # noqa: NPY002
    ring = [1]
    ring.append(ring)
    assert reading_of(ring).certain
    for x in (types.SimpleNamespace(k=[1]), Settings(1.0), Frozen(1.0), Deep(2), np.float32(1)):
        assert reading_of(x) == reading_of(copy.deepcopy(x))
        assert reading_of(x).certain


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sin(x) * 2.0,
        lambda x: jax.nn.relu(x) + jax.nn.softplus(x),
        lambda x: jax.lax.scan(lambda c, a: (c * a, c), x, jnp.arange(3.0))[0],
        lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x),
        lambda x: jax.pure_callback(lambda z: np.asarray(z) * 2, x, x),
        lambda x: jax.grad(jax.checkpoint(jnp.sin))(x),
        lambda x: jax.random.normal(jax.random.key(0)) * x,
    ],
)
def test_two_traces_are_one_program(f):
    trace = lambda g: jax.make_jaxpr(lambda x: g(x))(1.0)
    assert key_of_jaxpr(trace(f)) == key_of_jaxpr(trace(f))
    other = lambda x: 2 * f(x)
    assert key_of_jaxpr(trace(f)) != key_of_jaxpr(trace(other))


def test_what_never_changes_in_a_solve_is_computed_once():
    """Of the arrays that a field closes over, and of its args; with its derivative."""
    a = jnp.array([[2.0, 0.5], [0.5, 1.0]])

    def field(t, y, b):
        return -jnp.linalg.inv(a @ b) @ y

    jaxpr = jax.make_jaxpr(lambda t, y, b: field(t, y, b))(0.0, jnp.ones(2), a)
    before, rest = split_invariant(jaxpr, [False, False, True])
    assert "lu" in str(before)
    assert "lu" not in str(rest)
    plain = lambda b: jax.scipy.linalg.expm(-jnp.linalg.inv(a @ b)) @ jnp.ones(2)
    solved = lambda b: (
        de.solve(
            de.ODEProblem(field, jnp.ones(2), (0.0, 1.0), b), de.Dopri8(), rtol=1e-10, atol=1e-12
        ).y1
    )
    np.testing.assert_allclose(solved(a), plain(a), rtol=1e-9)
    np.testing.assert_allclose(jax.jacrev(solved)(a), jax.jacrev(plain)(a), rtol=1e-7, atol=1e-9)


def test_structure_of_data():
    tree = {"a": [1.0, None], "f": np.sin, "n": 2, "s": "x"}
    leaves, structure = flatten(tree)
    assert leaves == [1.0, 2]
    assert structure == flatten({**tree, "a": [5.0, None]})[1]
    assert structure != flatten({**tree, "s": "y"})[1]
    assert unflatten(structure, [3.0, 4]) == {"a": [3.0, None], "f": np.sin, "n": 4, "s": "x"}


def test_a_solution_is_copied_and_pickled():
    y0 = {"x": jnp.ones(2), "v": 0.5}
    problem = de.ODEProblem(lambda t, y, args: jax.tree.map(jnp.negative, y), y0, (0.0, 1.0))
    sol = de.solve(problem, saveat="steps", dense=True)
    for again in (copy.deepcopy(sol), pickle.loads(pickle.dumps(sol))):
        assert jax.tree.structure(again) == jax.tree.structure(sol)
        np.testing.assert_array_equal(again(0.3)["x"], sol(0.3)["x"])
        np.testing.assert_array_equal(again.ys["v"], sol.ys["v"])

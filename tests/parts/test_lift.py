"""What of a user's functions and objects is an input, and what belongs to the program."""

import copy
import dataclasses
import functools
import pickle
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.core.lift import flatten


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
def test_what_holds_numbers_is_an_input(name):
    """A fresh one has the same structure, so nothing compiles; and it differentiates."""
    make = FIELDS[name]
    assert flatten(make(2.0))[1] == flatten(make(1.0))[1]
    np.testing.assert_allclose(jax.grad(lambda k: end(make(k)))(2.0), -np.exp(-2.0), rtol=1e-7)


def test_a_changed_attribute_is_seen():
    settings = Settings(2.0)
    field = lambda t, y, args: -settings.k * y
    two = end(field)
    settings.k = 1.0
    np.testing.assert_allclose([two, end(field)], np.exp([-2.0, -1.0]), rtol=1e-7)


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

    lengths = []
    for _ in range(2):
        de.solve(de.ODEProblem(field, 1.0, (0.0, 1.0)), dt=0.5)
        jax.effects_barrier()
        lengths.append([len(rows), len(table), len(record.rows), record.n + 1])
    first, second = (np.array(x) - 1 for x in lengths)
    assert (first > 1).all()
    np.testing.assert_array_equal(second, 2 * first)


def test_an_object_that_counts_is_the_same_object():
    class Counter:
        def __init__(self):
            self.hits = []

        def tick(self):
            self.hits.append(1)

    counter = Counter()

    def field(t, y, args):
        counter.tick()
        return -y

    end(field)
    traced = len(counter.hits)
    end(field)
    assert len(counter.hits) == traced > 0


def test_the_third_of_a_kind_that_is_compared_by_identity_is_told():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fields = [jax.jit(lambda t, y, args: -y) for _ in range(4)]
        for field in (fields[0], fields[0], fields[0], *fields[1:]):
            flatten(field)
    assert [str(w.message)[:26] for w in told] == ["The third PjitFunction of "]


def test_a_solution_is_copied_and_pickled():
    y0 = {"x": jnp.ones(2), "v": 0.5}
    problem = de.ODEProblem(lambda t, y, args: jax.tree.map(jnp.negative, y), y0, (0.0, 1.0))
    sol = de.solve(problem, saveat="steps", dense=True)
    for again in (copy.deepcopy(sol), pickle.loads(pickle.dumps(sol))):
        assert jax.tree.structure(again) == jax.tree.structure(sol)
        np.testing.assert_array_equal(again(0.3)["x"], sol(0.3)["x"])
        np.testing.assert_array_equal(again.ys["v"], sol.ys["v"])

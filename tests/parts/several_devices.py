"""Ensembles on four devices; run by `test_ensemble_mesh.py`, in a process that has them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tests.tiers import shortly

import diffeq as de
from diffeq.ensemble import resume

assert jax.device_count() == 4, "see test_ensemble_mesh.py"
MESH = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
TS = jnp.linspace(0.0, 2.0, 5)
PROBLEM = de.ODEProblem(lambda t, y, p: p["a"] * y**2 - p["b"] * y, 1.0, (0.0, 2.0))
RATES = jnp.array([0.1, 0.5, 0.3, 1.4, -9.0, -80.0, 2.0, 0.4, 0.2, -1.0, jnp.nan, 0.0])
BAD = [3, 6, 10]
STRATEGIES = pytest.mark.parametrize("strategy", shortly(["lockstep", "lanes"], "lanes"))


def ensemble(rates, b=0.1, **options):
    options = {"chunk": 3, "throw": False, "saveat": TS} | options
    return de.solve_ensemble(
        PROBLEM, de.Tsit5(), args={"a": rates, "b": b}, in_axes={"args": {"a": 0, "b": None}},
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", ["lockstep", "lanes"])
def test_each_trajectory_is_that_of_one_device(strategy):
    dense = strategy == "lanes"
    one = ensemble(RATES, dense=dense, strategy=strategy)
    four = ensemble(RATES, dense=dense, strategy=strategy, mesh=MESH)
    assert jax.tree.structure(four) == jax.tree.structure(one)
    jax.tree.map(np.testing.assert_array_equal, four, one)
    assert four.failed.indices.tolist() == BAD
    assert repr(four) == f"Solution(12 trajectories, 3 failed, {strategy})"
    for x in jax.tree.leaves(four):
        assert x.sharding.is_equivalent_to(NamedSharding(MESH, P(("a", "b"))), x.ndim)
    np.testing.assert_array_equal(four.ys.addressable_shards[2].data, one.ys[6:9])
    with pytest.raises(de.SolveError, match=r"sample 3 of 12 \(3 failed\)"):
        four.check()


@STRATEGIES
def test_derivatives_are_those_of_one_device(strategy):
    def loss(rates, b, mesh):
        sol = ensemble(rates, b, strategy=strategy, mesh=mesh, saveat=None)
        return jnp.sum(sol.filled(1.0) ** 2)

    both = jax.grad(loss, argnums=(0, 1))
    one = both(RATES, 0.1, None)
    four = (jax.jit(both, static_argnums=2) if strategy == "lanes" else both)(RATES, 0.1, MESH)
    assert np.abs(one[0][:2]).min() > 0.1
    np.testing.assert_allclose(four[0], one[0], rtol=1e-13)
    np.testing.assert_allclose(four[1], one[1], rtol=1e-12)  # a sum over devices


def collectives_in_loops(text):
    """The collective operations in the bodies and conditions of the loops of a program."""
    bodies = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S))
    assert "while(" in text
    called = r"(?:body|condition|calls|to_apply)=%?([\w.-]+)"
    reached, todo = set(), re.findall(r"(?:body|condition)=%?([\w.-]+)", text)
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += re.findall(called, bodies[name])
            todo += [n.strip(" %") for group in re.findall(r"branch_computations=\{(.*?)\}",
                     bodies[name]) for n in group.split(",")]  # fmt: skip
    kinds = r"\b(?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)[\w-]*\("
    return [found for name in reached for found in re.findall(kinds, bodies[name])]


@pytest.mark.parametrize("strategy", ["lockstep", "lanes"])
def test_devices_do_not_wait_for_each_other_at_each_step(strategy):
    rates = jax.device_put(RATES, NamedSharding(MESH, P(("a", "b"))))

    def program(mesh, **options):
        solve = lambda rates: ensemble(rates, strategy=strategy, mesh=mesh, **options)
        return jax.jit(solve).lower(rates).compile().as_text()

    text = program(MESH, reduce=de.stats.Mean())
    assert "all-gather" in text  # of the statistics, once
    assert not collectives_in_loops(text)
    if strategy == "lockstep":  # as it would be without shard_map
        assert collectives_in_loops(program(None))


@STRATEGIES
def test_statistics_are_merged(strategy):
    wanted = {"mean": (de.stats.Mean(), de.stats.Variance()), "ends": de.stats.Extremes()}
    one = ensemble(RATES, reduce=wanted, strategy=strategy)
    four = ensemble(RATES, reduce=wanted, strategy=strategy, mesh=MESH)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12)
    jax.tree.map(close, four.reduced, one.reduced)
    np.testing.assert_array_equal(four.reduced["ends"].greatest, one.reduced["ends"].greatest)
    np.testing.assert_array_equal(four.ts, TS)
    assert four.failed.indices.tolist() == BAD
    assert four.reduced["mean"][0].sharding.is_fully_replicated


@STRATEGIES
def test_a_trajectory_has_the_key_of_its_number(strategy):
    growth = de.SDEProblem(lambda t, y, a: a * y, lambda t, y, a: 0.2 * y, 1.0, (0.0, 1.0))
    asked = {"n": 8, "draw": lambda key: {"args": jax.random.uniform(key)}, "dt": 0.25}
    one, four = (
        de.solve_ensemble(growth, key=jax.random.key(5), strategy=strategy, mesh=mesh, **asked)
        for mesh in (None, MESH)
    )
    np.testing.assert_array_equal(four.y1, one.y1)
    assert len(np.unique(four.y1)) == 8


def test_a_sweep_in_blocks_goes_on_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "_EVEN", 1)
    monkeypatch.setattr(resume, "_MOST", 12)
    rates = jnp.tile(RATES, 3)[:32]
    asked = {"reduce": de.stats.Mean(), "mesh": MESH, "resume": tmp_path, "strategy": "lanes"}
    sol = ensemble(rates, **asked)
    assert len(list(tmp_path.glob("block-*.npz"))) == 3
    (tmp_path / "block-000001.npz").unlink()
    jax.tree.map(np.testing.assert_array_equal, ensemble(rates, **asked), sol)
    whole = ensemble(rates, reduce=de.stats.Mean())
    np.testing.assert_array_equal(sol.status, whole.status)
    np.testing.assert_allclose(sol.reduced, whole.reduced, rtol=1e-12)


@pytest.mark.thorough
def test_any_mesh_and_rows_that_are_anywhere():
    explicit = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    on_first = jax.device_put(RATES, jax.devices()[0])
    known = ensemble(on_first, mesh=explicit, strategy="lockstep")
    np.testing.assert_array_equal(known[4].ys, known.ys[4])
    with jax.set_mesh(explicit):
        spread = jax.device_put(RATES, NamedSharding(explicit, P("i")))
        sol = ensemble(spread, mesh=explicit, strategy="lockstep")
        np.testing.assert_array_equal(sol.ys, known.ys)
        assert jax.typeof(sol.ys).sharding.spec[0] == "i"
        again = jax.jit(lambda rates: ensemble(rates, mesh=explicit, strategy="lockstep").ys)
        np.testing.assert_array_equal(again(spread), known.ys)
    many = jax.vmap(lambda rates: ensemble(rates, mesh=MESH, strategy="lockstep").ys)
    np.testing.assert_array_equal(many(jnp.stack([RATES, RATES]))[1], known.ys)
    two = Mesh(np.array(jax.devices()[2:]), ("i",))
    np.testing.assert_array_equal(
        ensemble(on_first[:10], mesh=two, strategy="lockstep").ys, known.ys[:10]
    )


def test_refused():
    sentence = r"4 devices, and there are 11 tra.*Give 8 or 12 of them .*or a mesh of 1\."
    with pytest.raises(ValueError, match=sentence):
        ensemble(RATES[:11], mesh=MESH)
    with pytest.raises(ValueError, match=r"Give 4 of them .*or a mesh of 3\."):
        ensemble(RATES[:3], mesh=MESH)

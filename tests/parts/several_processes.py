"""An ensemble of two processes with two devices each; both run this file, with a port, a number and
a folder, for `test_ensemble_mesh.py`.
"""

import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import diffeq as de
from diffeq.ensemble import resume

PROBLEM = de.ODEProblem(lambda t, y, p: p * y**2, 1.0, (0.0, 2.0))
RATES = np.array([0.1, 0.2, 0.3, 1.0, 0.1, 0.05, 2.0, 0.2])
MINE = {0: ([0, 1, 2, 3], 3), 1: ([4, 5, 6, 7], 6)}  # trajectories, which of them fails


def solve(rates, scale=1.0, **options):
    problem = PROBLEM.replace(f=lambda t, y, p: scale * p * y**2)
    asked = {"strategy": "lanes", "chunk": 2, "throw": False} | options
    return de.solve_ensemble(problem, args=rates, **asked)


def raised(error, function, *args, **options):
    """The sentence of an error."""
    try:
        function(*args, **options)
    except error as found:
        return str(found)
    raise AssertionError(f"no {error.__name__}")


def the_same_arrays_in_both(me, mesh):
    """Rows of the host; what is said is of the part that is here."""
    numbers, bad = MINE[me]
    one = solve(RATES)  # on a device of this process alone
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sol = solve(RATES, mesh=mesh, throw=True)
    sentence = f"1 of 4 trajectories of this process failed, the first of them number {bad}"
    assert any(sentence in str(warning.message) for warning in said)
    assert not sol.y1.is_fully_addressable
    assert repr(sol) == "Solution(8 trajectories, 1 of the 4 here failed, lanes)"
    assert sol.message == "1 of 4 solves failed"
    assert sol.failed.indices.tolist() == [bad]
    assert f"sample {bad} of 8 (1 of the 4 here failed)" in raised(de.SolveError, sol.check)
    for shard in sol.y1.addressable_shards:
        np.testing.assert_array_equal(shard.data, one.y1[shard.index])
        assert set(range(*shard.index[0].indices(8))) <= set(numbers)
    everywhere = multihost_utils.process_allgather(sol, tiled=True)
    jax.tree.map(np.testing.assert_array_equal, everywhere, one)
    mean = de.stats.Mean()
    found = solve(RATES, mesh=mesh, reduce=mean).reduced
    np.testing.assert_allclose(found, solve(RATES, reduce=mean).reduced, rtol=1e-12)


def parts_of_one_array(me, mesh):
    """Rows of which each process has its own; derivatives by them, and by what all share."""
    whole = NamedSharding(mesh, P("i"))
    rates = jax.make_array_from_process_local_data(whole, RATES[MINE[me][0]])
    one = solve(RATES, tspan=(0.0, 1.0 + RATES))
    sol = solve(rates, tspan=(0.0, 1.0 + rates), mesh=mesh)
    for shard in sol.y1.addressable_shards:
        np.testing.assert_array_equal(shard.data, one.y1[shard.index])

    def loss(rates, scale, **options):
        return jnp.sum(solve(rates, scale, **options).filled(0.0) ** 2)

    slopes = jax.grad(loss, argnums=(0, 1))
    known = slopes(jnp.asarray(RATES), 1.0)
    for found in (slopes(rates, 1.0, mesh=mesh), slopes(jnp.asarray(RATES), 1.0, mesh=mesh)):
        for shard in found[0].addressable_shards:
            np.testing.assert_allclose(shard.data, known[0][shard.index], rtol=1e-12)
        np.testing.assert_allclose(found[1].addressable_data(0), known[1], rtol=1e-12)
    assert "there is no mesh" in raised(ValueError, solve, rates)


def drawn(mesh):
    """Trajectories by their keys."""
    asked = {"n": 8, "draw": lambda key: {"args": jax.random.uniform(key)}, "throw": False}
    one, two = (
        de.solve_ensemble(PROBLEM, key=jax.random.key(3), mesh=m, **asked) for m in (None, mesh)
    )
    for shard in two.y1.addressable_shards:
        np.testing.assert_array_equal(shard.data, one.y1[shard.index])


def in_blocks(me, mesh, folder):
    """A sweep that is kept by the first process, goes on, and is refused in both."""
    resume._EVEN, resume._MOST = 1, 8
    rates = np.concatenate([RATES, 0.5 * RATES])
    asked = {"mesh": mesh, "reduce": de.stats.Mean(), "resume": folder if me == 0 else "nowhere"}
    sol = solve(rates, **asked)
    whole = solve(rates, reduce=de.stats.Mean())
    np.testing.assert_array_equal(sol.status, whole.status)  # all of it is in both
    np.testing.assert_allclose(sol.reduced, whole.reduced, rtol=1e-12)
    if me == 0:
        assert len(list(Path(folder).glob("block-*.npz"))) == 2
        (Path(folder) / "block-000001.npz").unlink()
    jax.tree.map(np.testing.assert_array_equal, solve(rates, **asked), sol)
    assert me == 0 or not Path("nowhere").exists()
    sentence = raised(ValueError, solve, 2 * rates, **asked)
    assert "holds blocks of another ensemble (inputs was" in sentence
    if me == 0:
        (Path(folder) / "settings.json").write_text("{")
    multihost_utils.sync_global_devices("settings.json is spoiled")
    assert "settings.json cannot be read" in raised(ValueError, solve, rates, **asked)


def main():
    """All of it, in this process."""
    port, me, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=me)
    mesh = jax.make_mesh((4,), ("i",))
    the_same_arrays_in_both(me, mesh)
    parts_of_one_array(me, mesh)
    drawn(mesh)
    in_blocks(me, mesh, folder)
    print(f"process {me} is done")


if __name__ == "__main__":
    main()

"""Ensembles as one kernel: in Pallas's interpreter each trajectory is the solve it would be alone,
and Triton takes the same kernel for a GPU that is not there.
"""

from collections import OrderedDict
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.tiers import shortly

import diffeq as de
from diffeq.adjoints.forward_accumulation import ForwardAccumulation
from diffeq.autodiff.dynamic_scan import walk
from diffeq.autodiff.row_buffers import put_row
from diffeq.autodiff.tables import add_row, find, pick_row
from diffeq.autodiff.while_loop import loop
from diffeq.ensemble import execution, trajectory
from diffeq.ensemble.gpu_kernel import NoKernel, launch, pallas_triton
from diffeq.ensemble.gpu_kernel.launch import Tuning, in_kernel
from diffeq.ensemble.strategies import Ensemble

TS = jnp.linspace(0.0, 0.5, 20)


def lorenz(t, y, args):
    x, v, z = y
    sigma, rho, beta = args
    return jnp.array([sigma * (v - x), x * (rho - z) - v, x * v - beta * z])


LORENZ = de.ODEProblem(lorenz, jnp.ones(3), (0.0, 0.5), jnp.ones(3))
ARGS = jnp.array([[10.0, 28, 8 / 3], [9, 20, 2], [jnp.nan, 1, 1], [3, 60, 1], [1, 1, 0.1]])


def robertson(t, y, k):
    a, b, c = y
    slow, fast = k[0] * a - k[1] * b * c, k[2] * b * b
    return jnp.array([-slow, slow - fast, fast])


ROBERTSON = de.ODEProblem(robertson, jnp.array([1.0, 0, 0]), (0.0, 10.0), jnp.ones(3))
RATES = jnp.array([0.04, 1e4, 3e7]) * jnp.array([[1.0], [1.4], [0.6]])
NOISY = de.SDEProblem(lambda t, y, a: -a * y, lambda t, y, a: 0.1 * y, jnp.ones(2), (0.0, 1.0), 1.0)


def same(found, known, rtol=1e-10):
    """Two solutions, to rounding."""
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(known), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-11, err_msg=name)


def planned(solve):
    """The ensemble of a call, ready to be solved."""
    found = []

    def keep(self):
        found.append(self)
        raise LookupError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ensemble, "solved", keep)
        with pytest.raises(LookupError):
            solve()
    return found[0]


def test_each_lane_is_a_solve_of_its_own_and_one_that_fails_spoils_none():
    solve = partial(de.solve_ensemble, LORENZ, de.Tsit5(), args=ARGS, saveat=TS, throw=False)
    sol = solve(strategy="kernel", chunk=4)
    assert sol.strategy == "kernel"
    assert sol.failed.indices.tolist() == [2]
    assert sol.failed.statuses.tolist() == [de.Status.nonfinite]
    assert len(set(np.asarray(sol.stats["steps"]).tolist())) == 4  # they end at different steps
    for i in range(5):
        alone = de.solve(LORENZ.replace(args=ARGS[i]), de.Tsit5(), saveat=TS, throw=False)
        assert jax.tree.leaves(sol[i].stats) == jax.tree.leaves(alone.stats)
        same([sol[i].ys, sol[i].y1, sol[i].last], [alone.ys, alone.y1, alone.last])


def test_a_stiff_solve_with_its_own_elimination():
    sol = de.solve_ensemble(ROBERTSON, de.Rodas5P(), args=RATES, strategy="kernel", chunk=2)
    same(sol, de.solve_ensemble(ROBERTSON, de.Rodas5P(), args=RATES, strategy="lockstep"))


def test_paths_are_those_of_their_keys():
    solve = partial(de.solve_ensemble, NOISY, n=5, key=jax.random.key(7), dt=0.05)
    same(solve(strategy="kernel", chunk=4), solve(strategy="lockstep"))
    drawn = {"draw": lambda key: {"args": jax.random.uniform(key)}, "reduce": de.stats.Mean()}
    found, known = (solve(strategy=s, chunk=4, **drawn) for s in ("kernel", "lockstep"))
    np.testing.assert_allclose(found.reduced, known.reduced, rtol=1e-12)


@pytest.mark.thorough
def test_events_and_a_network():
    ball = de.ODEProblem(
        lambda t, y, g: jnp.array([y[1], -g]), jnp.array([1.0, 0]), (0.0, 2.0), 9.8
    )
    bounce = de.Event(lambda t, y, g: y[0], lambda t, y, g: y * jnp.array([0, -0.8]), direction=-1)
    solve = partial(de.solve_ensemble, ball, de.Tsit5(), args=jnp.array([9.8, 1.6, 20.0]),
                    events=[bounce], max_events=40)  # fmt: skip
    found = solve(strategy="kernel", chunk=4)
    assert found.events[0].num.tolist() == [3, 1, 5]
    same(found, solve(strategy="lockstep"))

    net = eqx.nn.MLP(2, 2, 8, 1, jnp.tanh, key=jax.random.key(0))
    problem = de.ODEProblem(lambda t, y, net: net(y), jnp.ones(2), (0.0, 1.0), net)
    y0s = jnp.array([[1.0, 2], [0, 3], [-1, -1]])
    solve = partial(de.solve_ensemble, problem, de.Tsit5(), y0=y0s, saveat="steps", max_saves=12)
    same(solve(strategy="kernel", chunk=4), solve(strategy="lockstep"))


DECAY = de.ODEProblem(lambda t, y, k: -k[0] * y + k[1] * k[2], 1.0, (0.0, 1.0), jnp.ones(3))
KS = jnp.array([[0.5, 1.0, 2.0], [2.0, -1.0, 1.0], [1.0, 0.5, 0.5]])


def total(ks, strategy):
    return jnp.sum(
        de.solve_ensemble(DECAY, de.Bosh3(), args=ks, strategy=strategy, chunk=4).y1 ** 2
    )


@pytest.mark.thorough
def test_derivatives_by_few_numbers_are_found_in_the_kernel():
    found, known = (
        jax.jit(jax.grad(total), static_argnums=1)(KS, s) for s in ("kernel", "lockstep")
    )
    np.testing.assert_allclose(found, known, rtol=1e-10)
    _, slope = jax.jvp(lambda ks: total(ks, "kernel"), (KS,), (jnp.ones_like(KS),))
    np.testing.assert_allclose(slope, known.sum(), rtol=1e-10)
    ks = KS[:1, :1] * jnp.ones((1, 3))
    found, known = (jax.jit(jax.hessian(total), static_argnums=1)(ks, s)
                    for s in ("kernel", "lockstep"))  # fmt: skip
    np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adjoint", [pytest.param(None, marks=pytest.mark.thorough), "tape"])
def test_a_lane_that_ends_before_its_neighbour_keeps_its_rows_and_their_slopes(adjoint):
    slows = de.ODEProblem(lambda t, y, k: -k * y**2, 2.0, (0.0, 2.0))
    ks, ts = jnp.array([1.0, 6.0]), jnp.array([0.0, 1.0, 2.0])
    if adjoint is None:  # by the pair of methods, whose tangents go along a tape
        ys = lambda ks, s: de.solve_ensemble(slows, args=ks, saveat=ts, strategy=s, chunk=2).ys
        found, known = (
            jax.jvp(partial(ys, s=s), (ks,), (jnp.ones(2),)) for s in ("kernel", "lockstep")
        )
    else:
        one = lambda k: jax.jvp(
            lambda k: de.solve(slows.replace(args=k), de.Tsit5(), saveat=ts).ys, (k,), (1.0,)
        )  # fmt: skip
        found = in_kernel(lambda _, rows, i: one(rows[0]), [], [ks], jnp.arange(2), Tuning(block=2))
        known = jax.vmap(one)(ks)
    same(found, known, rtol=1e-11)


def test_large_arrays_stay_in_memory_and_a_block_is_filled_up():
    weights, rows = jnp.arange(80.0).reshape(40, 2), jnp.arange(120.0).reshape(3, 40)
    table, marks = jnp.asarray(np.linspace(0, 1, 50) ** 2), np.arange(50) % 3 == 1

    def one(shared, own, i):
        row, flag, key = own
        spent = row @ shared[0]
        return {
            "spent": spent,
            "looked up": table[i * 20] + shared[0][i, 1] + row[i + 3],
            "marked": jnp.asarray(marks)[i * 20],
            "flag": flag & (i > 0),
            "drawn": jax.random.normal(key),
            "fixed": jnp.array([1, 2]),
            "wide": jnp.where(jnp.arange(50) < i, table, row[0]),
        }

    own = [rows, jnp.array([True, True, False]), jax.random.split(jax.random.key(1), 3)]
    index = jnp.arange(3, dtype=jnp.int32)
    found = in_kernel(one, [weights], own, index, Tuning(block=2))
    same(found, jax.vmap(partial(one, [weights]))(own, index))


def test_what_a_loop_reads_in_each_turn_it_does_not_write():
    ahead = lambda w: lax.dynamic_update_slice(w, (w[0] + 1)[None], (0,))

    def one(shared, own, n):
        w = own[0]
        turned = lambda c: (c[0] + 1, c[1] + ahead(w)[0])
        turn = lambda active, _, s, file: (
            (s[0] + 1, s[1] + ahead(w)[0]), put_row(file, w[0] + ahead(w)[0], s[0])
        )  # fmt: skip
        end, file = loop(lambda c, s, f: s[0] < c, turn, (jnp.int32(0), 0.0), jnp.zeros(40),
                         consts=3 + n)  # fmt: skip
        return {
            "while": lax.while_loop(lambda c: c[0] < 3 + n, turned, (0, 0.0))[1],
            "scan": lax.scan(lambda c, x: (c + ahead(w)[0] * x, c), 0.0, jnp.arange(300.0)),
            "short": lax.scan(lambda c, x: (c + ahead(w)[0] * x, c), 0.0, jnp.arange(3.0)),
            "loop": (end, file[:3]),
            "branch": lax.cond(n > 0, lambda w: ahead(w)[0], lambda w: w[0], w),
            "nested": lax.fori_loop(0, 2 + n, lambda i, c: jax.jit(ahead)(w)[0] + c, w[0]),
        }

    rows = [jnp.arange(80.0).reshape(2, 40)]
    index = jnp.arange(2, dtype=jnp.int32)
    found = in_kernel(one, [], rows, index, Tuning(block=2))
    same(found, jax.vmap(partial(one, []))(rows, index))


def test_a_field_may_update_its_long_arguments():
    field = lambda t, y, w: -y * lax.dynamic_update_slice(w, (w[0] + y)[None], (0,))[0]
    problem = de.ODEProblem(field, 1.0, (0.0, 1.0), jnp.ones(40))
    solve = partial(de.solve_ensemble, problem, de.Bosh3(), args=jnp.arange(80.0).reshape(2, 40))
    same(solve(strategy="kernel", chunk=2), solve(strategy="lockstep"))


@pytest.mark.thorough
def test_places_and_what_is_put_there_may_be_long_themselves():
    def one(shared, own, n):
        to, w = own
        rows, long = jnp.zeros((6, 40)), jnp.zeros(50)
        file = lambda active, w, i, rows: (i + 1, put_row(rows, w * 2, i))
        return {
            "gathered": [jnp.sum(w[to]), jnp.sum(shared[0][to] * w)],
            "added": jax.ops.segment_sum(w, to, 5),
            "replaced": lax.dynamic_update_slice(long, w + 1, (n,)),
            "filed": loop(lambda w, i, f: i < 3, file, jnp.int32(0), rows, consts=w)[1],
            "added rows": add_row(rows, w * 2, n),
            "picked": [pick_row(w, to), find(jnp.arange(60.0), 50 + n, w)],
            "carried": walk(lambda _, rows, ws, c, *rest: (c[::-1] + rest[0][0] * rows[0], ((),)),
                            0, 5 + n, rows=(jnp.arange(9.0),), carry=w, linear_consts=(n + 1.0,),
                            length=9)[0],
        }  # fmt: skip

    draw = np.random.default_rng(0)
    rows = [draw.integers(0, 5, (2, 40)), draw.normal(size=(2, 40))]
    rows, index = [*map(jnp.asarray, rows)], jnp.arange(2, dtype=jnp.int32)
    shared = [jnp.arange(7.0)]
    found = in_kernel(one, shared, rows, index, Tuning(block=2))
    same(found, jax.vmap(partial(one, shared))(rows, index))


@pytest.mark.thorough
def test_a_path_of_controlled_steps():
    solve = partial(
        de.solve_ensemble, NOISY, de.SOSRI(), n=3, key=jax.random.key(2), saveat=[0.4, 1]
    )
    same(solve(strategy="kernel", chunk=4), solve(strategy="lockstep"))


WIDE = de.ODEProblem(lambda t, y, k: jnp.tanh(MIXED @ y), jnp.ones(64), (0.0, 1.0))
MIXED = jnp.sin(jnp.arange(64.0**2)).reshape(64, 64)


@pytest.mark.thorough
def test_what_has_no_kernel_is_told_why():
    with pytest.raises(ValueError, match=r"no kernel of this solve: .*more than 20000 operations"):
        de.solve_ensemble(WIDE, de.Tsit5(), y0=jnp.ones((3, 64)), strategy="kernel")
    with pytest.raises(ValueError, match="power of two"):
        de.solve_ensemble(LORENZ, args=ARGS, strategy="kernel", chunk=3)

    def field(t, y, k):
        return y * jnp.linalg.cholesky(k * jnp.eye(2))[0, 0]

    factored = de.ODEProblem(field, 1.0, (0.0, 1.0), 1.0)
    with pytest.raises(ValueError, match=r"cholesky \(.*test_kernel.py:\d+\)"):
        de.solve_ensemble(factored, args=jnp.ones(2), strategy="kernel")
    assert de.solve_ensemble(DECAY, args=KS, strategy="auto").strategy == "lockstep"

    def branches(t, y, k):  # wrong in any strategy, and then what JAX says of it is heard
        return -y if y > 0 else y

    with pytest.raises(jax.errors.TracerBoolConversionError):
        de.solve_ensemble(DECAY.replace(f=branches), args=KS, strategy="kernel")


@pytest.mark.thorough
def test_on_a_gpu_auto_is_the_kernel_where_there_is_one(monkeypatch):
    class Chosen(Exception):
        pass

    def tell(self):
        raise Chosen(self.strategy)

    monkeypatch.setattr(Ensemble, "solved", tell)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(Tuning, "interpreted", lambda self: True)
    key = {"key": jax.random.key(0), "n": 3}
    for chunk in (None, 5):  # blocks of 8
        with pytest.raises(Chosen, match="kernel"):
            de.solve_ensemble(NOISY, dt=0.1, chunk=chunk, **key)
    with pytest.raises(Chosen, match="lockstep"):
        de.solve_ensemble(WIDE, de.Tsit5(), y0=jnp.ones((3, 64)))

    def unheard(*_, **__):
        raise OSError("of whatever kind\nand more")

    monkeypatch.setattr(launch, "scalarised", unheard)
    monkeypatch.setattr(execution, "_reasons", OrderedDict())  # it was found to have one
    with pytest.raises(Chosen, match="lockstep"):
        de.solve_ensemble(NOISY, dt=0.2, **key)
    with pytest.raises(ValueError, match=r"it raises OSError: of whatever kind\. 'auto'"):
        de.solve_ensemble(NOISY, dt=0.2, strategy="kernel", **key)

    # The default is a GPU, and the solve is on the CPU: there it is no kernel.
    with pytest.raises(Chosen, match="lockstep"):
        de.solve_ensemble(NOISY, dt=0.1, mesh=jax.make_mesh((1,), ("i",)), **key)
    with jax.default_device("cpu"), pytest.raises(Chosen, match="lockstep"):
        de.solve_ensemble(NOISY, dt=0.1, **key)


def test_a_jax_without_triton_has_no_kernels_and_auto_says_so(monkeypatch, caplog):
    monkeypatch.setattr(pallas_triton, "triton", pallas_triton.Absent())
    monkeypatch.setattr(launch, "triton", pallas_triton.triton)
    monkeypatch.setattr(execution, "_reasons", OrderedDict())
    with pytest.raises(ValueError, match=r"this JAX does not lower Pallas to Triton\. 'auto'"):
        de.solve_ensemble(DECAY, args=KS, strategy="kernel")
    with pytest.raises(NoKernel, match="Triton"):
        Tuning().params(remembers=False)
    assert not caplog.messages
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for _ in range(2):
        assert de.solve_ensemble(DECAY, args=KS).strategy == "lockstep"
    (said,) = caplog.messages
    assert "strategy='auto' takes 'lockstep'" in said


def test_reasons_are_kept_of_the_last_problems_only(monkeypatch):
    monkeypatch.setattr(execution, "_KEPT", 2)
    monkeypatch.setattr(execution, "_reasons", OrderedDict())
    monkeypatch.setattr(execution, "no_kernel_reason", lambda *_: None)
    plan = replace(
        planned(lambda: de.solve_ensemble(DECAY, args=KS, chunk=2)).plan, kernel=Tuning()
    )
    for chunk in (1, 2, 3, 1, 4, 1):
        execution.check_kernel(replace(plan, chunk=chunk), None, [], [], np.zeros(1, np.int32))
    assert [plan.chunk for plan, *_ in execution._reasons] == [4, 1]


def test_on_a_mesh_each_device_has_its_kernel():
    mesh = jax.make_mesh((1,), ("i",))
    found = de.solve_ensemble(DECAY, de.Bosh3(), args=KS, strategy="kernel", chunk=2, mesh=mesh)
    same(found, de.solve_ensemble(DECAY, de.Bosh3(), args=KS, strategy="lockstep"))


def test_a_thread_that_reads_what_it_wrote_has_one_lane():
    assert Tuning(block=128).params(remembers=True).num_warps == 4
    assert Tuning(block=128, warps=2, interpret=False).params(remembers=False).num_warps == 2
    with pytest.raises(NoKernel, match="one thread for each of 128 lanes"):
        Tuning(block=128, warps=2, interpret=False).params(remembers=True)


# --- Triton, without a GPU ------------------------------------------------------------------------

H100 = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")


def lowered(solve, *, moving=()):
    """The program of an ensemble for a GPU, as text: the kernel of a call, and all beside it."""
    ensemble = planned(solve)
    leaves, structure = ensemble.parts
    rows, index = ensemble.inputs.rows, jnp.arange(ensemble.inputs.size, dtype=jnp.int32)
    if moving:  # by rows
        moving = (*(False for _ in leaves), *moving)
    tuning = Tuning(block=32, interpret=False)
    plan = replace(ensemble.as_kernel().plan, kernel=tuning, moving=moving)
    if moving:  # as the derivative of an ensemble has them
        options = replace(plan.static, adjoint=ForwardAccumulation(plan.static.adjoint))
        plan = replace(plan, static=options)
    if plan.starts:
        first = partial(execution._first_steps, plan, structure)
        rows = [*rows, jax.eval_shape(first, leaves, rows, index)[0]]
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=H100)
    with jax.sharding.use_abstract_mesh(mesh):
        alone = partial(trajectory.solve_trajectory, plan, structure)
        run = jax.jit(lambda *xs: in_kernel(alone, *xs, tuning))
        program = run.trace(leaves, rows, index).lower(lowering_platforms=("cuda",))
    return plan, program.as_text()


SOLVES = {
    "lorenz": lambda d: de.solve_ensemble(LORENZ.replace(y0=jnp.ones(3, d)), de.Tsit5(),
                                          args=ARGS.astype(d), saveat=TS.astype(d)),
    "robertson": lambda d: de.solve_ensemble(ROBERTSON.replace(y0=jnp.array([1, 0, 0], d)),
                                             de.Rodas5P(), args=RATES.astype(d)),
    "decay": lambda d: de.solve_ensemble(DECAY.replace(y0=jnp.ones((), d), args=jnp.ones(3, d)),
                                         de.Bosh3(), args=KS.astype(d)),
    "paths": lambda d: de.solve_ensemble(NOISY.replace(y0=jnp.ones(2, d)), n=5, dt=0.01,
                                         key=jax.random.key(0), saveat=[0.3, 0.555]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", shortly(["float32", "float64"], "float32"))
@pytest.mark.parametrize("name", SOLVES)
def test_triton_takes_the_kernel(name, dtype):
    moving = (True,) if name == "decay" else ()
    plan, program = lowered(lambda: SOLVES[name](dtype), moving=moving)
    assert plan.starts == (name != "paths")
    assert program.count("__gpu$xla.gpu.triton") == 1
    assert "stablehlo.while" not in program  # the loop is in the kernel

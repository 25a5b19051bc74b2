"""Gradients of kernels by many numbers: in Pallas's interpreter those of lockstep and of single
solves, and Triton takes the same kernel for a GPU that is not there.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.ensemble.test_kernel import H100, planned, same
from tests.tiers import shortly

import diffeq as de
from diffeq.ensemble import derivatives, execution, strategies, trajectory
from diffeq.ensemble.gpu_kernel.launch import Kernel, Tuning


def cooled(t, y, w):
    return jnp.sum(jnp.tanh(w * y)) - y


COOLED = de.ODEProblem(cooled, 1.0, (0.0, 1.0), jnp.ones(8))
WEIGHTS = jnp.linspace(-1.0, 0.5, 8)
STARTS = jnp.array([0.5, 1.0, -0.3])


def loss(weights, starts, strategy, **options):
    sol = de.solve_ensemble(
        COOLED.replace(args=weights), de.Bosh3(), y0=starts, strategy=strategy, chunk=2,
        throw=False, **{"max_steps": 64} | options,
    )  # fmt: skip
    return jnp.sum(sol.y1**2)


@pytest.fixture
def pulls(monkeypatch):
    """What is pulled back, in lockstep and by kernels, while a test runs."""
    found = {"lockstep": 0, "kernel": 0}

    def counted(name, function):
        def run(*args):
            found[name] += 1
            return function(*args)

        return run

    for name, where in (("lockstep", "_pull_group"), ("kernel", "_kernel_pull")):
        monkeypatch.setattr(execution, where, counted(name, getattr(execution, where)))
    return found


def test_numbers_that_all_share_and_those_of_each(pulls):
    found = jax.grad(loss, (0, 1))(WEIGHTS, STARTS, "kernel")
    assert pulls == {"lockstep": 0, "kernel": 1}
    same(found, jax.grad(loss, (0, 1))(WEIGHTS, STARTS, "lockstep"), rtol=1e-12)

    def alone(weights, start):
        return de.solve(COOLED.replace(args=weights, y0=start), de.Bosh3()).y1 ** 2

    each = [jax.grad(alone, (0, 1))(WEIGHTS, start) for start in STARTS]
    same(found, (sum(w for w, _ in each), jnp.stack([y for _, y in each])), rtol=1e-12)


def test_tapes_have_room_for_a_group_at_a_time(monkeypatch):
    starts = jnp.linspace(-1.0, 1.0, 5)
    known = jax.grad(loss, (0, 1))(WEIGHTS, starts, "lockstep")
    groups, through = [], execution.through_chunks

    def noted(step, state, xs, chunk):
        groups.append(chunk)
        return through(step, state, xs, chunk)

    monkeypatch.setattr(execution, "through_chunks", noted)
    monkeypatch.setattr(execution, "_SCRATCH", 1)
    same(jax.grad(loss, (0, 1))(WEIGHTS, starts, "kernel"), known, rtol=1e-12)
    assert groups == [2]


def test_how_many_are_in_a_group(monkeypatch):
    empty = jax.make_jaxpr(lambda: ())()
    kernel = Kernel(empty, None, [], [], [(1000, np.dtype("float32"))], Tuning(block=64), 0)
    assert kernel.scratch == 4000
    monkeypatch.setattr(execution, "_SCRATCH", 4000 * 640)
    assert [execution._launch_size(kernel, n) for n in (1, 65, 640, 641, 1281)] == [
        64, 128, 640, 384, 448,
    ]  # fmt: skip


def test_a_thread_has_one_lane_on_the_way_back(monkeypatch):
    asked = []
    monkeypatch.setattr(strategies, "Tuning", partial(Tuning, warps=1))
    monkeypatch.setattr(derivatives, "_pulls_back", lambda plan, *_: asked.append(plan.kernel))
    jax.eval_shape(jax.grad(partial(loss, strategy="kernel")), WEIGHTS, STARTS)
    assert [tuning.warps for tuning in asked] == [None]


def test_what_has_failed_is_nan_where_it_is_asked_for_and_zero_where_not():
    grows = COOLED.replace(f=lambda t, y, w: w[0] * y**2 + jnp.sum(jnp.tanh(w * y)))
    starts, weights = jnp.array([0.5, 30.0, -0.3]), 0.1 + WEIGHTS**2 / 4

    def of(starts, weights, picked, strategy):
        sol = de.solve_ensemble(grows.replace(args=weights), de.Bosh3(), y0=starts, chunk=2,
                                strategy=strategy, throw=False, max_steps=64)  # fmt: skip
        return jnp.sum(jnp.where(picked, sol.y1, 0.0) ** 2), sol.success

    back = jax.jit(jax.grad(of, (0, 1), has_aux=True), static_argnums=3)
    sound, every = jnp.array([True, False, True]), jnp.array([True, True, True])
    (by_starts, by_weights), success = back(starts, weights, sound, "kernel")
    assert success.tolist() == sound.tolist()
    assert by_starts[1] == 0
    same((by_starts, by_weights), back(starts, weights, sound, "lockstep")[0])
    (by_starts, by_weights), _ = back(starts, weights, every, "kernel")
    assert np.isnan(by_starts).tolist() == [False, True, False]
    assert np.isnan(by_weights).all()


@pytest.mark.thorough
def test_a_tape_that_is_too_short_is_thinned_in_lockstep(pulls):
    short = {"adjoint": de.Discrete(rows=4), "max_steps": 16}
    steps = de.solve_ensemble(COOLED.replace(args=WEIGHTS), de.Bosh3(), y0=STARTS, **short)
    assert max(steps.stats["steps"]) > 4
    found = jax.grad(loss, (0, 1))(WEIGHTS, STARTS, "kernel", **short)
    assert pulls == {"lockstep": 1, "kernel": 1}
    same(found, jax.grad(loss, (0, 1))(WEIGHTS, STARTS, "lockstep", **short), rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {"dt": 1 / 5000, "max_steps": None},
        {"adjoint": de.Backsolve()},
    ],
    ids=["steps", "adjoint"],
)
def test_what_goes_back_in_lockstep_as_a_whole(options, pulls):
    found = jax.grad(loss)(WEIGHTS, STARTS, "kernel", **options)
    assert pulls == {"lockstep": 0, "kernel": 0}
    same(found, jax.grad(loss)(WEIGHTS, STARTS, "lockstep", **options), rtol=1e-12)


@pytest.mark.thorough
def test_forwards_and_to_second_order_it_is_lockstep(pulls):
    dots = jnp.cos(jnp.arange(8.0)), jnp.ones(3)
    found, known = (
        jax.jvp(lambda *x, s=s: loss(*x, s), (WEIGHTS, STARTS), dots)
        for s in ("kernel", "lockstep")
    )
    same(found, known, rtol=1e-12)
    both = [lambda f: jax.jacfwd(jax.grad(f)), lambda f: jax.jacrev(jax.grad(f))]
    known = both[0](partial(loss, strategy="lockstep"))(WEIGHTS, STARTS)
    for hessian in both:
        same(hessian(partial(loss, strategy="kernel"))(WEIGHTS, STARTS), known, rtol=1e-10)
    assert pulls["kernel"] >= 1


# --- solves of many kinds -------------------------------------------------------------------------


def lorenz(t, y, p):
    a, b, c = y
    more = p[3] * p[4] + p[5] * a * p[6] + p[7]
    return jnp.array([p[0] * (b - a), a * (p[1] - c) - b, a * b - p[2] * c + more])


def robertson(t, y, k):
    a, b, c = y
    slow, fast = k[0] * a - k[1] * b * c, k[2] * b * b
    return jnp.array([-slow, slow - fast, fast + k[3]])


def network(t, y, w):
    hidden = jnp.tanh(w[:16].reshape(8, 2) @ y + w[16:24])
    return w[24:40].reshape(2, 8) @ hidden + w[40:]


LORENZ = de.ODEProblem(lorenz, jnp.ones(3), (0.0, 0.5), jnp.ones(8))
RHOS = jnp.array([10.0, 28, 8 / 3, 0.1, 0.2, 0.3, 0.1, 0.5]) * jnp.linspace(0.5, 1.2, 3)[:, None]
ROBERTSON = de.ODEProblem(robertson, jnp.array([1.0, 0, 0]), (0.0, 10.0), jnp.ones(4))
RATES = jnp.array([0.04, 1e4, 3e7, 0.0]) * jnp.array([[1.0], [1.4], [0.6]])
NETWORK = de.ODEProblem(network, jnp.ones(2), (0.0, 1.0), jnp.sin(jnp.arange(42.0)))
BALL = de.ODEProblem(
    lambda t, y, g: jnp.array([y[1], -g[0] + g[1] * g[2] * y[1] + jnp.prod(g[3:])]),
    jnp.array([1.0, 0]), (0.0, 2.0), jnp.ones(7),
)  # fmt: skip
BOUNCE = de.Event(lambda t, y, g: y[0], lambda t, y, g: y * jnp.array([0, -0.8]), direction=-1)
NOISY = de.SDEProblem(
    lambda t, y, a: -a[0] * y + a[1:3] + a[3] * a[4], lambda t, y, a: 0.1 * y * a[5] + a[6],
    jnp.ones(2), (0.0, 1.0), jnp.ones(7),
)  # fmt: skip
LATE = de.DDEProblem(
    lambda t, y, past, a: -a[0] * past(t - 0.5) * a[1] + a[2] * a[3] + a[4] * a[5] * y + a[6],
    None, (0.0, 1.0), jnp.ones(7), history=lambda t, a: jnp.ones(1) * a[0], lags=[0.5],
)  # fmt: skip
SEVEN = jnp.linspace(0.5, 1.5, 21).reshape(3, 7)

KINDS = {
    "adaptive": (LORENZ, de.Tsit5(), RHOS, {}),
    "given steps": (LORENZ, de.Tsit5(), RHOS, {"dt": 1e-2}),
    "saved": (LORENZ, de.Tsit5(), RHOS, {"saveat": jnp.linspace(0.1, 0.5, 20), "max_steps": 100}),
    "all steps": (LORENZ, de.Tsit5(), RHOS, {"saveat": "steps", "max_saves": 20, "max_steps": 20}),
    "stiff": (ROBERTSON, de.Rodas5P(), RATES, {"max_steps": 100}),
    "events": (
        BALL,
        de.Tsit5(),
        SEVEN * 9,
        {"events": [BOUNCE], "max_events": 40, "max_steps": 200},
    ),
    "path": (NOISY, None, SEVEN, {"dt": 0.05, "key": jax.random.key(1)}),
    "statistics": (LORENZ, de.Tsit5(), RHOS, {"reduce": de.stats.Mean(), "max_steps": 100}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_solve_goes_back(name, pulls):
    problem, method, rows, options = KINDS[name]

    def of(x, strategy):
        rows, starts = x
        sol = de.solve_ensemble(problem, method, args=rows, y0=starts, strategy=strategy, chunk=2,
                                **options)  # fmt: skip
        if "reduce" in options:
            return jnp.sum(sol.reduced**2)
        scale = jnp.array([1.0, 1e4, 1.0]) if problem is ROBERTSON else 1.0
        return jnp.sum((sol.filled(0.0) * scale) ** 2)

    starts = jnp.broadcast_to(problem.y0, (3, *problem.y0.shape)) * 1.01
    found = jax.grad(of)((rows, starts), "kernel")
    assert pulls["kernel"] == 1
    known = jax.grad(of)((rows, starts), "lockstep")
    for a, b in zip(found, known, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * np.abs(b).max())


@pytest.mark.thorough
def test_on_a_mesh_statistics_go_back_too(pulls):
    mesh = jax.make_mesh((1,), ("i",))

    def of(rows, strategy):
        sol = de.solve_ensemble(LORENZ, de.Bosh3(), args=rows, strategy=strategy, chunk=2,
                                reduce=de.stats.Mean(), mesh=mesh, max_steps=200)  # fmt: skip
        return jnp.sum(sol.reduced**2)

    found = jax.grad(of)(RHOS, "kernel")
    assert pulls["kernel"] == 1
    same(found, jax.grad(of)(RHOS, "lockstep"), rtol=1e-9)


# --- Triton, without a GPU ------------------------------------------------------------------------


def lowered(solve, dtype):
    """The kernel that goes back, of a call, for a GPU, as text."""
    ensemble = planned(solve)
    leaves, structure = ensemble.parts
    rows, index = ensemble.inputs.rows, jnp.arange(ensemble.inputs.size, dtype=jnp.int32)
    weights = [jnp.shape(x) == (42,) for x in leaves]
    tuning = Tuning(block=32, interpret=False)
    plan = replace(
        ensemble.as_kernel().plan, kernel=tuning, back=True, starts=False,
        moving=(*weights, *(not any(weights) for _ in rows)),
    )  # fmt: skip
    xs = [*rows, *execution._output_shapes(plan, structure, leaves, rows, index)]
    xs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in xs]
    assert {x.dtype for x in xs} == {jnp.dtype(dtype)}
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=H100)
    with jax.sharding.use_abstract_mesh(mesh):
        alone = partial(trajectory.pull_trajectory, plan, structure)
        run = jax.jit(lambda *args: Kernel.of(alone, *args, tuning, sum(weights))(*args))
        return run.trace(leaves, xs, index).lower(lowering_platforms=("cuda",)).as_text()


def typed(problem, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), {"y0": problem.y0, "args": problem.args})


def call(name, dtype):
    """An ensemble that Triton is to take."""
    problem, method, rows, options = {
        "lorenz": (LORENZ, de.Tsit5(), {"args": RHOS}, {}),
        "saved": (LORENZ, de.Tsit5(), {"args": RHOS}, {"saveat": jnp.linspace(0.1, 0.5, 20)}),
        "given steps": (LORENZ, de.Tsit5(), {"args": RHOS}, {"dt": 1e-3}),
        "network": (NETWORK, de.Tsit5(), {"y0": jnp.ones((3, 2))}, {}),
        "robertson": (ROBERTSON, de.Rodas5P(), {"args": RATES, "y0": jnp.ones((3, 3))}, {}),
    }[name]
    rows = {k: x.astype(dtype) for k, x in rows.items()}
    if "saveat" in options:
        options = {"saveat": options["saveat"].astype(dtype)}
    return de.solve_ensemble(problem.replace(**typed(problem, dtype)), method, **rows, **options)


CALLS = ("lorenz", "saved", "given steps", "network", "robertson")


@pytest.mark.filterwarnings("ignore:.*Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", shortly(["float32", "float64"], "float32"))
@pytest.mark.parametrize("name", CALLS)
def test_triton_takes_the_way_back(name, dtype):
    program = lowered(lambda: call(name, dtype), dtype)
    assert program.count("__gpu$xla.gpu.triton") == 1
    assert "stablehlo.while" not in program  # the loops are in the kernel

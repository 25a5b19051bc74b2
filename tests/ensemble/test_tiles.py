"""Layers that are spread over the threads of a block: what they compute, when there are any, and
that Triton takes them.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from tests.ensemble.test_kernel import H100, lowered, same
from tests.ensemble.test_scalars import LANES, V, scalar
from tests.tiers import shortly

import diffeq as de
from diffeq.ensemble.gpu_kernel import LaneArray, Space, View, scalarised
from diffeq.ensemble.gpu_kernel.launch import Tuning, in_kernel

DRAW = np.random.default_rng(1)
FIRST, HIDDEN, LAST = (DRAW.normal(size=s) / s[1] ** 0.5 for s in ((50, 5), (40, 50), (3, 40)))
BIAS, SQUARE = DRAW.normal(size=50), DRAW.normal(size=(50, 50)) / 7
FORTY = DRAW.normal(size=(40, 40)) / 6


def network(v, first=FIRST, hidden=HIDDEN, last=LAST, bias=BIAS):
    return last @ jax.nn.softplus(hidden @ jnp.tanh(first @ v + bias))


def transposed(v):
    inner = jnp.tanh(v @ FIRST.T) * BIAS
    return lax.dot_general(inner, SQUARE, (((0,), (0,)), ((), ()))) @ SQUARE @ HIDDEN.T @ LAST.T


def normal(v):
    h = FIRST @ v
    h = (h - h.mean()) / jnp.sqrt(h.var() + 1e-5)
    h = jnp.where(h > 0, h, 0.1 * h)
    return [h.max(), h.min(), h @ h, h[3:9:2], jax.nn.softmax(h) @ HIDDEN.T @ LAST.T]


def rows(v):
    both = jnp.stack([jnp.sin(v), v])
    h = jnp.concatenate([jnp.tanh(both @ FIRST.T), BIAS[None]])
    return h[1] @ HIDDEN.T @ LAST.T, h.sum(0) @ BIAS, h.max(1), (h[:2].T @ v[:2]) @ BIAS


def features(v):
    """Waves of a number, of a number that no lane has its own of, and weights with a factor."""
    waves = jnp.sin(v[0] * BIAS + 1)
    common = jnp.tanh(SQUARE @ jnp.tanh(FIRST @ jnp.arange(5.0))) @ BIAS
    return network(v, first=FIRST * v[1]), HIDDEN @ waves @ LAST.T, common


def taken_apart(v):
    h = jnp.tanh(FIRST @ v)
    turned = lax.fori_loop(0, 3, lambda i, h: jnp.sin(h) * (i + 1), h)
    chosen = lax.cond(v[0] > 0, lambda h: h * 2, lambda h: h, h)
    place = jnp.argmax(v)
    return turned @ BIAS, chosen @ BIAS, h[place], jnp.any(h > 0.99), h[::-1] @ BIAS


FUNCTIONS = {
    "network": network,
    "transposed": transposed,
    "normal": normal,
    "rows": rows,
    "features": features,
    "taken apart": taken_apart,
    "jvp": lambda v: jax.jvp(network, (v,), (jnp.sin(v),)),
    "jacobian": jax.jacfwd(network),
    "backwards": jax.jacrev(network),
    "second": jax.jacfwd(jax.jacrev(lambda v: network(v)[0])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lanes_compute_what_each_of_them_would_alone(name):
    found = jax.jit(partial(scalar, FUNCTIONS[name], kernel=True))(V)
    known = jax.jit(jax.vmap(FUNCTIONS[name]))(V)
    same(found, known, rtol=1e-11)


def spread(function):
    """Whether a program spreads arrays over threads."""
    space = Space(LANES, kernel=True)

    def run(v):
        entries = np.empty(v.shape[1:], object)
        for i in np.ndindex(entries.shape):
            entries[i] = v[(slice(None), *i)]
        scalarised(jax.make_jaxpr(function)(v[0]), [entries], LANES, space)

    jax.eval_shape(run, V)
    return space.threads > 1


def test_only_wide_layers_with_weights_that_all_share_are_spread():
    layer = lambda width: lambda v: jnp.tanh(FIRST[:width] @ v) @ BIAS[:width]
    assert spread(layer(33))
    assert not spread(layer(32))
    assert not spread(lambda v: jnp.outer(v, jnp.tile(v, 7)).sum(0) @ jnp.tile(v, 7))


def test_what_was_written_is_read_by_the_thread_that_wrote_it():
    """Another thread might read before it is there."""
    space, jaxpr = Space(LANES, kernel=True), jax.make_jaxpr(lambda w: SQUARE[:3] @ (w * 2))(BIAS)
    written = View(LaneArray(jnp.ones((50, LANES)), (50,)))
    found = jax.jit(lambda: list(scalarised(jaxpr, [written], LANES, space)[0]))()
    np.testing.assert_allclose(jnp.stack(found)[:, 0], 2 * SQUARE[:3].sum(1), rtol=1e-12)
    assert space.threads == 1


def test_what_is_below_the_last_line_spoils_no_sum():
    """It repeats the last line: 1 / (h - its maximum) would be infinite at any other padding."""
    pole = lambda v: [jnp.sum(1 / (h := FIRST @ v + 9)), jnp.max(1 / h), HIDDEN @ (1 / h) @ LAST.T]
    same(jax.jit(partial(scalar, pole))(V), jax.vmap(pole)(V))
    zeros = np.concatenate([np.zeros((33, 5)), FIRST[:1]])
    infinite = lambda v: [jnp.max(-jnp.log(zeros @ v + 1) / (zeros @ v)), jnp.prod(zeros @ v)]
    same(jax.jit(partial(scalar, infinite))(V), jax.vmap(infinite)(V))


@pytest.mark.parametrize("wanted", [None, "tensorfloat32", "float32"])
def test_products_are_in_full_precision_unless_another_is_asked_for(wanted):
    with jax.default_matmul_precision(wanted):
        made = jax.make_jaxpr(partial(scalar, network))(V).jaxpr
    (found,) = [e.params["precision"] for e in made.eqns if e.primitive.name == "dot_general"]
    assert (lax.Precision.HIGHEST in found) == (wanted != "tensorfloat32")


def test_what_is_infinite_in_a_last_weight_or_line_spoils_no_other():
    """Padding would repeat it, and zero times it is NaN."""
    weights = HIDDEN.copy()
    weights[3, -1], weights[5, -1] = np.inf, np.nan
    odd = lambda v: [(weights @ jnp.tanh(FIRST @ v)) @ SQUARE[:40, :3]]
    found, known = jax.jit(partial(scalar, odd))(V), jax.vmap(odd)(V)
    same(found, known)
    each = lambda v: (weights @ jnp.tanh(FIRST @ v))[jnp.array([3, 5, 39])]
    found, known = jax.jit(partial(scalar, each))(V), jax.vmap(each)(V)
    same(found, known)
    assert np.isinf(known[:, 0]).all()
    assert np.isnan(known[:, 1]).all()
    assert np.isfinite(known[:, 2]).all()
    last = np.append(np.zeros(49), np.inf)
    line = lambda v: (HIDDEN @ (jnp.exp(FIRST @ v) + last))[:3]
    same(jax.jit(partial(scalar, line))(V), jax.vmap(line)(V))


def heads(v):
    """Parts of a layer that attend to each other, and layers that are joined."""
    queries, keys = ((w @ jnp.tanh(FIRST[:40] @ v)).reshape(4, 10) for w in (HIDDEN[:, :40], FORTY))
    joined = jnp.stack([jnp.sin(FIRST @ v), jnp.cos(FIRST @ v)]).reshape(100)
    return jax.nn.softmax(queries @ keys.T) @ queries, joined @ joined, queries.sum(1)


def test_an_axis_that_is_spread_is_parted_and_joined():
    same(jax.jit(partial(scalar, heads, kernel=True))(V), jax.jit(jax.vmap(heads))(V))


WHOLE = [jnp.asarray(DRAW.integers(-9, 9, w.shape), jnp.bfloat16) for w in (FIRST, HIDDEN, LAST)]


def short(v, wanted):
    """Layers of whole numbers, whose sums have more digits than weights and inputs have; the last
    one is narrow.
    """
    first, hidden, last = WHOLE
    product = partial(lax.dot, preferred_element_type=wanted)
    v = jnp.round(v * 9).astype(jnp.bfloat16)
    h = product(hidden, (inner := product(first, v)).astype(jnp.bfloat16))
    common = product(hidden, product(first, jnp.arange(5, dtype=jnp.bfloat16)).astype(v.dtype))
    outer = product(last, h.astype(jnp.bfloat16)), product(last, common.astype(jnp.bfloat16))
    return *outer, h.max(), inner.min(), common.max(), product(first[:8], v)


@pytest.mark.parametrize("wanted", [None, jnp.bfloat16, jnp.float32])
def test_products_of_short_numbers_are_summed_in_the_type_that_is_wanted(wanted):
    function = partial(short, wanted=wanted)
    found, known = jax.jit(partial(scalar, function, kernel=True))(V), jax.vmap(function)(V)
    for a, b in zip(found, known, strict=True):
        assert a.dtype == b.dtype == (wanted or jnp.bfloat16)
        np.testing.assert_array_equal(a.astype(float), b.astype(float))


@pytest.mark.filterwarnings("ignore:.*Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("function", [partial(short, wanted=jnp.float32), heads])
def test_triton_takes_short_weights_and_axes_that_are_parted(function):
    tuning = Tuning(block=32, interpret=False)
    run = jax.jit(lambda rows, index: in_kernel(
        lambda shared, rows, i: function(rows[0]), [], rows, index, tuning
    ))  # fmt: skip
    rows, index = [jnp.ones((32, 5), jnp.float32)], jnp.arange(32, dtype=jnp.int32)
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=H100)
    with jax.sharding.use_abstract_mesh(mesh):
        program = run.trace(rows, index).lower(lowering_platforms=("cuda",)).as_text()
    assert "__gpu$xla.gpu.triton" in program


NET = eqx.nn.MLP(2, 2, 50, 1, jnp.tanh, key=jax.random.key(0))
DEEP = eqx.nn.MLP(2, 2, 64, 2, jnp.tanh, key=jax.random.key(0))
STARTS = jnp.asarray(DRAW.normal(size=(5, 2)))


def packed(net):
    """A field whose weights are parts of one vector, and those."""
    flat, unpack = ravel_pytree(eqx.filter(net, eqx.is_array))
    static = eqx.filter(net, eqx.is_array, inverse=True)
    return lambda t, y, p: eqx.combine(unpack(p), static)(y), flat


def problem(net, kind="args", dtype=None):
    """A neural equation with its weights in `args`, in the field or in one vector."""
    net = jax.tree.map(lambda x: x.astype(dtype) if eqx.is_array(x) and dtype else x, net)
    start = jnp.ones(2, dtype or float)
    if kind == "args":
        return de.ODEProblem(lambda t, y, net: net(y), start, (0.0, 1.0), net)
    if kind == "packed":
        field, flat = packed(net)
        return de.ODEProblem(field, start, (0.0, 1.0), flat)
    return de.ODEProblem(lambda t, y, args: net(y), start, (0.0, 1.0))


@pytest.mark.parametrize("kind", shortly(["args", "field", "packed"], "packed"))
def test_a_kernel_with_a_wide_network_solves_as_it_is(kind, monkeypatch):
    laid_out, params = [], Tuning.params
    note = lambda self, **k: (laid_out.append(k), params(self, **k))[1]
    monkeypatch.setattr(Tuning, "params", note)
    solve = partial(de.solve_ensemble, problem(NET, kind), de.Bosh3(), y0=STARTS)
    same(solve(strategy="kernel", chunk=4), solve(strategy="lockstep"), rtol=1e-9)
    assert laid_out[-1] == {"remembers": False, "threads": 2}


@pytest.mark.thorough
@pytest.mark.parametrize("method", [de.Tsit5(), de.Rodas5P()], ids=lambda m: type(m).__name__)
def test_deep_and_stiff_ones(method):
    net = DEEP if method == de.Tsit5() else NET
    solve = partial(
        de.solve_ensemble, problem(net), method, y0=STARTS, saveat=jnp.linspace(0, 1, 9)
    )
    same(solve(strategy="kernel", chunk=4), solve(strategy="lockstep"), rtol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{"dt": 0.1}, {}], ids=["clock", "own steps"])
def test_layers_that_depend_on_time_alone(options):
    """With given steps, they are common to all lanes."""
    net = eqx.nn.MLP(3, 2, 50, 1, key=jax.random.key(1))
    gate = eqx.nn.MLP(1, 50, 40, 1, jnp.tanh, key=jax.random.key(2))

    def field(t, y, nets):
        (first, last), gate = nets[0].layers, nets[1](t[None])
        return last(jnp.tanh(first(jnp.append(y, t))) * jax.nn.sigmoid(gate))

    gated = de.ODEProblem(field, jnp.ones(2), (0.0, 1.0), (net, gate))
    solve = partial(de.solve_ensemble, gated, de.Bosh3(), y0=STARTS, **options)
    for chunk in (1, 4):
        same(solve(strategy="kernel", chunk=chunk), solve(strategy="lockstep"), rtol=1e-9)


@pytest.mark.thorough
def test_a_derivative_by_the_start():
    def loss(y0s, strategy):
        sol = de.solve_ensemble(problem(NET), de.Tsit5(), y0=y0s, strategy=strategy, chunk=4)
        return jnp.sum(sol.y1**2)

    found, known = (jax.grad(loss)(STARTS, s) for s in ("kernel", "lockstep"))
    np.testing.assert_allclose(found, known, rtol=1e-9)


def test_several_threads_have_a_lane_unless_one_reads_what_it_wrote():
    warps = lambda **k: Tuning(block=64, interpret=False).params(**k).num_warps
    assert warps(remembers=False, threads=2) == 4
    assert warps(remembers=True, threads=2) == warps(remembers=False) == 2
    assert warps(remembers=False, threads=8) == 16


SOLVES = {
    "one layer": (NET, de.Tsit5(), {}),
    "two layers": (DEEP, de.Tsit5(), {}),
    "rows": (NET, de.Tsit5(), {"saveat": jnp.linspace(0, 1, 50)}),
    "stiff": (NET, de.Rodas5P(), {}),
    "jacobian": (NET, de.Tsit5(), {}),
}


@pytest.mark.filterwarnings("ignore:.*Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", shortly(["float32", "float64"], "float32"))
@pytest.mark.parametrize("name", shortly(SOLVES, "two layers", "jacobian"))
def test_triton_takes_the_kernel(name, dtype):
    net, method, options = SOLVES[name]
    solve = partial(de.solve_ensemble, problem(net, dtype=dtype), method,
                    y0=STARTS.astype(dtype), **options)  # fmt: skip
    _, program = lowered(solve, moving=(True,) if name == "jacobian" else ())
    assert program.count("__gpu$xla.gpu.triton") == 1
    assert "stablehlo.while" not in program  # the loop is in the kernel

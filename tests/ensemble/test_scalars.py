"""The scalariser: whatever a primitive does to an array, its rule does to the numbers of lanes."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jaxtyping import jaxtyped

from diffeq.algebra.linear import factored, linear_solve
from diffeq.autodiff.batch_last import if_unbatched
from diffeq.autodiff.dynamic_scan import walk
from diffeq.autodiff.jax_internals import evaluate_equation, user_line
from diffeq.autodiff.row_buffers import get_row, put_row, unset
from diffeq.autodiff.tables import add_row, find, pick_row
from diffeq.autodiff.unreached_rows import mark_unreached
from diffeq.autodiff.while_loop import loop, single_iteration_loop
from diffeq.ensemble.gpu_kernel import NoKernel, Space, Stored, scalarised
from diffeq.ensemble.gpu_kernel.large_arrays import LazyArray, to_memory
from diffeq.ensemble.gpu_kernel.scalar_values import objects

LANES = 4
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(LANES, 3, 4))
V = DRAW.normal(size=(LANES, 5))
M = DRAW.normal(size=(LANES, 3, 3))
I = np.array([0, 2, -1, 9])  # places; two of them outside
N = np.array([3, 0, 7, 1])  # counts
BITS = DRAW.integers(0, 2**32, size=(LANES, 3), dtype=np.uint32)
KEYS = jax.random.split(jax.random.key(3), LANES)
NANS = np.where(DRAW.random((LANES, 5)) < 0.4, np.nan, V)
WEIGHTS = DRAW.normal(size=(4, 2))
LONG = np.sort(DRAW.normal(size=100))
BIG = DRAW.normal(size=(LANES, 8, 6))


def entries(x):
    """An argument with lanes, as arrays of entries."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        wrap = partial(jax.random.wrap_key_data, impl=jax.random.key_impl(x))
        return jax.random.key_data(x), wrap
    return x, lambda words: words


def scalar(function, *xs, kernel=False):
    """The function of each lane, by the scalariser."""
    plain, wraps = zip(*map(entries, xs), strict=True)
    opened = lambda *ys: function(*(wrap(y) for wrap, y in zip(wraps, ys, strict=True)))
    jaxpr, shape = jax.make_jaxpr(opened, return_shape=True)(*(x[0] for x in plain))
    space = Space(LANES, kernel=kernel)
    arrays = []
    for x in map(jnp.asarray, plain):
        own = np.empty(x.shape[1:], object)
        for i in np.ndindex(own.shape):
            own[i] = x[(slice(None), *i)]
        arrays.append(own)
    outs = [
        whole(x, aval, space)
        for x, aval in zip(scalarised(jaxpr, arrays, LANES, space), jaxpr.out_avals, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(shape), outs)


def whole(x, aval, space):
    """An output with the lanes in front."""
    if isinstance(x, Stored):
        return to_memory(x, space, aval.dtype).numbers.T.reshape(LANES, *aval.shape)
    numbers = [jnp.broadcast_to(jnp.asarray(e, aval.dtype), (LANES,)) for e in objects(x).flat]
    if not numbers:
        return jnp.zeros((LANES, *aval.shape), aval.dtype)
    return jnp.stack(numbers, -1).reshape(LANES, *aval.shape)


def elementwise(x, v, b):
    i = (v * 10).astype(jnp.int32)
    return {
        "functions": [jnp.sin(x), jnp.exp(x), jnp.tanh(x[0]), jnp.log1p(x**2), jnp.arctan2(x, 2.0)],
        "slopes": jax.jvp(jnp.tanh, (v,), (v,)),
        "choices": [jnp.where(x > 0, x, 7.0), jnp.clip(v, -1, 1), jnp.sign(v), jnp.maximum(x, 0)],
        "rounding": [jnp.round(v * 3), jnp.round(jnp.arange(5.0) + 0.5 + 0 * v), jnp.floor(v)],
        "whole": [i // 3, i % 3, i << 2, -i, i.astype(jnp.float32), lax.clz(i), jnp.abs(i)],
        "bits": [b ^ (b >> jnp.uint32(7)), ~b, b & jnp.uint32(255), lax.population_count(b)],
        "bitcast": lax.bitcast_convert_type(b, jnp.int32),
        "booleans": [(v > 0) & True, (v > 0) | True, ~(v > 0), (v > 0) ^ (v < 1), jnp.isfinite(v)],
        "known": jnp.arange(4) * jnp.float64(2) + jnp.cos(jnp.arange(4.0)) + 0 * v[0],
        "next": jnp.nextafter(v, jnp.inf),
        "spread": x * jnp.ones((1, 4)) + x[:, :1],
    }  # fmt: skip


def shapes(x, v):
    padded = lax.pad(v.astype(jnp.float32), np.float32(0), [(1, 0, 0)])
    return {
        "concatenate": jnp.concatenate([x, jnp.ones((1, 4)), x[:1]]),
        "stack": jnp.stack([v, v * 2], axis=1),
        "pad": [lax.pad(v, 9.0, [(2, 1, 2)]), lax.pad(x, 0.0, [(-1, 2, 0), (1, -2, 1)])],
        "pad in single precision": padded + padded[::-1],
        "turned": [x.T, x[::-1], jnp.flip(x), x[:, 1::2], jnp.roll(v, 2), x.reshape(2, 6)],
        "parted": jnp.split(v, [1, 3]),
        "spread": jnp.broadcast_to(v[:, None], (5, 2)),
        "unpacked": list(x),
        "tiled": jnp.tile(v, 2),
    }  # fmt: skip


def reductions(x, v, w):
    return {
        "sums": [x.sum(), x.sum(0), jnp.mean(x, axis=1), x.prod(1), jnp.linalg.norm(v)],
        "extremes": [x.max(0), x.min(), jnp.argmax(x, 1), jnp.argmax(w), jnp.argmin(w)],
        "tests": [jnp.any(x > 1, 0), jnp.all(x > -1), jnp.isnan(w).any()],
        "running": [jnp.cumsum(v), lax.cumsum(v, reverse=True), lax.cummax(v), jnp.cumprod(x, 0)],
        "products": [x @ WEIGHTS, x @ x.T, jnp.einsum("ij,ij->i", x, x), jnp.outer(v, v), v @ v],
        "batched": jnp.einsum("bij,bjk->bik", x.reshape(2, 2, 3), x.reshape(2, 3, 2)),
        "sorted": [jnp.sort(w), jnp.argsort(w), jnp.argsort(-v), jnp.sort(x, axis=0)],
        "logsumexp": jax.nn.logsumexp(v),
    }  # fmt: skip


def places(x, v, i, n):
    at = jnp.array([3, 0, 3])
    return {
        "slices": [lax.dynamic_slice(x, (i, 1), (2, 2)), lax.dynamic_index_in_dim(v, i), v[1:][i]],
        "updates": [lax.dynamic_update_slice(x, jnp.ones((2, 2)), (i, i)),
                    lax.dynamic_update_index_in_dim(x, x[0], i, 0)],
        "gathers": [v[i], v[at], x[:, at], v.at[i].get(mode="fill", fill_value=-1.0),
                    v.at[i].get(mode="clip"), v[jnp.stack([i, n])], x[jnp.stack([n, i]), 1],
                    jnp.take_along_axis(x, at[None], axis=1)],
        "scatters": [v.at[i].set(9.0), v.at[at].add(1.0), x.at[i, 1].set(5.0), x.at[:, i].add(2.0),
                     v.at[jnp.stack([i, i])].add(1.0), v.at[i].max(0.5), v.at[at].set(v[:3] * 2)],
        "table": [jnp.asarray(LONG)[n * 9], jnp.interp(v[0], LONG, LONG**2)],
        "search": jnp.searchsorted(LONG, v),
    }  # fmt: skip


def branches(x, v, n):
    yes, no = (lambda y: (y * 2, y[0])), (lambda y: (-y, y[1]))
    turn = lambda c: (c[0] + 1, jnp.where(c[0] % 2 == 0, c[1] * 1.1, c[1] - 1))
    inner = lambda i, y: lax.fori_loop(0, i, lambda j, z: z + jnp.sin(z) * j, y)
    step = lambda c, row: (c * 0.9 + row.sum(), (c, row[0]))
    rows = jnp.arange(300.0).reshape(150, 2) * v[0]
    return {
        "cond": [lax.cond(v[0] > 0, yes, no, v), lax.cond(jnp.array(True), yes, no, v)],
        "switch": lax.switch(n, [jnp.sin, jnp.cos, lambda y: y, jnp.exp], v),
        "while": lax.while_loop(lambda c: c[0] < n, turn, (0, v)),
        "nested": lax.fori_loop(0, n, inner, v[0]),
        "common": lax.fori_loop(0, 9, lambda i, y: y * 0.5 + i, v),
        "scan": lax.scan(step, v[0], x),
        "reversed": lax.scan(step, v[0], x, reverse=True),
        "long": lax.scan(step, v[0], rows),
        "none": lax.scan(step, v[0], x[:0]),
    }  # fmt: skip


@jax.custom_jvp
def bent(x):
    return x**3


bent.defjvp(lambda p, t: (bent(*p), 2 * t[0]))


@jax.custom_vjp
def pulled(x):
    return x * 3


pulled.defvjp(lambda x: (pulled(x), x), lambda x, ct: (ct * x,))


def calls(x, v):
    return {
        "jit": jax.jit(lambda y: jnp.sin(y) + x[0, 0])(v),
        "rules": [bent(v), pulled(v), jax.grad(lambda y: bent(y).sum())(v), jax.nn.softplus(v)],
        "grad": jax.grad(lambda y: jnp.sum(pulled(y) ** 2))(v),
        "remat": jax.grad(lambda y: jax.checkpoint(lambda z: jnp.sin(z @ z))(y))(v),
        "jacobian": [jax.jacfwd(lambda y: y * y.sum())(v), jax.hessian(lambda y: (y**3).sum())(v)],
        "vmap": jax.vmap(lambda row: row @ row)(x),
    }  # fmt: skip


def draws(key, n):
    wide = jax.random.bits(key, (2,), jnp.uint16)
    return {
        "normal": [jax.random.normal(jax.random.fold_in(key, n), (3,)), jax.random.uniform(key)],
        "split": [jax.random.key_data(k) for k in jax.random.split(key, 3)],
        "bits": [jax.random.bits(key, (2,)), wide, jax.random.bits(key, (), jnp.uint64)],
        "seed": jax.random.key_data(jax.random.key(n)),
        "whole": jax.random.randint(key, (2,), 0, 10),
    }  # fmt: skip


def walked(v, n, room):
    """A walk that writes a row a turn: `room` of them, in registers or in memory."""

    def step(active, rows, consts, c, linear_consts, linear_rows, buffers):
        return c * 0.9 + rows[0], ((rows, c),)

    rows = jnp.arange(2.0 * room).reshape(room, 2)
    blank = ((jnp.zeros((room, 2)), jnp.full((room, 5), 7.0)),)
    return [walk(step, 1, n, rows=rows, carry=v, buffers=blank, length=room, reverse=back)
            for back in (False, True)]  # fmt: skip


def turned(v, n, room):
    """A loop that writes where its lane is active; what it has written is reduced."""

    def turn(active, c, i, buffer):
        at = jnp.where(active, i, room)
        return i + 1, put_row(buffer, v * i, jnp.minimum(at, room - 1))

    start = jnp.full((room, 5), jnp.nan)
    count, buffer = loop(lambda c, i, b: i < c, turn, jnp.int32(0), start, consts=n)
    reached = jnp.arange(room) < n
    found = jnp.where(reached[:, None], buffer, 0.0)
    turned = jnp.roll(found, -1, axis=0), jnp.concatenate([found[:, :1], found, found[:, 3:]], 1)
    return (count, found, found.sum(), found.sum(0), jnp.max(found), found.T, found[1:, 2:3],
            turned, get_row(turned[0], n))  # fmt: skip


def own(v, m, n, big):
    file = lambda active, c, i, b: (i + 1, jnp.where(active, add_row(b, v * i, i), b))
    past = loop(lambda c, i, b: i < c, file, jnp.int32(0), jnp.zeros((4, 5)), consts=n + 20)[1]
    return {
        "solve": linear_solve(factored(m), jnp.ones(3)),
        "solve back": jax.grad(lambda b: linear_solve(factored(m), b)[0])(jnp.ones(3)),
        "five": linear_solve(factored(jnp.eye(5) * 3 + jnp.outer(v, v)), v),
        "rows": [get_row(v, jnp.clip(n, 0, 4)), put_row(v, jnp.float64(3.0), jnp.clip(n, 0, 4))],
        "large": [get_row(big, n), pick_row(big, jnp.stack([n, 0 * n]))],
        "unset": [put_row(unset((k, 5), v.dtype), v, n + 1)[n + 1] for k in (6, 20)],
        "ring": past,
        "find": [find(jnp.asarray(LONG), 50 + n, v[0]), find(jnp.sort(v), jnp.int32(5), v[2])],
        "poison": mark_unreached(jnp.stack([v, v]), v, jnp.stack([n > 0, n > 1]).astype(jnp.int32)),
        "alone": if_unbatched(n > 100),
        "block": single_iteration_loop(lambda a, b: (a + b, a * jnp.ones((9, 5))), v, v),
        "inner lanes": jax.vmap(lambda m: loop(lambda c, i, b: i < c, lambda a, c, i, b: (i + 2, b),
                                               jnp.int32(0), consts=m)[0])(jnp.stack([n, 5 - n])),
        "barrier": lax.optimization_barrier((v, m)),
    }  # fmt: skip


GROUPS = {
    "elementwise": (elementwise, X, V, BITS),
    "shapes": (shapes, X, V),
    "reductions": (reductions, X, V, NANS),
    "places": (places, X, V, I, N),
    "branches": (branches, X, V, N),
    "calls": (calls, X, V),
    "draws": (draws, KEYS, N),
    "own": (own, V, M, N, BIG),
    "walks": (lambda v, n: [walked(v, n, room) for room in (9, 3)], V, np.minimum(N, 2)),
    "loops": (lambda v, n: [turned(v, n, room) for room in (5, 11)], V, np.minimum(N, 5)),
}


@pytest.mark.parametrize("group", GROUPS)
def test_lanes_compute_what_each_of_them_would_alone(group):
    function, *xs = GROUPS[group]
    found = jax.jit(partial(scalar, function))(*xs)
    known = jax.jit(jax.vmap(function))(*xs)
    assert jax.tree.structure(found) == jax.tree.structure(known)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(known), strict=True):
        assert a.dtype == b.dtype, path
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=jax.tree_util.keystr(path))


@given(st.lists(st.integers(-12, 12), min_size=2 * LANES, max_size=2 * LANES))
def test_a_window_is_moved_inside_wherever_it_starts(starts):
    i, j = np.array(starts, np.int32).reshape(2, LANES)
    for found, known in zip(WINDOWS[0](X, i, j), WINDOWS[1](X, i, j), strict=True):
        np.testing.assert_array_equal(found, known)


def windows(x, i, j):
    return lax.dynamic_slice(x, (i, j), (2, 3)), lax.dynamic_update_slice(x, x[:1, :2], (j, i))


WINDOWS = jax.jit(partial(scalar, windows)), jax.jit(jax.vmap(windows))


def test_what_is_common_to_all_lanes_stays_one_number():
    def clock(y, t):
        return lax.fori_loop(0, 9, lambda _, s: (s[0] + 0.1, s[1] * s[0]), (t, y))

    jaxpr = jax.make_jaxpr(clock)(1.0, 0.0)
    t, y = np.empty((), object), np.empty((), object)

    def run(common, own):
        t[()], y[()] = common, own
        outs = scalarised(jaxpr, [y, t], LANES, Space(LANES))
        return [objects(x)[()] for x in outs]

    found = jax.jit(run)(jnp.float64(0.5), jnp.arange(4.0))
    assert [x.shape for x in found] == [(), (LANES,)]


def test_what_is_computed_where_it_is_read_is_computed_once_a_reading_in_each_thread():
    seen, inside, done = [], Event(), Event()

    def slow(place):
        seen.append(place)
        inside.set()
        assert done.wait(20)  # until another thread has read it, too
        return place

    twice = lambda x: LazyArray(lambda p: x.read(p) + x.read(p), (40,), jnp.int32)
    one, place = LazyArray(slow, (40,), jnp.int32), np.int32(3)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(twice(one).read, place)
        assert inside.wait(20)
        other = pool.submit(
            twice(LazyArray(lambda p: p * 2, (40,), jnp.int32)).read, place
        ).result()
        done.set()
        assert (first.result(), other, len(seen)) == (6, 12, 1)
    assert twice(one).read(place) == 6
    assert len(seen) == 2  # in the second reading anew


def test_what_is_known_is_done_while_tracing():
    def known(y):
        table = jnp.sin(jnp.arange(5.0)).sum() + jnp.linalg.inv(jnp.eye(2))[0, 0]
        turns = lax.fori_loop(0, 3, lambda i, k: k + i, 0)
        return jnp.where(turns == 3, y * 1.0, y / table)

    y = np.empty((), object)
    jaxpr = jax.make_jaxpr(known)(1.0)

    def run(own):
        y[()] = own
        return objects(scalarised(jaxpr, [y], LANES, Space(LANES))[0])[()]

    made = jax.make_jaxpr(run)(jnp.arange(4.0)).jaxpr
    assert made.outvars == made.invars


REFUSED = {
    "pure_callback": (lambda v: jax.pure_callback(np.sin, v, v), "no rule|effects"),
    "cholesky": (lambda v: jnp.linalg.cholesky(jnp.outer(v, v))[0], "no rule"),
    "lu_factor": (lambda v: linear_solve(factored(jnp.eye(9) * v[0]), jnp.ones(9)),
                  "9 equations"),
    "mul": (lambda v: jnp.outer(jnp.tile(v, 40), jnp.tile(v, 40)).sum(), "more than 20000"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scalarised_is_named_with_its_line(name):
    function, reason = REFUSED[name]
    with pytest.raises(NoKernel, match=reason) as refusal:
        jax.eval_shape(partial(scalar, function), V)
    assert refusal.value.primitive == name
    if name != "lu_factor":  # that is made by a line of ours, for a method
        assert "test_scalars.py:" in refusal.value.line
    assert str(refusal.value).startswith(f"{name} (")


def test_a_line_of_the_user_is_in_none_of_the_packages_that_it_calls():
    net = eqx.nn.MLP(5, 2, 4, 1, key=jax.random.key(0))
    made = jax.make_jaxpr(jaxtyped(lambda v: net(v) * 2, typechecker=None))(V[0])
    lines = list(map(user_line, made.eqns))
    assert len(lines) > 4
    assert all("test_scalars.py:" in line for line in lines), lines


def test_what_is_made_of_an_equation_is_from_its_line():
    (sine,) = jax.make_jaxpr(lambda v: jnp.sin(v))(V[0]).eqns
    again = lambda v: jax.jvp(lambda v: evaluate_equation(sine, [v])[0], (v,), (v,))
    made = jax.make_jaxpr(jax.jit(again))(V[0]).eqns[0].params["jaxpr"].eqns
    assert [e.primitive.name for e in made] == ["sin", "cos", "mul"]
    assert {user_line(sine)} == set(map(user_line, made)) != {""}


def test_a_kernel_has_no_complex_numbers_and_rounds_by_itself():
    with pytest.raises(NoKernel, match="no complex"):
        jax.eval_shape(partial(scalar, lambda v: jnp.abs(v + 1j), kernel=True), V)
    values = np.array([-1.5, -0.50049, 0.5, 2.5])
    halves = lambda v: [
        jnp.round(v), lax.round(v, lax.RoundingMethod.AWAY_FROM_ZERO),
        lax.reduce_precision(v, 11, 8),
    ]  # fmt: skip
    for found, known in zip(scalar(halves, values, kernel=True), halves(values), strict=True):
        np.testing.assert_array_equal(found, known)

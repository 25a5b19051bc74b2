"""What `walk`, `loop`, `rows` and `mark_unreached` promise: each transformation is that of plain JAX."""
# ruff: noqa: B023, E501, D403

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.tiers import shortly

from diffeq.autodiff.dynamic_scan import walk
from diffeq.autodiff.row_buffers import get_row, put_row
from diffeq.autodiff.unreached_rows import Reached, mark_unreached
from diffeq.autodiff.while_loop import loop

LENGTH = 6
ROWS = jnp.linspace(0.3, 1.4, LENGTH)
Y0 = jnp.array([1.2, 0.3])
D, F, R = jax.grad, jax.jacfwd, jax.jacrev


def walked(y0, p, rows=ROWS, n=LENGTH, lo=0, *, reverse=False, linear=False):
    """carry ← carry + 0.1 sin(p carry + row), each carry written to its row."""

    def step(active, row, consts, y, *_):
        y = y + 0.1 * (jnp.sin(consts * y + row) if not linear else consts * y * row)
        return y, (y,)

    y, (ys,) = walk(
        step, lo, n, rows=rows, consts=p, carry=y0,
        buffers=(jnp.zeros((LENGTH, *y0.shape)),), length=LENGTH, reverse=reverse,
    )  # fmt: skip
    return y, ys


def scanned(y0, p, rows=ROWS, n=LENGTH, lo=0, *, reverse=False):
    """The same with `lax.scan` over the rows that are visited; n and lo are Python numbers."""
    index = np.arange(int(lo), int(lo + n))[:: -1 if reverse else 1]

    def step(y, row):
        y = y + 0.1 * jnp.sin(p * y + row)
        return y, y

    y, ys = lax.scan(step, y0, rows[index])
    return y, jnp.zeros((LENGTH, *y0.shape)).at[index].set(ys)


def measure(out):
    y, ys = out
    return jnp.sum(y * jnp.array([1.0, 2.0])) + jnp.sum(jnp.cos(ys) * jnp.arange(LENGTH)[:, None])


def close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)


# --- walk -----------------------------------------------------------------------------------------

MODES = {
    "value": lambda f: f,
    "grad": lambda f: D(f, (0, 1, 2)),
    "jacfwd": lambda f: F(f, (0, 1, 2)),
    "jvp": lambda f: lambda *x: jax.jvp(f, x, tuple(map(jnp.cos, x))),
    "hessian": lambda f: jax.hessian(f, (0, 1, 2)),
    "rev over rev": lambda f: R(D(f, (0, 1, 2)), (0, 1, 2)),
    "rev over fwd": lambda f: R(F(f, (0, 1)), (0, 1)),
    "fwd over fwd": lambda f: F(F(f, (0, 1)), (0, 1)),
    "third": lambda f: (
        D(lambda p: D(lambda p: D(f, 1)(Y0, p, ROWS))(p))
        and (lambda y0, p, rows: D(D(D(lambda p: f(y0, p, rows))))(p))
    ),
    "linearize": lambda f: lambda *x: jax.linearize(f, *x)[1](*x),
    "only rows": lambda f: D(f, 2),
    "checkpoint": lambda f: D(jax.checkpoint(f), (0, 1, 2)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "window", shortly([(LENGTH, 0, False), (3, 2, True), (0, 0, False)], (3, 2, True))
)
def test_walk_is_a_scan(mode, window):
    n, lo, reverse = window
    ours = lambda y0, p, rows: measure(walked(y0, p, rows, n, lo, reverse=reverse))
    plain = lambda y0, p, rows: measure(scanned(y0, p, rows, n, lo, reverse=reverse))
    x = (Y0, jnp.array(1.5), ROWS)
    close(jax.jit(MODES[mode](ours))(*x), jax.jit(MODES[mode](plain))(*x))


def test_n_and_lo_are_traced():
    traces = []

    @jax.jit
    def go(n, lo):
        traces.append(1)
        return D(lambda p: measure(walked(Y0, p, n=n, lo=lo)))(1.5)

    for n, lo in ((6, 0), (2, 1), (0, 3)):
        close(go(n, lo), D(lambda p: measure(scanned(Y0, p, n=n, lo=lo)))(1.5))
    assert len(traces) == 1


NS, LOS = np.array([6, 2, 0]), np.array([0, 3, 1])
PS = jnp.array([1.5, 0.7, 1.0])


@pytest.mark.parametrize(
    "transform",
    [lambda f: f, lambda f: D(f), lambda f: D(D(f)), lambda f: F(F(f)), lambda f: F(D(f))],
)
@pytest.mark.parametrize("batched", shortly(["p", "n", "p n", "p n lo"], "p n"))
def test_vmap_is_a_loop(transform, batched):
    names = batched.split()
    pick = lambda name, xs, other: xs if name in names else np.broadcast_to(other, xs.shape)
    ps, ns, los = pick("p", PS, 1.5), pick("n", NS, 3), pick("lo", LOS, 0)
    axes = (0 if "p" in names else None, 0 if "n" in names else None, 0 if "lo" in names else None)
    given = [xs if a == 0 else xs[0] for xs, a in zip((ps, ns, los), axes, strict=True)]
    one = lambda p, n, lo: transform(lambda p: measure(walked(Y0, p, n=n, lo=lo)))(p)
    many = jax.jit(jax.vmap(one, axes))(*given)
    loops = [
        transform(lambda p, i=i: measure(scanned(Y0, p, n=ns[i], lo=los[i])))(ps[i])
        for i in range(3)
    ]
    close(many, jnp.stack(loops))


@pytest.mark.parametrize("transform", [jax.hessian, lambda f: R(D(f)), lambda f: F(F(f))])
def test_derivatives_of_a_vmap(transform):
    """A residual that lanes share, and one of each of their own."""
    rows = jnp.stack([ROWS, 2 * ROWS, -ROWS])

    def ours(x):
        own = lambda n, row: measure(walked(Y0, x[0], x[1] * row, n)) * row[1]
        shared = lambda n: measure(walked(Y0, 1.5, x[2] * ROWS, n))
        return jnp.sum(jax.vmap(own)(NS, rows)) + jnp.sum(jax.vmap(shared)(NS))

    def plain(x):
        own = lambda n, row: measure(scanned(Y0, x[0], x[1] * row, n)) * row[1]
        shared = lambda n: measure(scanned(Y0, 1.5, x[2] * ROWS, n))
        return sum(own(int(n), row) + shared(int(n)) for n, row in zip(NS, rows, strict=True))

    x = jnp.array([1.3, 0.9, 1.1])
    close(jax.jit(transform(ours))(x), jax.jit(transform(plain))(x))


def test_nested_vmap_with_operands_of_either():
    y0s = jnp.stack([Y0, 2 * Y0])
    one = lambda y0, p, n: D(lambda p: measure(walked(y0, p, n=n)))(p)
    many = jax.jit(jax.vmap(jax.vmap(one, (None, 0, 0)), (0, None, None)))(y0s, PS, NS)
    want = [
        [D(lambda p: measure(scanned(y0, p, n=int(n))))(p) for p, n in zip(PS, NS, strict=True)]
        for y0 in y0s
    ]
    close(many, jnp.stack([jnp.stack(w) for w in want]))


def linear(carry, weights, rows, n=LENGTH, buffer=None):
    """A walk that is linear in carry, weights, rows and buffer together."""

    def step(active, row, scale, y, weight, shift, old):
        y = scale * y + row * weight + shift
        return y, (y + 2 * old[0],)

    buffer = jnp.zeros((LENGTH, 2)) if buffer is None else buffer
    return walk(
        step, 0, n, rows=ROWS, consts=jnp.array(0.9), carry=carry, linear_consts=weights,
        linear_rows=rows, buffers=(buffer,), length=LENGTH, linear=True, fresh=False,
    )  # fmt: skip


OPERANDS = (Y0, jnp.array([0.4, -1.0]), jnp.ones((LENGTH, 2)) * ROWS[:, None])


@pytest.mark.parametrize("n", [LENGTH, 2, 0])
def test_the_transpose_is_the_transpose(n):
    """⟨λ, A x⟩ = ⟨Aᵀ λ, x⟩, for a buffer that is added to as well."""
    operands = (*OPERANDS, jnp.arange(2.0 * LENGTH).reshape(LENGTH, 2))
    go = lambda y, w, rows, b: linear(y, w, rows, n, b)
    out = go(*operands)
    ct = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=float)).reshape(x.shape), out)
    back = jax.linear_transpose(go, *operands)(ct)
    left = sum(
        jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(ct), jax.tree.leaves(out), strict=True)
    )
    right = sum(jnp.vdot(a, b) for a, b in zip(back, operands, strict=True))
    close(left, right)
    twice = jax.linear_transpose(lambda ct: jax.linear_transpose(go, *operands)(ct), ct)(operands)[
        0
    ]
    close(twice, out)


@pytest.mark.parametrize(
    "axes",
    [
        (0, None, None, None),
        (None, 0, None, 0),
        (None, None, 0, None),
        (0, 0, 0, 0),
        (None, None, None, 0),
    ],
)
def test_vmap_of_a_transpose_with_unbatched_linear_operands(axes):
    batched = [
        jnp.stack([x, 2 * x, -x]) if a == 0 else x
        for x, a in zip((*OPERANDS, jnp.array(3)), axes, strict=True)
    ]
    if axes[3] == 0:
        batched[3] = jnp.asarray(NS)
    loss = lambda y, w, rows, n: (
        jnp.sum(linear(y, w, rows, n)[0]) + jnp.sum(linear(y, w, rows, n)[1][0] ** 2)
    )
    many = jax.vmap(D(loss, (0, 1, 2)), axes)(*batched)
    for i in range(3):
        one = D(loss, (0, 1, 2))(
            *(x[i] if a == 0 else x for x, a in zip(batched, axes, strict=True))
        )
        close(jax.tree.map(lambda x: x[i], many), one)


def test_symbolic_zeros_stay_zero_and_integers_pass():
    def go(y0, p):
        step = lambda active, row, const, c, *_: ((c[0] + row * const[0], c[1] + 1), (c[1],))
        (y, count), (counts,) = walk(
            step, 0, 3, rows=ROWS, consts=(p, jnp.int32(2)), carry=(y0, jnp.int32(0)),
            buffers=(jnp.zeros(LENGTH, jnp.int32),), length=LENGTH,
        )  # fmt: skip
        return y, count, counts

    y, count, counts = go(1.0, 2.0)
    assert int(count) == 3
    assert counts.tolist() == [0, 1, 2, 0, 0, 0]
    close(D(lambda p: go(1.0, p)[0])(2.0), ROWS[:3].sum())
    assert float(D(lambda p: go(1.0, p)[1].astype(float))(2.0)) == 0.0
    close(jax.jvp(lambda p: go(1.0, p)[0], (2.0,), (1.0,)), (y, ROWS[:3].sum()))


def test_what_a_step_closes_over_differentiates():
    def go(p):
        step = lambda active, row, const, y, *_: (y * p + row, ())
        return walk(step, 0, LENGTH, rows=ROWS, carry=jnp.array(1.0), length=LENGTH)[0]

    plain = lambda p: lax.scan(lambda y, row: (y * p + row, None), jnp.array(1.0), ROWS)[0]
    for transform in (D, lambda f: D(D(f)), lambda f: F(D(f))):
        close(transform(go)(0.7), transform(plain)(0.7))


@pytest.mark.thorough
def test_a_walk_in_a_walk():
    """The shape of a solve: each step writes some rows of an outer buffer through a step's curve."""
    theta = jnp.linspace(0.0, 1.0, 8)

    def ours(p, n, each):
        def step(active, row, const, carry, *_):
            y, j, buffer = carry
            y1 = y + 0.1 * jnp.sin(p * y + row)
            fill = lambda active, r, *_: ((), ((1 - r) * y + r * y1 * y,))
            _, (buffer,) = walk(fill, j, each, rows=theta, buffers=(buffer,), length=8)
            return (y1, j + each, buffer), ()

        carry = (Y0, jnp.zeros((), jnp.int32), jnp.zeros((8, 2)))
        (y, _, buffer), _ = walk(step, 0, n, rows=ROWS, carry=carry, length=LENGTH)
        return jnp.sum(y) + jnp.sum(buffer**2)

    def plain(p, n, each):
        y, buffer = Y0, jnp.zeros((8, 2))
        for i in range(n):
            y1 = y + 0.1 * jnp.sin(p * y + ROWS[i])
            for j in range(i * each, (i + 1) * each):
                buffer = buffer.at[j].set((1 - theta[j]) * y + theta[j] * y1 * y)
            y = y1
        return jnp.sum(y) + jnp.sum(buffer**2)

    lanes = [(4, 2), (2, 1), (3, 2)]
    ns, each = (jnp.array(x, jnp.int32) for x in zip(*lanes, strict=True))
    wanted = jax.jit(lambda p: jnp.stack([jax.hessian(plain)(p, *lane) for lane in lanes]))(1.5)
    for transform in (lambda f: D(D(f)), lambda f: F(F(f)), jax.hessian):
        many = jax.jit(jax.vmap(lambda n, k: transform(lambda p: ours(p, n, k))(1.5)))(ns, each)
        close(many, wanted)
    total = lambda p: jnp.sum(jax.vmap(lambda n, k: ours(p, n, k))(ns, each))
    close(jax.jit(jax.hessian(total))(1.5), jnp.sum(wanted))


# --- loop -----------------------------------------------------------------------------------------


def count(limit, start=0.0):
    """Adds halves until the limit, writing each value; returns state and buffer."""

    def body(active, limit, state, buffer):
        x, i = state
        place = jnp.where(active, i, LENGTH)
        return (x + 0.5, i + 1), put_row(buffer, x, place)

    return loop(
        lambda limit, state, _: state[0] < limit,
        body,
        (start, 0),
        jnp.full(LENGTH + 1, -1.0),
        consts=limit,
    )


def test_loop_is_a_while_loop_and_vmap_a_python_loop():
    (x, i), buffer = count(1.2)
    assert (float(x), int(i)) == (1.5, 3)
    assert buffer[:LENGTH].tolist() == [0.0, 0.5, 1.0, -1.0, -1.0, -1.0]
    limits, starts = jnp.array([1.2, -1.0, 2.6]), jnp.array([0.0, 0.0, 0.25])
    (xs, found), buffers = jax.vmap(count)(limits, starts)
    for j in range(3):
        (x, i), buffer = count(limits[j], starts[j])
        close((xs[j], found[j], buffers[j, :LENGTH]), (x, i, buffer[:LENGTH]))
    nested = jax.vmap(lambda limit: jax.vmap(lambda s: count(limit, s))(starts))(limits)
    close(jax.tree.map(lambda x: x[0, 2], nested)[0], count(limits[0], starts[2])[0])


def test_a_lane_that_is_done_is_kept():
    """A body that would make NaN of a finished lane leaves it alone."""
    body = lambda active, c, x, b: (jnp.where(x > 0.5, x - 1.0, jnp.nan), b)
    out, _ = jax.vmap(lambda x: loop(lambda c, x, b: x > 0.5, body, x))(jnp.array([3.0, 1.0, 0.1]))
    close(out, jnp.array([0.0, 0.0, 0.1]))


# --- rows -----------------------------------------------------------------------------------------

BUFFER = jnp.arange(12.0).reshape(LENGTH, 2)


def test_rows_are_indexing():
    j = jnp.int32(3)
    close(get_row(BUFFER, j), BUFFER[3])
    close(put_row(BUFFER, jnp.ones(2), j), BUFFER.at[3].set(1.0))
    f = lambda b, v: jnp.sum(jnp.sin(put_row(b, v * get_row(b, j), j + 1)))
    g = lambda b, v: jnp.sum(jnp.sin(b.at[4].set(v * b[3])))
    v = jnp.array([0.3, 0.7])
    for transform in (
        lambda f: D(f, (0, 1)),
        lambda f: F(f, (0, 1)),
        lambda f: jax.hessian(f, (0, 1)),
        lambda f: R(D(f, 1), 0),
    ):
        close(transform(f)(BUFFER, v), transform(g)(BUFFER, v))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_rows_under_vmap(axes):
    buffers, js = jnp.stack([BUFFER, -BUFFER, 2 * BUFFER]), jnp.array([3, 0, 5], jnp.int32)
    given = [buffers if axes[0] == 0 else BUFFER, js if axes[1] == 0 else js[0]]
    ours = lambda b, j: D(lambda b: jnp.sum(put_row(b, get_row(b, j) ** 2, j) ** 2))(b)
    plain = lambda b, j: D(lambda b: jnp.sum(b.at[j].set(b[j] ** 2) ** 2))(b)
    close(jax.vmap(ours, axes)(*given), jax.vmap(plain, axes)(*given))
    close(jax.vmap(get_row, axes)(*given), jax.vmap(lambda b, j: b[j], axes)(*given))
    close(
        jax.vmap(lambda j: jax.vmap(lambda b: get_row(b, j))(buffers))(js),
        jax.vmap(lambda j: jax.vmap(lambda b: b[j])(buffers))(js),
    )


# --- unreached rows -------------------------------------------------------------------------------

KIND = jnp.array([Reached.reached, Reached.missing, Reached.padding])


def test_poison_in_forward_and_reverse():
    rows, anchor = jnp.ones((3, 2)), jnp.array([2.0, 3.0])
    out, pull = jax.vjp(lambda r, a: mark_unreached(r, a, KIND), rows, anchor)
    np.testing.assert_array_equal(out, [[1.0, 1.0], [np.nan] * 2, [np.nan] * 2])
    blank = jnp.zeros((3, 2))
    for place, wrong in (((0, 1), False), ((1, 0), True), ((2, 1), False)):
        d_rows, d_anchor = pull(blank.at[place].set(1.0))
        np.testing.assert_array_equal(d_rows, blank.at[0, 1].set(1.0) if place == (0, 1) else blank)
        assert bool(jnp.isnan(d_anchor).all()) == wrong
        assert bool((d_anchor == 0).all()) != wrong
    _, dot = jax.jvp(lambda r: mark_unreached(r, anchor, KIND), (rows,), (2 * rows,))
    np.testing.assert_array_equal(dot, [[2.0, 2.0], [np.nan] * 2, [np.nan] * 2])


def test_poison_keeps_to_its_lane():
    kinds = jnp.stack([KIND, jnp.full(3, Reached.reached)])
    loss = lambda r, a: jnp.sum(jax.vmap(mark_unreached)(r, a, kinds)[:, :2])
    d_rows, d_anchor = D(loss, (0, 1))(jnp.ones((2, 3, 2)), jnp.ones((2, 2)))
    assert np.isnan(d_anchor[0]).all()
    np.testing.assert_array_equal(d_anchor[1], 0.0)
    np.testing.assert_array_equal(d_rows[1, :2], 1.0)
    nested = jax.vmap(jax.vmap(mark_unreached, (0, 0, None)), (0, 0, 0))
    out = nested(jnp.ones((2, 4, 3, 2)), jnp.ones((2, 4, 2)), kinds)
    assert np.isnan(out[0, :, 1:]).all()
    assert (out[1] == 1).all()


def test_poison_to_second_order():
    f = lambda x: mark_unreached(
        jnp.stack([x**3, x]), x, jnp.array([Reached.reached, Reached.missing])
    )[0]
    for transform in (lambda f: D(D(f)), lambda f: F(F(f)), lambda f: F(D(f)), lambda f: D(F(f))):
        close(transform(f)(2.0), jnp.array(12.0))

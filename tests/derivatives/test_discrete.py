"""The derivative of the numerical solution, in every mode: against differences and a `lax.scan`."""
# ruff: noqa: B023, E501

import contextlib
import logging
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.tiers import shortly

import diffeq as de

DT, STEPS = 0.125, 8
TS = jnp.array([0.0, 0.2, 0.5, 0.5, 1.0])
A = jnp.array([1.3, 0.4])
Y0 = jnp.array([0.8, -0.2])


def field(t, y, a):
    return jnp.stack([y[1] * a[0], -a[0] * jnp.sin(y[0]) + a[1] * jnp.cos(t) * y[1] ** 2])


PROBLEM = de.ODEProblem(field, Y0, (0.0, 1.0), A)


def rk4(f, y0, t0, dt, steps, args):
    """The same arithmetic in a scan, which JAX differentiates."""

    def step(y, i):
        t = t0 + i * dt
        k1 = f(t, y, args)
        k2 = f(t + dt / 2, y + dt / 2 * k1, args)
        k3 = f(t + dt / 2, y + dt / 2 * k2, args)
        k4 = f(t + dt, y + dt * k3, args)
        y = y + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6
        return y, y

    return lax.scan(step, y0, jnp.arange(steps))[1]


def measure(ys):
    return jnp.sum(jnp.sin(ys) * jnp.arange(1.0, 1 + ys.size).reshape(ys.shape))


def ours(x, **options):
    """Of (args, y0): a loss over the states at all steps."""
    a, y0 = x
    sol = de.solve(
        PROBLEM.replace(args=a, y0=y0), de.RK4(), dt=DT, saveat="steps", max_saves=9, **options
    )
    return measure(sol.ys[1:])


def scan(x):
    a, y0 = x
    return measure(rk4(field, y0, 0.0, DT, STEPS, a))


X = (A, Y0)
D, F, R = jax.grad, jax.jacfwd, jax.jacrev
MODES = {  # each holds the modes that it is made of
    "jacrev": R,
    "fwd over rev over rev": lambda g: F(R(D(g))),
    "rev over fwd": lambda g: R(F(g)),
    "fwd over fwd": lambda g: F(F(g)),
    "hessian of vmap": lambda g: jax.hessian(lambda x: jax.vmap(g)(stacked(x)).sum()),
    "vmap of hessian": lambda g: lambda x: jax.vmap(jax.hessian(g))(stacked(x)),
    "vmap of jvp": lambda g: lambda x: jax.vmap(lambda x: jax.jvp(g, (x,), (x,)))(stacked(x)),
    "vmap over part": lambda g: lambda x: jax.vmap(D(lambda a: g((a, x[1]))))(stacked(x)[0]),
}


def stacked(x):
    return jax.tree.map(lambda v: jnp.stack([v, 0.9 * v, 1.1 * v]), x)


def close(a, b, rtol=1e-12, atol=1e-12):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def test_windows_keep_the_rows_that_lie_on_the_ends_of_steps():
    """Run again from its first row, a step may end an ulp beside the time that it ended on."""
    ts = jnp.linspace(0.0, 1.0, 11)

    def loss(a, rows):
        problem = de.ODEProblem(
            lambda t, y, a: jnp.stack([y[1], -a * y[0] * jnp.cos(t)]), [1.0, 0.0], (0.0, 1.0), a
        )
        options = {"saveat": ts, "dt": 1.0 / 30, "max_steps": 64}
        sol = de.solve(problem, de.RK4(), adjoint=de.Discrete(rows=rows), **options)
        return jnp.sum(sol.ys**2)

    whole, thinned = (
        jax.jit(jax.value_and_grad(lambda a, rows=rows: loss(a, rows)))(2.0) for rows in (64, 8)
    )
    close(thinned, whole, rtol=1e-13)


def test_without_checkpoints_a_solve_fits_in_the_rows_or_has_no_gradient():
    def loss(a, rows):
        problem = de.ODEProblem(lambda t, y, a: -a * y, 1.0, (0.0, 1.0), a)
        adjoint = de.Discrete(rows, checkpoint=False)
        return de.solve(problem, de.RK4(), dt=1 / 32, adjoint=adjoint, throw=False).y1

    found, lost = (jax.grad(lambda a, rows=rows: loss(a, rows))(2.0) for rows in (None, 16))
    np.testing.assert_allclose(found, -np.exp(-2), rtol=1e-6)
    assert np.isnan(lost)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dtype", "tolerance", "options"),
    [
        (jnp.float64, 1e-12, {"rtol": 1e-8, "atol": 1e-8, "stops": jnp.array([1.0])}),
        (jnp.float64, 1e-12, {"dt": 3.0 / 243}),  # a step ends on the jump itself
        (jnp.float32, 1e-4, {"dt": 3.0 / 213, "stops": jnp.array([1.0])}),
    ],
)
def test_windows_run_again_take_the_same_steps(dtype, tolerance, options):
    """After a landing, across a jump of the field, and beside other lanes."""
    ts = jnp.linspace(0.0, 3.0, 31, dtype=dtype)

    def field(t, y, a):
        jump = jnp.where(t > 1.0, 0.5, 0.0).astype(dtype)
        return jnp.stack([y[1], -a * y[0] * (1 + jump * jnp.cos(t))])

    def loss(a, rows):
        problem = de.ODEProblem(field, jnp.array([1.0, 0.0], dtype), (0.0, 3.0), a)
        adjoint = de.Discrete(rows=rows)
        sol = de.solve(problem, de.Tsit5(), saveat=ts, adjoint=adjoint, max_steps=400, **options)
        return jnp.sum(jnp.sin(3 * sol.ys) * jnp.arange(31, dtype=dtype)[:, None])

    lanes = jnp.array([0.7, 1.9, 2.6], dtype)
    whole, thinned = (
        jax.jit(jax.vmap(jax.grad(lambda a, rows=rows: loss(a, rows))))(lanes) for rows in (400, 32)
    )
    np.testing.assert_allclose(thinned, whole, rtol=tolerance)


def cycles(p, rows, max_steps, dtype=jnp.float64, **options):
    """Lotka and Volterra's equations, with saves."""
    field = lambda t, y, p: jnp.stack([p[0] * y[0] - y[0] * y[1], -p[1] * y[1] + y[0] * y[1]])
    problem = de.ODEProblem(field, jnp.ones(2, dtype), (0.0, 10.0), p)
    ts = jnp.linspace(0.0, 10.0, 21, dtype=dtype)
    adjoint = de.Discrete(rows=rows)
    return de.solve(problem, saveat=ts, adjoint=adjoint, max_steps=max_steps, **options).ys


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dtype", "tolerance", "tight"), [(jnp.float64, 1e-11, 1e-12), (jnp.float32, 3e-6, 1e-4)]
)
def test_windows_run_again_do_not_drift(dtype, tolerance, tight):
    """An error estimate that is mostly rounding gives another dt in another program: of two runs,
    the fifth digit in double precision, the second in single.
    """
    p, options = jnp.array([1.5, 3.0], dtype), {"rtol": tolerance, "atol": tolerance}
    loss = lambda p, rows, most: jnp.sum(cycles(p, rows, most, dtype, **options) ** 2)
    whole, thinned = (
        jax.jit(jax.grad(lambda p, each=each: loss(p, *each)))(p)
        for each in ((1024, 1024), (16, 256))
    )
    close(thinned / jnp.linalg.norm(whole), whole / jnp.linalg.norm(whole), rtol=0, atol=tight)


@pytest.mark.thorough
def test_a_tape_that_is_full_to_the_last_row():
    """A solve of exactly as many attempts as can be replayed has its derivative: of all that it
    reached before max_steps ended it.
    """
    options = {"rtol": 1e-8, "atol": 1e-8, "throw": False}
    rows = lambda rows, most: jax.jit(jax.jacfwd(lambda p: cycles(p, rows, most, **options)))(
        jnp.array([1.5, 3.0])
    )
    full, whole = rows(8, 64), rows(400, 400)
    reached = ~jnp.isnan(full).any(axis=(1, 2))
    assert 5 < int(reached.sum()) < 21
    close(full[reached], whole[reached], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "mode", shortly(MODES, "jacrev", "rev over fwd", "fwd over fwd", "vmap of jvp")
)
def test_every_mode_is_that_of_a_scan(mode):
    transform = MODES[mode]
    close(jax.jit(transform(ours))(X), jax.jit(transform(scan))(X), atol=1e-11)


def test_eager_modes_are_those_of_jit():
    for transform in (D, F):
        close(transform(ours)(X), jax.jit(transform(scan))(X), atol=1e-11)


# --- what can be differentiated: against differences, of steps whose number does not change -------


def difference(f, x, h=1e-4):
    """Sixth-order central differences along every component of an array (or number)."""
    x = jnp.asarray(x, float)
    weights = ((1, 45), (2, -9), (3, 1))
    each = []
    for basis in jnp.eye(x.size):
        step = h * basis.reshape(x.shape)
        each.append(sum(w * (f(x + i * step) - f(x - i * step)) for i, w in weights) / (60 * h))
    return jnp.stack(each).reshape(*x.shape, *jnp.shape(each[0]))


def solved(y0=Y0, a=A, tspan=(0.0, 1.0), at=None, f=field, **options):
    return de.solve(de.ODEProblem(f, y0, tspan, a), de.Tsit5(), saveat=at, dt=0.12, **options)


def jumping(t, y, a):
    return jnp.where(t < a, jnp.cos(3 * t), -t) * y + t


def by_all(x):
    """By args (also through `save`), y0, both ends and the times of saves (also through `save`)."""
    a, y0, ends, at = jnp.split(x, (2, 4, 6))
    return measure(solved(y0, a, ends, at, save=lambda t, y, a: t**2 * y + a).ys)


def by_dense_output(x):
    """By args and by the times at which the polynomials and their slopes are asked."""
    sol = solved(a=x[:2], dense=True, max_saves=16)
    return measure(sol(x[2:])) + measure(sol.derivative(x[2:]))


INPUTS = {
    "everything": (by_all, jnp.array([*A, *Y0, 0.1, 1.1, 0.15, 0.4, 0.77])),
    "everything, backwards": (by_all, jnp.array([*A, *Y0, 1.1, 0.1, 0.77, 0.4, 0.15])),
    "saveat at t1": (lambda t: measure(solved(at=t[None], tspan=(0.0, t)).ys), 0.7),
    "saves after stops": (
        lambda s: measure(solved(1.0, s[0], stops=s, f=jumping, at=jnp.array([0.2, 0.6, 1.0])).ys),
        jnp.array([0.45]),
    ),
    "stops, backwards": (
        lambda s: solved(1.0, s[0], (1.0, 0.0), stops=s, f=jumping).y1,
        jnp.array([0.45]),
    ),
    "dense output": (by_dense_output, jnp.array([*A, 0.05, 0.33, 0.71])),
    "saves on the ends of steps that move": (
        lambda t: measure(solved(tspan=(t, 1.0), at=jnp.array([0.1 + 2 * 0.12, 0.1 + 5 * 0.12])).ys),
        0.1,
    ),
    "the states of steps": (lambda a: measure(solved(a=a, at="steps", max_saves=16).y1), A),
}  # fmt: skip


@pytest.mark.parametrize("name", shortly(INPUTS, "everything", "saveat at t1", "stops, backwards"))
def test_with_respect_to(name):
    loss, x = INPUTS[name]
    x = jnp.asarray(x, float)
    reverse, forward = jax.jit(lambda x: (D(loss)(x), F(loss)(x)))(x)
    np.testing.assert_allclose(reverse, difference(jax.jit(loss), x), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(forward, reverse, rtol=1e-11, atol=1e-12)


def test_adaptive_steps_agree_to_their_tolerance():
    end = lambda a: measure(
        de.solve(PROBLEM.replace(args=a), de.Tsit5(), saveat=TS, rtol=1e-11, atol=1e-11).ys
    )
    np.testing.assert_allclose(jax.jit(D(end))(A), difference(jax.jit(end), A, 1e-3), rtol=1e-6)


def test_python_numbers_of_args_and_pytrees():
    def f(t, y, args):
        return {
            "x": -args["rate"] * y["x"] * args["count"],
            "z": (args["shift"][0] + 0 * y["z"][0],),
        }

    def loss(args):
        y0 = {"x": jnp.array([1.0, 2.0]), "z": (jnp.zeros(()),)}
        y1 = de.solve(de.ODEProblem(f, y0, (0.0, 1.0), args), rtol=1e-10, atol=1e-10).y1
        return y1["x"].sum() + y1["z"][0] ** 2

    grad = D(loss, allow_int=True)({"rate": 0.5, "count": 2, "shift": (3.0,)})
    np.testing.assert_allclose(grad["rate"], -6 * np.exp(-1.0), rtol=1e-8)
    np.testing.assert_allclose(grad["shift"][0], 6.0, rtol=1e-8)


def test_complex_gradients_are_jax_s():
    spin = de.ODEProblem(
        lambda t, y, a: a * y * jnp.abs(y), jnp.array(0.5 + 0.1j), (0.0, 1.0), 0.3 + 1.0j
    )
    via = lambda a, y0: de.solve(spin.replace(args=a, y0=y0), de.RK4(), dt=DT).y1
    plain = lambda a, y0: rk4(spin.f, y0, 0.0, DT, STEPS, a)[-1]
    for f in (lambda g: lambda *x: jnp.abs(g(*x)), lambda g: lambda *x: g(*x).imag):
        ours, theirs = (jax.jit(D(f(g), (0, 1))) for g in (via, plain))
        close(ours(0.3 + 1.0j, 0.5 + 0.1j), theirs(0.3 + 1.0j, 0.5 + 0.1j))
    along = lambda g: jax.jit(lambda *x: jax.jvp(g, x, (1j, 1.0 + 0j)))
    close(along(via)(0.3 + 1.0j, 0.5 + 0.1j), along(plain)(0.3 + 1.0j, 0.5 + 0.1j))


def net_of(seed=0):
    return eqx.nn.MLP(2, 2, 8, 1, jnp.tanh, key=jax.random.key(seed))


NET_WAYS = {
    "args": lambda net: de.ODEProblem(lambda t, y, net: net(y), Y0, (0.0, 1.0), net),
    "closure": lambda net: de.ODEProblem(lambda t, y, _: net(y), Y0, (0.0, 1.0)),
    "default": lambda net: de.ODEProblem(lambda t, y, _, net=net: net(y), Y0, (0.0, 1.0)),
    "a field's attribute": lambda net: de.ODEProblem(Field(net), Y0, (0.0, 1.0)),
    "keyword": lambda net: de.ODEProblem(with_keyword(net), Y0, (0.0, 1.0)),
}


class Field(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, t, y, args):
        return self.net(y)


def with_keyword(net):
    def f(t, y, args, *, net=net):
        return net(y)

    return f


@pytest.mark.parametrize("way", NET_WAYS)
def test_a_network_wherever_it_is(way):
    plain = lambda net: measure(rk4(lambda t, y, net: net(y), Y0, 0.0, DT, STEPS, net)[-1])
    loss = lambda net: measure(de.solve(NET_WAYS[way](net), de.RK4(), dt=DT).y1)
    close(eqx.filter_grad(loss)(net_of()), eqx.filter_jit(eqx.filter_grad(plain))(net_of()))


# --- long solves ----------------------------------------------------------------------------------


def bouncy(t, y, a):
    """Its step size varies, so that some attempts are rejected."""
    return jnp.stack([y[1], a[0] * (1 - y[0] ** 2) * y[1] - a[1] * y[0]])


VDP = de.ODEProblem(bouncy, jnp.array([2.0, 0.0]), (0.0, 12.0), jnp.array([4.0, 1.0]))
LONG = jnp.linspace(0.0, 12.0, 9)


def long(x, rows=None, max_steps=2000, **options):
    a, y0 = x
    adjoint = de.Discrete(rows=rows)
    sol = de.solve(
        VDP.replace(args=a, y0=y0), de.Tsit5(), saveat=LONG, adjoint=adjoint,
        max_steps=max_steps, rtol=1e-5, atol=1e-5, **options,
    )  # fmt: skip
    return measure(sol.ys) + jnp.sum(sol.y1)


LONG_X = (VDP.args, VDP.y0)


@jax.jit
def whole(x):
    """By a tape that is long enough."""
    return D(lambda x: long(x, 2000))(x)


@pytest.mark.parametrize("rows", [4, 16, 41])
def test_a_thinned_tape_gives_the_same_gradient(rows):
    """Of 4 rows a window has more attempts than the buffer has rows, and is repeated in parts."""
    sol = de.solve(VDP, rtol=1e-5, atol=1e-5)
    assert int(sol.stats["steps"]) > 80
    assert int(sol.stats["rejected"]) > 5
    thinned = jax.jit(D(lambda x: long(x, rows, max_steps=250)))
    close(thinned(LONG_X), whole(LONG_X), rtol=1e-9, atol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [4, 16])
def test_a_thinned_tape_in_other_modes(rows):
    want = jax.jit(F(whole))(LONG_X)
    for transform in (lambda g: F(D(g)), lambda g: R(F(g))):
        thinned = jax.jit(transform(lambda x: long(x, rows, max_steps=250)))
        close(thinned(LONG_X), want, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("rows", [4, 16])
def test_a_thinned_tape_under_vmap(rows):
    """Lanes that thin once, three times and not at all; or more often, into parts of windows."""
    many = (jnp.array([[0.1, 1.0], [4.0, 1.0], [8.0, 1.0]]), jnp.stack([VDP.y0] * 3))
    thin = lambda x: long(x, rows, max_steps=250, throw=False)
    want = [whole(jax.tree.map(lambda v: v[i], many)) for i in range(3)]
    of_vmap = jax.jit(D(lambda x: jax.vmap(thin)(x).sum()))
    close(of_vmap(many), jax.tree.map(lambda *x: np.stack(x), *want), rtol=1e-7, atol=1e-7)


def test_a_thinned_tape_with_stops():
    def f(t, y, a):
        return -y + jnp.where(t < a[0], 1.0, jnp.where(t < a[1], -1.0, 3.0)) * a

    problem = de.ODEProblem(f, Y0, (0.0, 8.0), jnp.array([1.7, 4.3]))

    def loss(a, rows):
        options = {"adjoint": de.Discrete(rows=rows), "max_steps": 250}
        sol = de.solve(
            problem.replace(args=a), de.RK4(), stops=a, saveat=LONG / 2, dt=0.041, **options
        )
        return measure(sol.ys)

    want, *thinned = (jax.jit(D(lambda a, n=n: loss(a, n)))(problem.args) for n in (250, 16, 4))
    for found in thinned:
        np.testing.assert_allclose(found, want, rtol=1e-10)
    smooth = difference(jax.jit(lambda a: loss(a, 250)), problem.args, 1e-4)
    np.testing.assert_allclose(want, smooth, rtol=1e-7)


def test_a_tape_too_short_is_a_status():
    options = {"adjoint": de.Discrete(rows=8, checkpoint=False), "rtol": 1e-6, "atol": 1e-6}
    with pytest.raises(de.SolveError, match="tape"):
        D(lambda a: de.solve(VDP.replace(args=a), **options).y1.sum())(VDP.args)
    assert de.solve(VDP, **options).success, "a solve that is not differentiated needs no tape"


# --- nothing compiles or traces twice -------------------------------------------------------------


@contextlib.contextmanager
def compilations():
    """The names of what XLA compiles inside."""
    names = []

    class Listener(logging.Handler):
        def emit(self, record):
            if "Finished XLA compilation" in record.getMessage():
                names.append(record.getMessage())

    logger, listener = logging.getLogger("jax._src.dispatch"), Listener(level=logging.DEBUG)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield names
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate


class Counter:
    """Counts traces; hashable by identity, so that it is no reason to trace again."""

    def __init__(self):
        self.hits = []

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other

    def tick(self):
        self.hits.append(1)


def fresh_problem(counter, scale):
    """A new lambda at each call, closing over a new array."""

    def f(t, y, a):
        counter.tick()
        return -scale * a * y

    return lambda a, y0: de.solve(de.ODEProblem(f, y0, (0.0, 1.0), a), saveat=TS).ys.sum()


AGAIN = {
    "forward": lambda g, a: g(a, 1.0),
    "grad": lambda g, a: D(g, (0, 1))(a, 1.0),
    "jvp": lambda g, a: jax.jvp(g, (a, 1.0), (1.0, 1.0)),
    "vmap": lambda g, a: jax.vmap(g, (0, None))(a * jnp.ones(3), 1.0),
    "hessian": lambda g, a: jax.hessian(g)(a, 1.0),
    "grad of vmap": lambda g, a: D(lambda a: jax.vmap(g, (0, None))(a, 1.0).sum())(a * jnp.ones(3)),
}


@pytest.mark.parametrize("mode", shortly(AGAIN, "forward", "grad", "jvp", "vmap"))
def test_a_fresh_lambda_compiles_nothing(mode):
    """It is traced, once a call, since it may read what has changed."""
    counter = Counter()
    run = lambda scale, a: AGAIN[mode](fresh_problem(counter, jnp.asarray(scale)), a)
    run(0.5, 1.0)
    run(0.6, 1.1)  # what JAX itself keeps of eager operations
    traced = len(counter.hits)
    with compilations() as names:
        run(0.25, 2.0)
    assert names == []
    assert len(counter.hits) == traced + 1


def test_a_second_call_of_one_jitted_gradient_compiles_nothing():
    counter = Counter()
    go = jax.jit(D(lambda a, scale: fresh_problem(counter, scale)(a, 1.0)))
    go(1.0, 0.5)
    traced = len(counter.hits)
    with compilations() as names:
        go(2.0, 0.25)
    assert names == []
    assert len(counter.hits) == traced


def test_another_dt_of_as_many_steps_compiles_nothing():
    go = D(lambda a, dt: de.solve(PROBLEM.replace(args=a), de.RK4(), dt=dt).y1.sum())
    first = go(A, 0.1)
    go(A, 0.09)  # what JAX itself keeps of eager operations
    with compilations() as names:
        second = go(A, 0.08)
    assert names == []
    assert not np.array_equal(first, second)


# --- what a function closes over is an input ------------------------------------------------------


@pytest.mark.thorough
def test_closure_cells_and_defaults_differentiate():
    def in_cell(k):
        return de.solve(de.ODEProblem(lambda t, y, a: -k * y, 1.0, (0.0, 1.0)), de.RK4(), dt=DT).y1

    def in_default(k):
        return de.solve(
            de.ODEProblem(lambda t, y, a, k=k: -k * y, 1.0, (0.0, 1.0)), de.RK4(), dt=DT
        ).y1

    def in_helper(k):
        helper = lambda y: -k * y
        return de.solve(
            de.ODEProblem(lambda t, y, a: helper(y), 1.0, (0.0, 1.0)), de.RK4(), dt=DT
        ).y1

    def in_save(k):
        problem = de.ODEProblem(lambda t, y, a: -0.7 * y, 1.0, (0.0, 1.0))
        return de.solve(problem, de.RK4(), dt=DT, save=lambda t, y, a: k * y).ys[0]

    plain = lambda k: rk4(lambda t, y, a: -k * y, jnp.array(1.0), 0.0, DT, STEPS, None)[-1]
    for f in (in_cell, in_default, in_helper):
        close(D(f)(0.7), D(plain)(0.7))
        close(jax.jvp(f, (0.7,), (1.0,)), jax.jvp(plain, (0.7,), (1.0,)))
        close(jax.hessian(f)(0.7), jax.hessian(plain)(0.7), rtol=1e-11)
        close(jax.vmap(D(f))(jnp.array([0.7, 0.2])), jax.vmap(D(plain))(jnp.array([0.7, 0.2])))
    close(D(in_save)(3.0), plain(0.7))


RATE = 1.0


def decays(t, y, a):
    return -RATE * y


def test_a_changed_global_is_seen(monkeypatch):
    problem = de.ODEProblem(decays, 1.0, (0.0, 1.0))
    one = de.solve(problem, rtol=1e-8, atol=1e-8).y1
    monkeypatch.setitem(decays.__globals__, "RATE", 2.0)
    two = de.solve(problem, rtol=1e-8, atol=1e-8).y1
    np.testing.assert_allclose([one, two], np.exp([-1.0, -2.0]), rtol=1e-6)


def test_a_changed_cell_and_a_changed_attribute_are_seen():
    class Plant:
        def __init__(self):
            self.k = 1.0

        def __call__(self, t, y, a):
            return -self.k * y

        def method(self, t, y, a):
            return -self.k * y

    k, plant = 1.0, Plant()

    def f(t, y, a):
        return -k * y

    fields = (f, plant, plant.method)
    ends = [de.solve(de.ODEProblem(g, 1.0, (0.0, 1.0)), rtol=1e-8, atol=1e-8).y1 for g in fields]
    k = plant.k = 2.0
    ends += [de.solve(de.ODEProblem(g, 1.0, (0.0, 1.0)), rtol=1e-8, atol=1e-8).y1 for g in fields]
    np.testing.assert_allclose(ends, np.exp([-1.0] * 3 + [-2.0] * 3), rtol=1e-6)


def test_functions_of_equal_code_and_other_meaning_are_kept_apart():
    def make(branch):
        return lambda t, y, a: (jnp.sin if branch == "sin" else jnp.cos)(y)

    ends = [de.solve(de.ODEProblem(make(b), 0.0, (0.0, 1.0))).y1 for b in ("sin", "cos", "sin")]
    assert float(ends[0]) == float(ends[2]) == 0.0
    assert float(ends[1]) > 0.5


def test_problems_solutions_and_methods_are_pytrees_of_arrays():
    sol = de.solve(PROBLEM, saveat=TS, dense=True)
    for tree in (PROBLEM, sol, de.Tsit5(), de.PI(dtmax=0.5)):
        assert all(isinstance(x, (jax.Array, float, int)) for x in jax.tree.leaves(tree))
    grad = D(lambda problem: jnp.sum(de.solve(problem).y1))(PROBLEM)
    assert isinstance(grad, de.ODEProblem)
    np.testing.assert_allclose(
        grad.args, D(lambda a: de.solve(PROBLEM.replace(args=a)).y1.sum())(A), rtol=1e-12
    )


def test_tolerances_and_controllers_have_zero_derivatives():
    end = lambda rtol, dt0: de.solve(PROBLEM, rtol=rtol, dt0=dt0).y1.sum()
    assert D(end, (0, 1))(1e-5, 0.1) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "most"), [({}, 36), ({"max_steps": 300}, 21), ({"dt": 1e-3}, 36)]
)
def test_the_tape_of_a_large_state_is_short(options, most):
    """A megabyte a row: with no more rows than max_steps asks for, and at most 32."""
    count = 2**18
    problem = de.ODEProblem(lambda t, y, k: -k * y, np.ones(count, np.float32), (0.0, 1.0), 1.0)
    end = lambda k: jnp.sum(de.solve(problem.replace(args=k), de.Bosh3(), **options).y1)
    program = jax.jit(jax.grad(end)).lower(1.0).as_text()
    rows = [int(n) for n in re.findall(rf"tensor<(\d+)x{count}xf32>", program)]
    assert 16 < max(rows) <= most


def test_the_tape_of_a_batch_is_sized_by_all_its_lanes():
    """A megabyte a row, of 1,024 lanes: by as many rows as one state of that size."""
    lanes, count = 2**10, 2**8
    problem = de.ODEProblem(lambda t, y, k: -k * y, np.ones(count, np.float32), (0.0, 1.0), 1.0)
    end = lambda k: jnp.sum(de.solve(problem.replace(args=k), de.Bosh3()).y1)
    batch = lambda ks: jnp.sum(jax.vmap(end)(ks))
    for gradient in (jax.vmap(jax.grad(end)), jax.grad(batch)):
        program = jax.jit(gradient).lower(jnp.ones(lanes, np.float32)).as_text()
        rows = [int(n) for n in re.findall(rf"tensor<(\d+)x{count}x{lanes}xf32>", program)]
        assert 16 < max(rows) <= 36


def test_a_tape_that_is_never_thinned_has_the_rows_of_one_lane():
    """They bound the attempts: a batch holds as many as each of its solves alone."""
    lanes, count = 2**10, 2**8
    problem = de.ODEProblem(lambda t, y, k: -k * y, np.ones(count, np.float32), (0.0, 1.0), 1.0)
    whole = {"adjoint": de.Discrete(checkpoint=False), "max_steps": 200}
    end = lambda k: jnp.sum(de.solve(problem.replace(args=k), de.Bosh3(), **whole).y1)
    program = jax.jit(jax.vmap(jax.grad(end))).lower(jnp.ones(lanes, np.float32)).as_text()
    rows = [int(n) for n in re.findall(rf"tensor<(\d+)x{count}x{lanes}xf32>", program)]
    assert max(rows) in (200, 201)


@pytest.mark.parametrize("dt", [None, 0.25], ids=["controlled", "given"])
def test_what_save_closes_over_is_differentiated(dt):
    """By controlled steps and by given ones, whose tape has one leaf more."""

    def kept(w):
        decay = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
        save = lambda t, y, a: w**2 * y
        return de.solve(decay, de.Tsit5(), dt=dt, saveat=TS, save=save).ys

    w, ys = jnp.array(1.5), kept(1.0)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(kept))(w), 2 * w * ys, rtol=1e-12)


@pytest.mark.parametrize("adjoint", [de.Discrete(), de.Backsolve()], ids=["tape", "march"])
def test_what_save_closes_over_backwards(adjoint):
    """Beside what the field has of the same number, and outside of jit."""

    def kept(w):
        decay = de.ODEProblem(lambda t, y, w: -w * y, 1.0, (0.0, 1.0), w)
        save = lambda t, y, a: w**2 * y
        tight = {"rtol": 1e-8, "atol": 1e-8, "adjoint": adjoint}
        return jnp.sum(de.solve(decay, de.Tsit5(), saveat=TS, save=save, **tight).ys)

    exact = lambda w: jnp.sum(w**2 * jnp.exp(-w * TS))
    np.testing.assert_allclose(jax.grad(kept)(1.5), jax.grad(exact)(1.5), rtol=1e-6)


@pytest.mark.parametrize("adjoint", [de.Discrete(), de.Forward(), de.Gauss(), de.Backsolve()])
def test_lanes_that_differ_in_what_save_keeps_alone(adjoint):
    """The state is one for all lanes, so that it has no tangent with lanes."""

    def kept(w, c):
        decay = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0), w * c)
        sol = de.solve(decay, de.Tsit5(), saveat=TS, save=lambda t, y, a: a * y, adjoint=adjoint)
        return sol.ys

    lanes = jnp.array([1.0, 2.0])
    forward = isinstance(adjoint, (de.Discrete, de.Forward))
    jacobian = jax.jacfwd if forward else jax.jacrev
    found = jacobian(lambda w: jax.vmap(lambda c: kept(w, c))(lanes))(0.7)
    np.testing.assert_allclose(found, lanes[:, None] * kept(1.0, 1.0), rtol=1e-12)

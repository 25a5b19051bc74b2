"""Inputs: values and derivatives of the curves, and solves that find where they jump."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import (
    Akima1DInterpolator,
    CubicHermiteSpline,
    CubicSpline,
    interp1d,
    make_interp_spline,
)

import diffeq as de
from diffeq.autodiff.discontinuity_times import jumps_of, time

RNG = np.random.default_rng(0)
TS = np.sort(RNG.uniform(0.0, 4.0, 9))
XS = {"a": RNG.normal(size=9), "b": RNG.normal(size=(9, 2))}
AT = np.linspace(TS[0], TS[-1], 57)


def backward_hermite(ts, x):
    """Of which each slope is that of the line from the knot before."""
    chords = np.diff(x, axis=0) / np.diff(ts).reshape(-1, *(1,) * (x.ndim - 1))
    return CubicHermiteSpline(ts, x, np.concatenate([chords[:1], chords]))


CURVES = {
    "linear": (de.interp.Linear, lambda ts, x: interp1d(ts, x, axis=0)),
    "not-a-knot": (de.interp.Cubic, CubicSpline),
    "natural": (
        lambda ts, xs: de.interp.Cubic(ts, xs, ends="natural"),
        lambda ts, x: CubicSpline(ts, x, bc_type="natural"),
    ),
    "akima": (de.interp.Akima, Akima1DInterpolator),
    "hermite": (de.interp.Hermite, backward_hermite),
    "hold": (de.interp.Hold, lambda ts, x: interp1d(ts, x, axis=0, kind="previous")),
}


@pytest.mark.parametrize("count", [9, 4, 3, 2])
@pytest.mark.parametrize("name", CURVES)
def test_values_are_those_of_scipy(name, count):
    ours, theirs = CURVES[name]
    ts, xs = TS[:count], jax.tree.map(lambda x: x[:count], XS)
    at = AT[(ts[0] <= AT) & (ts[-1] >= AT)]
    found = ours(ts, xs)(at)
    for key, x in xs.items():
        np.testing.assert_allclose(found[key], theirs(ts, x)(at), atol=1e-13)
    ends = ours(ts, xs)(jnp.array([ts[0] - 1.0, ts[-1] + 1.0]))
    np.testing.assert_allclose(ends["b"], xs["b"][[0, -1]], atol=1e-13)  # held outside


@pytest.mark.parametrize("count", [33, 101, 500])
def test_long_tables_are_searched_in_two_counts(count):
    ts = np.cumsum(RNG.uniform(0.1, 1.0, count))
    at = np.concatenate([ts, (ts[1:] + ts[:-1]) / 2, [ts[0] - 1.0, ts[-1] + 1.0]])
    found = de.interp.Hold(ts, ts)(at)
    want = ts[np.clip(np.searchsorted(ts, at, side="right") - 1, 0, count - 1)]
    np.testing.assert_array_equal(found, want)
    padded = np.concatenate([ts, np.full(7, np.nan)])
    np.testing.assert_array_equal(de.interp.Hold(padded, padded)(at), want)


def test_a_longer_table_makes_no_longer_program():
    program = lambda n: jax.make_jaxpr(lambda ts, t: de.interp.Hold(ts, ts)(t))(
        jnp.arange(n) * 1.0, 0.5
    )
    count = lambda n: str(program(n)).count("=")
    assert count(5000) == count(50)
    assert count(50) < 2 * count(20)


@pytest.mark.parametrize("name", ["linear", "not-a-knot", "natural", "akima", "hermite"])
def test_derivatives_by_times_and_values(name):
    make, h = CURVES[name][0], 1e-6
    value = lambda ts, xs: jnp.sum(jnp.sin(make(ts, xs)(AT[3::7])))
    x = jnp.asarray(XS["b"])
    d_ts, d_xs = jax.jacrev(value, (0, 1))(jnp.asarray(TS), x)
    for i in (0, 4, 8):
        e = h * np.eye(9)[i]
        want = (value(TS + e, x) - value(TS - e, x)) / (2 * h)
        np.testing.assert_allclose(d_ts[i], want, atol=1e-7)
        e = e[:, None] * np.array([1.0, 0.0])
        want = (value(TS, x + e) - value(TS, x - e)) / (2 * h)
        np.testing.assert_allclose(d_xs[i, 0], want, atol=1e-7)


SMOOTH = {**CURVES, "linear": (de.interp.Linear, lambda ts, x: make_interp_spline(ts, x, k=1))}
del SMOOTH["hold"]


@pytest.mark.parametrize("count", [9, 2])
@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_by_time_at_knots_are_one_sided_and_whole(name, count):
    """At knots inside from the right, at the last from the left, outside zero."""
    ours, theirs = SMOOTH[name]
    ts, x = TS[:count], XS["a"][:count]
    curve, want = ours(ts, x), theirs(ts, x).derivative()(ts)
    slope = lambda t: jax.jvp(curve, (t,), (jnp.ones_like(t),))[1]
    for found in (
        jax.vmap(jax.grad(curve))(jnp.asarray(ts)),
        jnp.stack([jax.jit(jax.grad(curve))(t) for t in ts]),
        slope(jnp.asarray(ts)),
    ):
        np.testing.assert_allclose(found, want, atol=1e-12)
    beside = jnp.array([np.nextafter(ts[0], -9.0), ts[0] - 1.0, np.nextafter(ts[-1], 9.0), 9.0])
    np.testing.assert_array_equal(slope(beside), 0.0)


@pytest.mark.parametrize("count", [9, 3, 2])
@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_in_closed_form(name, count):
    """At knots inside from the right, at the last from the left, outside zero."""
    ours, theirs = SMOOTH[name]
    ts, x = TS[:count], XS["b"][:count]
    curve = ours(ts, {"x": x})
    at = np.sort(np.concatenate([AT[(ts[0] < AT) & (ts[-1] > AT)], ts]))
    np.testing.assert_allclose(
        curve.derivative(at)["x"], theirs(ts, x).derivative()(at), atol=1e-11
    )
    beside = jnp.array([ts[0] - 1.0, ts[-1] + 1e-9, 9.0])
    np.testing.assert_array_equal(curve.derivative(beside)["x"], 0.0)


@pytest.mark.parametrize("name", ["linear", "not-a-knot", "akima", "hermite"])
def test_derivatives_of_the_derivative_by_times_and_values(name):
    make, h = CURVES[name][0], 1e-6
    value = lambda ts, xs: jnp.sum(jnp.sin(make(ts, xs).derivative(AT[3::7])))
    x = jnp.asarray(XS["b"])
    d_ts, d_xs = jax.grad(value, (0, 1))(jnp.asarray(TS), x)
    for i in (0, 4, 8):
        e = h * np.eye(9)[i]
        want = (value(TS + e, x) - value(TS - e, x)) / (2 * h)
        np.testing.assert_allclose(d_ts[i], want, rtol=1e-5, atol=1e-6)
        e = e[:, None] * np.array([1.0, 0.0])
        want = (value(TS, x + e) - value(TS, x - e)) / (2 * h)
        np.testing.assert_allclose(d_xs[i, 0], want, rtol=1e-5, atol=1e-6)


def test_rectilinear_moves_time_first_and_then_the_rest():
    ts, xs = TS[:5], np.stack([XS["a"][:5], TS[:5], XS["b"][:5, 0]], 1)
    u = de.interp.Rectilinear(ts, xs, time=1)
    middle = (ts[1:] + ts[:-1]) / 2
    corners = xs[:-1].copy()
    corners[:, 1] = xs[1:, 1]
    np.testing.assert_allclose(u(ts), xs, atol=1e-14)
    np.testing.assert_allclose(u(middle), corners, atol=1e-14)
    half = np.diff(ts)[:, None] / 2
    np.testing.assert_allclose(u.derivative((ts[:-1] + middle) / 2), (corners - xs[:-1]) / half)
    np.testing.assert_allclose(u.derivative((ts[1:] + middle) / 2), (xs[1:] - corners) / half)
    np.testing.assert_allclose(u(jnp.array([ts[0] - 1.0, ts[-1] + 1.0])), xs[[0, -1]])
    later = de.interp.Rectilinear(ts, np.where(np.arange(5)[:, None] < 3, xs, 99.0), time=1)
    np.testing.assert_array_equal(
        u(jnp.linspace(ts[0], ts[2], 9)), later(np.linspace(ts[0], ts[2], 9))
    )


@pytest.mark.parametrize("count", [9, 3, 2, 1])
@pytest.mark.parametrize(
    "make", [de.interp.Linear, de.interp.Hermite, de.interp.Akima, de.interp.Rectilinear]
)
def test_padding_changes_nothing(make, count):
    """Neither values, nor derivatives by time, nor those by times and values."""

    def value(ts, xs, at):
        u = make(ts, xs)
        return jnp.sum(jnp.sin(u(at))) + jnp.sum(jnp.cos(u.derivative(at)))

    ts, xs = TS[:count], XS["b"][:count]
    at = jnp.linspace(ts[0], ts[-1], 17)
    padded = np.full(12, np.nan), np.full((12, 2), np.nan)
    padded[0][:count], padded[1][:count] = ts, xs
    whole = jax.value_and_grad(value, (0, 1))
    found, (p_ts, p_xs) = whole(*map(jnp.asarray, padded), at)
    assert not np.any(p_ts[count:])
    assert not np.any(p_xs[count:])
    if count == 1:  # one time alone: a curve without padding wants two
        np.testing.assert_allclose(found, 17 * np.sum(np.sin(xs)) + 34.0, rtol=1e-12)
        return
    want, (d_ts, d_xs) = whole(jnp.asarray(ts), jnp.asarray(xs), at)
    np.testing.assert_allclose(found, want, rtol=1e-12)
    np.testing.assert_allclose(p_ts[:count], d_ts, atol=1e-10)
    np.testing.assert_allclose(p_xs[:count], d_xs, atol=1e-10)


def test_what_jumps_has_no_derivative():
    for u in (de.interp.Hold(TS, XS), de.infusions([0.0], [1.0], 1.0)):
        with pytest.raises(TypeError, match=r"jumps and has no derivative.*Rectilinear"):
            u.derivative(1.0)


def test_the_last_knot_before_padding_is_the_last():
    padded = de.interp.Linear([0.0, 1.0, 3.0, jnp.nan], [0.0, 2.0, 3.0, jnp.nan])
    at = jnp.array([0.0, 1.0, 3.0, 3.5])
    np.testing.assert_array_equal(padded(at), [0.0, 2.0, 3.0, 3.0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(padded))(at), [2.0, 0.5, 0.5, 0.0])
    one = de.interp.Linear([1.0], [2.0])
    np.testing.assert_array_equal(jax.vmap(jax.value_and_grad(one))(at), ([2.0] * 4, [0.0] * 4))


@pytest.mark.parametrize("name", ["not-a-knot", "akima"])
def test_a_controlled_equation_by_steps_on_the_knots(name):
    """Y' = X'(t): stages are on the knots, and RK4 is Simpson's rule, exact on cubics."""
    ts = jnp.linspace(0.0, 1.0, 11)
    path = SMOOTH[name][0](ts, jnp.sin(3 * ts))
    slope = lambda t, y, path: jax.jvp(path, (t,), (jnp.ones_like(t),))[1]
    end = de.solve(de.ODEProblem(slope, 0.0, (0.0, 1.0), path), de.RK4(), dt=0.1).y1
    np.testing.assert_allclose(end, np.sin(3.0), rtol=1e-12)


def test_inputs_are_pytrees_that_vmap():
    tables = jax.vmap(de.interp.Cubic)(jnp.stack([TS, TS + 1.0]), jnp.stack([XS["a"], -XS["a"]]))
    assert len(jax.tree.leaves(tables)) == 2
    found = jax.vmap(lambda u, t: u(t))(tables, jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(found[0], -found[1], rtol=1e-12)


# --- in a solve ----------------------------------------------------------------------------------

KNOTS, LEVELS = jnp.array([0.0, 0.35, 0.8, 1.3, jnp.nan]), jnp.array([1.0, -2.0, 0.5, 3.0, 9.0])


def exact(ts, xs, t, k=1.0):
    """Y' = u(t) − k y from 0, u constant in pieces."""
    y, ends = 0.0, [*ts[1:], np.inf]
    for a, b, u in zip(ts, ends, xs, strict=True):
        if a < t:
            decay = np.exp(-k * (min(b, t) - a))
            y = y * decay + u / k * (1 - decay)
    return y


class Controlled(eqx.Module):
    u: de.interp.Hold

    def __call__(self, t, y, args):
        return self.u(t) - y


def test_jumps_are_found_in_args_in_fields_and_in_closures():
    u = de.interp.Hold(KNOTS, LEVELS)
    want = exact(KNOTS[:4], LEVELS[:4], 2.0)
    plain = lambda t, y, u: u(t) - y
    for problem in (
        de.ODEProblem(plain, 0.0, (0.0, 2.0), u),
        de.ODEProblem(lambda t, y, a: a["u"][0](t) - y, 0.0, (0.0, 2.0), {"u": [u]}),
        de.ODEProblem(lambda t, y, a: u(t) - y, 0.0, (0.0, 2.0)),
        de.ODEProblem(Controlled(u), 0.0, (0.0, 2.0)),
        de.ODEProblem(Controlled(u).__call__, 0.0, (0.0, 2.0)),
    ):
        sol = de.solve(problem, rtol=1e-9, atol=1e-9)
        assert int(sol.stats["stops"]) == 3
        np.testing.assert_allclose(sol.y1, want, rtol=1e-8)


class Wrapped(eqx.Module):
    f: Callable = eqx.field(static=True)

    def __call__(self, t, y, args):
        return self.f(t, y, args)


def jumps_in(f):
    """When a field jumps, one vector for each input that it calls."""
    jaxpr = jax.make_jaxpr(lambda t, y: f(t, y, None))(0.0, 0.0)
    return jumps_of(jaxpr, [time(jnp.float64), None]).times


def test_jumps_are_found_in_partials_and_in_wrappers():
    u = de.interp.Hold(KNOTS, LEVELS)
    plain = lambda t, y, args: u(t) - y
    by_keyword = partial(lambda t, y, args, u: u(t) - y, u=u)
    fields = (partial(Controlled.__call__, Controlled(u)), by_keyword, partial(plain))
    wrapped = (eqx.filter_jit(plain), Wrapped(plain), jax.jit(plain), jax.tree_util.Partial(plain))
    held = {None: 0, "f": [wrapped[1]]}
    in_a_dict = lambda t, y, args, of=held: of["f"][0](t, y, args)
    for f in (*fields, *wrapped, in_a_dict):
        assert len(jumps_in(f)) == 1
    sol = de.solve(de.ODEProblem(by_keyword, 0.0, (0.0, 2.0)), rtol=1e-9, atol=1e-9)
    assert int(sol.stats["stops"]) == 3
    np.testing.assert_allclose(sol.y1, exact(KNOTS[:4], LEVELS[:4], 2.0), rtol=1e-8)


def test_fixed_steps_keep_their_order():
    u = de.interp.Hold(KNOTS, LEVELS)
    problem = de.ODEProblem(lambda t, y, u: u(t) - y, 0.0, (0.0, 2.0), u)
    want = exact(KNOTS[:4], LEVELS[:4], 2.0)
    coarse, fine = (abs(de.solve(problem, de.RK4(), dt=dt).y1 - want) for dt in (0.2, 0.1))
    assert coarse < 1e-4
    assert coarse / fine > 10


def test_the_solution_differentiates_by_knots_and_levels():
    def end(ts, xs):
        u = de.interp.Hold(ts, xs)
        problem = de.ODEProblem(lambda t, y, u: u(t) - y**2, 0.1, (0.0, 2.0), u)
        return de.solve(problem, rtol=1e-10, atol=1e-10).y1

    ts, xs = KNOTS[:4], LEVELS[:4]
    d_ts, d_xs = jax.jit(jax.grad(end, (0, 1)))(ts, xs)
    for i in range(1, 4):
        e = 1e-5 * np.eye(4)[i]
        np.testing.assert_allclose(d_ts[i], (end(ts + e, xs) - end(ts - e, xs)) / 2e-5, atol=1e-7)
        np.testing.assert_allclose(d_xs[i], (end(ts, xs + e) - end(ts, xs - e)) / 2e-5, atol=1e-7)


def test_a_curve_in_args_is_prepared_once_and_differentiates_by_its_own_leaves():
    curve = de.interp.Cubic(TS, XS["a"])

    def end(curve):
        problem = de.ODEProblem(lambda t, y, u: u(t) - y, 0.0, (0.0, 4.0), curve)
        return de.solve(problem, rtol=1e-9, atol=1e-9).y1

    text = str(jax.make_jaxpr(end)(curve))
    assert text.count("scan[") <= 2  # the tridiagonal system, solved before the loop
    d = jax.grad(end)(curve)
    e = np.eye(9)[4]  # the solution is linear in it
    shifted = lambda s: end(de.interp.Cubic(TS, XS["a"] + s * e))
    np.testing.assert_allclose(d.xs[4], (shifted(1) - shifted(-1)) / 2, atol=1e-6)


def test_derivatives_by_the_knots_of_lines_with_stops_on_them():
    ts, xs = np.array([0.0, 0.7, 1.3, 2.0]), np.array([1.0, -1.0, 2.0, 0.5])

    def end(inner):
        u = de.interp.Linear(jnp.concatenate([ts[:1], inner, ts[3:]]), xs)
        problem = de.ODEProblem(lambda t, y, u: u(t) - y, 0.0, (0.0, 2.0), u)
        return de.solve(problem, de.Tsit5(), rtol=1e-9, atol=1e-9, stops=inner).y1

    def slope(inner):  # of Σ ∫ exp(s − 2) u(s) ds over the pieces, by complex steps
        value = []
        for i in (0, 1):
            t = np.array([ts[0], *inner, ts[3]], complex)
            t[1 + i] += 1e-30j
            q = np.diff(xs) / np.diff(t)
            rise = np.exp(t[1:] - 2) * (xs[1:] - q) - np.exp(t[:-1] - 2) * (xs[:-1] - q)
            value.append(rise.sum().imag / 1e-30)
        return np.array(value)

    found, hessian = jax.jit(lambda x: (jax.grad(end)(x), jax.hessian(end)(x)))(ts[1:3])
    np.testing.assert_allclose(found, slope(ts[1:3]), atol=1e-8)
    e = 1e-6 * np.eye(2)
    want = [(slope(ts[1:3] + d) - slope(ts[1:3] - d)) / 2e-6 for d in e]
    np.testing.assert_allclose(hessian, want, atol=1e-7)


def test_infusions():
    drip = de.infusions([0.0, 0.5, jnp.nan], [2.0, 1.0, 7.0], [1.0, 0.25, 1.0])
    assert [float(drip(t)) for t in (0.0, 0.5, 0.75, 1.0)] == [2.0, 3.0, 2.0, 0.0]
    problem = de.ODEProblem(lambda t, y, u: u(t) - y, 0.0, (0.0, 2.0), drip)
    sol = de.solve(problem, rtol=1e-9, atol=1e-9)
    assert int(sol.stats["stops"]) == 3
    one = lambda a, b, r: r * (np.exp(b) - np.exp(a)) * np.exp(-2.0)
    np.testing.assert_allclose(sol.y1, one(0.0, 1.0, 2.0) + one(0.5, 0.75, 1.0), rtol=1e-8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: de.interp.Linear([0.0, 0.0], [1.0, 2.0]), "ts must increase"),
        (lambda: de.interp.Cubic([0.0, jnp.nan], [1.0, 2.0]), "without NaN"),
        (lambda: de.interp.Hold([jnp.nan, 0.0], [1.0, 2.0]), "NaN is padding, at the end only"),
        (lambda: de.interp.Hold([0.0, 1.0], [1.0]), "its first axis must be that of ts, 2"),
        (lambda: de.interp.Cubic([0.0], [1.0]), "two at least"),
        (lambda: de.interp.Cubic([0.0, 1.0], [1.0, 2.0], ends="flat"), "ends is 'flat'"),
        (lambda: de.infusions([0.0], [1.0, 2.0], 1.0), "one for each of the 1 starts"),
        (lambda: de.infusions([0.0], [1.0], -1.0), "durations has a negative number"),
        (lambda: de.infusions([0.0, 2.0], [1.0, 1.0], jnp.nan), "durations is NaN for starts"),
        (
            lambda: de.infusions([0.0, 2.0], [1.0, 1.0], [1.0] * 3),
            r"durations has shape \(3,\); one for each of the 2 starts, or one for all",
        ),
        (lambda: de.infusions([0.0], [1.0], None), "durations is None; .*numbers are wanted"),
        *(
            (lambda make=make: make([0.0, 1.0], None), "xs is None; numbers are wanted, one row")
            for make in (
                de.interp.Hold, de.interp.Linear, de.interp.Hermite, de.interp.Akima,
                de.interp.Cubic, de.interp.Rectilinear,
                partial(de.interp.LogSignature, depth=1, stride=1),
            )
        ),
    ],
)  # fmt: skip
def test_refusals(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


def test_whole_numbers_are_interpolated_in_jaxs_default_precision():
    for make in (de.interp.Linear, de.interp.Cubic, de.interp.Akima):
        whole, real = (make([0, 1, 2, 4], np.array([1, 2, 4, 3], kind)) for kind in (int, float))
        at = jnp.float64(0.1)
        assert whole(at).dtype == jnp.float64
        assert whole(at) == real(at)
    start = 100_000_001  # which float32 rounds to 100,000,000
    drip = de.infusions([start], [1.0], 0.1)
    assert drip.starts[0] == start
    assert drip.durations[0] == 0.1

"""What must hold whatever the numbers: one computation written two ways gives one answer."""
# ruff: noqa: E501

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiers import shortly

import diffeq as de

TS = jnp.array([0.0, 0.3, 0.30001, 1.0, 1.7, 2.0])


def pendulum(t, y, k):
    return jnp.stack([y[1], -k * jnp.sin(y[0]) + 0.1 * jnp.cos(t)])


PROBLEM = de.ODEProblem(pendulum, jnp.array([1.0, 0.3]), (0.0, 2.0), 2.0)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def same(a, b, rtol=1e-13, atol=1e-14):
    """Equal trees, to a rounding or two: fused operations round once less."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def lane(sol, i):
    return jax.tree.map(lambda x: x[i], (sol.ts, sol.ys, sol.saved, sol.num, sol.stats, sol.status))


def whole(sol):
    return sol.ts, sol.ys, sol.saved, sol.num, sol.stats, sol.status


# --- jit and vmap ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [de.Tsit5(), de.RK4(), de.Dopri8()])
def test_jit_is_eager(method):
    options = {"dt": 0.05} if not method.adaptive else {}

    def go(k):
        return de.solve(PROBLEM.replace(args=k), method, saveat=TS, **options)

    same(jax.jit(go)(2.0), go(2.0))


def test_jit_of_a_problem_takes_it_as_a_pytree():
    go = jax.jit(lambda problem: de.solve(problem, saveat=TS).ys)
    same(go(PROBLEM), de.solve(PROBLEM, saveat=TS).ys)


def test_vmap_is_a_loop_over_lanes_that_need_very_different_steps():
    ks = jnp.array([0.1, 2.0, 4000.0])
    solve = lambda k: de.solve(PROBLEM.replace(args=k), saveat=TS, throw=False)
    many = jax.vmap(solve)(ks)
    steps = np.asarray(many.stats["steps"])
    assert steps[2] > 10 * steps[0]
    for i, k in enumerate(ks):
        one = solve(k)
        same(lane(many, i)[2:], whole(one)[2:])
        same(lane(many, i)[:2], whole(one)[:2], rtol=1e-9, atol=1e-9)


def test_vmap_over_tspan_and_saveat_with_padding():
    ends = jnp.array([1.0, 2.0, 0.5])
    times = jnp.array(
        [[0.0, 0.5, 1.0, jnp.nan], [0.1, 0.1, 1.9, 2.0], [0.25, jnp.nan, jnp.nan, jnp.nan]]
    )
    solve = lambda t1, at: de.solve(PROBLEM.replace(tspan=(0.0, t1)), saveat=at)
    many = jax.vmap(solve)(ends, times)
    for i in range(3):
        same(lane(many, i), whole(solve(ends[i], times[i])), rtol=1e-12)
    assert many.saved.tolist() == (~jnp.isnan(times)).tolist()
    assert many.num.tolist() == [3, 4, 1]
    assert bool(jnp.all(many.success))
    assert np.isnan(np.asarray(many.ys)[np.isnan(np.asarray(times))]).all()


def test_vmap_over_directions_of_time():
    tspans = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    solve = lambda tspan: de.solve(PROBLEM.replace(tspan=(tspan[0], tspan[1])), saveat=tspan)
    many = jax.vmap(solve)(tspans)
    for i in range(3):
        same(lane(many, i)[:2], whole(solve(tspans[i]))[:2], rtol=1e-12)


def jump(t, y, at):
    return jnp.where(t < at, 1.0, -2.0) * y


def test_vmap_over_stops():
    problem = de.ODEProblem(jump, 1.0, (0.0, 1.0), 0.0)
    ats = jnp.array([0.3, 0.55, 2.0])
    solve = lambda at: de.solve(problem.replace(args=at), stops=at[None], **TIGHT)
    many = jax.vmap(solve)(ats)
    for i in range(3):
        same(lane(many, i), whole(solve(ats[i])), rtol=1e-12)
    true = jnp.exp(jnp.where(ats < 1, ats - 2 * (1 - ats), 1.0))
    np.testing.assert_allclose(many.ys[:, 0], true, rtol=1e-8)
    assert many.stats["stops"].tolist() == [1, 1, 0]


def test_nested_vmap():
    ks, vs = jnp.array([0.5, 2.0]), jnp.array([0.0, 0.3, 1.0])
    end = lambda k, v: de.solve(PROBLEM.replace(args=k, y0=jnp.stack([1.0, v]))).y1
    many = jax.jit(jax.vmap(jax.vmap(end, (None, 0)), (0, None)))(ks, vs)
    single = jnp.stack([jnp.stack([end(k, v) for v in vs]) for k in ks])
    same(many, single, rtol=1e-12)


# --- time ---------------------------------------------------------------------------------------


@settings(max_examples=5)
@given(st.floats(-1.5, 1.5), st.floats(0.1, 3.0))
def test_reversal(angle, end):
    forward = de.solve(PROBLEM.replace(y0=jnp.array([angle, 0.3]), tspan=(0.0, end)), **TIGHT)
    back = de.solve(PROBLEM.replace(y0=forward.y1, tspan=(end, 0.0)), **TIGHT)
    np.testing.assert_allclose(back.y1, [angle, 0.3], atol=1e-7)
    assert float(back.t1) == 0.0


def test_backward_saves_are_those_of_forward():
    forward = de.solve(PROBLEM, saveat=TS, **TIGHT)
    back = de.solve(
        PROBLEM.replace(y0=forward.y1, tspan=(2.0, 0.0)), saveat=TS[::-1], dense=True, **TIGHT
    )
    np.testing.assert_array_equal(back.ts, TS[::-1])
    np.testing.assert_allclose(back.ys, forward.ys[::-1], atol=1e-7)
    np.testing.assert_allclose(back(TS[::-1]), back.ys, atol=1e-13)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_zero_length_returns_y0(direction):
    problem = PROBLEM.replace(tspan=(direction, direction))
    sol = de.solve(problem)
    np.testing.assert_array_equal(sol.y1, PROBLEM.y0)
    np.testing.assert_array_equal(sol.ys, PROBLEM.y0[None])
    assert bool(sol.success)
    assert int(sol.stats["steps"]) == 0
    rows = de.solve(problem, saveat=jnp.array([direction, direction]))
    np.testing.assert_array_equal(rows.ys, jnp.stack([PROBLEM.y0] * 2))
    slope = jax.grad(lambda y0: de.solve(problem.replace(y0=y0)).y1.sum())(PROBLEM.y0)
    np.testing.assert_array_equal(slope, [1.0, 1.0])
    # The end of an interval moves the state by the field, even when it has no length yet.
    end = lambda t0, t1: de.solve(problem.replace(tspan=(t0, t1))).y1
    by_t0, by_t1 = jax.jacrev(end, (0, 1))(direction, direction)
    rate = problem.f(direction, problem.y0, problem.args)
    np.testing.assert_allclose(by_t1, rate, rtol=1e-14)
    np.testing.assert_allclose(by_t0, -rate, rtol=1e-14)


@pytest.mark.parametrize(
    "go", shortly([lambda f: f, jax.jit, lambda f: lambda t: jax.vmap(f)(t[None])[0]], jax.jit)
)
def test_dense_output_of_zero_length_is_its_point(go):
    t0, y0 = jnp.array(0.4), {"x": jnp.array([1.0, 0.3])}
    tree = de.ODEProblem(lambda t, y, k: {"x": pendulum(t, y["x"], k)}, y0, (0.0, 2.0), 2.0)
    at = lambda y0, t0, s: de.solve(tree.replace(y0=y0, tspan=(t0, t0)), dense=True)(s)["x"]
    sol = go(lambda t0: de.solve(tree.replace(tspan=(t0, t0)), dense=True))(t0)
    slope = pendulum(t0, y0["x"], 2.0)
    np.testing.assert_array_equal(sol(t0)["x"], y0["x"])
    np.testing.assert_allclose(sol.derivative(t0)["x"], slope, rtol=1e-14)
    assert np.isnan(jax.jit(lambda t: sol(t))(jnp.array([0.3, 0.5]))["x"]).all()
    np.testing.assert_array_equal(jax.jacrev(at)(y0, t0, t0)["x"], np.eye(2))
    np.testing.assert_allclose(jax.jacfwd(at, 2)(y0, t0, t0), slope, rtol=1e-14)


# --- state ----------------------------------------------------------------------------------------


def test_tree_is_array():
    def field(t, y, k):
        v, inner = y["v"], y["x"][0]
        return {"v": -k * jnp.sin(inner) + 0.1 * jnp.cos(t), "x": (v,)}

    tree = de.ODEProblem(field, {"v": jnp.array(0.3), "x": (jnp.array(1.0),)}, (0.0, 2.0), 2.0)
    a, b = de.solve(tree, saveat=TS), de.solve(PROBLEM, saveat=TS)
    same(a.ys["v"], b.ys[:, 1])
    same(a.ys["x"][0], b.ys[:, 0])
    same(a.stats, b.stats)
    assert jax.tree.structure(a.y1) == jax.tree.structure(tree.y0)


def test_tolerances_may_be_prefix_trees():
    tree = de.ODEProblem(
        lambda t, y, a: (-y[0], jnp.sin(50 * t) + 0 * y[1]), (1.0, jnp.zeros(2)), (0.0, 2.0)
    )
    assert jax.tree.structure(tree.y0) == jax.tree.structure((1.0, 1.0))
    loose = de.solve(tree, atol=(1e-6, jnp.inf)).stats["steps"]
    tight = de.solve(tree, atol=(1e-6, 1e-9)).stats["steps"]
    uniform = de.solve(tree, atol=1e-6)
    same(de.solve(tree, atol=(1e-6, 1e-6)).stats, uniform.stats)
    assert int(loose) * 3 < int(tight)


@pytest.mark.parametrize("method", [de.Tsit5(), de.KenCarp4()])
def test_components_that_are_left_out_of_the_norm_do_not_thin_it(method):
    decay = lambda t, y, a: -y * jnp.sin(3 * y[0])
    alone = de.solve(de.ODEProblem(decay, jnp.ones(1), (0.0, 5.0)), method, atol=1e-6)
    # From 64 numbers on KenCarp4 keeps its matrix, and makes more iterations.
    many = de.ODEProblem(decay, jnp.ones(61), (0.0, 5.0))
    among = de.solve(many, method, atol=jnp.full(61, jnp.inf).at[0].set(1e-6))
    same(among.stats, alone.stats)
    np.testing.assert_allclose(among.y1[0], alone.y1[0], rtol=1e-10)


@pytest.mark.thorough
def test_complex_state_is_its_real_pair():
    rate = 0.2 + 3.0j
    spin = de.ODEProblem(lambda t, y, a: a * y, jnp.array([1.0 + 0.5j]), (0.0, 2.0), rate)
    sol = de.solve(spin, saveat=TS, **TIGHT)
    np.testing.assert_allclose(sol.ys[:, 0], jnp.exp(rate * TS) * (1 + 0.5j), rtol=1e-8)
    assert sol.ts.dtype == jnp.float64
    both = lambda t, y, a: {"c": a * y["c"], "r": -y["r"] * abs(y["c"])}
    mixed = de.ODEProblem(both, {"c": 1.0 + 0.5j, "r": jnp.ones(2)}, (0.0, 2.0), 3.0j)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y1 = de.solve(mixed, rtol=1e-9, atol={"c": 1e-9, "r": 1e-9}).y1
        end = lambda r: de.solve(mixed.replace(y0={"c": 1.0 + 0.5j, "r": r}), **TIGHT).y1["r"]
        slope = jax.jacrev(end)(jnp.ones(2))
    assert (y1["c"].dtype, y1["r"].dtype) == (jnp.complex128, jnp.float64)
    decay = np.exp(-2.0 * abs(1.0 + 0.5j))
    np.testing.assert_allclose(y1["r"], [decay, decay], rtol=1e-7)
    np.testing.assert_allclose(slope, decay * np.eye(2), rtol=1e-7)


@settings(max_examples=6)
@given(st.integers(-20, 20), st.integers(-20, 20))
def test_rescaled_units_give_the_same_steps(of_time, of_y):
    """Powers of two: then every rounding is the same, too."""
    s, r = 2.0**of_time, 2.0**of_y
    field = lambda t, y, units: units[1] / units[0] * pendulum(t / units[0], y / units[1], 2.0)
    base = de.ODEProblem(field, PROBLEM.y0, (0.0, 2.0), jnp.array([1.0, 1.0]))
    other = base.replace(y0=r * PROBLEM.y0, tspan=(0.0, s * 2.0), args=jnp.array([s, r]))
    # The first step is found by a rule that knows no unit of time (Hairer's), so it is given.
    a = de.solve(base, saveat=TS, rtol=1e-5, atol=1e-7, dt0=0.125)
    b = de.solve(other, saveat=s * TS, rtol=1e-5, atol=r * 1e-7, dt0=s * 0.125)
    same(a.stats, b.stats)
    same(b.ys / r, a.ys)


def test_float32_with_tolerances_below_eps_finishes_and_is_noticed_once(monkeypatch):
    problem = de.ODEProblem(pendulum, PROBLEM.y0.astype(jnp.float32), (0.0, 2.0), jnp.float32(2.0))
    monkeypatch.setattr("diffeq.validation.tolerances._noticed", set())
    with pytest.warns(
        UserWarning, match=r"rtol is 1e-12, and float32 .* 4.8e-07.*wider dtype"
    ) as one:
        sol = de.solve(problem, de.Tsit5(), rtol=1e-12, atol=1e-30, max_steps=20_000)
    assert len(one) == 1
    assert one[0].filename == __file__, "the warning is about the user's line"
    de.solve(
        problem, rtol=1e-12, atol=1e-30, max_steps=20_000
    )  # told once, and warnings are errors
    assert bool(sol.success)
    assert sol.y1.dtype == sol.t1.dtype == jnp.float32
    assert int(sol.stats["floored"]) > 0
    np.testing.assert_allclose(sol.y1, de.solve(PROBLEM, **TIGHT).y1, rtol=2e-5)


def test_float32_notices_only_what_is_below_eps():
    problem = de.ODEProblem(pendulum, PROBLEM.y0.astype(jnp.float32), (0.0, 2.0), jnp.float32(2.0))
    sol = de.solve(problem, rtol=1e-5, atol=1e-6)
    assert int(sol.stats["floored"]) == 0


# --- output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [de.Tsit5(), de.Vern7(), de.BS5(), de.RK4()])
def test_saveat_is_dense(method):
    options = TIGHT if method.adaptive else {"dt": 0.0625}
    sol = de.solve(PROBLEM, method, saveat=TS, dense=True, **options)
    np.testing.assert_allclose(sol(TS), sol.ys, rtol=0, atol=1e-13)
    inside = jnp.linspace(0.05, 1.95, 17)
    field = jax.vmap(lambda t: pendulum(t, sol(t), 2.0))(inside)
    np.testing.assert_allclose(
        sol.derivative(inside), field, atol=1e-3 if not method.adaptive else 2e-5
    )
    assert sol(0.7).shape == (2,)
    assert sol(jnp.ones((2, 3))).shape == (2, 3, 2)
    assert np.isnan(jax.jit(lambda t: sol(t))(2.5)).all()
    with pytest.raises(ValueError, match="outside of the interval"):
        sol(2.5)


def test_dense_of_a_tree_and_under_jit():
    tree = de.ODEProblem(lambda t, y, a: {"x": -y["x"]}, {"x": jnp.ones(2)}, (0.0, 1.0))
    sol = jax.jit(lambda problem: de.solve(problem, dense=True, **TIGHT))(tree)
    np.testing.assert_allclose(sol(0.5)["x"], np.exp(-0.5), rtol=1e-7)
    np.testing.assert_allclose(sol.derivative(0.5)["x"], -np.exp(-0.5), rtol=1e-5)


def test_ends_are_exact_to_the_bit():
    sol = de.solve(PROBLEM.replace(tspan=(0.1, 0.7)), saveat=jnp.array([0.1, 0.4, 0.7, 0.7]))
    np.testing.assert_array_equal(sol.ys[0], PROBLEM.y0)
    np.testing.assert_array_equal(sol.ys[2], sol.y1)
    np.testing.assert_array_equal(sol.ys[3], sol.y1)
    assert float(sol.t1) == 0.7
    alone = de.solve(PROBLEM.replace(tspan=(0.1, 0.7)))
    np.testing.assert_allclose(alone.y1, sol.y1, rtol=1e-14)


@settings(max_examples=5)
@given(st.lists(st.sampled_from(np.linspace(0, 2, 41).tolist()), min_size=5, max_size=5))
def test_saving_does_not_change_the_steps_and_duplicates_are_duplicates(times):
    times = jnp.sort(jnp.array(times))
    sol = de.solve(PROBLEM, saveat=times)
    same(sol.stats, de.solve(PROBLEM, saveat=TS[:5]).stats)
    for i in range(4):
        if times[i] == times[i + 1]:
            np.testing.assert_array_equal(sol.ys[i], sol.ys[i + 1])


def test_within_4_ulp_of_an_end_is_that_end():
    above = np.nextafter(2.0, 3.0)
    sol = de.solve(PROBLEM, saveat=np.array([-1e-17, above]))
    np.testing.assert_array_equal(sol.ys, jnp.stack([PROBLEM.y0, sol.y1]))
    # It moves with that end, as its derivative does.
    end = lambda t1, at: de.solve(PROBLEM.replace(tspan=(0.0, t1)), saveat=at, **TIGHT).ys[-1]
    by_t1, by_at = jax.jacfwd(end, (0, 1))(2.0, jnp.array([1.0, above]))
    np.testing.assert_allclose(by_t1, pendulum(2.0, end(2.0, TS), 2.0), rtol=1e-6)
    np.testing.assert_array_equal(by_at, 0.0)


@pytest.mark.parametrize("go", [lambda f: f, jax.jit])
def test_a_time_just_after_zero_is_not_zero_however_far_the_end_is(go):
    """A transient of 1e-6 in a solve to 1e11, saved at times of all magnitudes."""
    problem = de.ODEProblem(lambda t, y, a: 1.0 - y, 0.0, (0.0, 1e11))
    ts = jnp.array([1e-300, 1e-12, 1e-9, 1e-6, 1e-3, 1.0])
    early = lambda ts: de.solve(
        problem, saveat=ts, rtol=1e-8, atol=1e-20, max_steps=60, throw=False
    )
    sol = go(early)(ts)
    np.testing.assert_array_equal(sol.ts, ts)
    np.testing.assert_allclose(sol.ys[:5], -jnp.expm1(-ts[:5]), rtol=1e-7)
    state = de.advance(de.init(problem, rtol=1e-8, atol=1e-20), 1e-6)
    np.testing.assert_allclose([state.t, state.y], [1e-6, 1e-6], rtol=1e-6)


def test_unsorted_save_times_are_a_status_when_traced():
    go = jax.jit(lambda at: de.solve(PROBLEM, saveat=at))
    for at in ([0.5, 0.2], [0.5, 3.0], [jnp.nan, 0.5]):
        sol = go(jnp.array(at))
        assert int(sol.status) == de.Status.bad_times, at
        with pytest.raises(de.SolveError, match="times"):
            sol.check()


def test_nan_is_padding():
    sol = de.solve(PROBLEM, saveat=jnp.array([0.3, 1.0, jnp.nan, jnp.nan]))
    assert bool(sol.success)
    assert sol.saved.tolist() == [True, True, False, False]
    assert np.isnan(sol.ys[2:]).all()
    assert int(sol.num) == 2
    assert sol.trim().ys.shape == (2, 2)
    same(sol.ys[:2], de.solve(PROBLEM, saveat=jnp.array([0.3, 1.0])).ys)


def test_a_named_tuple_is_a_state():
    class Point(NamedTuple):
        x: float
        v: float

    problem = de.ODEProblem(lambda t, y, k: Point(y.v, -k * y.x), Point(1.0, 0.0), (0.0, 1.0), 1.0)
    end = de.solve(problem, rtol=1e-8, atol=1e-8).y1
    assert isinstance(end, Point)
    np.testing.assert_allclose(end, [np.cos(1.0), -np.sin(1.0)], rtol=1e-6)


def test_save_takes_functions_and_dicts():
    energy = lambda t, y, k: 0.5 * y[1] ** 2 - k * jnp.cos(y[0]) + t
    full = de.solve(PROBLEM, saveat=TS)
    lone = de.solve(PROBLEM, saveat=TS, save=energy)
    np.testing.assert_allclose(
        lone.ys, jax.vmap(lambda t, y: energy(t, y, 2.0))(TS, full.ys), rtol=1e-13
    )
    both = de.solve(
        PROBLEM, saveat={"a": TS, "end": None, "each": "steps"},
        save={"a": lambda t, y, k: {"angle": y[0], "count": jnp.int32(3)}},
    )  # fmt: skip
    np.testing.assert_array_equal(both.ys["a"]["angle"], full.ys[:, 0])
    assert both.ys["a"]["count"].dtype == jnp.int32
    np.testing.assert_array_equal(both.ys["end"][0], both.y1)
    assert both.ts["each"].shape[0] == int(both.stats["steps"]) + 1
    assert both.ys["each"].shape[0] == int(both.num["each"])


def test_padding_stays_beside_steps_that_are_trimmed():
    at = {"some": jnp.array([0.5, jnp.nan]), "each": "steps"}
    sol = de.solve(PROBLEM, saveat=at)
    assert sol.ys["some"].shape == (2, 2)
    assert np.isnan(sol.ys["some"][1]).all()
    assert sol.ts["each"].shape == (int(sol.num["each"]),)
    assert sol.trim().ys["some"].shape == (1, 2)


def test_steps():
    sol = de.solve(PROBLEM, saveat="steps")
    assert sol.ts.shape[0] == int(sol.stats["steps"]) + 1 == int(sol.num)
    np.testing.assert_array_equal(sol.ys[0], PROBLEM.y0)
    np.testing.assert_array_equal(sol.ys[-1], sol.y1)
    assert bool(jnp.all(jnp.diff(sol.ts) > 0))
    traced = jax.jit(lambda p: de.solve(p, saveat="steps", max_saves=64))(PROBLEM)
    assert traced.ys.shape == (64, 2)
    same(traced.trim().ys, sol.ys)
    assert np.isnan(traced.ys[~np.asarray(traced.saved)]).all()


def test_exactly_as_many_rows_as_steps_is_enough():
    problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
    sol = de.solve(problem, de.RK4(), dt=0.25, saveat="steps", max_saves=5)
    np.testing.assert_allclose(sol.ts, [0, 0.25, 0.5, 0.75, 1.0])
    few = de.solve(problem, de.RK4(), dt=0.25, saveat="steps", max_saves=4, throw=False)
    assert int(few.status) == de.Status.too_many_saves


# --- stops and fixed steps -------------------------------------------------------------------------


def test_a_dt_that_is_known_has_room_for_all_its_steps():
    sol = de.solve(PROBLEM, de.RK4(), dt=2.0 / 5000, saveat="steps", dense=True)
    assert sol.ts.shape == (5001,)
    same(sol(1.0), sol.ys[2500], rtol=1e-12)


def test_a_dt_that_is_known_has_room_for_its_steps_and_for_events():
    growth = de.ODEProblem(lambda t, y, a: y, 1.0, (0.0, 1.0))
    dose = de.doses([0.5], [1.0], ())
    sol = de.solve(growth, de.Euler(), dt=1e-5, events=dose)  # 100,000 steps, and one more
    np.testing.assert_allclose(sol.y1, np.exp(1.0) + np.exp(0.5), rtol=1e-5)


@pytest.mark.parametrize("order", [[0.3, 0.71], [0.71, 0.3, 0.3], [5.0, 0.3, -1.0, 0.71, jnp.nan]])
def test_stops_keep_the_order(order):
    def field(t, y, a):
        return jnp.where(t < 0.3, 1.0, jnp.where(t < 0.71, -2.0, 0.5)) * y

    problem = de.ODEProblem(field, 1.0, (0.0, 1.0))
    true = np.exp(0.3 - 2 * 0.41 + 0.5 * 0.29)
    with_stops = de.solve(problem, de.Tsit5(), dt=0.05, stops=jnp.array(order))
    without = de.solve(problem, de.Tsit5(), dt=0.05)
    assert abs(float(with_stops.y1) - true) < 1e-9
    assert abs(float(without.y1) - true) > 1e-4
    assert int(with_stops.stats["stops"]) == 2
    adaptive = de.solve(problem, stops=jnp.array(order), **TIGHT)
    assert abs(float(adaptive.y1) - true) < 1e-8
    assert int(adaptive.stats["rejected"]) <= 2


def test_a_field_that_includes_its_jump_is_seen_from_the_left():
    """`t >= at` and `t > at` are one input: a step to a stop never looks at the right."""
    ends = [
        de.solve(de.ODEProblem(f, 0.0, (0.0, 1.0)), de.Tsit5(), dt=0.3, stops=jnp.array([0.5])).y1
        for f in (
            lambda t, y, a: jnp.where(t >= 0.5, 7.0, 1.0),
            lambda t, y, a: jnp.where(t <= 0.5, 1.0, 7.0),
        )
    ]
    np.testing.assert_allclose(ends, 0.5 + 3.5, rtol=1e-13)


def test_stops_of_a_backward_solve():
    problem = de.ODEProblem(jump, 1.0, (1.0, 0.0), 0.4)
    sol = de.solve(problem, stops=jnp.array([0.4]), **TIGHT)
    np.testing.assert_allclose(sol.y1, np.exp(-(0.4 - 2 * 0.6)), rtol=1e-8)
    fixed = de.solve(problem, de.Tsit5(), dt=0.05, stops=jnp.array([0.4]))
    np.testing.assert_allclose(fixed.y1, np.exp(-(0.4 - 2 * 0.6)), rtol=1e-8)


def test_a_stop_at_zero_and_at_the_ends():
    """The float below 0 is no number that compares as smaller; t1 may be a jump, and t0."""
    rise = de.ODEProblem(lambda t, y, a: jnp.where(t < 0, 1.0, 5.0), 0.0, (-1.0, 1.0))
    solve = lambda *tspan: de.solve(
        rise.replace(tspan=tspan), de.Tsit5(), dt=0.3, stops=jnp.array([0.0])
    )
    for tspan, area in (
        ((-1.0, 1.0), 6.0),
        ((1.0, -1.0), -6.0),
        ((-1.0, 0.0), 1.0),
        ((0.0, -1.0), -1.0),
    ):
        np.testing.assert_allclose(solve(*tspan).y1, area, rtol=1e-13)


@pytest.mark.parametrize("tspan", [(0.0, 1.0), (1.0, 0.0)])
def test_a_stage_outside_of_its_step_does_not_see_beyond_a_stop(tspan):
    # Kvaerno5 looks at t + 1.23 dt: past 0.5, from a step that ends at 0.48.
    problem = de.ODEProblem(lambda t, y, a: jnp.where(t < 0.5, 0.0, 1.0), 0.0, tspan)
    sol = de.solve(problem, de.Kvaerno5(), dt=0.24, stops=[0.5])
    np.testing.assert_allclose(sol.y1, 0.5 * (tspan[1] - tspan[0]), rtol=1e-14)


def test_stops_padded_with_nan_land_on_the_rest():
    problem = de.ODEProblem(jump, 1.0, (0.0, 1.0), 0.45)
    sol = de.solve(problem, de.RK4(), dt=0.06, stops=jnp.array([0.45, jnp.nan]), saveat="steps")
    assert {0.45, 1.0} <= set(np.asarray(sol.ts).tolist())
    assert int(sol.stats["stops"]) == 1


@pytest.mark.parametrize(("dt", "steps"), [(0.1, 10), (0.3, 4), (1 / 3, 3), (5.0, 1), (1e-3, 1000)])
def test_fixed_dt_lands_on_t1_with_the_exact_count(dt, steps):
    sol = de.solve(de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0)), de.RK4(), dt=dt)
    assert float(sol.t1) == 1.0
    assert int(sol.stats["steps"]) == steps
    assert bool(sol.success)


def test_fixed_dt_lands_on_stops():
    problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
    sol = de.solve(problem, de.RK4(), dt=0.25, stops=jnp.array([0.1, 0.6]), saveat="steps")
    np.testing.assert_allclose(sol.ts, [0, 0.1, 0.35, 0.6, 0.85, 1.0], rtol=1e-15)
    assert {0.1, 0.6, 1.0} <= set(np.asarray(sol.ts).tolist())


def test_fixed_dt_of_a_backward_solve_and_of_a_negative_dt():
    problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (1.0, 0.0))
    ends = [de.solve(problem, de.RK4(), dt=dt).y1 for dt in (0.1, -0.1)]
    same(*ends)
    np.testing.assert_allclose(ends[0], np.e, rtol=1e-5)


def test_many_small_steps_keep_time_exact_in_float32():
    problem = de.ODEProblem(lambda t, y, a: jnp.cos(t), jnp.float32(0.0), (0.0, 1.0))
    sol = de.solve(problem, de.RK4(), dt=1e-4)
    assert int(sol.stats["steps"]) == 10_000
    assert float(sol.t1) == 1.0


def test_python_numbers_are_weak_and_arrays_are_not():
    y0 = jnp.array(1.0, jnp.float32)
    decay = lambda t, y, a: -y
    assert de.solve(de.ODEProblem(decay, y0, (0.0, 1.0))).t1.dtype == jnp.float32
    assert de.solve(de.ODEProblem(decay, y0, (0.0, np.array(1.0)))).t1.dtype == jnp.float64
    assert de.solve(de.ODEProblem(decay, y0, (0, 1))).t1.dtype == jnp.float32


def test_a_field_that_reverses_its_state_compiles():
    """XLA took minutes over these sixteen stages, each of them fused twice into the next."""

    @jax.jit
    def both(y0):
        reversing = lambda t, y, a: a * y * y[::-1]
        other = lambda t, y, a: a * y * jnp.stack([y[1], y[0]])
        ends = lambda field: de.solve(
            de.ODEProblem(field, y0, (0.0, 1.0), 0.5), de.Vern9(), dt=0.25
        ).y1  # fmt: skip
        return ends(reversing), ends(other)

    found, expected = both(jnp.array([0.3, 0.8]))
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("saveat", [None, (0.5, 1.0)])
def test_no_samples_have_no_rows_and_no_gradient(saveat):
    def solved(y0):
        problem = de.ODEProblem(lambda t, y, args: -y, y0, (0.0, 1.0))
        sol = de.solve(problem, de.Tsit5(), saveat=None if saveat is None else jnp.array(saveat))
        return sol.y1 if saveat is None else sol.ys

    none = jnp.zeros((0, 2))
    assert jax.vmap(solved)(none).shape == ((0, 2) if saveat is None else (0, 2, 2))
    assert jax.grad(lambda y0: jnp.sum(jax.vmap(solved)(y0)))(none).shape == (0, 2)

"""Steps end where an input jumps that a field calls, however it is called; and what cannot be found
is told.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tests.tiers import shortly

import diffeq as de
from diffeq.autodiff.discontinuity_times import constant_lines, jumps_of, time
from diffeq.integrator.stops import count_passed

TS, XS = jnp.array([0.0, 0.35, 0.8, 1.3]), jnp.array([1.0, -2.0, 0.5, 3.0])


def held(shift, rate=1.0, end=2.0):
    """Y' = u(rate · t − shift) − y from 0, at the end."""
    times = [0.0, *np.clip((TS[1:] + shift) / rate, 0.0, end), end]
    y = 0.0
    for a, b, u in zip(times, times[1:], XS, strict=False):
        y = u + (y - u) * np.exp(a - b)
    return y


def driven(read, args=None):
    u = de.interp.Hold(TS, XS)
    return de.ODEProblem(lambda t, y, a: read(u, t, a) - y, 0.0, (0.0, 2.0), args)


# --- at which times ------------------------------------------------------------------------------


def clipped(u, t, s):
    return u(jnp.clip(t - s, 0.1, 10.0))


def chosen(u, t, s):
    return jnp.where(t < 10.0, u(t - s), u(t))


def branched(u, t, s):
    return lax.cond(t < 10.0, lambda: u(t - s), lambda: 0.0)


def in_a_loop(u, t, s):
    return lax.fori_loop(0, 1, lambda i, x: x + u(t - s), 0.0)


def many(u, t, s):
    return u(t - jnp.stack([s, s]))[0]


def scaled(u, t, s):
    return u((2 * t - 2 * s) / 2.0)


def compiled(u, t, s):
    return jax.jit(jax.checkpoint(lambda t: u(t - s)))(t)


WAYS = [clipped, chosen, branched, in_a_loop, many, scaled, compiled]


def found(read, s=0.21):
    u = de.interp.Hold(TS, XS)
    jaxpr = jax.make_jaxpr(lambda t, s: read(u, t, s))(0.0, 0.0)
    return jumps_of(jaxpr, [time(jnp.float64), constant_lines(s)])


@pytest.mark.parametrize("read", WAYS)
def test_a_shifted_table_is_seen_to_jump_later(read):
    jumps = found(read)
    assert not jumps.hidden
    np.testing.assert_allclose(jumps.times[0][:3], TS[1:] + 0.21, rtol=1e-15)


@pytest.mark.parametrize("shift", [0.21, -0.13])
def test_fixed_steps_keep_their_order_on_shifted_tables(shift):
    problem = driven(lambda u, t, s: u(t - s), shift)
    run = lambda dt: de.solve(problem, de.RK4(), dt=dt)
    coarse, fine = (abs(run(dt).y1 - held(shift)) for dt in (0.2, 0.1))
    assert coarse < 1e-4
    assert coarse / fine > 10
    assert int(run(0.2).stats["stops"]) == 3


@pytest.mark.thorough
@pytest.mark.parametrize("read", WAYS)
def test_the_solution_is_right_by_each_way(read):
    sol = de.solve(driven(read, 0.21), de.RK4(), dt=0.1)
    assert abs(sol.y1 - held(0.21)) < 2e-6


def test_a_jump_at_zero_that_is_far_from_the_table():
    """0 is exact, and what is read there is a difference of large numbers."""
    u = de.interp.Hold([0.0, 1e3], [1.0, -1.0])
    problem = de.ODEProblem(lambda t, y, a: u(t + 1e3), 0.0, (-1.0, 1.0))
    assert abs(de.solve(problem, de.RK4(), dt=0.25).y1) < 1e-12


def test_derivatives_by_a_shift_and_a_rate():
    problem = driven(lambda u, t, a: u(a[0] * t - a[1]))
    end = lambda a: de.solve(problem.replace(args=a), de.Tsit5(), rtol=1e-9, atol=1e-9).y1
    slopes = jax.grad(end)(jnp.array([1.1, 0.21]))
    h = 1e-5
    by_rate = (held(0.21, 1.1 + h) - held(0.21, 1.1 - h)) / (2 * h)
    by_shift = (held(0.21 + h, 1.1) - held(0.21 - h, 1.1)) / (2 * h)
    np.testing.assert_allclose(slopes, [by_rate, by_shift], rtol=1e-7)


def test_an_infusion_that_is_absorbed_late():
    """The equation is y' = drip(t − lag) − k y, of which the end is a sum of exponentials."""
    drip, k, T = de.infusions([0.0, 12.0], [5.0, 2.5], 2.0), 0.3, 14.0

    def end(lag):
        problem = de.ODEProblem(lambda t, y, lag: drip(t - lag) - k * y, 0.0, (0.0, T), lag)
        return de.solve(problem, de.Tsit5(), rtol=1e-9, atol=1e-9).y1

    lag = 1.3
    first = 5.0 * (np.exp(-k * (T - lag - 2.0)) - np.exp(-k * (T - lag)))
    second = -2.5 * np.exp(-k * (T - lag - 12.0))
    np.testing.assert_allclose(jax.grad(end)(lag), first + second, rtol=1e-7)


def test_lanes_have_their_own_times():
    problem = driven(lambda u, t, s: u(t - s))
    run = jax.vmap(lambda s: de.solve(problem.replace(args=s), de.RK4(), dt=0.05).y1)
    shifts = jnp.array([-0.13, 0.0, 0.21])
    np.testing.assert_allclose(run(shifts), [held(float(s)) for s in shifts], atol=2e-7)


# --- what cannot be found ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read", [lambda u, t, s: u(t % 0.9), lambda u, t, s: u(jnp.sin(t)), lambda u, t, s: u(t * t)]
)
def test_a_time_that_is_no_line_is_told(read):
    problem = driven(read)
    with pytest.warns(UserWarning, match=r"test_jumps_of_inputs.py:\d+ at a time that is neither"):
        de.solve(problem, de.Euler(), dt=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        de.solve(problem, de.Euler(), dt=0.5, stops=[0.35])


def test_a_time_that_depends_on_the_state_is_told():
    u = de.interp.Hold(TS, XS)
    problem = de.ODEProblem(lambda t, y, a: u(t - y) - y, 0.0, (0.0, 1.0))
    with pytest.warns(UserWarning, match="interp.Hold"):
        de.solve(problem, de.Euler(), dt=0.5)


def test_a_table_that_is_not_called_costs_nothing():
    u = de.interp.Hold(TS, XS)
    problem = de.ODEProblem(lambda t, y, u: -y + 0 * u.xs[0], 1.0, (0.0, 2.0), u)
    assert int(de.solve(problem, de.Euler(), dt=0.5).stats["stops"]) == 0


# --- elsewhere ------------------------------------------------------------------------------------


def test_a_pulse_that_only_a_condition_sees():
    pulse = de.interp.Hold([0.0, 0.6180, 0.6181], [0.0, 1.0, 0.0])
    event = de.Event(lambda t, y, a: pulse(t) - 0.5, lambda t, y, a: y + 1.0, direction=1)
    sol = de.solve(de.ODEProblem(lambda t, y, a: jnp.ones_like(y), 0.0, (0.0, 1.0)), events=event)
    np.testing.assert_allclose(sol.events[0].ts, [0.6180], rtol=1e-12)
    np.testing.assert_allclose(sol.y1, 2.0, rtol=1e-12)


def delayed(history, **changes):
    whole = de.DDEProblem(
        lambda t, y, past, lag: past(t - lag) - y, None, (0.0, 2.0), 0.6, history=history,
        lags=lambda lag: lag,
    )  # fmt: skip
    return whole.replace(**changes)


STEP = de.interp.Hold([-1.0, -0.25], [1.0, 3.0])
HISTORIES = {
    "a table": lambda t, a: STEP(t),
    "a comparison": lambda t, a: jnp.where(t < -0.25, 1.0, 3.0),
    "a sign": lambda t, a: 2.0 + jnp.sign(t + 0.25),
}


@pytest.mark.parametrize("kind", shortly(HISTORIES, "a comparison"))
def test_a_history_that_jumps(kind):
    """The slope is u(t − lag), u = 1 up to −1/4 and 3 after: lag − 1/4 + 3 (3/4 − lag) from 3."""
    problem = delayed(HISTORIES[kind], f=lambda t, y, past, lag: past(t - lag) + 0 * y)
    problem = problem.replace(tspan=(0.0, 0.5))
    sol = lambda lag: de.solve(problem.replace(args=lag), de.RK4(), dt=0.125)
    np.testing.assert_allclose(sol(0.6).y1, 3.0 + 0.35 + 3 * 0.15, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(lambda lag: sol(lag).y1)(0.6), -2.0, rtol=1e-12)


@pytest.mark.thorough
def test_what_jumps_comes_back_again_after_each_lag():
    """Fixed steps keep their order where the solution has kinks of later levels."""
    problem = delayed(lambda t, a: STEP(t))
    want = de.solve(problem, de.Vern7(), rtol=1e-12, atol=1e-12).y1
    coarse, fine = (abs(de.solve(problem, de.RK4(), dt=dt).y1 - want) for dt in (0.2, 0.1))
    assert coarse < 1e-4
    assert coarse / fine > 10


# --- a start that jumps ---------------------------------------------------------------------------


def jumping(lags, f=lambda t, y, past, a: -past(t - a) * y):
    return de.DDEProblem(f, 2.0, (0.0, 1.5), 0.7, history=0.5, lags=lags)


def slope_by_lag(lag):
    """Until the lag 2 e^(−t/2), then its logarithm falls by the integral of that, up to 2 lag."""
    y = 2 * np.exp(-lag / 2)
    back = 4 * (1 - np.exp(-(1.5 - lag) / 2))
    end = y * np.exp(-back)
    return end * (-0.5 + 2 * np.exp(-(1.5 - lag) / 2))


LAGS = {"declared": lambda a: a, "not declared": (), "of the state": lambda t, y, a: a}


@pytest.mark.parametrize("lags", shortly(LAGS, "not declared"))
def test_a_jump_at_the_start_comes_back(lags):
    problem = jumping(LAGS[lags])
    end = lambda lag: de.solve(problem.replace(args=lag), de.Tsit5(), rtol=1e-9, atol=1e-9).y1
    np.testing.assert_allclose(jax.grad(end)(0.8), slope_by_lag(0.8), rtol=1e-6)


def test_a_jump_that_comes_back_at_an_unknown_time_has_no_derivative():
    lag = lambda y, a: a * (1 + 0.1 * y)
    field = lambda t, y, past, a: -past(t - lag(y, a)) * y
    run = lambda problem: jax.grad(lambda a: de.solve(problem.replace(args=a), de.Tsit5()).y1)(0.7)
    with pytest.raises(TypeError, match=r"looks back at it in .*test_jumps_of_inputs.py:\d+"):
        run(jumping((), field))


@pytest.mark.thorough
def test_a_jump_that_comes_back_by_a_lag_of_the_state_has_no_derivative():
    lag = lambda y, a: a * (1 + 0.1 * y)
    field = lambda t, y, past, a: -past(t - lag(y, a)) * y
    run = lambda problem: jax.grad(lambda a: de.solve(problem.replace(args=a), de.Tsit5()).y1)(0.7)
    declared = jumping(lambda t, y, a: lag(y, a), field)
    with pytest.raises(de.SolveError, match="has no derivative") as error:
        run(declared)
    assert error.value.status == de.Status.undifferentiable
    assert run(declared.replace(tspan=(0.0, 0.5))) == 0.0  # before it comes back


# --- many stops -----------------------------------------------------------------------------------


def test_which_stops_have_passed():
    for count in (3, 32, 33, 64, 1000):
        stops = jnp.sort(jax.random.uniform(jax.random.key(count), (count,))).at[-1].set(jnp.inf)
        ts = jnp.concatenate([stops[:-1], jnp.nextafter(stops[:-1], 0.0), jnp.array([-1.0, 2.0])])
        got = jax.vmap(lambda t, stops=stops: count_passed(stops, t))(ts)
        np.testing.assert_array_equal(got, np.searchsorted(stops, ts, side="right"))


def test_a_step_looks_at_few_of_many_stops():
    """Of a long table, no turn of the loop goes through all rows."""
    count = 4096
    u = de.interp.Hold(jnp.arange(float(count)), jnp.ones(count))
    problem = de.ODEProblem(lambda t, y, u: u(t) - y, 0.0, (0.0, 8.0), u)
    text = jax.jit(lambda u: de.solve(problem.replace(args=u), de.Tsit5()).y1).lower(u).as_text()
    body = text[text.index("stablehlo.while") :]
    wide = [line for line in body.splitlines() if f"tensor<{count - 1}xf64>" in line]
    assert not [line for line in wide if "reduce" in line or "compare" in line]

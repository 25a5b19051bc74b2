"""What an event means: where it happens, in which order, and what it leaves behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TIGHT = {"rtol": 1e-9, "atol": 1e-9, "method": de.Tsit5()}
G = 9.81
LINE = de.ODEProblem(lambda t, y, a: jnp.ones_like(y), 0.0, (0.0, 2.0))
FALL = de.ODEProblem(lambda t, y, a: jnp.stack([y[1], -G + 0 * y[1]]), [1.0, 0.0], (0.0, 3.0))
FIRST = np.sqrt(2 / G)  # when the ball of FALL hits the ground


def bounce(e=1.0):
    return de.Event(lambda t, y, a: y[0], lambda t, y, a: jnp.stack([y[0], -e * y[1]]))


def log(condition, **options):
    return de.Event(condition, terminal=False, **options)


def impacts(e, count, height=1.0):
    """When a ball hits the ground that keeps the fraction e of its speed."""
    first = np.sqrt(2 * height / G)
    return first * (1 + 2 * np.cumsum([0.0, *(e ** np.arange(1, count))]))


# --- where ---------------------------------------------------------------------------------------


def test_the_earliest_event_is_first_whatever_the_order_of_the_list():
    early, late = (de.Event(lambda t, y, a, level=level: y - level) for level in (0.5, 1.0))
    for events in ((early, late), (late, early)):
        sol = de.solve(LINE, events=events)
        assert (float(sol.t1), float(sol.y1)) == (0.5, 0.5)
        assert de.Status(int(sol.status)) == de.Status.terminated
        assert bool(sol.success)
        assert [int(e.num) for e in sol.events] == [e is early for e in events]


@pytest.mark.parametrize("width", [1e-2, 1e-4])
def test_a_pair_of_crossings_inside_one_step_is_found(width):
    dip = log(lambda t, y, a: (y - 0.4321) ** 2 - width**2)
    sol = de.solve(LINE, events=dip, dt=1.0)
    np.testing.assert_allclose(sol.events[0].ts, [0.4321 - width, 0.4321 + width], rtol=1e-12)


def test_a_crossing_that_turns_back_before_zero_is_none_and_beyond_it_two():
    osc = de.ODEProblem(lambda t, y, a: jnp.stack([y[1], -y[0]]), [0.0, 1.0], (0.0, 3.0))
    graze = lambda level: de.solve(osc, events=log(lambda t, y, a: y[0] - level), **TIGHT).events[0]
    assert int(graze(1.0 + 1e-6).num) == 0
    top = np.arcsin(1 - 1e-6)
    np.testing.assert_allclose(graze(1.0 - 1e-6).ts, [top, np.pi - top], rtol=1e-5)


def test_direction_is_along_the_solve():
    osc = de.ODEProblem(lambda t, y, a: jnp.stack([y[1], -y[0]]), [0.5, 1.0], (0.0, 12.0))
    rising, both = (
        de.solve(osc, events=log(lambda t, y, a: y[0], direction=d), **TIGHT).events[0].ts
        for d in (1, 0)
    )
    np.testing.assert_allclose(both, np.pi * np.arange(1, 4) - np.arctan(0.5), rtol=1e-7)
    np.testing.assert_allclose(rising, both[1::2], rtol=1e-9)
    back = de.solve(
        osc.replace(tspan=(0.0, -12.0)), events=log(lambda t, y, a: y[0], direction=-1), **TIGHT
    ).events[0]
    assert (back.before[:, 1] > 0).all()  # falling, backwards in time
    assert (np.diff(back.ts) < 0).all()


def test_a_start_on_zero_is_no_crossing_and_the_next_one_is_found():
    osc = de.ODEProblem(lambda t, y, a: jnp.stack([y[1], -y[0]]), [1.0, 0.0], (0.0, 10.0))
    period = de.solve(osc, events=de.Event(lambda t, y, a: y[1], direction=-1), **TIGHT).t1
    np.testing.assert_allclose(period, 2 * np.pi, rtol=1e-9)
    assert de.solve(LINE, events=de.Event(lambda t, y, a: y)).status == de.Status.success


def test_booleans_happen_when_they_become_true_and_at_t0_if_they_are():
    found = {
        0.5: (
            lambda t, y, a: y > 0.5,
            lambda t, y, a: ~(y < 0.5),
            lambda t, y, a: (y > 0.5) & (t > 0.25),
            lambda t, y, a: jnp.any(jnp.stack([y, y - 1]) > 0.5),
        ),
        0.0: (
            lambda t, y, a: y >= 0.0,
            lambda t, y, a: y > 0.0,
            lambda t, y, a: y > -1.0,
        ),
        None: (lambda t, y, a: y < 0,),
    }
    conditions = [c for some in found.values() for c in some]
    sol = de.solve(LINE, events=[log(c) for c in conditions], dt=0.7, method=de.Bosh3())
    times = [time for time, some in found.items() for _ in some]
    for record, time in zip(sol.events, times, strict=True):
        np.testing.assert_allclose(record.ts, [] if time is None else [time], atol=1e-15)
    stop = de.Event(conditions[2])
    np.testing.assert_allclose(de.solve(LINE, events=stop).t1, 0.5, atol=1e-15)


def test_a_condition_without_a_value_on_the_other_side_of_its_zero():
    down = de.ODEProblem(lambda t, y, a: -jnp.ones_like(y), 1.0, (0.0, 2.0))
    root = de.Event(lambda t, y, a: jnp.sqrt(y) - 0.01)  # NaN beyond 1
    np.testing.assert_allclose(de.solve(down, events=root, dt=0.3).t1, 1 - 1e-4, rtol=1e-12)
    edge = de.Event(lambda t, y, a: jnp.sqrt(y) + 0.01)  # NaN there, and never zero
    assert de.solve(down, events=edge, dt=0.3).status == de.Status.success


# --- what follows --------------------------------------------------------------------------------


@pytest.mark.parametrize("e", [1.0, 0.8])
def test_a_ball_bounces(e):
    sol = de.solve(FALL, events=bounce(e), saveat=jnp.linspace(0.0, 3.0, 31), dense=True)
    record, want = sol.events[0], impacts(e, 30)
    want = want[want < 3.0]
    np.testing.assert_allclose(record.ts, want, rtol=1e-12)
    np.testing.assert_allclose(record.after[:, 1], -e * record.before[:, 1], rtol=1e-14)
    assert (sol.ys[:, 0] >= -1e-12).all()
    # Dense output is right on both sides of an event, and the state after it at the event.
    for side, row in ((-1e-9, record.before), (0.0, record.after), (1e-9, record.after)):
        np.testing.assert_allclose(sol(record.ts + side), row, atol=2e-8)
    np.testing.assert_allclose(sol(sol.ts), sol.ys, atol=1e-12)


def test_a_thousand_bounces():
    problem = FALL.replace(tspan=(0.0, 2000.5 * FIRST))
    sol = de.solve(problem, events=bounce(), max_events=999, throw=False)
    np.testing.assert_allclose(sol.events[0].ts, FIRST * (1 + 2 * np.arange(999)), rtol=1e-9)
    np.testing.assert_allclose(sol.t1, FIRST * 1999, rtol=1e-9)
    assert de.Status(int(sol.status)) == de.Status.too_many_events


@pytest.mark.parametrize("e", [0.5, 0.0])
def test_a_ball_that_comes_to_rest_does_not_fall_through_the_floor(e):
    with pytest.raises(de.SolveError, match="without time going on") as error:
        de.solve(FALL, events=bounce(e))
    assert error.value.status == de.Status.zeno
    rest = FIRST * (1 + 2 * e / (1 - e))
    np.testing.assert_allclose(error.value.t, rest, rtol=1e-9)


def test_events_at_one_instant_are_applied_in_order():
    double = de.Event(lambda t, y, a: t - 1.0, lambda t, y, a: 2 * y)
    add = de.Event(lambda t, y, a: y - 1.0, lambda t, y, a: y + 1)
    for events, want in (((double, add), 3.0), ((add, double), 4.0)):
        sol = de.solve(LINE, events=events)
        np.testing.assert_allclose(sol.y1, want + 1.0, rtol=1e-14)
        assert [int(e.num) for e in sol.events] == [1, 1]
        np.testing.assert_allclose(sol.events[1].before, sol.events[0].after)


@pytest.mark.thorough
def at_zero(t0):
    return de.ODEProblem(lambda t, y, a: 0 * y, jnp.zeros(2), (t0, 2.0))


@pytest.mark.parametrize("t0", [0.0, -1.0, 1.0])
def test_a_row_shows_the_state_after_all_rounds_of_its_time(t0):
    """Also at 0, below which no number is next that XLA would not flush to it."""
    time = max(t0, 0.0)
    dose = lambda i: de.doses([time], 1.0, i)
    tenfold = de.Event(lambda t, y, a: y[0] > 0.5, lambda t, y, a: 10 * y)
    run = lambda *events: de.solve(at_zero(t0), events=events, saveat=[time]).ys[0]
    np.testing.assert_array_equal(run(dose(0), dose(1)), [1, 1])
    np.testing.assert_array_equal(run(de.doses([time, time], 1.0, 0)), [2, 0])
    np.testing.assert_array_equal(run(dose(0), tenfold), [10, 0])


def test_all_that_happens_at_the_time_of_a_terminal_event_happens():
    dose = lambda i, times=(1.0,): de.doses(list(times), 1.0, i)
    ends = de.Event(lambda t, y, a: t - 1.0)
    high = de.Event(lambda t, y, a: y[0] > 0.5)
    for events, y1 in (
        ((dose(0), dose(1), ends), [1, 1]),
        ((ends, dose(0), dose(1)), [1, 1]),
        ((dose(0, (1.0, 1.0)), ends), [2, 0]),
        ((dose(0), dose(1), high), [1, 1]),
        ((dose(0), dose(1, (1.0, 1.5)), high), [1, 1]),
    ):
        sol = de.solve(at_zero(0.0), events=events)
        np.testing.assert_array_equal(sol.y1, y1)
        assert (sol.t1, sol.status) == (1.0, de.Status.terminated)


def test_what_an_affect_makes_true_happens_at_the_same_instant():
    flow = de.ODEProblem(lambda t, y, a: jnp.array([1.0, 0.0]), [0.0, 0.0], (0.0, 2.0))
    events = (
        de.Event(lambda t, y, a: y[1] - 4.0, lambda t, y, a: y.at[1].set(0.25)),
        de.Event(lambda t, y, a: y[0] - 1.0, lambda t, y, a: y.at[1].set(5.0)),
        de.Event(lambda t, y, a: (y[1] > 0.1) & (y[1] < 1.0), lambda t, y, a: y.at[1].add(0.5)),
    )
    sol = de.solve(flow, events=events, saveat=jnp.array([0.5, 1.0, 1.5]), dense=True)
    np.testing.assert_allclose(sol.ys[:, 1], [0.0, 0.75, 0.75])  # the row is after all of them
    np.testing.assert_allclose([e.ts for e in sol.events], [[1.0]] * 3)
    np.testing.assert_allclose(sol(jnp.array([1.0 - 1e-12, 1.0]))[:, 1], [0.0, 0.75])
    ping = de.Event(lambda t, y, a: y[1] - 0.5, lambda t, y, a: y.at[1].set(0.0), direction=1)
    pong = de.Event(lambda t, y, a: y[1] - 0.25, lambda t, y, a: y.at[1].set(1.0), direction=-1)
    endless = de.solve(flow, events=(events[1], ping, pong), throw=False)
    assert de.Status(int(endless.status)) == de.Status.zeno


def test_a_vector_of_conditions_says_which():
    balls = de.ODEProblem(
        lambda t, y, a: jnp.stack([y[1], -G + 0 * y[1]]), jnp.array([[1.0, 2.0], [0.0, 0.0]]),
        (0.0, 2.0),
    )  # fmt: skip
    hit = de.Event(
        lambda t, y, a: y[0],
        lambda t, y, a, fired: jnp.stack([y[0], jnp.where(fired, -y[1], y[1])]),
    )
    record = de.solve(balls, events=hit).events[0]
    each = [impacts(1.0, 3, height) for height in (1.0, 2.0)]
    for i in (0, 1):
        found = record.ts[np.flatnonzero(record.fired[:, i])]
        np.testing.assert_allclose(found, each[i][each[i] < 2.0], rtol=1e-12)
    same = de.solve(balls.replace(y0=jnp.array([[1.0, 1.0], [0.0, 0.0]])), events=hit).events[0]
    assert int(same.num) == 4  # two at each instant, one after the other
    assert (same.fired.sum(0) == 2).all()
    np.testing.assert_allclose(same.ts[::2], same.ts[1::2], rtol=1e-13)


@pytest.mark.thorough
def test_rows_after_a_terminal_event():
    sol = de.solve(
        FALL, events=de.Event(lambda t, y, a: y[0]), saveat=jnp.linspace(0.0, 3.0, 7), dense=True
    )
    np.testing.assert_allclose(sol.t1, FIRST, rtol=1e-13)
    np.testing.assert_allclose(sol.y1, [0.0, -G * FIRST], atol=1e-12)
    assert sol.saved.tolist() == [True] + [False] * 6
    assert np.isnan(sol.ys[1:]).all()
    assert "terminated" in repr(sol)
    assert np.isnan(jax.jit(lambda t: sol(t))(1.0)).all()
    np.testing.assert_allclose(sol(sol.t1), sol.y1)
    stop = de.Event(lambda t, y, a: y[0], lambda t, y, a: 0 * y, terminal=True)
    np.testing.assert_allclose(de.solve(FALL, events=stop).y1, [0.0, 0.0])


# --- given times ---------------------------------------------------------------------------------

DECAY = de.ODEProblem(lambda t, y, k: -k * y, 0.0, (0.0, 3.0), 0.5)
TS = jnp.linspace(0.0, 3.0, 13)


def level(ts, times, amounts, k=0.5):
    ts = np.asarray(ts)[:, None]
    since = np.maximum(ts - np.asarray(times), 0)
    return np.where(ts >= np.asarray(times), amounts * np.exp(-k * since), 0).sum(1)


def test_preset_times_in_any_order_with_padding_and_at_both_ends():
    times = jnp.array([1.0, 0.0, 3.0, jnp.nan, 5.0, -1.0, 1.0])
    given = de.PresetTimes(
        times, lambda t, y, a, row: y + row["mg"], data={"mg": 2.0 ** jnp.arange(7)}
    )
    sol = de.solve(DECAY, events=given, saveat=TS, dense=True, **TIGHT)
    want = level(TS, [1.0, 0.0, 3.0, 1.0], [1.0, 2.0, 4.0, 64.0])
    np.testing.assert_allclose(sol.ys, want, rtol=1e-8)
    np.testing.assert_allclose(sol(TS), want, rtol=1e-8)
    np.testing.assert_allclose(sol.y1, want[-1], rtol=1e-8)
    assert sol.events[0].ts.tolist() == [0.0, 1.0, 1.0, 3.0]
    assert int(sol.stats["events"]) == 4


def test_schedules_of_different_length_vmap():
    times = jnp.array([[0.5, 1.0, jnp.nan], [0.0, 1.0, 2.0], [jnp.nan] * 3])
    amounts = jnp.arange(1.0, 10.0).reshape(3, 3)

    def rows(times, amounts):
        return de.solve(DECAY, events=de.doses(times, amounts, ()), saveat=TS, **TIGHT)

    sol = jax.vmap(rows)(times, amounts)
    for i in range(3):
        known = ~np.isnan(times[i])
        np.testing.assert_allclose(
            sol.ys[i], level(TS, times[i][known], amounts[i][known]), atol=1e-8
        )
    assert sol.events[0].num.tolist() == [2, 3, 0]


def test_periodic_times_do_not_drift():
    more = lambda t, y, a: y + 1.0
    sol = de.solve(DECAY, events=de.Periodic(0.1, more), **TIGHT)
    times = [k * 0.1 if k < 30 else 3.0 for k in range(1, 31)]
    np.testing.assert_allclose(sol.events[0].ts, times, rtol=2.3e-16, atol=0.0)  # one ulp
    sol = de.solve(DECAY, events=de.Periodic(1.0, more, phase=0.0), saveat=TS, **TIGHT)
    np.testing.assert_allclose(sol.ys, level(TS, [0.0, 1.0, 2.0, 3.0], [1.0] * 4), rtol=1e-8)


def test_doses_find_their_place():
    y0 = {"gut": jnp.zeros(2), "blood": (0.0, 0.0)}
    rest = de.ODEProblem(lambda t, y, a: jax.tree.map(jnp.zeros_like, y), y0, (0.0, 1.0))
    for into, read in (
        (("gut", 1), lambda y: y["gut"][1]),
        (("blood", 0), lambda y: y["blood"][0]),
        (lambda y: y["gut"], lambda y: y["gut"][0]),
    ):
        assert float(read(de.doses([0.5], 3.0, into).affect(0.5, y0, None, 3.0))) == 3.0
    with pytest.raises(TypeError, match="into is 'liver'; y has no such component"):
        de.solve(rest, events=de.doses([0.5], 3.0, "liver"))


def test_after_steps():
    still = de.AfterStep(lambda t, y, k: jnp.abs(y) < 1e-3)
    sol = de.solve(DECAY.replace(y0=1.0, tspan=(0.0, 1e6)), events=still)
    assert de.Status(int(sol.status)) == de.Status.terminated
    assert 1e-5 < sol.y1 < 1e-3
    lift = de.AfterStep(lambda t, y, k: y < 0.5, lambda t, y, k: 2 * y)
    sol = de.solve(DECAY.replace(y0=1.0), de.RK4(), dt=0.25, events=lift)
    np.testing.assert_allclose(sol.events[0].ts, [1.5, 3.0])
    np.testing.assert_allclose(sol.y1, 4 * np.exp(-1.5), rtol=1e-5)


# --- everything that can be solved ---------------------------------------------------------------

MOTION = de.SecondOrderProblem(lambda t, x, v, a: -G + 0 * x, 1.0, 0.0, (0.0, 3.0))
ENERGY = de.HamiltonianProblem(
    de.Separable(lambda t, p, a: p**2 / 2, lambda t, q, a: G * q), 1.0, 0.0, (0.0, 3.0)
)
SPLIT = de.SplitODEProblem(
    lambda t, y, a: {"x": y["v"], "v": 0 * y["v"]},
    lambda t, y, a: {"x": 0 * y["x"], "v": -G + 0 * y["v"]},
    {"x": 1.0, "v": 0.0},
    (0.0, 3.0),
)


@pytest.mark.parametrize(
    ("problem", "method", "options"),
    [
        (MOTION, de.DPRKN6(), {}),
        (ENERGY, de.VelocityVerlet(), {"dt": 0.05}),
        (SPLIT, None, {}),
    ],
)
def test_every_kind_of_problem(problem, method, options):
    """Its polynomial is exact for a ball, so that impacts are, whatever the steps are."""
    tree = problem is SPLIT
    height = (lambda t, y, a: y["x"]) if tree else (lambda t, y, a: y[0])
    affect = (
        (lambda t, y, a: {"x": y["x"], "v": -y["v"]}) if tree else (lambda t, y, a: (y[0], -y[1]))
    )
    record = de.solve(problem, method, events=de.Event(height, affect), **options).events[0]
    np.testing.assert_allclose(record.ts, impacts(1.0, 3), rtol=1e-12)


@pytest.mark.thorough
def test_backwards_in_float32_and_complex():
    thrown = FALL.replace(y0=[1.0, 3.0], tspan=(0.0, -2.0))
    speed = np.sqrt(9 + 2 * G)
    first = (3 - speed) / G
    back = de.solve(thrown, events=bounce())
    np.testing.assert_allclose(back.events[0].ts, [first, first - 2 * speed / G], rtol=1e-12)
    doses = de.doses([1.0, 3.0, 2.0], [1.0, 10.0, 100.0], ())
    up = de.solve(DECAY.replace(tspan=(3.0, 0.0)), events=doses, **TIGHT)
    np.testing.assert_allclose(up.y1, 10 * np.exp(1.5) + 100 * np.exp(1.0) + np.exp(0.5), rtol=1e-8)

    single = FALL.replace(y0=jnp.array([1.0, 0.0], jnp.float32), tspan=(0.0, 20.0))
    record = de.solve(single, events=bounce()).events[0]
    assert record.ts.dtype == jnp.float32
    np.testing.assert_allclose(record.ts, impacts(1.0, int(record.num)), rtol=1e-3)

    spin = de.ODEProblem(lambda t, z, a: 1j * z, 1.0 + 0j, (0.0, 10.0))
    turn = de.Event(lambda t, z, a: z.real, lambda t, z, a: 2 * z, direction=-1)
    sol = de.solve(spin, events=turn, **TIGHT)
    np.testing.assert_allclose(sol.events[0].after, [2j, 4j], atol=1e-8)


@pytest.mark.thorough
def test_lanes_have_events_of_their_own_and_equal_a_loop():
    lanes = jnp.array([0.6, 0.75, 0.9])

    def one(e, terminal):
        hit = de.Event(
            lambda t, y, e: y[0], lambda t, y, e: jnp.stack([y[0], -e * y[1]]), terminal=terminal
        )
        problem = FALL.replace(args=e, tspan=(0.0, 1.0), y0=jnp.stack([e, 0 * e]))
        return de.solve(problem, events=hit, saveat=jnp.linspace(0.0, 1.0, 5), max_events=8)

    sol = jax.jit(jax.vmap(lambda e: one(e, False)))(lanes)
    for i, e in enumerate(lanes):
        alone = one(e, False)
        np.testing.assert_allclose(sol.ys[i], alone.ys, atol=1e-12)
        np.testing.assert_allclose(sol.y1[i], alone.y1, atol=1e-12)
        count = int(alone.events[0].num)
        assert int(sol.events[0].num[i]) == count
        np.testing.assert_allclose(sol.events[0].ts[i, :count], alone.events[0].ts, rtol=1e-12)
        assert np.isnan(sol.events[0].ts[i, count:]).all()
    ended = jax.jit(jax.vmap(lambda e: one(e, True)))(lanes)
    np.testing.assert_allclose(ended.t1, np.sqrt(2 * lanes / G), rtol=1e-12)
    assert (ended.status == de.Status.terminated).all()


@pytest.mark.thorough
def test_a_solve_by_hand_stops_at_events():
    state = de.init(FALL, events=bounce(0.5))
    times = []
    while state.t < 1.0:
        state = de.step(state)
        times += [float(state.t)] if abs(state.y[0]) < 1e-12 else []
    np.testing.assert_allclose(times, impacts(0.5, 3), rtol=1e-12)
    there = de.advance(de.init(FALL, events=bounce(0.5)), 0.6)
    since, speed = 0.6 - FIRST, G * FIRST / 2
    np.testing.assert_allclose(there.y, [speed * since - G * since**2 / 2, speed - G * since])
    dosed = de.init(DECAY, events=de.doses([0.0, 1.0, 1.0], [1.0, 2.0, 4.0], ()), **TIGHT)
    np.testing.assert_allclose(de.advance(dosed, 0.0).y, 1.0)
    np.testing.assert_allclose(de.advance(dosed, 1.0).y, np.exp(-0.5) + 6.0, rtol=1e-8)
    ended = de.step(de.init(FALL, events=de.Event(lambda t, y, a: y[0]), dt0=1.0))
    assert de.Status(int(ended.status)) == de.Status.terminated
    np.testing.assert_allclose(de.step(ended).t, FIRST)


def primitives(jaxpr):
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            for part in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(part, "jaxpr", part)
                found |= primitives(inner) if hasattr(inner, "eqns") else set()
    return found


def test_a_plain_solve_has_nothing_of_events_in_it():
    state = de.init(DECAY)
    assert jax.tree.leaves((state.inner.events, state.inner.held)) == []

    def used(**options):
        f = lambda k: de.solve(DECAY.replace(y0=1.0, args=k), saveat=TS, **options).ys
        return primitives(jax.make_jaxpr(lambda k: jax.jvp(f, (k,), (k,)))(0.5).jaxpr)

    only = {"cumsum", "nextafter"}
    assert only <= used(events=log(lambda t, y, k: y - 0.5))
    assert not only & used()


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: de.Event(3.0), TypeError, "condition is 3.0; a function"),
        (lambda: de.Event(lambda t, y, a: y, 7), TypeError, "affect is 7; a function"),
        (lambda: de.Event(lambda t, y, a: y, direction=2), ValueError, "direction is 2"),
        (lambda: de.Event(lambda t, y, a: y, terminal=1), TypeError, "terminal is 1"),
        (lambda: de.PresetTimes("now", lambda t, y, a: y), TypeError, "times is 'now'"),
        (lambda: de.PresetTimes([[1.0]], lambda t, y, a: y), ValueError, "shape .1, 1."),
        (
            lambda: de.PresetTimes([1.0], lambda t, y, a, r: y, data=jnp.ones(2)),
            ValueError,
            "one row for each of the 1 times",
        ),
        (lambda: de.Periodic(0.0, lambda t, y, a: y), ValueError, "period is 0.0"),
        (lambda: de.Event, TypeError, "is the class Event; an instance"),
        (lambda: lambda t, y, a: y, TypeError, "an event is wanted, such as de.Event"),
        (lambda: de.Event(lambda t, y, a: jnp.ones((2, 2))), TypeError, "one number is wanted"),
        (lambda: de.Event(lambda t, y, a: None), TypeError, "condition returned None"),
        (lambda: de.Event(lambda t, y, a: 1), TypeError, "returned dtype int"),
        (lambda: de.Event(lambda t, y, a: y[0] == 1.0), TypeError, "Return a - b"),
        (lambda: de.Event(lambda t, y, a: y, direction=(1, -1, 0)), ValueError, "direction has 3"),
        (
            lambda: de.Event(lambda t, y, a: y[0], lambda t, y, a: y[0]),
            TypeError,
            r"events\[0\].affect returned shape \(\); y has shape \(2,\)",
        ),
        (
            lambda: de.Event(lambda t, y, a: y[0], lambda t, y, a: y * 1j),
            TypeError,
            "affect returned dtype complex128; y has dtype float64 there, and an event may not",
        ),
        (
            lambda: de.Event(lambda t, y, a: y[0], lambda t, y, a: {"y": y}),
            TypeError,
            "affect returned {'y'|affect returned {y",
        ),
        (lambda: de.Event(lambda y, t, a: y[0]), TypeError, "does not have t first"),
        (lambda: de.AfterStep(lambda t, y, a: y[0]), TypeError, "booleans are wanted"),
    ],
)
def test_refusals_name_what_came_and_what_was_wanted(make, error, words):
    with pytest.raises(error, match=words):
        de.solve(FALL, events=make())


def test_the_time_of_an_opaque_boolean_has_no_derivative():
    stop = de.Event(lambda t, y, a: (y > 0.5) & (t > 0.1))
    with pytest.raises(TypeError, match=r"jnp.minimum\(a - b, c - d\)"):
        jax.grad(lambda y0: de.solve(LINE.replace(y0=y0), events=stop).t1)(0.0)


def test_other_adjoints_than_the_tape_are_refused():
    stop = de.Event(lambda t, y, a: y - 0.5)
    with pytest.raises(TypeError, match="Gauss does not serve events=; those that do: Discrete"):
        de.solve(LINE, events=stop, adjoint=de.Gauss())
    held = LINE.replace(f=lambda t, y, a: [1.0, None], y0=[0.0, de.hold(1)])
    with pytest.raises(TypeError, match="Forward does not serve leaves of y0 that are held"):
        de.solve(held, adjoint=de.Forward())

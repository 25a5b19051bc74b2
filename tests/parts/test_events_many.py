"""Crossings that are many in a step, or at its end; events that are many; and doses that miss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

LINE = de.ODEProblem(lambda t, y, a: jnp.ones_like(y), 0.0, (0.0, 10.0))


def log(condition, **options):
    return de.Event(condition, terminal=False, **options)


def times(*conditions, problem=LINE, **options):
    sol = de.solve(problem, options.pop("method", de.RK4()), events=conditions, **options)
    return [np.asarray(record.ts) for record in sol.events]


# --- many in a step -------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [8.0, 10.0, 0.7])
def test_every_zero_of_a_sine_is_found(dt):
    """Also where the places that are looked at first are zeros, all of them."""
    (found,) = times(log(lambda t, y, a: jnp.sin(2 * jnp.pi * (t - 0.1234))), dt=dt)
    np.testing.assert_allclose(found, 0.1234 + np.arange(20) / 2, rtol=1e-12)


def test_dips_below_zero_that_are_narrow_and_many():
    """Two crossings a period, a thousandth of it apart; and a level that is never reached."""
    wave = lambda level: lambda t, y, a: jnp.sin(2 * jnp.pi * t) + level
    below, above = times(log(wave(1 - 1e-5)), log(wave(1 + 1e-5)), dt=10.0)
    half = np.arccos(1 - 1e-5) / (2 * np.pi)
    want = (np.arange(10)[:, None] + 0.75 + np.array([-half, half])).ravel()
    np.testing.assert_allclose(below, want, rtol=1e-9)
    assert above.size == 0


@pytest.mark.thorough
def test_a_polynomial_with_eight_roots_in_a_step():
    roots = np.array([0.5, 0.50001, 2.0, 2.001, 3.3, 7.77, 7.770001, 9.9])
    product = lambda t, y, a: jnp.prod(y - roots)
    (found,) = times(log(product), dt=10.0)
    np.testing.assert_allclose(found, roots, rtol=1e-9)
    rising, falling = times(log(product, direction=1), log(product, direction=-1), dt=10.0)
    np.testing.assert_allclose(rising, roots[1::2], rtol=1e-9)
    np.testing.assert_allclose(falling, roots[::2], rtol=1e-9)


@pytest.mark.thorough
def test_fast_conditions_on_controlled_steps_and_in_lanes():
    wave = lambda w: log(lambda t, y, a: jnp.sin(2 * jnp.pi * w * (t - 0.0123)))
    for w in (1, 10):
        (found,) = times(wave(w), method=de.Tsit5())
        assert len(found) == 20 * w
    run = lambda w: de.solve(LINE, de.Tsit5(), events=wave(w)).events[0].num
    assert jax.vmap(run)(jnp.array([1.0, 2.0, 5.0])).tolist() == [20, 40, 100]


def test_the_matrices_of_polynomials():
    from diffeq.events.locate import _AT_BETWEEN, _BETWEEN, _COEFFICIENTS, _NODES

    for power in range(9):  # both matrices are exact for polynomials of degree 8
        np.testing.assert_allclose(_AT_BETWEEN @ _NODES**power, _BETWEEN**power, atol=1e-13)
    t = np.array([0.1, 0.77])
    values = np.cos(3 * _NODES)
    binomial = [1, 8, 28, 56, 70, 56, 28, 8, 1]
    terms = [c * t**i * (1 - t) ** (8 - i) for i, c in enumerate(binomial)]
    np.testing.assert_allclose(_COEFFICIENTS @ values @ terms, np.cos(3 * t), atol=1e-6)


# --- at the end of one ----------------------------------------------------------------------------

AWAY = de.PresetTimes([1.0], lambda t, y, a: y - 5.0)


@pytest.mark.parametrize("first", [True, False])
def test_an_event_at_a_time_whose_affect_moves_the_state_away(first):
    reached = lambda **options: de.Event(lambda t, y, a: y - 1.0, direction=1, **options)
    events = lambda event: (event, AWAY) if first else (AWAY, event)
    problem = LINE.replace(tspan=(0.0, 2.0))
    sol = de.solve(problem, de.Tsit5(), events=events(reached(terminal=False)))
    np.testing.assert_allclose([e.ts[0] for e in sol.events], 1.0, rtol=1e-14)
    assert [int(e.num) for e in sol.events] == [1, 1]
    np.testing.assert_allclose(sol.y1, -3.0, rtol=1e-14)
    ended = de.solve(problem, de.Tsit5(), events=events(reached()))
    assert ended.status == de.Status.terminated
    np.testing.assert_allclose(ended.t1, 1.0, rtol=1e-14)


def test_an_event_that_is_near_a_given_time_is_not_at_it():
    problem = LINE.replace(tspan=(0.0, 2.0))
    for level, count in ((1.0 + 1e-9, 0), (1.0 - 1e-9, 1)):
        sol = de.solve(
            problem, de.Tsit5(), events=(AWAY, log(lambda t, y, a, x=level: y - x, direction=1))
        )
        assert int(sol.events[1].num) == count


# --- events that are many, or constant ------------------------------------------------------------


def test_a_period_is_known_to_come_often():
    count = de.Periodic(0.001, lambda t, y, a: y + 1)
    problem = de.ODEProblem(lambda t, y, a: 0 * y, 0.0, (0.0, 3.0))
    sol = de.solve(problem, de.Euler(), dt=0.5, events=count)
    assert len(sol.events[0].ts) == int(sol.events[0].num) == int(sol.y1) == 3000
    few = de.solve(problem, de.Euler(), dt=0.5, events=count, max_events=10, throw=False)
    assert few.status == de.Status.too_many_events


TURN = de.ODEProblem(lambda t, y, w: w * jnp.stack([-y[1], y[0]]), [1.0, 0.0], (0.0, 60.0), 1.0)
ROUND = de.AfterStep(lambda t, y, w: True, lambda t, y, w: y / jnp.linalg.norm(y))


def test_a_projection_after_each_step_goes_on_behind_its_record():
    run = lambda w: de.solve(TURN.replace(args=w), de.RK4(), dt=0.05, events=ROUND, max_events=100)
    sol = run(1.0)
    assert (int(sol.events[0].num), len(sol.events[0].ts)) == (1200, 100)
    np.testing.assert_allclose(sol.events[0].ts, 0.05 * np.arange(1, 101), rtol=1e-12)
    np.testing.assert_allclose(sol.y1, [np.cos(60.0), np.sin(60.0)], atol=1e-5)
    assert int(jax.vmap(run)(jnp.array([0.5])).events[0].num[0]) == 1200


@pytest.mark.thorough
def test_a_projection_after_each_step_differentiates():
    end = lambda w: de.solve(TURN.replace(args=w), de.RK4(), dt=0.05, events=ROUND).y1[0]
    np.testing.assert_allclose(jax.grad(end)(1.0), -60 * np.sin(60.0), rtol=1e-4)


@pytest.mark.parametrize(("always", "count"), [(True, 1), (False, 0), (2.0, 0)])
def test_conditions_that_are_constants(always, count):
    problem = LINE.replace(tspan=(0.0, 1.0))
    event = de.Event(lambda t, y, a: always, lambda t, y, a: y + 1.0)
    sol = de.solve(problem, de.Euler(), dt=0.5, events=event)
    assert int(sol.events[0].num) == count
    np.testing.assert_allclose(sol.y1, 1.0 + count)


# --- doses that miss ------------------------------------------------------------------------------

TWO = de.ODEProblem(lambda t, y, a: 0 * y, [0.0, 0.0], (0.0, 1.0))


def dosed(into):
    return de.solve(TWO, de.Euler(), dt=1.0, events=de.doses([0.0], [100.0], into=into)).y1


@pytest.mark.parametrize("into", [2, 7, -3, (2,), np.int64(2)])
def test_a_dose_into_a_component_that_is_not_there(into):
    with pytest.raises(TypeError, match=r"y has no such component: \(2,\).*NONMEM's CMT"):
        dosed(into)


@pytest.mark.parametrize("into", [True, False, None, (0, None), [0]])
def test_a_dose_into_what_is_no_place(into):
    with pytest.raises(TypeError, match="an index, a key"):
        dosed(into)


def test_a_dose_by_a_function_into_an_array():
    with pytest.raises(TypeError, match="into=0"):
        dosed(lambda y: y[0])


def test_where_a_dose_goes():
    assert dosed(-1).tolist() == dosed(np.int32(1)).tolist() == [0.0, 100.0]
    with pytest.raises(TypeError, match="no such component"):
        dosed(1.0)  # equal to 1, and no index


# --- advice ---------------------------------------------------------------------------------------


SLIDING = {
    "one": lambda t, y, a: -jnp.sign(y) + 0.3,
    "one of two": lambda t, y, a: jnp.stack([0 * y[0] + 100.0, -jnp.sign(y[1]) + 0.3]),
}


@pytest.mark.parametrize("kind", SLIDING)
def test_a_sliding_mode_is_named(kind):
    y0 = jnp.ones(()) if kind == "one" else jnp.ones(2)
    problem = de.ODEProblem(SLIDING[kind], y0, (0.0, 5.0))
    with pytest.raises(de.SolveError, match="sliding mode"):
        de.solve(problem, de.Tsit5(), max_steps=2000)


def test_a_long_solve_is_no_sliding_mode():
    swing = de.ODEProblem(lambda t, y, a: jnp.stack([y[1], -1e6 * y[0]]), [1.0, 0.0], (0.0, 50.0))
    with pytest.raises(de.SolveError, match="Give more with max_steps"):
        de.solve(swing, de.Tsit5(), max_steps=1000)

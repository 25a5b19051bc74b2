"""Derivatives through events: of their times, of states and of parameters, in every mode."""
# ruff: noqa: B023

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TIGHT = {"rtol": 1e-10, "atol": 1e-10, "method": de.Tsit5()}
G = 9.81


def close(a, b, rtol=1e-6, atol=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def differences(f, x, h=1e-5):
    """The Jacobian by central differences."""
    rows = [(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))]
    return np.stack(rows, axis=-1)


# --- against formulas ----------------------------------------------------------------------------

BOUNCE = de.Event(lambda t, y, a: y[0], lambda t, y, a: jnp.stack([y[0], -a[0] * y[1]]))
FALL = de.ODEProblem(
    lambda t, y, a: jnp.stack([y[1], -G + 0 * y[1]]),
    lambda a: jnp.stack([a[1], 0 * a[1]]),
    (0.0, 3.0),
)
BALL = jnp.array([0.8, 1.0])  # restitution and height


def height(a):
    """Exact: a parabola. The tape is so short that windows are run again."""
    return de.solve(
        FALL.replace(args=a), de.Bosh3(), events=BOUNCE, max_events=8, max_steps=64,
        adjoint=de.Discrete(rows=8),
    ).y1[0]  # fmt: skip


def exact_height(a, bounces=6, end=3.0):
    e, h = a
    speed = jnp.sqrt(2 * G * h)
    t = speed / G
    for _ in range(bounces - 1):
        speed = e * speed
        t = t + 2 * speed / G
    left = end - t
    return e * speed * left - G * left**2 / 2


def both_balls(f):
    return lambda a: jnp.sum(jnp.sin(jax.vmap(f)(jnp.stack([a, a * 1.01]))))


@pytest.mark.thorough
def test_two_bouncing_balls_twice_in_reverse():
    twice = lambda f: jax.jit(jax.jacrev(jax.grad(both_balls(f))))
    close(twice(height)(BALL), twice(exact_height)(BALL), 1e-8, 1e-8)


def test_spike_times_of_an_integrate_and_fire_neuron():
    spike = de.Event(lambda t, v, i: v - 1.0, lambda t, v, i: 0.0, direction=1)
    neuron = de.ODEProblem(lambda t, v, i: i - v, 0.0, (0.0, 5.0), 1.5)

    def times(current):
        record = de.solve(neuron.replace(args=current), events=spike, max_events=8, **TIGHT).events
        return record[0].ts[:4]

    exact = lambda i: jnp.arange(1, 5) * jnp.log(i / (i - 1))
    both = lambda f: jax.jit(lambda i: jax.jvp(f, (i,), (1.0,)))(1.5)
    close(both(times), both(exact), 1e-7, 1e-8)


def test_a_stop_time():
    """Y' = a stops at 1/a; a boolean is differentiated as the comparison that it is."""
    line = de.ODEProblem(lambda t, y, a: a, 0.0, (0.0, 5.0), 1.0)
    above = de.Event(lambda t, y, a: ~(y <= 1.0))
    stop = lambda a: de.solve(line.replace(args=a), de.Heun(), events=above).t1
    found = jax.jit(lambda a: jax.jvp(jax.value_and_grad(stop), (a,), (1.0,)))(1.0)
    close(found, [1.0, -1.0, -1.0, 2.0], 1e-9)


HALVED = de.Event(lambda t, y, k: y - 0.5, lambda t, y, k: 0.9 * y)
LANES = jnp.array([0.5, 1.0])  # the event happens in the second one alone


def decayed(k, t, *, starts=False, events=HALVED):
    span = (t - 0.5, 1.0) if starts else (0.0, t)
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, span, k)
    return de.solve(problem, de.Heun(), events=events, dt=0.2).y1


def single_gradients(f):
    single = jax.jit(jax.grad(f))
    want = np.stack([single(1.3, t) for t in LANES])
    assert np.isfinite(want).all()
    assert want.all()
    return want


def vmap_of_grad(f):
    return jax.jit(jax.vmap(jax.grad(f), (None, 0)))(1.3, LANES)


def test_lanes_of_the_end_of_a_span():
    """The direction of time is then a number of each lane, on which the condition depends."""
    close(vmap_of_grad(decayed), single_gradients(decayed), 1e-12, 1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("starts", [False, True], ids=["t1", "t0"])
def test_lanes_of_an_end_of_a_span_in_every_mode(starts):
    f = partial(decayed, starts=starts)
    want, lanes = single_gradients(f), jax.vmap(f, (None, 0))
    summed = jax.jit(jax.grad(lambda k: jnp.sum(lanes(k, LANES))))(1.3)
    forward = jax.jit(jax.jacfwd(lanes))(1.3, LANES)
    close((vmap_of_grad(f), summed, forward), (want, want.sum(), want), 1e-12, 1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "events",
    [
        de.Event(lambda t, y, k: y - 0.4 * k, terminal=True),
        de.PresetTimes([0.3, 0.7], lambda t, y, k: y + k),
        de.AfterStep(lambda t, y, k: y < 0.7, lambda t, y, k: 0.9 * y),
    ],
    ids=["terminal", "times", "after"],
)
def test_lanes_of_the_end_of_a_span_with_other_events(events):
    f = partial(decayed, events=events)
    close(vmap_of_grad(f), single_gradients(f), 1e-12, 1e-12)


@pytest.mark.thorough
def test_conditions_that_coincide_keep_derivatives_of_their_own():
    """Two equal balls: each bounces by its own height, whichever is first in a list."""

    def both(a, events):
        problem = de.ODEProblem(
            lambda t, y, a: jnp.stack([y[1], -G + 0 * y[1]]),
            lambda a: jnp.stack([a[2:], 0 * a[2:]]),
            (0.0, 1.0),
            a,
        )
        return de.solve(problem, de.Bosh3(), events=events).y1.ravel()

    vector = de.Event(
        lambda t, y, a: y[0],
        lambda t, y, a, fired: jnp.stack([y[0], jnp.where(fired, -a[:2] * y[1], y[1])]),
    )
    single = tuple(
        de.Event(lambda t, y, a, i=i: y[0, i], lambda t, y, a, i=i: y.at[1, i].multiply(-a[i]))
        for i in (0, 1)
    )
    a = jnp.array([0.8, 0.8, 1.0, 1.0])
    want = differences(jax.jit(lambda a: both(a, vector)), a)
    for events in (vector, single):
        close(jax.jit(jax.jacrev(lambda a: both(a, events)))(a), want, 1e-6, 1e-6)


# --- against differences -------------------------------------------------------------------------

KICK = de.Event(
    lambda t, y, a: y[0] - 0.4 * a, lambda t, y, a: jnp.stack([y[0], 0.9 * y[1] + 0.1 * a])
)
OSC = de.ODEProblem(lambda t, y, a: jnp.stack([y[1], -a * y[0]]), [1.0, 0.0], (0.0, 4.0), 1.0)
X = jnp.array([1.3, 1.0])


def everything(x):
    """Saved rows, dense values, and the record of the events, with windows that are run again."""
    problem = OSC.replace(args=x[0], y0=jnp.stack([x[1], 0 * x[1]]))
    sol = de.solve(
        problem, events=KICK, max_events=8, max_saves=64, saveat=jnp.linspace(0.0, 4.0, 5),
        dense=True, adjoint=de.Discrete(rows=8), rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    record = jax.tree.map(lambda x: x[:1], sol.events[0][:3])
    values = (sol.ys, sol(jnp.array([0.3, 2.2, 3.9])), *record)
    return jnp.concatenate([v.ravel() for v in values])


@pytest.mark.thorough
def test_rows_dense_output_and_records_of_lanes():
    lanes = jnp.stack([X, 1.5 * X, 0.5 * X])
    run = jax.jit(everything)
    found = jax.jit(jax.vmap(jax.jacrev(everything)))(lanes)
    assert np.isfinite(found).all()
    for x, jacobian in zip(lanes, found, strict=True):
        close(jacobian, differences(run, x), 1e-6, 1e-6)


DROP = de.ODEProblem(lambda t, y, g: jnp.stack([y[1], -g]), [1.0, 0.0], (0.0, 0.7))


def heights(g):
    """A fall and a bounce, by a step (exact for a fall) that goes over the ground."""
    bounce = de.Event(lambda t, y, g: y[0], lambda t, y, g: -0.5 * y)
    sol = de.solve(
        DROP.replace(args=g), de.Heun(), events=bounce, dt=0.6, dense=True, max_saves=8
    )  # fmt: skip
    return sol(jnp.array([0.1, 0.4, 0.6]))[:, 0]


def exact_heights(g):
    t = jnp.array([0.1, 0.4, 0.6])
    after = t - jnp.sqrt(2 / g)
    return jnp.where(after < 0, 1 - g * t**2 / 2, jnp.sqrt(g / 2) * after - g * after**2 / 2)


def test_dense_output_in_a_step_that_a_crossing_cuts():
    """The end of the step moves with g, its polynomial does not."""
    close(jax.jit(jax.jacfwd(heights))(9.81), jax.jacfwd(exact_heights)(9.81), 1e-9, 1e-9)


@pytest.mark.thorough
def test_second_derivative_of_dense_output_in_a_cut_step():
    second = jax.jit(jax.jacfwd(jax.jacrev(heights)))(9.81)
    close(second, jax.jacfwd(jax.jacrev(exact_heights))(9.81), 1e-8, 1e-8)


DECAY = de.ODEProblem(lambda t, y, k: -k * y**2, 0.3, (0.0, 3.0), 0.7)
AT = jnp.array([0.0, 0.2, 1.0, 1.7, 3.0])


def dosed(x):
    given = de.doses(x[1:4], x[4:], ())
    return de.solve(DECAY.replace(args=x[0]), events=given, saveat=AT, **TIGHT).ys


by_doses = jax.jit(jax.jacrev(dosed))


def test_times_and_amounts_of_doses():
    x = jnp.array([0.7, 0.5, 1.1, 2.0, 1.0, 2.0, 3.0])
    close(by_doses(x), differences(dosed, x))


def test_doses_at_saved_times_and_at_the_ends():
    """A row at a dose is after it, and moves as from the right with the time of the dose."""
    x = jnp.array([0.7, 0.0, 1.0, 3.0, 1.0, 2.0, 3.0])
    jacobian = by_doses(x)
    by_amount = np.stack([(dosed(x + 1e-5 * e) - dosed(x - 1e-5 * e)) / 2e-5
                          for e in np.eye(7)[4:]], axis=-1)  # fmt: skip
    close(jacobian[:, 4:], by_amount)
    earlier = (dosed(x) - dosed(x - 1e-6 * np.eye(7)[2])) / 1e-6
    close(jacobian[:, 2], earlier, atol=1e-5)


def test_times_and_amounts_that_depend_on_args():
    schedule = de.doses(lambda a: a * jnp.array([1.0, 2.0]), lambda a: a**2 * jnp.ones(2), ())
    every = de.Periodic(lambda a: a, lambda t, y, a: y + a)
    end = lambda x: de.solve(DECAY.replace(args=x[0]), events=(schedule, every), **TIGHT).y1[None]
    x = jnp.array([0.7])
    close(jax.jit(jax.jacrev(end))(x), differences(jax.jit(end), x))


@pytest.mark.thorough
def test_what_is_held_carries_derivatives_from_sample_to_sample():
    control = de.Periodic(
        0.5,
        lambda t, y, a: {**y, "u": -a[0] * y["x"][0] - a[1] * y["x"][1], "n": y["n"] + 1},
        phase=0.0,
    )

    def rows(a, tape=None):
        problem = de.ODEProblem(
            lambda t, y, a: {"x": jnp.stack([y["x"][1], y["u"] - jnp.sin(y["x"][0])])},
            lambda a: {"x": jnp.array([1.0, 0.0]), "u": de.hold(a[2]), "n": de.hold(0)},
            (0.0, 2.2),
            a,
        )
        sol = de.solve(
            problem, events=control, saveat=jnp.array([0.3, 1.0, 2.2]),
            adjoint=de.Discrete(rows=tape), **TIGHT,
        )  # fmt: skip
        return jnp.concatenate([sol.ys["x"].ravel(), sol.ys["u"]])

    a = jnp.array([0.7, 0.3, 0.1])
    want = differences(rows, a)
    for tape in (8, 4):  # the latter of so few rows that windows are repeated in parts
        close(jax.jit(jax.jacrev(lambda a, tape=tape: rows(a, tape)))(a), want)


@pytest.mark.thorough
def test_after_a_terminal_event_rows_are_padding():
    """A solve that has ended at an event has not failed: what was not reached asks for nothing."""
    ts = jnp.linspace(0.0, 3.0, 7)
    ground = de.Event(lambda t, y, a: y[0])

    def parts(a):
        sol = de.solve(FALL.replace(args=a), events=ground, saveat=ts)
        masked = jnp.where(sol.saved[:, None], sol.filled(0.0), 0.0)
        return jnp.concatenate([jnp.stack([sol.y1[1], sol.t1]), sol.ys[:, 0], masked[:, 0]])

    speed, time, *rows = jax.jit(jax.jacrev(parts))(BALL)
    (first, *others), masked = rows[:7], rows[7:]
    assert np.isfinite(masked).all()
    close(speed, np.array([0.0, -np.sqrt(G / 2)]), 1e-9)
    close(time, np.array([0.0, np.sqrt(1 / (2 * G))]), 1e-9)
    close(first, np.array([0.0, 1.0]))
    assert (np.array(others) == 0.0).all()


@pytest.mark.thorough
def test_steps_by_hand_differentiate():
    def twice(a):
        state = de.init(FALL.replace(args=a), events=BOUNCE)
        return de.advance(de.advance(state, 1.0), 2.0).y[0]

    close(jax.jit(jax.grad(twice))(BALL), jax.grad(lambda a: exact_height(a, 3, 2.0))(BALL), 1e-9)


@pytest.mark.thorough
def test_in_float32_and_backwards():
    single = lambda a: de.solve(
        de.ODEProblem(FALL.f, jnp.stack([a, 0 * a]), (0.0, 1.0), a),
        events=de.Event(lambda t, y, a: y[0], lambda t, y, a: -0.8 * y),
    ).y1[0]
    close(jax.jit(jax.grad(single))(jnp.float32(1.0)), jax.grad(_once)(1.0), 1e-4)
    back = de.ODEProblem(lambda t, y, a: a, 0.0, (0.0, -5.0), 1.0)
    stop = lambda a: de.solve(back.replace(args=a), events=de.Event(lambda t, y, a: y + 1)).t1
    close(jax.jit(jax.value_and_grad(stop))(2.0), [-0.5, 0.25], 1e-9)


def _once(h):
    """Height at t = 1 of a ball from h that has kept 0.8 of its speed at one impact."""
    speed = jnp.sqrt(2 * G * h)
    left = 1.0 - speed / G
    return 0.8 * speed * left - G * left**2 / 2


def test_doses_at_the_time_of_a_terminal_event_have_their_derivatives():
    """Of which each is a round of its own, with a time of its own."""

    def end(x):
        doses = [de.doses(x[i][None], x[2 + i], i) for i in range(2)]
        stops = de.Event(lambda t, y, x: t - 1.0)
        problem = de.ODEProblem(lambda t, y, x: x[4] * y, jnp.ones(2), (0.0, 2.0), x)
        return de.solve(problem, events=(*doses, stops), rtol=1e-10, atol=1e-10).y1

    x = jnp.array([1.0, 1.0, 0.3, 0.4, -0.7])
    rate, kept = x[4], jnp.exp(x[4])
    first = jnp.array([-rate * x[2], 0.0])  # what comes later has decayed for a shorter time
    last = rate * jnp.array([kept + x[2], kept])  # with which the solve ends
    want = jnp.column_stack([first, last, jnp.eye(2), jnp.full(2, kept)])
    np.testing.assert_allclose(jax.jacrev(end)(x), want, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(end)(x), want, rtol=1e-6, atol=1e-8)

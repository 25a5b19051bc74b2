"""Events and jumps of equations with noise: the path stays the path of its key."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import diffeq as de

KEY = jax.random.key(3)
TS = jnp.array([0.3, 0.7, 1.0, 1.9])
GIVEN = {"method": de.EulerMaruyama(), "dt": 0.1}

# The second component is the Brownian motion itself; the first one makes the steps.
SEEN = de.SDEProblem(
    lambda t, y, a: jnp.stack([-y[0], 0 * y[1]]),
    lambda t, y, a: jnp.stack([0.3 * y[0] + 0.1, jnp.ones_like(y[1])]),
    jnp.array([1.0, 0.0]),
    (0.0, 2.0),
)


def same(t, y, a):
    return y


HAPPENINGS = (
    de.PresetTimes(jnp.array([0.37, 0.7, 0.7]), same),
    de.Periodic(0.31, same),
    de.Event(
        lambda t, y, a: jnp.stack([y[1] - 0.1, y[0] - 0.65]),
        lambda t, y, a, fired: y,
        direction=(0, -1),
    ),
    de.AfterStep(lambda t, y, a: y[1] > 0, same),
)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, GIVEN], ids=["controlled", "given"])
def test_events_leave_the_path_as_it_is(options):
    plain = de.solve(SEEN, key=KEY, saveat=TS, **options)
    # Given times shorten given steps, whose draws are numbered: there they are left out.
    events = HAPPENINGS[2:] if options else HAPPENINGS
    sol = de.solve(SEEN, key=KEY, saveat=TS, events=events, dense=True, **options)
    assert all(int(e.num) > 0 for e in sol.events)
    np.testing.assert_allclose(sol.ys[:, 1], plain.ys[:, 1], atol=1e-7)
    np.testing.assert_allclose(sol.ys[:, 0], plain.ys[:, 0], atol=0.02)
    # A tick is 2⁻³⁰ of the interval, or of a given step, and the path moves by its root.
    np.testing.assert_allclose(sol(TS), sol.ys, atol=5e-4)
    crossed = sol.events[-2]
    (level, down), y = np.asarray(crossed.fired).T, np.asarray(crossed.before)
    assert level.any()
    assert down.any()
    np.testing.assert_allclose(y[level, 1], 0.1, atol=5e-4)
    np.testing.assert_allclose(y[down, 0], 0.65, atol=5e-4)


@pytest.mark.thorough
def test_the_first_passage_of_a_brownian_motion():
    """P(max W > b) = 2 Φ(−b/√T), with the barrier moved by 0.5826 √h for looks h apart."""
    walk = de.SDEProblem(lambda t, y, a: 0.0 * y, lambda t, y, a: 1.0 + 0 * y, 0.0, (0.0, 1.0))
    hit = de.Event(lambda t, y, a: y - 1.0)

    @jax.jit
    @jax.vmap
    def run(key):
        sol = de.solve(walk, key=key, events=hit, **GIVEN)
        return sol.events[0].num, sol.t1, sol.y1

    num, t1, y1 = run(jax.random.split(KEY, 400))
    stopped = np.asarray(num) > 0
    np.testing.assert_allclose(y1[stopped], 1.0, atol=5e-4)
    assert (np.asarray(t1)[~stopped] == 1.0).all()
    barrier = 1 + 0.5826 * np.sqrt(0.1 / 8)
    chance = 2 * norm.cdf(-barrier)
    assert abs(stopped.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / len(num))


# --- derivatives ----------------------------------------------------------------------------------


def growing(a, events, rows, **options):
    growth = de.SDEProblem(
        lambda t, y, a: -a * y, lambda t, y, a: 0.3 * a * y + 0.1, 1.0, (0.0, 2.0), a
    )
    return de.solve(growth, key=KEY, events=events, adjoint=de.Discrete(rows=rows), **options).y1


@pytest.mark.thorough
def test_the_derivative_through_events_where_a_window_of_the_tape_is_run_again():
    events = (
        de.PresetTimes([0.37, 0.71], lambda t, y, a: a * y),
        de.AfterStep(lambda t, y, a: y > 0.6, lambda t, y, a: 0.9 * a * y),
    )
    options = {"rtol": 1e-3, "atol": 1e-3}
    whole = jax.jit(jax.value_and_grad(lambda a: growing(a, events, 16, **options)))
    grad, h = whole(1.1)[1], 1e-6
    found = float(whole(1.1 + h)[0] - whole(1.1 - h)[0]) / (2 * h)
    np.testing.assert_allclose(float(grad), found, rtol=1e-6)


def test_times_of_a_path_with_noise_have_no_derivative():
    crossing = de.Event(lambda t, y, a: y - 0.6, same)
    with pytest.raises(TypeError, match=r"events\[0\].condition is crossed by a path with noise"):
        jax.grad(lambda a: growing(a, crossing, 50, **GIVEN))(1.0)
    given = lambda t: growing(1.0, de.PresetTimes(jnp.stack([t]), same), 50, **GIVEN)
    with pytest.raises(TypeError, match=r"events\[0\].times cannot be differentiated"):
        jax.grad(given)(0.5)


# --- jump diffusions ------------------------------------------------------------------------------

RATE, SHIFT, SPREAD = 1.5, -0.2, 0.3


def merton(estimator=None):
    """The logarithm of a price: Brownian, with normal jumps. One given step is exact."""
    price = de.SDEProblem(
        lambda t, y, a: 0.05 + 0 * y, lambda t, y, a: 0.2 + 0 * y, 0.0, (0.0, 1.0), SHIFT
    )
    crash = de.Jump(RATE, lambda t, y, a, z: y + a + SPREAD * z, mark=jax.random.normal)
    return de.JumpProblem(price, crash, estimator=estimator)


@pytest.mark.thorough
def test_the_mean_and_the_variance_of_mertons_model():
    keys = jax.random.split(KEY, 2000)

    @jax.jit
    @jax.vmap
    def run(key):
        def end(shift):
            problem = merton().replace(args=shift)
            sol = de.solve(problem, de.EulerMaruyama(), dt=1.0, key=key, max_events=16)
            return sol.y1, sol.events[0].num

        return jax.jvp(end, (SHIFT,), (1.0,), has_aux=True)

    y, slope, num = run(keys)
    np.testing.assert_allclose(slope, num, rtol=1e-12)  # each jump is shifted
    mean = 0.05 + RATE * SHIFT
    variance = 0.2**2 + RATE * (SHIFT**2 + SPREAD**2)
    # The fourth moment about the mean is 3 variance² + the fourth moment of what jumps.
    fourth = RATE * (SHIFT**4 + 6 * SHIFT**2 * SPREAD**2 + 3 * SPREAD**4)
    n = len(keys)
    assert abs(float(y.mean()) - mean) < 4 * np.sqrt(variance / n)
    error = float(((y - mean) ** 2).mean()) - variance
    assert abs(error) < 4 * np.sqrt((2 * variance**2 + fourth) / n)


@pytest.mark.thorough
def test_jumps_of_a_path_with_noise_at_a_rate_that_looks_at_it():
    fall = de.SDEProblem(lambda t, y, a: -a * y, lambda t, y, a: 0.1 + 0 * y, 1.0, (0.0, 2.0), 1.0)
    jump = de.Jump(lambda t, y, a: 2 + y**2, lambda t, y, a: y + 0.2 * a)
    problem = de.JumpProblem(fall, jump, estimator="score")

    def end(a):
        # A tape whose windows are run again: there a step is cut where it was, and goes on.
        options = {"adjoint": de.Discrete(rows=8), "saveat": "steps", "max_saves": 64, **GIVEN}
        sol = de.solve(problem.replace(args=a), key=KEY, max_events=16, **options)
        return (sol.y1, sol.weight), (sol.events[0], sol.ts, sol.ys)

    (_, weight), (dy, dlog), (up, ts, ys) = jax.jvp(end, (1.0,), (1.0,), has_aux=True)
    assert int(up.num) > 2
    np.testing.assert_allclose(up.after - up.before, 0.2, rtol=1e-12)
    # By hand: Euler's steps, cut where the jumps are, and log p = Σ log rate − ∫ rate dt.
    assert float(weight) == 1.0
    before = dict(zip(map(float, up.ts), map(float, up.before), strict=True))
    rows = [(float(t), float(y)) for t, y in zip(ts, ys, strict=True) if np.isfinite(t)]
    s = log = 0.0
    for (t0, y0), (t1, _) in itertools.pairwise(rows):
        log -= (t1 - t0) * 2 * y0 * s
        s += (t1 - t0) * (-y0 - s)
        if t1 in before:
            y = before[t1]
            log += 2 * y * s / (2 + y**2)
            s += 0.2
    np.testing.assert_allclose((dy, dlog), (s, log), rtol=1e-8)


def test_what_is_refused_of_noise():
    with pytest.raises(ValueError, match="the path of an SDE has no derivative by the time"):
        de.solve(merton("pathwise"), de.EulerMaruyama(), dt=0.5, key=KEY)
    held = SEEN.replace(y0=de.hold(1.0))
    with pytest.raises((TypeError, ValueError), match="held"):
        de.solve(held, key=KEY)

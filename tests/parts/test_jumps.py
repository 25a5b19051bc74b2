"""Jumps at a rate: how many there are and when, what they leave behind, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

KEY = jax.random.key(7)
KEYS = jax.random.split(KEY, 600)
STEPS = {"method": de.Heun(), "dt": 0.1}
STILL = de.ODEProblem(lambda t, y, a: 0 * y, 1.0, (0.0, 4.0))


MANY_KEYS = len(KEYS)


def near(found, want, deviation, samples=MANY_KEYS):
    """Whether a mean over samples is where it should be: within four standard errors."""
    return abs(float(found) - want) < 4 * deviation / np.sqrt(samples)


# --- constant rates ------------------------------------------------------------------------------

# The state counts the jumps of two channels, and sums the marks of the third one.
COUNTED = de.JumpProblem(
    de.ODEProblem(lambda t, y, a: 0 * y, jnp.zeros(3), (1.0, 5.0)),
    (
        de.Jump([1.5, 0.5], lambda t, y, a, fired: y + jnp.where(jnp.append(fired, False), 1, 0)),
        de.Jump(1.0, lambda t, y, a, z: y.at[2].add(z), mark=jax.random.normal),
    ),
)


def counted(key):
    return de.solve(COUNTED, **STEPS, key=key, max_events=32)


MANY = jax.jit(jax.vmap(counted))


def test_constant_rates_are_poisson_and_independent():
    sol = MANY(KEYS)
    assert bool(sol.success.all())
    n = np.asarray(sol.y1[:, :2])
    np.testing.assert_array_equal(sol.events[0].fired.sum(axis=1), n)
    np.testing.assert_array_equal(sol.events[0].num, n.sum(axis=1))
    for mean, count in ((6.0, n[:, 0]), (2.0, n[:, 1]), (4.0, np.asarray(sol.events[1].num))):
        assert near(count.mean(), mean, np.sqrt(mean))
        # Of a Poisson number the variance of (n − m)² is m + 2 m².
        assert near(((count - mean) ** 2).mean(), mean, np.sqrt(mean + 2 * mean**2))
    assert near(((n[:, 0] - 6) * (n[:, 1] - 2)).mean(), 0.0, np.sqrt(12))
    # The sum of n normal numbers has the variance E[n].
    assert near((sol.y1[:, 2] ** 2).mean(), 4.0, np.sqrt(2 * 4.0**2 + 3 * 4.0))
    # Given how many there are, they lie anywhere.
    ts = np.asarray(sol.events[0].ts)
    assert near(np.nanmean(ts), 3.0, 4 / np.sqrt(12), int(n.sum()))


def test_one_key_is_one_path_alone_and_in_a_batch():
    batch = MANY(KEYS)
    for i in (0, 1):
        alone, some = counted(KEYS[i]), int(batch.events[0].num[i])
        assert int(alone.events[0].num) == some > 0
        np.testing.assert_array_equal(alone.events[0].ts, batch.events[0].ts[i, :some])
        np.testing.assert_array_equal(alone.y1, batch.y1[i])
        assert bool(np.isnan(batch.events[0].ts[i, some:]).all())
    assert not np.array_equal(batch.events[0].ts[0], batch.events[0].ts[1])


def test_channels_and_marks_have_numbers_of_their_own():
    one = counted(KEY)
    ts = one.events[0].ts
    # Twice the rates: the same times, in another unit.
    quick = COUNTED.replace(
        jumps=tuple(de.Jump(2 * j.rate, j.affect, mark=j.mark) for j in COUNTED.jumps),
        tspan=(1.0, 3.0),
    )
    twice = de.solve(quick, **STEPS, key=KEY, max_events=32)
    np.testing.assert_allclose(twice.events[0].ts, 1 + (ts - 1) / 2, rtol=1e-12)
    np.testing.assert_allclose(twice.y1, one.y1, rtol=1e-12)


# --- rates that vary -----------------------------------------------------------------------------

ROWS = jnp.array([0.5, 2.5])


def birth(t, y, a):
    return {"n": y["n"] + 1, "last": 1}


# Births at a rate that depends on time, deaths at one that depends on the state.
POPULATION = de.JumpProblem(
    de.ODEProblem(lambda t, y, a: {"n": 0 * y["n"]}, {"n": 3.0, "last": de.hold(0)}, (0.0, 4.0)),
    (
        de.Jump(lambda t, y, a: 2 * (1 + jnp.sin(3 * t)), birth),
        de.Jump(
            lambda t, y, a: jnp.stack([0.3, 0.2]) * y["n"],
            lambda t, y, a, fired: {"n": y["n"] - 1, "last": jnp.where(fired[0], 2, 3)},
        ),
    ),
)  # fmt: skip


def population(key):
    high = de.Event(lambda t, y, a: y["n"] - 6.5, terminal=False, direction=1)
    return de.solve(
        POPULATION, key=key, max_events=40, events=high, **STEPS,
        saveat=ROWS, save=lambda t, y, a: y["n"] + 100 * y["last"],
    )  # fmt: skip


def test_rates_that_vary():
    sol = jax.jit(jax.vmap(population))(KEYS)
    assert bool(sol.success.all())
    born, dead = (np.asarray(e.num) for e in sol.events[:2])
    np.testing.assert_allclose(sol.y1["n"], 3 + born - dead, atol=1e-12)
    # A number of births of mean m = ∫ rate dt, whose times have rate / m as their density.
    m = 8 + 2 * (1 - np.cos(12)) / 3
    assert near(born.mean(), m, np.sqrt(m))
    assert near(((born - m) ** 2).mean(), m, np.sqrt(m + 2 * m**2))
    ts = np.sort(np.asarray(sol.events[0].ts)[np.isfinite(sol.events[0].ts)])
    cumulative = (2 * ts + 2 * (1 - np.cos(3 * ts)) / 3) / m
    distance = np.abs(cumulative - (np.arange(len(ts)) + 0.5) / len(ts)).max()
    assert distance < 1.63 / np.sqrt(len(ts))  # Kolmogorov's, at 1 %
    # n' = 2 + 2 sin 3t − n/2 in the mean.
    a = 0.5
    forced = 2 * (1 - np.exp(-a * 4)) / a
    forced += 2 * (3 * np.exp(-a * 4) + a * np.sin(12) - 3 * np.cos(12)) / (a**2 + 9)
    assert near(sol.y1["n"].mean(), 3 * np.exp(-a * 4) + forced, np.asarray(sol.y1["n"]).std())
    kinds = sol.events[1].fired.sum(axis=(0, 1))
    assert near(kinds[0] / kinds.sum(), 0.6, np.sqrt(0.24), int(kinds.sum()))
    earlier = [np.asarray(e.ts)[..., None] <= ROWS for e in sol.events[:2]]
    counts = 3 + earlier[0].sum(axis=1) - earlier[1].sum(axis=1)
    np.testing.assert_allclose(np.asarray(sol.ys) % 100, counts, atol=1e-9)
    # What the user's own event sees, and what is recorded, is the user's own state.
    assert set(sol.events[0].before) == {"n", "last"} == set(sol.last.y)
    first = sol.events[2]
    crossed = np.asarray(first.num) > 0
    assert crossed.any()
    np.testing.assert_allclose(first.after["n"][crossed, 0], 7.0, rtol=1e-12)


# --- derivatives ---------------------------------------------------------------------------------

P0 = {"a": 0.8, "b": 0.6, "c": 1.3, "r": 0.9, "y0": 1.2}


def cell(p, estimator):
    """A concentration that decays, grows at a rate of its own, and is diluted at a given one."""
    grow = de.Jump(lambda t, y, p: p["c"] * y + 0.5, lambda t, y, p: y + p["b"])
    dilute = de.Jump(lambda p: p["r"], lambda t, y, p: 0.7 * y)
    decay = de.ODEProblem(lambda t, y, p: -p["a"] * y, lambda p: p["y0"], (0.0, 3.0), p)
    return de.JumpProblem(decay, (grow, dilute), estimator=estimator)


@jax.jit
def pathwise(p):
    def value(p):
        sol = de.solve(cell(p, "pathwise"), **STEPS, max_events=32, key=jax.random.key(5))
        return sol.y1, tuple(e.num for e in sol.events)

    return jax.value_and_grad(value, has_aux=True)(p)


def test_the_pathwise_derivative_is_that_of_the_path_with_times_that_move():
    (_, num), grad = pathwise(P0)
    assert min(int(n) for n in num) > 0
    h = 1e-5
    for name in P0:
        ends = [pathwise({**P0, name: P0[name] + s * h})[0] for s in (1, -1)]
        assert [list(map(int, n)) for _, n in ends] == [list(map(int, num))] * 2
        found = float(ends[0][0] - ends[1][0]) / (2 * h)
        np.testing.assert_allclose(float(grad[name]), found, rtol=1e-6, atol=1e-7)


def test_without_an_estimator_what_enters_a_rate_is_refused():
    end = lambda p, problem: de.solve(problem(p), **STEPS, key=KEY, max_events=32).y1
    for name in ("a", "b", "c", "r", "y0"):
        moved = lambda x, name=name: end({**P0, name: x}, lambda p: cell(p, None))
        with pytest.raises(
            TypeError, match=r"reaches the rate of jumps\[[01]\].*estimator='score'"
        ):
            jax.grad(moved)(P0[name])


@jax.jit
def given_times(b):
    """A rate that depends on t and args, by what is not in it: nothing to refuse."""

    def value(b):
        grow = de.Jump(lambda t, y, p: 1 + p["r"] * jnp.sin(t), lambda t, y, p: y + p["b"])
        decay = de.ODEProblem(lambda t, y, p: -p["b"] * y, 1.2, (0.0, 3.0), {"r": 0.5, "b": b})
        return de.solve(de.JumpProblem(decay, grow), **STEPS, key=KEY, max_events=32).y1

    return jax.jvp(value, (b,), (1.0,))


@pytest.mark.thorough
def test_without_an_estimator_the_rest_has_its_derivative():
    h = 1e-5
    found = float(given_times(0.6 + h)[0] - given_times(0.6 - h)[0]) / (2 * h)
    np.testing.assert_allclose(float(given_times(0.6)[1]), found, rtol=1e-6)


def born(th, key):
    """Births at a rate of th₀ y, and immigration at th₁."""
    birth = de.Jump(lambda t, y, p: p[0] * y, lambda t, y, p: y + 1)
    come = de.Jump(lambda p: p[1], lambda t, y, p: y + 1)
    still = de.ODEProblem(lambda t, y, p: 0 * y, 1.0, (0.0, 1.0), th)
    problem = de.JumpProblem(still, (birth, come), estimator="score")
    sol = de.solve(problem, **STEPS, key=key, max_events=32)
    area = sum(jnp.nansum((1 - e.ts) * (e.after - e.before)) for e in sol.events) + 1
    return sol.y1 * sol.weight, (sol.weight, area, *(e.num for e in sol.events))


@pytest.mark.thorough
def test_the_score_is_unbiased_for_a_count_which_no_path_can_differentiate():
    th = jnp.array([0.8, 0.5])
    along = jnp.array([1.0, 0.5])

    @jax.jit
    @jax.vmap
    def run(key):
        return jax.jvp(lambda th: born(th, key), (th,), (along,), has_aux=True)

    value, slope, (weight, area, births, came) = run(KEYS)
    np.testing.assert_array_equal(weight, 1.0)
    # By hand: log p = Σ log rate − ∫ rate dt, and y between jumps is constant.
    score = along[0] * (births / th[0] - area) + along[1] * (came / th[1] - 1.0)
    np.testing.assert_allclose(slope, value * score, rtol=1e-6, atol=1e-6)

    def mean(th):
        return jnp.exp(th[0]) + th[1] * (jnp.exp(th[0]) - 1) / th[0]

    assert near(value.mean(), float(mean(th)), float(value.std()))
    assert near(slope.mean(), float(jax.grad(mean)(th) @ along), float(slope.std()))


# --- what is refused, and what fails -------------------------------------------------------------


UP = de.Jump(1.0, lambda t, y, a: y + 1)
OFTEN = de.Jump(lambda t, y, a: 1.0, lambda t, y, a: y + 1)
WRONG = {
    "rate is 'fast'; a number": lambda: de.Jump("fast", lambda t, y, a: y),
    "rate is -1.0; finite": lambda: de.Jump(-1.0, lambda t, y, a: y),
    "affect is 1.0; a function": lambda: de.Jump(1.0, 1.0),
    "mark is 2.0; a function": lambda: de.Jump(1.0, lambda t, y, a, z: y, mark=2.0),
    "jumps is empty": lambda: de.JumpProblem(STILL, ()),
    r"jumps\[1\] is 3.0; a jump": lambda: de.JumpProblem(STILL, (UP, 3.0)),
    "problem is 1.0; the equation": lambda: de.JumpProblem(1.0, UP),
    "estimator is 'mean'": lambda: de.JumpProblem(STILL, UP, estimator="mean"),
    "its fields are": lambda: de.JumpProblem(STILL, UP).replace(speed=1.0),
    "key is None; jumps are drawn": lambda: de.solve(de.JumpProblem(STILL, UP)),
    "runs backwards; jumps": lambda: de.solve(
        de.JumpProblem(STILL, UP).replace(tspan=(1.0, 0.0)), key=KEY
    ),
    "a rate that varies, and problem is a SecondOrderProblem": lambda: de.solve(
        de.JumpProblem(de.SecondOrderProblem(lambda t, x, v, a: -x, 1.0, 0.0, (0.0, 1.0)), OFTEN),
        key=KEY,
    ),
    "leave jac out": lambda: de.solve(
        de.JumpProblem(
            de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0), jac=lambda t, y, a: -1.0), OFTEN
        ),
        key=KEY,
    ),
    "cannot be solved by hand": lambda: de.init(de.JumpProblem(STILL, UP), key=KEY),
    r"jumps\[0\].affect.*cannot be called as jumps\[0\].affect\(t, y, args, fired\)": (
        lambda: de.solve(de.JumpProblem(STILL, de.Jump([1.0], lambda t, y, a: y)), key=KEY)
    ),
    r"jumps\[0\].affect returned shape \(2,\)": lambda: de.solve(
        de.JumpProblem(STILL, de.Jump(1.0, lambda t, y, a: jnp.ones(2))), key=KEY
    ),
    r"jumps\[0\].rate is .*a vector": lambda: de.solve(
        de.JumpProblem(STILL, de.Jump(lambda t, y, a: jnp.ones((2, 2)), lambda t, y, a: y)), key=KEY
    ),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_is_refused(sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        WRONG[sentence]()


def test_a_rate_that_turns_negative_and_too_many_jumps_are_failures():
    options = {**STEPS, "key": KEY, "throw": False}
    statuses = jax.jit(
        lambda rate: (
            de.solve(
                de.JumpProblem(STILL, de.Jump(rate, UP.affect)), max_events=2, **options
            ).status
        )
    )
    assert de.Status(int(statuses(-1.0))) == de.Status.nonfinite
    assert de.Status(int(statuses(50.0))) == de.Status.too_many_events
    assert de.Status(int(statuses(1e-9))) == de.Status.success
    down = de.Jump(lambda t, y, a: 1 - t, UP.affect)
    sol = de.solve(de.JumpProblem(STILL, down), dense=True, **options)
    assert de.Status(int(sol.status)) == de.Status.nonfinite
    assert float(sol(0.0)) == 1.0  # and no hazard beside it
    with pytest.raises(de.SolveError, match="A rate that is negative"):
        de.solve(de.JumpProblem(STILL, down), dense=True, **options | {"throw": True})
    assert 0.9 < float(sol.t1) < 1.2

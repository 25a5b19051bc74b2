"""Ensembles: each trajectory is the solve it would be alone, whatever the strategy."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.validation import keywords

TS = jnp.linspace(0.0, 2.0, 5)
STRATEGIES = ("lockstep", "lanes")


def oscillator(t, y, args):
    return jnp.array([y[1], args["mu"] * (1 - y[0] ** 2) * y[1] - args["k"] * y[0]])


PROBLEM = de.ODEProblem(oscillator, [2.0, 0.0], (0.0, 2.0), {"mu": 1.0, "k": 1.0})
MUS = jnp.array([0.1, 30.0, 1.0, 12.0, 0.3, 5.0, 2.0])
Y0S = jnp.stack([jnp.linspace(0.5, 2.0, 7), jnp.zeros(7)], axis=1)
SHARED = {"args": {"mu": 0, "k": None}}


def ensemble(strategy, mus=MUS, k=1.0, **options):
    return de.solve_ensemble(
        PROBLEM, de.Tsit5(), y0=Y0S, args={"mu": mus, "k": k}, in_axes=SHARED, saveat=TS,
        rtol=1e-6, strategy=strategy, chunk=3, **options,
    )  # fmt: skip


def alone(i, mus=MUS, k=1.0):
    one = PROBLEM.replace(y0=Y0S[i], args={"mu": mus[i], "k": k})
    return de.solve(one, de.Tsit5(), saveat=TS, rtol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_trajectory_is_a_solve_of_its_own(strategy):
    sol = ensemble(strategy)
    assert sol.strategy == strategy
    assert sol.success.all()
    assert len(set(np.asarray(sol.stats["steps"]).tolist())) > 4  # steps of their own
    for i in range(7):
        known, found = alone(i), sol[i]
        for name, count in known.stats.items():
            assert found.stats[name] == count, name
        np.testing.assert_allclose(found.ys, known.ys, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found.last.t, 2.0)
        np.testing.assert_allclose(found.y1, known.y1, rtol=1e-12, atol=1e-13)


@pytest.mark.thorough
def test_derivatives_are_those_of_single_solves_in_both_modes():
    weights = jnp.arange(1.0, 8.0)[:, None, None]

    def loss(strategy):
        return lambda mus, k: jnp.sum(weights * ensemble(strategy, mus, k).ys)

    def single(mus, k):
        return sum(weights[i, 0, 0] * jnp.sum(alone(i, mus, k).ys) for i in (0, 1))

    lockstep = jax.jit(jax.value_and_grad(loss("lockstep"), argnums=(0, 1)))(MUS, 1.0)
    compiled = jax.jit(jax.value_and_grad(loss("lanes"), argnums=(0, 1)))(MUS, 1.0)
    on_cores = jax.value_and_grad(loss("lanes"), argnums=(0, 1))(MUS, 1.0)
    for found in (compiled, on_cores):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, lockstep)
    known = jax.grad(single)(MUS, 1.0)
    np.testing.assert_allclose(compiled[1][0][:2], known[:2], rtol=1e-9)
    _, slope = jax.jvp(loss("lanes"), (MUS, 1.0), (jnp.ones(7), 1.0))
    np.testing.assert_allclose(slope, compiled[1][0].sum() + compiled[1][1], rtol=1e-9)


@pytest.mark.thorough
def test_a_gradient_by_many_numbers_and_a_derivative_of_a_derivative():
    y0s = jnp.linspace(0.5, 1.5, 3)

    def loss(weights, strategy):  # 8 weights that all share, in a field that closes over them
        problem = de.ODEProblem(lambda t, y, _: jnp.sum(jnp.tanh(weights * y)), 1.0, (0.0, 1.0))
        sol = de.solve_ensemble(problem, y0=y0s, strategy=strategy, chunk=2)
        return jnp.sum(sol.y1**2)

    weights = jnp.linspace(-1.0, 0.5, 8)
    lanes, lockstep = (jax.jit(jax.grad(loss), static_argnums=1)(weights, s)
                       for s in ("lanes", "lockstep"))  # fmt: skip
    np.testing.assert_allclose(lanes, lockstep, rtol=1e-9)

    growth = de.ODEProblem(lambda t, y, k: k * y, 1.0, (0.0, 1.0))
    total = lambda ks: jnp.sum(
        de.solve_ensemble(growth, args=ks, rtol=1e-8, atol=1e-8, strategy="lanes", chunk=2).y1
    )
    ks = jnp.array([0.5, 1.0, -1.0])
    curvature = jax.jit(jax.hessian(total))(ks)
    np.testing.assert_allclose(curvature, np.diag(np.exp(ks)), rtol=1e-6, atol=1e-9)


BLOWS_UP = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 2.0))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_fails_is_listed_and_spoils_nothing(strategy):
    rates = jnp.array([0.1, 1.0, 0.3, 0.2, jnp.nan, 0.4, 2.0])
    solve = lambda rates, **options: de.solve_ensemble(
        BLOWS_UP, args=rates, strategy=strategy, chunk=2, **options
    )
    with pytest.warns(UserWarning, match=r"3 of 7 trajectories failed, the first.* number 1: the"):
        sol = solve(rates)
    assert repr(sol) == f"Solution(7 trajectories, 3 failed, {strategy})"
    assert sol.failed.count == 3
    assert sol.failed.indices.tolist() == [1, 4, 6]
    kinds = [de.Status.step_too_small, de.Status.nonfinite, de.Status.step_too_small]
    assert sol.failed.statuses.tolist() == kinds
    sound = np.asarray(sol.success)
    assert np.isnan(sol.y1[~sound]).all()
    np.testing.assert_allclose(sol.y1[sound], 1 / (1 - 2 * rates[sound]), rtol=2e-3)
    np.testing.assert_allclose(sol.last.t[1], 1.0, rtol=1e-3)
    quiet = solve(rates.at[jnp.array([1, 4, 6])].set(0.1), throw=False)
    np.testing.assert_array_equal(quiet.y1[sound], sol.y1[sound])
    with pytest.raises(
        de.SolveError, match=r"sample 1 of 7 \(3 failed\).*stopped at t = "
    ) as error:
        sol.check()
    assert error.value.index == (1,)


def test_one_that_failed_has_no_gradient_and_the_others_have_theirs():
    def loss(rates):
        sol = de.solve_ensemble(BLOWS_UP, args=rates, strategy="lanes", chunk=2, throw=False)
        return jnp.sum(jnp.where(sol.success, sol.y1, 0.0))

    slopes = jax.grad(loss)(jnp.array([0.1, 1.0, 0.3]))
    np.testing.assert_allclose(slopes, [2 / 0.8**2, 0.0, 2 / 0.4**2], rtol=5e-3)
    asks = lambda rates: jnp.sum(  # a row that was not reached makes its own derivative NaN alone
        de.solve_ensemble(BLOWS_UP, args=rates, strategy="lanes", chunk=2, throw=False).y1
    )
    slopes = jax.grad(asks)(jnp.array([0.1, 1.0, 0.3]))
    np.testing.assert_array_equal(np.isnan(slopes), [False, True, False])


def test_spans_of_their_own_in_both_directions():
    decay = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
    ends = jnp.array([0.5, -1.0, 2.0, 0.0])
    for strategy in STRATEGIES:
        sol = de.solve_ensemble(decay, tspan=(0.0, ends), rtol=1e-6, strategy=strategy, chunk=2)
        np.testing.assert_allclose(sol.t1, ends)
        np.testing.assert_allclose(sol.y1, jnp.exp(-ends), rtol=1e-5)
    # A count of given steps is that of the longest.
    sol = de.solve_ensemble(decay, tspan=(0.0, ends[::2]), dt=0.125, strategy="lanes", chunk=1)
    assert sol.stats["steps"].tolist() == [4, 16]
    by_args = decay.replace(tspan=lambda k: (0.0, 3.0 / k))
    sol = de.solve_ensemble(by_args, args=jnp.array([1.0, 3.0, 4.0]), rtol=1e-6)
    np.testing.assert_allclose(sol.t1, [3.0, 1.0, 0.75])
    np.testing.assert_allclose(sol.y1, np.exp(-3.0), rtol=1e-5)


def test_stops_and_events_of_each():
    ramp = de.ODEProblem(lambda t, y, a: jnp.where(t < a, 0.0, 1.0), 0.0, (0.0, 2.0))
    at = jnp.array([0.25, 0.7, 1.9])
    sol = de.solve_ensemble(
        ramp, args=at, stops=lambda a: [a], strategy="lanes", chunk=2,
        events=de.Event(lambda t, y, a: y - 1.0),
    )  # fmt: skip
    assert sol.stats["stops"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(sol.t1, jnp.minimum(at + 1, 2.0), rtol=1e-9)
    assert sol.status.tolist() == [1, 1, 0]
    assert sol.success.all()


@pytest.mark.thorough
def test_stiff_and_second_order_and_networks():
    def rates(t, y, k):
        slow, back, fast = k[0] * y[0], k[2] * y[1] * y[2], k[1] * y[1] ** 2
        return jnp.array([back - slow, slow - back - fast, fast])

    robertson = de.ODEProblem(rates, [1.0, 0.0, 0.0], (0.0, 1e4))
    ks = jnp.array([0.04, 3e7, 1e4]) * jnp.array([[1.0], [0.5], [1.5]])
    sol = de.solve_ensemble(
        robertson, de.Rodas5P(), args=ks, rtol=1e-6, atol=1e-10, strategy="lanes", chunk=2
    )
    assert sol.success.all()
    one = de.solve(robertson.replace(args=ks[1]), de.Rodas5P(), rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(sol.y1[1], one.y1, rtol=1e-9)

    spring = de.SecondOrderProblem(lambda t, x, v, k: -k * x, 1.0, 0.0, (0.0, 1.0), 1.0)
    xs = jnp.array([1.0, 2.0, 3.0])
    sol = de.solve_ensemble(spring, y0=(xs, 0 * xs), rtol=1e-6)
    np.testing.assert_allclose(sol.y1[0], xs * np.cos(1.0), rtol=1e-5)

    nets = eqx.filter_vmap(lambda key: eqx.nn.MLP(2, 2, 3, 1, jnp.tanh, key=key))(
        jax.random.split(jax.random.key(0), 3)
    )
    neural = de.ODEProblem(lambda t, y, net: net(y), [1.0, 0.0], (0.0, 1.0))
    sol = de.solve_ensemble(neural, args=nets, strategy="lanes", chunk=2)
    second = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, nets)
    np.testing.assert_allclose(sol.y1[1], de.solve(neural.replace(args=second)).y1, rtol=1e-12)


GROWTH = de.SDEProblem(
    lambda t, y, a: a * y, lambda t, y, a: 0.2 * y, jnp.array([1.0]), (0.0, 1.0), 0.5
)
KEY = jax.random.key(7)


def test_trajectory_i_has_the_key_that_is_folded_with_i():
    at = lambda key, a: de.solve(GROWTH.replace(args=a), key=key, dt=0.125).y1
    sols = {
        s: de.solve_ensemble(GROWTH, n=5, key=KEY, dt=0.125, strategy=s, chunk=2)
        for s in STRATEGIES
    }
    for i in (0, 4):
        known = at(jax.random.fold_in(KEY, i), 0.5)
        for sol in sols.values():
            np.testing.assert_allclose(sol.y1[i], known, rtol=1e-12)
    draw = lambda key: {"args": jax.random.uniform(key)}
    sol = de.solve_ensemble(GROWTH, n=4, draw=draw, key=KEY, dt=0.125, strategy="lanes", chunk=3)
    own, path = jax.random.split(jax.random.fold_in(KEY, 3))
    np.testing.assert_allclose(sol.y1[3], at(path, jax.random.uniform(own)), rtol=1e-12)


def test_inputs_that_are_drawn_where_they_are_used():
    decay = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0))
    draw = lambda key: {"args": jax.random.uniform(key), "tspan": (0.0, 2.0)}
    y0s = jnp.arange(1.0, 6.0)
    sol = de.solve_ensemble(decay, n=5, draw=draw, y0=y0s, key=KEY, rtol=1e-6)
    ks = jnp.stack([jax.random.uniform(jax.random.fold_in(KEY, i)) for i in range(5)])
    np.testing.assert_allclose(sol.y1, y0s * jnp.exp(-2 * ks), rtol=1e-5)


def test_a_second_call_traces_nothing_and_jit_gives_the_same():
    traced = []

    def field(t, y, k):
        traced.append(1)
        return -k * y

    decay = de.ODEProblem(field, 1.0, (0.0, 1.0))
    ks = jnp.linspace(0.0, 3.0, 80)
    solve = lambda ks: de.solve_ensemble(decay, args=ks).y1
    first, count = solve(ks), len(traced)
    assert de.solve_ensemble(decay, args=ks).strategy == "lanes"  # more than a chunk, on a CPU
    assert de.solve_ensemble(decay, args=ks[:3], throw=False).strategy == "lockstep"
    traced.clear()
    np.testing.assert_array_equal(solve(ks), first)
    assert count > 0
    assert not traced
    np.testing.assert_allclose(jax.jit(solve)(ks), first, rtol=1e-12)
    # Twice the batch: an ensemble for each row.
    both = jax.vmap(solve)(jnp.stack([ks, ks + 1]))
    np.testing.assert_allclose(both[0], first, rtol=1e-12)


def energy(t, y, args):
    return jnp.sum(y**2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_set_of_rows_has_its_statistics(strategy):
    asked = {"saveat": {"end": None, "early": jnp.array([0.5, 1.0])}, "save": {"end": energy}}
    run = lambda **more: de.solve_ensemble(
        BLOWS_UP, de.Tsit5(), args=jnp.array([0.1, 1.0, 0.3, 0.2]), strategy=strategy, chunk=2,
        throw=False, **asked, **more,
    )  # fmt: skip
    sol, whole = run(reduce=(de.stats.Mean(), de.stats.Extremes())), run()
    arrived = np.asarray(whole.success)
    assert sol.reduced.keys() == sol.ts.keys() == {"end", "early"}
    np.testing.assert_array_equal(sol.ts["early"], [0.5, 1.0])
    for key, ys in whole.ys.items():
        mean, ends = sol.reduced[key]
        np.testing.assert_allclose(mean, ys[arrived].mean(0), rtol=1e-12)
        np.testing.assert_array_equal(ends.greatest, ys[arrived].max(0))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_statistics_are_those_of_the_trajectories_that_arrived(strategy):
    rates = jnp.array([0.1, 1.0, 0.3, 0.2, 0.05, 0.4, 0.15])
    ts = jnp.array([0.5, 1.5])
    wanted = {"mean": de.stats.Mean(), "more": (de.stats.Variance(ddof=1), de.stats.Extremes())}

    def solve(rates, **options):
        return de.solve_ensemble(
            BLOWS_UP, de.Tsit5(), args=rates, saveat=ts, strategy=strategy, chunk=2, throw=False,
            **options,
        )  # fmt: skip

    sol, whole = solve(rates, reduce=wanted), solve(rates)
    ys = whole.ys[np.asarray(whole.success)]
    assert (sol.failed.count, len(ys)) == (1, 6)
    assert sol.ys is None
    np.testing.assert_array_equal(sol.ts, ts)
    np.testing.assert_array_equal(sol.last.t, whole.last.t)
    variance, ends = sol.reduced["more"]
    np.testing.assert_allclose(sol.reduced["mean"], ys.mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, ys.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(ends.greatest, ys.max(0), rtol=1e-12)
    if strategy == "lanes":
        mean = lambda rates: solve(rates, reduce=de.stats.Mean()).reduced[-1]
        value, slope = jax.jit(jax.value_and_grad(mean))(rates)
        np.testing.assert_allclose(value, ys.mean(0)[-1], rtol=1e-12)
        known = jax.grad(lambda rates: jnp.sum(solve(rates).filled(0.0)[:, -1]))(rates) / 6
        np.testing.assert_allclose(slope, known.at[1].set(0.0), rtol=1e-8)


DECAY = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
ROWS = jnp.ones(3)
UNCHECKED = keywords(inspect.unwrap(de.solve_ensemble))


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({}, ValueError, "nothing has a leading axis"),
        ({"n": 3}, ValueError, "nothing differs among 3 solves of a ODEProblem"),
        ({"args": {"a": ROWS, "b": jnp.ones(4)}}, ValueError,
         r"disagree: args\['a'\] has 3, args\['b'\] has 4"),
        ({"n": 5, "args": ROWS}, ValueError, "disagree: n has 5, args has 3"),
        ({"y0": jnp.ones(2), "args": ROWS}, ValueError, "disagree: y0 has 2, args has 3"),
        ({"args": (ROWS, 2.0)}, ValueError, r"args\[1\] is 2.0, without a leading axis"),
        ({"args": jnp.ones((0, 2))}, ValueError, "args has a leading axis of length 0"),
        ({"args": ROWS, "in_axes": {"y0": 0}}, ValueError, "in_axes has 'y0', which was not given"),
        ({"args": ROWS, "in_axes": 1}, ValueError, "in_axes is 1; 0 for every array"),
        ({"args": ROWS, "in_axes": {"args": 1}}, ValueError, r"in_axes has 1 for args"),
        ({"args": ROWS, "in_axes": {"args": (0, 0)}}, ValueError, "is no prefix of args"),
        ({"args": ROWS, "in_axes": {"args": "a"}}, ValueError, "whole numbers are wanted"),
        ({"args": ROWS, "strategy": "gpu"}, ValueError, "strategy is 'gpu'; one of 'auto'"),
        ({"args": ROWS, "chunk": 0}, TypeError, "chunk is 0; a positive whole number, or 'tuned'"),
        ({"n": 2.5}, TypeError, "n is 2.5; a positive whole number"),
        ({"n": 3, "draw": 1.0, "key": KEY}, TypeError, r"a function draw\(key\) is wanted"),
        ({"draw": dict, "key": KEY}, TypeError, "draw was given without n"),
        ({"n": 3, "draw": dict}, TypeError, "draw was given without key"),
        ({"n": 3, "draw": lambda key: 1.0, "key": KEY}, TypeError, "draw returned float; a dict"),
        ({"n": 3, "draw": lambda key: {"u": 1.0}, "key": KEY}, TypeError, "replace got 'u'"),
        ({"args": ROWS, "key": KEY}, TypeError, "key was given, but ODEProblem has no noise"),
        ({"args": ROWS, "rtol": -1.0}, ValueError, "rtol is -1.0"),
        ({"args": ROWS, "shards": 2}, TypeError, "solve_ensemble got 'shards', which it does not"),
        ({"args": ROWS, "reduce": {"m": jnp.mean}}, TypeError, r"statistics are wanted, such as"),
        ({"args": ROWS, "reduce": de.stats.Mean}, TypeError, r"an instance is wanted"),
        ({"args": ROWS, "reduce": de.stats.Mean(), "saveat": {"a": "steps"}}, ValueError,
         r"reduce was given with saveat=\{'a': 'steps'\}"),
        ({"args": ROWS, "reduce": de.stats.Mean(), "saveat": "steps"}, ValueError,
         "reduce was given with saveat='steps'; statistics are of rows that all"),
    ],
)  # fmt: skip
def test_refused(given, error, sentence):
    # (Without the types that tests check, which would say less.)
    with pytest.raises(error, match=sentence):
        UNCHECKED(DECAY, **given)


def test_refused_by_the_problem():
    with pytest.raises(TypeError, match="SteadyStateProblem, which is not followed in time"):
        de.solve_ensemble(de.SteadyStateProblem(lambda y, a: a - y, 1.0), args=ROWS)
    spring = de.SecondOrderProblem(lambda t, x, v, k: -x, 1.0, 0.0, (0.0, 1.0))
    with pytest.raises(TypeError, match=r"y0 of a SecondOrderProblem is a pair \(x0, v0\)"):
        de.solve_ensemble(spring, y0=ROWS)
    with pytest.raises(ValueError, match="draws its noise"):
        de.solve_ensemble(GROWTH, n=3, dt=0.5)

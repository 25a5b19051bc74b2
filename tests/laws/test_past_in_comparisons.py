"""What a field asks of its past is seen by flags, and not by a value that a comparison may swallow.

The references are exact: between the times at which a delayed comparison changes, the equations are
linear, with constants.
"""

import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import diffeq as de
from diffeq.autodiff.raised_flags import flagged, with_flags


def switched(production, decay, levels, lags, x, end):
    """x_i' = production(bits)_i − decay_i x_i at the end, with bits_j = x_j(t − lag_j) > level_j,
    from a constant history.
    """
    x, decay, levels = (np.asarray(v, float) for v in (x, decay, levels))
    t, above, queue = 0.0, x > levels, []
    bits = above.copy()
    while True:
        rest = np.asarray(production(bits)) / decay
        left = (levels - rest) / (x - rest)
        cross = np.where((left > 0) & (left < 1) & ((rest > levels) != above), left, 0.0)
        with np.errstate(divide="ignore"):
            times = t - np.log(cross) / decay
        i, due = int(np.argmin(times)), queue[0][0] if queue else np.inf
        now = min(times[i], due, end)
        x, t = rest + (x - rest) * np.exp(-decay * (now - t)), now
        if now == end:
            return x
        if now == due:
            _, j, bits[j] = heapq.heappop(queue)
        else:
            x[i], above[i] = levels[i], ~above[i]
            heapq.heappush(queue, (now + lags[i], i, bool(above[i])))


def relay(t, y, past, lag):
    return jnp.where(past(t - lag) > 0, -1.0, 1.0)


RELAY = de.DDEProblem(relay, None, (0.0, 10.0), 0.5, history=1.0, lags=lambda lag: lag)
# It first comes down for 1.5, then goes up and down for 1 each.
ENDS = {0.5: 0.0, 0.4: 0.2}


@pytest.mark.parametrize(
    "lags", [lambda lag: lag, (), lambda t, y, lag: lag], ids=["", "none", "y"]
)
def test_a_delayed_relay(lags):
    for rtol, most in ((1e-4, 1e-2), (1e-8, 1e-6)):
        sol = de.solve(RELAY.replace(lags=lags), de.Bosh3(), rtol=rtol, atol=rtol)
        assert abs(sol.y1 - ENDS[0.5]) < most


@pytest.mark.thorough
@pytest.mark.parametrize("method", [None, de.Tsit5(), de.Rodas5P(), de.KenCarp4(), de.BDF()])
def test_a_delayed_relay_by_other_methods(method):
    lanes = jax.vmap(lambda lag: de.solve(RELAY.replace(args=lag), method, rtol=1e-7, atol=1e-7).y1)
    np.testing.assert_allclose(lanes(jnp.array(list(ENDS))), list(ENDS.values()), atol=1e-4)


def test_a_thermostat_whose_sensor_is_late():
    room = lambda t, T, past, a: 3.0 * (past(t - 0.3) < 20.0) - 0.1 * (T - 10.0)
    problem = de.DDEProblem(room, None, (0.0, 30.0), history=15.0, lags=0.3)
    want = 10 + switched(lambda warm: 3.0 * ~warm, [0.1], [10.0], [0.3], [5.0], 30.0)[0]
    for rtol in (1e-3, 1e-6):
        assert abs(de.solve(problem, de.Bosh3(), rtol=rtol).y1 - want) < 100 * rtol * want


def test_a_network_of_genes():
    def field(t, y, past, lags):
        high = jnp.stack([past(t - lag)[i] for i, lag in enumerate(lags)]) > 0.4
        made = jnp.stack([~high[2], high[0] & ~high[2], high[0] | high[1]])
        return 1.5 * made - jnp.array([1.0, 1.2, 0.8]) * y

    def made(high):
        return 1.5 * np.array([~high[2], high[0] & ~high[2], high[0] | high[1]])

    lags, start = [0.3, 0.5, 0.8], [0.1, 0.6, 0.2]
    problem = de.DDEProblem(
        field, None, (0.0, 15.0), jnp.array(lags), history=start, lags=lambda lags: lags
    )
    want = switched(made, [1.0, 1.2, 0.8], [0.4] * 3, lags, start, 15.0)
    np.testing.assert_allclose(de.solve(problem, de.Bosh3(), rtol=1e-7, atol=1e-7).y1, want,
                               atol=1e-5)  # fmt: skip


def test_an_implicit_method_on_a_relay_with_noise():
    """It looks back from the end of its step, at the step itself where the lag is shorter: and that
    has no solution, where the relay turns over.
    """
    drift = lambda t, y, past, lag: jnp.where(past(t - lag) > 0, -1.0, 1.0)
    still = lambda t, y, past, lag: jnp.zeros_like(y)
    problem = de.SDDEProblem(drift, still, None, (0.0, 2.0), 0.2, history=0.51, lags=())
    given = {"dt": 0.02, "key": jax.random.key(0), "throw": False}
    by_hand = [0.51] * 10
    for n in range(100):
        by_hand.append(by_hand[-1] + (-0.02 if by_hand[n] > 0 else 0.02))
    assert abs(de.solve(problem, de.ImplicitEM(), **given).y1 - by_hand[-1]) < 1e-9
    short = de.solve(problem.replace(args=0.01), de.ImplicitEM(), **given)
    assert short.status == de.Status.newton_failed
    assert abs(short.last.y) < 0.05


def status(f, **options):
    problem = de.DDEProblem(f, None, (0.0, 3.0), history=1.0, lags=1.0)
    return de.Status(int(de.solve(problem, throw=False, **options).status)).name


@pytest.mark.parametrize("dt", [None, 0.1])
def test_a_future_that_is_only_compared(dt):
    ahead = lambda t, y, past, a: jnp.where(past(t + 0.5) > 0, -1.0, 1.0)
    assert status(ahead, method=de.RK4() if dt else de.Bosh3(), dt=dt) == "beyond_present"


def test_a_future_that_is_only_asked_for_late():
    """Far from where the step starts that fails."""
    late = lambda t, y, past, a: -1.0 * (past(2.0 * t - 1.0) > 0)
    assert status(late, method=de.RK4(), dt=0.3) == "beyond_present"
    assert status(late, method=de.Bosh3()) == "beyond_present"


def test_a_past_that_is_lost_and_only_compared():
    back = lambda t, y, past, a: jnp.where(past(t - 1.0) > 0, -1.0, 1.0)
    short = {"method": de.RK4(), "dt": 0.01}
    assert status(back, **short, max_saves=8) == "history_overflow"
    assert status(back, **short, max_saves=128) == "success"


# --- where it is asked for ------------------------------------------------------------------------


def in_a_scan(past, t):
    return lax.scan(lambda c, lag: (c + (past(t - lag) > 0), None), 0, jnp.array([0.5]))[0] > 0


def in_a_loop(past, t):
    return lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, past(t - 0.5) > 0), (0, False))[
        1
    ]


def in_a_condition(past, t):
    above = lambda k: (past(t - 0.5) > 0) & (k < 1)
    return lax.while_loop(above, lambda k: k + 1, 0) > 0


def in_a_branch(past, t):
    return lax.cond(t > -1.0, lambda: past(t - 0.5) > 0, lambda: past(t + 1.0) > 0)


def in_a_call(past, t):
    return jax.jit(jax.checkpoint(lambda t: past(t - 0.5) > 0))(t)


def in_a_map(past, t):
    return jnp.all(jax.vmap(lambda lag: past(t - lag) > 0)(jnp.array([0.5])))


def in_a_derivative(past, t):
    return jax.grad(lambda s: past(s) ** 2)(t - 0.5) * 0 + past(t - 0.5) > 0


WAYS = [
    in_a_scan, in_a_loop, in_a_condition, in_a_branch, in_a_call, in_a_map, in_a_derivative,
]  # fmt: skip


@pytest.mark.parametrize("asks", WAYS)
def test_wherever_it_is_asked_for_it_is_seen(asks):
    past = lambda s: flagged(s, jnp.where(s > 0, 2, 1))
    found = [int(with_flags(lambda t: asks(past, t), t)[1]) for t in (0.0, 1.0)]
    assert found == [1, 2]


@pytest.mark.thorough
@pytest.mark.parametrize("asks", WAYS)
def test_wherever_it_is_asked_for_the_solution_is_right(asks):
    problem = RELAY.replace(f=lambda t, y, past, a: jnp.where(asks(past, t), -1.0, 1.0))
    sol = de.solve(problem.replace(tspan=(0.0, 4.0)), de.Bosh3(), rtol=1e-6, atol=1e-6)
    assert abs(sol.y1) < 1e-3


def test_what_hides_it_is_named():
    def away(t, y, past, a):
        return jax.scipy.sparse.linalg.cg(lambda x: (2 + past(t - 0.5)) * x, y)[0]

    with pytest.raises(TypeError, match=r"inside of a custom_linear_solve .*test_past_in_comp"):
        de.solve(RELAY.replace(f=away))


def test_flags_of_branches_that_are_not_taken_and_of_loops_that_do_not_run():
    def f(x, n):
        x = lax.cond(x > 0, lambda: flagged(x, 1), lambda: flagged(x, 2))
        x = lax.fori_loop(0, n, lambda i, x: jnp.where(flagged(x, 4) > 0, x, x), x)
        return jax.vmap(lambda a: flagged(a, jnp.where(a > 2, 8, 0)))(x * jnp.arange(3.0)).sum()

    found = [int(jax.jit(lambda x, n: with_flags(f, x, n)[1])(x, n))
             for x, n in ((0.5, 0), (-0.5, 2), (2.0, 1))]  # fmt: skip
    assert found == [1, 6, 13]
    lanes = jax.vmap(lambda x: with_flags(f, x, 1)[1])(jnp.array([-1.0, 2.0]))
    assert lanes.tolist() == [6, 13]

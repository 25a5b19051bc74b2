"""Two methods in one solve: when they change, what that costs, and its derivative."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import stiff_grid

import diffeq as de
from diffeq import zoo

PAIR = de.Switching(de.Tsit5(), de.Rodas5P())
TOLERANCES = {"rtol": 1e-8, "atol": 1e-10}


def hill(t, y, k):
    """Pulled to (cos t, sin t) at a rate of about k for 1 < t < 2, and of 1 before and after."""
    rate = 1 + k * (jnp.tanh(20 * (t - 1)) - jnp.tanh(20 * (t - 2))) / 2
    return -rate * (y - jnp.stack([jnp.cos(t), jnp.sin(t)]))


HILL = de.ODEProblem(hill, [1.0, 0.0], (0.0, 3.0), 2e4)
AT = jnp.linspace(0.0, 3.0, 7)


def weighed(sol):
    return jnp.sum(sol.ys * jnp.arange(7.0)[:, None])


@partial(jax.jit, static_argnums=1)
def valued(k, rows=64):
    """The loss, and its derivative through a tape that is thinned; both ways."""

    def loss(k):
        problem, tape = HILL.replace(args=k), de.Discrete(rows=rows)
        sol = de.solve(problem, PAIR, saveat=AT, adjoint=tape, throw=False, **TOLERANCES)
        return weighed(sol), sol.stats

    slope, stats = jax.grad(loss, has_aux=True)(k)
    return loss(k)[0], slope, jax.jacfwd(lambda k: loss(k)[0])(k), stats


@jax.jit
def alone(k):
    """The loss by a stiff method from end to end."""
    return weighed(de.solve(HILL.replace(args=k), de.Rodas5P(), saveat=AT, **TOLERANCES))


def test_plain_problems_are_solved_by_the_explicit_method_step_by_step():
    problem = zoo.case("lotka_volterra").problem()
    pair, lean = (de.solve(problem, method, **TOLERANCES) for method in (PAIR, de.Tsit5()))
    np.testing.assert_allclose(pair.y1, lean.y1, rtol=1e-12)
    for count in ("steps", "rejected", "evaluations"):
        assert pair.stats[count] == lean.stats[count]


def test_robertson_is_solved_by_the_stiff_one():
    case = zoo.case("robertson")
    options = {"rtol": 1e-6, "atol": 1e-10}
    pair, stiff = (de.solve(case.problem(), m, **options) for m in (PAIR, de.Rodas5P()))
    np.testing.assert_allclose(pair.y1, case.reference.y1, rtol=1e-5)
    assert pair.stats["steps"] < 1.5 * stiff.stats["steps"]


def test_there_and_back_and_the_derivative_of_it():
    k = 2e4
    value, slope, pushed, stats = valued(k)
    np.testing.assert_allclose(value, alone(k), rtol=1e-7)
    np.testing.assert_allclose(pushed, slope, rtol=1e-9)
    h = 1e-2 * k
    outer = (alone(k - 2 * h) - alone(k + 2 * h)) / 12
    differences = (outer + 2 * (alone(k + h) - alone(k - h)) / 3) / h
    np.testing.assert_allclose(slope, differences, rtol=1e-3)
    assert stats["steps"] > 128, "the tape is thinned"
    # Seven evaluations a step would be Tsit5 alone, nine Rodas5P; both of them have their part.
    assert 6.2 < stats["evaluations"] / (stats["steps"] + stats["rejected"]) < 8.8


@pytest.mark.thorough
def test_the_derivative_by_parts_of_windows():
    """Of few rows a window has many attempts, of both methods in turn, and a rejected one may be
    the last before the tape is thinned.
    """
    close = partial(np.testing.assert_allclose, rtol=1e-9)
    _, slope, pushed, _ = valued(2e4)
    for rows in (8, 6):
        _, by_parts, pushed_by_parts, _ = valued(2e4, rows)
        close(by_parts, slope)
        close(pushed_by_parts, pushed)


@pytest.mark.thorough
def test_rejections_before_a_tape_is_thinned_keep_their_step_size():
    """In lanes that differ in their numbers of steps by either method."""

    def oscillator(t, y, a):
        return jnp.array([y[1], a * (1 - y[0] ** 2) * y[1] - y[0]])

    def loss(a, rows):
        problem = de.ODEProblem(oscillator, [1.0, 0.3], (0.0, 60.0), a)
        options = {"rtol": 1e-5, "atol": 1e-5, "max_steps": 5000, "adjoint": de.Discrete(rows=rows)}
        sol = de.solve(problem, PAIR, saveat=jnp.linspace(0.0, 60.0, 7), throw=False, **options)
        return jnp.sum(jnp.sin(sol.ys))

    many = lambda rows: jax.jit(jax.vmap(jax.grad(partial(loss, rows=rows))))
    a = jnp.array([20.0, 5.0, 0.5])
    np.testing.assert_allclose(many(6)(a), many(None)(a), rtol=1e-8)


def test_where_it_is_stiff_the_steps_are_those_of_a_stiff_method():
    ts = np.asarray(de.solve(HILL, PAIR, saveat="steps", **TOLERANCES).ts)
    inside = np.diff(ts[(ts > 1.3) & (ts < 1.7)])
    limit = 3.3 / 2e4  # of Tsit5
    assert inside.max() > 20 * limit
    late = ts[ts > 2.3]
    lean = de.ODEProblem(hill, jnp.stack([jnp.cos(2.3), jnp.sin(2.3)]), (2.3, 3.0), 2e4)
    few = de.solve(lean, de.Tsit5(), **TOLERANCES).stats["steps"]
    assert len(late) < 2 * few + 10


def test_a_step_that_is_handed_over_is_so_when_a_window_runs_again():
    case = zoo.case("robertson")

    @jax.jit
    def both(k):
        def end(k, tape):
            options = {"rtol": 1e-6, "atol": 1e-10, "adjoint": tape, "throw": False}
            sol = de.solve(case.problem().replace(args=k), PAIR, **options)
            return sol.y1[0]

        return [jax.grad(end)(k, de.Discrete(rows=rows)) for rows in (32, 256)]

    short, long = both(jnp.asarray(case.args))
    np.testing.assert_allclose(short, long, rtol=1e-9)


@pytest.mark.thorough
def test_a_batch_of_lanes_some_of_which_are_stiff():
    rates = jnp.array([0.0, 2e4, 10.0, 1e6])

    def loss(k):
        sol = de.solve(HILL.replace(args=k), PAIR, saveat=AT, adjoint=de.Discrete(rows=128),
                       throw=False, **TOLERANCES)  # fmt: skip
        return weighed(sol), sol.stats["steps"]

    both = jax.value_and_grad(loss, has_aux=True)
    (together, steps), slopes = jax.jit(jax.vmap(both))(rates)
    one = jax.jit(both)
    for i, k in enumerate(rates):
        (value, count), slope = one(k)
        assert steps[i] == count
        np.testing.assert_allclose(together[i], value, rtol=1e-11)
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-6, atol=1e-15)


@pytest.mark.thorough
def test_it_begins_anew_after_events_and_stops():
    kicks = de.PresetTimes([0.5, 1.5, 2.5], lambda t, y, k: y + 0.5)
    pair, stiff = (
        de.solve(HILL, method, events=kicks, stops=[0.7, 1.7], dense=True, **TOLERANCES)
        for method in (PAIR, de.Rodas5P())
    )
    at = jnp.array([0.6, 1.4, 1.6, 2.6])
    np.testing.assert_allclose(pair(at), stiff(at), atol=1e-6)
    assert pair.stats["steps"] < 3 * stiff.stats["steps"]


def test_after_the_last_lap_the_stiff_method_stays(monkeypatch):
    monkeypatch.setattr("diffeq.integrator.loop.MOST_LAPS", 1)
    sol = de.solve(HILL, PAIR, max_steps=5000, **TOLERANCES)
    monkeypatch.undo()
    back = de.solve(HILL, PAIR, max_steps=5001, **TOLERANCES)
    np.testing.assert_allclose(sol.y1, back.y1, rtol=1e-6)
    each = [s.stats["evaluations"] / (s.stats["steps"] + s.stats["rejected"]) for s in (sol, back)]
    assert each[0] > each[1] + 0.1


@pytest.mark.parametrize(
    ("nonstiff", "stiff", "message"),
    [
        (de.Bosh3(), de.Rodas5P(), r"Bosh3\(\) has no embedded pair or no dense output"),
        (de.RK4(), de.Rodas5P(), r"RK4\(\) has no embedded pair"),
        (de.Rodas4(), de.Tsit5(), "an explicit Runge–Kutta method and a Rosenbrock method"),
    ],
)
def test_what_cannot_be_paired(nonstiff, stiff, message):
    with pytest.raises(TypeError, match=message):
        de.Switching(nonstiff, stiff)


def test_what_a_pair_does_not_do():
    dae = de.DAEProblem(lambda t, y, a: -y, [1.0, 0.0], (0.0, 1.0), mass_matrix=jnp.array([1.0, 0]))
    with pytest.raises(TypeError, match=r"this is a DAEProblem: .* such as de\.Rodas5P\(\)"):
        de.solve(dae, PAIR)
    rest = de.SteadyStateProblem(lambda t, y, a: -y, [1.0])
    with pytest.raises(TypeError, match="this is a SteadyStateProblem"):
        de.solve(rest, PAIR)
    with pytest.raises(ValueError, match=r"these are given: leave dt= or controller= out"):
        de.solve(HILL, PAIR, dt=0.1)
    with pytest.raises(TypeError, match="cannot be stepped by hand yet"):
        de.init(HILL, PAIR)
    with pytest.raises(TypeError, match=r"methods that take turns.*those that do: Discrete\."):
        de.solve(HILL, PAIR, adjoint=de.Gauss())
    with pytest.raises(ValueError, match="one of both is wanted"):
        de.Gauss(method=PAIR, integral="augmented")


# --- the limit of stability -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        # rtol and atol at which the limit of stability was not seen, for dt swings about it.
        ("robertson_40", [(1e-2, 1e-2), (1e-3, 1e-3), (1e-3, 1e-5), (1e-4, 1e-7), (1e-6, 1e-7)]),
        ("oscillator_1e3", [(1e-2, 1e-2), (1e-3, 1e-6), (1e-5, 1e-8)]),
        # The explicit method left the solution for one that explodes: where atol is above a
        # component it may, and did so in its first steps.
        ("robertson_40", [(1e-3, 1e-4), (1e-4, 1e-4)]),
        ("e5", [(1e-2, 1e-2)]),
        # It excited oscillations that never decay, in a step that it accepted.
        ("beam", [(1e-3, 1e-3), (1e-5, 1e-5)]),
        # Votes for and against were as many: three of four steps are just inside of the limit.
        ("oscillator_1e5", [(1e-5, 1e-6)]),
    ],
)
def test_the_explicit_method_is_left_at_many_tolerances(name, pairs):
    for row in stiff_grid.compare(name, pairs):
        assert row.default.status == de.Status.success, row
        assert row.default.attempts < 8 * row.stiff.attempts, row
        assert not row.wrong, row


def test_a_first_attempt_that_overflows_is_handed_over():
    case = zoo.case("robertson")
    field = lambda t, y, a: case.field(t, y, [np.float32(k) for k in case.args])
    problem = de.ODEProblem(field, jnp.float32([1.0, 0.0, 0.0]), (0.0, 40.0))
    sol = de.solve(problem, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(sol.y1, [0.7158, 9.2e-6, 0.2842], atol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(stiff_grid.PROBLEMS))
def test_the_default_is_as_good_as_the_stiff_method(name):
    for row in stiff_grid.compare(name):
        if row.stiff.status.ok:
            assert row.default.status.ok, row
            assert not row.wrong, row
            assert row.default.attempts < 200 + 8 * row.stiff.attempts, row


@pytest.mark.parametrize("name", ["lorenz", "arenstorf"])
def test_what_is_not_stiff_is_left_to_the_explicit_method(name):
    problem = zoo.case(name).problem()
    default, lean = (de.solve(problem, method, rtol=1e-5) for method in (None, de.Tsit5()))
    for count in ("steps", "rejected", "evaluations"):
        assert default.stats[count] == lean.stats[count]


# --- the default ----------------------------------------------------------------------------------

ROBERTSON = zoo.case("robertson").problem()
LOOSE = {"rtol": 1e-6, "atol": 1e-10}


def test_without_a_method_an_ode_is_solved_by_the_pair_whether_compiled_or_not():
    """Outside of jit the explicit method goes alone until the problem turns out to be stiff."""

    def first(k, method=None):
        sol = de.solve(ROBERTSON.replace(args=k), method, throw=False, **LOOSE)
        return sol.y1[0], (sol.status, sol.stats)

    pair = jax.jit(lambda k: jax.value_and_grad(first, has_aux=True)(k))(ROBERTSON.args)
    plain = jax.value_and_grad(first, has_aux=True)(ROBERTSON.args)
    assert plain[0][1][0] == pair[0][1][0] == de.Status.success
    assert plain[0][1][1]["steps"] == pair[0][1][1]["steps"] < 200
    np.testing.assert_allclose(plain[0][0], pair[0][0], rtol=1e-12)
    np.testing.assert_allclose(plain[1], pair[1], rtol=1e-9)
    named = de.solve(ROBERTSON, PAIR, **LOOSE)
    np.testing.assert_array_equal(de.solve(ROBERTSON, **LOOSE).y1, named.y1)


def test_what_is_not_stiff_never_sees_the_stiff_method(monkeypatch):
    problem = zoo.case("lotka_volterra").problem()
    lean = de.solve(problem, de.Tsit5(), rtol=1e-5, dense=True)
    monkeypatch.setattr("diffeq.methods.switching.step_from", None)
    sol = de.solve(problem, rtol=1e-5, dense=True)
    assert repr(sol) == repr(lean)
    np.testing.assert_allclose(sol(jnp.arange(5.0)), lean(jnp.arange(5.0)), rtol=1e-12)


def test_the_scout_ends_where_the_pair_would_hand_over():
    sol = de.solve(HILL, PAIR.nonstiff_probe, throw=False, **TOLERANCES)
    assert sol.status == de.Status.stiff
    assert 1.0 < float(sol.t1) < 1.1
    with pytest.raises(de.SolveError, match="turned out to be stiff"):
        sol.check()


def test_where_the_default_stays_explicit():
    def chosen(problem, **options):
        return de.solve(problem, **options).about.method

    assert chosen(HILL.replace(args=1.0)) == repr(PAIR)
    assert chosen(HILL.replace(args=1.0), rtol=1e-7).startswith("Switching(Vern7()")
    assert chosen(HILL.replace(args=1.0), dt=0.1) == "Tsit5()"
    assert chosen(HILL.replace(args=1.0), adjoint=de.Gauss()) == "Tsit5()"
    large = de.ODEProblem(lambda t, y, k: -k * y, jnp.ones(65), (0.0, 1.0), 1.0)
    assert chosen(large) == "Tsit5()"
    assert chosen(large.replace(y0=jnp.ones(64))) == repr(PAIR)
    layer = de.nn.NeuralODE(lambda y: -y, tspan=(0.0, 1.0))
    assert layer(jnp.ones(2)).about.method == "Tsit5()"


def perceptron(t, y, w):
    return w["out"] @ jnp.tanh(w["in"] @ y)


def test_a_network_in_a_compiled_program_stays_explicit():
    methods = []

    def end(w, y0):
        problem = de.ODEProblem(perceptron, y0, (0.0, 1.0), w)
        sol = de.solve(problem)
        methods.append(sol.about.method)
        return jnp.sum(sol.y1)

    w, y0 = {"in": jnp.eye(2), "out": -jnp.ones((2, 2))}, jnp.array([1.0, 0.5])
    compiled, known = jax.jit(jax.grad(end))(w, y0), jax.grad(end)(w, y0)
    for layer in w:
        np.testing.assert_allclose(compiled[layer], known[layer], rtol=1e-6)
    assert methods == ["Tsit5()", repr(PAIR)]


def test_a_stiff_network_is_seen_where_numbers_are_known():
    w = {"in": 150 * jnp.eye(2), "out": -150 * jnp.eye(2)}
    problem = de.ODEProblem(perceptron, [0.1, 0.2], (0.0, 3.0), w)
    by_default, by_pair = (de.solve(problem, *method, **LOOSE) for method in ((), (PAIR,)))
    assert by_default.about.method == repr(PAIR)
    assert by_default.stats["steps"] == by_pair.stats["steps"] < 1000


def test_a_field_without_forward_derivatives_stays_explicit_in_compiled_programs():
    falls = jax.custom_vjp(lambda y: -y)
    falls.defvjp(lambda y: (-y, None), lambda _, dy: (-dy,))
    problem = de.ODEProblem(lambda t, y, args: falls(y), 1.0, (0.0, 1.0))
    methods = []

    def end(y0):
        sol = de.solve(problem.replace(y0=y0))
        methods.append(sol.about.method)
        return sol.y1

    np.testing.assert_allclose(jax.jit(jax.grad(end))(2.0), np.exp(-1.0), rtol=1e-4)
    assert methods == ["Tsit5()"]


def test_an_ensemble_of_which_some_are_stiff():
    rates = jnp.array([0.0, 2e4, 10.0])
    options = LOOSE | {"strategy": "lockstep", "throw": "compiled"}  # nor does the scout raise
    sol = de.solve_ensemble(HILL, args=rates, **options)
    assert sol.failed.count == 0
    for i, rate in enumerate(rates):
        np.testing.assert_allclose(sol.y1[i], de.solve(HILL.replace(args=rate), PAIR, **LOOSE).y1,
                                   rtol=1e-9)  # fmt: skip


@pytest.mark.thorough
def test_a_lane_that_fails_leaves_its_mates_alone():
    blows_up = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 2.0), 1.0)

    def end(a):
        sol = de.solve(blows_up.replace(args=a), rtol=1e-8, atol=1e-10)
        return jnp.where(sol.success, sol.y1, 7.0), sol.status

    rates = jnp.array([0.2, 1.0, 0.4])
    (ends, statuses), slopes = jax.jit(jax.vmap(jax.value_and_grad(end, has_aux=True)))(rates)
    fine = np.array([0, 2])
    np.testing.assert_allclose(ends[fine], 1 / (1 - 2 * rates[fine]), rtol=1e-6)
    np.testing.assert_allclose(slopes[fine], 2 / (1 - 2 * rates[fine]) ** 2, rtol=1e-5)
    assert (ends[1], slopes[1]) == (7.0, 0.0)
    assert statuses[1] not in (de.Status.success, de.Status.stiff)

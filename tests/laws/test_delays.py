"""What is refused of delay equations, how they fail, and that others pay nothing for them."""

import jax
import jax.numpy as jnp
import pytest

import diffeq as de


def problem(**changes):
    whole = de.DDEProblem(
        lambda t, y, past, a: -past(t - a), None, (0.0, 3.0), 1.0, history=1.0, lags=lambda a: a
    )
    return whole.replace(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"lags": -1.0}, ValueError, "lags has -1"),
        ({"lags": [1.0, 0.0]}, ValueError, "lags has 0"),
        ({"args": float("nan")}, ValueError, "lags has NaN"),
        ({"lags": jnp.inf}, ValueError, "finite"),
        ({"lags": "one"}, TypeError, "lags is 'one'"),
        ({"lags": lambda a, b: a}, TypeError, "lags"),
        ({"history": None}, TypeError, "history is None"),
        ({"history": jnp.ones(2), "y0": jnp.ones(3)}, TypeError, "history is float64"),
        ({"history": lambda t: 1.0}, TypeError, "history"),
        ({"history": 1}, TypeError, "real or complex"),
        ({"f": lambda t, y, args: y}, TypeError, "t, y, past, args"),
    ],
)
def test_refused_before_anything_runs(changes, error, words):
    with pytest.raises(error, match=words):
        de.solve(problem(**changes))


@pytest.mark.parametrize("method", [de.VelocityVerlet(), de.DPRKN6(), de.SOSRI()])
def test_methods_of_other_equations_are_refused(method):
    with pytest.raises(TypeError, match="does not solve delay equations"):
        de.solve(problem(), method, dt=0.1)


def test_what_has_not_been_worked_out_is_refused():
    with pytest.raises(TypeError, match="by hand"):
        de.init(problem())
    for adjoint in (de.Forward(), de.Backsolve(), de.Gauss()):
        with pytest.raises(TypeError, match=r"does not serve a DDEProblem.*Discrete"):
            de.solve(problem(), adjoint=adjoint)
    with pytest.raises(TypeError, match="has no noise"):
        de.solve(problem(), key=jax.random.key(0))


def status(problem, **options):
    return de.Status(int(de.solve(problem, throw=False, **options).status)).name


@pytest.mark.thorough
def test_each_way_to_fail_has_its_status():
    assert status(problem(f=lambda t, y, past, a: -past(t + a))) == "beyond_present"
    assert status(problem(f=lambda t, y, past, a: -past(t + a)), dt=0.1, method=de.RK4()) == (
        "beyond_present"
    )
    tight = {"rtol": 1e-11, "controller": de.PI(dtmax=0.01)}
    assert status(problem(), **tight, max_saves=8) == "history_overflow"
    assert status(problem(), **tight, max_saves=400) == "success"
    run = jax.jit(lambda a: de.solve(problem(args=a)).status)
    assert de.Status(int(run(-1.0))).name == "bad_lags"
    with pytest.raises(de.SolveError, match="rows="):
        jax.grad(lambda a: de.solve(problem(args=a), adjoint=de.Discrete(rows=2)).y1)(0.4)


@pytest.mark.thorough
def test_lanes_fail_alone():
    sols = jax.vmap(lambda a: de.solve(problem(args=a), rtol=1e-8))(jnp.array([1.0, -1.0, 0.5]))
    names = [de.Status(int(s)).name for s in sols.status]
    assert names == ["success", "bad_lags", "success"]
    one = de.solve(problem(args=0.5), rtol=1e-8)
    assert abs(sols.y1[2] - one.y1) < 1e-12


@pytest.mark.thorough
def test_a_lane_that_fails_spoils_no_gradient():
    """One has a bad lag; and of given steps one blows up, with a polynomial that overflows."""

    def wanted(sol):
        return jnp.where(sol.success, sol.y1, 0.0)

    lag = lambda a: wanted(de.solve(problem(args=a), throw=False))
    assert jax.grad(lag)(-1.0) == 0
    field = lambda t, y, past, a: a * y**2 + 0 * past(t - 0.3)
    blown = problem(f=field, lags=0.3)
    given = lambda a: wanted(de.solve(blown.replace(args=a), de.RK4(), dt=0.1, throw=False))
    slopes = jax.grad(lambda a: jax.vmap(given)(a).sum())(jnp.array([5.0, 0.1]))
    assert slopes[0] == 0
    assert abs(slopes[1] - 3 / 0.7**2) < 1e-4  # y = 1/(1 − a t)


def test_many_lags_have_a_bounded_number_of_kinks():
    from diffeq.problems.discontinuities import breaking_points

    many = breaking_points(jnp.array(0.0), jnp.arange(1.0, 11.0), 7)
    assert 10 <= many.shape[0] <= 256
    assert breaking_points(jnp.array(0.0), jnp.array([1.0, 2.5]), 3).shape[0] == 9


def test_equal_kinks_are_one_stop():
    """0.1 + 0.2 and 3 · 0.1 are the same point, rounded otherwise."""
    lags = [0.1, 0.2, 0.3]
    sol = de.solve(
        problem(lags=lags, f=lambda t, y, past, a: -past(t - 0.3)), de.Tsit5(), rtol=1e-3
    )
    assert int(sol.stats["stops"]) == 15  # 0.1, 0.2, … 1.5


def test_an_ode_has_no_trace_of_a_past():
    """Whoever looks at a past has to find a row of it."""
    ode = de.ODEProblem(lambda t, y, a: -a * y, 1.0, (0.0, 1.0), 1.0)
    text = str(jax.make_jaxpr(jax.grad(lambda a: de.solve(ode.replace(args=a)).y1))(1.0))
    assert "find_row" not in text

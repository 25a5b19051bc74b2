"""What is refused of stochastic delay equations, how they fail, and which states they take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

KEY = jax.random.key(0)


def problem(**changes):
    whole = de.SDDEProblem(
        lambda t, y, past, a: -past(t - a), lambda t, y, past, a: 0.1 * past(t - a), None,
        (0.0, 2.0), 1.0, history=1.0, lags=lambda a: a,
    )  # fmt: skip
    return whole.replace(**changes)


def solve(*method, dt=0.1, key=KEY, changes=(), **options):
    return de.solve(problem(**dict(changes)), *method, dt=dt, key=key, **options)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"noise": "white"}, ValueError, "noise is 'white'"),
        ({"interpretation": "Ito"}, ValueError, "interpretation is 'Ito'"),
        ({"lags": -1.0}, ValueError, "lags has -1"),
        ({"history": None}, TypeError, "history is None"),
        ({"history": jnp.ones(2), "y0": jnp.ones(3)}, TypeError, "history is float64"),
        ({"drift": lambda t, y, args: y}, TypeError, "t, y, past, args"),
        ({"diffusion": lambda t, y, args: y}, TypeError, "t, y, past, args"),
        ({"diffusion": lambda t, y, past, args: jnp.ones(2)}, TypeError, "diffusion returned"),
        ({"additive": True}, TypeError, "but it uses past"),
        ({"additive": True, "diffusion": lambda t, y, past, a: y}, TypeError, "but it uses y"),
        ({"tspan": (2.0, 0.0)}, ValueError, "runs backwards"),
        ({"y0": de.hold(1.0)}, ValueError, "held"),
    ],
)
def test_problems_that_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        solve(changes=changes)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"key": None}, ValueError, r"key is None"),
        ({"dt": None}, ValueError, r"no method for SDDEProblem controls its steps: give dt="),
        ({"events": de.PresetTimes([0.5], lambda t, y, a: y)}, TypeError, "events were given"),
        ({"adjoint": de.Forward()}, TypeError, r"does not serve .* SDDEProblem.*Discrete"),
        ({"adjoint": de.Backsolve()}, TypeError, r"does not serve .* SDDEProblem.*Discrete"),
    ],
)
def test_calls_that_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        solve(**options)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (de.Tsit5(), "equations without noise"),
        (de.SOSRI(), "of order 1.5, and sees a past that is a line"),
        (de.SRA1(), "of order 1.5, and sees a past that is a line"),
        (de.Milstein(), r"looks into the past.*EulerMaruyama"),
    ],
)
def test_methods_that_are_refused(method, words):
    with pytest.raises(TypeError, match=words):
        solve(method)


def test_other_ways_in_are_refused():
    with pytest.raises(TypeError, match="SDDEProblem cannot be solved by hand"):
        de.init(problem(), dt=0.1, key=KEY)
    jumping = de.JumpProblem(problem(), de.Jump(1.0, lambda t, y, a: 2 * y))
    with pytest.raises(TypeError, match="problem is a SDDEProblem"):
        de.solve(jumping, dt=0.1, key=KEY)
    plain = de.DDEProblem(lambda t, y, past, a: y, 1.0, (0.0, 1.0), history=1.0, lags=1.0)
    with pytest.raises(TypeError, match="does not solve delay equations"):
        de.solve(plain, de.EulerMaruyama(), dt=0.1)


def test_each_way_to_fail_has_its_status():
    name = lambda **options: solve(throw=False, **options).status
    ahead = {"drift": lambda t, y, past, a: -past(t + a)}
    assert name(changes=ahead) == de.Status.beyond_present
    assert name(max_saves=4) == de.Status.history_overflow
    assert name(max_saves=16) == de.Status.success
    assert jax.jit(lambda a: solve(changes={"args": a}).status)(-1.0) == de.Status.bad_lags
    with pytest.raises(de.SolveError, match="infinite or NaN"):
        solve(changes={"drift": lambda t, y, past, a: 1e200 * past(t - a) ** 2})


@pytest.mark.thorough
def test_trees_many_noises_and_many_times_at_once():
    """Each of the three kinds of noise, along one path: where they can be, they are the same."""
    columns = jnp.array([[0.2, 0.0], [0.0, 0.3]])

    def drift(t, y, past, a):
        old = past(t - jnp.array([0.5, a]))
        assert old["x"].shape == (2,)
        return {"x": -old["x"][1], "z": jnp.stack([old["z"][0, 0], y["x"]])[:1] - y["z"]}

    def general(t, y, past, a):
        old = past(t - a)
        x, z = old["x"] * columns[0], old["z"][:, None] * columns[1]
        return {"x": x, "z": z}

    diagonal = lambda t, y, past, a: {"x": 0.2 * past(t - a)["x"], "z": 0.3 * past(t - a)["z"]}
    start = {"x": jnp.array(1.0), "z": jnp.array([0.5])}
    tree = problem(drift=drift, diffusion=general, history=start, noise="general")
    many = de.solve(tree, dt=0.1, key=KEY)
    each = de.solve(tree.replace(diffusion=diagonal, noise="diagonal"), dt=0.1, key=KEY)
    for name in start:
        np.testing.assert_allclose(many.y1[name], each.y1[name], rtol=1e-13)
    one = de.solve(tree.replace(diffusion=diagonal, noise="scalar"), dt=0.1, key=KEY)
    assert abs(one.y1["x"] - many.y1["x"]) < 1e-13  # which has the first of the motions
    assert abs(one.y1["z"] - many.y1["z"])[0] > 1e-3


def test_steps_from_a_list_and_lags_of_the_state():
    """A list of equal steps is the same path; and a lag that is always 1 is one of the state."""
    wanted = solve(dt=0.25).y1
    listed = solve(dt=None, controller=de.Fixed(jnp.arange(0.0, 2.01, 0.25))).y1
    np.testing.assert_allclose(listed, wanted, rtol=1e-14)
    state = {"lags": lambda t, y, a: a + 0 * y}
    np.testing.assert_allclose(solve(dt=0.25, changes=state).y1, wanted, rtol=1e-14)


@pytest.mark.thorough
def test_single_precision():
    sol = solve(changes={"history": jnp.float32(1.0), "args": jnp.float32(1.0)})
    assert sol.y1.dtype == jnp.float32

"""Leaves of y0 that only events change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def room(t, y, a):
    return {"T": 5.0 * y["on"] - 0.1 * y["T"]}


def switch(on):
    return lambda t, y, a: {**y, "on": on, "count": y["count"] + 1}


COLD = de.Event(lambda t, y, a: y["T"] - 18.0, switch(True), direction=-1)
WARM = de.Event(lambda t, y, a: y["T"] - 22.0, switch(False), direction=1)
Y0 = {"T": 15.0, "count": de.hold(jnp.int32(0)), "on": de.hold(True)}


def thermostat(first=15.0):
    """When the heating of the room is switched, by formulas."""
    heat, cool = (lambda a, b, to: 10 * np.log((to - a) / (to - b))), []
    t = heat(first, 22.0, 50.0)
    while t < 8.0:
        cool.append(t)
        t += heat(22.0, 18.0, 0.0) if len(cool) % 2 else heat(18.0, 22.0, 50.0)
    return np.array(cool)


def test_a_thermostat():
    problem = de.ODEProblem(room, Y0, (0.0, 8.0))
    ts = jnp.linspace(0.0, 8.0, 17)
    sol = de.solve(problem, events=(COLD, WARM), saveat=ts, dense=True, **TIGHT)
    switched = thermostat()
    np.testing.assert_allclose(
        np.sort(np.concatenate([e.ts for e in sol.events])), switched, rtol=1e-8
    )
    count = np.searchsorted(switched, ts, side="right")
    assert (sol.ys["count"] == count).all()
    assert (sol.ys["on"] == (count % 2 == 0)).all()
    assert sol.ys["on"].dtype == bool
    assert sol.ys["count"].dtype == jnp.int32
    assert (sol.events[0].after["count"] == sol.events[0].before["count"] + 1).all()
    at = jnp.array([0.1, switched[0] - 1e-6, switched[0] + 1e-6, 8.0])
    assert (sol(at)["count"] == np.searchsorted(switched, at, side="right")).all()
    assert int(sol.y1["count"]) == len(switched)
    assert jnp.ndim(sol.derivative(1.0)["T"]) == 0


def test_what_is_held_is_in_no_norm_and_no_stage():
    field = lambda t, y, a: {"x": -y["x"]}
    plain = de.solve(de.ODEProblem(lambda t, y, a: -y, jnp.ones(2), (0.0, 5.0)))
    held = de.solve(
        de.ODEProblem(field, {"x": jnp.ones(2), "u": de.hold(jnp.full(9, 1e9))}, (0.0, 5.0))
    )
    assert int(held.stats["steps"]) == int(plain.stats["steps"])
    np.testing.assert_array_equal(held.y1["x"], plain.y1)
    state = de.init(de.ODEProblem(field, {"x": jnp.ones(2), "u": de.hold(7)}, (0.0, 5.0)))
    assert state.inner.y.shape == (2,)
    assert int(de.step(state).y["u"]) == 7
    assert int(state.replace(y={"x": jnp.ones(2), "u": 8}).y["u"]) == 8


@pytest.mark.parametrize(
    "rate",
    [
        lambda t, y, a: {"x": y["u"]},
        lambda t, y, a: {"x": y["u"], "u": None},
        lambda t, y, a: {"x": y["u"], "u": 3.0},
    ],
)
def test_its_rate_may_be_anything(rate):
    sol = de.solve(de.ODEProblem(rate, {"u": de.hold(2.0), "x": 1.0}, (0.0, 1.0)))
    np.testing.assert_allclose([sol.y1["x"], sol.y1["u"]], [3.0, 2.0])


def test_lists_keep_their_place():
    problem = de.ODEProblem(lambda t, y, a: [y[1] * y[0], None], [1.0, de.hold(2)], (0.0, 1.0))
    x, n = de.solve(problem, rtol=1e-9, atol=[1e-9, None]).y1
    np.testing.assert_allclose(x, np.exp(2.0), rtol=1e-8)
    assert int(n) == 2


STIFFER = de.Event(lambda t, y, a: y[0]["q"], lambda t, y, a: ({**y[0], "k": y[0]["k"] * 4}, y[1]))


@pytest.mark.parametrize(
    ("problem", "method", "options"),
    [
        (
            de.SecondOrderProblem(
                lambda t, x, v, a: {"q": -x["q"] * x["k"]},
                {"q": 1.0, "k": de.hold(1)}, {"q": 0.0, "k": None}, (0.0, 3.0),
            ), de.DPRKN6(), TIGHT,
        ),
        (
            de.HamiltonianProblem(
                de.Separable(
                    lambda t, p, a: p["q"] ** 2 / 2, lambda t, q, a: q["k"] * q["q"] ** 2 / 2
                ),
                {"q": 1.0, "k": de.hold(1)}, {"q": 0.0, "k": None}, (0.0, 3.0),
            ), de.KahanLi8(), {"dt": 0.01},
        ),
        (
            de.HamiltonianProblem(
                lambda t, q, p, a: p["q"] ** 2 / 2 + q["k"] * q["q"] ** 2 / 2,
                {"q": 1.0, "k": de.hold(1)}, {"q": 0.0, "k": None}, (0.0, 3.0),
            ), None, TIGHT,
        ),
    ],
    ids=["second order", "separable", "Hamiltonian"],
)  # fmt: skip
def test_equations_of_motion(problem, method, options):
    """A spring that is four times as stiff from its rest length on."""
    q, p = de.solve(problem, method, events=STIFFER, **options).y1
    phase = 2 * (3.0 - np.pi / 2)
    np.testing.assert_allclose(q["q"], -np.sin(phase) / 2, rtol=1e-6)
    np.testing.assert_allclose(p["q"], -np.cos(phase), rtol=1e-6)
    assert int(q["k"]) == 4


@pytest.mark.thorough
def test_lanes_hold_their_own():
    def run(first):
        problem = de.ODEProblem(room, {**Y0, "T": first}, (0.0, 8.0))
        return de.solve(problem, events=(COLD, WARM), max_events=8, **TIGHT).y1

    end = jax.vmap(run)(jnp.array([15.0, 21.0]))
    assert end["count"].tolist() == [len(thermostat(15.0)), len(thermostat(21.0))]


@pytest.mark.parametrize(
    ("y0", "affect", "error", "words"),
    [
        (de.hold(1.0), None, ValueError, "only leaves that are held"),
        ([1.0, de.hold("a")], None, TypeError, "is held and is 'a'"),
        ([1.0, de.hold(1)], lambda t, y, a: [y[0], 1.5], TypeError, "dtype float64 at .1.; y has"),
        ([1.0, de.hold(1)], lambda t, y, a: [y[0]], TypeError, "must match it"),
    ],
)
def test_refusals(y0, affect, error, words):
    problem = de.ODEProblem(lambda t, y, a: [y[0], None], y0, (0.0, 1.0))
    events = () if affect is None else de.Periodic(0.5, affect)
    with pytest.raises(error, match=words):
        de.solve(problem, events=events)

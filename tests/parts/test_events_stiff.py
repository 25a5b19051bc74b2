"""Events with implicit methods, and with algebraic equations that hold after them, too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de


def rest(t, y, k):
    """A decay of x, and 0 = z − x² follows it."""
    return {"x": -k * y["x"], "z": y["z"] - y["x"] ** 2}


# Where z has fallen to 1/4, x is raised by 1; what becomes of z is the business of the equation.
RAISE = de.Event(
    lambda t, y, k: y["z"] - 0.25,
    lambda t, y, k: {**y, "x": y["x"] + 1.0, "n": y["n"] + 1},
    direction=-1,
)
Y0 = {"x": 1.0, "z": 0.5, "n": de.hold(0)}
DAE = de.DAEProblem(rest, Y0, (0.0, 2.0), 1.0, mass_matrix={"x": 1.0, "z": 0.0})


def solved(k, method=None, rows=None, **options):
    return de.solve(
        DAE.replace(args=k), method, events=RAISE, max_events=4, max_steps=512,
        adjoint=de.Discrete(rows=rows), rtol=1e-8, atol=1e-8, **options,
    )  # fmt: skip


@pytest.mark.parametrize("method", shortly([de.Rodas4(), de.RadauIIA5()], de.Rodas4()), ids=str)
def test_a_state_is_consistent_after_an_event(method):
    sol = solved(1.0, method, saveat=jnp.array([0.0, 1.0, 2.0]), dense=True)
    record = sol.events[0]
    np.testing.assert_allclose(record.ts, [np.log(2), np.log(6)], rtol=1e-5)
    np.testing.assert_allclose(record.after["x"], [1.5, 1.5], rtol=1e-5)
    np.testing.assert_allclose(record.after["z"], record.after["x"] ** 2, rtol=1e-12)
    np.testing.assert_allclose(sol.ys["x"], [1.0, 3 * np.exp(-1), 9 * np.exp(-2)], rtol=1e-5)
    np.testing.assert_allclose(sol.ys["z"], sol.ys["x"] ** 2, rtol=1e-5)
    assert sol.ys["n"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(sol(jnp.array([0.5, 1.5]))["x"], np.exp([-0.5, np.log(3) - 1.5]),
                               rtol=1e-5)  # fmt: skip


@pytest.mark.thorough
def test_derivatives_go_through_what_was_made_consistent():
    """x(2) = 9 exp(−2 k) and t* = log(2) / k, z(2) = x(2)²; also where the tape is run again."""

    def numbers(k):
        sol = solved(k, rows=8)
        return jnp.stack([sol.events[0].ts[0], sol.y1["x"], sol.y1["z"]])

    @jax.jit
    def pulled(weights):
        return jax.vjp(numbers, 1.0)[1](weights)[0]

    x = 9 * np.exp(-2.0)
    found = [pulled(row) for row in np.eye(3)]
    np.testing.assert_allclose(found, [-np.log(2), -2 * x, -4 * x**2], rtol=1e-4)


def test_no_consistent_state_after_an_event_is_a_status():
    square = de.DAEProblem(
        lambda t, y, a: jnp.stack([-y[0], y[1] ** 2 - y[0]]), [1.0, 1.0], (0.0, 1.0),
        mass_matrix=[1.0, 0.0],
    )  # fmt: skip
    below = de.PresetTimes([0.5], lambda t, y, a: y.at[0].set(-1.0))
    sol = de.solve(square, events=below, throw=False)
    assert de.Status(int(sol.status)) == de.Status.inconsistent
    assert float(sol.t1) == 0.5
    np.testing.assert_allclose(sol.last.y[0], np.exp(-0.5), rtol=1e-3)


def test_the_real_view_of_a_complex_state():
    spin = de.ODEProblem(lambda t, z, a: {"z": 1j * z["z"]}, {"z": 1.0 + 0j, "n": de.hold(0)},
                         (0.0, 6.0))  # fmt: skip
    turn = de.Event(lambda t, y, a: y["z"].real, lambda t, y, a: {"z": 2 * y["z"], "n": y["n"] + 1})
    sol = de.solve(spin, de.KenCarp4(), events=turn, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(sol.events[0].ts, [np.pi / 2, 3 * np.pi / 2], rtol=1e-6)
    np.testing.assert_allclose(sol.y1["z"], 4 * np.exp(6j), rtol=1e-5)
    assert int(sol.y1["n"]) == 2


def test_a_jacobian_and_held_leaves_are_refused_together():
    problem = de.ODEProblem(rest, Y0, (0.0, 1.0), 1.0, jac=lambda t, y, k: y)
    with pytest.raises(TypeError, match="jac was given and y0 has leaves that are held"):
        de.solve(problem, de.Rodas5P())

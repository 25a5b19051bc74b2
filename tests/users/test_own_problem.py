"""Problems and events of a user's own: subclasses are solved as their base classes are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de


def swing(t, y, gravity):
    return jnp.stack([y[1], -gravity * jnp.sin(y[0])])


class Pendulum(de.ODEProblem):
    """A pendulum: a constructor and a method of its own."""

    def __init__(self, angle, gravity=9.81):
        super().__init__(swing, jnp.stack([angle, 0.0 * angle]), (0.0, 2.0), gravity)

    def energy(self, y):
        return y[1] ** 2 / 2 - self.args * jnp.cos(y[0])


PLAIN = de.ODEProblem(swing, jnp.array([1.0, 0.0]), (0.0, 2.0), 9.81)
OWN = Pendulum(jnp.array(1.0))


def test_the_default_solves_it_and_replace_keeps_its_class():
    sol = de.solve(OWN)
    np.testing.assert_array_equal(sol.y1, de.solve(PLAIN).y1)
    other = OWN.replace(args=5.0)
    assert isinstance(other, Pendulum)
    assert other.energy(other.y0) == pytest.approx(-5.0 * np.cos(1.0))


@pytest.mark.parametrize(
    ("adjoint", "mode"),
    [(de.Discrete(), jax.grad), (de.Forward(), jax.jacfwd), (de.Gauss(), jax.grad)],
)
def test_adjoints_of_odes_serve_it(adjoint, mode):
    def end(problem):
        return lambda g: de.solve(problem.replace(args=g), de.Tsit5(), adjoint=adjoint).y1[0]

    assert mode(end(OWN))(9.81) == mode(end(PLAIN))(9.81)


def test_it_goes_through_jit_ensembles_and_jumps():
    ends = jax.jit(lambda problem: de.solve(problem, de.Tsit5()).y1)(OWN)
    np.testing.assert_array_equal(ends, de.solve(PLAIN, de.Tsit5()).y1)
    many = de.solve_ensemble(OWN, de.Tsit5(), args=jnp.array([9.81, 5.0]))
    np.testing.assert_allclose(many.y1[0], ends, rtol=1e-12)
    jump = de.Jump(1e-9, lambda t, y, args: y)
    jumps = de.JumpProblem(OWN, (jump,))
    rare = de.solve(jumps, de.Tsit5(), key=jax.random.key(0))
    np.testing.assert_allclose(rare.y1, ends, rtol=1e-2)


def test_a_dae_of_ones_own_has_the_default_of_daes():
    class Circuit(de.DAEProblem):
        """y' = −y, 0 = y − z."""

    dae = Circuit(
        lambda t, y, a: jnp.stack([-y[0], y[0] - y[1]]), [1.0, 1.0], (0.0, 1.0),
        mass_matrix=[1.0, 0.0],
    )  # fmt: skip
    np.testing.assert_allclose(de.solve(dae, rtol=1e-8, atol=1e-8).y1, np.exp(-1), rtol=1e-6)
    with pytest.raises(TypeError, match="Gauss does not serve a Circuit"):
        de.solve(dae, adjoint=de.Gauss())


def test_a_residual_of_ones_own_has_the_default_of_residuals():
    class Circuit(de.ImplicitDAEProblem):
        """y' + y = 0, y − z = 0."""

    residual = Circuit(
        lambda t, y, dy, a: jnp.stack([dy[0] + y[0], y[0] - y[1]]), [1.0, 0.0], (0.0, 1.0),
        dy0=[0.0, 0.0], differential=[True, False],
    )  # fmt: skip
    np.testing.assert_allclose(de.solve(residual, rtol=1e-8, atol=1e-8).y1, np.exp(-1), rtol=1e-6)
    consistent = de.consistent(residual)
    assert type(consistent) is Circuit
    np.testing.assert_allclose((consistent.y0, consistent.dy0), [[1, 1], [-1, -1]], atol=1e-6)


def test_a_problem_of_two_parts_of_ones_own_has_the_default_of_these():
    class Relaxing(de.SplitODEProblem):
        """y' = −100 y + cos t."""

    parts = lambda t, y, a: -100 * y, lambda t, y, a: jnp.cos(t) + 0 * y
    banded = [
        kind(*parts, jnp.ones(2), (0.0, 1.0), jac=de.Banded(0, 0))
        for kind in (Relaxing, de.SplitODEProblem)
    ]
    own, plain = (de.solve(problem) for problem in banded)
    np.testing.assert_array_equal(own.y1, plain.y1)
    assert own.stats["steps"] == plain.stats["steps"]


def test_a_pair_of_states_of_ones_own_goes_through_an_ensemble():
    class Oscillator(de.SecondOrderProblem):
        """x'' = −x."""

    problem = Oscillator(lambda t, x, v, a: -x, 1.0, 0.0, (0.0, 1.0))
    many = de.solve_ensemble(problem, y0=(jnp.array([1.0, 2.0]), jnp.zeros(2)), rtol=1e-8)
    np.testing.assert_allclose(many.y1[0], np.cos(1) * np.array([1, 2]), rtol=1e-6)


def test_hazards_are_solved_beside_a_problem_of_ones_own():
    jump = de.Jump(lambda t, y, args: 0.5 + 0 * y[0], lambda t, y, args: 0.5 * y)
    found = [
        de.solve(de.JumpProblem(problem, jump), de.Tsit5(), key=jax.random.key(3))
        for problem in (OWN, PLAIN)
    ]
    assert found[0].events[0].num > 0
    np.testing.assert_array_equal(found[0].y1, found[1].y1)


def test_an_event_of_ones_own_happens_as_its_base_does():
    class Floor(de.Event):
        """Ends a solve where the first component falls below a height."""

        def __init__(self, height):
            super().__init__(lambda t, y, args: y[0] - height, terminal=True)

    class Strange(type(de.Periodic(1.0, lambda t, y, a: y)).__mro__[1]):
        """Says nothing of when it happens."""

        label, affect = None, None

    sol = de.solve(OWN, events=Floor(0.0))
    assert sol.status == de.Status.terminated
    assert abs(float(sol.y1[0])) < 1e-4
    with pytest.raises(
        TypeError, match=r"events\[0\] is a Strange.* a subclass of one of de.Event"
    ):
        de.solve(OWN, events=(Strange(),))

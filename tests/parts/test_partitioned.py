"""Methods for positions and momenta: energy over long times, reversal, what is refused, trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de
from diffeq.methods.tableaus.partitioned import SPLITTINGS
from diffeq.problems.forms import Partitioned

SYMMETRIC = [name for name, table in SPLITTINGS.items() if table.symmetric]
EVERY = [*SPLITTINGS, "DPRKN6"]


def kinetic(t, p, args):
    return jnp.sum(p**2) / 2


def henon_heiles(t, q, args):
    a, b = q
    return (a**2 + b**2) / 2 + a**2 * b - b**3 / 3


ENERGY = de.Separable(kinetic, henon_heiles)
STAR = de.HamiltonianProblem(ENERGY, jnp.array([0.0, 0.1]), jnp.array([0.5, 0.0]), (0.0, 1000.0))


def energy_error(method, dt):
    sol = de.solve(STAR, method, dt=dt, saveat=jnp.linspace(0.0, 1000.0, 101))
    energy = jax.vmap(lambda q, p: ENERGY(0.0, q, p, None))(*sol.ys)
    return np.abs(energy - energy[0])


@pytest.mark.parametrize("name", ["VelocityVerlet", "ForestRuth", "McAte5", "KahanLi8"])
def test_energy_error_does_not_grow(name):
    error = energy_error(getattr(de, name)(), 0.2)
    assert error[50:].max() < 1.5 * error[1:50].max() + 1e-12


def test_energy_error_of_a_method_that_is_not_symplectic_grows():
    error = energy_error(de.RK4(), 0.2)
    assert error[50:].max() > 1.5 * error[1:50].max()
    assert error[-1] > 5 * energy_error(de.ForestRuth(), 0.2).max()


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_methods_run_back_to_their_start(name):
    there = STAR.replace(tspan=(0.0, 10.0))
    q, p = de.solve(there, getattr(de, name)(), dt=0.2).y1
    back = there.replace(q0=q, p0=p, tspan=(10.0, 0.0))
    q, p = de.solve(back, getattr(de, name)(), dt=0.2).y1
    np.testing.assert_allclose(q, STAR.q0, atol=1e-12)
    np.testing.assert_allclose(p, STAR.p0, atol=1e-12)


def test_a_method_that_is_not_symmetric_does_not():
    there = STAR.replace(tspan=(0.0, 10.0))
    q, p = de.solve(there, de.Ruth3(), dt=0.2).y1
    back = there.replace(q0=q, p0=p, tspan=(10.0, 0.0))
    assert np.abs(de.solve(back, de.Ruth3(), dt=0.2).y1[0] - STAR.q0).max() > 1e-8


# --- what they take ------------------------------------------------------------------------------

DAMPED = de.SecondOrderProblem(lambda t, x, v, a: -x - v, 1.0, 0.0, (0.0, 1.0))
COUPLED = de.HamiltonianProblem(lambda t, q, p, a: q**2 * p**2, 1.0, 0.5, (0.0, 1.0))
SPRING = de.HamiltonianProblem(lambda t, q, p, a: (q**2 + p**2) / 2, 1.0, 0.0, (0.0, 1.0))
DECAY = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))


@pytest.mark.parametrize(
    ("problem", "method", "wanted"),
    [
        (DAMPED, de.VelocityVerlet(), "f that does not depend on v.*de.Tsit5"),
        (DAMPED, de.DPRKN6(), "f that does not depend on v.*de.Tsit5"),
        (COUPLED, de.KahanLi8(), "de.Separable.*de.Tsit5"),
        (SPRING, de.DPRKN6(), "SecondOrderProblem.*de.Tsit5"),
        (DECAY, de.VelocityVerlet(), "positions and momenta.*de.Tsit5"),
    ],
)
def test_what_does_not_fit_is_refused(problem, method, wanted):
    with pytest.raises(TypeError, match=wanted):
        de.solve(problem, method, dt=0.1)


def test_a_plain_hamiltonian_that_separates_is_taken():
    q, p = de.solve(SPRING, de.KahanLi8(), dt=0.1).y1
    np.testing.assert_allclose([q, p], [np.cos(1.0), -np.sin(1.0)], atol=1e-9)


def test_a_splitting_needs_its_step():
    with pytest.raises(ValueError, match="dt="):
        de.solve(STAR, de.VelocityVerlet())


def test_every_problem_of_motion_is_an_ode():
    for problem in (DAMPED, COUPLED):
        assert de.solve(problem, de.Tsit5()).success


# --- how they step -------------------------------------------------------------------------------


def pendulums(t, x, v, k):
    return {"one": -k * jnp.sin(x["one"]), "many": jnp.cos(t) - x["many"] + 0.1 * x["one"]}


TREE = de.SecondOrderProblem(
    pendulums,
    {"one": 1.0, "many": jnp.array([[0.5, -0.3], [0.2, 0.1]])},
    {"one": 0.0, "many": jnp.zeros((2, 2))},
    (0.0, 2.0),
    1.3,
)


@pytest.mark.parametrize("name", shortly(EVERY, "VelocityVerlet", "DPRKN6"))
def test_trees_backwards_and_inside_steps(name):
    method = getattr(de, name)()
    tolerance = {1: 0.1, 2: 3e-3, 3: 1e-4}.get(method.order, 2e-5)
    ts = jnp.linspace(0.0, 2.0, 8)
    exact = de.solve(TREE, de.Vern9(), dt=0.02, saveat=ts).ys
    x, v = jax.tree.map(lambda y: y[-1], exact)
    back = TREE.replace(x0=x, v0=v, tspan=(2.0, 0.0))
    forwards = de.solve(TREE, method, dt=0.05, saveat=ts).ys
    backwards = de.solve(back, method, dt=0.05, saveat=ts[::-1]).ys
    assert jax.tree.structure(forwards) == jax.tree.structure(exact)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance)
    jax.tree.map(close, forwards, exact)
    jax.tree.map(lambda a, b: close(a[::-1], b), backwards, exact)


@pytest.mark.parametrize("name", EVERY)
def test_evaluations_are_those_of_the_force(name):
    calls = []

    def kick(t, q, p):
        calls.append(t)
        return -q

    method = getattr(de, name)()
    form = Partitioned(lambda t, q, p: p, kick, separable=True, identity=True)
    t, y, dt = jnp.array(0.0), jnp.array([1.0, 0.0]), jnp.array(0.1)
    memory = method.init(form, t, y)
    assert len(calls) == int(method.tableau.fsal)
    calls.clear()
    method.step(form, t, y, dt, memory)
    assert len(calls) == method.evaluations


def test_the_pair_controls_its_error():
    exact = de.solve(TREE, de.Vern9(), rtol=1e-12, atol=1e-12).y1
    for rtol in (1e-4, 1e-8):
        sol = de.solve(TREE, de.DPRKN6(), rtol=rtol, atol=rtol)
        for a, b in zip(*map(jax.tree.leaves, (sol.y1, exact)), strict=True):
            np.testing.assert_allclose(a, b, atol=20 * rtol)
        assert sol.stats["steps"] < 60


@pytest.mark.parametrize("name", ["VelocityVerlet", "ForestRuth", "DPRKN6"])
def test_gradients_are_those_of_finite_differences(name):
    method = getattr(de, name)()

    def loss(k, x0):
        problem = TREE.replace(args=k, x0={**TREE.x0, "one": x0})
        x, v = de.solve(problem, method, dt=0.1, saveat=jnp.array([0.33, 1.0, 2.0])).ys
        return jnp.sum(x["one"] ** 2) + jnp.sum(v["many"] * x["many"])

    found = jax.grad(loss, argnums=(0, 1))(1.3, 1.0)
    h = 1e-5
    np.testing.assert_allclose(
        found[0], (loss(1.3 + h, 1.0) - loss(1.3 - h, 1.0)) / (2 * h), rtol=1e-7
    )
    np.testing.assert_allclose(
        found[1], (loss(1.3, 1.0 + h) - loss(1.3, 1.0 - h)) / (2 * h), rtol=1e-7
    )


def test_many_at_once():
    k = jnp.array([0.5, 1.0, 1.5])
    end = lambda k: de.solve(TREE.replace(args=k), de.DPRKN6()).y1[0]["one"]
    np.testing.assert_allclose(jax.vmap(end)(k), [end(x) for x in k], rtol=1e-12)
    np.testing.assert_allclose(jax.jit(end)(1.0), end(1.0), rtol=1e-14)

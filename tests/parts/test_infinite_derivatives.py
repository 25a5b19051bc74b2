"""Fields whose value is finite where a derivative is not: √t at 0, √y at 0, a norm at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import dawsn
from tests.tiers import shortly

import diffeq as de
from diffeq.algebra import field_derivatives

METHODS = [de.RadauIIA5(), de.KenCarp4(), de.TRBDF2(), de.BDF()]
NAMED = {"ids": lambda method: type(method).__name__}


def relaxed(t, k=10.0):
    """The solution of y' = −k (y − √t), y(0) = 1/2, with Dawson's integral."""
    return np.exp(-k * t) / 2 + np.sqrt(t) - dawsn(np.sqrt(k * t)) / np.sqrt(k)


def towards_root(t, y, k):
    return -k * (y - jnp.sqrt(t))


ROOT = de.ODEProblem(towards_root, 0.5, (0.0, 2.0), 10.0)


# --- by t -----------------------------------------------------------------------------------------


def test_by_t_stays_out_of_by_y():
    field = lambda t, y: jnp.stack([-2 * y[0] + jnp.sqrt(t), y[0] * y[1]])
    found = field_derivatives(field, jnp.array(0.0), jnp.array([0.5, 3.0]))
    np.testing.assert_array_equal(found.by_y, [[-2, 0], [3, 0.5]])
    np.testing.assert_array_equal(found.by_t, [np.inf, 0])


@pytest.mark.parametrize("method", shortly(METHODS, de.RadauIIA5()), **NAMED)
def test_a_field_of_the_root_of_t(method):
    sol = de.solve(ROOT, method, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sol.y1, relaxed(2.0), rtol=5e-6)


def test_its_derivative():
    end = lambda k: de.solve(ROOT.replace(args=k), de.RadauIIA5(), rtol=1e-8, atol=1e-8).y1
    by_hand = (relaxed(2.0, 10 + 1e-4) - relaxed(2.0, 10 - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.grad(end)(10.0), by_hand, rtol=1e-5)


def test_infinite_at_the_end():
    """A step of BDF evaluates its Jacobian at its end. y' = −k (y − √(1 − t)), in s = 1 − t."""
    problem = de.ODEProblem(lambda t, y, k: -k * (y - jnp.sqrt(1 - t)), 1.0, (0.0, 1.0), 1e5)
    sol = de.solve(problem, de.BDF(), rtol=1e-5, atol=1e-8)
    # ∫ k e^(−k s) √s ds = √(π/k)/2, and the start is forgotten.
    np.testing.assert_allclose(sol.y1, np.sqrt(np.pi / 1e5) / 2, rtol=1e-3)


@pytest.mark.parametrize("method", shortly(METHODS, de.BDF()), **NAMED)
def test_beside_algebraic_equations(method):
    """√t in the differential equation; and in the algebraic one, whose z' is infinite at 0."""
    square = lambda t, y, k: jnp.stack([towards_root(t, y[0], k), y[1] - y[0] ** 2])
    follow = lambda t, y, k: jnp.stack([-k * (y[0] - y[1]), y[1] - jnp.sqrt(t)])
    y = relaxed(2.0)
    for f, z in ((square, y**2), (follow, np.sqrt(2.0))):
        problem = de.DAEProblem(f, [0.5, 0.0], (0.0, 2.0), 10.0, mass_matrix=[1.0, 0.0])
        sol = de.solve(problem, method, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(sol.y1, [y, z], rtol=5e-5)


@pytest.mark.parametrize("method", shortly([de.RadauIIA5(), de.BDF()], de.BDF()), **NAMED)
def test_in_a_residual(method):
    square = lambda t, y, dy, k: jnp.stack([dy[0] - towards_root(t, y[0], k), y[1] - y[0] ** 2])
    problem = de.ImplicitDAEProblem(
        square, [0.5, 0.0], (0.0, 2.0), 10.0, dy0=[0.0, 0.0], differential=[True, False]
    )
    y = relaxed(2.0)
    sol = de.solve(problem, method, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(sol.y1, [y, y**2], rtol=5e-5)


def test_rosenbrock_methods_say_that_they_use_it():
    with pytest.raises(de.SolveError, match=r"∂f/∂t is inf\. Rodas5P\(\) .* RadauIIA5") as caught:
        de.solve(ROOT, de.Rodas5P())
    assert caught.value.status == de.Status.nonfinite


# --- by y -----------------------------------------------------------------------------------------


def torricelli(t, y, a):
    return -jnp.sqrt(jnp.maximum(y, 0))


def guarded(t, y, a):
    return -jnp.where(y > 0, jnp.sqrt(jnp.where(y > 0, y, 1)), 0)


TANK = de.ODEProblem(torricelli, 1.0, (0.0, 3.0))


@pytest.mark.parametrize(
    "method", shortly([de.Rodas5P(), de.RadauIIA5(), de.KenCarp4(), de.BDF()], de.BDF()), **NAMED
)
def test_a_jacobian_that_is_not_finite_is_named(method):
    with pytest.raises(de.SolveError, match=r"f is finite .* not: ∂f/∂y is nan.* jac=") as caught:
        de.solve(TANK, method)
    assert caught.value.status == de.Status.nonfinite
    assert abs(caught.value.t - 2) < 0.1
    assert abs(de.solve(TANK.replace(f=guarded), method).y1) < 1e-5  # the way out that was named


def test_in_a_tree_and_a_residual():
    push = lambda t, y, a: {"x": -y["x"] * jnp.linalg.norm(y["v"]), "v": -y["v"]}
    start = {"x": 1.0, "v": jnp.zeros(2)}
    with pytest.raises(de.SolveError, match=r"∂f\['x'\]/∂y\['v'\]\[0\] is nan"):
        de.solve(de.ODEProblem(push, start, (0.0, 1.0)), de.Rosenbrock23())
    given = lambda t, y, a: jnp.full((), jnp.nan)
    with pytest.raises(de.SolveError, match="f is finite at this state, and jac is not"):
        de.solve(ROOT.replace(f=lambda t, y, k: -y, jac=given), de.Rosenbrock23())
    residual = lambda t, y, dy, a: dy + jnp.sqrt(jnp.maximum(y, 0))
    tank = de.ImplicitDAEProblem(residual, 1.0, (0.0, 3.0), dy0=-1.0, differential=True)
    with pytest.raises(de.SolveError, match=r"residual is finite .* not: ∂residual/∂y is nan"):
        de.solve(tank, de.BDF())


def test_in_an_equation_of_second_order():
    rising = de.SecondOrderProblem(
        lambda t, x, v, a: -jnp.sqrt(x), jnp.zeros(2), jnp.zeros(2), (0.0, 1.0)
    )
    with pytest.raises(de.SolveError, match=r"not: ∂f\[1\]\[0\]/∂y\[0\]\[0\] is inf"):
        de.solve(rising, de.BDF())


def test_what_blows_up_is_not_blamed_on_it():
    growing = de.ODEProblem(lambda t, y, a: y**2, 1.0, (0.0, 2.0))
    with pytest.raises(de.SolveError) as caught:
        de.solve(growing, de.Rodas5P())
    assert "Jacobian is not" not in str(caught.value)

"""Linear systems by products alone: the same solves and derivatives as by LU."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import diffeq as de
from diffeq.algebra import Products, solve_iteratively
from diffeq.diagnosis import hint

N = 40
X = (jnp.arange(N) + 0.5) / N
GMRES = lx.GMRES(rtol=1e-3, atol=1e-3)


def heat(t, u, rate):
    """A rod that conducts, and burns a little."""
    wide = jnp.concatenate([u[:1], u, u[-1:]])
    return rate[0] * N**2 * (wide[2:] - 2 * u + wide[:-2]) + rate[1] * u * (1 - u)


ROD = de.ODEProblem(heat, jnp.exp(-30 * (X - 0.3) ** 2), (0.0, 1.0), jnp.array([0.02, 1.0]))


@pytest.mark.parametrize("kind", [de.TRBDF2, pytest.param(de.BDF, marks=pytest.mark.thorough)])
def test_solves_and_gradients_are_those_of_lu(kind):
    def end(rate, method):
        sol = de.solve(ROD.replace(args=rate), method, rtol=1e-6, atol=1e-8)
        return jnp.sum(sol.y1**2), sol.stats["steps"]

    run = lambda method: jax.jit(jax.value_and_grad(lambda r: end(r, method), has_aux=True))(
        ROD.args
    )
    ((value, steps), slope), ((by_lu, steps_by_lu), slope_by_lu) = (
        run(kind(linear=GMRES)),
        run(kind()),
    )
    np.testing.assert_allclose(value, by_lu, rtol=1e-6)
    np.testing.assert_allclose(slope, slope_by_lu, rtol=1e-4)
    assert steps < 1.2 * steps_by_lu


@pytest.mark.thorough
def test_given_steps_differentiate_exactly_in_lanes():
    """Newton's method goes on to its own tolerance, whatever the iteration inside leaves."""
    method = de.ImplicitEuler(linear=lx.GMRES(rtol=1e-2, atol=1e-2))
    end = lambda rate: jnp.sum(de.solve(ROD.replace(args=rate), method, dt=0.1).y1 ** 2)
    rates = jnp.array([[0.02, 1.0], [0.2, 2.0]])
    found = jax.jit(jax.vmap(jax.grad(end)))(rates)
    run = jax.jit(end)
    for rate, slope in zip(rates, found, strict=True):
        moved = [run(rate + 1e-5 * e) - run(rate - 1e-5 * e) for e in np.eye(2)]
        np.testing.assert_allclose(slope, np.array(moved) / 2e-5, rtol=1e-6)


@pytest.mark.thorough
def test_a_mass_matrix_a_residual_and_noise():
    """Whatever else the matrix is made of."""
    mass = de.DAEProblem(
        lambda t, y, k: jnp.stack([-k * y[0] + y[1], y[0] - 2 * y[1]]), [1.0, 0.5], (0.0, 1.0), 3.0,
        mass_matrix=[2.0, 0.0],
    )  # fmt: skip
    residual = de.ImplicitDAEProblem(
        lambda t, y, dy, k: jnp.stack([2 * dy[0] + k * y[0] - y[1], y[0] - 2 * y[1]]),
        [1.0, 0.5], (0.0, 1.0), 3.0, dy0=[-1.25, 0.0], differential=[True, False],
    )  # fmt: skip
    for problem in (mass, residual):
        y1 = de.solve(problem, de.BDF(linear=GMRES), rtol=1e-8, atol=1e-10).y1
        np.testing.assert_allclose(y1, np.exp(-1.25) * np.array([1.0, 0.5]), rtol=1e-6)
    noisy = de.SDEProblem(lambda t, y, a: -1e4 * (y - 1), lambda t, y, a: 0.1 * y, 0.0, (0.0, 1.0))
    ends = [
        de.solve(noisy, de.ImplicitEM(linear=linear), dt=0.1, key=jax.random.key(0)).y1
        for linear in (GMRES, None)
    ]
    np.testing.assert_allclose(*ends, rtol=1e-9)


@pytest.mark.thorough
def test_derivatives_of_a_system():
    """By the matrix, by the right side, twice, and of a right side that is small."""
    b = 1e-9 * jnp.array([1.0, -2.0, 0.5])
    matrix = lambda p: jnp.diag(jnp.array([3.0, 4.0, 5.0])) + p * jnp.ones((3, 3)) + jnp.tri(3)
    ours = lambda p: jnp.sum(
        solve_iteratively(Products(lambda v: matrix(p) @ v, GMRES, exact=True), p * b)
    )
    dense = lambda p: jnp.sum(jnp.linalg.solve(matrix(p), p * b))
    for mode in (jax.value_and_grad, jax.hessian):
        for a, c in zip(*(jax.tree.leaves(mode(f)(0.7)) for f in (ours, dense)), strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-9)


def test_what_does_not_converge_is_no_number():
    turned = lambda v: jnp.roll(v, 1)  # of which GMRES knows nothing before n turns
    few = lx.GMRES(rtol=1e-8, atol=1e-8, restart=2, max_steps=3)
    assert np.isnan(solve_iteratively(Products(turned, few), jnp.eye(50)[0])).all()
    sol = de.solve(ROD, de.TRBDF2(linear=lx.GMRES(1e-8, 1e-8, max_steps=1)), dt=0.5, throw=False)
    assert not sol.success
    said = hint(de.Status(int(sol.status)), ROD, de.TRBDF2(linear=GMRES), sol.last)
    assert "GMRES may not have got there: give it more steps" in said


def test_refusals_and_names():
    with pytest.raises(TypeError, match="linear is 'gmres'; a linear solver of lineax is wanted"):
        de.TRBDF2(linear="gmres")
    assert repr(de.TRBDF2(linear=GMRES)) == "TRBDF2(linear=GMRES)"
    with pytest.raises(TypeError, match=r"RadauIIA5 got 'linear', .* such as de.KenCarp4\(linear"):
        de.RadauIIA5(linear=GMRES)
    with pytest.raises(TypeError, match=r"Tsit5 got 1e-06, and takes stages= alone\. Tolerances"):
        de.Tsit5(1e-6)
    with pytest.raises(ValueError, match="linear is CG, which asks more of a matrix than I − γ"):
        solve_iteratively(Products(lambda v: 2 * v, lx.CG(rtol=1e-3, atol=1e-3)), X)

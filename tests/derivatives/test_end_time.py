"""A derivative by t1 is that of the last step by its length: f(t1, y1), to the method's order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

DT = 0.1
OFF = 1.05  # where the last step is half of one


def rates(t, y, k):
    return k * jnp.array([y[1], -jnp.sin(y[0])])


def plain(t1, method, adjoint=None):
    problem = de.ODEProblem(rates, jnp.array([1.0, 0.2]), (0.0, t1), 1.0)
    return de.solve(problem, method, dt=DT, rtol=1e-3, adjoint=adjoint).y1


def hamiltonian(t1, dt=DT):
    energy = de.Separable(lambda t, p, a: p**2 / 2, lambda t, q, a: q**4 / 4)
    problem = de.HamiltonianProblem(energy, 1.0, 0.2, (0.0, t1))
    return jnp.stack(de.solve(problem, de.VelocityVerlet(), dt=dt).y1)


def delayed(t1):
    """The lag is one of the state."""
    problem = de.DDEProblem(
        lambda t, y, past, a: -y * past(t - 0.5 - 0.2 * y**2), None, (0.0, t1),
        history=lambda t, a: 1 + 0.1 * t, lags=lambda t, y, a: 0.5 + 0.2 * y**2,
    )  # fmt: skip
    return de.solve(problem, de.RK4(), dt=DT).y1


def noisy(t1):
    problem = de.SDEProblem(
        lambda t, y, a: -y, lambda t, y, a: 0.3 * y, jnp.array([1.0]), (0.0, t1)
    )
    return de.solve(problem, de.EulerMaruyama(), dt=DT, key=jax.random.key(3)).y1


def noisy_and_delayed(t1):
    problem = de.SDDEProblem(
        lambda t, y, past, a: -past(t - 0.5), lambda t, y, past, a: 0.3 * y, jnp.array([1.0]),
        (0.0, t1), history=lambda t, a: jnp.array([1.0]), lags=(0.5,),
    )  # fmt: skip
    return de.solve(problem, de.EulerMaruyama(), dt=DT, key=jax.random.key(1)).y1


ALL = {
    "an ODE": lambda t1: plain(t1, de.RK4()),
    "a Hamiltonian": hamiltonian,
    "a lag of the state": delayed,
    "noise": noisy,
    "noise and a lag": noisy_and_delayed,
}


@pytest.mark.parametrize("name", ALL)
def test_it_is_the_derivative_of_the_same_program(name):
    """Where t1 is between two steps the program is smooth in it."""
    end, h = jax.jit(ALL[name]), 1e-5
    difference = (end(OFF + h) - end(OFF - h)) / (2 * h)
    np.testing.assert_allclose(jax.jacrev(end)(OFF), difference, rtol=1e-7)


def test_where_t1_ends_a_whole_step_it_is_the_one_from_the_left():
    """On the right, another step begins: by Euler's method with another slope."""
    end, h = jax.jit(lambda t1: plain(t1, de.Euler())), 1e-6
    slope, here = jax.jacrev(end)(1.0), end(1.0)
    np.testing.assert_allclose(slope, (here - end(1.0 - h)) / h, rtol=1e-6)
    np.testing.assert_allclose((end(1.0 + h) - here) / h, rates(1.0, here, 1.0), rtol=1e-6)
    assert np.max(np.abs(slope - rates(1.0, here, 1.0))) > 1e-2


def test_it_is_the_slope_there_to_the_order_of_the_method():
    """∂y1/∂t1 − f(t1, y1) is O(dt²) of Verlet's method, a whole or half step alike."""

    def miss(dt):
        t1 = 10.5 * dt
        q, p = hamiltonian(t1, dt)
        slope = jax.jacfwd(lambda t1: hamiltonian(t1, dt))(t1)
        return np.max(np.abs(slope - jnp.stack([p, -(q**3)])))

    np.testing.assert_allclose(miss(0.02) / miss(0.01), 2.0**2, rtol=0.3)


def test_a_continuous_adjoint_has_the_slope_itself():
    slope = jax.grad(lambda t1: plain(t1, de.Euler(), de.Gauss())[0])(1.0)
    np.testing.assert_allclose(slope, rates(1.0, plain(1.0, de.Euler()), 1.0)[0], rtol=1e-12)

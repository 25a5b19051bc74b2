"""Derivatives through implicit steps: stages by the implicit function theorem, to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.derivatives.test_discrete import TS, Y0, A, difference, field, measure

import diffeq as de

# The derivative is that of the root, differences see the number that Newton's method arrives at.
EXACT = {"rtol": 1e-14, "atol": 1e-14}
PROBLEM = de.ODEProblem(field, Y0, (0.0, 1.0), A)
METHODS = ["ImplicitMidpoint", "TRBDF2", "KenCarp4", "RadauIIA5"]


def loss_of(method, problem=PROBLEM, **options):
    options = {"saveat": TS, "dt": 0.12, **EXACT, **options}
    return jax.jit(lambda a: measure(de.solve(problem.replace(args=a), method, **options).ys))


@pytest.mark.parametrize("name", METHODS)
def test_by_args_in_every_mode(name):
    loss = loss_of(getattr(de, name)())
    slope = jax.jit(jax.grad(loss))
    grad = slope(A)
    np.testing.assert_allclose(grad, difference(loss, A, 1e-3), rtol=1e-9)
    np.testing.assert_allclose(jax.jacfwd(loss)(A), grad, rtol=1e-12)
    hessian = jax.hessian(loss)(A)
    np.testing.assert_allclose(hessian, difference(slope, A, 1e-3), rtol=1e-7, atol=1e-8)
    if name == "RadauIIA5":
        np.testing.assert_allclose(jax.jacrev(jax.grad(loss))(A), hessian, rtol=1e-10, atol=1e-11)


KENCARP = de.KenCarp4()


def solved(y0=Y0, a=A, tspan=(0.0, 1.0), at=None, f=field, **options):
    return de.solve(de.ODEProblem(f, y0, tspan, a), KENCARP, saveat=at, dt=0.12, **EXACT, **options)


def jumping(t, y, a):
    return jnp.where(t < a, jnp.cos(3 * t), -t) * y + t


INPUTS = {
    "y0": (lambda y0: measure(solved(y0=y0, at=TS).ys), Y0),
    "backwards": (lambda ts: measure(solved(tspan=ts).y1), jnp.array([1.1, 0.2])),
    "saveat": (lambda at: measure(solved(at=at).ys), jnp.array([0.15, 0.4, 0.77])),
    "stops": (lambda s: solved(1.0, s[0], stops=s, f=jumping).y1, jnp.array([0.45])),
}


@pytest.mark.parametrize("name", INPUTS)
def test_with_respect_to(name):
    loss, x = INPUTS[name]
    loss = jax.jit(loss)
    grad = jax.grad(loss)(jnp.asarray(x, float))
    np.testing.assert_allclose(grad, difference(loss, x, 1e-3), rtol=1e-8, atol=1e-9)


def split(t, y, a):
    return field(t, y, a) + 4 * y


def decay(t, y, a):
    return -4 * y * (1 + 0 * a[0])


def test_of_a_split_problem():
    problem = de.SplitODEProblem(decay, split, Y0, (0.0, 1.0), A)
    loss = loss_of(KENCARP, problem)
    np.testing.assert_allclose(jax.grad(loss)(A), difference(loss, A, 1e-3), rtol=1e-9)


def pendulum(t, y, a):
    """A rod's tension is the algebraic variable, found from the second derivative of the length."""
    x, v, tension = y
    return jnp.stack([v, -a[0] * jnp.sin(x) - tension * v, tension - a[1] * v**2 - jnp.cos(t)])


@pytest.mark.parametrize("name", ["KenCarp4", "RadauIIA5"])
def test_of_an_algebraic_equation(name):
    def loss(x, method):
        a, mass = x
        problem = de.DAEProblem(
            pendulum, jnp.array([0.8, -0.2, 0.0]), (0.0, 1.0), a,
            mass_matrix=jnp.stack([mass, 1.0, 0.0]),
        )  # fmt: skip
        return measure(de.solve(problem, method, dt=0.12, saveat=TS, **EXACT).ys)

    f = jax.jit(lambda x: loss(x, getattr(de, name)()))
    by_args, by_mass = jax.grad(f)((A, 1.2))
    want = difference(lambda a: f((a, 1.2)), A, 1e-3)
    np.testing.assert_allclose(by_args, want, rtol=1e-9)
    want = difference(lambda m: f((A, m)), 1.2, 1e-3)
    np.testing.assert_allclose(by_mass, want, rtol=1e-9)


# --- long solves ----------------------------------------------------------------------------------


def bouncy(t, y, a):
    return jnp.stack([y[1], a[0] * (1 - y[0] ** 2) * y[1] - a[1] * y[0]])


LONG = jnp.linspace(0.0, 12.0, 9)


def long(a, name, rows, **options):
    problem = de.ODEProblem(bouncy, jnp.array([2.0, 0.0]), (0.0, 12.0), a)
    adjoint = de.Discrete(rows=rows)
    return measure(
        de.solve(
            problem, getattr(de, name)(), saveat=LONG, adjoint=adjoint, max_steps=400, rtol=1e-4,
            atol=1e-5, **options,
        ).ys
    )  # fmt: skip


@pytest.mark.parametrize("name", ["KenCarp4", "RadauIIA5"])
def test_windows_run_again_take_the_same_steps(name):
    """What Newton's method started from is on the tape, so that it takes the same turns."""
    lanes = jnp.array([[4.0, 1.0], [7.0, 1.1]])
    slope = lambda rows: jax.grad(lambda a: long(a, name, rows))
    alone = jax.jit(slope(400))
    whole = jnp.stack([alone(a) for a in lanes])
    np.testing.assert_allclose(jax.jit(jax.vmap(slope(32)))(lanes), whole, rtol=1e-10)


def test_adaptive_steps_agree_to_their_tolerance():
    def end(a, **tolerance):
        problem = de.ODEProblem(bouncy, jnp.array([2.0, 0.0]), (0.0, 3.0), a)
        return measure(de.solve(problem, de.RadauIIA5(), **tolerance).y1)

    a, tight = jnp.array([4.0, 1.0]), {"rtol": 1e-9, "atol": 1e-11}
    want = jax.grad(lambda a: end(a, rtol=1e-11, atol=1e-13))(a)
    np.testing.assert_allclose(jax.grad(lambda a: end(a, **tight))(a), want, rtol=1e-7)

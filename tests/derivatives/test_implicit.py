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


def loss_of(method, problem=PROBLEM, **options):
    options = {"saveat": TS, "dt": 0.12, **EXACT, **options}
    return lambda a: measure(de.solve(problem.replace(args=a), method, **options).ys)


def agrees(loss, x, rtol=1e-9, atol=0.0):
    """The gradient is the difference of the values, which one program gives."""
    program = jax.jit(jax.value_and_grad(loss))
    x = jnp.asarray(x, float)
    wanted = difference(lambda x: program(x)[0], x, 1e-3)
    np.testing.assert_allclose(program(x)[1], wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        (de.ImplicitMidpoint(), jax.jacrev),
        (de.TRBDF2(), jax.jacfwd),
        pytest.param(de.RadauIIA5(), jax.jacfwd, marks=pytest.mark.thorough),
    ],
    ids=["ImplicitMidpoint", "TRBDF2", "RadauIIA5"],
)
def test_by_args_to_second_order(method, mode):
    """The gradient, and its derivative in reverse and in forward mode, in one program."""
    loss = loss_of(method)

    def slope(a):
        value, grad = jax.value_and_grad(loss)(a)
        return grad, (value, grad)

    program = jax.jit(mode(slope, has_aux=True))
    hessian, (_, grad) = program(A)
    np.testing.assert_allclose(grad, difference(lambda a: program(a)[1][0], A, 1e-3), rtol=1e-9)
    wanted = difference(lambda a: program(a)[1][1], A, 1e-3)
    np.testing.assert_allclose(hessian, wanted, rtol=1e-9, atol=1e-10)


def test_by_args_in_forward_mode():
    loss = loss_of(de.TRBDF2())
    program = jax.jit(lambda a: (jax.jacfwd(loss)(a), jax.grad(loss)(a)))
    np.testing.assert_allclose(*program(A), rtol=1e-12)


TRBDF2 = de.TRBDF2()


def solved(y0=Y0, a=A, tspan=(0.0, 1.0), at=None, f=field, **options):
    return de.solve(de.ODEProblem(f, y0, tspan, a), TRBDF2, saveat=at, dt=0.12, **EXACT, **options)


def jumping(t, y, a):
    return jnp.where(t < a, jnp.cos(3 * t), -t) * y + t


INPUTS = {
    "y0, ends and saveat, backwards": (
        lambda x: measure(solved(y0=x[:2], tspan=x[2:4], at=x[4:]).ys),
        [*Y0, 1.1, 0.2, 0.77, 0.4],
    ),
    "stops": (lambda s: solved(1.0, s[0], stops=s, f=jumping).y1, [0.45]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_with_respect_to(name):
    agrees(*INPUTS[name], rtol=1e-8, atol=1e-9)


def split(t, y, a):
    return field(t, y, a) + 4 * y


def decay(t, y, a):
    return -4 * y * (1 + 0 * a[0])


def test_of_a_split_problem():
    problem = de.SplitODEProblem(decay, split, Y0, (0.0, 1.0), A)
    agrees(loss_of(de.KenCarp3(), problem), A)


def pendulum(t, y, a):
    """A rod's tension is the algebraic variable, found from the second derivative of the length."""
    x, v, tension = y
    return jnp.stack([v, -a[0] * jnp.sin(x) - tension * v, tension - a[1] * v**2 - jnp.cos(t)])


@pytest.mark.thorough
@pytest.mark.parametrize("method", [de.TRBDF2(), de.RadauIIA5()], ids=repr)
def test_of_an_algebraic_equation(method):
    """By the arguments of the field, and by the mass."""

    def loss(x):
        problem = de.DAEProblem(
            pendulum, jnp.array([0.8, -0.2, 0.0]), (0.0, 1.0), x[:2],
            mass_matrix=jnp.stack([x[2], 1.0, 0.0]),
        )  # fmt: skip
        return measure(de.solve(problem, method, dt=0.12, saveat=TS, **EXACT).ys)

    agrees(loss, [*A, 1.2])


# --- long solves ----------------------------------------------------------------------------------


def bouncy(t, y, a):
    return jnp.stack([y[1], a[0] * (1 - y[0] ** 2) * y[1] - a[1] * y[0]])


def slope_of(method, rows):
    def loss(a, t1, tolerance):
        problem = de.ODEProblem(bouncy, jnp.array([2.0, 0.0]), (0.0, t1), a)
        options = {"rtol": tolerance, "atol": tolerance / 10, "max_steps": 1000}
        saves = jnp.linspace(0.0, t1, 9)
        return measure(
            de.solve(problem, method, saveat=saves, adjoint=de.Discrete(rows=rows), **options).ys
        )

    return jax.grad(loss)


RADAU = jax.jit(slope_of(de.RadauIIA5(), 1000))


@pytest.mark.thorough
def test_windows_run_again_take_the_same_steps():
    """What Newton's method started from is on the tape, so that it takes the same turns."""
    lanes = jnp.array([[4.0, 1.0], [7.0, 1.1]])
    short, whole = (slope_of(de.TRBDF2(), rows) for rows in (32, 1000))
    found = jax.jit(jax.vmap(short, (0, None, None)))(lanes, 6.0, 1e-4)
    alone = jax.jit(whole)
    np.testing.assert_allclose(found, [alone(a, 6.0, 1e-4) for a in lanes], rtol=1e-10)
    here = lanes[0], 12.0, 1e-4
    found = jax.jit(slope_of(de.RadauIIA5(), 32))(*here)
    np.testing.assert_allclose(found, RADAU(*here), rtol=1e-10)


def test_adaptive_steps_agree_to_their_tolerance():
    found, wanted = (RADAU(jnp.array([4.0, 1.0]), 3.0, tol) for tol in (1e-9, 1e-11))
    np.testing.assert_allclose(found, wanted, rtol=1e-7)

"""States of rest: found, differentiated by the implicit function theorem, and refused."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import diffeq as de


def brusselator(t, y, a):
    """At rest in (a, b/a)."""
    reaction = y[0] ** 2 * y[1]
    return jnp.stack([a[0] + reaction - (a[1] + 1) * y[0], a[1] * y[0] - reaction])


REST = de.SteadyStateProblem(brusselator, jnp.array([1.5, 1.0]), jnp.array([1.0, 1.7]))


def test_rest_in_every_mode():
    rest = lambda a: de.solve(REST.replace(args=a)).y1
    second = lambda a: rest(a)[1]
    every = jax.jit(
        lambda a: (rest(a), jax.jacfwd(rest)(a), jax.grad(second)(a), jax.hessian(second)(a))
    )
    value, by_args, gradient, hessian = every(REST.args)
    np.testing.assert_allclose(value, [1.0, 1.7], rtol=1e-12)
    np.testing.assert_allclose(by_args, [[1.0, 0.0], [-1.7, 1.0]], atol=1e-10)
    np.testing.assert_allclose(gradient, [-1.7, 1.0], atol=1e-10)
    np.testing.assert_allclose(hessian, [[3.4, -1.0], [-1.0, 0.0]], atol=1e-9)


def test_rest_is_followed_in_time_where_a_method_is_given():
    """From far off, along the spiral to rest; by a stiff method."""
    far = REST.replace(y0=jnp.array([0.0, 0.0]))
    rest = lambda a: de.solve(far.replace(args=a), de.Rosenbrock23()).y1
    value, gradient = jax.jit(lambda a: (rest(a), jax.jacrev(rest)(a)))(REST.args)
    np.testing.assert_allclose(value, [1.0, 1.7], rtol=1e-12)
    np.testing.assert_allclose(gradient, [[1.0, 0.0], [-1.7, 1.0]], atol=1e-10)


@pytest.mark.thorough
def test_rest_of_many_states_by_an_iterative_solver():
    """Nothing is ever factored; the same derivative."""
    ring = lambda t, y, a: (
        a[0] * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)) - y**3 + a[1] * (1 + jnp.arange(40) % 3)
    )
    problem = de.SteadyStateProblem(ring, jnp.ones(40), jnp.array([0.7, 1.3]))
    krylov = de.SteadyState(lx.GMRES(rtol=1e-11, atol=1e-11))

    def total(a, adjoint):
        return jnp.sum(
            jnp.sin(jnp.arange(40) * de.solve(problem.replace(args=a), adjoint=adjoint).y1)
        )

    of = lambda adjoint: jax.jit(jax.value_and_grad(lambda a: total(a, adjoint)))(problem.args)
    for found, wanted in zip(of(krylov), of(de.SteadyState()), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-7)


def test_rest_of_a_complex_state_and_of_the_guess():
    problem = de.SteadyStateProblem(
        lambda t, y, k: k * (1j * y - y * abs(y) ** 2) + 1, 1.0 + 0j, 1.0
    )
    size = lambda k, y0: jnp.abs(de.solve(problem.replace(args=k, y0=y0)).y1)
    program = jax.jit(jax.value_and_grad(size, (0, 1)))
    _, (by_k, by_guess) = program(1.0, 1.0 + 0j)
    above, below = (program(1 + s, 1.0 + 0j)[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(by_k, (above - below) / 2e-5, rtol=1e-8)
    assert by_guess == 0


def test_no_rest_is_a_status():
    none = de.SteadyStateProblem(lambda t, y, k: k + y**2, 1.0, 1.0)
    with pytest.raises(de.SolveError, match="no steady state was found") as error:
        de.solve(none)
    assert error.value.status == de.Status.not_at_rest

    def total(k, asked):
        sol = de.solve(none.replace(args=k), throw=False)
        return jnp.where(asked, sol.y1, 0.0)

    gradient = jax.jit(jax.vmap(jax.grad(total)))
    found = gradient(jnp.array([-4.0, 1.0, 1.0]), jnp.array([True, False, True]))
    np.testing.assert_allclose(found[0], -1 / 4, rtol=1e-10)
    assert found[1] == 0
    assert np.isnan(found[2])
    with pytest.raises(de.SolveError, match="no steady state"):  # a limit cycle is none
        de.solve(REST.replace(args=jnp.array([1.0, 3.0])), de.Tsit5(), max_steps=2000)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"saveat": [1.0]}, "saveat was given with a SteadyStateProblem"),
        ({"dt": 0.1}, "dt was given"),
        ({"adjoint": de.Gauss()}, "Gauss does not serve a SteadyStateProblem.*SteadyState"),
        ({"method": de.RK4()}, "has no error estimate"),
        ({"rtol": -1.0}, "rtol is -1.0"),
    ],
)
def test_rest_refuses(options, said):
    with pytest.raises((TypeError, ValueError), match=said):
        de.solve(REST, **options)


def test_rest_refuses_a_field_of_time():
    with pytest.raises(TypeError, match="f depends on t"):
        de.solve(de.SteadyStateProblem(lambda t, y, k: t - y, 1.0))

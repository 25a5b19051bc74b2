"""`jax_numpy_dtype_promotion="strict"` checks the user's functions, and not the package's code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.dtypes import TypePromotionError
from tests.tiers import shortly

import diffeq as de

TIMES = jnp.linspace(0.0, 1.0, 40)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def field(t, y, k):
    return jnp.stack([-k * y[0], y[0] - y[1]])


START = jnp.array([1.0, 0.5])


def ode(k, method=None, **options):
    return de.solve(de.ODEProblem(field, START, (0.0, 0.5), k), method, **options)


def with_noise(k, method, **options):
    problem = de.SDEProblem(field, lambda t, y, k: 0.1 * y, START, (0.0, 0.5), k)
    return de.solve(problem, method, key=jax.random.key(0), **options)


def with_delay(k):
    problem = de.DDEProblem(
        lambda t, y, past, k: field(t, past(t - 0.3), k), START, (0.0, 0.5), k,
        history=lambda t, k: START, lags=(0.3,),
    )  # fmt: skip
    return de.solve(problem, de.Heun())


def with_algebra(k):
    problem = de.DAEProblem(
        lambda t, y, k: jnp.stack([-k * y[0], y[0] - y[1]]), START, (0.0, 0.5), k,
        mass_matrix=jnp.array([1.0, 0.0]),
    )  # fmt: skip
    return de.solve(problem, de.BDF())


def with_table(k):
    table = de.interp.Cubic(TIMES, TIMES)
    problem = de.ODEProblem(lambda t, y, k: -k * table(t) * y, START, (0.0, 0.5), k)
    return de.solve(problem, de.Heun(), saveat=TIMES[:3])


EVENT = de.Event(lambda t, y, k: y[0] - 0.8, lambda t, y, k: y + k)
SOLVES = {
    "explicit": lambda k: ode(k, de.Tsit5(), saveat=TIMES[:4]),
    "Rosenbrock": lambda k: ode(k, de.Rosenbrock23()),
    "DIRK": lambda k: ode(k, de.TRBDF2()),
    "Radau": lambda k: ode(k, de.RadauIIA5()),
    "events": lambda k: ode(k, de.Heun(), events=(EVENT, de.doses([0.2], [1.0], into=0))),
    "given steps of noise": lambda k: with_noise(k, de.EulerMaruyama(), dt=0.1),
    "noise": lambda k: with_noise(k, de.SOSRI()),
    "a delay": with_delay,
    "a DAE": with_algebra,
    "a table": with_table,
    "Gauss": lambda k: ode(k, de.Heun(), adjoint=de.Gauss()),
}


@pytest.mark.parametrize("name", shortly(SOLVES, "Rosenbrock", "events", "noise", "a delay"))
def test_solves_and_gradients(name):
    """Traced, which is where types are promoted."""
    gradient = jax.eval_shape(jax.grad(lambda k: jnp.sum(SOLVES[name](k).y1)), 1.3)
    assert gradient.shape == ()


def test_they_run():
    found = jax.grad(lambda k: ode(k, de.Tsit5(), rtol=1e-6).ys[0, 0])(1.3)
    np.testing.assert_allclose(found, -0.5 * np.exp(-0.65), rtol=1e-4)


def test_lanes_and_ensembles():
    ks = jnp.array([1.0, 1.3])
    total = lambda k: jnp.sum(ode(k, de.Heun()).y1)
    one = jax.jit(jax.vmap(jax.grad(total)))(ks)
    problem = de.ODEProblem(field, START, (0.0, 0.5))
    many = jax.grad(lambda ks: jnp.sum(de.solve_ensemble(problem, de.Heun(), args=ks).y1))(ks)
    np.testing.assert_allclose(many, one, rtol=1e-12)


@pytest.mark.parametrize("delayed", [False, True])
def test_the_field_is_still_checked(delayed):
    """Also where the same field was solved with the standard rules before."""

    def mixed(t, y, k):
        return -y * jnp.int32(2)

    def solve():
        if not delayed:
            return de.solve(de.ODEProblem(mixed, START, (0.0, 0.5)), de.Heun())
        problem = de.DDEProblem(
            lambda t, y, past, k: mixed(t, past(t - 0.3), k), START, (0.0, 0.5),
            history=lambda t, k: START, lags=(0.3,),
        )  # fmt: skip
        return de.solve(problem, de.Heun())

    with jax.numpy_dtype_promotion("standard"):
        solve()
    with pytest.raises(TypePromotionError, match="int32"):
        solve()

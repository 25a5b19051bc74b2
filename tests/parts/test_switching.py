"""Two methods in one solve: when they change, what that costs, and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq import zoo

SWITCH = de.Switching(de.Tsit5(), de.Rodas5P())


def relaxing(t, y, k):
    """Stiff only while k · (1 + tanh(20 (t − 1))) is large: from t = 1 on."""
    rate = k * (1 + jnp.tanh(20 * (t - 1))) / 2 + 1
    return -rate * (y - jnp.stack([jnp.cos(t), jnp.sin(t)]))


PROBLEM = de.ODEProblem(relaxing, [1.0, 0.0], (0.0, 3.0), 1e5)
TOLERANCES = {"rtol": 1e-6, "atol": 1e-8}


def test_plain_problems_are_solved_by_the_explicit_method():
    for name in ("lotka_volterra", "lorenz", "brusselator"):
        problem = zoo.case(name).problem()
        both = [de.solve(problem, method, **TOLERANCES) for method in (SWITCH, de.Tsit5())]
        np.testing.assert_allclose(both[0].y1, both[1].y1, rtol=1e-9)
        assert both[0].stats["steps"] == both[1].stats["steps"]
        assert both[0].stats["evaluations"] == both[1].stats["evaluations"]


@pytest.mark.parametrize("name", [case.name for case in zoo.cases() if case.stiff])
def test_stiff_problems_are_solved_by_the_other(name):
    case = zoo.case(name)
    small = {"robertson_long": 1e-8, "pollution": 1e-5}.get(name, 1e-4)
    sol = de.solve(case.problem(), SWITCH, rtol=1e-5, atol=1e-5 * small)
    error = np.abs(sol.y1 - case.reference.y1) / (small + np.abs(case.reference.y1))
    assert error.max() < 1e-4
    alone = de.solve(case.problem(), de.Rodas5P(), rtol=1e-5, atol=1e-5 * small)
    assert sol.stats["steps"] < 3 * alone.stats["steps"] + 100


def test_there_and_back():
    turned = PROBLEM.replace(f=lambda t, y, k: relaxing(jnp.where(t < 1.5, t, 3 - t), y, k))
    sol = de.solve(turned, SWITCH, saveat="steps", **TOLERANCES)
    ts = np.asarray(sol.ts)
    middle = np.diff(ts[(ts > 1.2) & (ts < 1.8)])
    assert middle.max() > 1e-3  # an explicit method is held below 3.5e-5 there
    late = np.sum(ts > 2.2)
    explicit = np.sum(np.asarray(de.solve(turned.replace(tspan=(2.2, 3.0)), de.Tsit5(), saveat="steps", **TOLERANCES).ts) > 2.2)
    assert late < 3 * explicit + 30
    assert sol.stats["evaluations"] < 7 * 17 * sol.stats["steps"]


@pytest.mark.parametrize("pair", [SWITCH, de.Switching(de.Vern7(), de.Rodas4())], ids=repr)
def test_output_and_derivatives_pass_through_both(pair):
    at = jnp.linspace(0.0, 3.0, 7)

    def loss(k):
        sol = de.solve(PROBLEM.replace(args=k), pair, saveat=at, rtol=1e-8, atol=1e-10)
        return jnp.sum(sol.ys * jnp.arange(7.0)[:, None]), sol

    def alone(k):
        sol = de.solve(PROBLEM.replace(args=k), de.Rodas5P(), saveat=at, rtol=1e-9, atol=1e-11)
        return jnp.sum(sol.ys * jnp.arange(7.0)[:, None])

    k = 2e4
    slope, sol = jax.jit(jax.grad(loss, has_aux=True))(k)
    np.testing.assert_allclose(sol.ys[0], [1, 0])
    np.testing.assert_allclose(loss(k)[0], alone(k), rtol=1e-6)
    expected = jax.grad(alone)(k)
    np.testing.assert_allclose(slope, expected, rtol=1e-3)
    np.testing.assert_allclose(jax.jacfwd(lambda k: loss(k)[0])(k), slope, rtol=1e-9)
    dense = de.solve(PROBLEM.replace(args=k), pair, dense=True, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(dense(at), sol.ys, rtol=1e-6, atol=1e-8)


def test_a_batch_in_which_some_are_stiff():
    rates = jnp.array([0.0, 1e5, 10.0, 1e6])
    end = lambda k: de.solve(  # noqa: E731
        PROBLEM.replace(args=k), SWITCH, saveat=[1.5, 3.0], throw=False, **TOLERANCES
    )
    together = jax.jit(jax.vmap(end))(rates)
    loss = lambda k: jnp.sum(end(k).ys)  # noqa: E731
    slopes = jax.jit(jax.vmap(jax.grad(loss)))(rates)
    one, slope = jax.jit(end), jax.jit(jax.grad(loss))
    for i, k in enumerate(rates):
        alone = one(k)
        assert together.stats["steps"][i] == alone.stats["steps"]
        np.testing.assert_allclose(together.ys[i], alone.ys, rtol=1e-9)
        np.testing.assert_allclose(slopes[i], slope(k), rtol=1e-6, atol=1e-16)


def test_a_thinned_tape_runs_the_same_methods_again():
    loss = lambda rows: lambda k: de.solve(  # noqa: E731
        PROBLEM.replace(args=k), SWITCH, adjoint=de.Discrete(rows=rows), **TOLERANCES
    ).y1[0]
    few, many = (jax.jit(jax.grad(loss(rows)))(1e5) for rows in (32, 2048))
    np.testing.assert_allclose(few, many, rtol=1e-9)


def test_the_default():
    stiff = zoo.robertson().problem()
    assert de.solve(stiff, atol=1e-9).about.method == "Switching(Tsit5(), Rodas5P())"
    assert de.solve(stiff, rtol=1e-8, atol=1e-12).about.method == "Switching(Vern7(), Rodas5P())"
    plain = zoo.lotka_volterra().problem()
    assert de.solve(plain, dt=0.01).about.method == "Tsit5()"
    large = de.ODEProblem(lambda t, y, a: -y, jnp.ones(100), (0.0, 1.0))
    assert de.solve(large).about.method == "Tsit5()"
    motion = de.SecondOrderProblem(lambda t, x, v, a: -x, 1.0, 0.0, (0.0, 1.0))
    assert de.solve(motion).about.method == "Tsit5()"


@pytest.mark.parametrize(
    ("explicit", "implicit", "message"),
    [
        (de.Bosh3(), de.Rodas5P(), "Bosh3 has no embedded pair or no dense output"),
        (de.RK4(), de.Rodas5P(), "RK4 has no embedded pair"),
        (de.Rodas4(), de.Tsit5(), "an explicit Runge–Kutta method and a Rosenbrock method"),
    ],
)
def test_what_cannot_be_paired(explicit, implicit, message):
    with pytest.raises(ValueError, match=message):
        de.Switching(explicit, implicit)

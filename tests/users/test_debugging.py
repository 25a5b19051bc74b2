"""Why did it fail, inside jit(vmap(grad))? What is left to look at, and what it says."""

# ruff: noqa: E501

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TS = jnp.linspace(0.0, 2.0, 5)
PROBLEM = de.ODEProblem(lambda t, y, a: {"x": a * y["x"] ** 2}, {"x": jnp.array(1.0)}, (0.0, 2.0))
RATES = jnp.array([0.1, 0.8, 0.3])


@jax.jit
def train(rates):
    def loss(a):
        sol = de.solve(PROBLEM.replace(args=a), saveat=TS)
        return jnp.sum(sol.ys["x"]), sol

    (values, sol), grads = jax.vmap(jax.value_and_grad(loss, has_aux=True))(rates)
    return values, sol, grads


def test_a_solution_comes_out_of_jit_vmap_grad_and_says_why():
    values, sol, grads = train(RATES)
    assert np.isnan(values).tolist() == [False, True, False]
    assert np.isnan(grads).tolist() == [False, True, False]
    assert not de.Status(int(sol.status[1])).ok
    np.testing.assert_allclose(sol.last.t[1], 1.25, rtol=1e-2)
    assert np.isfinite(sol.last.y["x"]).all()
    assert np.isfinite(sol.last.dt).all()
    with pytest.raises(de.SolveError) as caught:
        sol.check()
    error = caught.value
    assert error.index == (1,)
    assert error.t == pytest.approx(1.25, rel=1e-2)
    words = str(error)
    for piece in ("sample 1 of 3 (1 failed)", "t = 1.2", "dt = ", "steps", "rejected", "y = "):
        assert piece in words, words
    assert "step" in sol[1].message or "infinite" in sol[1].message


def test_what_failed_can_be_run_again_alone():
    _, sol, _ = train(RATES)
    bad = int(np.flatnonzero(~np.asarray(sol.success))[0])
    with pytest.raises(de.SolveError) as caught:
        de.solve(PROBLEM.replace(args=RATES[bad]), saveat=TS)
    np.testing.assert_allclose(caught.value.t, sol.last.t[bad], rtol=1e-6)
    until = de.solve(PROBLEM.replace(args=RATES[bad], tspan=(0.0, 1.2)), saveat="steps")
    assert bool(until.success)
    assert bool(jnp.all(jnp.diff(until.ys["x"]) > 0))


def stiff(t, y, k):
    return k * (jnp.cos(t) - y)


BY_HAND = lambda problem, max_steps: de.advance(de.init(problem, max_steps=max_steps), 100.0)
EXPLICIT = lambda problem, max_steps: de.solve(problem, de.Tsit5(), max_steps=max_steps)


@pytest.mark.parametrize("go", [EXPLICIT, BY_HAND])
def test_a_stiff_problem_is_told_what_to_try(go):
    problem = de.ODEProblem(stiff, 0.0, (0.0, 100.0), 1e5)
    with pytest.raises(de.SolveError, match=r"stiff: try Rodas5P") as caught:
        go(problem, max_steps=300)
    assert hasattr(de, "Rodas5P") != ("No implicit method is in this version" in str(caught.value))


@pytest.mark.parametrize("dt", [None, 0.1])
def test_a_number_in_args_that_spoils_the_solve_is_named(dt):
    args = {"fine": jnp.ones(2), "k": jnp.array([1.0, jnp.nan])}
    problem = de.ODEProblem(lambda t, y, a: -a["k"] * y, jnp.ones(2), (0.0, 1.0), args)
    with pytest.raises(de.SolveError, match=r"args\['k'\] has NaN, which may be why"):
        de.solve(problem, de.Tsit5(), dt=dt)
    with pytest.raises(de.SolveError, match=r"args\['k'\] has NaN"):
        de.step(de.init(problem, de.Tsit5(), dt=dt))


def branches(t, y, args):
    return -y if y[0] > 0 else y


NOTED = {
    "branch": (branches, jax.errors.TracerBoolConversionError, r"jnp\.where.*jax\.lax\.cond.*stops="),
    "math": (lambda t, y, a: [math.sin(y[0]), 0.0], jax.errors.JAXTypeError, r"Use jax\.numpy"),
    "numpy": (lambda t, y, a: np.sin(y), jax.errors.JAXTypeError, r"Use jax\.numpy"),
    "order": (lambda u, s, a: [u[1], -u[0]], IndexError, r"f\(t, y, args\), t first; here t is float64\[\], y is float64\[2\]"),
    "shape": (lambda u, s, a: -u, TypeError, r"f\(t, y, args\), t first"),
}  # fmt: skip


@pytest.mark.parametrize("what", NOTED)
def test_an_error_inside_a_field_says_what_may_be_meant(what):
    field, error, words = NOTED[what]
    with pytest.raises(error) as caught:
        de.solve(de.ODEProblem(field, [1.0, 0.0], (0.0, 1.0)))
    assert re.search(words, caught.value.__notes__[0]), caught.value.__notes__


def test_repr_in_and_out_of_a_trace():
    sol = de.solve(PROBLEM.replace(args=0.1), saveat=TS)
    assert repr(sol).startswith("Solution(success, steps=")
    seen = []
    jax.jit(lambda a: seen.append(repr(de.solve(PROBLEM.replace(args=a), saveat=TS))))(0.1)
    assert "Solution" in seen[0]
    shapes = jax.eval_shape(lambda a: de.solve(PROBLEM.replace(args=a), saveat=TS), 0.1)
    assert "Solution(status=ShapeDtypeStruct(" in repr(shapes)
    assert "Solution" in repr(train(RATES)[1])
    assert "ODEProblem" in repr(PROBLEM)


# --- with the switches of JAX that people debug with ---------------------------------------------


def decayed(k):
    return de.solve(de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), k), de.Tsit5()).y1


def test_without_jit_the_numbers_are_the_same():
    value, slope = jax.value_and_grad(decayed)(1.5)
    with jax.disable_jit():
        plain = jax.value_and_grad(decayed)(1.5)
    np.testing.assert_allclose(plain, (value, slope), rtol=1e-12)


def test_debug_nans_raises_where_a_nan_is_and_nowhere_else():
    with jax.debug_nans(True):
        assert np.isfinite(jax.grad(decayed)(1.5))
        wild = de.ODEProblem(lambda t, y, args: jnp.sqrt(y - 2), 1.0, (0.0, 1.0))
        with pytest.raises(FloatingPointError, match="nan"):
            de.solve(wild, de.Tsit5())

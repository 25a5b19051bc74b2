"""The paper's u0(p) and tspan(p): what depends on args is differentiated through args."""
# ruff: noqa: D403

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def problem(args):
    """y' = −k y from y(0) = k² to T = 1 + k."""
    return de.ODEProblem(
        lambda t, y, a: -a["k"] * y,
        y0=lambda a: jnp.stack([a["k"] ** 2, a["c"]]),
        tspan=lambda a: (0.0, 1.0 + a["k"]),
        args=args,
    )


ARGS = {"k": 0.8, "c": 2.0}
BASE = problem(ARGS)


def end(args):
    return de.solve(BASE.replace(args=args), **TIGHT).y1


def exact(a):
    return jnp.stack([a["k"] ** 2, jnp.asarray(a["c"])]) * jnp.exp(-a["k"] * (1 + a["k"]))


@pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jacfwd, jax.jacrev, lambda f: jax.jit(jax.jacrev(f))]
)
def test_values_and_derivatives(transform):
    found, want = transform(end)(ARGS), transform(exact)(ARGS)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_vmap_over_args_has_lanes_of_their_own_end():
    many = {"k": jnp.array([0.2, 0.8, 3.0]), "c": jnp.array([1.0, 2.0, 3.0])}
    sol = jax.vmap(lambda a: de.solve(BASE.replace(args=a), **TIGHT))(many)
    np.testing.assert_allclose(sol.t1, 1 + many["k"], rtol=1e-15)
    np.testing.assert_allclose(sol.y1, jax.vmap(exact)(many), rtol=1e-6, atol=1e-8)


def test_one_end_as_a_function_and_stops_as_a_function():
    def field(t, y, a):
        return jnp.where(t < a, 1.0, -1.0) * y

    base = de.ODEProblem(field, 1.0, (0.0, lambda a: 2 * a + 1), 0.4)
    top = lambda a: de.solve(base.replace(args=a), stops=lambda a: jnp.stack([a]), **TIGHT)
    sol = top(0.4)
    assert int(sol.stats["stops"]) == 1
    # up for a, down for a + 1: the end is 1/e whatever a is
    np.testing.assert_allclose(sol.y1, np.exp(-1.0), rtol=1e-8)
    np.testing.assert_allclose(jax.grad(lambda a: top(a).y1)(0.4), 0.0, atol=1e-8)
    np.testing.assert_allclose(float(sol.t1), 1.8)


def test_backward_when_args_say_so():
    base = de.ODEProblem(lambda t, y, a: -y, 1.0, lambda a: (a, 0.0), 0.5)
    np.testing.assert_allclose(de.solve(base, **TIGHT).y1, np.exp(0.5), rtol=1e-7)
    found = jax.grad(lambda a: de.solve(base.replace(args=a), **TIGHT).y1)(0.5)
    np.testing.assert_allclose(found, np.exp(0.5), rtol=1e-7)


@pytest.mark.thorough
def test_saved_rows_scale_with_the_end():
    def rows(k):
        args = {"k": k, "c": 2.0}
        return de.solve(
            BASE.replace(args=args), saveat=jnp.array([0.25, 1.0]) * (1 + k), **TIGHT
        ).ys[:, 1]

    want = lambda k: 2.0 * jnp.exp(-k * jnp.array([0.25, 1.0]) * (1 + k))
    np.testing.assert_allclose(jax.jacrev(rows)(0.8), jax.jacrev(want)(0.8), rtol=1e-5)

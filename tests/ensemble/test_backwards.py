"""Gradients of lanes by many numbers: each chunk is solved again and walks back along its own tape,
and what comes out is what the tapes of all give.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.ensemble.test_kernel import same
from tests.ensemble.test_kernel_reverse import COOLED, WEIGHTS, loss

import diffeq as de
from diffeq.ensemble import execution

STARTS = jnp.array([0.5, 1.0, -0.3, 0.2, -1.0])
IN_LANES, IN_LOCKSTEP = (partial(loss, strategy=s) for s in ("lanes", "lockstep"))


@pytest.fixture
def chunks(monkeypatch):
    """How many trajectories were pulled back together."""
    seen, some = [], execution._pull_group

    def noted(plan, structure, leaves, rows, index):
        seen.append(index.shape[0])
        return some(plan, structure, leaves, rows, index)

    monkeypatch.setattr(execution, "_pull_group", noted)
    return seen


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_numbers_that_all_share_and_those_of_each(mode, chunks):
    back = jax.value_and_grad(IN_LANES, (0, 1))
    value, found = (back if mode == "eager" else jax.jit(back))(WEIGHTS, STARTS)
    assert set(chunks) == {2}  # of five
    known, slopes = jax.value_and_grad(IN_LOCKSTEP, (0, 1))(WEIGHTS, STARTS)
    np.testing.assert_allclose(value, known, rtol=1e-12)
    same(found, slopes, rtol=1e-12)


class Zeroed(de.Discrete):
    """`Discrete`, whose derivative by y0 is zero."""

    def run(self, integrator, data, start, max_steps):
        start = eqx.tree_at(lambda s: s.y, start, jax.lax.stop_gradient(start.y))
        return super().run(integrator, data, start, max_steps)


@pytest.mark.parametrize("strategy", ["lanes", "kernel"])
def test_an_adjoint_that_changes_discrete_is_not_passed_over(strategy):
    """By one number a trajectory, for which `Discrete` itself finds Jacobians without a tape."""
    problem = de.ODEProblem(lambda t, y, a: -a * y, 1.0, (0.0, 1.0), 1.0)

    def total(y0):
        options = {"strategy": strategy, "adjoint": Zeroed(), "max_steps": 32}
        return jnp.sum(de.solve_ensemble(problem, de.Bosh3(), y0=y0, dt=0.1, **options).y1)

    assert jax.jit(jax.grad(total))(jnp.ones(2)).tolist() == [0.0, 0.0]


@pytest.mark.thorough
def test_every_mode_and_order(chunks):
    dots = jnp.cos(jnp.arange(8.0)), jnp.ones(5)
    found, known = (jax.jvp(f, (WEIGHTS, STARTS), dots) for f in (IN_LANES, IN_LOCKSTEP))
    same(found, known, rtol=1e-12)
    known = jax.jacfwd(jax.grad(IN_LOCKSTEP))(WEIGHTS, STARTS)
    for outer in (jax.jacfwd, jax.jacrev):
        same(outer(jax.grad(IN_LANES))(WEIGHTS, STARTS), known, rtol=1e-10)
    weights = jnp.stack([WEIGHTS, -WEIGHTS])
    found, known = (jax.vmap(jax.grad(f), (0, None))(weights, STARTS)
                    for f in (IN_LANES, IN_LOCKSTEP))  # fmt: skip
    same(found, known, rtol=1e-12)
    assert set(chunks) == {2}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {"dt": 1 / 16, "max_steps": None},
        {"saveat": jnp.linspace(0.0, 1.0, 4)},
        {"adjoint": de.Discrete(rows=4), "max_steps": 16},  # thinned
        {"adjoint": de.Backsolve()},
    ],
    ids=["given steps", "rows", "a short tape", "no tape"],
)
def test_solves_of_many_kinds(options, chunks):
    found, known = (jax.grad(f, (0, 1))(WEIGHTS, STARTS, **options)
                    for f in (IN_LANES, IN_LOCKSTEP))  # fmt: skip
    same(found, known, rtol=1e-11)
    assert chunks if isinstance(options.get("adjoint", de.Discrete()), de.Discrete) else not chunks


@pytest.mark.thorough
def test_what_has_failed_is_nan_where_it_is_asked_for_and_zero_where_not():
    grows = COOLED.replace(f=lambda t, y, w: w[0] * y**2 + jnp.sum(jnp.tanh(w * y)))
    starts, weights = jnp.array([0.5, 30.0, -0.3]), 0.1 + WEIGHTS**2 / 4

    def of(starts, weights, picked):
        sol = de.solve_ensemble(grows.replace(args=weights), de.Bosh3(), y0=starts, chunk=2,
                                strategy="lanes", throw=False, max_steps=64)  # fmt: skip
        return jnp.sum(jnp.where(picked, sol.y1, 0.0) ** 2)

    sound = jnp.array([True, False, True])
    by_starts, by_weights = jax.grad(of, (0, 1))(starts, weights, sound)
    assert by_starts[1] == 0
    assert np.isfinite(by_starts).all()
    assert np.isfinite(by_weights).all()
    by_starts, by_weights = jax.grad(of, (0, 1))(starts, weights, True)
    assert np.isnan(by_starts).tolist() == [False, True, False]
    assert np.isnan(by_weights).all()


@pytest.mark.thorough
def test_paths_and_statistics():
    noisy = de.SDEProblem(
        lambda t, y, w: jnp.sum(jnp.tanh(w * y)) - y, lambda t, y, w: w[0] * y, 1.0, (0.0, 1.0)
    )

    def variance(weights, strategy):
        sol = de.solve_ensemble(
            noisy.replace(args=weights), y0=STARTS, key=jax.random.key(0), dt=0.125,
            strategy=strategy, chunk=2, reduce=de.stats.Variance(),
        )  # fmt: skip
        return sol.reduced[-1]

    def square(weights, strategy):
        sol = de.solve_ensemble(noisy.replace(args=weights), y0=STARTS, key=jax.random.key(0),
                                dt=0.125, strategy=strategy, chunk=2)  # fmt: skip
        return jnp.sum(sol.y1**2)

    for f in (variance, square):
        found, known = (jax.grad(f)(WEIGHTS, s) for s in ("lanes", "lockstep"))
        same(found, known, rtol=1e-11)


def test_what_all_share_counts_once(chunks):
    """Three numbers that all share and one of each are few, wherever they stand."""
    fed = de.ODEProblem(lambda t, y, a: jnp.sum(jnp.tanh(a["w"] * y)) - a["k"] * y, 1.0, (0.0, 1.0))

    def of(w, k, strategy):
        sol = de.solve_ensemble(fed, de.Bosh3(), args={"w": w, "k": k}, chunk=2, strategy=strategy,
                                in_axes={"args": {"w": None, "k": 0}})  # fmt: skip
        return jnp.sum(sol.y1**2)

    ks = jnp.array([1.0, 8.0, 2.0])
    found, known = (jax.grad(of, (0, 1))(WEIGHTS[:3], ks, s) for s in ("lanes", "lockstep"))
    assert not chunks  # but Jacobians
    same(found, known, rtol=1e-12)


@pytest.mark.thorough
def test_a_tape_that_is_too_short_is_told():
    def of(weights):
        sol = de.solve_ensemble(
            COOLED.replace(args=weights), de.Bosh3(), y0=STARTS, strategy="lanes", chunk=2,
            throw=False, adjoint=de.Discrete(rows=2, checkpoint=False), max_steps=64, rtol=1e-6,
        )  # fmt: skip
        return jnp.sum(sol.y1**2), sol.status

    slope, status = jax.grad(of, has_aux=True)(WEIGHTS)
    assert np.isnan(slope).all()
    assert (np.asarray(status) == de.Status.tape_overflow).all()

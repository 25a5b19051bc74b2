"""`jax_check_tracer_leaks` finds none: what a solve leaves in JAX's caches holds no tracer."""

import jax
import jax.numpy as jnp
import pytest
from tests.tiers import shortly

import diffeq as de

TIMES = jnp.array([0.1, 0.3])
EVENT = de.Event(lambda t, y, k: y[0] - 0.8, lambda t, y, k: y + k)


def solved(k, **options):
    problem = de.ODEProblem(lambda t, y, k: -k * y, jnp.array([1.0, 0.5]), (0.0, 0.5), k)
    return de.solve(problem, de.Heun(), **options)


SOLVES = {
    "rows": lambda k: solved(k, saveat=TIMES, save=lambda t, y, k: k * y),
    "steps": lambda k: solved(k, saveat="steps", dense=True),
    "events": lambda k: solved(k, events=EVENT),
}


@pytest.mark.parametrize("name", shortly(SOLVES, "rows"))
def test_no_tracer_leaks(name):
    with jax.checking_leaks():
        jax.eval_shape(jax.grad(lambda k: jnp.sum(SOLVES[name](k).ys)), 1.3)
        jax.eval_shape(lambda k: SOLVES[name](k).ys, 1.3)

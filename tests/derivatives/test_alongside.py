"""Tangents found while a solve runs are those of `Discrete`, which walks along a tape."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.adjoints.forward_accumulation import ForwardAccumulation


def pendulum(t, y, k):
    return jnp.array([y[1], -k[0] * jnp.sin(y[0]) - k[1] * y[1]])


PENDULUM = de.ODEProblem(pendulum, jnp.array([2.0, 0.0]), (0.0, 1.0), jnp.ones(2))
NOISY = de.SDEProblem(
    lambda t, y, k: -k[0] * y, lambda t, y, k: k[1] * y, jnp.ones(2), (0.0, 1.0), jnp.ones(2)
)
TS = jnp.linspace(0.0, 1.0, 4)
# The third of its components is pulled to the first by a spring that is stiff from t = 0.4 on.
PULLED = de.ODEProblem(
    lambda t, y, k: jnp.stack(
        [*pendulum(t, y[:2], k), (1 + 1e4 * (jnp.tanh(40 * (t - 0.4)) + 1)) * (y[0] - y[2])]
    ),
    jnp.zeros(3), (0.0, 1.0), jnp.ones(2),
)  # fmt: skip
PAIR = de.Switching(de.Tsit5(), de.Rodas5P())

SOLVES = {
    "rows at times": partial(de.solve, method=de.Tsit5(), saveat=TS, rtol=1e-5),
    "given steps": partial(de.solve, method=de.Bosh3(), dt=0.06, stops=[0.3]),
    "paths": partial(de.solve, method=de.EulerMaruyama(), dt=0.1, key=jax.random.key(0)),
    "multistep": partial(de.solve, method=de.BDF(), saveat="steps", max_saves=99),
    "methods that take turns": partial(de.solve, method=PAIR, saveat=TS, rtol=1e-4),
}
THOROUGH = ("multistep", "methods that take turns")
CASES = [pytest.param(c, marks=pytest.mark.thorough) if c in THOROUGH else c for c in SOLVES]


@pytest.mark.parametrize("case", CASES)
def test_tangents_alongside_are_those_along_a_tape(case):
    problem = {"paths": NOISY, "methods that take turns": PULLED}.get(case, PENDULUM)

    def found(k, adjoint):
        y0 = jnp.array([1.0, 0.5, 1.0])[: problem.y0.size] * k[0]
        sol = SOLVES[case](problem.replace(args=k, y0=y0), adjoint=adjoint)
        return sol.ys, sol.y1, sol.last.t

    k = jnp.array([1.5, 0.2])
    one, other = (
        jax.jacfwd(partial(found, adjoint=a))(k) for a in (ForwardAccumulation(), de.Discrete())
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), one, other)


def test_a_lane_that_fails_keeps_its_tangents_to_itself():
    blows_up = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 1.0))

    def end(a, adjoint):
        options = {"adjoint": adjoint, "dt": 0.125, "throw": False, "saveat": [0.25, 1.0]}
        return de.solve(blows_up.replace(args=a), de.Bosh3(), **options).ys

    rates = jnp.array([0.5, 60.0])
    one, other = (jax.vmap(jax.jacfwd(partial(end, adjoint=a)))(rates)
                  for a in (ForwardAccumulation(), de.Discrete()))  # fmt: skip
    np.testing.assert_allclose(one[0], other[0], rtol=1e-10)
    assert np.isfinite(one[0]).all()
    assert np.isnan(one[1, 1])

"""A systems biologist: a gene that represses itself after a delay, and counts with gaps.

Hes1 oscillates because its protein stops its own transcription a while later. The rates and the
delay are found from samples of which a third is missing, with a positive delay kept by `bounds`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de

TRUE = {"production": jnp.array(3.0), "decay": jnp.array(1.0), "lag": jnp.array(2.0)}
TS = jnp.linspace(0.0, 12.0, 25)


def repressed(t, protein, past, p):
    return p["production"] / (1 + past(t - p["lag"]) ** 4) - p["decay"] * protein


def solved(p):
    problem = de.DDEProblem(repressed, None, (0.0, 12.0), p, history=0.3, lags=lambda p: p["lag"])
    return de.solve(problem, de.Bosh3(), saveat=TS, rtol=1e-5, atol=1e-7)


@pytest.mark.thorough
def test_rates_and_delay_from_samples_with_gaps():
    counts = np.array(solved(TRUE).ys)
    counts[np.random.default_rng(0).random(25) < 1 / 3] = np.nan  # lost samples
    assert 4 <= np.isnan(counts).sum() <= 14

    guess = {"production": jnp.array(2.5), "decay": jnp.array(1.2), "lag": jnp.array(1.7)}
    fit = de.fit(
        guess, lambda p: de.mse(solved(p).ys, counts), bounds=(0.0, None), progress=False,
        optimizer=optax.lbfgs(), steps=40,
    )  # fmt: skip
    for name, value in TRUE.items():
        assert abs(fit.model[name] - value) < 1e-3, name


def test_patients_with_their_own_delays_side_by_side():
    lags = jnp.array([1.5, 2.0, 2.5])
    each = lambda lag: solved({**TRUE, "lag": lag}).ys
    batch = jax.jit(jax.vmap(each))(lags)
    np.testing.assert_allclose(batch[1], solved(TRUE).ys, rtol=1e-10)

"""`fit_starts`: the fits of several starts are those that each of them has alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de

KEY = jax.random.key(3)
DATA = jax.random.normal(jax.random.key(0), (20, 2))
QUIET = {"progress": False}


def two_valleys(x):
    return (x**2 - 1.0) ** 2 + 0.3 * x


def noisy(model, batch, key):
    draw = jax.random.normal(key, (2,))
    return jnp.mean((jax.vmap(model)(batch) - draw[0]) ** 2)


def net(seed):
    return eqx.nn.MLP(2, 1, 4, 1, jnp.tanh, key=jax.random.key(seed))


FITS = {
    "phases and bounds": (
        [-2.0, 0.5, 2.0], two_valleys,
        {"optimizer": [(optax.adam(0.1), 12), (optax.sgd(0.01), 9)], "bounds": (-3.0, None)},
    ),
    "batches, keys, a schedule, clipping": (
        [net(1), net(2)], noisy,
        {
            "data": DATA, "batch_size": 8, "key": KEY, "steps": 11,
            "optimizer": optax.chain(
                optax.clip_by_global_norm(0.1), optax.adam(optax.cosine_decay_schedule(0.1, 10))
            ),
        },
    ),
    "a line search": ([-2.0, 2.0], two_valleys, {"optimizer": optax.lbfgs(), "steps": 8}),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_each_start_is_a_fit_of_its_own(name):
    models, loss, options = FITS[name]
    together = de.fit_starts(models, loss, **QUIET, **options)
    for model, found in zip(models, together, strict=True):
        alone = de.fit(model, loss, **QUIET, **options)
        count = min(len(alone.history), len(found.history))  # either may stop where nothing moves
        np.testing.assert_allclose(found.history[:count], alone.history[:count], rtol=1e-9)
        assert found.phases == alone.phases
        assert found.loss == pytest.approx(alone.loss, rel=1e-9)
        for a, b in zip(*map(jax.tree.leaves, (found.model, alone.model)), strict=True):
            if eqx.is_inexact_array_like(a):
                np.testing.assert_allclose(a, b, rtol=1e-7)


def test_a_start_that_fails_touches_no_other():
    loss = lambda x: jnp.where(x > 10.0, jnp.nan, two_valleys(x))
    options = {"optimizer": optax.adam(0.1), "steps": 30}
    bad, good = de.fit_starts([20.0, 0.5], loss, **QUIET, **options)
    alone = de.fit(0.5, loss, **QUIET, **options)
    assert (bad.status, good.status) == ("nonfinite", "finished")
    assert bad.model == 20.0
    assert "at the model that was given the loss was nan" in bad.message
    np.testing.assert_allclose(good.history, alone.history, rtol=1e-12)


def test_all_are_converged():
    fits = de.fit_starts([0.3, -0.7], lambda x: x**2, optimizer=optax.sgd(0.5), steps=500, **QUIET)
    assert {fit.status for fit in fits} == {"converged"}
    assert len(fits[0].history) < 100


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        (2.0, TypeError, "models is a float; a list of models"),
        ([], TypeError, "a list of models"),
        ([jnp.ones(2), jnp.ones(3)], ValueError, r"models\[1\] has another structure"),
        ([{"a": 1.0}, {"b": 1.0}], ValueError, r"models\[1\] has another structure"),
        ([{"a": 1.0, "n": 2}, {"a": 1.0, "n": 3}], ValueError, r"differs from models\[0\]"),
    ],
)  # fmt: skip
def test_models_that_are_not_alike(models, error, message):
    loss = lambda model: sum(jnp.sum(x) for x in jax.tree.leaves(model))
    with pytest.raises(error, match=message):
        de.fit_starts(models, loss, optimizer=optax.sgd(0.1), steps=2, **QUIET)

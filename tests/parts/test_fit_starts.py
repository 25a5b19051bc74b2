"""`fit_starts`: the fits of several starts are those that each of them has alone."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de
from diffeq.train import starts as starts_module

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
    with pytest.warns(RuntimeWarning, match="of 2 starts 1 failed: 0. Of start 0: at the model"):
        bad, good = de.fit_starts([20.0, 0.5], loss, **QUIET, **options)
    assert min([bad, good], key=lambda fit: fit.loss) is good
    assert bad.loss == np.inf
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
        (2.0, TypeError, "models is 2.0; a list of models is wanted."),
        ([], TypeError, "a list of models"),
        ([jnp.ones(2), jnp.ones(3)], ValueError, r"models\[1\] has another structure"),
        ([{"a": 1.0}, {"b": 1.0}], ValueError, r"models\[1\] has another structure"),
        ([{"a": 1.0, "n": 2}, {"a": 1.0, "n": 3}], ValueError, r"differs from models\[0\]"),
        ([1.0, 2], ValueError, r"models\[1\]: Nothing in the model can be trained"),
        (jnp.ones(2), TypeError, r"models is Array.* a list of models is wanted: list\(models\)"),
        ((x for x in [1.0, 2.0]), TypeError, r"a list of models is wanted: list\(models\)"),
    ],
)  # fmt: skip
def test_models_that_are_not_alike(models, error, message):
    loss = lambda model: sum(jnp.sum(x) for x in jax.tree.leaves(model))
    with pytest.raises(error, match=message):
        de.fit_starts(models, loss, optimizer=optax.sgd(0.1), steps=2, **QUIET)


def test_starts_are_problems_of_which_a_field_is_trained():
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
    loss = lambda p: (de.solve(p, rtol=1e-6, atol=1e-9).y1 - 0.5) ** 2
    call = {"optimizer": optax.lbfgs(), "steps": 20, **QUIET}
    fits = de.fit_starts([problem, problem.replace(y0=2.0)], loss, trainable=lambda p: p.y0, **call)
    assert [fit.model.y0 for fit in fits] == pytest.approx([np.e / 2] * 2, abs=1e-4)
    assert {(fit.model.args, fit.model.tspan) for fit in fits} == {(1.0, (0.0, 1.0))}
    with pytest.raises(ValueError, match=r"differs from models\[0\].*\(\.tspan\[1\]\)"):
        de.fit_starts([problem, problem.replace(tspan=(0.0, 2.0))], loss, **call)


class Scaled(eqx.Module):
    """A weight beside what is not trained: a function, a key, an array."""

    weight: jax.Array
    function: Callable
    key: jax.Array
    known: jax.Array


def scaled(weight, *, factor=2.0, seed=7, known=jnp.nan):
    function = lambda x: factor * x
    return Scaled(jnp.array(weight), function, jax.random.key(seed), jnp.array([known, 1.0]))


def of_scaled(model):
    drawn = jax.random.normal(model.key)
    return model.function(model.weight) ** 2 + drawn + jnp.nansum(model.known)


def test_what_is_not_trained_is_compared_by_what_it_is():
    """Functions by their code and what they close over; keys; NaN as a number like others."""
    options = {"optimizer": optax.sgd(0.1), "steps": 3, "trainable": lambda m: m.weight}
    fits = de.fit_starts([scaled(1.0), scaled(2.0)], of_scaled, **options, **QUIET)
    for weight, found in zip((1.0, 2.0), fits, strict=True):
        alone = de.fit(scaled(weight), of_scaled, **options, **QUIET)
        np.testing.assert_allclose(found.history, alone.history, rtol=1e-9)
    changes = {"function": {"factor": 3.0}, "key": {"seed": 8}, "known": {"known": 1.0}}
    for where, change in changes.items():
        with pytest.raises(ValueError, match=rf"models\[1\] differs .* \(\.{where}\): .* once"):
            de.fit_starts([scaled(1.0), scaled(2.0, **change)], of_scaled, **options, **QUIET)


class Static(eqx.Module):
    weight: jax.Array
    function: Callable = eqx.field(static=True)


def test_a_function_in_a_static_field_is_one_for_all_starts():
    make = lambda weight: Static(jnp.array(weight), lambda x: x**2)
    loss = lambda model: model.function(model.weight)
    options = {"optimizer": optax.sgd(0.1), "steps": 2, **QUIET}
    with pytest.raises(ValueError, match=r"models\[1\].*another static field.*define it once"):
        de.fit_starts([make(1.0), make(2.0)], loss, **options)
    square = lambda x: x**2
    models = [Static(jnp.array(weight), square) for weight in (1.0, 2.0)]
    assert [fit.history[0] for fit in de.fit_starts(models, loss, **options)] == [1.0, 4.0]


def test_functions_that_an_installed_class_makes_are_one():
    def graph(seed):
        message = eqx.nn.MLP(2, 1, 4, 1, jnp.tanh, key=jax.random.key(seed))
        edges = {"senders": [0, 1], "receivers": [1, 0]}
        return de.nn.GraphODE(None, message=message, tspan=(0.0, 1.0), **edges)

    weights = lambda model: sum(jnp.sum(x**2) for x in jax.tree.leaves(model.message)[:1])
    options = {"optimizer": optax.sgd(0.1), "steps": 2}
    fits = de.fit_starts([graph(1), graph(2)], weights, **options, **QUIET)
    assert all(fit.loss < fit.history[0] for fit in fits)


def narrow(x):
    """At 1 there is no way on; below 0 there is a valley."""
    only = jnp.where(x == 1.0, -x, jnp.nan)
    return jnp.where(x > 0.0, only, 0.5e-6 * (x + 2.0) ** 2)


def test_a_start_that_failed_in_a_phase_stays_as_it_is():
    phases = [(optax.sgd(1e6), 60), (optax.sgd(0.1), 30)]
    with pytest.warns(RuntimeWarning, match="of 2 starts 1 failed: 0") as seen:
        failed, good = de.fit_starts([1.0, -1.0], narrow, optimizer=phases, **QUIET)
    assert len(seen) == 1
    with pytest.warns(RuntimeWarning, match="which ended the fit"):
        alone = de.fit(1.0, narrow, optimizer=phases, **QUIET)
    for fit in (failed, alone):
        assert (fit.status, fit.phases, fit.loss, fit.model) == ("nonfinite", (0,), -1.0, 1.0)
        assert len(fit.history) <= 60
        assert "were refused in a row, which ended the fit" in fit.message
    assert len(good.phases) == 2
    assert good.model == pytest.approx(-2.0)


def test_a_start_says_what_a_fit_says():
    options = {"optimizer": optax.sgd(1.5), "steps": 5, **QUIET}
    (found,) = de.fit_starts([1.0], lambda x: (x - 2.0) ** 2, **options)
    assert found.message == "no step lowered the loss; try a smaller learning rate"


def hot(error):
    """A loss that outside of a program raises what a solve there would raise."""

    def loss(x):
        if not isinstance(x, jax.core.Tracer) and x > 10.0:
            raise error
        return jnp.where(x > 10.0, jnp.nan, x**2)

    return loss


def test_the_cause_of_a_failure_at_the_start_is_told():
    options = {"optimizer": optax.sgd(0.1), "steps": 3, **QUIET}
    with pytest.warns(RuntimeWarning, match=r"the loss was nan \(RuntimeError: too hot\)"):
        bad, good = de.fit_starts([20.0, 1.0], hot(RuntimeError("too hot")), **options)
    assert bad.message.endswith("(RuntimeError: too hot)")
    wrong = hot(ValueError("no such time"))
    with pytest.warns(RuntimeWarning, match=r"\(ValueError: no such time\)"):
        assert de.fit_starts([20.0, 1.0], wrong, **options)[1].loss == good.loss
    with pytest.raises(ValueError, match="no such time"):  # there is no other start to keep
        de.fit_starts([20.0, 30.0], wrong, **options)


def test_a_batch_that_is_nan_is_told_once():
    data = jnp.zeros(8).at[5].set(jnp.nan)
    mean = lambda m, batch: jnp.mean((batch - m) ** 2)
    options = {"optimizer": optax.sgd(0.1), "steps": 6, "batch_size": 2, **QUIET}
    with pytest.warns(RuntimeWarning, match="of 2 starts 2 had steps that were refused: 0, 1") as w:
        de.fit_starts([1.0, 2.0], mean, data, **options)
    assert len(w) == 1


def test_ctrl_c_is_seen_after_its_step(monkeypatch):
    class AskedAtTheThird(starts_module.Interrupts):
        looks = 0

        @property
        def asked(self):
            self.looks += 1
            return self.looks >= 3

        @asked.setter
        def asked(self, value):
            pass

    monkeypatch.setattr(starts_module, "Interrupts", AskedAtTheThird)
    fits = de.fit_starts([0.5, 2.0], two_valleys, optimizer=optax.sgd(0.01), steps=1000, **QUIET)
    for fit in fits:
        assert (fit.status, len(fit.history)) == ("interrupted", 3)
        assert fit.message == "interrupted in step 3 of 1000"
        assert np.isfinite(fit.loss)

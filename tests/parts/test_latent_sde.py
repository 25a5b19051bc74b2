"""Latent SDEs: the divergence of paths is Girsanov's, and the bound that of the likelihood."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from tests.tiers import shortly

import diffeq as de

KEY = jax.random.key(0)
TS = np.array([0.0, 0.3, 0.55, 1.0])
XS = np.random.default_rng(0).normal(size=(4, 2))


def of_one_series(**options):
    """A model without an encoder, of one component, that is solved with steps of 0.005."""
    given = {"encoder": None, "decoder": lambda z: z, "noise": 0.3, "dt": 0.005, "width": 8}
    return de.nn.LatentSDE(1, 1, key=KEY, **(given | options))


def means(model, ts, xs, count=2000):
    """The mean of the bound and of its two parts, with the errors of these means."""
    keys = jax.random.split(jax.random.key(1), count)
    found = jax.jit(jax.vmap(lambda key: model.elbo(ts, xs, key=key)))(keys)
    parts = np.stack([found.value, found.log_likelihood, found.kl])
    return parts.mean(axis=1), parts.std(axis=1) / np.sqrt(count)


def test_divergence_of_linear_paths_is_girsanovs():
    """Of dz = (c − b z) dt + σ dW from dz = −a z dt + σ dW: ½ ∫ E(c + (a − b) z)² dt / σ²."""
    a, b, c, sigma, z0 = 0.7, 1.5, 0.4, 0.6, 0.8
    model = of_one_series(
        prior=lambda t, z: -a * z,
        posterior=lambda t, z, context: c - b * z,
        diffusion=lambda t, z: jnp.full_like(z, sigma),
        initial=([0.0], [1.0]),
        tspan=(0.0, 1.0),
    )
    model = eqx.tree_at(lambda m: m.head, model, jnp.array([z0, -30.0]))  # q₀ is a point, nearly

    def integrand(t):
        mean = c / b + (z0 - c / b) * np.exp(-b * t)
        variance = sigma**2 * (1 - np.exp(-2 * b * t)) / (2 * b)
        return ((c + (a - b) * mean) ** 2 + (a - b) ** 2 * variance) / sigma**2 / 2

    of_path = quad(integrand, 0.0, 1.0)[0]
    of_start = (np.exp(-60.0) + z0**2 - 1 + 60.0) / 2
    found, error = means(model, np.array([1.0]), np.zeros((1, 1)))
    assert error[2] < 0.02
    assert found[2] - of_start == pytest.approx(of_path, abs=4 * error[2] + 3e-3)


def test_the_bound_is_the_likelihood_where_the_posterior_is_exact():
    """A Brownian motion that is seen once: its posterior has the drift σ² ∂ log p(x | z)/∂z."""
    sigma, noise, std, x = 0.8, 0.3, 0.5, 0.9

    def drift(t, z, context):
        return sigma**2 * (x - z) / (sigma**2 * (1.0 - t) + noise**2)

    def model(change):
        made = of_one_series(
            prior=lambda t, z: 0.0 * z,
            posterior=lambda *at: drift(*at) + change,
            diffusion=lambda t, z: jnp.full_like(z, sigma),
            initial=([0.0], [std]),
            noise=noise,
            tspan=(0.0, 1.0),
        )
        precision = std**-2 + 1 / (sigma**2 + noise**2)
        mean = x / (sigma**2 + noise**2) / precision
        return eqx.tree_at(lambda m: m.head, made, jnp.array([mean, -np.log(precision) / 2]))

    known = norm(0.0, np.sqrt(std**2 + sigma**2 + noise**2)).logpdf(x)
    found, error = means(model(0.0), np.array([1.0]), np.array([[x]]), 4000)
    assert error[0] < 0.03
    assert found[0] == pytest.approx(known, abs=4 * error[0] + 5e-3)
    worse, _ = means(model(0.5), np.array([1.0]), np.array([[x]]))
    assert worse[0] < known - 0.1


def test_a_posterior_that_is_the_prior_has_no_divergence():
    prior = lambda t, z: -z
    model = of_one_series(prior=prior, posterior=lambda t, z, c: prior(t, z), dt=0.1)
    bound = model.elbo(TS, XS[:, :1], key=KEY)
    assert float(bound.kl) == 0.0
    paths = jax.vmap(lambda key: model.sample(key, jnp.array([0.0, 0.5])))(
        jax.random.split(KEY, 4000)
    )
    assert float(paths[:, 0].std()) == pytest.approx(1.0, abs=0.05)


def test_a_context_sees_what_comes():
    """It is the encoder's own state at a row, and no row enters behind itself."""
    encoder = de.nn.GRUEncoder(2, 4, key=KEY)
    model = de.nn.LatentSDE(2, 2, encoder=encoder.states, context=4, width=4, dt=0.1, key=KEY)
    times = jnp.array([-1.0, 0.0, 0.15, 0.3, 0.7, 1.0, 2.0])

    def contexts(xs):
        series = de.nn.time_series.series_of(TS, xs, None)
        return jax.vmap(model._read(series, jnp.array(0.0))[0])(times)

    states = encoder.states(TS, XS, np.ones((4, 2), bool))
    found = contexts(XS)
    wanted = [
        states[0],
        states[0],
        (states[0] + states[1]) / 2,
        states[1],
        None,
        states[3],
        states[3],
    ]
    for one, two in zip(found, wanted, strict=True):
        if two is not None:
            np.testing.assert_allclose(one, two, rtol=1e-12)
    slopes = jax.jacobian(contexts)(jnp.asarray(XS))  # times, context, rows, channels
    reads = np.abs(slopes).sum(axis=(1, 3)) > 0
    np.testing.assert_array_equal(reads[3:6], np.arange(4) >= np.array([1, 2, 3])[:, None])


STEPS = {"given": {"dt": 0.1}, "controlled": {"rtol": 1e-2, "atol": 1e-2}}


@pytest.mark.parametrize("steps", shortly(STEPS, "given"))
def test_batches_missing_values_and_derivatives(steps):
    options = STEPS[steps]
    model = de.nn.LatentSDE(2, 2, context=4, width=4, noise=0.5, key=KEY, **options)
    dynamic, static = eqx.partition(model, eqx.is_inexact_array)
    ts = np.stack([TS, np.array([0.1, 0.4, np.nan, np.nan])])
    xs = np.stack([XS, XS + 1.0])
    xs[0, 1, 0] = np.nan

    @jax.jit
    def of_batch(dynamic, xs):
        loss = lambda dynamic, xs: eqx.combine(dynamic, static).loss((ts, xs), KEY)
        return jax.value_and_grad(loss, argnums=(0, 1))(dynamic, xs)

    value, (slopes, of_xs) = of_batch(dynamic, xs)
    keys = jax.random.split(KEY, 2)
    each = [model.elbo(ts[i], xs[i], key=keys[i]).value for i in range(2)]
    assert float(value) == pytest.approx(-float(sum(each)) / 2, rel=1e-9)
    seen = ~np.isnan(xs) & ~np.isnan(ts)[:, :, None]
    assert (np.asarray(of_xs)[~seen] == 0).all()
    assert np.isfinite(of_xs).all()
    assert (np.asarray(of_xs)[seen] != 0).all()
    direction = jax.tree.map(
        lambda x: jnp.cos(jnp.arange(x.size, dtype=float)).reshape(x.shape), dynamic
    )
    along = sum(
        jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (slopes, direction)), strict=True)
    )
    moved = lambda h: of_batch(jax.tree.map(lambda x, d: x + h * d, dynamic, direction), xs)[0]
    difference = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert float(along) == pytest.approx(float(difference), rel=1e-5)


def test_behind_its_end_a_path_follows_the_prior():
    model = of_one_series(
        prior=lambda t, z: jnp.full_like(z, -2.0),
        posterior=lambda t, z, context: jnp.full_like(z, 1.0),
        diffusion=lambda t, z: jnp.full_like(z, 1e-6),
        dt=0.125,
    )
    model = eqx.tree_at(lambda m: m.head, model, jnp.array([0.0, -30.0]))
    at = jnp.array([0.0, 0.5, 1.0, 2.0, np.nan])
    found = model.predict(at, TS, XS[:, :1], key=KEY)
    np.testing.assert_allclose(found[:, 0], [0.0, 0.5, 1.0, -1.0, 0.0], atol=1e-4)


def test_a_start_that_is_given_is_that_of_each_component():
    options = {"prior": lambda t, z: -z, "dt": 0.25, "width": 4, "key": KEY}
    both = [
        de.nn.LatentSDE(2, 2, decoder=lambda z: z, initial=initial, **options)
        for initial in ((0.0, [1.0, 2.0]), ([0, 0], (1, 2)))
    ]
    keys = jax.random.split(KEY, 2000)
    one, two = (jax.vmap(lambda key, m=m: m.sample(key, jnp.zeros(1))[0])(keys) for m in both)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one.std(axis=0), [1.0, 2.0], rtol=0.1)
    assert abs(np.corrcoef(one.T)[0, 1]) < 0.1


def test_times_outside_of_the_span_in_a_trace_are_nan():
    for tspan in ((0.2, 1.0), (0.0, 0.9)):
        model = of_one_series(dt=0.25, tspan=tspan)
        bound = jax.jit(lambda ts, model=model: model.elbo(ts, XS[:, :1], key=KEY))(TS)
        assert np.isnan(bound.value)
    found = model.sample(KEY, jnp.array([-0.5, 0.0, 0.5]))
    np.testing.assert_array_equal(np.isnan(found[:, 0]), [True, False, False])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: de.nn.LatentSDE(2, 2, encoder=3, key=KEY), ValueError,
            "encoder is 3; \"gru\", None, or a module",
        ),
        (
            lambda: de.nn.LatentSDE(
                2, 2, encoder=de.nn.GRUEncoder(2, 4, key=KEY), context=4, key=KEY
            ).elbo(TS, XS, key=KEY),
            ValueError, r"returns shape \(4,\); \(4, 4\) is wanted, by context=4: a vector",
        ),
        (
            lambda: of_one_series(initial=(0.0, -1.0)), ValueError,
            r"initial is \(0.0, -1.0\); a mean and a positive standard deviation",
        ),
        (
            lambda: of_one_series(initial=([0.0] * 3, 1.0)), ValueError,
            r"initial has parts of shape \(3,\) and \(\); a mean",
        ),
        (lambda: of_one_series(initial=1.0), TypeError, "initial is 1.0; a mean and"),
        (
            lambda: of_one_series(tspan=(0.2, 1.0)).loss((TS[None], XS[None, :, :1]), KEY),
            ValueError, r"ts\[0, 0\] is 0, before t0 = 0.2; t0 must not be after",
        ),
        (
            lambda: of_one_series(tspan=(0.0, 0.9)).elbo(TS, XS[:, :1], key=KEY),
            ValueError, r"ts\[3\] is 1, after t1 = 0.9; t1 must not be before the last",
        ),
        (
            lambda: de.nn.LatentSDE(2, 2, encoder="ode_rnn", key=KEY), ValueError,
            "encoder is 'ode_rnn'; \"gru\", None, or a module",
        ),
        (lambda: of_one_series(tspan=3.0), TypeError, r"tspan is 3.0; \(t0, t1\) is wanted"),
        (lambda: of_one_series(tspan=(0.0, "b")), TypeError, r"tspan\[1\] is 'b'; a finite number"),
        (lambda: de.nn.LatentSDE(2, 2, key=0), TypeError, "key is 0; one key is wanted"),
        (lambda: de.nn.LatentSDE(2, 2.0, key=KEY), TypeError, "latent is 2.0; a positive whole"),
        (
            lambda: of_one_series(decoder=lambda z: jnp.ones(3)).predict(
                TS, TS, XS[:, :1], key=KEY
            ),
            ValueError, r"the decoder makes rows of shape \(4, 3\), and xs has shape \(4, 1\)",
        ),
        (lambda: de.nn.LatentSDE(2, 2, events=(), key=KEY), TypeError, "sets events itself"),
        (lambda: de.nn.LatentSDE(2, 2, steps=3, key=KEY), TypeError, "got 'steps'"),
        (lambda: de.nn.LatentSDE(2, 2, noise=-1, key=KEY), ValueError, "noise is -1; a positive"),
        (lambda: of_one_series().elbo(TS[::-1], XS[:, :1], key=KEY), ValueError, "not decrease"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()

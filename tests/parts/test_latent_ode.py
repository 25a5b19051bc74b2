"""Latent ODEs: the bound is that of the mathematics, and what was not observed does not enter."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal
from scipy.integrate import quad
from scipy.stats import norm
from tests.tiers import shortly

import diffeq as de

KEY = jax.random.key(0)
NAN = np.nan
TS = np.array([0.3, 0.5, 0.6, 1.1, 1.7])
XS = np.random.default_rng(0).normal(size=(5, 2))
MASK = np.array([[1, 1], [1, 0], [0, 0], [0, 1], [1, 1]], bool)
ENCODERS = {
    "gru": de.nn.GRUEncoder(2, 8, key=KEY),
    "ode_rnn": de.nn.ODERNNEncoder(2, 8, width=4, key=KEY, method=de.Midpoint(), dt=0.25),
    "attention": de.nn.AttentionEncoder(2, 8, heads=2, waves=3, width=4, key=KEY),
}


def model(encoder="gru", **options):
    options = {"hidden": 8, "width": 8, "method": de.Midpoint(), "dt": 0.25} | options
    encoder = ENCODERS.get(encoder, encoder)
    return de.nn.LatentODE(2, 3, encoder=encoder, key=jax.random.key(1), **options)


# --- the bound ------------------------------------------------------------------------------------


def test_divergence_of_normals():
    one, other = de.nn.Gaussian(0.4, 0.7), de.nn.Gaussian(-0.3, 1.9)
    p, q = norm(0.4, 0.7), norm(-0.3, 1.9)
    known, _ = quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -6, 6)
    assert float(one.kl(other)) == pytest.approx(known, rel=1e-9)
    assert float(one.kl(one)) == 0.0


RATES = np.array([-0.5, 0.3])


def exact_posterior(ts, xs, mask):
    """Of z' = rates · z with z itself observed, z(0) ~ N(0, 1): each component on its own."""
    growth = jnp.where(mask, jnp.exp(RATES * ts[:, None]), 0)
    precision = 1 + jnp.sum(growth**2, axis=0) / 0.2**2
    mean = jnp.sum(growth * xs, axis=0) / 0.2**2 / precision
    return jnp.concatenate([mean, -jnp.log(precision) / 2])


def linear_model(encoder, t0=0.0):
    made = de.nn.LatentODE(
        2, 2, encoder=encoder, hidden=4, net=lambda z: RATES * z, decoder=lambda z: z, noise=0.2,
        t0=t0, key=KEY, rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    identity = (jnp.eye(4), jnp.zeros(4))
    return eqx.tree_at(lambda m: (m.head.weight, m.head.bias), made, identity)


def test_the_bound_is_the_likelihood_where_the_posterior_is_exact():
    """Of a linear model with missing values; and of another posterior it is less, by its KL."""
    keys = jax.random.split(KEY, 4000)
    values = jnp.where(MASK, XS, NAN)
    known = 0.0
    for channel in range(2):
        seen = MASK[:, channel]
        growth = np.exp(RATES[channel] * TS[seen])
        covariance = np.outer(growth, growth) + 0.2**2 * np.eye(seen.sum())
        known += float(
            multivariate_normal.logpdf(XS[seen, channel], jnp.zeros(len(growth)), covariance)
        )

    def bounds(encoder):
        return jax.vmap(lambda key: linear_model(encoder).elbo(TS, values, key=key).value)(keys)

    found = bounds(exact_posterior)
    error = float(found.std()) / np.sqrt(len(keys))
    assert error < 0.1
    assert float(found.mean()) == pytest.approx(known, abs=4 * error)
    shift = jnp.array([0.1, 0.0, 0.3, 0.0])
    other = bounds(lambda *series: exact_posterior(*series) + shift)
    exact = exact_posterior(TS, XS, MASK)
    stds, moved = jnp.exp(exact[2:]), jnp.exp((exact + shift)[2:])
    lost = de.nn.Gaussian((exact + shift)[:2], moved).kl(de.nn.Gaussian(exact[:2], stds))
    error = float(other.std()) / np.sqrt(len(keys))
    assert float(other.mean()) == pytest.approx(known - float(lost), abs=4 * error)


def test_a_prediction_is_that_of_the_posterior_mean_or_of_a_draw():
    made = linear_model(exact_posterior)
    at = jnp.array([0.0, 1.0, 4.0, NAN])
    found = made.predict(at, TS, XS, MASK)
    mean, std = made.posterior(TS, XS, MASK)
    np.testing.assert_allclose(found[:3], mean * jnp.exp(RATES * at[:3, None]), rtol=1e-7)
    np.testing.assert_array_equal(found[3], 0.0)
    draws = jax.vmap(lambda key: made.predict(at[1:2], TS, XS, MASK, key=key)[0])(
        jax.random.split(KEY, 3000)
    )
    np.testing.assert_allclose(draws.std(axis=0), std * np.exp(RATES), rtol=0.05)
    start = jnp.array([1.0, 2.0])
    back = made.decode(start, jnp.array([0.0, -0.5, -1.0]), 0.0)
    np.testing.assert_allclose(back[2], start * np.exp(-RATES), rtol=1e-7)


def test_likelihoods():
    z = jnp.zeros(2)
    series = de.nn.time_series.series_of(TS, XS, MASK)
    decoded = jnp.ones((5, 2))
    for name, density in {
        "normal": lambda x: norm(1.0, 0.3).logpdf(x),
        "laplace": lambda x: -np.abs(x - 1.0) / 0.3 - np.log(0.6),
    }.items():
        made = de.nn.LatentODE(2, 2, noise=0.3, likelihood=name, key=KEY)
        found = made.observation.log_likelihood(series, decoded)
        assert float(found) == pytest.approx(density(XS)[MASK].sum(), rel=1e-12)
    counts = de.nn.LatentODE(
        2, 2, noise=1.0, likelihood=lambda x, y, s: x * y - jnp.exp(y), key=KEY
    )
    found = counts.observation.log_likelihood(series, decoded)
    assert float(found) == pytest.approx((XS - np.e)[MASK].sum(), rel=1e-12)
    learnt = de.nn.LatentODE(2, 2, key=KEY)
    assert learnt.observation.log_noise.shape == z.shape


# --- what was not observed ------------------------------------------------------------------------


@pytest.mark.parametrize("name", shortly(ENCODERS, "gru"))
def test_what_was_not_observed_does_not_enter(name):
    made = model(name, noise=0.2)
    dynamic, static = eqx.partition(made, eqx.is_inexact_array)

    @jax.jit
    def value_and_slopes(xs, ts, mask):
        def bound(dynamic, xs):
            return eqx.combine(dynamic, static).elbo(ts, xs, mask, key=KEY).value

        return jax.value_and_grad(bound, argnums=(0, 1))(dynamic, xs)

    value, (slopes, of_xs) = value_and_slopes(jnp.asarray(XS), TS, MASK)
    other, (same, _) = value_and_slopes(jnp.where(MASK, XS, NAN), TS, MASK)
    assert float(value) == float(other)
    jax.tree.map(np.testing.assert_array_equal, slopes, same)
    assert (np.asarray(of_xs)[~MASK] == 0).all()
    assert (np.asarray(of_xs)[MASK] != 0).all()
    # Padding at the end, with anything in it.
    longer = np.append(TS, [NAN, NAN]), np.vstack([XS, [[7.0, NAN], [NAN, 7.0]]])
    padded, (again, _) = value_and_slopes(longer[1], longer[0], np.vstack([MASK, [[True] * 2] * 2]))
    assert float(padded) == pytest.approx(float(value), rel=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), slopes, again)
    # A derivative along a direction, and a shift of all times.
    direction = jax.tree.map(
        lambda x: jnp.cos(jnp.arange(x.size, dtype=float)).reshape(x.shape), dynamic
    )
    along = sum(
        jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (slopes, direction)), strict=True)
    )

    @jax.jit
    def moved(step, shift):
        here = jax.tree.map(lambda x, d: x + step * d, dynamic, direction)
        return eqx.combine(here, static).elbo(TS + shift, XS, MASK, key=KEY).value

    difference = (moved(1e-6, 0.0) - moved(-1e-6, 0.0)) / 2e-6
    assert float(along) == pytest.approx(float(difference), rel=1e-6)
    assert float(moved(0.0, 5.0)) == pytest.approx(float(value), rel=1e-9)


def test_a_batch_is_its_series_and_the_mask_of_what_is_given():
    made = model(noise=0.2)
    ts = np.stack([TS, np.array([0.0, 0.4, 2.0, NAN, NAN])])
    xs = np.stack([np.where(MASK, XS, NAN), XS + 1.0])
    keys = jax.random.split(KEY, 2)
    each = [made.elbo(ts[i], xs[i], key=keys[i]) for i in range(2)]
    wanted = -np.mean([float(bound.value) for bound in each])
    assert float(made.loss((ts, xs), KEY)) == pytest.approx(wanted, rel=1e-9)
    weighted = np.mean([float(0.5 * bound.kl - bound.log_likelihood) for bound in each])
    found = made.loss({"ts": ts, "xs": xs}, KEY, kl_weight=0.5)
    assert float(found) == pytest.approx(weighted, rel=1e-9)
    given = np.arange(5) < 2
    bound = made.elbo(TS, XS, None, given, key=KEY)
    mean, std = made.posterior(TS, XS, given)
    prior = de.nn.Gaussian(jnp.zeros(3), jnp.ones(3))
    assert float(bound.kl) == pytest.approx(float(de.nn.Gaussian(mean, std).kl(prior)), rel=1e-12)
    decoded = made.decode(de.nn.Gaussian(mean, std).sample(KEY), TS, TS[0])
    wanted = norm(decoded, 0.2).logpdf(XS).sum()
    assert float(bound.log_likelihood) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("name", ["gru", "attention", "ode_rnn"])
def test_a_series_of_one_row_or_of_none(name):
    made = model(name, noise=0.2)
    dynamic, static = eqx.partition(made, eqx.is_inexact_array)

    @jax.jit
    def kl(dynamic, ts, xs):
        def of(dynamic, xs):
            bound = eqx.combine(dynamic, static).elbo(ts, xs, key=KEY)
            return bound.kl, bound

        return jax.value_and_grad(of, (0, 1), has_aux=True)(dynamic, xs)

    (_, bound), (_, of_xs) = kl(dynamic, TS[:1], XS[:1])
    assert np.isfinite(bound.value)
    assert (np.asarray(of_xs) != 0).all(), "the encoder does not read the row"
    (_, none), slopes = kl(dynamic, np.full(1, NAN), XS[:1])
    assert float(none.log_likelihood) == 0.0
    assert float(none.kl) >= 0
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(slopes))


def test_densities_of_positive_numbers():
    """What was not observed is nowhere outside of the support of a density."""

    def log_normal(x, decoded, scale):
        assert x.shape == decoded.shape == scale.shape
        return norm_log_density(jnp.log(x), decoded, scale) - jnp.log(x)

    norm_log_density = lambda x, m, s: -(((x - m) / s) ** 2) / 2 - jnp.log(s)
    made = model(likelihood=log_normal)
    slopes = eqx.filter_grad(
        lambda made: made.elbo(TS, np.where(MASK, np.exp(XS), NAN), key=KEY).value
    )(made)
    arrays = jax.tree.leaves(eqx.filter(slopes, eqx.is_inexact_array))
    assert all(jnp.isfinite(x).all() for x in arrays)
    assert (np.asarray(slopes.observation.log_noise) != 0).all()
    fixed = model(likelihood=log_normal, noise=np.float32(0.5))
    assert np.isfinite(fixed.elbo(TS, np.exp(XS), key=KEY).value)


def test_wrong_times_in_a_trace_are_nan():
    for made, ts in ((model(), TS[::-1]), (model(t0=0.4), TS)):
        bound = jax.jit(lambda ts, made=made: made.elbo(ts, XS, key=KEY))(ts)
        assert np.isnan(bound.log_likelihood)
        assert np.isnan(bound.kl)
    before = model().predict(jnp.array([0.1, 0.3, 0.5]), TS, XS)
    np.testing.assert_array_equal(np.isnan(before).all(axis=1), [True, False, False])


def test_masks_of_numbers():
    made = model(noise=0.2)
    wanted = made.elbo(TS, XS, MASK, key=KEY).value
    for dtype in (float, int):
        assert float(made.elbo(TS, XS, MASK.astype(dtype), key=KEY).value) == float(wanted)


def test_times_that_float32_does_not_tell_apart():
    with jax.enable_x64(False):
        series_of = de.nn.time_series.series_of
        message = r"ts\[0\] is 1700000000.3 and ts\[1\] .* subtract ts\[0\] first"
        with pytest.raises(ValueError, match=message):
            series_of(TS + 1.7e9, XS)
        made = de.nn.LatentODE(2, 2, key=KEY)
        with pytest.raises(ValueError, match=r"ts\[0, 0\] is 1700000000 and ts\[0, 1\]"):
            made.loss((np.arange(5)[None] + 1700000000, XS[None]), KEY)
        near = np.array([0.3, 0.1 + 0.2, 0.6, 1.1, 1.7])  # which no shift would tell apart
        assert np.isfinite(series_of(near, XS).times).all()


# --- encoders -------------------------------------------------------------------------------------


def test_gru_is_its_cell_from_the_last_row_to_the_first():
    encoder = ENCODERS["gru"]
    values = np.where(MASK, XS, 0.0)
    state, states = jnp.zeros(8), []
    for t, x, mask in zip(TS[::-1], values[::-1], MASK[::-1], strict=True):
        if mask.any():
            state = encoder.cell(jnp.concatenate([t[None], x, mask.astype(float)]), state)
        states.append(state)
    np.testing.assert_allclose(encoder(TS, values, MASK), state, rtol=1e-12)
    np.testing.assert_allclose(encoder.states(TS, values, MASK)[::-1], states, rtol=1e-12)


def test_ode_rnn_is_its_solves_from_row_to_row():
    encoder = de.nn.ODERNNEncoder(2, 4, width=4, key=KEY, rtol=1e-9, atol=1e-9)
    values = jnp.asarray(np.where(MASK, XS, 0.0))

    @jax.jit
    def by_hand(values):
        state, t = jnp.zeros(4), TS[-1]
        for i in reversed(range(5)):
            if TS[i] < t:
                state = encoder.layer(state, tspan=(t, TS[i])).y1
            t = TS[i]
            if MASK[i].any():
                row = jnp.concatenate([TS[i : i + 1], values[i], MASK[i].astype(float)])
                state = encoder.cell(row, state)
        return encoder.layer(state, tspan=(t, 0.0)).y1

    of_both = [
        jax.jit(jax.value_and_grad(lambda v, f=f: jnp.sum(jnp.sin(f(v)))))(values)
        for f in (by_hand, lambda v: encoder(TS, v, MASK))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *of_both)


def test_ode_rnn_reads_rows_at_one_time_from_the_last():
    encoder = ENCODERS["ode_rnn"]
    times, mask, state = np.zeros(3), np.ones((3, 2), bool), jnp.zeros(8)
    for x in XS[2::-1]:
        state = encoder.cell(jnp.concatenate([jnp.zeros(1), x, jnp.ones(2)]), state)
    np.testing.assert_allclose(encoder(times, XS[:3], mask), state, rtol=1e-12)


def test_attention_is_a_mean_of_rows_in_any_order():
    encoder = ENCODERS["attention"]
    found = encoder(TS, XS, MASK)
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(encoder(TS[order], XS[order], MASK[order]), found, rtol=1e-12)
    twice = [np.concatenate([x, x]) for x in (TS, XS, MASK)]
    np.testing.assert_allclose(encoder(*twice), found, rtol=1e-12)
    rest = encoder(TS, XS, np.zeros_like(MASK))
    np.testing.assert_allclose(rest, encoder.out(jnp.zeros(8)))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.elbo(TS[::-1], XS, key=KEY), ValueError, r"ts\[1\] is 1.1, after 1.7; times"),
        (
            lambda m: m.elbo(np.array([0.0, NAN, 1.0]), XS[:3], key=KEY), ValueError,
            r"ts\[1\] is NaN, and a time comes after it",
        ),
        (lambda m: m.elbo(TS, XS, MASK[:, :1], key=KEY), ValueError, r"mask has shape \(5, 1\)"),
        (
            lambda m: m.elbo(TS, np.where(MASK, NAN, XS), MASK, key=KEY), ValueError,
            r"xs\[0, 0\] is nan, where mask says that it was observed",
        ),
        (lambda m: m.elbo(TS, XS[:, 0], key=KEY), ValueError, r"xs \(5,\); of one series \(n,\)"),
        (lambda m: m.elbo(TS[None], XS[None], key=KEY), ValueError, "Batches are jax.vmap"),
        (lambda m: m.elbo(TS, XS + 1j, key=KEY), TypeError, "xs has dtype complex128; real"),
        (
            lambda m: m.loss((np.stack([TS, TS[::-1]]), np.stack([XS, XS])), KEY), ValueError,
            r"ts\[1, 1\] is 1.1, after 1.7",
        ),
        (lambda m: m.loss((TS, XS), KEY), ValueError, r"batch has shapes \[\(5,\), \(5, 2\)\]"),
        (lambda m: m.loss({"ts": TS, "ys": XS}, KEY), TypeError, r"the batch has \['ts', 'ys'\]"),
        (
            lambda m: de.nn.LatentODE(2, 2, encoder="lstm", key=KEY), ValueError,
            "encoder is 'lstm'; one of 'gru', 'ode_rnn', 'attention'",
        ),
        (lambda m: de.nn.LatentODE(2, 2, noise=0.0, key=KEY), ValueError, "noise is 0.0"),
        (
            lambda m: de.nn.LatentODE(2, 2, encoder=ENCODERS["gru"], key=KEY).elbo(TS, XS, key=KEY),
            ValueError, r"the encoder returns shape \(8,\); \(32,\) is wanted, by hidden=32",
        ),
        *(
            (lambda m, name=name: model(name).elbo(TS, XS[:, :1], key=KEY), ValueError,
             r"xs has shape \(5, 1\), rows of 1 channels; the encoder was made for 2")
            for name in ENCODERS
        ),
        (
            lambda m: model(decoder=lambda z: z).elbo(TS, XS, key=KEY), ValueError,
            r"the decoder makes rows of shape \(5, 3\), and xs has shape \(5, 2\)",
        ),
        (
            lambda m: model(decoder=lambda z: z).predict(TS, TS, XS), ValueError,
            r"the decoder makes rows of shape \(5, 3\), and xs has shape \(5, 2\)",
        ),
        (
            lambda m: model(decoder=lambda z: z[0]).predict(TS, TS, XS), ValueError,
            r"the decoder makes rows of shape \(5,\), and xs has shape \(5, 2\)",
        ),
        (lambda m: de.nn.LatentODE(2, 3, key=0), TypeError, "key is 0; one key is wanted, such"),
        (lambda m: de.nn.LatentODE(2.0, 3, key=KEY), TypeError, "channels is 2.0; a positive"),
        (lambda m: de.nn.LatentODE(2, 3, hidden=0, key=KEY), TypeError, "hidden is 0; a positive"),
        (lambda m: model(t0="a"), TypeError, "t0 is 'a'; a finite number .* is wanted, or None"),
        (lambda m: de.nn.GRUODE(2, 3, t0=NAN, key=KEY), TypeError, "t0 is nan; a finite number"),
        (lambda m: de.nn.GRUODE(2, 3.0, key=KEY), TypeError, "hidden is 3.0; a positive whole"),
        (
            lambda m: model(t0=0.4).loss((TS[None], XS[None]), KEY), ValueError,
            r"ts\[0, 0\] is 0.3, before t0 = 0.4; t0 must not be after the first",
        ),
        (
            lambda m: de.nn.LatentODE(2, 2, likelihood="poisson", key=KEY), ValueError,
            "likelihood is 'poisson'; \"normal\"",
        ),
        (
            lambda m: de.nn.LatentODE(2, 2, saveat=TS, key=KEY), TypeError,
            "LatentODE sets saveat itself",
        ),
        (lambda m: de.nn.LatentODE(2, 2, tol=1e-3, key=KEY), TypeError, "got 'tol'"),
        (lambda m: de.nn.AttentionEncoder(2, 6, key=KEY), ValueError, "hidden must be a multiple"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(model())


def test_a_fit_says_which_series_is_wrong():
    import optax

    batch = (np.stack([TS, TS]), np.stack([XS, np.where(MASK, XS, NAN)]), np.ones((2, 5), bool))
    options = {"key": KEY, "optimizer": optax.adam(0.01), "steps": 2, "progress": False}
    with pytest.raises(ValueError, match=r"xs\[1, 1, 1\] is nan, where mask says"):
        de.fit(model(), de.nn.LatentODE.loss, batch, **options)
    batch = (np.stack([TS, TS[::-1]]), np.stack([XS, XS]))
    with pytest.raises(ValueError, match=r"ts\[1, 1\] is 1.1, after 1.7"):
        de.fit(model(), de.nn.LatentODE.loss, batch, **options)

"""GRU-ODE: one solve with an event at each row is the solves between the rows, put together."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import diffeq as de

KEY = jax.random.key(0)
NAN = np.nan
TS = np.array([0.3, 0.5, 0.6, 1.1, 1.7])
XS = np.random.default_rng(0).normal(size=(5, 2))
MASK = np.array([[1, 1], [1, 0], [0, 0], [0, 1], [1, 1]], bool)


def model(**options):
    given = {"width": 6, "prepared": 3, "rtol": 1e-9, "atol": 1e-9, "mixing": 0.2, "noise": 0.3}
    made = de.nn.GRUODE(2, 4, key=KEY, **(given | options))
    return eqx.tree_at(lambda m: m.start, made, jnp.array([0.5, -0.2, 0.1, 0.9]))


def by_hand(made, ts, xs, mask):
    """States before and after each row, by a solve from row to row."""
    h, t, befores, afters = jnp.tanh(made.start), ts[0], [], []
    for i in range(len(ts)):
        if ts[i] > t:
            problem = made.problem(t, ts[i]).replace(y0=h)
            h = de.solve(problem, de.Tsit5(), rtol=1e-9, atol=1e-9).y1
        befores.append(h)
        h, t = made.update(h, jnp.where(mask[i], xs[i], 0), mask[i]), ts[i]
        afters.append(h)
    return jnp.stack(befores), jnp.stack(afters)


def test_one_solve_is_the_solves_from_row_to_row():
    made = model()
    dynamic, static = eqx.partition(made, eqx.is_inexact_array)

    def forecasts(hs):
        numbers = jax.vmap(made.forecast)(hs)
        return numbers[:, :2], jnp.exp(numbers[:, 2:] / 2)

    @jax.jit
    def both(dynamic, xs):
        def one(dynamic):
            found = eqx.combine(dynamic, static).filter(TS, xs, MASK)
            return jnp.sum(jnp.sin(found.before.mean)), found

        def other(dynamic):
            made = eqx.combine(dynamic, static)
            befores, afters = by_hand(made, TS, xs, MASK)
            return jnp.sum(jnp.sin(jax.vmap(made.forecast)(befores)[:, :2])), (befores, afters)

        return [jax.value_and_grad(f, has_aux=True)(dynamic) for f in (one, other)]

    ((one, found), slopes), ((other, hs), wanted) = both(dynamic, jnp.asarray(XS))
    assert float(one) == pytest.approx(float(other), rel=1e-7)
    for gaussian, states in zip(found[:2], hs, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            tuple(gaussian),
            forecasts(states),
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), slopes, wanted
    )
    # Row 2 has no observation: it changes nothing.
    np.testing.assert_array_equal(found.before.mean[2], found.after.mean[2])


@pytest.mark.thorough
def test_the_loss_is_of_what_was_observed():
    made = model()
    before, after, _ = made.filter(TS, XS, MASK)
    before, after = (np.stack(x) for x in (before, after))
    surprise, divergence = 0.0, 0.0
    for i, k in np.argwhere(MASK):
        surprise -= norm(*before[:, i, k]).logpdf(XS[i, k])
        weight = lambda x, i=i, k=k: norm(*before[:, i, k]).pdf(x) * norm(XS[i, k], 0.3).pdf(x)
        whole = quad(weight, -20, 20, limit=200, points=[XS[i, k]])[0]
        bayes = lambda x, whole=whole, weight=weight: weight(x) / whole
        ratio = lambda x, i=i, k=k, f=bayes: f(x) * (np.log(f(x)) - norm(*after[:, i, k]).logpdf(x))
        middle = float(XS[i, k])
        divergence += quad(ratio, middle - 4, middle + 4, limit=200, points=[middle])[0]
    assert float(made.log_likelihood(TS, XS, MASK)) == pytest.approx(-surprise, rel=1e-9)
    found = made.loss((TS[None], XS[None], MASK[None]))
    assert float(found) == pytest.approx(surprise + 0.2 * divergence, rel=1e-6)


def test_a_batch_has_times_of_its_own():
    made = model(rtol=1e-4, atol=1e-4)
    ts = np.stack([TS, np.array([0.0, 0.4, 2.0, NAN, NAN])])
    xs = np.stack([np.where(MASK, XS, NAN), XS + 1.0])
    loss = jax.jit(jax.value_and_grad(lambda xs: made.loss((ts, xs))))
    value, slopes = loss(xs)
    alone = [
        made.loss((TS[None], xs[:1])),
        made.loss((ts[1:, :3], xs[1:, :3])),
    ]
    assert float(value) == pytest.approx(float(sum(alone)) / 2, rel=1e-9)
    seen = ~np.isnan(xs) & ~np.isnan(ts)[:, :, None]
    assert (np.asarray(slopes)[~seen] == 0).all()
    assert np.isfinite(slopes).all()


def test_forecasts_come_from_what_was_observed_before():
    made = model(rtol=1e-6, atol=1e-6, t0=0.0)
    at = jnp.array([0.1, 0.4, 0.5, 1.0, 3.0, NAN])

    def means(xs):
        return made.predict(at, TS, xs, MASK).mean

    found, slopes = jax.jit(lambda xs: (means(xs), jax.jacobian(means)(xs)))(jnp.asarray(XS))
    reads = np.abs(slopes).sum(axis=(1, 3)) > 0
    wanted = (np.asarray(at)[:, None] >= TS) & MASK.any(axis=1)
    np.testing.assert_array_equal(reads, wanted)
    after = made.filter(TS, XS, MASK).after.mean
    np.testing.assert_allclose(found[2], after[1], rtol=1e-5)


def test_rows_at_one_time_and_none():
    made = model()
    dynamic, static = eqx.partition(made, eqx.is_inexact_array)
    # One row, rows at one time, and none, each padded.
    ts = np.array([[2.0, NAN, NAN], [2.0, 2.0, NAN], [NAN, NAN, NAN]])
    values = np.stack([XS[:3]] * 3)

    def losses(dynamic):
        one = lambda ts, xs: eqx.combine(dynamic, static).log_likelihood(ts, xs)
        found = jax.vmap(one)(ts, values)
        return found.sum(), found

    (_, found), slopes = jax.jit(jax.value_and_grad(losses, has_aux=True))(dynamic)
    start = jnp.tanh(made.start)
    known = [made._forecasts(start[None])]
    after = made.update(start, XS[0], np.ones(2, bool))
    known.append(made._forecasts(after[None]))
    wanted = [norm(*np.stack(p)[:, 0]).logpdf(x).sum() for p, x in zip(known, XS, strict=False)]
    np.testing.assert_allclose(found, [wanted[0], wanted[0] + wanted[1], 0.0], rtol=1e-12)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(slopes))
    here = made.predict(TS[:1], TS[:1], XS[:1])
    np.testing.assert_allclose(here.mean, known[1].mean, rtol=1e-12)


def test_before_t0_there_is_no_forecast():
    made = model(t0=0.3)
    at = jnp.array([0.1, 0.3, NAN])
    found = jax.jit(lambda: made.predict(at, TS, XS))()
    assert np.isnan(made.predict(at[:1], TS, XS).mean).all()
    wanted = made.predict(at[1:2], TS, XS)
    for rows, row in zip(found, wanted, strict=True):
        assert np.isnan(rows[0]).all()
        np.testing.assert_allclose(rows[1], row[0], rtol=1e-12)
        assert np.isfinite(rows[2]).all()


def test_wrong_times_in_a_trace_are_nan():
    for made, ts in ((model(), TS[::-1]), (model(t0=0.4), TS)):
        found = jax.jit(lambda ts, made=made: made.log_likelihood(ts, XS))(ts)
        assert np.isnan(found)


@pytest.mark.thorough
def test_the_state_stays_within_one():
    wide = jax.tree.map(lambda x: 20.0 * x if eqx.is_inexact_array(x) else x, model().continuous)
    made = eqx.tree_at(lambda m: m.continuous, model(rtol=1e-6, atol=1e-6), wide)
    problem = made.problem(jnp.array(0.0), jnp.array(50.0))
    hs = de.solve(problem, saveat=jnp.linspace(0.0, 50.0, 101), rtol=1e-7, atol=1e-7).ys
    assert float(jnp.abs(hs).max()) <= 1 + 1e-5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: model(noise=0.0), ValueError, "noise is 0.0; a positive number"),
        (lambda: model(noise=NAN), ValueError, "noise is nan; a positive number"),
        (lambda: model(noise="a"), ValueError, "noise is 'a'; a positive number"),
        (lambda: model(mixing=NAN), ValueError, "mixing is nan; a number that is not negative"),
        (lambda: model().filter(TS, XS[:, :1]), ValueError, "rows of 1 channels; GRUODE was made"),
        (
            lambda: model(t0=0.4).loss((TS[None], XS[None])), ValueError,
            r"ts\[0, 0\] is 0.3, before t0 = 0.4; t0 must not be after the first",
        ),
        (lambda: model(saveat=TS), TypeError, "GRUODE sets saveat itself"),
        (lambda: model(tol=1e-3), TypeError, "got 'tol'"),
        (lambda: model().filter(TS[::-1], XS), ValueError, "must not decrease"),
        (
            lambda: model().loss((TS[None], XS[None], MASK[None], MASK[None])),
            TypeError,
            "ts, xs, mask",
        ),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()

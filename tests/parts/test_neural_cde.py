"""Neural controlled equations on series: missing values, ragged batches, causality."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
LENGTHS = (9, 5, 2)
SERIES = [np.sort(RNG.uniform(0.0, 2.0, n)) for n in LENGTHS]
VALUES = [RNG.normal(size=(n, 2)) for n in LENGTHS]
STEPS = {"dt": 0.1}  # the same in a batch and alone: what differs is no matter of tolerances


def with_gaps(xs):
    """The values, of which some are missing."""
    gaps = np.random.default_rng(1).uniform(size=xs.shape) < 0.3
    return np.where(gaps, np.nan, xs)


def layer(masks=False, **options):
    return de.nn.NeuralCDE.of_sizes(2, 3, 1, width=4, key=KEY, masks=masks, **STEPS, **options)


CASES = {
    "hermite": {},
    "masks": {"masks": True},
    "linear": {"interpolation": de.interp.Linear},
    "akima": {"interpolation": de.interp.Akima},
    "rectilinear": {"interpolation": de.interp.Rectilinear, "masks": True},
    "log-ODE": {"interpolation": partial(de.interp.LogSignature, depth=2, stride=3)},
}


@pytest.mark.parametrize("name", shortly(CASES, "masks"))
def test_padding_changes_neither_outputs_nor_derivatives(name):
    """Each series of a batch as if it were alone, whatever stands beside the padding."""
    model = layer(**CASES[name])
    values = [with_gaps(x) if model.masks else x for x in VALUES]
    ts, xs = de.nn.pad_series(SERIES, values)
    rubbish = jnp.where(jnp.isnan(ts)[..., None] & (jnp.arange(2) == 0), 1e9, xs)

    def output(model, ts, xs):
        return jnp.sum(model(ts, xs).ys ** 2)

    whole = eqx.filter_jit(lambda m, t, x: jax.vmap(
        lambda t, x: eqx.filter_value_and_grad(lambda mx: output(mx[0], t, mx[1]))((m, x))
    )(t, x))  # fmt: skip
    found, (by_model, by_values) = whole(model, ts, rubbish)
    for i, (t, x) in enumerate(zip(SERIES, values, strict=True)):
        one = eqx.filter_value_and_grad(lambda mx, t=t: output(mx[0], jnp.asarray(t), mx[1]))
        want, (d_model, d_values) = one((model, jnp.asarray(x)))
        np.testing.assert_allclose(found[i], want, rtol=1e-10)
        pairs = zip(jax.tree.leaves(by_model), jax.tree.leaves(d_model), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a[i], b, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(by_values[i, : len(t)], d_values, rtol=1e-8, atol=1e-10)
        assert not np.any(by_values[i, len(t) :])


def test_outputs_at_every_row():
    """Rows behind the end of a series are NaN, and no derivative comes of them."""
    model = layer()
    ts, xs = de.nn.pad_series(SERIES, VALUES)
    rows = lambda model, ts, xs: model(ts, xs, saveat=ts).ys[:, 0]
    found = jax.vmap(partial(rows, model))(ts, xs)
    np.testing.assert_array_equal(jnp.isnan(found), jnp.isnan(ts))
    np.testing.assert_allclose(found[1, :5], rows(model, SERIES[1], VALUES[1]), rtol=1e-10)

    def loss(model):
        return de.mse(jax.vmap(partial(rows, model))(ts, xs), jnp.zeros_like(ts), mask=ts < 1.0)

    leaves = jax.tree.leaves(eqx.filter_grad(loss)(model))
    assert all(np.isfinite(x).all() for x in leaves)
    assert any(np.any(x != 0) for x in leaves)
    last = jax.vmap(lambda t, x: model(t, x).ys[0, 0])(ts, xs)
    np.testing.assert_allclose(last, [found[i, n - 1] for i, n in enumerate(LENGTHS)], rtol=1e-9)


def test_the_equation_is_the_one_that_is_written():
    """Of known networks: dz_i = z_i (M [dt, dx])_i from exp of two channels, summed in the end."""
    matrix = jnp.asarray(RNG.normal(size=(2, 3)))
    model = de.nn.NeuralCDE(
        lambda z: matrix * z[:, None], lambda x: jnp.exp(x[:2]), jnp.sum, rtol=1e-6, atol=1e-6
    )
    ts, xs = SERIES[0], VALUES[0]
    channels = np.column_stack([ts, xs])
    want = np.exp(channels[0, :2] + matrix @ (channels[-1] - channels[0]))
    sol = model(ts, xs)
    np.testing.assert_allclose(sol.y1, want, rtol=1e-4)
    np.testing.assert_allclose(sol.ys, [want.sum()], rtol=1e-4)
    assert de.nn.NeuralCDE(lambda z: matrix, lambda x: x[:2])(ts, xs).ys.shape == (1, 2)
    problem = model.problem(ts, xs)
    assert isinstance(problem, de.CDEProblem)
    np.testing.assert_allclose(problem.control(ts), channels, atol=1e-12)


def test_what_is_missing_is_filled_in_and_counted():
    ts = np.array([0.0, 1.0, 3.0, 4.0, 5.0])
    nan = np.nan
    xs = np.array([[nan, 1.0, nan], [2.0, nan, nan], [nan, nan, nan], [8.0, 4.0, nan], [nan] * 3])
    found = np.asarray(_values_at(layer3(), ts, xs))
    np.testing.assert_allclose(found[:, 1], [2.0, 2.0, 6.0, 8.0, 8.0])
    np.testing.assert_allclose(found[:, 2], [1.0, 1.75, 3.25, 4.0, 4.0])
    np.testing.assert_array_equal(found[:, 3], 0.0)
    counts = np.array([[0, 1, 0], [1, 1, 0], [1, 1, 0], [2, 2, 0], [2, 2, 0]])
    np.testing.assert_array_equal(found[:, 4:], counts)
    back = np.asarray(_values_at(layer3(interpolation=de.interp.Rectilinear), ts, xs))
    np.testing.assert_array_equal(back[:, 1], [0.0, 2.0, 2.0, 8.0, 8.0])
    np.testing.assert_array_equal(back[:, 2], [1.0, 1.0, 1.0, 4.0, 4.0])
    mask = np.ones((5, 3), bool)
    mask[3] = False
    less = _values_at(layer3(), ts, xs, mask=mask)
    np.testing.assert_allclose(less[:, 1], 2.0)


def layer3(**options):
    return de.nn.NeuralCDE.of_sizes(3, 2, 1, width=2, key=KEY, masks=True, **options)


def _values_at(model, ts, xs, **mask):
    return model.control(ts, xs, **mask)(jnp.asarray(ts))


@pytest.mark.parametrize(
    "make", [de.interp.Rectilinear, lambda ts, xs: de.interp.Rectilinear(ts, xs)]
)
def test_a_rectilinear_model_does_not_look_ahead(make):
    model = layer(masks=True, interpolation=make)
    ts, xs = SERIES[0], with_gaps(VALUES[0])
    rows = jax.jit(lambda xs: model(ts, xs, saveat=ts).ys)
    later = np.where(np.arange(9)[:, None] < 5, xs, 7.0)
    found, other = rows(jnp.asarray(xs)), rows(jnp.asarray(later))
    np.testing.assert_allclose(found[:5], other[:5], rtol=1e-9)
    assert not np.allclose(found[5:], other[5:])


def test_an_interpolation_may_be_any_function_of_time():
    plain = lambda ts, xs: lambda t: de.interp.Linear(ts, xs)(t)
    found, want = (
        de.nn.NeuralCDE.of_sizes(2, 3, 1, width=4, key=KEY, interpolation=make, masks=True)
        for make in (plain, de.interp.Linear)
    )
    ts, xs = de.nn.pad_series(SERIES[1:], [with_gaps(x) for x in VALUES[1:]])
    found, want = (jax.vmap(lambda t, x, m=m: m(t, x).ys)(ts, xs) for m in (found, want))
    np.testing.assert_allclose(found, want, rtol=1e-12)


@pytest.mark.parametrize("masks", [False, True])
def test_a_series_of_one_row_is_its_initial_state(masks):
    """Alone, in whole numbers, with padding, and in a batch: no step is made."""
    model = de.nn.NeuralCDE.of_sizes(2, 3, 1, width=4, key=KEY, masks=masks)
    row = jnp.array([[0.5, -1.0]])
    first = jnp.concatenate([jnp.array([3.0]), row[0], jnp.ones(2 * masks)])
    want = model.readout(model.initial(first))
    rows = jnp.concatenate([row, jnp.full((1, 2), jnp.nan)])
    padded = jnp.array([3.0, jnp.nan])
    np.testing.assert_allclose(model([3.0], row).ys[0], want, rtol=1e-12)
    np.testing.assert_allclose(model([3], row).ys[0], want, rtol=1e-12)
    np.testing.assert_allclose(model(padded, rows).ys[0], want, rtol=1e-12)
    both = jax.vmap(lambda t: model(t, row, saveat=t).ys)(jnp.array([[3.0], [3.0]]))
    np.testing.assert_allclose(both[:, 0], [want, want], rtol=1e-12)


@pytest.mark.thorough
def test_steps_that_are_controlled_are_as_good_in_a_batch():
    model = de.nn.NeuralCDE.of_sizes(2, 3, 1, width=4, key=KEY, rtol=1e-7, atol=1e-9)
    ts, xs = de.nn.pad_series(SERIES, VALUES)
    found = jax.vmap(lambda t, x: model(t, x).ys[0, 0])(ts, xs)
    want = [model(t, x).ys[0, 0] for t, x in zip(SERIES, VALUES, strict=True)]
    np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize("kind", [de.interp.Hermite, de.interp.Akima])
def test_stops_at_the_rows_of_each_series_keep_the_tolerance(kind):
    ts = jnp.array([[0.0, 0.3, 0.9, 1.5], [0.0, 0.5, 0.8, 2.0], [0.0, 1.1, jnp.nan, jnp.nan]])
    xs = jnp.stack([jnp.sin(3 * ts), jnp.sin(ts**2)], axis=2)
    model = de.nn.NeuralCDE.of_sizes(2, 4, 1, width=8, key=jax.random.key(2), interpolation=kind)

    def ends(tol):
        solved = lambda t, x: de.solve(model.problem(t, x), stops=t, rtol=tol, atol=tol)
        return jax.jit(jax.vmap(lambda t, x: (solved(t, x).y1, solved(t, x).stats["stops"])))(
            ts, xs
        )

    (found, stops), (exact, _) = ends(1e-6), ends(1e-11)
    assert list(stops) == [2, 2, 0]
    np.testing.assert_allclose(found, exact, atol=2e-6)


def test_a_key_goes_to_the_network():
    drop = eqx.nn.Dropout(0.5)
    field = lambda net, t, z, args, *, key: drop(net(z), key=key).reshape(2, 3)
    net = eqx.nn.MLP(2, 6, 4, 1, key=KEY)
    model = de.nn.NeuralCDE(net, lambda x: x[:2], field=field)
    a, b, c = (model(SERIES[1], VALUES[1], key=jax.random.key(i)).y1 for i in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


TS, XS = SERIES[1], VALUES[1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layer()(TS, XS[:4]), "ts has 5 times and xs has 4 rows"),
        (lambda: layer()(TS, XS[:, 0]), r"xs has shape \(5,\); one series is wanted"),
        (lambda: layer()(TS[None], XS[None]), r"Batches are jax.vmap"),
        (lambda: layer()(TS[::-1], XS), "ts must increase"),
        (lambda: layer()(TS, np.where(XS > 0, np.nan, XS)), "masks=True fills in what is missing"),
        (lambda: layer()(TS, XS, mask=XS > 0), "the layer has masks=False"),
        (lambda: layer(masks=True)(TS, XS, mask=XS), r"mask has shape \(5, 2\) and dtype float64"),
        (lambda: layer()(TS[:0], XS[:0]), "ts has 0 times .* one at least"),
        (
            lambda: layer()(TS, np.ones((5, 3))),
            r"xs has 3 values a row, so that X has 4 channels \(time, 3 values\), and initial .* 3",
        ),
        (
            lambda: layer(masks=True)(TS, XS[:, :1]),
            r"X has 3 channels \(time, 1 value, 1 count\), and initial takes 5.*of_sizes\(1, …\)",
        ),
        (lambda: layer(masks=-1), "masks is -1; a number that is not negative is wanted, or True"),
        (lambda: layer(masks="yes"), "masks is 'yes'; a number that is not negative"),
        (lambda: layer(interpolation="linear"), "interpolation is 'linear'; a function of times"),
        (lambda: de.nn.NeuralCDE.of_sizes(2, 3, 1, key=0), "key is 0; one key is wanted"),
        (lambda: de.nn.NeuralCDE.of_sizes(2.0, 3, 1, key=KEY), "values is 2.0; a positive whole"),
        (lambda: layer(tspan=(0.0, 1.0)), "NeuralCDE takes no tspan: a series is solved from"),
        (lambda: de.nn.NeuralCDE(lambda z: z, None), "initial is None; a network"),
        (lambda: de.nn.NeuralCDE(lambda z: z, eqx.nn.MLP), "initial is the class MLP"),
        (
            lambda: de.nn.NeuralCDE(lambda z: jnp.ones(4), lambda x: x[:2])(TS, XS),
            r"control has 3 channels, so that \(\*y.shape, channels\) is wanted: \(2, 3\)",
        ),
        (lambda: de.nn.pad_series([TS], [XS, XS]), "ts has 1 series and xs has 2"),
        (
            lambda: de.nn.pad_series([TS, TS], [XS, XS[:3]]),
            r"ts\[1\] has 5 times and xs\[1\] has 3",
        ),
        (lambda: de.nn.pad_series([TS, TS], [XS, XS[:, :1]]), r"xs\[1\] has 1 values a row"),
        (lambda: de.nn.pad_series([TS, TS[::-1]], [XS, XS]), r"ts\[1\] does not increase"),
        (lambda: de.nn.pad_series([TS], [XS[:, 0]]), r"xs\[0\] has shape \(5,\)"),
        (
            lambda: de.nn.pad_series([TS[:2]], [[[1.0], [2.0, 3.0]]]),
            r"xs\[0\] has a list of 1, a list of 2 for its entries; rows .* write NaN",
        ),
        (
            lambda: de.nn.pad_series([[0.0, [1.0]]], [[[1.0], [2.0]]]),
            r"ts\[0\] has a number, a list of 1 for its entries; a sequence of times",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_times_out_of_order_in_a_batch_are_a_status():
    model = layer()
    ts = jnp.stack([TS, jnp.asarray(TS)[::-1], jnp.asarray(TS).at[2].set(jnp.nan)])
    sol = jax.vmap(model)(ts, jnp.stack([XS, XS, XS]))
    assert [bool(ok) for ok in sol.success] == [True, False, False]
    assert set(map(int, sol.status[1:])) == {int(de.Status.bad_times)}
    assert np.isnan(sol.ys[1:]).all()

"""Multiple shooting, and growing horizons: the loss by hand, its gradient, holes, failures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.tiers import shortly

import diffeq as de

TS = np.array([0.0, 0.1, 0.35, 0.5, 0.9, 1.0, 1.2, 1.7, 1.8, 2.0])
RATES = jnp.array([1.2, 0.4])


def field(t, y, rates):
    return jnp.array([y[1], -rates[0] * jnp.sin(y[0]) - rates[1] * y[1]])


PROBLEM = de.ODEProblem(field, [1.0, 0.0], (0.0, 2.0), RATES)
FIXED = {"method": de.RK4(), "dt": 0.05}
DATA = de.solve(PROBLEM.replace(args=jnp.array([1.0, 0.3])), saveat=TS, rtol=1e-8, atol=1e-8).ys


def by_hand(rates, data, ts, size, weight, starts=None, options=FIXED):
    """The loss as its docstring says, group by group."""
    errors, gaps, end = [], [], None
    for number, first in enumerate(range(0, len(ts) - 1, size - 1)):
        rows = slice(first, min(first + size, len(ts)))
        y0 = data[first] if starts is None else starts[number]
        if end is not None:
            gaps.append(end - y0)
        one = PROBLEM.replace(args=rates, y0=y0, tspan=(ts[rows][0], ts[rows][-1]))
        sol = de.solve(one, saveat=ts[rows], **options)
        errors.append(sol.ys - data[rows])
        end = sol.y1
    joined = jnp.concatenate(errors)
    gap = jnp.mean(jnp.stack(gaps) ** 2) if gaps else 0.0
    return jnp.nanmean(joined**2) + weight * gap


@pytest.mark.parametrize("size", shortly([2, 5, 10], 10))
def test_it_is_the_loss_of_its_docstring(size):
    shooting = de.multiple_shooting(DATA, TS, group_size=size, continuity=7.0, **FIXED)
    loss, wanted = shooting(PROBLEM), by_hand(RATES, DATA, TS, size, 7.0)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-12)
    firsts = [group.start for group in shooting.groups]
    assert firsts == list(range(0, 9, size - 1))
    assert shooting.groups[-1].stop == 10
    np.testing.assert_array_equal(shooting.starts, DATA[np.array(firsts)])


def test_groups_are_those_of_the_reference():
    shooting = de.multiple_shooting(np.zeros(10), TS, group_size=5)
    assert shooting.groups == [range(0, 5), range(4, 9), range(8, 10)]


@pytest.mark.thorough
def test_gradients_by_the_model_and_by_free_starts():
    shooting = de.multiple_shooting(DATA, TS, group_size=4, continuity=7.0, **FIXED)
    starts = shooting.starts + 0.05

    @jax.jit
    def value(s):
        moved = PROBLEM.replace(args=RATES + s * jnp.array([1.0, -2.0]))
        return shooting.free((moved, starts + s * jnp.cos(jnp.arange(6.0).reshape(3, 2))))

    by = by_hand(RATES, DATA, TS, 4, 7.0, starts)
    assert float(value(0.0)) == pytest.approx(float(by), rel=1e-12)
    h = 1e-5
    difference = float(value(h) - value(-h)) / (2 * h)
    assert float(jax.jit(jax.grad(value))(0.0)) == pytest.approx(difference, rel=1e-7)


@pytest.mark.thorough
def test_missing_data_count_in_nothing():
    """Holes inside, a whole point, a point where a group starts; and padding at the end."""
    data = np.array(DATA)
    data[1, 0] = data[4] = data[6, 1] = np.nan
    shooting = de.multiple_shooting(data, TS, group_size=4, continuity=7.0, **FIXED)
    filled = TS[6] - TS[5], TS[7] - TS[5]
    between = data[5, 1] + filled[0] / filled[1] * (data[7, 1] - data[5, 1])
    assert float(shooting.starts[2, 1]) == pytest.approx(between)
    by = by_hand(RATES, data, TS, 4, 7.0, shooting.starts)
    value, gradient = jax.jit(jax.value_and_grad(lambda p: shooting(p)))(PROBLEM)
    assert float(value) == pytest.approx(float(by), rel=1e-12)
    gradient = gradient.args
    assert np.all(np.isfinite(gradient))

    padded = np.concatenate([data, np.full((4, 2), np.nan)])
    times = np.concatenate([TS, np.full(4, np.nan)])
    more = de.multiple_shooting(padded, times, group_size=4, continuity=7.0, **FIXED)
    assert len(more.groups) == 5
    value, longer = jax.jit(jax.value_and_grad(lambda p: more(p)))(PROBLEM)
    assert float(value) == pytest.approx(float(by), rel=1e-12)
    np.testing.assert_allclose(longer.args, gradient, rtol=1e-10)


def test_samples_of_different_length_under_vmap():
    short = np.where(np.arange(10) < 7, TS, np.nan)
    ts = jnp.stack([TS, short])
    data = jnp.stack([DATA, jnp.where(jnp.isnan(short)[:, None], jnp.nan, DATA)])

    def one(data, ts):
        return de.multiple_shooting(data, ts, group_size=4, continuity=7.0, **FIXED)(PROBLEM)

    losses = jax.jit(jax.vmap(one))(data, ts)
    wanted = by_hand(RATES, DATA, TS, 4, 7.0), by_hand(RATES, DATA[:7], TS[:7], 4, 7.0)
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)


@pytest.mark.thorough
def test_a_group_that_fails_makes_the_loss_infinite():
    explodes = de.ODEProblem(lambda t, y, k: k * y**2, 1.0, (0.0, 2.0), 1.0)
    ts, data = np.linspace(0.0, 2.0, 5), np.array([0.2, 0.2, 5.0, 0.2, 0.2])
    shooting = de.multiple_shooting(data, ts, group_size=3, method=de.Bosh3())
    value, gradient = jax.jit(jax.value_and_grad(lambda p: shooting(p)))(explodes)
    assert float(value) == np.inf
    assert float(gradient.args) == 0.0
    with pytest.raises(de.SolveError, match=r"sample 1 of 2 \(1 failed\)"):
        shooting.solve(explodes).check()
    fit = de.fit(
        explodes.replace(args=0.1), shooting, optimizer=optax.sgd(1.0), steps=30, progress=False
    )
    assert np.isfinite(fit.loss)
    assert fit.loss <= fit.history[0]


def test_layers_pairs_and_observations():
    net = eqx.nn.MLP(1, 1, 4, 1, jnp.tanh, key=jax.random.key(0))
    layer = de.nn.SecondOrder(net, tspan=(0.0, 2.0), **FIXED)
    data = (np.array(DATA[:, :1]), np.array(DATA[:, 1:]))
    pairs = de.multiple_shooting(data, TS, group_size=4)
    one = layer(jax.tree.map(lambda x: x[3], data), tspan=(0.5, 1.2), saveat=TS[3:7])
    both = pairs.solve(layer)
    np.testing.assert_allclose(both.ys[0][1], one.ys[0], rtol=1e-12)
    assert np.isfinite(float(pairs(layer)))
    starts = jax.tree.map(lambda x: jnp.asarray(x[[0, 3, 6]]), data)
    seen = de.multiple_shooting(
        data[0][:, 0], TS, group_size=4, starts=starts, observe=lambda y: y[0][0]
    )
    sol = seen.solve(layer)
    gaps = [sol.y1[i][:-1] - starts[i][1:] for i in (0, 1)]
    wanted = np.nanmean((np.asarray(sol.ys[0])[..., 0] - np.asarray(seen.data)) ** 2)
    wanted = wanted + 100.0 * np.mean(np.square(gaps))
    assert float(seen.free((layer, starts))) == pytest.approx(float(wanted), rel=1e-12)
    with pytest.raises(TypeError, match=r"got 'rtol'; a SecondOrder has its own options"):
        de.multiple_shooting(data, TS, group_size=4, rtol=1e-3)(layer)


def test_refusals():
    with pytest.raises(ValueError, match=r"group_size is 1; 2 to 10 points"):
        de.multiple_shooting(DATA, TS, group_size=1)
    with pytest.raises(ValueError, match=r"data has shape \(9, 2\); its first axis is that of 10"):
        de.multiple_shooting(DATA[1:], TS, group_size=3)
    with pytest.raises(ValueError, match=r"data has a component that was never measured"):
        de.multiple_shooting(DATA * np.array([1.0, np.nan]), TS, group_size=3)
    with pytest.raises(TypeError, match=r"observe says that data are no states"):
        de.multiple_shooting(DATA, TS, group_size=3, observe=lambda y: y)
    with pytest.raises(ValueError, match=r"starts has shape \(2, 2\); .* of 5 groups"):
        de.multiple_shooting(DATA, TS, group_size=3, starts=jnp.ones((2, 2)))
    with pytest.raises(TypeError, match=r"model is 1\.0; a problem or a layer is wanted"):
        de.multiple_shooting(DATA, TS, group_size=3)(1.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ts": TS[::-1]}, ValueError, r"ts is not sorted: ts\[0\] is .*sort ts and data"),
        ({"ts": np.where(np.arange(10) == 4, np.nan, TS)}, ValueError, "NaN between times"),
        ({"continuity": -1.0}, ValueError, "continuity is -1.0; what a gap costs is finite"),
        ({"saveat": TS}, TypeError, "got saveat=; the solves are saved at ts"),
    ],
)
def test_times_and_prices_that_do_not_fit_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        de.multiple_shooting(DATA, **{"ts": TS, "group_size": 3, **change})


def with_times(rate, data, *, ts):
    return de.mse(jnp.exp(-rate * ts), data)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": np.ones(41)}, ValueError, r"data has shape \(41,\); its axis 0 is that of 11 ts"),
        ({"data": np.ones(8)}, ValueError, r"data has shape \(8,\); its axis 0 is that of 11 ts"),
        (
            {"data": {"a": np.ones(11)}, "axis": 1},
            ValueError,
            r"data\['a'\] has shape \(11,\); its",
        ),
        ({"data": [1.0] * 11}, TypeError, r"data is a list of 11 numbers.*an array is wanted"),
        ({"ends": 1.0}, TypeError, r"ends is 1\.0; a sequence of times is wanted"),
        ({"loss": lambda k, d: k}, TypeError, r"loss takes \(k, d\), and no ts: .*ts\) is wanted"),
    ],
)
def test_growing_horizons_refuse_what_does_not_fit_the_times(change, error, message):
    ts = np.linspace(0.0, 2.0, 11)
    call = {"loss": with_times, "data": np.exp(-ts), "ends": (1.0, 2.0), **change}
    with pytest.raises(error, match=message):
        de.fit_growing(
            0.5, call.pop("loss"), call.pop("data"), ts, **call,
            optimizer=optax.sgd(0.1), steps=1, progress=False,
        )  # fmt: skip


@pytest.mark.thorough
def test_growing_horizons_are_fits_in_a_row():
    ts = np.linspace(0.0, 2.0, 9)
    problem = de.ODEProblem(lambda t, y, rate: -rate * y, 1.0, (0.0, 2.0), 0.3)
    data = np.stack([np.exp(-ts), 2 * np.exp(-ts)])
    seen = []

    def loss(problem, data, *, ts):
        seen.append((data.shape, ts.shape))
        of = lambda y0: problem.replace(y0=y0, tspan=(ts[0], ts[-1]))
        one = lambda y0: de.solve(of(y0), saveat=ts, **FIXED).ys
        return de.mse(jax.vmap(one)(data[:, 0]), data)

    options = {"optimizer": optax.adam(0.05), "steps": 20, "progress": False}
    fit = de.fit_growing(problem, loss, data, ts, ends=[0.5, 2.0], axis=1, **options)
    assert {*seen} == {((2, 3), (3,)), ((2, 9), (9,))}
    assert len(fit.history) == 42
    assert fit.phases == (0, 21)
    first = de.fit(problem, lambda p: loss(p, data[:, :3], ts=ts[:3]), **options)
    np.testing.assert_allclose(fit.history[:21], first.history, rtol=1e-12)
    assert fit.history[21] == pytest.approx(float(loss(first.model, data, ts=ts)), rel=1e-12)
    keyed = de.fit_growing(
        problem, lambda p, data, key, *, ts: loss(p, data, ts=ts), data, ts, ends=[2.0], axis=1,
        batch_size=1, key=jax.random.key(0), **options,
    )  # fmt: skip
    assert len(keyed.history) == 21
    with pytest.raises(ValueError, match=r"they have \[1, 9\] points; each must have more"):
        de.fit_growing(problem, loss, data, ts, ends=[0.1, 2.0], **options)

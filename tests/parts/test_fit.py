"""`fit` and `Layer`: what is trained, what is returned, what is refused, what goes wrong."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de
from diffeq.train.bounds import Interval

SGD = optax.sgd(0.1)


def bowl(x):
    """The square distance to 2 of every number of a tree."""
    return sum(jnp.sum((leaf - 2.0) ** 2) for leaf in jax.tree.leaves(x))


# --- kinds of models --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [0.5, jnp.zeros(3), np.zeros(2), {"a": 1.0, "b": [jnp.ones(2), 0.0]}, (1.0, np.float32(3.0))],
)
def test_the_kind_of_model_that_was_given_comes_back(model):
    fit = de.fit(model, bowl, optimizer=optax.sgd(0.25), steps=40)
    assert jax.tree.structure(fit.model) == jax.tree.structure(model)
    for old, new in zip(jax.tree.leaves(model), jax.tree.leaves(fit.model), strict=True):
        assert isinstance(new, (float, np.ndarray, jax.Array))
        assert isinstance(old, float) == isinstance(new, float)
        np.testing.assert_allclose(new, 2.0, atol=1e-5)


def test_integers_alone_cannot_be_trained():
    with pytest.raises(ValueError, match=r"write 1\.0 for 1"):
        de.fit([1, 2], bowl, optimizer=optax.sgd(0.1), steps=1)


def test_of_a_problem_its_args_are_trained():
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 0.2)
    fit = de.fit(
        problem,
        lambda p: (de.solve(p).y1 - jnp.exp(-1.0)) ** 2,
        optimizer=optax.adam(0.1),
        steps=60,
    )
    assert fit.model.args == pytest.approx(1.0, abs=2e-2)
    assert fit.model.tspan == (0.0, 1.0)
    assert fit.model.y0 == 1.0


def decay(args=1.0):
    return de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), args)


def half_left(problem):
    """Zero where half of a decay's substance is left: args = log 2, or y0 = e/2."""
    return (de.solve(problem, rtol=1e-6, atol=1e-9).y1 - 0.5) ** 2


class Holder(eqx.Module):
    problem: de.Problem
    scale: jax.Array
    setting: float = 0.5


LBFGS = {"optimizer": optax.lbfgs(), "steps": 20}


@pytest.mark.parametrize(
    ("wrap", "inside"),
    [
        (lambda p: p, lambda m: m),
        (lambda p: {"p": p}, lambda m: m["p"]),
        (lambda p: [3, p], lambda m: m[1]),
        (lambda p: Holder(p, jnp.ones(2, int)), lambda m: m.problem),
    ],
)
@pytest.mark.parametrize("trainable", [None, True, lambda m: m])
def test_of_a_problem_anywhere_its_args_are_trained(wrap, inside, trainable):
    fit = de.fit(wrap(decay()), lambda m: half_left(inside(m)), trainable=trainable, **LBFGS)
    found = inside(fit.model)
    assert found.args == pytest.approx(np.log(2.0), abs=1e-4)
    assert (found.y0, found.tspan) == (1.0, (0.0, 1.0))


FLAGS = decay().replace(args=False, y0=True, tspan=False)


@pytest.mark.parametrize("trainable", [lambda p: p.y0, FLAGS])
def test_other_fields_of_a_problem_are_trained_where_they_are_named(trainable):
    problem = decay()
    fit = de.fit(problem, half_left, trainable=trainable, bounds=(0.1, None), **LBFGS)
    assert fit.model.y0 == pytest.approx(np.e / 2, abs=1e-4)
    assert (fit.model.args, fit.model.tspan, fit.model.f) == (1.0, (0.0, 1.0), problem.f)


def test_several_fields_of_a_problem_are_attributes_for_the_optimiser():
    seen = []
    labels = lambda theta: seen.append(theta) or jax.tree.map(lambda _: "all", theta)
    optimizer = optax.multi_transform({"all": optax.sgd(0.5)}, labels)
    model = {"p": decay(), "w": 1.0}
    fit = de.fit(
        model, lambda m: half_left(m["p"]), optimizer=optimizer, steps=3,
        trainable=lambda m: (m["p"].args, m["p"].y0),
    )  # fmt: skip
    assert all(x["w"] is x["p"].tspan[0] is None and x["p"].y0 is not None for x in seen)
    assert fit.model["p"].args < 1.0 < fit.model["p"].y0
    with pytest.raises(
        ValueError, match=r"\['p'\]\.y0 starts at 1, which is not inside \(2, inf\)"
    ):
        de.fit(
            model, lambda m: half_left(m["p"]), optimizer=optimizer, steps=3,
            trainable=lambda m: m["p"].y0, bounds=({"p": 2.0, "w": None}, None),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [
        (None, {"net", "args"}),
        ({"net": True, "problem": False}, {"net"}),
        (lambda m: m["net"], {"net"}),
        (lambda m: m["problem"], {"args"}),
        (lambda m: m["problem"].args["rate"], {"args"}),
        (lambda m: (m["net"], m["problem"].y0), {"net", "y0"}),
    ],
)
def test_a_hybrid_model_of_a_network_and_a_problem(trainable, moved):
    def field(t, y, args):
        return -args["rate"] * y + args["net"](y)

    net = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    model = {
        "net": net,
        "problem": de.ODEProblem(field, jnp.ones(1), (0.0, 1.0), {"rate": 1.0, "net": None}),
    }

    def loss(m):
        problem = m["problem"]
        problem = problem.replace(args={"rate": problem.args["rate"], "net": m["net"]})
        return jnp.sum((de.solve(problem, de.RK4(), dt=0.25).y1 - 0.5) ** 2)

    fit = de.fit(model, loss, optimizer=optax.adam(0.05), steps=3, trainable=trainable)
    old, new = model["problem"], fit.model["problem"]
    found = {
        "net": (net.weight != fit.model["net"].weight).all(),
        "args": old.args["rate"] != new.args["rate"],
        "y0": (old.y0 != new.y0).all(),
        "tspan": old.tspan != new.tspan,
    }
    assert {name for name, other in found.items() if other} == moved
    assert fit.loss < fit.history[0]


def test_jumps_and_noise_are_trained_in_part():
    noisy = de.SDEProblem(lambda t, y, k: -k * y, lambda t, y, k: 0.1 * y, 1.0, (0.0, 1.0), 1.0)
    jumping = de.JumpProblem(decay(), de.Jump(2.0, lambda t, y, k: y + 0.1))
    key = jax.random.key(0)

    def loss(m):
        ends = de.solve(m["sde"], dt=0.1, key=key).y1, de.solve(m["jump"], key=key).y1
        return sum((y - 0.5) ** 2 for y in ends)

    fit = de.fit(
        {"sde": noisy, "jump": jumping}, loss, optimizer=optax.sgd(0.1), steps=3,
        trainable=lambda m: (m["sde"].args, m["jump"].problem.y0),
    )  # fmt: skip
    sde, jump = fit.model["sde"], fit.model["jump"]
    assert sde.args != 1.0 != jump.problem.y0
    assert (sde.y0, jump.args, jump.jumps[0].rate) == (1.0, 1.0, 2.0)


class Pair(eqx.Module):
    first: jax.Array
    second: jax.Array
    setting: float = 0.5


def pair():
    return Pair(jnp.zeros(2), jnp.zeros(3))


def test_in_a_module_python_floats_are_settings():
    fit = de.fit(pair(), lambda m: bowl((m.first, m.second)), optimizer=optax.sgd(0.25), steps=30)
    assert fit.model.setting == 0.5
    np.testing.assert_allclose(fit.model.second, 2.0, atol=1e-5)


@pytest.mark.parametrize("trainable", [lambda m: m.first, Pair(True, False, False)])
def test_trainable_picks_parts(trainable):
    fit = de.fit(
        pair(), lambda m: bowl((m.first, m.second)), optimizer=optax.sgd(0.25), steps=30,
        trainable=trainable,
    )  # fmt: skip
    np.testing.assert_allclose(fit.model.first, 2.0, atol=1e-5)
    assert not fit.model.second.any()


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer", [optax.adam(0.1), pytest.param(optax.lbfgs(), marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((None, None), [2, 2]),
        ((0.0, None), [2, 2]),
        ((0.0, 10.0), [2, 2]),
        ((None, jnp.array([1.5, 10.0])), [1.5, 2]),
        (([0.0, None], [1.2, None]), [1.2, 2]),
    ],
)
def test_bounds_hold_and_do_not_hinder(optimizer, bounds, expected):
    seen = []
    fit = de.fit(
        jnp.array([0.4, 0.6]), bowl, optimizer=optimizer, steps=300, bounds=bounds,
        callback=lambda step, loss, x: seen.append(x),
    )  # fmt: skip
    np.testing.assert_allclose(fit.model, expected, atol=5e-2)
    if bounds[1] is not None and not np.isscalar(bounds[1]):
        high = np.array([np.inf if b is None else b for b in bounds[1]])
        assert all((np.asarray(x) <= high).all() for x in seen)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    ("low", "high", "start"),
    [
        (-1e4, 1e4, 0.01),
        (-1e6, 1e6, 1.0),
        (0.0, 1e6, 1e-3),
        (-1e6, 0.0, -1e-3),
        (-1e38, 3e38, 1e37),
        (2.0, 3.0, 2.2),
        (2.0, 3.0, 2.99),
    ],
)
def test_bounds_keep_the_digits_of_a_parameter(dtype, low, high, start):
    interval = Interval(np.asarray(low), np.asarray(high))
    back = interval.natural(interval.free(jnp.asarray(start, dtype)))
    eps = float(jnp.finfo(dtype).eps)
    assert float(back) == pytest.approx(start, rel=40 * eps)


def test_bounds_are_one_smooth_function_that_stays_inside():
    interval = Interval(np.asarray(-1.0), np.asarray(5.0))
    z = jnp.concatenate([jnp.linspace(-9.0, 9.0, 37), jnp.array([-800.0, 800.0])])
    plain = lambda z: -1.0 + 6.0 * jax.nn.sigmoid(z)
    np.testing.assert_allclose(interval.natural(z), plain(z), rtol=1e-14)
    slopes, wanted = (jax.vmap(jax.grad(f))(z) for f in (interval.natural, plain))
    np.testing.assert_allclose(slopes, wanted, rtol=1e-12)
    single = interval.natural(jnp.linspace(-120.0, 120.0, 4001, dtype=jnp.float32))
    assert ((single >= -1.0) & (single <= 5.0)).all()
    np.testing.assert_allclose(interval.free(interval.natural(z[:37])), z[:37], atol=1e-12)


def test_wide_bounds_do_not_move_where_a_fit_ends():
    loss = lambda x: (x - 0.37) ** 2
    fit = de.fit(jnp.float32(1.0), loss, bounds=(-1e6, 1e6), **LBFGS)
    assert float(fit.model) == pytest.approx(0.37, abs=1e-5)
    huge = de.fit(jnp.float32(1.0), loss, bounds=(-1e300, 1e300), **LBFGS)
    assert float(huge.model) == pytest.approx(0.37, abs=1e-5), "beyond the dtype is no bound"


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ((np.nan, 5.0), ValueError, "a bound of the parameter is NaN; None is no bound"),
        (("a", 5.0), TypeError, "'a' is a bound of the parameter; a number is wanted"),
        ((True, 5.0), TypeError, "True is a bound of the parameter; a number is wanted"),
        ((np.zeros(3), None), ValueError, r"has shape \(3,\), and the parameter has \(2,\)"),
        (([0.0, "a"], None), TypeError, "is a bound of the parameter; a number is wanted"),
    ],
)
def test_bounds_that_are_none_are_named(bounds, error, message):
    with pytest.raises(error, match=message):
        de.fit(jnp.ones(2), bowl, optimizer=optax.sgd(0.1), steps=1, bounds=bounds)


@pytest.mark.parametrize("flags", ["a", ["a"], {"a": True}, {"a": True, "b": "frozen"}])
def test_what_is_to_be_trained_is_said_by_bools(flags):
    with pytest.raises(
        (TypeError, ValueError), match=r"trainable is .*True, False, a tree of them"
    ):
        de.fit({"a": 1.0, "b": 2.0}, bowl, optimizer=optax.sgd(0.1), steps=1, trainable=flags)


@pytest.mark.parametrize("where", [lambda m: m["a"][0], lambda m: m["a"].T])
def test_a_part_of_an_array_is_not_trained_alone(where):
    with pytest.raises(TypeError, match=r"trainable returns (\[0\]|\.T) of an array.*whole ones"):
        de.fit({"a": jnp.ones(2)}, bowl, optimizer=optax.sgd(0.1), steps=1, trainable=where)


def test_flags_may_be_a_tree_like_a_network_that_is_called():
    net = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    flags = eqx.tree_at(lambda m: m.layers[1].bias, jax.tree.map(lambda _: False, net), True)
    loss = lambda m: jnp.sum((m(jnp.ones(2)) - 1.0) ** 2)
    fit = de.fit(net, loss, optimizer=optax.sgd(0.25), steps=5, trainable=flags)
    assert (fit.model.layers[0].weight == net.layers[0].weight).all()
    assert fit.loss < 0.1 * fit.history[0]


def test_a_start_outside_its_bounds_is_refused():
    with pytest.raises(ValueError, match=r"starts at 3, which is not inside \(0, 1\)"):
        de.fit(3.0, bowl, optimizer=optax.sgd(0.1), steps=1, bounds=(0.0, 1.0))


# --- what is recorded -------------------------------------------------------------------------


def test_history_begins_before_the_first_step_and_ends_after_the_last():
    fit = de.fit(0.0, bowl, optimizer=optax.sgd(0.25), steps=2)
    np.testing.assert_allclose(fit.history, [4.0, 1.0, 0.25])
    assert (fit.loss, fit.model, fit.status) == (0.25, 1.5, "finished")


def test_the_best_is_kept():
    fit = de.fit(1.9, bowl, optimizer=optax.sgd(1.05), steps=20)  # it diverges
    assert fit.model == pytest.approx(1.9)
    assert fit.history[-1] > fit.loss


def test_callback_sees_the_model_and_stops():
    seen = []

    def callback(step, loss, model):
        seen.append((step, loss, model))
        return step == 3

    fit = de.fit(0.0, bowl, optimizer=optax.sgd(0.25), steps=50, callback=callback)
    assert fit.status == "stopped"
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    assert all(loss == pytest.approx((model - 2) ** 2) for _, loss, model in seen)


def test_nothing_more_to_gain_is_converged():
    fit = de.fit(0.0, bowl, optimizer=optax.sgd(0.5), steps=1000)
    assert fit.status == "converged"
    assert len(fit.history) < 200


def test_phases_follow_each_other_and_say_their_steps():
    two = [(optax.adam(0.1), 10), (optax.sgd(0.25), 5)]
    fit = de.fit(0.0, bowl, optimizer=two)
    other = de.fit(0.0, bowl, optimizer=[two[0][0], two[1][0]], steps=[10, 5])
    np.testing.assert_array_equal(fit.history, other.history)
    assert len(fit.history) == 16
    assert fit.phases == (0, 10)


def test_plot_draws_the_loss():
    import matplotlib as mpl

    mpl.use("agg")
    ax = de.fit(0.0, bowl, optimizer=optax.sgd(0.25), steps=3).plot()
    assert ax.get_yscale() == "log"


def test_the_loss_is_traced_once_a_phase():
    traces = []

    def loss(x):
        traces.append(1)
        return bowl(x)

    de.fit(0.0, loss, optimizer=optax.adam(0.1), steps=30)
    assert len(traces) == 1


# --- batches and keys -------------------------------------------------------------------------


def test_batches_visit_every_sample_once_an_epoch():
    data = {"x": jnp.arange(6.0), "y": jnp.arange(6.0) ** 2}
    seen = []

    def loss(model, batch):
        jax.debug.callback(lambda x, y: seen.append((x, y)), batch["x"], batch["y"], ordered=True)
        return bowl(model)

    de.fit(0.0, loss, data, optimizer=optax.sgd(0.1), steps=6, batch_size=2, key=jax.random.key(1))
    xs = np.array([x for x, _ in seen[:6]])
    assert sorted(xs[:3].ravel()) == sorted(xs[3:].ravel()) == list(range(6))
    assert (xs[:3] != xs[3:]).any()
    assert all((y == x**2).all() for x, y in seen)


def test_a_keyed_loss_gets_a_new_key_each_step():
    def loss(x, key):
        return (x - 2.0) ** 2 + jax.random.normal(key)

    once = de.fit(0.0, loss, optimizer=optax.sgd(0.25), steps=20, key=jax.random.key(0))
    again = de.fit(0.0, loss, optimizer=optax.sgd(0.25), steps=20, key=jax.random.key(0))
    np.testing.assert_array_equal(once.history, again.history)
    assert np.ptp(once.history[10:]) > 0.1
    assert once.model == pytest.approx(2.0, abs=1e-4), "the last parameters, not the luckiest"


# --- what goes wrong --------------------------------------------------------------------------


def test_a_step_into_the_non_finite_is_halved():
    def loss(x):
        return -jnp.log(x) + x  # its minimum is at 1; it is NaN below 0

    fit = de.fit(3.0, loss, optimizer=optax.sgd(6.0), steps=60)
    assert np.isnan(fit.history).any()
    assert np.isfinite(fit.loss)
    assert 0 < fit.model < 3.0


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_loss_that_is_never_finite_leaves_the_model_as_it_is(batch_size):
    data = None if batch_size is None else jnp.ones(4)
    loss = (lambda x: x * jnp.nan) if data is None else (lambda x, batch: x * jnp.nan)
    with pytest.warns(RuntimeWarning, match="at the model that was given the loss was nan"):
        fit = de.fit(1.5, loss, data, optimizer=optax.adam(0.1), steps=500, batch_size=batch_size)
    assert fit.status == "nonfinite"
    assert fit.model == 1.5
    assert len(fit.history) < 100


def test_a_loss_before_its_model_is_told():
    net = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    for loss in (bowl, jax.jit(bowl)):
        with pytest.raises(TypeError, match=r"model is the function bowl.*the model comes first"):
            de.fit(loss, net, optimizer=SGD, steps=1)


def test_steps_are_for_the_phases_that_do_not_say():
    loss = lambda x: (x - 2.0) ** 2
    assert de.fit(0.0, loss, optimizer=[(SGD, 2), SGD], steps=3).phases == (0, 2)
    assert len(de.fit(0.0, loss, optimizer=[(SGD, 2), SGD], steps=[None, 3]).history) == 6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizer": "adam"}, TypeError, "Optax"),
        ({"optimizer": optax.adam}, TypeError, "Optax"),
        ({"steps": 0}, TypeError, "positive whole number"),
        ({"steps": None}, TypeError, "positive whole number"),
        ({"batch_size": 2}, ValueError, "batch_size needs data"),
        ({"steps": [2, 3]}, TypeError, "steps has 2 numbers, and optimizer 1 phases"),
        ({"optimizer": [(SGD, 2, 3)], "steps": None}, TypeError, "a phase of 3 parts"),
        ({"optimizer": [(SGD, 2)]}, TypeError, "steps is 3, and a phase of optimizer says its own"),
        ({"optimizer": [(SGD, 2), SGD], "steps": [4, 5]}, TypeError, "says its own"),
        ({"loss": lambda x: jnp.ones(2) * x}, TypeError, r"float64\[2\]; a real scalar"),
        ({"loss": lambda x, y: x}, TypeError, r"loss must take \(model\)"),
        ({"bounds": 3.0}, TypeError, "pair"),
        ({"bounds": ([0.0, 1.0], None)}, ValueError, "prefix"),
    ],
)
def test_wrong_arguments_are_refused(change, error, message):
    call = {"loss": bowl, "optimizer": optax.sgd(0.1), "steps": 3, **change}
    with pytest.raises(error, match=message):
        de.fit(1.0, **call)


# --- layers -----------------------------------------------------------------------------------

TS = jnp.linspace(0.0, 1.0, 4)


def node(**options):
    net = eqx.nn.MLP(2, 2, 4, 1, jnp.tanh, key=jax.random.key(0))
    return de.nn.NeuralODE(net, **{"tspan": (0.0, 1.0), "saveat": TS, **options})


def test_options_of_a_layer_are_no_parameters():
    layer = node(rtol=jnp.array(1e-4))
    arrays = jax.tree.leaves(eqx.filter(layer, eqx.is_inexact_array))
    assert sum(x.size for x in arrays) == 4 * 2 + 4 + 2 * 4 + 2
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: jnp.sum(m(jnp.ones(2)).ys)))(layer)
    assert jax.tree.structure(eqx.filter(layer, eqx.is_inexact_array)) == jax.tree.structure(
        gradient
    )


def test_equal_layers_compile_once():
    traces = []

    @eqx.filter_jit
    def run(layer):
        traces.append(1)
        return layer(jnp.ones(2)).ys

    run(node())
    run(node(saveat=np.linspace(0.0, 1.0, 4)))
    assert len(traces) == 1
    run(node(saveat=TS + 0.0 * TS, rtol=1e-5))
    assert len(traces) == 2


def test_a_layer_can_be_made_inside_a_transform():
    def total(scale):
        layer = node(saveat=TS * scale)
        return jnp.sum(layer(jnp.ones(2)).ys)

    assert jnp.isfinite(jax.jit(total)(0.5))


def test_a_call_gives_other_times():
    layer = node()
    sol = layer(jnp.ones(2), tspan=(0.0, 2.0), saveat=jnp.array([2.0]))
    assert sol.ts.tolist() == [2.0]
    assert jax.vmap(lambda y: layer(y).ys)(jnp.ones((5, 2))).shape == (5, 4, 2)


def test_layers_refuse_what_they_cannot_use():
    with pytest.raises(TypeError, match="'tolerance', which it does not know"):
        node(tolerance=1e-3)
    with pytest.raises(TypeError, match="not callable"):
        de.nn.Layer({"w": 1.0}, tspan=(0.0, 1.0))
    with pytest.raises(TypeError, match="tspan is not known"):
        node(tspan=None)(jnp.ones(2))
    layer = de.nn.Layer(jnp.ones(2), tspan=(0.0, 1.0), field=lambda net, t, y, args: -net * y)
    with pytest.raises(TypeError, match="takes none"):
        layer(jnp.ones(2), key=jax.random.key(0))


# --- published fits ---------------------------------------------------------------------------


def lotka_volterra(t, y, args):
    prey, predator = y
    a, b, c, d = args
    return jnp.array([a * prey - b * prey * predator, -c * predator + d * prey * predator])


def test_lotka_volterra_is_driven_to_a_constant():
    """Rackauckas et al. (2019): Adam(0.1), 100 steps; then L-BFGS, as in later documentation."""
    args = jnp.array([2.2, 1.0, 2.0, 0.4])
    problem = de.ODEProblem(lotka_volterra, jnp.array([1.0, 1.0]), (0.0, 10.0), args)
    ts = jnp.linspace(0.0, 10.0, 101)

    def loss(args, **tolerances):
        sol = de.solve(problem.replace(args=args), de.Tsit5(), saveat=ts, **tolerances)
        return jnp.sum((sol.ys[:, 0] - 1.0) ** 2)

    close = lambda args: loss(args, rtol=1e-6, atol=1e-9)
    first = de.fit(args, close, optimizer=optax.adam(0.1), steps=100)
    assert first.history[0] == pytest.approx(4324.6, rel=1e-5)
    assert first.loss < 0.3
    tight = lambda args: loss(args, rtol=1e-8, atol=1e-10)
    second = de.fit(first.model, tight, optimizer=optax.lbfgs(), steps=40)
    assert second.loss < 1e-12
    a, b, c, d = second.model
    assert (a - b, c - d) == (pytest.approx(0.0, abs=1e-5), pytest.approx(0.0, abs=1e-5))

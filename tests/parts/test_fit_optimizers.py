"""`fit` beside loops written by hand with Optax: what an optimiser sees, and the losses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tests.tiers import shortly

import diffeq as de

XS = jnp.linspace(-1.0, 1.6, 8)[:, None]
YS = jnp.sin(3.0 * XS)


def net():
    return eqx.nn.MLP(1, 1, 4, 2, jnp.tanh, key=jax.random.key(0))


def misfit(net):
    return jnp.mean((jax.vmap(net)(XS) - YS) ** 2)


def by_hand(model, loss, optimizer, steps):
    """The losses of a loop as the documentation of Optax and Equinox has it."""
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    value_fn = lambda params: loss(eqx.combine(params, rest))
    optimizer = optax.with_extra_args_support(optimizer)

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(value_fn)(params)
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=value_fn
        )
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        losses.append(float(value))
    return losses, eqx.combine(params, rest)


def last_layer(params):
    """Labels by the path of each parameter."""
    return jax.tree.map_with_path(
        lambda path, _: "last" if "layers[2]" in jax.tree_util.keystr(path) else "others", params
    )


def weights(params):
    """The arrays that a decay is for."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


GROUPS = {"last": optax.adam(0.1), "others": optax.sgd(0.01)}
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(0.05),
    "scheduled": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), optax.adam(optax.cosine_decay_schedule(0.1, 6))
    ),
    "adamw, mask by function": lambda: optax.adamw(0.05, weight_decay=0.3, mask=weights),
    "adamw, mask by tree": lambda: optax.adamw(
        0.05, weight_decay=0.3, mask=lambda _: weights(eqx.filter(net(), eqx.is_inexact_array))
    ),
    "groups by function": lambda: optax.multi_transform(GROUPS, last_layer),
    "groups by tree": lambda: optax.multi_transform(
        GROUPS, lambda _: last_layer(eqx.filter(net(), eqx.is_inexact_array))
    ),
    "frozen": lambda: optax.multi_transform(
        {"last": optax.adam(0.1), "others": optax.set_to_zero()}, last_layer
    ),
    "masked": lambda: optax.chain(
        optax.masked(optax.add_decayed_weights(0.1), weights), optax.sgd(0.1)
    ),
    "every other": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.05),
    "schedule free": lambda: optax.contrib.schedule_free_adamw(0.05),
    "plateau": lambda: optax.chain(
        optax.adam(0.05), optax.contrib.reduce_on_plateau(0.5, patience=1)
    ),
    "lion": lambda: optax.lion(0.01),
    "lbfgs": optax.lbfgs,
    "backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(8, store_grad=True)
    ),
}


@pytest.mark.parametrize(
    "name",
    shortly(OPTIMIZERS, "adam", "adamw, mask by tree", "groups by function", "frozen", "lbfgs"),
)
def test_the_losses_are_those_of_a_loop_by_hand(name):
    losses, _ = by_hand(net(), misfit, OPTIMIZERS[name](), 12)
    fit = de.fit(net(), misfit, optimizer=OPTIMIZERS[name](), steps=12, progress=False)
    # Two programs round differently, and an optimiser may divide by what is nearly zero.
    np.testing.assert_allclose(fit.history[:12], losses, rtol=1e-8)
    assert len(set(losses)) > 4


def test_each_group_has_its_learning_rate_in_a_dictionary():
    model = {"net": net(), "lag": jnp.ones(2), "name": 3}
    seen = []

    def labels(params):
        seen.append(params)
        return {"net": "fast", "lag": "slow", "name": "slow"}

    groups = {"fast": optax.sgd(0.1), "slow": optax.set_to_zero()}
    loss = lambda m: misfit(m["net"]) + jnp.sum(m["lag"] ** 2)
    for one in (labels, labels(None)):
        fit = de.fit(model, loss, optimizer=optax.multi_transform(groups, one), steps=3)
        assert fit.model["lag"].tolist() == [1.0, 1.0]
        assert fit.loss < fit.history[0]
    tree = jax.tree.structure(eqx.filter(model, eqx.is_inexact_array))
    assert {jax.tree.structure(params) for params in seen[1:]} == {tree}


def test_what_is_not_trained_is_none_in_the_tree():
    model = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    seen = []
    labels = lambda params: seen.append(params) or jax.tree.map(lambda _: "all", params)
    fit = de.fit(
        model, lambda m: jnp.sum((m["a"] - 1) ** 2) + jnp.sum(m["b"] ** 2), steps=2,
        optimizer=optax.multi_transform({"all": optax.sgd(0.1)}, labels),
        trainable=lambda m: m["a"], bounds=({"a": -1.0, "b": None}, None),
    )  # fmt: skip
    assert all(params["b"] is None and params["a"].shape == (2,) for params in seen)
    assert fit.loss < 2.0


def test_a_problem_shows_the_tree_of_its_args():
    args = {"growth": 0.5, "net": net()}
    problem = de.ODEProblem(
        lambda t, y, args: args["growth"] * y + args["net"](y), jnp.ones(1), (0.0, 1.0), args
    )
    groups = {"slow": optax.set_to_zero(), "fast": optax.sgd(0.1)}
    fit = de.fit(
        problem, lambda p: jnp.sum((de.solve(p, de.RK4(), dt=0.5).y1 - 2.0) ** 2),
        optimizer=optax.multi_transform(groups, {"growth": "slow", "net": "fast"}), steps=3,
        bounds=({"growth": 0.0, "net": None}, None),
    )  # fmt: skip
    assert fit.model.args["growth"] == 0.5
    assert fit.loss < fit.history[0]


def test_a_flax_module_shows_its_state():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(1, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(jnp.tanh(self.first(x)))

    seen = []

    def labels(params):
        seen.append(params)
        return jax.tree.map_with_path(lambda path, _: path[0].key, params)

    groups = {"first": optax.set_to_zero(), "last": optax.adam(0.05)}
    model = Two(nnx.Rngs(0))
    loss = lambda m: jnp.mean((m(XS.astype(jnp.float32)) - YS.astype(jnp.float32)) ** 2)
    fit = de.fit(model, loss, optimizer=optax.multi_transform(groups, labels), steps=6)

    optimizer = nnx.Optimizer(model, optax.multi_transform(groups, labels), wrt=nnx.Param)
    losses = []
    for _ in range(6):
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        losses.append(float(value))
    np.testing.assert_allclose(fit.history[:6], losses, rtol=1e-5)
    assert isinstance(seen[0], nnx.State)
    assert fit.loss < fit.history[0]


def test_one_number_is_a_tree_of_its_own():
    losses, _ = by_hand(jnp.asarray(0.0), lambda x: (x - 2.0) ** 2, optax.adam(0.1), 5)
    fit = de.fit(0.0, lambda x: (x - 2.0) ** 2, optimizer=optax.adam(0.1), steps=5)
    np.testing.assert_allclose(fit.history[:5], losses, rtol=1e-12)


def test_complex_parameters_go_down_the_slope():
    loss = lambda z: jnp.abs(z - (1.0 + 2.0j)) ** 2
    fit = de.fit(0.0j, loss, optimizer=optax.sgd(0.25), steps=30)
    assert abs(fit.model - (1.0 + 2.0j)) < 1e-6

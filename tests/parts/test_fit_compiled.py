"""What `fit` compiles: nothing for a fit that is like one before it, and nothing that is stale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import monitoring

import diffeq as de
from diffeq.train import compiled_starts, compiled_step, search

TARGET = jnp.array([1.0, 2.0])


@pytest.fixture
def compiled():
    """The programs that XLA is asked for, with none known from before."""
    found = []
    for kept in (
        compiled_step._evaluation,
        compiled_step._compiled_step,
        compiled_step._compiled_initial_carry,
        search._segments,
        compiled_starts._evaluation_of_starts,
        compiled_starts._initial_carries,
        compiled_starts._steps_of_starts,
    ):
        kept.cache_clear()

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            found.append(duration)

    monitoring.register_event_duration_secs_listener(listen)
    yield found
    monitoring.unregister_event_duration_listener(listen)


def fresh_loss(target):
    """A new function at each call, over an array."""
    return lambda x: jnp.sum((x - target) ** 2)


def fresh_rates(start):
    problem = de.ODEProblem(lambda t, y, k: -k * y, jnp.ones(2), (0.0, 1.0), start)
    return problem, lambda problem: jnp.sum(de.solve(problem, de.RK4(), dt=0.25).y1 ** 2)


def fresh_dict(start):
    groups = {"a": optax.sgd(0.1), "b": optax.set_to_zero()}
    return {"a": start, "b": 1.0}, groups


AGAIN = {
    "adam": lambda i: de.fit(
        TARGET * i**2, fresh_loss(TARGET * 8), optimizer=optax.adam(0.05), steps=4, progress=False
    ),
    "lbfgs": lambda i: de.fit(
        TARGET * i**2, fresh_loss(TARGET * 8), optimizer=optax.lbfgs(), steps=4, progress=False
    ),
    "bounds": lambda i: de.fit(
        {"a": 1.0 + i}, lambda m: (m["a"] - 9.0) ** 2, steps=4, bounds=(0.5, None),
        optimizer=optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)), progress=False,
    ),
    "a problem": lambda i: de.fit(
        *fresh_rates(0.1 * (i + 1)), optimizer=optax.adam(0.05), steps=2, progress=False
    ),
    "batches, groups": lambda i: de.fit(
        {"a": TARGET[0] * i, "b": 1.0}, lambda m, batch: jnp.mean((m["a"] - batch) ** 2),
        jnp.arange(8.0) * i, batch_size=4, key=jax.random.key(i), steps=4, progress=False,
        optimizer=optax.multi_transform(
            {"a": optax.sgd(0.1), "b": optax.set_to_zero()}, {"a": "a", "b": "b"}
        ),
    ),
    "starts": lambda i: de.fit_starts(
        [TARGET * i**2, TARGET], fresh_loss(TARGET * 8), progress=False,
        optimizer=[(optax.adam(0.05), 3), (optax.lbfgs(), 2)],
    )[0],
}  # fmt: skip


@pytest.mark.parametrize("name", AGAIN)
def test_a_fit_like_one_before_compiles_nothing(name, compiled):
    first = AGAIN[name](1)
    assert compiled
    compiled.clear()
    fits = [AGAIN[name](i) for i in (2, 3, 1)]
    assert not compiled
    np.testing.assert_array_equal(fits[-1].history, first.history)
    assert len({fit.history[0] for fit in fits}) == 3, "each with its own numbers"


def test_phases_share_the_gradient():
    traces = []

    def loss(x):
        traces.append(1)
        return jnp.sum((x - 2.0) ** 2)

    phases = [(optax.adam(rate), 3) for rate in (0.1, 0.05)] + [(optax.lbfgs(), 3)]
    fit = de.fit(jnp.zeros(2), loss, optimizer=phases, progress=False)
    assert len(traces) == 1, "a line search, too, has no gradient of its own"
    assert fit.loss < 1e-12


def test_a_search_along_a_line_evaluates_no_point_twice():
    points = []

    def loss(x):
        jax.debug.callback(lambda x: points.append(tuple(x.tolist())), x)
        return jnp.sum((x - TARGET) ** 2 * jnp.array([1.0, 30.0]))

    de.fit(jnp.zeros(2), loss, optimizer=optax.lbfgs(), steps=6, progress=False)
    jax.effects_barrier()
    assert len(points) == len(set(points))


def sweep_of_steps(sizes):
    """Steepest descent by the best of several steps, which are tried side by side."""

    def update(updates, state, params, *, value_fn, **others):
        at = lambda size: jax.tree.map(lambda p, g: p - size * g, params, updates)
        best = sizes[jnp.argmin(jax.vmap(lambda size: value_fn(at(size)))(sizes))]
        return jax.tree.map(lambda g: -best * g, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def test_an_optimiser_may_evaluate_the_loss_as_it_likes():
    sizes = jnp.array([0.01, 0.1, 0.45])
    loss = lambda x: jnp.sum((x - TARGET) ** 2)
    fit = de.fit(jnp.zeros(2), loss, optimizer=sweep_of_steps(sizes), steps=2, progress=False)
    np.testing.assert_allclose(fit.history, 5.0 * 0.1 ** (2 * np.arange(3)), rtol=1e-9)


def test_what_a_loss_reads_is_read_again():
    """Each of these changes what a fresh trace would return, and so what a fit returns."""
    settings = {"goal": 1.0, "kind": "square"}

    def loss(x):
        error = x - settings["goal"]
        return error**2 if settings["kind"] == "square" else jnp.abs(error) ** 3

    def first_loss():
        fit = de.fit(0.0, loss, optimizer=optax.sgd(0.1), steps=1, progress=False)
        return fit.history[0]

    assert first_loss() == 1.0
    settings["goal"] = 2.0
    assert first_loss() == 4.0
    settings["kind"] = "cube"
    assert first_loss() == 8.0
    goals = np.array([3.0])
    by_array = lambda x: jnp.sum((x - goals) ** 2)
    fit = lambda: de.fit(0.0, by_array, optimizer=optax.sgd(0.1), steps=1, progress=False)
    assert fit().history[0] == 9.0
    goals[0] = 4.0
    assert fit().history[0] == 16.0


def test_few_programs_are_kept():
    """Each goal is a constant of its loss, so each has a program of its own."""
    for goal in range(compiled_step.KEPT + 3):
        loss = lambda x, goal=float(goal): (x - goal) ** 2
        fit = de.fit(0.0, loss, optimizer=optax.sgd(0.1), steps=1, progress=False)
        assert fit.history[0] == goal**2
    assert compiled_step._evaluation.cache_info().currsize == compiled_step.KEPT


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_a_learning_rate_is_that_of_its_optimiser(rate):
    fit = de.fit(1.0, lambda x: x**2, optimizer=optax.sgd(rate), steps=1, progress=False)
    assert fit.model == pytest.approx(1.0 - 2.0 * rate)


def test_a_loss_may_ask_for_the_numbers_of_what_it_closes_over():
    """As under `jax.jit`, where an array outside is a constant: `float`, `np.asarray`, `if`."""
    scale, mask, deep = jnp.asarray(2.0), jnp.array([True, False]), jnp.asarray(True)

    def loss(x):
        kept = x[np.asarray(mask)] if deep else x
        return float(scale) * jnp.sum((kept - 1.0) ** 2)

    fit = de.fit(jnp.zeros(2), loss, optimizer=optax.sgd(0.25), steps=3, progress=False)
    assert fit.history[0] == 2.0
    assert fit.model[1] == 0.0


def test_a_loss_that_cannot_be_taken_apart_is_taken_whole():
    table = {1: jnp.asarray(2.0), "two": 3.0}  # keys that no tree can sort
    fit = de.fit(
        0.0, lambda x: (x - table[1]) ** 2, optimizer=optax.sgd(0.25), steps=2, progress=False
    )
    assert fit.history[0] == 4.0

"""The `walk` primitive: sums that go through nested walks, residuals that a walk keeps."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffeq.autodiff.accumulators import accumulate_inside
from diffeq.autodiff.dynamic_scan import walk
from diffeq.autodiff.jax_internals import equations, jaxpr_as_fun, name_of, parameters
from diffeq.autodiff.known_value import with_known_value

jax.config.update("jax_enable_x64", True)

WEIGHTS = jnp.array([[0.3, -0.7], [0.5, 0.2]])
START = jnp.array([1.0, -0.4])


def chain(weights, y, count, *, keeps):
    """The end of y ↦ tanh(W y) + y/10, `count` times; and the table of all y."""

    def step(active, row, consts, carry, *_):
        del active, row
        y, table, i = carry
        y = jnp.tanh(consts @ y) + 0.1 * y
        return (y, table.at[i].set(y), i + 1), ()

    carry = (y, jnp.zeros((5, 2)), jnp.int32(0))
    (y, table, _), _ = walk(step, 0, count, consts=weights, carry=carry, length=5, keeps=keeps)
    return y, table


def straight(weights, y, count):
    rows = []
    for _ in range(count):
        y = jnp.tanh(weights @ y) + 0.1 * y
        rows.append(y)
    return y, jnp.stack(rows)


def loss(run, weights, y):
    y, table = run(weights, y)
    return jnp.sum(jnp.sin(y)) + jnp.sum(table[:3] ** 2)


@pytest.mark.parametrize("keeps", [False, True])
def test_derivatives_are_those_of_straight_code(keeps):
    """The gradient, and its derivatives in both modes, also over lanes."""
    looped = lambda w, y: loss(lambda w, y: chain(w, y, 3, keeps=keeps), w, y)
    plain = lambda w, y: loss(lambda w, y: straight(w, y, 3), w, y)
    for of in (
        lambda f: jax.grad(f, (0, 1)),
        lambda f: jax.jacfwd(jax.grad(f)),
        lambda f: jax.jacrev(jax.grad(f)),
        lambda f: jax.jacrev(jax.jacfwd(f)),
    ):
        got, wanted = (jax.jit(of(f))(WEIGHTS, START) for f in (looped, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), got, wanted)
    several = jnp.stack([START, 2 * START, -START])
    got, wanted = (
        jax.vmap(jax.grad(f, (0, 1)), (None, 0))(WEIGHTS, several) for f in (looped, plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), got, wanted)


def test_a_walk_that_keeps_evaluates_nothing_again():
    """The tanh stands once in the gradient, as its slopes are kept; without that, twice."""

    def count(keeps):
        run = lambda w: loss(lambda w, y: chain(w, y, 3, keeps=keeps), w, START)
        return jax.jit(jax.grad(run)).lower(WEIGHTS).as_text().count("stablehlo.tanh")

    assert (count(True), count(False)) == (1, 2)


def test_a_table_that_each_step_fills_is_made_once():
    """The residuals of a walk inside a walk: no step of the derivative fills a table with zeros."""

    def inner(weights, y):
        def step(active, row, consts, carry, *_):
            del active, row
            return carry + 0.1 * consts.T @ jnp.tanh(consts @ carry), ()

        return walk(step, 0, 5, consts=weights, carry=y, length=5, keeps=True)[0]

    def looped(weights, y):
        step = lambda active, row, consts, carry, *_: (inner(consts, carry), ())
        return jnp.sum(walk(step, 0, 4, consts=weights, carry=y, length=4)[0] ** 2)

    def plain(weights, y):
        for _ in range(20):
            y = y + 0.1 * weights.T @ jnp.tanh(weights @ y)
        return jnp.sum(y**2)

    weights = jnp.vstack([WEIGHTS, START])
    of_both = [jax.jit(jax.grad(f, (0, 1))) for f in (looped, plain)]
    got, wanted = (f(weights, START) for f in of_both)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), got, wanted)
    lowered = of_both[0].lower(weights, START).as_text()
    assert "tensor<5x3xf64>" in lowered
    steps = lowered.split("func.func private", 1)[1]
    assert not re.findall(r"broadcast_in_dim .* -> tensor<5x3xf64>", steps)


def test_many_single_numbers_are_computed_again():
    """A kernel would write each of them, and another one read it."""

    def turn(active, row, consts, carry, *_):
        del active, row
        x, y = carry
        for _ in range(20):
            x, y = jnp.tanh(x * y + consts), x
        return (x, y), ()

    def run(c):
        return walk(turn, 0, 3, consts=c, carry=(c, c), length=3, keeps=True)[0][0]

    text = jax.jit(jax.grad(run)).lower(0.3).as_text()
    assert text.count("stablehlo.tanh") == 40
    difference = (run(0.3 + 1e-6) - run(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(run)(0.3), difference, rtol=1e-8)


def test_more_residuals_than_a_few_megabytes_are_computed_again():
    big = jnp.ones((2000, 2000))

    def run(x):
        step = lambda active, row, consts, carry, *_: (jnp.tanh(carry) * consts, ())
        return walk(step, 0, 2, consts=big, carry=x, length=2, keeps=True)[0].sum()

    text = jax.jit(jax.grad(run)).lower(big).as_text()
    assert text.count("stablehlo.tanh") == 2


def nested(total, x, *, change=lambda found: found, start=0.0):
    """The total and a `change` of a sum of 4 x, which a walk makes from `start`."""
    step = lambda active, row, consts, carry, *_: (carry + consts, ())
    blank = jnp.full(x.shape, start)
    return total + change(walk(step, 0, 4, consts=x, carry=blank, length=4)[0])


def first_carry(jaxpr):
    """True if the walk of a jaxpr starts from the jaxpr's first input."""
    (inner,) = (e for e in equations(jaxpr) if name_of(e) == "walk")
    rows, consts, *_ = parameters(inner)["sizes"]
    return inner.invars[2 + rows + consts] is jaxpr.invars[0]


def test_a_sum_that_is_added_to_an_input_starts_from_it():
    plain = jax.make_jaxpr(nested)(START, START)
    made = accumulate_inside(plain)
    assert first_carry(made)
    assert not first_carry(plain)
    np.testing.assert_allclose(jaxpr_as_fun(made)(START, WEIGHTS[0])[0], START + 4 * WEIGHTS[0])


@pytest.mark.parametrize(
    "function",
    [
        lambda total, x: nested(total, x, change=lambda found: 2 * found),
        lambda total, x: nested(total, x, start=1.0),
        lambda total, x: (nested(total, x), total),
        lambda total, x: nested(total, x + total),
    ],
    ids=["times a number", "from one", "an input that is an output", "an input that is used"],
)
def test_other_sums_are_left_alone(function):
    plain = jax.make_jaxpr(function)(START, START)
    made = accumulate_inside(plain)
    assert not first_carry(made)
    found, wanted = (jaxpr_as_fun(each)(START, WEIGHTS[0]) for each in (made, plain))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_tangent_that_enters_by_a_known_value_is_kept():
    """`with_known_value` takes the derivative of an operand whose value it does not use."""

    def step(active, row, consts, carry, *_):
        del active, row
        return carry + with_known_value(consts[0], consts[1]), ()

    run = lambda x: walk(step, 0, 3, consts=(1.0, x), carry=0.0, length=3)[0]
    assert jax.jvp(run, (1.0,), (1.0,)) == (3.0, 3.0)
    assert jax.grad(run)(1.0) == 3.0


def test_an_equation_of_values_and_tangents_keeps_nothing():
    """A `custom_vjp` function inside a checkpoint or a branch has no forward derivative."""

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, g: (g * jnp.cos(x),))

    def loss(k, wrapped):
        step = lambda active, row, consts, carry, *_: (wrapped(carry * consts), ())
        return walk(step, 0, 3, consts=k, carry=0.5, length=3, keeps=True)[0]

    wanted = jax.grad(lambda k: jnp.sin(jnp.sin(jnp.sin(0.5 * k) * k) * k))(1.3)
    branch = lambda x: jax.lax.cond(x > -9.0, sine, lambda x: -x, x)
    for wrapped in (sine, jax.checkpoint(sine), branch):
        np.testing.assert_allclose(jax.grad(loss)(1.3, wrapped), wanted, rtol=1e-13)


def listed_chain(weights, rows, start, listed, count, reverse):
    """The chain y ↦ tanh(W y) + row over the listed rows, and a table of each y at its row."""

    def step(active, row, consts, carry, *_):
        del active
        y = jnp.tanh(consts @ carry) + row
        return y, (y,)

    return walk(
        step,
        listed,
        count,
        rows=rows,
        consts=weights,
        carry=start,
        buffers=(jnp.zeros((5, 2)),),
        length=5,
        reverse=reverse,
    )


def straight_over(order, weights, rows, start):
    y, table = start, jnp.zeros((5, 2))
    for j in order:
        y = jnp.tanh(weights @ y) + rows[j]
        table = table.at[j].set(y)
    return y, (table,)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_walk_over_listed_rows_is_straight_code_over_them(reverse):
    """Also over lanes with a list and a number of rows each, and in every derivative."""
    rows = jnp.linspace(-0.5, 0.7, 10).reshape(5, 2)
    lists = jnp.array([[3, 0, 4, 9, 9], [1, 2, 0, 0, 0], [0, 1, 2, 3, 4]], jnp.int32)
    counts = jnp.array([3, 1, 5], jnp.int32)
    orders = [[int(j) for j in row[:n]] for row, n in zip(lists, counts, strict=True)]
    orders = [order[::-1] if reverse else order for order in orders]

    def total(out):
        return jnp.sum(jnp.sin(out[0])) + jnp.sum(out[1][0] ** 2)

    def walked(w, rows, y):
        each = lambda lo, n: total(listed_chain(w, rows, y, lo, n, reverse))
        return jax.vmap(each)(lists, counts)

    def plain(w, rows, y):
        return jnp.stack([total(straight_over(order, w, rows, y)) for order in orders])

    for of in (
        lambda f: f,
        lambda f: jax.jacrev(f, (0, 1, 2)),
        lambda f: jax.jacfwd(f, (0, 1, 2)),
        lambda f: jax.jacrev(jax.jacfwd(f, (0, 1))),
    ):
        got, wanted = (jax.jit(of(f))(WEIGHTS, rows, START) for f in (walked, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), got, wanted)
    alone = jax.grad(lambda w: total(listed_chain(w, rows, START, lists[0], counts[0], reverse)))
    wanted = jax.grad(lambda w: total(straight_over(orders[0], w, rows, START)))
    np.testing.assert_allclose(alone(WEIGHTS), wanted(WEIGHTS), rtol=1e-13)

"""Products of a loop with weights that no turn changes: the transposes are made before the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.autodiff.jax_internals import jaxpr_as_fun, trace
from diffeq.autodiff.transposed_weights import with_transposed_weights

FIRST_AXES = "contracting_dims = [0] x [0]"  # of a product, as lowered
LANES = jnp.linspace(-1.0, 1.0, 21).reshape(7, 3)


def by_columns(active, weights, other, y):
    """Wᵀ y twice, once inside of a jit, and products that stay as they are."""
    del active
    inner = jax.jit(lambda w, y: jnp.tanh(jnp.tensordot(w, y, ((0,), (0,)))))
    z = jnp.tensordot(weights, inner(weights, y), ((0,), (0,)))
    return [z + other @ y, jnp.tensordot(y, weights, ((0,), (0,)))]


def test_slow_products_are_those_with_the_transposes():
    draw = np.random.default_rng(0)
    weights, other, y = (jnp.asarray(draw.normal(size=(4, k))) for k in (4, 4, 3))
    step = trace(by_columns, jax.ShapeDtypeStruct((), bool), weights, other, y)
    operands = jnp.array(True), weights, other, y
    faster, transposes = with_transposed_weights(step, operands[1:], range(2))
    assert len(transposes) == 1
    np.testing.assert_array_equal(transposes[0], weights.T)
    wanted = jaxpr_as_fun(step)(*operands)
    got = jaxpr_as_fun(faster)(*operands, *transposes)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    lowered = jax.jit(jaxpr_as_fun(faster)).lower(*operands, *transposes).as_text()
    assert FIRST_AXES in jax.jit(jaxpr_as_fun(step)).lower(*operands).as_text()
    assert FIRST_AXES not in lowered


def test_weights_that_change_and_other_products_stay():
    weights = jnp.ones((4, 4))
    operands = weights, weights, jnp.ones((4, 3))
    step = trace(by_columns, jax.ShapeDtypeStruct((), bool), *operands)
    assert with_transposed_weights(step, operands, range(1, 2)) == (step, [])
    operands = weights, jnp.ones((4, 3))
    rows_first = trace(lambda active, w, y: [w @ y], jnp.array(True), *operands)
    assert with_transposed_weights(rows_first, operands, range(1)) == (rows_first, [])


@pytest.mark.parametrize("product", [lambda w, y: y @ w, lambda w, y: w.T @ y])
def test_lanes_of_a_network_are_those_of_solves_alone(product):
    """With the gradient by the weights, whichever way round the field multiplies."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)), jnp.float32)
    starts = LANES.astype(jnp.float32)

    def end(weights, y0):
        field = lambda t, y, w: jnp.tanh(product(w, y)) - y
        problem = de.ODEProblem(field, y0, (0.0, 1.0), weights)
        return jnp.sum(de.solve(problem, de.Tsit5(), rtol=1e-5).y1 ** 2)

    together = lambda weights: jnp.sum(jax.vmap(end, (None, 0))(weights, starts))
    value, slope = jax.jit(jax.value_and_grad(together))(weights)
    each = [jax.value_and_grad(end)(weights, y0) for y0 in starts]
    np.testing.assert_allclose(value, sum(v for v, _ in each), rtol=1e-5)
    np.testing.assert_allclose(slope, sum(g for _, g in each), rtol=1e-4, atol=1e-5)

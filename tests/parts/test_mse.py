"""`mse`: what was not measured counts in neither the value nor the derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

DATA = jnp.array([[1.0, 2.0], [3.0, jnp.nan], [5.0, 6.0]])
Y = jnp.array([[1.5, 2.0], [3.0, 7.0], [jnp.nan, jnp.nan]])
MASK = jnp.array([True, True, False])


def test_value_is_the_mean_over_what_was_measured():
    assert float(de.mse(Y, DATA, MASK)) == pytest.approx(0.25 / 3)


def test_derivative_is_exactly_zero_where_nothing_was_measured():
    gradient = np.asarray(jax.grad(de.mse)(Y, DATA, MASK))
    expected = np.zeros((3, 2))
    expected[0, 0] = 2 * 0.5 / 3
    np.testing.assert_allclose(gradient, expected, atol=1e-15)


def test_a_solution_that_is_nan_where_there_is_data_is_no_small_loss():
    assert jnp.isnan(de.mse(Y, DATA))


def test_nothing_measured_is_zero():
    value, gradient = jax.value_and_grad(de.mse)(jnp.ones(2), jnp.full(2, jnp.nan))
    assert value == 0
    assert not gradient.any()


def test_trees_are_weighted_by_their_numbers():
    y, data = {"a": jnp.ones(3), "b": jnp.zeros(())}, {"a": jnp.zeros(3), "b": jnp.zeros(())}
    assert float(de.mse(y, data)) == pytest.approx(3 / 4)
    masked = de.mse(y, data, {"a": jnp.array([True, False, False]), "b": True})
    assert float(masked) == pytest.approx(1 / 2)


def test_complex_errors_are_lengths():
    assert float(de.mse(jnp.array([3.0 + 4.0j]), jnp.array([0.0j]))) == 25.0


@pytest.mark.parametrize(
    ("y", "data", "mask", "message"),
    [
        (jnp.ones((3, 1)), jnp.ones(3), None, r"y has shape \(3, 1\); data has \(3,\)"),
        (jnp.ones(3), jnp.ones(3), jnp.ones(2, bool), r"mask has shape \(2,\)"),
        ({"a": jnp.ones(3)}, jnp.ones(3), None, "must match"),
    ],
)
def test_shapes_that_differ_are_refused(y, data, mask, message):
    with pytest.raises(ValueError, match=message):
        de.mse(y, data, mask)


@pytest.mark.parametrize("mask", [jnp.array([0.5, 0.2, 0.0]), jnp.array([1, 1, 0])])
def test_a_mask_is_of_bools_and_no_weights(mask):
    with pytest.raises(TypeError, match=r"mask has dtype .*; bools are wanted: mask > 0"):
        de.mse(jnp.ones(3), jnp.zeros(3), mask)


def test_what_is_no_number_is_named():
    with pytest.raises(TypeError, match="y has 'a'; an array of numbers is wanted"):
        de.mse("a", "a")


@pytest.mark.thorough
def test_padding_of_save_times_and_failed_rows_are_left_out():
    problem = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 2.0), 1.0)  # blows up at t = 1
    ts = jnp.array([0.2, 0.4, 1.5, jnp.nan])
    data = jnp.array([1.25, 1.7, 9.0, jnp.nan])

    def loss(a):
        sol = de.solve(problem.replace(args=a), saveat=ts, rtol=1e-7, throw=False)
        return de.mse(sol.ys, data, sol.saved)

    value, slope = jax.value_and_grad(loss)(1.0)
    exact = np.array([1 / 0.8 - 1.25, 1 / 0.6 - 1.7])
    assert float(value) == pytest.approx(np.mean(exact**2), rel=1e-3)
    assert float(slope) == pytest.approx(
        np.mean(2 * exact * np.array([0.2 / 0.8**2, 0.4 / 0.6**2])), rel=1e-3
    )

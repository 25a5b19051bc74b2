"""A span of no length by its ends: ∂y1/∂t1 = f(t0, y0), and what follows from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

Y0, RATE, T0 = np.array([1.0, 2.0]), 1.5, 0.3


def end(t0, t1, **options):
    problem = de.ODEProblem(lambda t, y, k: t - k * y, jnp.array(Y0), (t0, t1), RATE)
    return de.solve(problem, de.Tsit5(), **options).y1


@pytest.mark.parametrize("options", [{}, {"dt": 0.1}, {"adjoint": de.Forward()}], ids=repr)
def test_forward_mode(options):
    by_t0, by_t1 = jax.jacfwd(lambda *ends: end(*ends, **options), (0, 1))(T0, T0)
    slope = T0 - RATE * Y0
    np.testing.assert_allclose(by_t1, slope, rtol=1e-14)
    np.testing.assert_allclose(by_t0, -slope, rtol=1e-14)


def test_lanes_with_and_without_length_in_reverse_mode():
    t1 = jnp.array([T0, T0 + 0.2])
    found = jax.vmap(lambda t1: jax.jacrev(end, 1)(T0, t1))(t1)
    z = Y0 - T0 / RATE + 1 / RATE**2  # y = z e^(−k s) + t/k − 1/k²
    decay = np.exp(-RATE * (np.asarray(t1) - T0))
    np.testing.assert_allclose(found, 1 / RATE - RATE * z * decay[:, None], rtol=1e-4)


def test_second_derivatives():
    hessian = jax.hessian(lambda ends: end(*ends)[0])(jnp.array([T0, T0]))
    f = T0 - RATE * Y0[0]  # y = y0 + (t1 − t0) f + (t1 − t0)²/2 (f_t + f_y f), f at (t0, y0)
    by_t1_twice, mixed = 1 - RATE * f, RATE * f
    want = [[-1 - RATE * f, mixed], [mixed, by_t1_twice]]
    np.testing.assert_allclose(hessian, want, rtol=1e-13)


def test_algebraic_states_and_delays_move_too():
    def algebraic(t1):
        f = lambda t, y, args: jnp.stack([y[1] - y[0], y[1] - jnp.sin(t) - y[0]])
        start = jnp.array([1.0, 1.0 + np.sin(T0)])
        mass = jnp.diag(jnp.array([1.0, 0.0]))
        problem = de.DAEProblem(f, start, (T0, t1), mass_matrix=mass)
        return de.solve(problem, de.Rodas5P()).y1

    slopes = np.sin(T0), np.sin(T0) + np.cos(T0)
    np.testing.assert_allclose(jax.jacfwd(algebraic)(T0), slopes, rtol=1e-12)

    def delayed(t1):
        f = lambda t, y, past, args: -past(t - 1.0)
        problem = de.DDEProblem(f, 1.0, (T0, t1), history=lambda t, args: 1.0 + t, lags=1.0)
        return de.solve(problem, de.Tsit5()).y1

    np.testing.assert_allclose(jax.grad(delayed)(T0), -T0, rtol=1e-12)


def test_a_lane_that_fails_at_its_start_poisons_nothing():
    def loss(k):
        problem = de.ODEProblem(lambda t, y, k: k * jnp.sqrt(y + 0.5), -1.0, (0.0, k), k)
        sol = de.solve(problem, de.Tsit5(), throw=False)
        return jnp.where(sol.success, sol.y1, k)

    assert float(jax.grad(loss)(1.0)) == 1.0


def test_events_at_the_ends_of_no_length_happen():
    def scaled(t0, t1, y0, rows):
        problem = de.ODEProblem(lambda t, y, k: t - k * y, y0, (t0, t1), RATE)
        times, affect = jnp.array([T0, T0, T0 + 1.0]), lambda t, y, k, row: row * y
        event = de.PresetTimes(times, affect, data=rows)
        sol = de.solve(problem, de.Tsit5(), events=event, saveat=t1[None])
        return sol.ys[0], sol

    rows, t0 = jnp.array([2.0, 3.0, 5.0]), jnp.array(T0)
    of_all = jax.jit(jax.value_and_grad(scaled, (0, 2, 3), has_aux=True))
    (y1, sol), slopes = of_all(t0, t0, jnp.array(Y0[0]), rows)
    assert float(y1) == float(sol.y1) == 6.0
    assert sol.status == de.Status.success
    np.testing.assert_array_equal(sol.events[0].before[:2], [1.0, 2.0])
    np.testing.assert_array_equal(sol.events[0].after[:2], [2.0, 6.0])
    np.testing.assert_allclose(slopes[0], -6 * (T0 - RATE * Y0[0]), rtol=1e-13)
    np.testing.assert_allclose(slopes[1], 6.0)
    np.testing.assert_allclose(slopes[2], [3.0, 2.0, 0.0])
    ends = jnp.array([T0, T0 + 0.2])
    lanes = jax.jit(jax.vmap(lambda t1: scaled(t0, t1, 1.0, rows)[0]))(ends)
    np.testing.assert_allclose(lanes[0], 6.0)
    z = 6.0 - T0 / RATE + 1 / RATE**2
    known = z * np.exp(-RATE * 0.2) + (T0 + 0.2) / RATE - 1 / RATE**2
    np.testing.assert_allclose(lanes[1], known, rtol=1e-5)


def test_what_happened_at_the_end_does_not_happen_again():
    problem = de.ODEProblem(lambda t, y, k: -k * y, jnp.array(Y0), (T0, T0), RATE)
    event = de.PresetTimes([T0], lambda t, y, k: 2 * y)
    state = de.init(problem, de.Tsit5(), events=event)
    assert state.status == de.Status.running
    state = de.step(state)
    assert state.status == de.Status.success
    np.testing.assert_array_equal(state.y, 2 * Y0)
    again = state.replace(y=jnp.array(Y0))
    assert again.status == de.Status.success
    np.testing.assert_array_equal(again.y, Y0)

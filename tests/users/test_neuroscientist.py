"""Integrate-and-fire neurons with resets and coupling; gradients of their spike times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

WEIGHTS = jnp.array([[0.0, 0.3, -0.2], [0.1, 0.0, 0.2], [0.25, 0.0, 0.0]])
CURRENTS = jnp.array([1.6, 1.3, 1.1])


def membranes(t, y, args):
    return {"v": args["current"] - y["v"] + y["synapse"], "synapse": -2.0 * y["synapse"]}


def spike(t, y, args, fired):
    """Those that fire start again, and kick the synapses of the others."""
    kick = args["weights"].T @ fired.astype(float)
    return {"v": jnp.where(fired, 0.0, y["v"]), "synapse": y["synapse"] + kick}


FIRE = de.Event(lambda t, y, args: y["v"] - 1.0, spike, direction=1)
REST = {"v": jnp.zeros(3), "synapse": jnp.zeros(3)}
ARGS = {"current": CURRENTS, "weights": WEIGHTS}


def network(args):
    problem = de.ODEProblem(membranes, REST, (0.0, 4.0), args)
    return de.solve(problem, events=FIRE, max_events=32, method=de.Tsit5(), rtol=1e-9, atol=1e-9)


def by_small_steps(args, dt=1e-4, until=4.0):
    """Spikes of the same network by Euler steps and a test after each."""
    v, s, found = np.zeros(3), np.zeros(3), []
    current, weights = np.asarray(args["current"]), np.asarray(args["weights"])
    for k in range(int(until / dt)):
        v, s = v + dt * (current - v + s), s - dt * 2 * s
        fired = v >= 1.0
        if fired.any():
            found += [((k + 1) * dt, i) for i in np.flatnonzero(fired)]
            v, s = np.where(fired, 0.0, v), s + weights.T @ fired
    return found


@pytest.mark.thorough
def test_spikes_and_their_gradients():
    sol = network(ARGS)
    record, want = sol.events[0], by_small_steps(ARGS)
    assert [int(i) for i in np.argmax(record.fired, axis=1)] == [i for _, i in want]
    np.testing.assert_allclose(record.ts, [t for t, _ in want], atol=2e-3)

    target = jnp.array([1.2, 2.4, 3.6])

    def loss(args):
        record = network(args).events[0]
        mine = jnp.where(record.fired[:, 0], record.ts, jnp.inf)
        return jnp.sum((jnp.sort(mine)[:3] - target) ** 2)

    gradient = jax.jit(jax.grad(loss))(ARGS)
    for path, i in (("current", 1), ("weights", (2, 0)), ("weights", (0, 1))):
        h = 1e-5
        up, down = ({**ARGS, path: ARGS[path].at[i].add(s * h)} for s in (1, -1))
        np.testing.assert_allclose(
            gradient[path][i], (loss(up) - loss(down)) / (2 * h), rtol=1e-5, atol=1e-7
        )


def test_a_population_by_vmap_has_rates_of_its_own():
    drive = jnp.linspace(1.05, 3.0, 5)

    def count(i):
        neuron = de.ODEProblem(lambda t, v, i: i - v, 0.0, (0.0, 20.0), i)
        reset = de.Event(lambda t, v, i: v - 1.0, lambda t, v, i: 0.0, direction=1)
        asked = {"events": reset, "max_events": 64, "rtol": 1e-5, "atol": 1e-5}
        return de.solve(neuron, de.Tsit5(), **asked).events[0].num

    want = np.floor(20.0 / np.log(drive / (drive - 1)))
    np.testing.assert_array_equal(jax.vmap(count)(drive), want)

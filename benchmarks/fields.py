"""The right-hand sides of the benchmarks, and the parameters of their small networks.

A field has the signature `field(t, y, args)`. The adapters of peers that are not written in JAX
hold their own copy of those that they can do, under the same name.
"""

import itertools

import jax.numpy as jnp
import numpy as np


def lotka_volterra(t, y, args):
    """Predator and prey: args = (a, b, c, d)."""
    prey, predator = y[0], y[1]
    a, b, c, d = args[0], args[1], args[2], args[3]
    return jnp.stack([a * prey - b * prey * predator, -c * predator + d * prey * predator])


def mlp(t, y, args):
    """A network of one hidden tanh layer, on the last axis of y."""
    return jnp.tanh(y @ args["w1"] + args["b1"]) @ args["w2"] + args["b2"]


def network(y, layers, activation=jnp.tanh):
    """A network of any depth on the last axis of y; `layers` are pairs of weights and biases."""
    *hidden, (weights, bias) = layers
    for w, b in hidden:
        y = activation(y @ w + b)
    return y @ weights + bias


def mlp_of_cube(t, y, args):
    """The network of torchdiffeq's `ode_demo`: an `mlp` of y cubed."""
    return mlp(t, y**3, args)


def oscillators(t, y, args):
    """Pendula, uncoupled: y holds all angles, then all speeds; args = (stiffness, damping)."""
    half = y.shape[0] // 2
    angle, speed = y[:half], y[half:]
    stiffness = args[0] * jnp.linspace(0.5, 1.5, half, dtype=y.dtype)
    return jnp.concatenate([speed, -stiffness * angle - args[1] * speed])


def mlp_parameters(rng, sizes, scale=None, dtype=np.float32):
    """Weights (inputs, outputs) and biases; normal, with `scale` or 1/√inputs as the deviation."""
    inputs, hidden, outputs = sizes

    def weights(rows, columns):
        deviation = rows**-0.5 if scale is None else scale
        return (deviation * rng.standard_normal((rows, columns))).astype(dtype)

    return {
        "w1": weights(inputs, hidden),
        "b1": np.zeros(hidden, dtype),
        "w2": weights(hidden, outputs),
        "b2": np.zeros(outputs, dtype),
    }


def layers(rng, sizes, dtype=np.float32):
    """The layers of a `network`: normal weights with a deviation of 1/√inputs, and zero biases."""
    return [
        (
            (rows**-0.5 * rng.standard_normal((rows, columns))).astype(dtype),
            np.zeros(columns, dtype),
        )
        for rows, columns in itertools.pairwise(sizes)
    ]

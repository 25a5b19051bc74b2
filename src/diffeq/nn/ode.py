"""Neural ordinary differential equations."""

from .layer import Layer

__all__ = ["NeuralODE"]


class NeuralODE(Layer):
    """y' = net(y), or y' = field(net, t, y, args): the neural ODE.

    See `Layer` for the arguments. One sample; batches by `jax.vmap(layer)`, or for a model under
    `jax.grad`, by `jax.vmap(lambda y0: layer(y0).ys)(batch)`.

    Reference: chen2018.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> net = eqx.nn.MLP(2, 2, 50, 1, jnp.tanh, key=jax.random.key(0))
        >>> node = de.nn.NeuralODE(net, tspan=(0.0, 1.5), saveat=jnp.linspace(0.0, 1.5, 30))
        >>> node(jnp.array([2.0, 0.0])).ys.shape
        (30, 2)
    """

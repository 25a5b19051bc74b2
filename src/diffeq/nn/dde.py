"""Neural delay differential equations."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..problems import DDEProblem
from ..problems.base import TimeSpan
from ..problems.dde import Lags
from ..validation.options import SolveOption
from .layer import Layer
from .sample import for_one_sample

__all__ = ["NeuralDDE"]


class NeuralDDE(Layer):
    """y' = net([y(t), y(t − lag₁), …]), or y' = field(net, t, y, past, args): the neural DDE.

    The network's input is the state, then the state at each lag, side by side: (1 + lags) · n
    numbers for a state of n. One sample; batches by `jax.vmap(layer)`.

    Args:
        net: an Equinox module, a Flax NNX module, a function, or, with `field`, any parameters.
        lags: one lag or several, in the unit of time; or a function of args. Arrays are trained
            with the network (a lag that becomes negative ends the solve with the status
            `bad_lags`: see `bounds` of `de.fit`); Python numbers are constants.
        history: `history(t, args)`, the state before tspan[0]; None: the y0 of the call, always.
        tspan: (t0, t1), or a function of args; a call may give another.
        field: `field(net, t, y, past, args) -> dy`; it may also take `key=`.
        solve_options: `method`, `saveat`, `rtol`, … : all that `de.solve` takes.

    Raises:
        TypeError: an option that `de.solve` does not know; neither a callable net nor a field.

    Reference: rackauckas2019.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> net = eqx.nn.MLP(4, 2, 16, 1, jnp.tanh, key=jax.random.key(0))
        >>> ts = jnp.linspace(0.0, 1.0, 5)
        >>> ndde = de.nn.NeuralDDE(net, lags=0.1, tspan=(0.0, 1.0), saveat=ts)
        >>> ndde(jnp.array([2.0, 0.0])).ys.shape
        (5, 2)
    """

    lags: Any
    history: Any

    @keywords
    def __init__(
        self,
        net: PyTree,
        *,
        lags: Lags,
        history: Callable | None = None,
        tspan: TimeSpan = None,
        field: Callable | None = None,
        **solve_options: SolveOption,
    ) -> None:
        super().__init__(net, tspan=tspan, field=field, **solve_options)
        self.lags, self.history = lags, history

    def problem(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        key: PRNGKeyArray | None = None,
    ) -> DDEProblem:
        """The equation, for `de.solve` and all else that takes a problem."""
        ode: Any = super().problem(y0, args, tspan=tspan, key=key)  # checks tspan and key
        net, field, lags = self.net, self.field, self.lags
        options = {} if key is None else {"key": key}
        one = for_one_sample(lambda y: net(y, **options), type(self).__name__)

        def plain(t: Array, y: PyTree, past: Callable, args: PyTree) -> PyTree:
            now = lags(args) if callable(lags) else lags
            seen = [past(t - lag) for lag in jnp.ravel(jnp.asarray(now))]
            return one(jnp.concatenate([jnp.ravel(y), *map(jnp.ravel, seen)]))

        def given(t: Array, y: PyTree, past: Callable, args: PyTree) -> PyTree:
            return field(net, t, y, past, args, **options)

        # Without a history of its own the equation has always been where it starts.
        constant = self.history is None
        return DDEProblem(
            plain if field is None else given,
            None if constant else ode.y0,
            ode.tspan,
            args,
            history=ode.y0 if constant else self.history,
            lags=lags,
        )

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
        history: `history(t, args)`, the state before tspan[0]; None: the y0 of the call, always
            (of a y0 that is a function of args, its value).
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

        An equation that is known but for a matrix:

        >>> def field(matrix, t, y, past, args):
        ...     return matrix @ past(t - 0.3) - y
        >>> known = de.nn.NeuralDDE(jnp.eye(2), lags=0.3, field=field, tspan=(0.0, 1.0))
        >>> known(jnp.array([2.0, 0.0])).y1.shape
        (2,)
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
        # Without a history of its own the equation has always been where it starts.
        constant = self.history is None
        return DDEProblem(
            self._equation(key),
            None if constant else y0,
            self._span(tspan),
            args,
            history=_always(y0) if constant else self.history,
            lags=self.lags,
        )

    def _equation(self, key: PRNGKeyArray | None) -> Callable:
        """The field as a problem takes it."""
        call, lags = self._function(key), self.lags
        self._check_field(key, "net, t, y, past, args")
        if self.field is not None:
            return lambda t, y, past, args: call(t, y, past, args)

        def plain(t: Array, y: PyTree, past: Callable, args: PyTree) -> PyTree:
            now = lags(args) if callable(lags) else lags
            seen = [past(t - lag) for lag in jnp.ravel(jnp.asarray(now))]
            return call(jnp.concatenate([jnp.ravel(y), *map(jnp.ravel, seen)]))

        return plain


def _always(y0: PyTree) -> PyTree:
    """A history that is y0 at all times."""
    return (lambda t, args: y0(args)) if callable(y0) else y0

"""Neural equations of motion."""

from collections.abc import Callable

from jaxtyping import PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..problems import SecondOrderProblem
from ..problems.base import TimeSpan
from ..validation.options import SolveOption
from .layer import Layer

__all__ = ["SecondOrder"]


class SecondOrder(Layer):
    """x'' = net(x), or x'' = field(net, t, x, v, args): a neural ODE of second order.

    Its state is the pair (x, v) of positions and velocities. What makes it more than a neural ODE
    of twice the size: that x' is v is known, not learnt; and where the acceleration does not depend
    on v, symplectic and Nyström methods (`de.VelocityVerlet`, `de.DPRKN6`) serve.

    Args:
        net: as in `Layer`; takes x and returns an acceleration of its shape.
        tspan: (t0, t1), or a function of args; a call may give another.
        field: `field(net, t, x, v, args)`, for all that is not net(x), damping for example.
        solve_options: `method`, `saveat`, `rtol`, … : all that `de.solve` takes.

    `layer((x0, v0))` returns a `Solution` whose `ys` is (x, v).

    Raises:
        TypeError: as `Layer`; y0 is no pair.

    Reference: norcliffe2020.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> net = eqx.nn.MLP(2, 2, 16, 1, jnp.tanh, key=jax.random.key(0))
        >>> layer = de.nn.SecondOrder(net, tspan=(0.0, 1.0), method=de.DPRKN6())
        >>> x, v = layer((jnp.ones(2), jnp.zeros(2))).y1
        >>> x.shape, v.shape
        ((2,), (2,))
    """

    @keywords
    def __init__(
        self,
        net: PyTree,
        *,
        tspan: TimeSpan = None,
        field: Callable | None = None,
        **solve_options: SolveOption,
    ) -> None:
        super().__init__(net, tspan=tspan, field=field, **solve_options)

    def problem(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        key: PRNGKeyArray | None = None,
    ) -> SecondOrderProblem:
        """The equation, for `de.solve` and all else that takes a problem."""
        x0, v0 = pair(y0, "(x0, v0)")
        return SecondOrderProblem(self._equation(key), x0, v0, self._span(tspan), args)

    def _equation(self, key: PRNGKeyArray | None) -> Callable:
        call = self._function(key)
        if self.field is None:
            return lambda t, x, v, args: call(x)
        return lambda t, x, v, args: call(t, x, v, args)


def pair(value: PyTree, wanted: str, name: str = "y0") -> tuple[PyTree, PyTree]:
    """The two halves of a state.

    >>> pair([1.0, 2.0, 3.0], "(x0, v0)")
    Traceback (most recent call last):
    TypeError: y0 is a list of 3; a pair (x0, v0) is wanted.
    """
    few = isinstance(value, (tuple, list))
    if few and len(value) == 2:
        return value[0], value[1]
    shown = f"a {type(value).__name__}" + (f" of {len(value)}" if few else "")
    raise TypeError(f"{name} is {shown}; a pair {wanted} is wanted.")

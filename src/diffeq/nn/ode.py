"""Neural ordinary differential equations, also with a mass matrix and algebraic equations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..core.packing import as_state
from ..core.user_functions import check_arguments
from ..problems import DAEProblem, Problem
from ..problems.base import TimeSpan
from ..validation.options import SolveOption
from .layer import Frozen, Layer

__all__ = ["NeuralODE", "as_vector", "check_constraints", "checked_vector"]


class NeuralODE(Layer):
    """y' = net(y), or y' = field(net, t, y, args): the neural ODE.

    With `constraints` it is M y' = [net(y); constraints(t, y, args)] for a vector y: the network
    gives the first components of the right side and the constraints the others, which are algebraic
    equations, 0 = g(t, y), that hold in every row. They have to determine the last components of y
    (index 1), of which y0 is a guess; the default method is then Rodas5P.

    See `Layer` for the other arguments. One sample; batches by `jax.vmap(layer)`, or for a model
    under `jax.grad`, by `jax.vmap(lambda y0: layer(y0).ys)(batch)`.

    Args:
        constraints: `constraints(t, y, args)`, k numbers that are to be zero.
        mass_matrix: M, as in `DAEProblem`, a constant. None: 1 but for zeros on the diagonal where
            the constraints stand. It may be given without constraints: the network or the field
            then gives all of the right side.

    Raises:
        TypeError: as `Layer`; with constraints, y0 is no vector, or the network and the constraints
            do not give as many numbers as y has.

    Reference: chen2018; rackauckas2019.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> net = eqx.nn.MLP(2, 2, 50, 1, jnp.tanh, key=jax.random.key(0))
        >>> node = de.nn.NeuralODE(net, tspan=(0.0, 1.5), saveat=jnp.linspace(0.0, 1.5, 30))
        >>> node(jnp.array([2.0, 0.0])).ys.shape
        (30, 2)

        Three fractions, of which two are learnt:

        >>> layer = de.nn.NeuralODE(
        ...     eqx.nn.MLP(3, 2, 8, 1, jnp.tanh, key=jax.random.key(0)), tspan=(0.0, 1.0),
        ...     constraints=lambda t, y, args: [y[0] + y[1] + y[2] - 1],
        ... )
        >>> round(float(layer(jnp.array([0.5, 0.2, 0.0])).y1.sum()), 4)
        1.0
    """

    constraints: PyTree
    mass: Frozen

    @keywords
    def __init__(
        self,
        net: PyTree,
        *,
        tspan: TimeSpan = None,
        field: Callable | None = None,
        constraints: PyTree = None,
        mass_matrix: PyTree = None,
        **solve_options: SolveOption,
    ) -> None:
        super().__init__(net, tspan=tspan, field=field, **solve_options)
        if constraints is not None:
            check_constraints(constraints)
        self.constraints, self.mass = constraints, Frozen(mass_matrix)

    def problem(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        key: PRNGKeyArray | None = None,
    ) -> Problem:
        """The equation, for `de.solve` and all else that takes a problem."""
        ode: Any = super().problem(y0, args, tspan=tspan, key=key)
        mass = self.mass.value
        if self.constraints is None and mass is None:
            return ode
        if self.constraints is None:
            return DAEProblem(ode.f, y0, ode.tspan, args, mass_matrix=mass)
        check_arguments(self.constraints, "constraints", "t, y, args")
        start, both = checked_vector(y0, args), (ode.f, self.constraints)
        free, fixed = (
            jax.eval_shape(lambda f=f: as_vector(f(0.0, start, args))).size for f in both
        )
        if free + fixed != start.size:
            raise TypeError(
                f"the network gives {free} numbers and the constraints {fixed}; together they have "
                f"to be as many as y has, {start.size}."
            )
        if mass is None:
            mass = jnp.concatenate([jnp.ones(free), jnp.zeros(fixed)])
        return DAEProblem(self._rows(ode.f), y0, ode.tspan, args, mass_matrix=mass)

    def _rows(self, field: Callable) -> Callable:
        constraints = self.constraints
        return lambda t, y, args: jnp.concatenate(
            [as_vector(field(t, y, args)), as_vector(constraints(t, y, args))]
        )


def checked_vector(y0: PyTree, args: PyTree) -> Array:
    """The initial state of a layer whose rows have an order."""
    start = as_state(y0(args) if callable(y0) else y0)
    if getattr(start, "ndim", None) != 1:
        raise TypeError(
            f"y0 is {start!r}; with constraints a vector is wanted, for the rows of the network "
            "and of the constraints to have their places."
        )
    return jnp.asarray(start)


def check_constraints(constraints: Any) -> None:
    """Refuses what cannot be called."""
    if not callable(constraints):
        raise TypeError(
            f"constraints is {constraints!r}; a function constraints(t, y, args) is wanted, whose "
            "numbers are to be zero."
        )


def as_vector(value: PyTree) -> Array:
    """The value of a network or of constraints, as a vector."""
    return jnp.ravel(jnp.asarray(as_state(value)))

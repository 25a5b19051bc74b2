"""Neural differential-algebraic equations."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..autodiff.jax_internals import Tracer
from ..core.keywords import keywords
from ..core.user_functions import check_arguments
from ..problems import ImplicitDAEProblem
from ..problems.base import TimeSpan
from ..solution import Solution
from ..solve import solve
from ..validation.options import SaveTimes, SolveOption
from .layer import Layer
from .ode import as_vector, check_constraints, checked_vector

__all__ = ["NeuralDAE"]


class NeuralDAE(Layer):
    """0 = field(net, t, y, dy, args) for the differential components of a vector y, and
    0 = constraints(t, y, args) for the algebraic ones: the neural DAE, fully implicit.

    Without a field the differential components are learnt as slopes, 0 = dy − net(y). With
    `field=lambda net, t, y, dy, args: net(jnp.concatenate([y, dy]))` the network is the residual;
    slopes are found only while its derivative by dy is regular. In dy the algebraic components,
    whose slopes are in no equation, are zero. Where y' is alone on its side,
    `NeuralODE(constraints=…)` is the same equation for Rosenbrock methods.

    Args:
        net: as in `Layer`; without a field it takes y and returns one number for each differential
            component, in their order.
        constraints: `constraints(t, y, args)`, one number for each algebraic component; they have
            to determine these (index 1).
        differential: which components of y are differential: booleans, known before tracing.
        tspan: (t0, t1), or a function of args; a call may give another.
        field: `field(net, t, y, dy, args)`, what is to be zero for the differential components; it
            may also take `key=`.
        solve_options: `method` (BDF or RadauIIA5), `saveat`, `rtol`, … : all that `de.solve` takes.

    `layer(y0, args, dy0=…)`: differential components of y0 are kept; the others, and dy0 (zeros,
    where there is none), are guesses.

    Raises:
        TypeError: as `Layer`; differential is no sequence of booleans; y0 is no vector as long as
            it; the network or the constraints give more or fewer numbers.

    Reference: rackauckas2019.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> net = eqx.nn.MLP(3, 2, 8, 1, jnp.tanh, key=jax.random.key(0))
        >>> layer = de.nn.NeuralDAE(
        ...     net, lambda t, y, args: [y[0] + y[1] + y[2] - 1],
        ...     differential=[True, True, False], tspan=(0.0, 1.0),
        ... )
        >>> round(float(layer(jnp.array([0.5, 0.2, 0.0])).y1.sum()), 4)
        1.0
    """

    constraints: PyTree
    differential: tuple[bool, ...] = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        net: PyTree,
        constraints: PyTree,
        *,
        differential: Any,
        tspan: TimeSpan = None,
        field: Callable | None = None,
        **solve_options: SolveOption,
    ) -> None:
        super().__init__(net, tspan=tspan, field=field, **solve_options)
        check_constraints(constraints)
        flags = np.asarray(None if isinstance(differential, Tracer) else differential)
        if flags.dtype != bool or flags.ndim != 1:
            raise TypeError(
                f"differential is {differential!r}; booleans that are known before tracing are "
                "wanted, one for each component of a vector y: whether it is differential."
            )
        self.constraints, self.differential = constraints, tuple(flags.tolist())

    def problem(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        dy0: PyTree = None,
        tspan: TimeSpan = None,
        key: PRNGKeyArray | None = None,
    ) -> ImplicitDAEProblem:
        """The equation, for `de.solve` and all else that takes a problem."""
        start = checked_vector(y0, args)
        if start.size != len(self.differential):
            raise TypeError(
                f"y0 has {start.size} components, and differential speaks of "
                f"{len(self.differential)}."
            )
        dy0 = jnp.zeros(start.shape, jnp.result_type(start, float)) if dy0 is None else dy0
        return ImplicitDAEProblem(
            self._equation(key),
            y0,
            self._span(tspan),
            args,
            dy0=dy0,
            differential=np.array(self.differential),
        )

    def _equation(self, key: PRNGKeyArray | None) -> Callable:
        call = self._function(key)
        self._check_field(key, "net, t, y, dy, args")
        check_arguments(self.constraints, "constraints", "t, y, args")
        if self.field is None:
            return _Residual(
                lambda t, y, dy, args: call(y), self.constraints, self.differential, True
            )
        return _Residual(call, self.constraints, self.differential, False)

    def __call__(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        dy0: PyTree = None,
        tspan: TimeSpan = None,
        saveat: SaveTimes = None,
        key: PRNGKeyArray | None = None,
    ) -> Solution:
        """Solves for one sample.

        Args:
            y0: the initial state, a vector; its algebraic components are guesses.
            args: what `field` and `constraints` get as args.
            dy0: a guess of its slope; zeros, where there is none.
            tspan: another time span than the layer's.
            saveat: other save times.
            key: one key for the whole solve, given to the network (or the field) as `key=`.
        """
        options = self.options
        del options["tspan"]
        if saveat is not None:
            options["saveat"] = saveat
        return solve(self.problem(y0, args, dy0=dy0, tspan=tspan, key=key), **options)


class _Residual(eqx.Module):
    """The rows in their places, which are static here: what a function closes over is traced."""

    learnt: Callable
    constraints: Callable
    differential: tuple[bool, ...] = eqx.field(static=True)
    plain: bool = eqx.field(static=True)

    def __call__(self, t: Array, y: PyTree, dy: PyTree, args: PyTree) -> Array:
        flags = np.array(self.differential)
        places, others = np.flatnonzero(flags), np.flatnonzero(~flags)
        dy = jnp.where(flags, dy, 0)
        learnt = as_vector(self.learnt(t, y, dy, args))
        known = as_vector(self.constraints(t, y, args))
        _check_count("the network" if self.plain else "field", learnt, "differential", places)
        _check_count("constraints", known, "algebraic", others)
        learnt = dy[places] - learnt if self.plain else learnt
        rows = jnp.concatenate([learnt, known])
        order = np.argsort(np.concatenate([places, others]))
        return rows if (np.diff(order) == 1).all() else rows[order]


def _check_count(name: str, value: Array, kind: str, places: np.ndarray) -> None:
    if value.size != places.size:
        raise TypeError(
            f"{name} gives {value.size} numbers; one for each {kind} component is wanted, and "
            f"differential says that there are {places.size}."
        )

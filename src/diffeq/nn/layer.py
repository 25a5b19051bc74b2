"""`Layer`: a network, the equation it stands in, and how that is solved."""

import inspect
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ..autodiff.jax_internals import Tracer
from ..closures import Static, flatten, unflatten
from ..core.keywords import keywords, unknown
from ..core.user_functions import check_arguments
from ..problems import ODEProblem, Problem
from ..problems.base import TimeSpan
from ..solution import Solution
from ..solve import solve
from ..validation import SolveOptions, check_no_torch, explicit_for
from ..validation.options import SaveTimes, SolveOption
from .sample import check_instance, for_one_sample

__all__ = ["Frozen", "Layer", "check_options", "with_method"]


class Layer(eqx.Module):
    """A differential equation with a network in it: y' = field(net, t, y, args).

    The layer is an `equinox.Module`: what is trained in it is the network (and the field, when
    that is a module, too). Save times, tolerances and all other options are constants.

    Args:
        net: an Equinox module, a Flax NNX module, a function, or, with `field`, any pytree of
            parameters.
        tspan: (t0, t1), or a function of args; a call may give another.
        field: `field(net, t, y, args) -> dy`; by default `net(y)`. It may also take `key=`.
        solve_options: `method`, `saveat`, `rtol`, … : all that `de.solve` takes. Where `de.solve`
            would look for stiffness, a layer takes the explicit method alone, which compiles in
            half the time: a network is smooth at first, and training is a compiled program.

    Raises:
        TypeError: an option that `de.solve` does not know; neither a callable net nor a field.

    Example:
        A network that corrects a known equation, and its parameters in a plain dictionary:

        >>> import jax.numpy as jnp, diffeq as de
        >>> def field(net, t, y, rate):
        ...     return -rate * y + jnp.tanh(net["weight"] @ y)
        >>> layer = de.nn.Layer({"weight": jnp.eye(2)}, tspan=(0.0, 1.0), field=field)
        >>> layer(jnp.ones(2), 0.5).ys.shape
        (1, 2)
    """

    net: PyTree
    field: PyTree
    traced: list  # options made inside a trace; else empty
    constants: "LayerConstants" = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        net: PyTree,
        *,
        tspan: TimeSpan = None,
        field: Callable | None = None,
        **solve_options: SolveOption,
    ) -> None:
        check_instance("net", net)
        check_instance("field", field)
        if field is None and not callable(net):
            raise TypeError(
                f"net is a {type(net).__name__}, which is not callable: say how it enters the "
                "equation with field=lambda net, t, y, args: …"
            )
        check_no_torch("net", net)
        check_no_torch("field", field)
        check_options("Layer", solve_options)
        self.net = net
        self.field = field
        self.traced, self.constants = _freeze({"tspan": tspan, **solve_options})

    @property
    def options(self) -> dict[str, Any]:
        """The time span and what else is given to `de.solve`."""
        return _thaw(self.traced, self.constants)

    def problem(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        key: PRNGKeyArray | None = None,
    ) -> Problem:
        """The equation, for `de.solve` and all else that takes a problem."""
        return ODEProblem(self._equation(key), y0, self._span(tspan), args)

    def _span(self, tspan: TimeSpan) -> TimeSpan:
        """The time span of a call, or the layer's own."""
        tspan = self.options["tspan"] if tspan is None else tspan
        if tspan is None:
            raise TypeError("tspan is not known: give it to the layer, or to its call.")
        return tspan

    def _equation(self, key: PRNGKeyArray | None) -> Callable:
        """The field as a problem takes it."""
        call = self._function(key)
        self._check_field(key, "net, t, y, args")
        if self.field is None:
            return lambda t, y, args: call(y)
        return lambda t, y, args: call(t, y, args)

    def _check_field(self, key: PRNGKeyArray | None, arguments: str) -> None:
        if self.field is not None:
            field = self.field if key is None else partial(self.field, key=key)
            check_arguments(field, "field", arguments)

    def _function(self, key: PRNGKeyArray | None) -> Callable:
        """`net`, or `field` with its net, and with the key in its place."""
        net, field = self.net, self.field
        if key is not None:
            _check_takes_key(net if field is None else field)
        if field is None:
            call = (lambda *z: net(*z)) if key is None else lambda *z: net(*z, key=key)
        else:
            call = partial(field, net) if key is None else partial(field, net, key=key)
        return for_one_sample(call, type(self).__name__)

    def __call__(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        saveat: SaveTimes = None,
        key: PRNGKeyArray | None = None,
    ) -> Solution:
        """Solves for one sample.

        Args:
            y0: the initial state.
            args: what `field` gets as args.
            tspan: another time span than the layer's.
            saveat: other save times.
            key: one key for the whole solve, given to the network (or the field) as `key=`: with
                it, dropout is the same at every stage of every step.
        """
        problem, options = self.problem(y0, args, tspan=tspan, key=key), self.options
        del options["tspan"]
        if saveat is not None:
            options["saveat"] = saveat
        return solve(problem, **with_method(problem, options))


def with_method(problem: Problem, options: dict[str, SolveOption]) -> dict[str, SolveOption]:
    """The options, with the explicit method of an ODE where none is named."""
    if options.get("method") is not None or not problem.is_ode:
        return options
    return {**options, "method": explicit_for(options.get("rtol"))}


class LayerConstants:
    """The constants among the options of a layer, equal by value, and part of its `repr`. None
    takes the place of options that are traced.
    """

    def __init__(self, structure: Hashable, leaves: list) -> None:
        self.structure, self.leaves = structure, leaves
        self._key = (structure, Static(tuple(leaves)))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerConstants) and other._key == self._key

    def __repr__(self) -> str:
        if any(x is None for x in self.leaves):
            return "options"
        options = unflatten(self.structure, self.leaves)
        return ", ".join(f"{k}={_short_repr(v)}" for k, v in options.items() if v is not None)


class Frozen(eqx.Module):
    """A constant of a layer: no optimiser changes it, though its arrays may be traced."""

    traced: list
    constants: LayerConstants = eqx.field(static=True)

    def __init__(self, value: PyTree) -> None:
        self.traced, self.constants = _freeze({"value": value})

    @property
    def value(self) -> PyTree:
        """The constant."""
        return _thaw(self.traced, self.constants)["value"]


def _freeze(options: dict[str, PyTree]) -> tuple[list, LayerConstants]:
    """The options apart: what is being traced, and the constants.

    A constant that were a leaf of the layer would be trained: `eqx.filter_grad` and optimisers take
    every array of floats for a parameter, the save times included.
    """
    leaves, structure = flatten(options)
    known = [not isinstance(x, Tracer) for x in leaves]
    constants = [
        (np.asarray(x) if isinstance(x, jax.Array) else x) if k else None
        for x, k in zip(leaves, known, strict=True)
    ]
    return [x for x, k in zip(leaves, known, strict=True) if not k], LayerConstants(
        structure, constants
    )


def _thaw(traced: list, constants: LayerConstants) -> dict[str, Any]:
    rest = iter(traced)
    return unflatten(
        constants.structure, [next(rest) if x is None else x for x in constants.leaves]
    )


def _short_repr(x: PyTree) -> str:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else repr(x)


def check_options(name: str, options: dict[str, SolveOption]) -> None:
    """Refuses options that `de.solve` does not know."""
    known = [name for name in SolveOptions.names() if name != "key"]
    for option in options:
        if option not in known:
            raise TypeError(unknown(name, option, ["tspan", "field", *known]))


def _check_takes_key(f: Callable) -> None:
    try:
        parameters = inspect.signature(f).parameters
    except (TypeError, ValueError):
        return
    if "key" not in parameters and all(p.kind != p.VAR_KEYWORD for p in parameters.values()):
        name = getattr(f, "__name__", type(f).__name__)
        raise TypeError(
            f"key was given, but {name} takes none: write {name}(…, *, key) or leave key out."
        )

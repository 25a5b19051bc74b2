"""Controlled differential equations: dy = f(t, y, args) dX(t) along a path X."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..autodiff.discontinuity_times import jumps_of, time
from ..autodiff.jax_internals import Tracer
from ..core.packing import as_state
from ..core.user_functions import check_arguments, described
from .base import Problem, TimeSpan

__all__ = ["CDEProblem", "Path", "by_increments", "check_control", "covered", "span_of"]

_WAYS = ("derivative", "increments")


class CDEProblem(Problem):
    """dy = f(t, y, args) dX(t) on tspan, y(tspan[0]) = y0, along a control X with some channels: a
    measured series, a price, a path.

    By its `derivative` it is solved as the ordinary equation y' = f(t, y, args) dX/dt, by all
    methods and adjoints. A control from `de.interp` has its derivative in closed form, and steps
    end where that jumps; of another function of time it is found by forward mode, and steps end
    where that of a table jumps which it calls (at the times of `jnp.interp` if they are `stops=`).
    Along a
    `de.interp.LogSignature` this is the log-ODE method, by the brackets of f, for series that are
    long or rough.

    By `increments` a step from t sees the difference ΔX = X(t + dt) − X(t) in place of dt: Euler's
    method is y + f(t, y) ΔX, and Heun's y + ½ (f(t, y) + f(t + dt, y + f(t, y) ΔX)) ΔX. So X needs
    no derivative: a path of a Brownian motion, on which Heun's method solves the equation in
    Stratonovich's sense. Steps are given then, by `dt=` or `controller=de.Fixed(ts)`, as no
    estimate sees what X does inside of one. The default method is Heun's.

    Args:
        f: takes t, y and args, and returns an array of the shape of y with one more axis at the
            end, of the number of channels: column j goes with channel j of X. Of a tree y each leaf
            has it.
        control: X, called with t; a vector of real numbers, one for each channel. Time is no
            channel of itself: where it matters how fast X moves, it is to be one. The solution
            differentiates by the values and the times of a table.
        y0: the initial state: any pytree of arrays and numbers; or a function of args.
        tspan: (t0, t1), forwards or backwards in time; or a function of args, or a pair with one.
            A control from a table has to cover it.
        args: parameters, any pytree; networks are fine, in args or inside f.
        by: "derivative" or "increments".

    Raises:
        TypeError: (by `solve`) f returns another shape; control jumps (`de.interp.Hold`), is no
            function of t, or has no axis of channels; a method that is not made for increments.
        ValueError: (by `solve`) control ends inside of tspan; increments without given steps.

    Reference: kidger2020; lyons2007.

    Example:
        With a column that is y itself, y is multiplied by the exponential of the increment of X,
        whatever way X takes:

        >>> import jax.numpy as jnp, diffeq as de
        >>> ts = jnp.array([0.0, 0.4, 1.0])
        >>> X = de.interp.Linear(ts, jnp.array([[0.0], [3.0], [1.0]]))
        >>> problem = de.CDEProblem(lambda t, y, args: y[:, None], X, jnp.ones(1), (0.0, 1.0))
        >>> sol = de.solve(problem, rtol=1e-6, atol=1e-6)
        >>> round(float(sol.y1[0]), 4), int(sol.stats["stops"])
        (2.7183, 1)
    """

    is_ode = True
    fields = ("f", "control", "y0", "tspan", "args", "by")
    functions: ClassVar[dict[str, str]] = {"f": "t, y, args", "control": "t"}

    def __init__(
        self,
        f: Callable,
        control: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        by: str = "derivative",
    ) -> None:
        self.f, self.control, self.y0 = f, control, as_state(y0)
        self.tspan, self.args, self.by = tspan, args, by
        self._check_word()

    def replace(self, **changes: PyTree) -> "CDEProblem":
        """Returns the problem with other fields; unknown names and words are refused."""
        other = super().replace(**changes)
        other._check_word()
        return other

    def _check_word(self) -> None:
        if self.by not in _WAYS:
            raise ValueError(f"by is {self.by!r}; 'derivative' or 'increments' is wanted.")


@runtime_checkable
class _Pieces(Protocol):
    """A table as polynomials between its knots (`interp.base.PiecewisePolynomial`)."""

    def slope(self, t: Array) -> Any:
        """The derivative by time."""
        ...


@runtime_checkable
class _Table(Protocol):
    """A control from a table (`interp.base.Table`): with infinite times behind its last one."""

    ts: Array

    def pieces(self) -> Any:
        """The table as polynomials."""
        ...


@runtime_checkable
class _Windows(_Table, Protocol):
    """A control by log-signatures (`interp.LogSignature`)."""

    depth: int
    channels: int


class Path:
    """A control as an equation reads it: how many `channels` it has, and to which `depth` it has
    numbers for their brackets, with `words` numbers in all; `value(t)`, and its derivative
    `rate(t)`.
    """

    def __init__(self, control: Any) -> None:
        self.value: Callable = control
        self.words = _values_of(control)
        self.channels, self.depth = self.words, 1
        if isinstance(control, _Windows):
            self.channels, self.depth = control.channels, control.depth
        # The polynomials of a table are found here, once, and not at each stage.
        self.rate: Callable = (
            control.pieces().slope if hasattr(control, "pieces") else _slope_of(self.value)
        )


def _slope_of(control: Callable) -> Callable[[Array], Array]:
    """The derivative of a function of time."""
    return lambda t: jax.jvp(control, (t,), (jnp.ones_like(t),))[1]


def _values_of(control: Callable) -> int:
    """The number of values of a control; what has no axis of channels is refused."""
    check_arguments(control, "control", "t")
    value = jax.eval_shape(control, jax.ShapeDtypeStruct((), jnp.result_type(float)))
    leaf = value if hasattr(value, "shape") else None
    if leaf is None or len(leaf.shape) != 1 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        number = leaf is not None and not leaf.shape
        hint = " Of one number write xs[:, None], or jnp.stack([x])." if number else ""
        raise TypeError(
            f"control returned {described(value)}; a vector of real numbers is wanted, one for "
            f"each channel.{hint}"
        )
    return leaf.shape[0]


def check_control(problem: CDEProblem, span: tuple[float, float] | None) -> None:
    """Refuses a control without channels, one that jumps, and, where the times are known, one that
    ends inside of the span.
    """
    control: Any = problem.control
    _values_of(control)
    if hasattr(control, "pieces"):
        jax.eval_shape(control.pieces)  # a table that jumps has none
    else:
        _check_continuous(control)
    if span is None or not isinstance(control, _Table) or isinstance(control.ts, Tracer):
        return
    if not covers(control, *map(jnp.asarray, span)):
        ts = np.asarray(control.ts)
        if np.isnan(span_of(control.ts)[1]):
            raise ValueError(
                f"control has the times {ts}; increasing ones are wanted, with padding at the end "
                "alone."
            )
        first, last = ts[0], ts[np.isfinite(ts)][-1]
        raise ValueError(
            f"control has times from {first:g} to {last:g}, and tspan = ({span[0]:g}, "
            f"{span[1]:g}) goes beyond, where nothing drives the equation. Give a tspan inside of "
            "them, or values at its ends, too."
        )


def _check_continuous(control: Callable) -> None:
    """Refuses a function of time that calls an input which jumps."""
    t = jnp.zeros((), jnp.result_type(float))
    found = jumps_of(jax.make_jaxpr(control)(t), [time(t.dtype)])
    if found.times or found.hidden:
        raise TypeError(
            "control jumps, and dX of a jump means nothing before it is said on which way X goes "
            "there: write de.interp.Linear(ts, xs), or de.interp.Rectilinear(ts, xs)."
        )


def span_of(ts: Array) -> tuple[Array, Array]:
    """The first and the last time of a series with NaN, or infinity, for padding; where the times
    do not increase, or padding stands before one, the last is NaN.

    >>> [float(t) for t in span_of(jnp.array([0.5, 1.0, jnp.nan]))]
    [0.5, 1.0]
    >>> float(span_of(jnp.array([0.5, jnp.nan, 1.0]))[1])
    nan
    """
    known = jnp.isfinite(ts)
    increase = known[0] & jnp.all((ts[1:] > ts[:-1]) | ~known[1:])
    last = jnp.max(jnp.where(known, ts, -jnp.inf))
    return ts[0], jnp.where(increase, last, jnp.nan)


def covers(control: Any, t0: Array, t1: Array) -> Array:
    """True if t0 and t1 lie within the times of a table, up to rounding, and these increase."""
    first, last = span_of(control.ts)
    near = 4 * float(jnp.finfo(first.dtype).eps) * jnp.maximum(jnp.abs(first), jnp.abs(last))
    return (jnp.minimum(t0, t1) >= first - near) & (jnp.maximum(t0, t1) <= last + near)


def covered(problem: Problem, t0: Array, t1: Array) -> tuple[Array, Array]:
    """The interval; where a control from a table does not cover it, or has times that do not
    increase, its end is NaN, which no solve reaches.
    """
    control: Any = problem.control if isinstance(problem, CDEProblem) else None
    if not isinstance(control, _Table):
        return t0, t1
    return t0, jnp.where(jax.lax.stop_gradient(covers(control, t0, t1)), t1, jnp.nan)


def by_increments(problem: Problem) -> bool:
    """True if steps of the problem see the increments of a control."""
    return isinstance(problem, CDEProblem) and problem.by == "increments"

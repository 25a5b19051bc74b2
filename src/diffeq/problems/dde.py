"""Delay differential equations: y' = f(t, y, past, args), where past(s) is y at an earlier time."""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..core.packing import as_state
from ..core.user_functions import accepts
from .base import Problem, TimeSpan, evaluated

__all__ = ["DDEProblem", "Lags", "SinceStart", "depends_on_state"]

type Lags = PyTree
"""Numbers; or a function of args, or of (t, y, args) where they depend on the state."""


class DDEProblem(Problem):
    """y' = f(t, y, past, args) with past(s) = y(s) for any s ≤ t, and y = history before the start.

    Args:
        f: the field, dy/dt from t, y, `past` and args. `past(s)` has the structure of y; s is a
            time, or an array of times, whose axes come first in the result.
        y0: the state at the start; None: history(t0). Another one is a jump there.
        tspan: (t0, t1); or a function of args. Where time runs backwards the equation is one of
            advanced type: the past lies at later times, `past(t + lag)`.
        args: parameters, any pytree.
        history: `history(t, args)`, y at times before t0; or what y was there, as a constant.
        lags: the lags that f uses, one or a sequence, in the unit of time; or a function of args
            that returns them; or one of (t, y, args), where they depend on the state. `()` declares
            none.

    Constant lags carry the kink at t0 onwards: derivatives jump at t0 + Σ nᵢ lagᵢ. Steps end
    there, as often as the method's order asks for. Kinks of lags that depend on the state, and of
    lags that were not declared, are left to the control of errors. A step may be longer than a
    lag: then it looks at itself, and is repeated until it agrees with what it saw. Lags, history,
    y0, args and tspan all differentiate, by `de.Discrete`.

    A history may jump where it turns from one formula to another by a comparison of t with a
    number, or calls `interp.Hold`: steps end where that comes back by a number. (Other jumps of
    a history, as of `jnp.floor(t)`, want `stops=`, T + lag.) A y0 that is given is a jump; where it
    comes back at a time that is not known, because a lag depends on the state, a derivative is
    refused: before the solve if the lag is not declared, else by the status `undifferentiable`.

    Where the equation is stiff take an implicit method. Its Jacobian is ∂f/∂y with the past as it
    is: what a step sees of itself is iterated, which converges while dt · ∂f/∂past is small, or
    else holds dt below the lag.

    Events see y, and what they change is a jump of the past: past(s) is what y was before it for
    s < t*, and after it for s > t*, as at t0. It comes back at t* + Σ nᵢ lagᵢ, where steps end,
    too. So does what is held: past(s) has such leaves as they were at s (and `history` must). Where
    lags are not constant, or not declared, what comes back is left to the control of errors, and
    has no derivative, which is refused. There is no solve by hand (`init`).

    Raises:
        TypeError: (by `solve`) f takes other arguments; history or y0 has another structure or
            other shapes than the other; lags are no numbers; the method is for other equations, or
            has a stage beyond the end of its steps (Kvaerno5), where the past may have jumped.
        ValueError: (by `solve`) a lag is not positive and finite.
        SolveError: (by `solve`) f asked for past(s) with s > t; or for what is no longer kept.

    Reference: hairer1993, II.17; bellen2003; guglielmi2001.

    Example:
        >>> import diffeq as de
        >>> def f(t, y, past, lag):
        ...     return -past(t - lag)
        >>> problem = de.DDEProblem(f, None, (0.0, 2.0), 1.0, history=1.0, lags=lambda lag: lag)
        >>> round(float(de.solve(problem).y1), 4)  # 1 − t, then 1 − t + (t − 1)²/2
        -0.5
        >>> dose = de.PresetTimes([0.5], lambda t, y, lag: y + 1)  # it acts from 1.5 on
        >>> round(float(de.solve(problem, events=dose).y1), 4)
        0.0
    """

    fields = ("f", "y0", "tspan", "args", "history", "lags")
    functions: ClassVar[dict[str, str]] = {"f": "t, y, past, args"}
    delayed: ClassVar[bool] = True

    def __init__(
        self,
        f: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        history: PyTree,
        lags: Lags,
    ) -> None:
        self.f, self.y0, self.tspan, self.args = f, as_state(y0), tspan, args
        self.history = history if callable(history) else as_state(history)
        self.lags = lags


class SinceStart:
    """The distance from the start of a delay equation to where each of its lags reaches, t − lag(t,
    y) − t0: positive where the field no longer sees the history.
    """

    def __init__(self, problem: DDEProblem) -> None:
        self.lags, self.tspan = problem.lags, problem.tspan

    def __call__(self, t: Array, y: PyTree, args: PyTree) -> Array:
        """One number for each lag."""
        start, end = (evaluated(x, args) for x in evaluated(self.tspan, args))
        lags = [jnp.ravel(jnp.asarray(x, t.dtype)) for x in jax.tree.leaves(self.lags(t, y, args))]
        return t - jnp.where(end < start, -1, 1) * jnp.concatenate(lags) - start


def depends_on_state(lags: Lags) -> bool:
    """True if lags are a function of (t, y, args), and not numbers or a function of args."""
    if not callable(lags) or hasattr(lags, "shape"):
        return False
    wanted = (
        "numbers are wanted, or a function lags(args), or lags(t, y, args) where they depend on "
        "the state."
    )
    return accepts(lags, "lags", (1, 3), wanted) == 3

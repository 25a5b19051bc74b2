"""Steady states: 0 = f(y, args)."""

import math
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import PyTree

from ..core.packing import as_state
from .base import Problem

__all__ = ["SteadyStateProblem"]


class SteadyStateProblem(Problem):
    """0 = f(t, y, args): the steady state of y' = f.

    Args:
        f: the field, with the arguments of `ODEProblem`'s f, so that the same function serves both;
            it must not depend on t.
        y0: the guess; or, where the equation is followed in time (a `method` is given), the start.
            Any pytree of arrays, or a function of args. The steady state does not depend on it,
            unless there are several: its derivative by y0 is zero.
        args: parameters, any pytree.

    Raises:
        TypeError: (by `solve`) f depends on t; and as for `ODEProblem`.

    Reference: sapienza2024.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.SteadyStateProblem(lambda t, y, k: k - y**2, 1.0, 2.0)
        >>> steady = lambda k: de.solve(problem.replace(args=k)).y1
        >>> round(float(steady(2.0)), 4), round(float(jax.grad(steady)(2.0)), 4)
        (1.4142, 0.3536)
    """

    is_steady = True
    fields = ("f", "y0", "args")
    functions: ClassVar[dict[str, str]] = {"f": "t, y, args"}
    tspan = (0.0, math.inf)

    def __init__(self, f: Callable, y0: PyTree, args: PyTree = None) -> None:
        self.f, self.y0, self.args = f, as_state(y0), args

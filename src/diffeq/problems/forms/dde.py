"""Equations that look at the solution so far."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..history import History, HistoryView, StepLayout
from .base import Form
from .sde import DrawnNoise

__all__ = ["Delayed"]


@dataclass(frozen=True)
class Delayed(Form):
    """An equation whose functions are called with (t, y, seen), where `seen` is the solution so
    far. Bound to a past it is its `equation`: an Ode, or an Sde.

    As long as the `origin` of its own past is not set (infinite), it has the given history alone.
    """

    equation: Any
    shape: StepLayout
    history: History
    origin: Array | float
    sign: Array | tuple
    held: tuple = ()
    since: Callable | None = None  # how far behind the start its lags reach, if that is watched

    def over(self, origin: Array | float, history: History | None) -> "Delayed":
        """Returns the form with another past, if there is one yet."""
        history = self.history if history is None else history.seen()
        return replace(self, history=history, origin=origin)

    def functions(self) -> dict[str, Callable]:
        """The functions of the equation."""
        return self.equation.functions()

    def sized(self, *, large: bool) -> "Delayed":
        """Returns the form with `large` of its equation set."""
        return replace(self, equation=self.equation.sized(large=large))

    def mapped(self, change: Callable) -> "Delayed":
        """Returns the form with each function of the equation changed."""
        return replace(self, equation=self.equation.mapped(change))

    def with_noise(self, bound: DrawnNoise) -> "Delayed":
        """Returns the form with the noise of a step in place."""
        return replace(self, equation=self.equation.with_noise(bound))

    def bind(self, now: Array | float, middle: Array | float, ahead: list | None = None) -> Any:
        """The equation of a step from `now`, with the row `ahead` for what lies beyond."""
        now, middle, origin = (jnp.asarray(x, self.shape.time) for x in (now, middle, self.origin))
        ahead = self.shape.filled(0.0) if ahead is None else ahead
        seen = HistoryView(self.history, ahead, now, middle, origin, self.sign)
        return self.equation.mapped(lambda f: lambda t, y: f(t, y, seen))

    def as_known(self) -> Any:
        """The equation where what is known now is all there will be."""
        return self.bind(jnp.inf, jnp.inf)

    def slope(self, t: Array, y: Array) -> Array:
        """The slope where what is known now is all there will be."""
        return self.as_known().slope(t, y)

"""Ordinary equations, y' = f(t, y), and those of increments, dy = f(t, y) dX."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from .base import OneField
from .sde import apply_diffusion

__all__ = ["Increments", "Ode"]


@dataclass(frozen=True)
class Ode(OneField):
    """y' = field(t, y)."""

    mass: ClassVar[None] = None

    def slope(self, t: Array, y: Array) -> Array:
        """field(t, y)."""
        return self.field(t, y)


@dataclass(frozen=True)
class Increments(Ode):
    """dy = columns(t, y) dX, of which a step sees the increment of X = path(t) over itself, as if
    X went there on a straight line: the columns have a last axis more than y. Outside of a step
    there is no slope, and its `field` refuses to give one.
    """

    has_given_steps: ClassVar[bool] = True

    columns: Callable[..., Array] = field(kw_only=True)
    path: Callable[[Array], Array] = field(kw_only=True)

    @staticmethod
    def of(columns: Callable[..., Array], path: Callable[[Array], Array]) -> "Increments":
        """Returns the equation."""
        return Increments(_no_slope, columns=columns, path=path)

    def over_step(self, t: Array, dt: Array) -> Ode:
        """The equation of the step, y' = columns(t, y) ΔX/dt."""
        change = self.path(t + dt) - self.path(t)
        rate = change / jnp.where(dt == 0, 1, dt).astype(change.dtype)

        def slope(s: Array, y: Array) -> Array:
            value = self.columns(s, y)
            return apply_diffusion("general", value, rate.astype(value.dtype))

        return Ode(slope, large=self.large)


def _no_slope(t: Array, y: Array) -> Array:
    del t, y
    raise TypeError(
        "the method evaluates a slope outside of a step, and a control by its increments has none "
        "there: choose de.Heun() or de.Euler()."
    )

"""A step as a polynomial in θ = (t − t0)/dt: output, events, delays and plots look through it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Real

__all__ = ["Hermite", "Interpolant", "RungeKutta", "combine"]


def combine(weights: Any, terms: Any) -> Any:
    """Σ w_i x_i over the weights that are not exactly zero; None when all are."""
    total = None
    for w, x in zip(weights, terms, strict=True):
        if isinstance(w, (float, np.floating)):
            if w == 0.0:
                continue
            w = float(w)  # noqa: PLW2901 - a Python number is weak and keeps float32 states float32
        total = w * x if total is None else total + w * x
    return total


class Interpolant(eqx.Module):
    """A polynomial on one step; `__call__(θ)` its value and `slope(θ)` its derivative by t."""

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """The value at t0 + θ dt."""
        raise NotImplementedError

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """dy/dt at t0 + θ dt."""
        raise NotImplementedError


class Hermite(Interpolant):
    """The cubic with the values and slopes of both ends (third order).

    >>> one = jnp.array(1.0)
    >>> Hermite(0 * one, one, 0 * one, 3 * one, one)(jnp.array(0.5))  # t³
    Array(0.125, dtype=float32)
    """

    y0: Array
    y1: Array
    f0: Array
    f1: Array
    dt: Array

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """(1 − θ) y0 + θ y1 + θ(θ − 1)((1 − 2θ)(y1 − y0) + (θ − 1) dt f0 + θ dt f1)."""
        s, rise = 1 - theta, self.y1 - self.y0
        bend = (1 - 2 * theta) * rise - s * (self.dt * self.f0) + theta * (self.dt * self.f1)
        return s * self.y0 + theta * self.y1 - (theta * s) * bend

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """The cubic's derivative by t."""
        s, rise = 1 - theta, (self.y1 - self.y0) / self.dt
        return 6 * theta * s * rise + s * (1 - 3 * theta) * self.f0 + theta * (3 * theta - 2) * self.f1


class RungeKutta(Interpolant):
    """y0 + dt Σ b_i(θ) k_i, with b_i(θ) = Σ_d dense[i, d] θ^(d+1)."""

    y0: Array
    dt: Array
    stages: tuple
    table: Any = eqx.field(static=True)  # a Tableau: hashable by identity

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Horner's rule in θ for each weight."""
        weights = [self._polynomial(row, theta) for row in self.table.dense]
        rise = combine(weights, self.stages)
        return self.y0 + self.dt * rise

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Σ b_i'(θ) k_i."""
        powers = np.arange(1, self.table.dense.shape[1] + 1)
        weights = [self._polynomial(row * powers, theta, lift=False) for row in self.table.dense]
        return combine(weights, self.stages)

    @staticmethod
    def _polynomial(row: np.ndarray, theta: Array, *, lift: bool = True) -> Any:
        if not row.any():
            return 0.0
        value = jnp.zeros_like(theta)
        for coefficient in row[::-1]:
            value = value * theta + float(coefficient)
        return value * theta if lift else value

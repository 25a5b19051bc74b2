"""A step as a polynomial in θ = (t − t0)/dt: output, events, delays and plots look through it."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, PyTree, Real

from .weighted_sums import Stages, combine_columns

__all__ = [
    "ChebyshevInterpolant",
    "Hermite",
    "Interpolant",
    "Polynomial",
    "in_chebyshev",
    "in_separate_terms",
]


class Interpolant(eqx.Module):
    """A step as a function of θ = (t − t0)/dt: `__call__(θ)` its value, `slope(θ)` its dy/dt.

    The base of what `Method.interpolant` returns. It is a pytree of arrays that `dense=True` keeps
    for each step; saved times are read from it, too. θ is a scalar from 0 to 1, and values have
    the shape of the packed state: y's own for a single array, one vector for a tree.

    Raises:
        NotImplementedError: a subclass has left out one of the two.

    Example:
        A straight line between the ends:

        >>> import jax, diffeq as de
        >>> class Line(de.Interpolant):
        ...     y0: jax.Array
        ...     y1: jax.Array
        ...     dt: jax.Array
        ...     def __call__(self, theta):
        ...         return self.y0 + theta * (self.y1 - self.y0)
        ...     def slope(self, theta):
        ...         return (self.y1 - self.y0) / self.dt
        >>> Line(1.0, 3.0, 0.5)(0.25), Line(1.0, 3.0, 0.5).slope(0.25)
        (1.5, 4.0)
    """

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """The value at t0 + θ dt."""
        raise NotImplementedError

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """dy/dt at t0 + θ dt."""
        raise NotImplementedError


class Hermite(Interpolant):
    """The cubic with the values and slopes of both ends: third order, from two slopes alone.

    y(θ) = (1 − θ) y0 + θ y1 + θ(θ − 1)((1 − 2θ)(y1 − y0) + (θ − 1) dt f0 + θ dt f1), with y0, y1
    and the slopes f0, f1 of one shape, that of the packed state.

    Reference: hairer1993, II.6.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> one = jnp.array(1.0)
        >>> cubic = de.Hermite(0 * one, one, 0 * one, 3 * one, one)  # t³
        >>> float(cubic(0.5 * one)), float(cubic.slope(0.5 * one))
        (0.125, 0.75)
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
        return (
            6 * theta * s * rise + s * (1 - 3 * theta) * self.f0 + theta * (3 * theta - 2) * self.f1
        )


class Polynomial(Interpolant):
    """y0 + Σ_d q_d θ^d, d from 1.

    >>> one = jnp.array(1.0)
    >>> float(Polynomial(one, (2 * one, 3 * one), one)(2.0 * one))  # 1 + 2·2 + 3·4
    17.0
    """

    y0: Array
    coefficients: Stages
    dt: Array

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Horner's rule."""
        value = jnp.zeros_like(self.y0)
        for q in self.coefficients[::-1]:
            value = (value + q) * theta
        return self.y0 + value

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Σ_d d q_d θ^(d−1) / dt."""
        value = jnp.zeros_like(self.y0)
        for d, q in reversed(list(enumerate(self.coefficients, 1))):
            value = value * theta + d * q
        return value / self.dt

    def in_chebyshev(self) -> "ChebyshevInterpolant":
        """Converts the polynomial to the Chebyshev basis."""
        count = len(self.coefficients)
        unit = ([Fraction(i == d) for i in range(count)] for d in range(count))
        turned = np.array([in_chebyshev(row) for row in unit], float)
        parts = combine_columns(turned, self.coefficients)
        return ChebyshevInterpolant(self.y0, parts, self.dt)


class ChebyshevInterpolant(Interpolant):
    """y0 + θ Σ_k q_k T_k(2θ − 1), k from 0: the same polynomials, where the coefficients of powers
    are so much larger than the values that their sum would lose digits.

    >>> one = jnp.array(1.0)
    >>> float(ChebyshevInterpolant(one, (2 * one, 3 * one), one)(2.0 * one))  # 1 + 2 (2 + 3·3)
    23.0
    """

    y0: Array
    coefficients: Stages
    dt: Array

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Clenshaw's recurrence."""
        return self.y0 + theta * self._sum(theta)[0]

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Its derivative by t."""
        value, rate = self._sum(theta)
        return (value + theta * rate) / self.dt

    def _sum(self, theta: Array) -> tuple[Array, Array]:
        """Σ_k q_k T_k(2θ − 1) and its derivative by θ."""
        x, zero = 2 * theta - 1, jnp.zeros_like(self.y0)
        (value, before), (rate, rate_before) = (zero, zero), (zero, zero)
        for q in self.coefficients[:0:-1]:
            rate, rate_before = 2 * x * rate - rate_before + 4 * value, rate
            value, before = 2 * x * value - before + q, value
        total = x * value - before + self.coefficients[0]
        return total, 2 * value + x * rate - rate_before


def in_separate_terms(path: Interpolant) -> Interpolant:
    """The polynomial with a tuple of coefficients, where they may be the rows of a table: the past
    of a delay equation has one layout, known before it is known how stages are evaluated.
    """
    if not isinstance(path, Polynomial | ChebyshevInterpolant):
        return path
    return type(path)(path.y0, tuple(path.coefficients), path.dt)


def in_chebyshev(powers: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients in T_k(2θ − 1), k from 0, of those in θ^k.

    >>> in_chebyshev([Fraction(0), Fraction(0), Fraction(1)])  # θ² = 3/8 + T_1/2 + T_2/8
    [Fraction(3, 8), Fraction(1, 2), Fraction(1, 8)]
    """
    found = [Fraction(0)]
    for power in reversed(powers):  # Horner's rule, θ = (T_1 + 1)/2 and 2 T_1 T_k = T_k+1 + T_k−1
        times = [Fraction(0)] * (len(found) + 1)
        for k, q in enumerate(found):
            times[k] += q / 2
            times[k + 1] += q / 4
            times[abs(k - 1)] += q / 4
        found = [times[0] + power, *times[1:]]
    return found[: max(len(powers), 1)]


class TruncatedInterpolant(Interpolant):
    """The first part of a step, up to `fraction`, as a step of its own.

    >>> one = jnp.array(1.0)
    >>> float(TruncatedInterpolant(Polynomial(one, (2 * one,), one), 0.5 * one)(one))
    2.0
    """

    whole: Any
    fraction: Array

    def __call__(self, theta: Real[Array, ""], *mark: PyTree) -> Inexact[Array, "..."]:
        """The whole at θ · fraction."""
        return self.whole(theta * self.fraction, *mark)

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Its slope there."""
        return self.whole.slope(theta * self.fraction)

"""Signs of stiffness in an explicit Runge–Kutta step, at the cost of seven inner products.

The stages of a step span a Krylov space. For weights w the combination w·k = Σ w_i k_i of slopes
is J times the same combination of the points at which they were evaluated, and those points differ
by combinations of slopes: with w = e_j − e_i for two stages at t + dt,

    d₂ = w·k,   d₁ = (Aᵀw)·k,   d₀ = (AᵀAᵀw)·k,   d₂ = (dt J) d₁ = (dt J)² d₀

for a linear field, and smooth parts of the solution cancel in them to second order or better. What
is left are the stiff directions, with eigenvalues z = dt λ that are the roots of the quadratic
z² − τ z + δ which takes (d₀, d₁, d₂) nearest to zero: one real root that stands out, or a pair.
"""

import math
from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Real

from ..core.norm import in_dtype_of
from .order import stability_reach
from .tableau import Tableau
from .weighted_sums import Stages, combine

__all__ = ["Signs", "SignsRead", "last_two", "no_signs", "read_signs", "stability_limits"]

# An attempt is at the limit of stability when z / 0.9 is outside the region in which a mode grows
# by at most 5 % a step.
_NEAR, _GROWTH = 0.9, 0.05

# An attempt with a sign of stiffness is three votes for it, an accepted one without is one against:
# at a limit of stability dt swings, and as few as a third of the attempts lie outside the region.
# One that is accepted a third beyond the limit is twenty: whatever moves so fast is smaller than
# the tolerance, or its error would not have passed. On problems that are not stiff there are none,
# or one in a solve; on Robertson's with atol = 1e-2 five of them leave the explicit method so far
# off that the solution explodes.
# One just inside of the imaginary limit is none: of an oscillator at the limit three of four are.
_FOR, _STRONGLY, _AGAINST = 3, 20, 1
_BEYOND, _CLOSE = 1.35, 0.8

# Two signs hand the step over at once. One of so many times the limit, with an error that would be
# accepted, excites modes by as much as the tolerance; those that oscillate never decay, and a stiff
# method has to follow them (an elastic beam). A first attempt with |z| above 1e12, or NaN, explodes
# and a shorter one may end, within the tolerance, where the equation explodes as well (Robertson's,
# of negative concentrations).
_FAR, _WILD = 1.7, 1e12

# The error estimates of two steps are alike when they differ by less than 2 % of |z|², for |z|
# above a half: a solution that moves at the pace of λ changes them by about |z|.
_ALIKE, _FAST = 0.02, 0.5

_FEW = 64  # numbers that are a literal of the program


class SignsRead(NamedTuple):
    """The signs after an attempt that is accepted, and that is rejected; and whether either decides
    alone.
    """

    accepted: "Signs"
    rejected: "Signs"
    decisive: tuple[Bool[Array, ""], Bool[Array, ""]]


class Signs(NamedTuple):
    """Votes for "stiff" of the attempts so far; and of the last accepted step the weighted sum of
    its error vector, over the power of dt that it goes with.
    """

    votes: Int[Array, ""]
    error: Real[Array, ""]


class _Limits(NamedTuple):
    """The largest |z| that is stable, on the negative real axis and on the imaginary one."""

    real: float
    imaginary: float


def no_signs(like: Array) -> Signs:
    """Before the first attempt."""
    return Signs(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.finfo(like.dtype).dtype))


def read_signs(
    table: Tableau, stages: Stages, error: Array, dt: Real[Array, ""], signs: Signs
) -> SignsRead:
    """The signs after an attempt.

    Two things are signs of stiffness. *At the limit of stability*: an eigenvalue z that the stages
    show is outside of the stability region, in an attempt that was accepted, or in one that was
    rejected. *An error that stands still*: the error vectors of two steps are the same, though
    |z| is not small, so that they come from a slow motion to which fast modes are tied, and not
    from a motion at the pace of these (order reduction; what oscillates fast turns its error
    vector by |z| a step).

    Reference: ekeland1998; hairer1996, IV.2.
    """
    seen, limit = _seen(table, stages, error), stability_limits(table)
    order = min(table.order, table.embedded_order or table.order) + 1
    error = seen.error / in_dtype_of(dt, error) ** order
    outside, still = _is_unstable(seen, limit), _stands_still(seen, error, signs.error)
    strongly, far = (outside & (seen.d22 > (k * limit.real) ** 2) for k in (_BEYOND, _FAR))
    votes = signs.votes + jnp.where(strongly, _STRONGLY, _FOR)
    closer = limit._replace(imaginary=_CLOSE * limit.imaginary)
    fewer = jnp.where(_is_unstable(seen, closer), 0, _AGAINST)
    accepted = jnp.where(outside | still, votes, jnp.maximum(signs.votes - fewer, 0))
    rejected = jnp.where(_may_be_outside(seen, limit), signs.votes + _FOR, signs.votes)
    fine = jnp.isfinite(jnp.sum(jnp.abs(stages[0])))  # what follows from it overflows
    exploded = (seen.d22 > _WILD**2) | (jnp.isnan(seen.d22) & fine)
    wild = (signs.error == 0) & exploded
    return SignsRead(Signs(accepted, error), signs._replace(votes=rejected), (far, wild))


def last_two(table: Tableau) -> tuple[int, int] | None:
    """The last two stages at t + dt, which differ by little but in the stiff directions."""
    ends = [i for i, c in enumerate(table.exact.c) if c == 1]
    return (ends[-2], ends[-1]) if len(ends) > 1 else None


@cache
def stability_limits(table: Tableau) -> _Limits:
    """The largest dt |λ|, for real and for imaginary λ, of an attempt that is not at the limit."""
    reach = (stability_reach(table.A, table.b, a, _GROWTH) for a in (math.pi, math.pi / 2))
    return _Limits(*(_NEAR * x for x in reach))


class _Seen(NamedTuple):
    """Inner products of d₀, d₁, d₂, over |d₁|², which are powers of z; and the weighted sum of
    the error vector.
    """

    d00: Array
    d01: Array
    d02: Array
    d12: Array
    d22: Array
    error: Array


def _seen(table: Tableau, stages: Stages, error: Array) -> _Seen:
    i, j = last_two(table) or (0, 0)
    A = np.asarray(table.A)
    inner = A[j] - A[i]
    d2 = stages[j] - stages[i]
    d1, d0 = (combine(w[: len(stages)], stages) for w in (inner, inner @ A))
    terms = (d1 * d1, d0 * d0, d0 * d1, d0 * d2, d1 * d2, d2 * d2, error * _norm_weights(error))
    # One sum of seven rows: XLA would compute the whole step again for each of seven sums.
    size, *products, total = jnp.sum(jnp.stack([x.ravel() for x in terms]), axis=1)
    scale = 1 / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    d00, d01, d02, d12, d22 = (scale * x for x in products)
    return _Seen(d00, d01, d02, d12, d22, total)


def _norm_weights(error: Array) -> Array | np.ndarray:
    """Weights between 1 and 2, so that errors whose sum is conserved do not add up to zero."""
    count = np.arange(error.size) if error.size <= _FEW else jnp.arange(error.size)
    weights = 1 + (0.6180339887498949 * count) % 1
    return weights.reshape(error.shape).astype(error.dtype)


def _is_unstable(seen: _Seen, limit: _Limits) -> Array:
    """True if a root of D z² − T z + P, D > 0, is outside the limits and decays, or oscillates."""
    d00, d01, d02, d12 = seen[:4]
    # Where d₀ and d₁ are parallel the second root is noise: a hair more of d₀ makes it 0.
    d00 = (1 + 64 * float(jnp.finfo(d00.dtype).eps)) * d00
    D, T, P = d00 - d01 * d01, d00 * d12 - d01 * d02, d01 * d12 - d02
    square, product = T * T, P * D  # of a pair of roots: (2 D² Re z)², (D² |z|)²
    steep = square < 0.12 * product  # within ten degrees of the imaginary axis
    left = (T < 0) | (square < product)  # not within sixty degrees of the positive axis
    large = jnp.where(steep, limit.imaginary**2, limit.real**2) * D < P
    beyond = limit.real**2 * D + P < -limit.real * T  # one real root is, and the other is not
    # Roots come from small differences: one outside the limits must show in the norms as well.
    return (large & left | beyond) & _may_be_outside(seen, limit)


def _may_be_outside(seen: _Seen, limit: _Limits) -> Array:
    """True if |d₂| / |d₁| or √(|d₂| / |d₀|) is above the limit, or NaN."""
    square = limit.imaginary**2
    return ~((seen.d22 <= square) & (seen.d22 <= square**2 * seen.d00))


def _stands_still(seen: _Seen, error: Array, before: Array) -> Array:
    """True if the error vector is that of the last accepted step, but for the length of dt."""
    change = error - before
    # |z|² is about |d₂| / |d₀|; what is above 1 counts as 1.
    square = _ALIKE**2 * jnp.minimum(seen.d22, seen.d00)
    alike = change * change * seen.d00 < square * (error * error)
    return alike & (seen.d22 > _FAST**4 * seen.d00)

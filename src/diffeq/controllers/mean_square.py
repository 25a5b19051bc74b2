"""The controller for errors that are random, as those of stochastic equations are."""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Real

from .base import Controller, StepLimit, Verdict

__all__ = ["MeanSquare"]

_SMALLEST = 1e-4  # of the error that is aimed at; one of zero would make the mean forget all others


class MeanSquare(Controller):
    """Steps whose root mean square error is `aim`, by a running mean over the steps so far.

    An error of a step with noise is a random number. Its mean square is κ dt^(2k), k being the
    order of the estimate, and what varies slowly is κ. Each accepted step moves it by a part
    `weight` towards e² / dt^(2k), and the next dt is that for which κ dt^(2k) is aim². It is
    shorter where the last error is above three times the mean.

    A step is rejected only above `limit`, out of reach of what noise does by itself: rejections
    that depend on the noise of the step leave noise of another law to those that are accepted, so
    that means are wrong by more than the method's own error (`docs/theory/noise.md`).

    Args:
        aim: the root mean square of scaled errors; 1 is what rtol and atol allow.
        weight: that of the last step in the mean, in (0, 1].
        limit: the largest scaled error that is accepted.
        shrink, grow: the least and the largest factor from one dt to the next.
        dtmin, dtmax, norm: as of every `Controller`.

    Reference: rackauckas2017, gaines1997.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.SDEProblem(lambda t, y, a: -y, lambda t, y, a: 0.5 * y, 1.0, (0.0, 9.0))
        >>> sol = de.solve(problem, controller=de.MeanSquare(dtmax=0.1), key=jax.random.key(0))
        >>> int(sol.stats["steps"]) >= 90
        True
    """

    aim: float = eqx.field(static=True, default=0.3)
    weight: float = eqx.field(static=True, default=0.2)
    limit: float = eqx.field(static=True, default=2.0)
    shrink: float = eqx.field(static=True, default=0.2)
    grow: float = eqx.field(static=True, default=4.0)

    def __init__(
        self,
        *,
        aim: float = 0.3,
        weight: float = 0.2,
        limit: float = 2.0,
        shrink: float = 0.2,
        grow: float = 4.0,
        dtmin: StepLimit = None,
        dtmax: StepLimit = None,
        norm: Callable | None = None,
    ) -> None:
        self.aim, self.weight, self.limit = aim, weight, limit
        self.shrink, self.grow = shrink, grow
        self.dtmin, self.dtmax, self.norm = dtmin, dtmax, norm

    def init(self, dtype: DTypeLike) -> Array:
        """The logarithm of κ / aim²: not known before the first step."""
        return jnp.full((), -jnp.inf, dtype)

    def judge(
        self,
        error2: Real[Array, ""],
        dt: Array,
        state: Array,
        order: Real[Array, ""] | int | float,
    ) -> Verdict:
        """Accepts up to the limit; NaN is a rejection."""
        accept, finite = error2 <= self.limit**2, jnp.isfinite(error2)
        power = 2 * jnp.log(dt) * order
        last = jnp.log(jnp.maximum(error2 / self.aim**2, _SMALLEST**2)) - power
        mean = last
        if self.weight < 1:
            mean = jnp.logaddexp(state + math.log1p(-self.weight), last + math.log(self.weight))
        # What a step that is rejected shows is no sample of many: it is what there is now.
        mean = jnp.where(accept & (state > -jnp.inf), mean, last)
        size = jnp.maximum(mean, last - 2 * math.log(3.0))
        factor = jnp.exp(-(size + power) / (2 * order))
        factor = jnp.clip(factor, self.shrink, jnp.where(accept, self.grow, 1.0))
        return Verdict(
            accept, dt * jnp.where(finite, factor, self.shrink), jnp.where(finite, mean, state)
        )

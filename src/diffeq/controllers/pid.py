"""The I, PI and PID controllers, in the form of Söderlind's digital filters.

The next step is dt · clip(e₀^(−β₁/k) · e₁^(β₂/k) · e₂^(−β₃/k), shrink, grow), where e₀ is the error
of this step *relative to the set point* safety^k, e₁ and e₂ those of the accepted steps before, and
k the order of the error estimate. The set point is where dt stays as it is, for all exponents
alike; with the safety as a factor of dt, as it is often written, a controller with Σβ = 0.3 would
settle at safety^(k/0.3), a sixth of the tolerance for k = 5. Exponents are applied to logarithms:
one log and one exp a step, no power.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree, Real

from ..core.keywords import keywords
from .base import Controller, StepLimit, Verdict

__all__ = ["PI", "PID", "I"]

# An error of zero must not make the next steps' memory infinite (Hairer's 1e-4 for the old error).
_SMALLEST = 1e-4


def _check_factor(name: str, value: Any, wanted: str, fits: Callable[[float], bool]) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
        raise ValueError(
            f"{name} is {value!r}; a number {wanted} is wanted, known when it is made."
        )


class PID(Controller):
    """dt ← dt · clip(e₀^(−β₁/k) e₁^(β₂/k) e₂^(−β₃/k), shrink, grow), e = scaled error / safety^k.

    `PI()` (the default of `solve`) and `I()` have exponents of their own. A rejected step shrinks
    by the I rule, and the step after it does not grow.

    Reference: soderlind2003, hairer1993.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
        >>> sol = de.solve(problem, de.Tsit5(), controller=de.PID(dtmax=0.1))
        >>> int(sol.stats["steps"]) >= 10
        True
    """

    exponents: tuple[float, float, float] = eqx.field(static=True, default=(0.49, 0.34, 0.10))
    safety: float = eqx.field(static=True, default=0.8)
    shrink: float = eqx.field(static=True, default=0.2)
    grow: float = eqx.field(static=True, default=10.0)

    @keywords
    def __init__(
        self,
        exponents: tuple[float, float, float] = (0.49, 0.34, 0.10),
        *,
        safety: float = 0.8,
        shrink: float = 0.2,
        grow: float = 10.0,
        dtmin: StepLimit = None,
        dtmax: StepLimit = None,
        norm: Callable | None = None,
    ) -> None:
        if np.shape(exponents) != (3,):
            raise TypeError(
                f"exponents is {exponents!r}; three numbers (β₁, β₂, β₃) are wanted, such as "
                "(0.49, 0.34, 0.10)."
            )
        _check_factor("safety", safety, "above 0 and at most 1", lambda x: 0 < x <= 1)
        _check_factor("shrink", shrink, "between 0 and 1", lambda x: 0 < x < 1)
        _check_factor("grow", grow, "of 1 or more", lambda x: x >= 1)
        self.exponents = (exponents[0], exponents[1], exponents[2])
        self.safety, self.shrink, self.grow = safety, shrink, grow
        self.dtmin, self.dtmax, self.norm = dtmin, dtmax, norm

    def init(self, dtype: DTypeLike) -> PyTree:
        """Logarithms of the last accepted errors, and whether the last step was rejected."""
        zero = jnp.zeros((), dtype)
        memory = (zero,) * (2 if self.exponents[2] else 1 if self.exponents[1] else 0)
        return memory, jnp.zeros((), bool)

    def judge(
        self,
        error2: Real[Array, ""],
        dt: Array,
        state: PyTree,
        order: Real[Array, ""] | int | float,
    ) -> Verdict:
        """Accepts when the norm is at most 1; NaN is a rejection."""
        memory, was_rejected = state
        accept = error2 <= 1.0
        log_error = 0.5 * jnp.log(error2) - order * math.log(self.safety)
        beta = [b / order for b in self.exponents]
        log_factor = -beta[0] * log_error
        for b, past in zip((beta[1], -beta[2]), memory, strict=False):
            log_factor = log_factor + b * past
        log_factor = jnp.where(accept, log_factor, -log_error / order)
        ceiling = jnp.where(accept & ~was_rejected, self.grow, 1.0)
        factor = jnp.clip(jnp.exp(log_factor), self.shrink, ceiling)
        factor = jnp.where(jnp.isfinite(error2), factor, self.shrink)  # and a NaN shrinks the most
        kept = jnp.maximum(log_error, math.log(_SMALLEST))
        past = tuple(
            jnp.where(accept, new, old) for new, old in zip((kept, *memory), memory, strict=False)
        )
        return Verdict(accept, dt * factor, (past, ~accept))


class _WithExponents(PID):
    """A controller whose exponents are those of its class."""

    _class_exponents: ClassVar[tuple[float, float, float]]

    @keywords
    def __init__(
        self,
        *,
        safety: float = 0.8,
        shrink: float = 0.2,
        grow: float = 10.0,
        dtmin: StepLimit = None,
        dtmax: StepLimit = None,
        norm: Callable | None = None,
    ) -> None:
        super().__init__(
            self._class_exponents,
            safety=safety,
            shrink=shrink,
            grow=grow,
            dtmin=dtmin,
            dtmax=dtmax,
            norm=norm,
        )


class I(_WithExponents):  # noqa: E742 - the name that control theory gives it
    """The integral controller: dt ← dt · safety · error^(−1/k).

    Example:
        >>> import diffeq as de
        >>> de.I().exponents
        (1.0, 0.0, 0.0)
    """

    _class_exponents: ClassVar[tuple[float, float, float]] = (1.0, 0.0, 0.0)


class PI(_WithExponents):
    """A proportional–integral controller of Gustafsson's kind, the default: exponents 0.9 and 0.1.

    The little memory is enough to damp the oscillation of dt at a stability boundary (van der Pol,
    μ = 100, Tsit5: 10 rejected steps, where `I()` has 1,300), and of many settings tried on 23
    non-stiff problems this one reached an equal error with the fewest attempts: 5 % fewer than
    exponents 0.7 and 0.4 with 0.9 as a factor (`docs/theory/control.md`).

    Reference: gustafsson1991, hairer1996.

    Example:
        >>> import diffeq as de
        >>> de.PI(dtmax=0.5).exponents
        (0.9, 0.1, 0.0)
    """

    _class_exponents: ClassVar[tuple[float, float, float]] = (0.9, 0.1, 0.0)

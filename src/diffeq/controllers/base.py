"""The base of all controllers: one judges a step by its scaled error and proposes the next dt."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int, PyTree, Real

__all__ = ["Controller", "StepLimit", "Verdict"]

type StepLimit = PyTree
"""A limit of dt in the problem's unit of time: a number, a function of t, or none."""


class Verdict(NamedTuple):
    """The verdict of a controller on a step: whether to accept it, the dt > 0 to try next, its
    memory.

    Example:
        >>> import diffeq as de
        >>> de.Verdict(accept=True, dt=0.1, state=())
        Verdict(accept=True, dt=0.1, state=())
    """

    accept: Bool[Array, ""]
    dt: Real[Array, ""]
    state: PyTree


class Controller(eqx.Module):
    """Base of all controllers, which judge a step by its scaled error and propose the next dt.

    A step is accepted when norm(error / (atol + rtol · max(|y0|, |y1|))) ≤ 1. A subclass gives
    `judge(error2, dt, state, order)`, which sees the square of that norm (None without an
    estimate) and the power of dt that it goes with, and returns a `Verdict(accept, dt, state)`.

    Args:
        dtmin, dtmax: numbers or functions of t, in the problem's unit of time. A step that is
            rejected at `dtmin` ends the solve with the status `dtmin`.
        norm: takes the vector of scaled errors to a number (default: its root mean square).

    Raises:
        NotImplementedError: a subclass has left out `judge`.

    Reference: hairer1993, II.4.

    Example:
        Steps that are halved or doubled, and nothing between:

        >>> import jax.numpy as jnp, diffeq as de
        >>> class Halving(de.Controller):
        ...     def judge(self, error2, dt, state, order):
        ...         accept = error2 <= 1.0
        ...         factor = jnp.where(accept, jnp.where(error2 < 1e-4, 2.0, 1.0), 0.5)
        ...         return de.Verdict(accept, dt * factor, state)
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> round(float(de.solve(problem, controller=Halving()).y1), 3)
        0.135
    """

    dtmin: StepLimit = None
    dtmax: StepLimit = None
    norm: Callable | None = None

    @property
    def is_adaptive(self) -> bool:
        """True if a step can be rejected."""
        return True

    def init(self, dtype: DTypeLike) -> PyTree:
        """The memory before the first step."""
        return ()

    def propose(self, t: Array, dt: Array, sign: Int[Array, ""] | int) -> Array:
        """The dt > 0 to attempt from t, inside the limits; `sign` is the direction of time."""
        del sign
        low, high = self._limit(self.dtmin, t), self._limit(self.dtmax, t)
        dt = dt if high is None else jnp.minimum(dt, high)
        return dt if low is None else jnp.maximum(dt, low)

    def stuck(self, t: Array, dt: Array) -> Array:
        """True if a rejected dt was already the smallest allowed."""
        low = self._limit(self.dtmin, t)
        return jnp.zeros((), bool) if low is None else dt <= low

    @staticmethod
    def _limit(limit: StepLimit, t: Array) -> Array | None:
        limit = limit(t) if callable(limit) else limit
        return None if limit is None else jnp.asarray(limit, t.dtype)

    def judge(
        self,
        error2: Any,
        dt: Array,
        state: PyTree,
        order: Real[Array, ""] | int | float,
    ) -> Verdict:
        """The verdict on a step of dt with squared error norm `error2` (None: no estimate)."""
        raise NotImplementedError

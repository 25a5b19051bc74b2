"""Steps that are given: all equal, or a list."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, Real

from ..autodiff.jax_internals import Tracer
from .base import Controller, Verdict

__all__ = ["Constant", "Fixed"]


class Constant(Controller):
    """Steps of the dt that was asked for; what `solve(dt=…)` uses."""

    @property
    def is_adaptive(self) -> bool:
        """Never: every step is accepted."""
        return False

    def judge(
        self,
        error2: Real[Array, ""] | None,
        dt: Array,
        state: PyTree,
        order: Real[Array, ""] | int | float,
    ) -> Verdict:
        """Accepts."""
        return Verdict(jnp.ones((), bool), dt, state)


def _fixed_times(ts: Any) -> Array:
    """The times as an array, if that is what they are, and in one order."""
    try:
        found = jnp.asarray(ts)
    except (TypeError, ValueError) as error:
        raise TypeError(f"ts is {ts!r}; a sequence of times is wanted.") from error
    if found.ndim != 1 or not found.size:
        raise ValueError(
            f"ts has shape {found.shape}; a sequence of times is wanted. Steps of one length are "
            "solve's dt=."
        )
    if not isinstance(found, Tracer):
        lengths = np.diff(np.asarray(found))
        if not ((lengths >= 0).all() or (lengths <= 0).all()):
            raise ValueError("ts goes up and down; steps end at times in one order: jnp.sort(ts).")
    return found


class Fixed(Constant):
    """Steps that end on the given times, in order; with t1 after them if they stop short of it.

    Args:
        ts: increasing times (decreasing when time runs backwards); the first may be t0. In the
            problem's unit of time. Times outside tspan are passed over.

    Raises:
        TypeError, ValueError: ts is no sequence of times, or goes up and down.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
        >>> sol = de.solve(problem, de.RK4(), controller=de.Fixed(jnp.array([0.5, 0.75, 1.0])))
        >>> int(sol.stats["steps"])
        3
    """

    ts: Real[Array, " steps"] = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, ts: Any) -> None:
        self.ts = _fixed_times(ts)
        self.dtmin = self.dtmax = self.norm = None

    def propose(self, t: Array, dt: Array, sign: Int[Array, ""] | int) -> Array:
        """The distance to the next of the times; to the end when there is none."""
        distance = sign * (self.ts - t)
        # t + (target - t) may miss its target by a rounding: that is no step of its own.
        distance = jnp.where(distance <= 4 * jnp.finfo(t.dtype).eps * jnp.abs(t), 0, distance)
        return jnp.min(jnp.where(distance > 0, distance, jnp.inf)).astype(dt.dtype)

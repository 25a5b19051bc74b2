"""What a method is: `init` a memory, `step` from (t, y) by dt, and say what it needs.

To write a scheme of your own, subclass `Method`, give `order` and `step`, and pass an instance to
`solve`. Data files under `tableaus/` cover the families; a new tableau needs no class.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Real

from ..core.walk import walk
from .interpolant import Hermite, Interpolant

__all__ = ["Method", "Step", "lazily"]


class Step(NamedTuple):
    """One attempted step from t to t + dt.

    `error` is the embedded error estimate, in the units of y (None: the method has none); `memory`
    goes to the next step; `data` is whatever the method's `interpolant` wants to see again.
    """

    y: Inexact[Array, "..."]
    error: Any
    memory: Any
    data: Any


class Method(eqx.Module):
    """A one-step scheme. Subclasses give `order`, `step`, and what else they need.

    `form` names the canonical equation that `step` takes (`problems/forms.py`).
    """

    form: ClassVar[str] = "ode"
    reference: ClassVar[str] = ""

    @property
    def order(self) -> int:
        """Order of the solution that the method advances with."""
        raise NotImplementedError

    @property
    def error_order(self) -> int:
        """The local error estimate is O(dt^error_order)."""
        return self.order

    @property
    def adaptive(self) -> bool:
        """Whether the method estimates its error."""
        return False

    @property
    def evaluations(self) -> int:
        """Evaluations of the field in a step."""
        return 1

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> Any:
        """The memory before the first step, and after a discontinuity."""
        del form, t, y
        return ()

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: Any
    ) -> Step:
        """One step."""
        raise NotImplementedError

    def interpolant(
        self, form: Any, t: Array, y: Array, dt: Array, step: Step, wanted: Any
    ) -> Interpolant:
        """The step as a polynomial. `wanted` is False when nobody will look (stages may be saved).

        The default is the cubic through both ends, which costs the slopes there.
        """
        del wanted
        return Hermite(y, step.y, form.field(t, y), form.field(t + dt, step.y), dt)


def lazily(compute: Any, count: int, like: Array, wanted: Any) -> tuple:
    """`count` more slopes, in a walk of at most one turn: a step without saves pays nothing."""
    if count == 0:
        return ()
    blank = tuple(jnp.zeros_like(like) for _ in range(count))
    found, _ = walk(lambda *_: (compute(), ()), 0, wanted, carry=blank, length=1)
    return found

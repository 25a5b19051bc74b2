"""The context in which a rule evaluates an equation."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ...autodiff.jax_internals import Jaxpr, lower_jaxpr
from .large_arrays import Space
from .operands import Operands, entry_dtype
from .scalar_values import Number, apply

__all__ = ["LaneContext", "Rule"]

type Rule = Callable[..., Operands | None]
"""Evaluates the equations of a primitive; None where it does not apply."""


_ALL = np.bool_(True)


@dataclass(frozen=True)
class LaneContext:
    """The number of lanes, the space of their large arrays, and the mask of the active lanes."""

    lanes: int
    space: Space
    on: Number = _ALL

    def only(self, on: Number) -> "LaneContext":
        """The context of the lanes for which `on` holds."""
        return replace(self, on=apply("and", self.on, on))

    @staticmethod
    def any(on: Bool[Array, " lanes"]) -> Bool[Array, ""]:
        """True if `on` holds for some lane."""
        return jnp.max(jnp.where(on, jnp.int32(1), jnp.int32(0))) > 0

    def traced(self, function: Callable, xs: Operands) -> Operands:
        """Evaluates a function of arrays, which is traced for it."""
        shapes = [jax.ShapeDtypeStruct(x.shape, entry_dtype(x)) for x in xs]
        return self.run(lower_jaxpr(jax.make_jaxpr(function)(*shapes)), xs)

    def run(self, jaxpr: Jaxpr, xs: Operands) -> Operands:
        """Evaluates a jaxpr, equation by equation (`interpreter.py`)."""
        raise NotImplementedError

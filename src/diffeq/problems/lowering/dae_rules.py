"""Rules of equations with a mass matrix, and of implicit ones."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from ...core.packing import Packing, moving_leaves
from ..base import evaluated
from ..dae import (
    DAEProblem,
    ImplicitDAEProblem,
    algebraic_rows,
    free_projector,
    packed_differential,
    packed_index,
    packed_mass,
    packed_slope,
)
from ..forms import Form, HigherIndex, Implicit, Mass
from .ode_rules import OdeRule
from .rule import ProblemRule, on_packed
from .time_interval import flip_time, time_interval
from .traced_function import as_rate

__all__ = ["DaeRule", "ImplicitRule"]


class DaeRule(ProblemRule):
    """An equation with a mass matrix, and the index of its components, which is static."""

    state = staticmethod(OdeRule.state)
    functions = staticmethod(OdeRule.functions)

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def of(cls, problem: DAEProblem) -> "DaeRule":
        return cls(problem.index)

    @staticmethod
    def constants(problem: DAEProblem, packing: Packing) -> dict:
        """M, and the projector on what it cannot reach: of a higher index rows of the equations."""
        mass, index = packed_mass(problem, packing), packed_index(problem.index, packing)
        return {"mass": mass, "free": (free_projector if index is None else algebraic_rows)(mass)}

    def form(self, at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        """M y' = f."""
        del sign
        field, index = on_packed(at[0], packing), packed_index(self.index, packing)
        return Mass(field, **known) if index is None else HigherIndex(field, **known, index=index)


class ImplicitRule(OdeRule):
    """0 = residual(t, y, y', args)."""

    @staticmethod
    def constants(problem: ImplicitDAEProblem, packing: Packing) -> dict:
        guess, args = packed_slope(problem, packing), problem.args
        t0, t1 = time_interval(evaluated(problem.tspan, args), args, guess.dtype)
        flags, span = packed_differential(problem, packing), jnp.abs(t1 - t0).astype(guess.dtype)
        return {"differential": flags, "guess": guess, "span": lax.stop_gradient(span)}

    @staticmethod
    def functions(problem: ImplicitDAEProblem, tree: PyTree) -> list:
        fits = partial(as_rate, must="there is one equation for each component")
        return [("residual", problem.residual, (tree, moving_leaves(tree)), fits)]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        def residual(t: Array, y: Array, dy: Array) -> Array:
            value = at[0](t, packing.unpack(y), packing.rates_of(flip_time(sign, dy)))
            value = packing.pack(value)
            if not packing.viewed or packing.real_mask.all():
                return value
            # An imaginary part that is not there stays what it is.
            return jnp.where(packing.real_mask.reshape(value.shape), value, dy)

        return Implicit(residual, **{**known, "guess": flip_time(sign, known["guess"])})

"""What the continuous adjoints share: the adjoint equation, its jumps, and the march back along it.

For y' = f(t, y, p) and a loss that sees y at times t_i, the cotangent λ of y obeys, backwards,

    λ' = −(∂f/∂y)ᵀ λ,   λ(t_i⁻) = λ(t_i⁺) + (∂L/∂y(t_i))ᵀ,   dL/dp = ∫ (∂f/∂p)ᵀ λ dt + direct terms,

with dL/dy0 = λ(t0), dL/dt1 = λ(t1)·f, dL/dt0 = −λ(t0)·f, and dL/ds = λ(s)·(f(s⁻) − f(s⁺)) for a
time s at which f jumps. The adjoints differ in where y(t) comes from and in how the integral is
taken; each has its file. A march (`backward_solve.py`) goes back; what it starts from and what its
end means is in `cotangents.py`.
"""

from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array

from ..autodiff.one_way_linear import Map, undifferentiable
from ..autodiff.reverse_control_flow import loops_named
from ..integrator import Data, State, System
from ..methods import Method
from ..problems import Problem
from .backward_solve import Back, BackwardSolve
from .base import FEATURES, OneWay, Spec, check_tolerance, refusal
from .cotangents import backward
from .forward_result import AdjointContext, solved_with_states

__all__ = ["Reverse"]


class Reverse(OneWay):
    """Base of the continuous adjoints: reverse mode, for problems that are ODEs.

    A subclass says what its march carries (`parts`, λ first), how that changes (`slopes`), and how
    it goes (`march`).
    """

    serves: ClassVar[frozenset[str]] = frozenset(FEATURES) - {
        "forward", "second", "steps", "dense", "by hand", "multistep", "turns", "events",
        "held",
    }  # fmt: skip
    carries: ClassVar[bool] = True  # whether dL/dp is part of the state
    restores: ClassVar[bool] = False  # whether y is, and is restored at nodes

    rtol: float | None = eqx.field(static=True, default=None, kw_only=True)
    atol: float | None = eqx.field(static=True, default=None, kw_only=True)
    method: Method | None = eqx.field(static=True, default=None, kw_only=True)

    @classmethod
    def solves(cls, problem: type[Problem]) -> bool:
        """True for ODEs alone."""
        return problem.is_ode

    def __check_init__(self) -> None:
        check_tolerance("rtol", self.rtol)
        check_tolerance("atol", self.atol)
        if self.method is None:
            return
        if isinstance(self.method, type) or not isinstance(self.method, Method):
            raise TypeError(
                f"method is {self.method!r}; an instance is wanted, such as de.Tsit5(), or None."
            )
        if self.method.multistep:
            raise ValueError(
                f"method is {self.method!r}, and λ, which jumps at every row, has no past to go "
                "on; a one-step method is wanted, such as de.Rodas5P()."
            )
        if len(self.method.submethods) > 1:
            raise ValueError(
                f"method is {self.method!r}, and on the way back, which is one loop, no methods "
                "take turns; one of both is wanted, such as de.Rodas5P()."
            )
        if not self.method.adaptive:
            raise ValueError(
                f"method is {self.method!r}, which has no error estimate; one that has is wanted, "
                "such as de.Tsit5(), or None for the method of the solve."
            )

    # What the adjoints differ in.

    def hidden(self, setting: "AdjointContext") -> list[Array]:
        """Further times at which the march wants to know y."""
        del setting
        return []

    def recorder(self, system: System, max_steps: int, size: int = 0) -> Any:
        """The tape that the march needs."""
        del system, max_steps

    def parts(self, lam: Array, y: Array, moving: list) -> tuple:
        """What is carried, at t1: λ, and what else."""
        raise NotImplementedError

    def slopes(self, setting: "AdjointContext", where: Any, t: Array, parts: tuple) -> tuple:
        """Its derivative by σ = −t; `where` is what y(t) is made of."""
        raise NotImplementedError

    def arrived(self, parts: tuple, known: Any, tolerance: Any) -> tuple[tuple, Any]:
        """What is carried on from a node where y is known, and the drift that was found there."""
        del known, tolerance
        return parts, None

    def gathered(self, back: "Back", data: Data, march: "BackwardSolve", tried: Any) -> list:
        """The integral with what an attempt adds to it."""
        del back, data, tried
        return march.total

    def march(self, back: "Back") -> "BackwardSolve":
        """From t1 to t0."""
        raise NotImplementedError

    # What they share.

    def kept(self, spec: Spec, leaves: list) -> tuple[tuple[State, list], Any]:
        """The solve with what the march needs of it."""
        sentence = refusal(self.name, ["second"])
        return undifferentiable(partial(solved_with_states, spec), sentence)(leaves)

    def map(self, spec: Spec, live: list[bool], tree: Any) -> Map:
        """Cotangents pulled back."""
        return _Pull(spec, live, tree)


class _Pull(Map):
    """The cotangents of a solve's inputs, by a march."""

    def __init__(self, spec: Spec, live: list[bool], tree: Any) -> None:
        self.spec, self.live, self.tree = spec, live, tree
        self.name = spec.adjoint.name
        self.refusal = refusal(self.name, ["forward"])

    def pull(self, residuals: list, cotangents: list) -> list:
        def run(residuals: list, cotangents: list) -> list:
            kept = jax.tree.unflatten(self.tree, residuals)
            setting = AdjointContext(self.spec, kept.leaves, self.live)
            with loops_named(setting.linear):
                return backward(setting, kept, cotangents)

        return undifferentiable(run, refusal(self.name, ["second"]))(residuals, cotangents)

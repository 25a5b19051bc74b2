"""The adjoint equation and its jumps, common to the continuous adjoints.

For y' = f(t, y, p) and a loss that observes y at times t_i, the cotangent λ of y obeys, backwards,

    λ' = −(∂f/∂y)ᵀ λ,   λ(t_i⁻) = λ(t_i⁺) + (∂L/∂y(t_i))ᵀ,   dL/dp = ∫ (∂f/∂p)ᵀ λ dt + direct terms,

with dL/dy0 = λ(t0), dL/dt1 = λ(t1)·f, dL/dt0 = −λ(t0)·f, and dL/ds = λ(s)·(f(s⁻) − f(s⁺)) for a
time s at which f jumps. The adjoints differ in where y(t) comes from and in how the integral is
taken; each has its file. The backward solve is in `backward_solve.py`; its initial values, and the
cotangents that its end gives, are in `cotangents.py`.
"""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..autodiff.one_way_linear import Map, undifferentiable
from ..autodiff.reverse_control_flow import loops_named
from ..controllers.tolerance import Tolerance
from ..core.packing import TreeDef
from ..integrator import Attempt, Data, Integrator, State
from ..methods import Method
from ..problems import Problem
from .backward_solve import AdjointIntegrator, BackwardSolve, ForwardStates
from .base import FEATURES, OF_STEPS, OneWay, SolveSpec, check_tolerance, refusal
from .cotangents import backward
from .forward_result import AdjointContext, solved_with_states
from .tape import Recorder

__all__ = ["ContinuousAdjoint"]


class ContinuousAdjoint(OneWay):
    """Base of the continuous adjoints: reverse mode, for problems that are ODEs.

    A subclass defines the unknowns of its backward solve (`parts`, λ first), their derivatives
    (`slopes`), and the solve from t1 to t0 (`solve_backwards`).
    """

    serves: ClassVar[frozenset[str]] = frozenset(FEATURES) - OF_STEPS - {"forward", "second"}
    restores: ClassVar[bool] = False  # y is part of it, and is restored at nodes

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

    # Defined by each adjoint.

    @property
    def augmented(self) -> bool:
        """True if dL/dp is part of the state of the backward solve."""
        return True

    def checkpoint_times(self, setting: "AdjointContext") -> list[Array]:
        """Further times at which the forward solve stores y for the backward solve."""
        del setting
        return []

    def recorder(self, integrator: Integrator, max_steps: int, size: int = 0) -> Recorder | None:
        """The recorder of the tape that the backward solve reads; None where it reads none."""
        del integrator, max_steps

    def parts(self, lam: Array, y: Array, moving: list) -> tuple:
        """The unknowns of the backward solve at t1: λ first."""
        raise NotImplementedError

    def slopes(
        self, setting: "AdjointContext", where: ForwardStates, t: Array, parts: tuple
    ) -> tuple:
        """The derivatives of the unknowns by σ = −t; `where` holds the data that give y(t)."""
        raise NotImplementedError

    def at_checkpoint(
        self, parts: tuple, known: Array | None, tolerance: Tolerance
    ) -> tuple[tuple, Array | None]:
        """The unknowns after a node at which y is known, and the drift that was measured there."""
        del known, tolerance
        return parts, None

    def accumulate(
        self, back: "AdjointIntegrator", data: Data, solve: "BackwardSolve", tried: Attempt
    ) -> list:
        """The integral dL/dp after an attempt."""
        del back, data, tried
        return solve.total

    def solve_backwards(self, back: "AdjointIntegrator") -> "BackwardSolve":
        """Solves backwards from t1 to t0."""
        raise NotImplementedError

    # Common to all of them.

    def kept(self, spec: SolveSpec, leaves: list) -> tuple[tuple[State, list], PyTree]:
        """The forward solve, and the residuals for the backward solve."""
        sentence = refusal(self.name, ["second"])
        return undifferentiable(partial(solved_with_states, spec), sentence)(leaves)

    def map(self, spec: SolveSpec, live: list[bool], tree: TreeDef) -> Map:
        """The linear map that pulls cotangents back."""
        return _Pull(spec, live, tree)


class _Pull(Map):
    """The map to the cotangents of a solve's inputs, by a backward solve."""

    def __init__(self, spec: SolveSpec, live: list[bool], tree: TreeDef) -> None:
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

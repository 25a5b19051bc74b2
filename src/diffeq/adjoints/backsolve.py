"""`Backsolve`: y is solved backwards together with its adjoint, and compared with checkpoints."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..controllers.tolerance import Tolerance
from ..core.norm import mean_square
from .adjoint_equation import ContinuousAdjoint
from .backward_solve import AdjointIntegrator, BackwardSolve, ForwardStates
from .base import register_adjoint
from .forward_result import AdjointContext

__all__ = ["Backsolve"]


@register_adjoint
class Backsolve(ContinuousAdjoint):
    """Solves (λ, dL/dp, y) backwards from the end, in memory that no number of steps increases.

    y' = f, λ' = −(∂f/∂y)ᵀλ and d/dt dL/dp = −(∂f/∂p)ᵀλ are one equation that starts from y(t1).
    What contracts forwards grows backwards, so that y can be lost in silence (the published adjoint
    of neural ODEs gives −7 where +9.9 is right for a van der Pol oscillator). Here it is checked:
    at each saved time, at `checkpoints` further times and at t0 it is compared with the forward
    solve, and restored. Where they differ by more than `drift` tolerances, the derivative is NaN,
    and outside a trace an error names the time and the difference. The y of a stiff equation is
    lost in this way by any method. A solve with given steps (`dt=`) has no tolerance to compare
    with: give one, as rtol= or atol= of the solve.

    Args:
        checkpoints: how many states of the forward solve are kept besides the saved ones, at equal
            distances in time.
        drift: how far y may be from the forward solve, in units of its tolerance.
        rtol, atol: tolerances of λ; None: those of the solve. atol is meant in units of y: for λ it
            is relative to the largest adjoint jump.
        method: the method of the backward solve; it must estimate its error. None: the method of
            the solve.

    Reverse mode only; for rows at given times and the end.

    Raises:
        TypeError: forward mode, second derivatives, rows at the ends of steps, or given steps
            without a tolerance were asked for.
        RuntimeError: (outside a trace) y was lost, or λ could not be solved.

    Reference: chen2018, gholami2019.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
        >>> end = lambda k: de.solve(problem.replace(args=k), rtol=1e-5, adjoint=de.Backsolve()).y1
        >>> round(float(jax.grad(end)(1.0)), 3)
        -0.368
    """

    serves: ClassVar[frozenset[str]] = ContinuousAdjoint.serves - {"no tolerance"}
    restores: ClassVar[bool] = True

    checkpoints: int = eqx.field(static=True, default=64)
    drift: float = eqx.field(static=True, default=10.0)

    def __check_init__(self) -> None:
        whole = isinstance(self.checkpoints, (int, np.integer))
        if not whole or isinstance(self.checkpoints, bool) or self.checkpoints < 0:
            raise ValueError(f"checkpoints is {self.checkpoints!r}; a whole number is wanted.")
        if not self.drift > 0:
            raise ValueError(f"drift is {self.drift!r}; a positive number is wanted.")

    def checkpoint_times(self, setting: AdjointContext) -> list[Array]:
        """The times of the checkpoints: t0, and `checkpoints` times at equal distances."""
        t0, t1 = setting.start.t, setting.data.t1
        part = jnp.arange(self.checkpoints + 1, dtype=t0.dtype) / (self.checkpoints + 1)
        return [t0 + part * (t1 - t0)]

    def parts(self, lam: Array, y: Array, moving: list) -> tuple:
        """(λ, dL/dp, y)."""
        return lam, [jnp.zeros_like(p) for p in moving], y

    def slopes(
        self, setting: AdjointContext, where: ForwardStates, t: Array, parts: tuple
    ) -> tuple:
        """((∂f/∂y)ᵀλ, (∂f/∂p)ᵀλ, −f)."""
        del where
        lam, _, y = parts
        f, pull = jax.vjp(lambda p, y: setting.field(p, t, y), setting.parameters, y)
        of_parameters, of_y = pull(lam)
        return of_y, of_parameters, -f

    def at_checkpoint(
        self, parts: tuple, known: Array | None, tolerance: Tolerance
    ) -> tuple[tuple, Array]:
        """The unknowns with y restored from the forward solve; and the drift: the norm of the
        difference of y from it, in tolerances.
        """
        assert known is not None
        lam, of_parameters, y = parts
        scale = tolerance.atol + tolerance.rtol * jnp.abs(known)
        return (lam, of_parameters, known), jnp.sqrt(mean_square((y - known) / scale))

    def solve_backwards(self, back: AdjointIntegrator) -> BackwardSolve:
        """Solves backwards from t1 to t0 in one loop."""
        return back.solve_to(back.first(()), (), back.floor)

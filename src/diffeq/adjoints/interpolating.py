"""`Interpolating`: λ and the integral are solved along the polynomials of the forward solve."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..autodiff.dynamic_scan import walk
from ..core.norm import in_dtype_of
from ..integrator import System, step_interpolant
from .adjoint_equation import ContinuousAdjoint
from .backward_solve import AdjointSystem, BackwardSolve
from .base import register_adjoint
from .discrete import Discrete, replay_window
from .forward_result import AdjointContext

__all__ = ["AlongTape", "Interpolating"]


class AlongTape(ContinuousAdjoint):
    """An adjoint that takes y(t) from the interpolants of the forward solve: it walks backwards
    over the rows of the tape, forms the interpolant of each step, and solves λ along it. No step of
    the backward solve crosses an end of a forward step, where the interpolant is not smooth, and
    none is longer than the forward step. Memory is the tape's, O(√steps) when it is thinned.
    """

    restores: ClassVar[bool] = False

    rows: int | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self) -> None:
        Discrete(self.rows)  # raises an error if rows is no positive whole number

    def recorder(self, system: System, max_steps: int, size: int = 0) -> Any:
        """The recorder of the tape, that of `Discrete`."""
        return Discrete(self.rows).recorder(system, max_steps, size)

    @staticmethod
    def state(where: Any, t: Array) -> Array:
        """y(t) on a step; before the first step of the backward solve, y at the end."""
        if len(where) == 1:
            return where[0]
        polynomial, start, length = where
        return polynomial(in_dtype_of((t - start) / length, polynomial.y0))

    def solve_backwards(self, back: AdjointSystem) -> BackwardSolve:
        """Solves backwards over the windows of the tape, and in each over its rows."""
        system, data = back.setting.storing_states()
        record = back.kept.record
        setting = back.setting
        recorder = self.recorder(system, setting.spec.max_steps, setting.start.y.nbytes)
        length = recorder.rows + 1

        def polynomial(t: Array, y: Array, t1: Array) -> tuple:
            return step_interpolant(system, data, t, y, t1), t, t1 - t

        def step(
            active: Any, row: Any, _: Any, solve: BackwardSolve, *__: Any
        ) -> tuple[BackwardSolve, tuple]:
            top = -solve.state.t
            where = polynomial(row.t, row.y, top)
            floor = jnp.where(active & row.accept, -row.t, solve.state.t)
            return back.solve_to(solve, where, floor), ()

        solve = back.first((back.kept.end.y,))
        if not recorder.thins:
            return walk(
                step, 0, record.attempts, rows=record.rows, carry=solve, length=length, reverse=True
            )[0]
        windows = (record.attempts + record.stride - 1) >> record.shift
        count = jnp.where(record.thinned, windows, jnp.minimum(record.attempts, 1))

        def window(
            active: Any, index: Any, _: Any, solve: BackwardSolve, *__: Any
        ) -> tuple[BackwardSolve, tuple]:
            del active
            left = record.attempts - (index << record.shift)
            n = jnp.where(record.thinned, jnp.minimum(record.stride, left), record.attempts)
            again = jnp.where(record.thinned, n, 0)
            rows = replay_window(recorder, back.kept.end, data, record, index, again)
            return walk(step, 0, n, rows=rows, carry=solve, length=length, reverse=True)[0], ()

        places = jnp.arange(length, dtype=jnp.int32)
        return walk(window, 0, count, rows=places, carry=solve, length=length, reverse=True)[0]


@register_adjoint
class Interpolating(AlongTape):
    """Solves (λ, dL/dp) backwards, with y(t) from the polynomials of the forward solve.

    λ' = −(∂f/∂y)ᵀλ and d/dt dL/dp = −(∂f/∂p)ᵀλ along a y(t) that is interpolated and not solved
    again, so that y is as accurate as in the forward solve. dL/dp is in the error norm (as a part
    of its own: many weights do not hide a few states), at the price of a vector–Jacobian product by
    all parameters at each stage; `Gauss` takes one at a few points of a step instead.

    Args:
        rows: the number of attempts that the tape keeps before it is thinned, as for `Discrete`.
        rtol, atol: tolerances of λ; None: those of the solve. atol is meant in units of y: for λ it
            is relative to the largest adjoint jump.
        method: the method of the backward solve; it must estimate its error. None: the method of
            the solve.

    Reverse mode only; for rows at given times and the end.

    Raises:
        TypeError: forward mode, second derivatives, or rows at the ends of steps were asked for.
        RuntimeError: (outside a trace) λ could not be solved.

    Reference: sapienza2024.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
        >>> adjoint = de.Interpolating()
        >>> end = lambda k: de.solve(problem.replace(args=k), rtol=1e-5, adjoint=adjoint).y1
        >>> round(float(jax.grad(end)(1.0)), 3)
        -0.368
    """

    def parts(self, lam: Array, y: Array, moving: list) -> tuple:
        """(λ, dL/dp)."""
        del y
        return lam, [jnp.zeros_like(p) for p in moving]

    def slopes(self, setting: AdjointContext, where: Any, t: Array, parts: tuple) -> tuple:
        """((∂f/∂y)ᵀλ, (∂f/∂p)ᵀλ)."""
        y = self.state(where, t)
        pull = jax.vjp(lambda p, y: setting.field(p, t, y), setting.parameters, y)[1]
        of_parameters, of_y = pull(parts[0])
        return of_y, of_parameters

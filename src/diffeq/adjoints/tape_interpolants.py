"""y(t) for a backward solve, from the interpolants of the recorded steps.

The backward solve goes over the rows of the tape from the last to the first, forms the interpolant
of each step, and solves λ along it: no step of it crosses an end of a forward step, where the
interpolant is not smooth, and none is longer than the forward step. Where the tape was thinned its
rows are checkpoints, and each part of a window is repeated before the backward solve goes over it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..autodiff.dynamic_scan import walk
from ..core.norm import in_dtype_of
from ..integrator import step_interpolant
from .backward_solve import AdjointIntegrator, BackwardSolve, ForwardStates
from .repeat import replay_part, walk_over_parts
from .tape import Part, Recorder, Tape, TapeRow

__all__ = ["solve_along_tape", "state_at"]


def state_at(where: ForwardStates, t: Array) -> Array:
    """y(t) on a step; before the first step of the backward solve, y at the end."""
    if len(where) == 1:
        return where[0]
    polynomial, start, length = where
    return polynomial(in_dtype_of((t - start) / length, polynomial.y0))


def solve_along_tape(back: AdjointIntegrator, recorder: Recorder) -> BackwardSolve:
    """Solves backwards from t1 to t0 over the windows of the tape, and in each over its rows."""
    integrator, data = back.setting.storing_states()
    record, length = back.kept.record, recorder.rows + 1
    assert record is not None

    def step(
        active: Bool[Array, ""], row: TapeRow, _: tuple, solve: BackwardSolve, *__: tuple
    ) -> tuple[BackwardSolve, tuple]:
        t1 = -solve.state.t
        where = step_interpolant(integrator, data, row.t, row.y, t1), row.t, t1 - row.t
        floor = jnp.where(active & row.accept, -row.t, solve.state.t)
        return back.solve_to(solve, where, floor), ()

    def over(rows: TapeRow, n: Array, solve: BackwardSolve) -> BackwardSolve:
        return walk(step, 0, n, rows=rows, carry=solve, length=length, reverse=True)[0]

    solve = back.first((back.kept.end.y,))
    if not recorder.thins:
        return over(record.rows, record.attempts, solve)

    def back_over_part(
        record: Tape, part: Part, _: tuple, solve: BackwardSolve, __: tuple
    ) -> BackwardSolve:
        rows = replay_part(recorder, back.kept.end, data, record, part)
        return over(rows, part.n, solve)

    return walk_over_parts(recorder, record, back_over_part, carry=solve, reverse=True)

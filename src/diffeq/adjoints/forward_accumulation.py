"""`ForwardAccumulation`: the forward derivative of `Discrete`, found while the solve runs, without
a tape.

The tangent of a solve is linear in its start and its parameters, step by step. Where only tangents
are wanted, and few of them, each accepted step is differentiated when it is made, and all that goes
from step to step is the tangent: no rows to write, to thin and to run again. The numbers are those
of `Discrete`. In a kernel (`ensemble/gpu_kernel/launch.py`) tangents stay in registers.

It has no reverse mode, and no derivative of a derivative: it is for Jacobians that are then
constant. Without a tape and a walk along it the program is smaller, too, and compiles sooner. So it
is no option of `Discrete`, which serves every mode and order; nor of `Forward`, which pushes
tangents through the attempts of an ODE, and not through the accepted steps of any problem.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, PyTree

from ..core.packing import TreeDef
from ..core.promotion import standard_promotion
from ..integrator import (
    Attempt,
    Data,
    Integrator,
    SafePoint,
    Start,
    State,
    TapeRow,
    alternate_methods,
    attempt,
    integrate,
    is_sound,
    tape_row_of,
    with_presampled_noise,
)
from .base import Adjoint, is_inexact, scatter_live
from .discrete import (
    Discrete,
    blank_like,
    dense_zero_tangent,
    fill_zeros,
    first_carry,
    first_tangents,
    tangents_of,
    tangents_of_consts,
)
from .empty_span import initial_tangents

__all__ = ["ForwardAccumulation"]


class ForwardAccumulation(Adjoint):
    """Accumulates the tangents while the solve runs. A solve that it does not serve (alternating
    methods, delays, single steps) is differentiated along a `tape`.
    """

    tape: Adjoint = Discrete()

    def run(
        self, integrator: Integrator, data: Data, start: Start | State, max_steps: int
    ) -> tuple[State, list]:
        """`integrate` from a `Start` or a `State`, with a forward derivative."""
        if len(integrator.submethods) > 1 or integrator.rows is not None or integrator.one_step:
            return self.tape.run(integrator, data, start, max_steps)
        leaves, tree = jax.tree.flatten((data, start))
        return _solve_with_tangents(integrator, tree, leaves)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solve_with_tangents(integrator: Integrator, tree: TreeDef, leaves: list) -> tuple[State, list]:
    data, start = jax.tree.unflatten(tree, leaves)
    data = with_presampled_noise(integrator, data)
    state, buffers, _ = integrate(integrator, data, start.state(integrator, data))
    return state, buffers


@partial(_solve_with_tangents.defjvp, symbolic_zeros=True)
@standard_promotion()
def _solve_with_tangents_jvp(
    integrator: Integrator, tree: TreeDef, primals: tuple[list], tangents: tuple[list]
) -> tuple[tuple[State, list], tuple[State, list]]:
    (leaves,), (dots,) = primals, tangents
    integrator.check_differentiable()
    dots = [
        None if isinstance(d, SymbolicZero) or not is_inexact(x) else d
        for d, x in zip(dots, leaves, strict=True)
    ]
    data, start = jax.tree.unflatten(tree, leaves)
    of_data, of_start = jax.tree.unflatten(tree, list(range(len(dots))))
    safe_point = _finite_start(start)
    first = partial(first_carry, integrator, None, safe_point)
    like = blank_like(first, data, start)
    d_first = first_tangents(tree, first, leaves, dots, like)
    data = with_presampled_noise(integrator, data)
    state = start.state(integrator, data)
    # An element that has failed makes no given step any more; each attempt records which failed.
    data = (
        data
        if state.failed is None
        else eqx.tree_at(lambda d: d.failed, data, state.failed, is_leaf=lambda x: x is None)
    )
    consts = data, safe_point.with_step(state.dt, state.memory), []
    d_consts = tangents_of_consts(dots, of_data, consts)
    d_carry = [dots[i] for i in (of_start.t, of_start.y, *of_start.held)] + d_first
    by_ends = dots[of_data.t1], dots[of_start.t], dots[of_start.y]
    d_carry[:2] = initial_tangents(integrator, None, safe_point, data, start, by_ends)
    carry = (start.t, start.y, start.held, *like)
    row = jax.eval_shape(
        lambda d, s: tape_row_of(integrator, s, attempt(integrator, d, s)[1]), data, state
    )
    stable = [False] * len(d_carry)
    (tangent,) = tangents_of(
        integrator, ((row, row.whole), []), consts, carry, d_consts, d_carry, stable
    )
    along = _TangentRecorder(
        integrator, tangent, consts, d_consts, len(d_first), tangent.start(d_carry)
    )
    state, buffers, end = integrate(integrator, data, state, along)
    end = jax.tree.unflatten(jax.tree.structure(carry), scatter_live(end, tangent.live))
    d_t, d_y, d_held, _, d_buffers, _ = end
    zero, blank = dense_zero_tangent(state), dense_zero_tangent(buffers)
    d_t, d_y, d_held = fill_zeros((d_t, d_y, d_held), (zero.t, zero.y, zero.held))
    d_state = eqx.tree_at(lambda s: (s.t, s.y), zero, (d_t, d_y))
    d_state = eqx.tree_at(lambda s: s.held, d_state, d_held) if d_held else d_state
    return (state, buffers), (d_state, fill_zeros(d_buffers, blank))


def _finite_start(start: Start | State) -> SafePoint:
    """A point at which the field is finite, for use in place of rejected attempts: the
    start, with zero for values that are not finite.
    """
    t, y, held = jax.lax.stop_gradient((start.t, start.y, start.held))
    return SafePoint(jnp.where(jnp.isfinite(t), t, 0), jnp.where(jnp.isfinite(y), y, 0), held)


class _TangentRecorder(NamedTuple):
    """A recorder for the loop that holds the tangents, and pushes them through each
    accepted step.
    """

    integrator: Integrator
    tangent: Any
    consts: tuple
    d_consts: list
    unknown: int
    start: list
    rows: int = 0

    def write(self, record: list, state: State, tried: Attempt, made: Array) -> list:
        """The tangents after an attempt; unchanged where it was rejected or the solve of a batch
        element has ended.
        """
        del made  # or it is not accepted
        row = tape_row_of(self.integrator, state, tried)
        known = jax.tree.leaves(state.memory) if self.integrator.records_memory else []
        recorded = [row.t, row.y, *row.held, *known]
        recorded += [None] * (self.unknown - len(known))
        single = lambda tree: jax.tree.map(lambda x: x[None], tree)  # noqa: E731
        data, *rest = self.consts
        if state.failed is not None:
            data = eqx.tree_at(lambda d: d.failed, data, _failed_step(state, tried))
        rows = single(((row, _next_row_integers(row, state, tried)), []))
        out, _ = self.tangent.run(
            1,
            rows,
            (data, *rest),
            single(recorded),
            self.d_consts,
            record,
            [False] * len(self.tangent.live),
            1,
        )
        return out

    def run(
        self,
        running: Callable,
        turn: Callable,
        data: Data,
        state: State,
        buffers: list,
        rest: PyTree,
    ) -> tuple[State, list, list, PyTree]:
        """Runs the loop with the tangents in its carry."""
        carried = (buffers, self.start, rest)
        state, (buffers, dots, rest) = alternate_methods(
            self.integrator, running, turn, data, state, carried
        )
        return state, buffers, dots, rest


def _next_row_integers(row: TapeRow, state: State, tried: Attempt) -> Array:
    """The integers of the next row, of which the numbers of output rows written are up to date."""
    after = [w + c.n for w, c in zip(state.written, tried.cursors, strict=True)]
    channels = len(after)
    parts = [row.whole[:1], *(x.astype(jnp.int32)[None] for x in after), row.whole[1 + channels :]]
    return jnp.concatenate(parts)


def _failed_step(state: State, tried: Attempt) -> Array:
    """The number of the given step that failed, this one perhaps, or −1."""
    failed = (state.failed < 0) & ~is_sound(tried.step, tried.inside)
    return jnp.where(failed, state.steps, state.failed)

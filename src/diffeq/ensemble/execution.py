"""Runs all trajectories of an ensemble: in lockstep, in chunks, on all cores, or as a kernel; to
the end, or with cotangents from there back to their inputs.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree

from ..adjoints.base import pick_flagged
from ..autodiff.jax_internals import in_a_trace, is_key
from ..closures import unflatten
from ..core.split import split_by_sizes
from ..solution import Solution
from ..solve import first_step
from .chunks import (
    Costs,
    Index,
    available_cores,
    cached,
    compiled_program,
    in_chunks,
    on_cores,
    order_by_cost,
    through_chunks,
)
from .gpu_kernel import NoKernel
from .gpu_kernel.launch import Kernel, Tuning, in_kernel, no_kernel_reason
from .reduction import Reduction
from .sharded import platform
from .trajectory import (
    Plan,
    count_shared,
    inexact_leaves,
    pull_trajectory,
    replace_flagged,
    solve_plain,
    solve_trajectory,
    trajectory_call,
)

__all__ = [
    "check_kernel",
    "has_controlled_steps",
    "has_kernel",
    "in_lockstep",
    "in_program",
    "reduce_or_keep",
    "reduction_of",
    "run_parallel",
    "with_statistics",
]

# Bytes of the tapes of one launch: those of some 100,000 small systems, which keep a large GPU busy
# and take a small part of its memory.
_SCRATCH = 2**31


@partial(jax.jit, static_argnums=(0, 1))
def in_lockstep(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Int[Array, " n"]
) -> tuple[PyTree, Solution]:
    """Solves all trajectories in one loop. Returns the state of the statistics (empty if there are
    none), and the solution of each.
    """
    sol = jax.vmap(partial(solve_plain, plan, structure, leaves))(rows, index)
    return reduce_or_keep(plan, structure, leaves, sol, index)


def reduce_or_keep(
    plan: Plan, structure: Hashable, leaves: list, sol: PyTree, index: Index
) -> tuple[PyTree, PyTree]:
    """The state of the statistics of all trajectories (empty if there are none), and the part of
    each solution that is kept. Where derivatives are found along the way, these stand beside it.
    """
    if not plan.reduces:
        return (), sol
    reduction = reduction_of(structure, leaves)
    state = reduction.update(reduction.init(sol[0]), sol, jnp.asarray(index) >= 0)
    return state, reduction.kept(sol)


def reduction_of(structure: Hashable, leaves: Sequence) -> Reduction:
    """The statistics that the call has asked for."""
    return Reduction(unflatten(structure, leaves)["reduce"])


def with_statistics(
    plan: Plan, structure: Hashable, leaves: list, state: PyTree, sol: PyTree
) -> PyTree:
    """The solution, with its statistics if the call has asked for them."""
    return reduction_of(structure, leaves).finished(state, sol) if plan.reduces else sol


def run_parallel(
    plan: Plan,
    structure: Hashable,
    leaves: list,
    rows: list,
    index: Index,
    costs: Costs | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs on all cores if the numbers are known; else in the program that they are part of.
    Returns the state of the statistics (empty if there are none), and the solution of each
    trajectory. By `costs`, if they are known, trajectories of similar cost are grouped.
    """
    known = not in_a_trace([*leaves, *rows]) and not any(map(is_key, rows))
    if plan.kernel is not None or not known or platform() != "cpu":
        return in_program(plan, structure, leaves, rows, index, costs)
    return _run_on_cores(plan, structure, leaves, rows, index, costs)


@partial(jax.jit, static_argnums=(0, 1))
def _first_steps(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Int[Array, " n"]
) -> tuple[Array, Array]:
    """The first step size of each trajectory, and its cost relative to the others."""

    def one(rows: list, i: Int[Array, ""]) -> tuple[Array, Array]:
        return first_step(plan.static, trajectory_call(plan, structure, leaves, rows, i))

    leaves, rows = jax.lax.stop_gradient((leaves, rows))
    if plan.kernel is not None:  # one step costs little compared with the kernel
        return jax.vmap(one)(rows, index)
    return in_chunks(one, rows, index, plan.chunk)


@partial(jax.jit, static_argnums=(0, 1))
def _run_chunks(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Int[Array, " n"]
) -> tuple[PyTree, PyTree]:
    """Runs a chunk after the other, or all as blocks of a kernel. A trajectory with the index −1
    fills up a share.
    """
    if plan.back:
        return _pull_chunks(plan, structure, leaves, rows, index)
    one = partial(solve_trajectory, plan, structure)
    if plan.kernel is not None:
        return reduce_or_keep(
            plan, structure, leaves, in_kernel(one, leaves, rows, index, plan.kernel), index
        )
    if not plan.reduces:
        return (), in_chunks(partial(one, leaves), rows, index, plan.chunk)
    reduction = reduction_of(structure, leaves)

    def step(state: PyTree, xs: tuple, counts: Bool[Array, " chunk"]) -> tuple[PyTree, Solution]:
        sol = jax.vmap(partial(one, leaves))(*xs)
        return reduction.update(state, sol, counts & (xs[1] >= 0)), reduction.kept(sol)

    like = jax.eval_shape(partial(one, leaves), [row[0] for row in rows], index[0])
    return through_chunks(step, reduction.init(like), (rows, index), plan.chunk)


@partial(jax.jit, static_argnums=(0, 1))
def in_program(
    plan: Plan,
    structure: Hashable,
    leaves: list,
    rows: list,
    index: Int[Array, " n"],
    costs: Costs | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs all trajectories in one program, on one core; those of similar cost in one chunk."""
    if plan.even:
        return _run_chunks(plan, structure, leaves, rows, index)
    if costs is None:
        first, costs = _first_steps(plan, structure, leaves, rows, index)
        rows = [*rows, first] if plan.starts else rows
    order = order_by_cost(jnp.asarray(costs), plan.chunk)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]))
    state, found = _run_chunks(plan, structure, leaves, [row[order] for row in rows], index[order])
    return state, jax.tree.map(lambda x: x[back], found)


def _run_on_cores(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index, costs: Costs | None
) -> tuple[PyTree, PyTree]:
    """Runs a share of the chunks on each core. The two programs are compiled at the same
    time, too.
    """
    size = index.shape[0]
    shares = min(available_cores(), -(-size // plan.chunk))
    length = -(-size // (shares * plan.chunk)) * plan.chunk
    known = plan.even or costs is not None
    first = (
        None if known else compiled_program(_first_steps, (plan, structure), leaves, rows, index)
    )
    like = [*rows, *([first.out[0]] if first is not None and plan.starts else [])]
    share = [jax.ShapeDtypeStruct((length, *x.shape[1:]), x.dtype) for x in (*like, index)]
    go = compiled_program(_run_chunks, (plan, structure), leaves, share[:-1], share[-1])
    if first is not None:
        steps, costs = first(leaves, rows, index)
        rows = [*rows, steps] if plan.starts else rows
    order = (
        np.arange(size)
        if plan.even
        else np.asarray(order_by_cost(np.asarray(costs), plan.chunk, np))
    )
    found, together = on_cores(partial(go, leaves), rows, index, order, plan.chunk, shares)
    states, parts = zip(*found, strict=True)
    return _merge_shares(plan, structure, leaves, states), together(*parts)


def _merge_shares(plan: Plan, structure: Hashable, leaves: list, states: Sequence) -> PyTree:
    """The statistics, or the sums of cotangents, of several shares together."""
    if plan.reduces:
        return reduction_of(structure, leaves).merged(states)
    return jax.tree.map(lambda *xs: jnp.asarray(sum(map(np.asarray, xs))), *states)


def _pull_chunks(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Int[Array, " n"]
) -> tuple[list, list]:
    """The cotangents of the shared inputs, summed over all trajectories, and of the rows of each.
    `rows` are the rows of inputs, followed by the cotangents of the solutions.
    """
    shared, own = count_shared(plan, leaves), len(plan.moving) - len(leaves)
    if plan.kernel is None:
        pull, group = partial(_pull_group, plan, structure, leaves), plan.chunk
    else:
        pull, group = _kernel_pull(plan, structure, leaves, rows, index)

    def step(sums: list, xs: tuple, counts: Bool[Array, " chunk"]) -> tuple[list, list]:
        rows, index = xs
        counts &= index >= 0  # trajectories that fill up the last chunk have no cotangents
        dots = [jnp.where(counts.reshape(-1, *[1] * (x.ndim - 1)), x, 0) for x in rows[own:]]
        found = pull([*rows[:own], *dots], index)
        return [a + b for a, b in zip(sums, found[:shared], strict=True)], found[shared:]

    zero = [jnp.zeros_like(x) for x in pick_flagged(leaves, plan.moving[: len(leaves)])]
    return through_chunks(step, zero, (rows, index), group)


def _pull_group(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Int[Array, " n"]
) -> list:
    """The cotangents of the moving inputs of trajectories that are stepped together."""
    own = len(plan.moving) - len(leaves)
    inputs = [*leaves, *rows[:own]]
    plain = replace(plan, kernel=None, back=False, moving=())

    def of(live: list) -> list:
        every = replace_flagged(inputs, plan.moving, live)
        common, mine = split_by_sizes(every, (len(leaves), own))
        return inexact_leaves(
            jax.vmap(partial(solve_trajectory, plain, structure, common))(mine, index)
        )

    _, pull = jax.vjp(of, pick_flagged(inputs, plan.moving))
    return pull(rows[own:])[0]


def _kernel_pull(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Int[Array, " n"]
) -> tuple:
    """The function that pulls cotangents back by a kernel, and the number of trajectories of one
    launch. A group in which a tape was too short is solved once more in lockstep, which thins
    tapes.
    """
    one = partial(pull_trajectory, plan, structure)
    kernel = Kernel.of(
        one, leaves, rows, index, plan.kernel or Tuning(), count_shared(plan, leaves)
    )
    unthinned, most = replace(plan.static.adjoint, checkpoint=False), plan.static.max_steps
    whole = unthinned.holds(most, is_adaptive=has_controlled_steps(structure, leaves))

    def pull(rows: list, index: Int[Array, " n"]) -> list:
        found, cut = kernel(leaves, rows, index)
        if whole:
            return found
        again = partial(_pull_group, plan, structure, leaves, rows, index)
        return lax.cond(jnp.any(cut), again, lambda: found)

    return pull, _launch_size(kernel, index.shape[0])


def _launch_size(kernel: Kernel, size: int) -> int:
    """The number of trajectories in a launch, such that their tapes take `_SCRATCH` bytes
    at most.
    """
    block = kernel.tuning.block
    most = max(_SCRATCH // max(kernel.scratch, 1) // block, 1)
    blocks = -(-size // block)
    return -(-blocks // -(-blocks // most)) * block


def has_controlled_steps(structure: Hashable, leaves: Sequence) -> bool:
    """True if a controller chooses the step sizes; False if they are given."""
    return unflatten(structure, leaves)["call"].is_adaptive


# The reason why there is no kernel (None if there is one), by the key of the compiled program.
_reasons: OrderedDict[Hashable, NoKernel | None] = OrderedDict()
_KEPT = 64  # of them, for each keeps the functions of its problem


def check_kernel(plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index) -> None:
    """Raises `NoKernel` if this solve cannot be a kernel."""
    leaves, rows = jax.lax.stop_gradient((leaves, rows))
    kinds = tuple((jnp.shape(x), jnp.result_type(x)) for x in (*leaves, *rows))

    def reason() -> NoKernel | None:
        bare, inputs, sums = replace(plan, starts=False), rows, 0
        if plan.back:
            inputs = [*rows, *_output_shapes(bare, structure, leaves, rows, index)]
            sums = count_shared(plan, leaves)
        one = partial(pull_trajectory if plan.back else solve_trajectory, bare, structure)
        return no_kernel_reason(one, leaves, inputs, index, plan.kernel or Tuning(), sums)

    found = cached(_reasons, (plan, structure, kinds), reason, _KEPT)
    if found is not None:
        raise found.with_traceback(None)  # which would grow each time


def has_kernel(plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index) -> bool:
    """True if this solve can be a kernel, or the plan has none."""
    if plan.kernel is None:
        return True
    try:
        check_kernel(plan, structure, leaves, rows, index)
    except NoKernel:
        return False
    return True


def _output_shapes(plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index) -> list:
    """The shapes of the inexact leaves of all solutions."""
    _, sol = jax.eval_shape(partial(in_lockstep, plan, structure), leaves, rows, index)
    return inexact_leaves(sol)

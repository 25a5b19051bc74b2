"""One trajectory of an ensemble, as a function of the shared inputs and of its own row.

`plan` is the static part. `leaves` and `structure` are the shared inputs, taken apart; `rows` are
the trajectory's rows of the arrays with a leading axis, followed by values that were computed for
it beforehand (its first step size, cotangents). It is traced once, whatever strategy runs it.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact, Int, PyTree

from ..adjoints.base import is_inexact, pick_flagged
from ..closures import unflatten
from ..core.split import split_by_sizes
from ..core.status import Status
from ..integrator.call import Call, StaticOptions
from ..solution import Solution
from ..solve import run
from ..validation import stops_of
from .gpu_kernel.launch import Tuning
from .inputs import Places, filled, key_of, trajectory

__all__ = [
    "Plan",
    "count_shared",
    "inexact_leaves",
    "pull_trajectory",
    "replace_flagged",
    "solve_plain",
    "solve_trajectory",
    "trajectory_call",
]


@dataclass(frozen=True)
class Plan:
    """The static part of an ensemble."""

    static: StaticOptions
    places: Places
    chunk: int
    narrow: int  # of a solve with Jacobians, which has more numbers; the block of a kernel
    even: bool  # no trajectory is expected to take more steps than another
    starts: bool  # the first step sizes are chosen before the others
    wide: bool  # a solution is too large to keep Jacobians of it
    reduces: bool  # statistics are returned, and no trajectories
    moving: tuple[bool, ...] = ()  # the inputs that are differentiated by, flagged
    kernel: Tuning | None = None  # of a kernel: its layout
    back: bool = False  # cotangents are pulled back, and there are no Jacobians


def trajectory_call(
    plan: Plan, structure: Hashable, leaves: Sequence, rows: Sequence, i: Int[Array, ""]
) -> Call:
    """The call of trajectory i."""
    shared = unflatten(structure, leaves)
    fields = filled(shared["given"], plan.places, rows)
    problem = shared["call"].problem
    key = key_of(shared["key"], jnp.maximum(i, 0))
    problem, key = trajectory(problem, shared["draw"], key, fields)
    stops = stops_of(problem, shared["stops"])
    return shared["call"]._replace(problem=problem, key=key, stops=stops)


def solve_plain(
    plan: Plan, structure: Hashable, leaves: Sequence, rows: Sequence, i: Int[Array, ""]
) -> Solution:
    """The solution of trajectory i."""
    return run(plan.static, trajectory_call(plan, structure, leaves, rows, i))


def solve_trajectory(
    plan: Plan, structure: Hashable, leaves: Sequence, rows: Sequence, i: Int[Array, ""]
) -> PyTree:
    """The solution of trajectory i, with its Jacobians if `plan.moving`; the last of its rows is
    the first step size, if `plan.starts`.
    """
    first = {"dt0": rows[-1]} if plan.starts else {}
    own = rows[:-1] if plan.starts else rows

    def solve(xs: Sequence) -> Solution:
        common, mine = split_by_sizes(xs, (len(leaves), len(own)))
        call = trajectory_call(plan, structure, common, mine, i)
        return run(plan.static, call._replace(**first))

    inputs = [*leaves, *own]
    return _with_jacobian(solve, inputs, plan.moving) if plan.moving else solve(inputs)


def _with_jacobian(
    solve: Callable[[list], Solution], inputs: list, moving: Sequence[bool]
) -> tuple[Solution, list[Array]]:
    """A solution, and the Jacobians of its inexact leaves by the moving inputs, as one vector.

    All directions are tangents of one solve.
    """
    live = [jnp.asarray(x) for x, m in zip(inputs, moving, strict=True) if m]
    sizes = [x.size for x in live]

    def of(vector: Inexact[Array, " n"]) -> tuple[list, Solution]:
        parts = jnp.split(vector, np.cumsum(sizes)[:-1])
        own = [part.reshape(x.shape) for part, x in zip(parts, live, strict=True)]
        sol = solve(replace_flagged(inputs, moving, own))
        return inexact_leaves(sol), sol

    vector = jnp.concatenate([x.ravel() for x in live])
    push = lambda e: jax.jvp(of, (vector,), (e,), has_aux=True)[1:]  # noqa: E731
    jacobian, sol = jax.vmap(push, out_axes=(-1, None))(jnp.eye(vector.size, dtype=vector.dtype))
    return sol, jacobian


def pull_trajectory(
    plan: Plan, structure: Hashable, leaves: Sequence, rows: Sequence, i: Int[Array, ""]
) -> tuple[list, Bool[Array, ""]]:
    """The cotangents of the moving inputs of trajectory i, from the cotangents of its solution,
    which follow its rows of inputs in `rows`; and True if the tape was too short for it. The tape
    of a kernel is in memory and its program should be short: it is not thinned.
    """
    own = len(plan.moving) - len(leaves)
    inputs = [*leaves, *rows[:own]]
    static = replace(plan.static, adjoint=replace(plan.static.adjoint, checkpoint=False))

    def of(live: list) -> tuple[list, Int[Array, ""]]:
        every = replace_flagged(inputs, plan.moving, live)
        common, mine = split_by_sizes(every, (len(leaves), own))
        sol = run(static, trajectory_call(plan, structure, common, mine, i))
        return inexact_leaves(sol), sol.status

    _, pull, status = jax.vjp(of, pick_flagged(inputs, plan.moving), has_aux=True)
    return pull(list(rows[own:]))[0], status == Status.tape_overflow


def inexact_leaves(tree: PyTree) -> list:
    """The leaves of a tree that have a derivative."""
    return [x for x in jax.tree.leaves(tree) if is_inexact(x)]


def replace_flagged(xs: Sequence, flags: Sequence[bool], live: Sequence) -> list:
    """The elements of `xs`, with those of `live` in place of the flagged ones."""
    found = iter(live)
    return [next(found) if flag else x for x, flag in zip(xs, flags, strict=True)]


def count_shared(plan: Plan, leaves: Sequence) -> int:
    """The number of moving inputs that are shared."""
    return plan.moving[: len(leaves)].count(True)

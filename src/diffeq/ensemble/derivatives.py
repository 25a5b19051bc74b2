"""The derivative of an ensemble by the strategies "lanes" and "kernel".

By few numbers a trajectory it is computed in forward mode: each chunk solves for its Jacobians by
them, by forward accumulation without a tape (`adjoints/forward_accumulation.py`), and the transpose
is then that of a sum of products. By more than `_FEW` numbers it is computed in reverse mode: when
cotangents are known, each chunk is solved once more, with a tape that lives no longer than the
chunk, and cotangents are pulled back along it. To solve twice costs less than to write the tapes of
all trajectories to memory and to read them from there. Where the numbers are known (a gradient that
is not compiled) all cores take part in both.

In the strategy "kernel" both are kernels; where there is none, "lockstep" takes over.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree

from ..adjoints import Discrete
from ..adjoints.base import is_inexact, pick_flagged
from ..adjoints.forward_accumulation import ForwardAccumulation
from ..autodiff.jax_internals import is_key
from ..autodiff.one_way_linear import Map, one_way_linear
from ..autodiff.unreached_rows import Reached, mark_unreached
from ..core.promotion import standard_promotion
from ..core.split import split_by_sizes
from ..solution import Solution
from .chunks import Costs, Index
from .execution import (
    has_controlled_steps,
    has_kernel,
    in_lockstep,
    in_program,
    reduce_or_keep,
    run_parallel,
    with_statistics,
)
from .trajectory import Plan, count_shared, inexact_leaves, replace_flagged, solve_trajectory

__all__ = ["solve_differentiably", "solve_in_lanes"]

_FEW = 6  # directions, which take together as long as reverse mode


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def solve_in_lanes(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index
) -> Solution:
    """The solutions of all trajectories, or their statistics."""
    return with_statistics(
        plan, structure, leaves, *run_parallel(plan, structure, leaves, rows, index)
    )


@partial(solve_in_lanes.defjvp, symbolic_zeros=True)
@standard_promotion()
def _solve_in_lanes_jvp(
    plan: Plan,
    structure: Hashable,
    primals: tuple[list, list, Index],
    tangents: tuple[list, list, SymbolicZero],
) -> tuple[Solution, Solution]:
    leaves, rows, index = primals
    inputs, dots = [*leaves, *rows], [*tangents[0], *tangents[1]]
    moving = tuple(_is_perturbed(x, dot) for x, dot in zip(inputs, dots, strict=True))
    live = [(x, d) for x, d, m in zip(inputs, dots, moving, strict=True) if m]

    along = replace(plan.static, adjoint=ForwardAccumulation(plan.static.adjoint))
    own = replace(plan, moving=moving, static=along, chunk=plan.narrow)
    values, slopes = [x for x, _ in live], [d for _, d in live]
    shared = count_shared(own, leaves)
    if _prefers_jacobians(plan, values, shared) and has_kernel(own, structure, leaves, rows, index):
        _, (sol, jacobians) = _jacobians(own, structure, leaves, rows, index)
        return sol, _tangent(sol, _jacobian_products(slopes[:shared], slopes[shared:], jacobians))

    def plain(live: list) -> Solution:
        every = replace_flagged(inputs, moving, live)
        common, own = split_by_sizes(every, (len(leaves), len(rows)))
        found = solve_differentiably(plan, structure, common, own, index)
        return with_statistics(plan, structure, common, *found)

    return jax.jvp(plain, (values,), (slopes,))


def _prefers_jacobians(plan: Plan, live: list, shared: int) -> bool:
    """True if Jacobians by the inputs `live`, of which the first are shared, cost less than reverse
    mode.
    """
    # A subclass may change the derivative, which is then computed by its own `run`.
    if plan.wide or not live or type(plan.static.adjoint) is not Discrete:
        return False
    count = sum(math.prod(jnp.shape(x)) for x in live[:shared])
    count += sum(math.prod(jnp.shape(x)[1:]) for x in live[shared:])
    alike = len({jnp.result_type(x) for x in live}) == 1
    return alike and count <= _FEW and not jnp.iscomplexobj(live[0])


def _is_perturbed(x: ArrayLike, dot: ArrayLike | SymbolicZero) -> bool:
    return not isinstance(dot, SymbolicZero) and not is_key(jnp.asarray(x)) and is_inexact(x)


def _tangent(sol: Solution, found: Iterable[Array]) -> Solution:
    """The tangent of a solution, from those of its inexact leaves."""
    parts, tree = jax.tree.flatten(sol)
    found = iter(found)
    dot = [next(found) if is_inexact(x) else np.zeros(x.shape, jax.dtypes.float0) for x in parts]
    return jax.tree.unflatten(tree, dot)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _jacobians(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index
) -> tuple[PyTree, tuple[Solution, list[Array]]]:
    """Solutions and Jacobians, which are differentiated themselves by means of tapes."""
    return run_parallel(plan, structure, leaves, rows, index)


@_jacobians.defjvp
@standard_promotion()
def _jacobians_jvp(
    plan: Plan,
    structure: Hashable,
    primals: tuple[list, list, Index],
    tangents: tuple[list, list, PyTree],
) -> tuple:
    untaped = replace(plan.static, adjoint=plan.static.adjoint.tape)
    taped = replace(plan, static=untaped, kernel=None, starts=plan.starts and not plan.kernel)

    def at_once(leaves: list, rows: list, index: Int[Array, " n"]) -> tuple[tuple[()], PyTree]:
        return (), jax.vmap(partial(solve_trajectory, taped, structure, leaves))(rows, index)

    find = partial(in_program, taped, structure) if plan.kernel is None else at_once
    return jax.jvp(find, primals, tangents)


@jax.jit  # for outside of programs each of its operations would be one, compiled on its own
def _jacobian_products(shared: list, own: list, jacobians: list) -> list:
    """Jacobians times tangents (of the shared inputs, and of the rows) for all trajectories. The
    tangent of a row that was not reached is zero, and a cotangent of it gives NaN
    (`autodiff/unreached_rows.py`).
    """

    def one(jacobian: Float[Array, "... n"], dot: Float[Array, " n"]) -> Array:
        lost = jnp.any(jnp.isnan(jacobian), axis=-1)
        kind = jnp.where(lost, Reached.missing, Reached.reached)
        product = jnp.where(lost[..., None], 0, jacobian) @ dot.astype(jacobian.dtype)
        return mark_unreached(product, dot, kind)

    size = jacobians[0].shape[0]
    each = [jnp.broadcast_to(jnp.asarray(d)[None], (size, *jnp.shape(d))) for d in shared]
    dots = jnp.concatenate([d.reshape(size, -1) for d in (*each, *own)], axis=1)
    return [jax.vmap(one)(jacobian, dots) for jacobian in jacobians]


def solve_differentiably(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index
) -> tuple[PyTree, Solution]:
    """The state of the statistics (empty if there are none), and the solution of each trajectory;
    differentiable.
    """
    if plan.kernel is None and plan.reduces:  # and no trajectories are kept
        return in_program(plan, structure, leaves, rows, index)
    sol = _solutions(replace(plan, reduces=False), structure, leaves, rows, index)
    return reduce_or_keep(plan, structure, leaves, sol, index)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solutions(plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index) -> Solution:
    return run_parallel(plan, structure, leaves, rows, index)[1]


@partial(_solutions.defjvp, symbolic_zeros=True)
@standard_promotion()
def _solutions_jvp(
    plan: Plan,
    structure: Hashable,
    primals: tuple[list, list, Index],
    tangents: tuple[list, list, SymbolicZero],
) -> tuple[Solution, Solution]:
    leaves, rows, index = primals
    inputs, dots = [*leaves, *rows], [*tangents[0], *tangents[1]]
    moving = tuple(_is_perturbed(x, dot) for x, dot in zip(inputs, dots, strict=True))
    # A tape is read again, for which a thread has one lane, whatever layout was best without.
    tuning = plan.kernel and replace(plan.kernel, warps=None)
    own = replace(plan, moving=moving, back=True, kernel=tuning, chunk=plan.narrow, starts=False)
    dots = pick_flagged(dots, moving)
    if not _pulls_back(own, structure, leaves, rows, index):
        of, live = _joint_solve(own, structure, leaves, rows, index)
        _, found, sol = jax.jvp(of, (live,), (dots,), has_aux=True)
        return sol, _tangent(sol, found)
    sol = _solutions(plan, structure, leaves, rows, index)
    attempts = sol.stats["steps"] + sol.stats["rejected"]
    rule = _ReverseMap(own, structure, len(leaves))
    return sol, _tangent(
        sol, one_way_linear(rule, [*inputs, index, attempts], dots, inexact_leaves(sol))
    )


def _pulls_back(plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index) -> bool:
    """True if cotangents are pulled back chunk by chunk, or by a kernel. False where a tape may be
    too short: the solution then has to show that failure, and is computed with its tape.
    """
    adjoint, most = plan.static.adjoint, plan.static.max_steps
    if not isinstance(adjoint, Discrete):
        return False
    controlled = has_controlled_steps(structure, leaves)
    if plan.kernel is None:
        return adjoint.holds(most, is_adaptive=controlled)
    if type(adjoint) is not Discrete:  # a subclass, of which a kernel has no tape
        return False
    # Most solves fit in a tape that is not thinned; a thinned one in lockstep holds the others.
    unthinned = replace(adjoint, checkpoint=False)
    tried = unthinned.holds(most, is_adaptive=controlled)
    tried = tried or (controlled and adjoint.holds(most, is_adaptive=True))
    return tried and has_kernel(plan, structure, leaves, rows, index)


@dataclass(frozen=True)
class _ReverseMap(Map):
    """The linear map from tangents of the moving inputs to those of all solutions. Tangents are
    pushed with the solves; cotangents are pulled back by further solves, whose tapes live no longer
    than a chunk.
    """

    plan: Plan
    structure: Hashable
    shared: int  # the number of inputs that all trajectories share

    def push(self, residuals: list, tangents: list) -> list:
        """The tangents of the solutions."""
        of, live = _joint_solve(self.plan, self.structure, *self._split(residuals)[:-1])
        return jax.jvp(of, (live,), (tangents,), has_aux=True)[1]

    def pull(self, residuals: list, cotangents: list) -> list:
        """The cotangents of the moving inputs."""
        return _pull_ensemble(self.plan, self.structure, *self._split(residuals), cotangents)

    def _split(self, residuals: list) -> tuple[list, list, Index, Costs]:
        """The shared inputs, the rows, the index, and the number of attempts of each trajectory:
        those of equally many are pulled back together.
        """
        return residuals[: self.shared], residuals[self.shared : -2], residuals[-2], residuals[-1]


def _joint_solve(
    plan: Plan, structure: Hashable, leaves: list, rows: list, index: Index
) -> tuple[Callable, list]:
    """A function from the moving inputs to the inexact leaves of all solutions, and the solutions;
    and the moving inputs. For a kernel the function solves in lockstep.
    """
    inputs = [*leaves, *rows]
    plain = replace(plan, kernel=None, back=False, moving=())
    solve = in_program if plan.kernel is None else in_lockstep

    def of(live: list) -> tuple[list, Solution]:
        every = replace_flagged(inputs, plan.moving, live)
        common, own = split_by_sizes(every, (len(leaves), len(rows)))
        sol = solve(plain, structure, common, own, index)[1]
        return inexact_leaves(sol), sol

    return of, pick_flagged(inputs, plan.moving)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _pull_ensemble(
    plan: Plan,
    structure: Hashable,
    leaves: list,
    rows: list,
    index: Index,
    costs: Costs,
    cotangents: list,
) -> list:
    """The cotangents of the moving inputs."""
    sums, found = run_parallel(plan, structure, leaves, [*rows, *cotangents], index, costs)
    return [*sums, *found]


@_pull_ensemble.defjvp
@standard_promotion()
def _pull_ensemble_jvp(plan: Plan, structure: Hashable, primals: tuple, tangents: tuple) -> tuple:
    def pull(leaves: list, rows: list, index: Index, costs: Costs, cotangents: list) -> list:
        del costs
        of, live = _joint_solve(plan, structure, leaves, rows, index)
        return jax.vjp(of, live, has_aux=True)[1](cotangents)[0]

    return jax.jvp(pull, primals, tangents)

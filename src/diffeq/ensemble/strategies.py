"""How an ensemble is run: in lockstep, in lanes or as a kernel, in one program or on all cores; its
derivative.

In lanes, a derivative by few numbers a trajectory is found on the way: each chunk solves for its
Jacobians by them, and what is then left to transpose is a sum of products. There is no tape
(`adjoint/alongside.py`), and where the numbers are known (a gradient that is not compiled) all
cores take part. By more numbers than `_FEW` it goes back along the tapes of all, as that of any
solve. A kernel solves for its Jacobians in the same way; by more numbers, the way back is a kernel
of its own. What has no kernel of a derivative is done in lockstep.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from ..adjoint import Discrete
from ..adjoint.alongside import Alongside
from ..adjoint.base import is_inexact, pick
from ..adjoint.flat import Flat
from ..core.lift import flatten, unflatten
from ..core.oneway import Map, oneway
from ..core.poison import Row, poison
from ..core.primitive import in_a_trace, split
from ..core.status import Status
from ..refuse import stops_of
from ..solution import Solution
from ..solve import Options, first_step, run
from .inputs import Inputs, filled, key_of, trajectory
from .kernel import Kernel, Tuning, in_kernel, refusal
from .lanes import cores, in_chunks, on_cores, ordered, program, through_chunks
from .reduction import Reduction
from .scalars import Unscalarisable
from .sharded import dealt, known_here, over, platform, shared_by, some_of

__all__ = ["Ensemble", "Plan"]

_ON_ITS_OWN = ("lanes", "kernel")  # strategies in which no trajectory waits for all others
_FEW = 6  # directions, which take together as long as the way back
# Bytes of the tapes of one launch: of some 100,000 small systems, which keep a large GPU busy, and
# a small part of its memory.
_SCRATCH = 2**31


@dataclass(frozen=True)
class Plan:
    """What is static in an ensemble."""

    options: Options
    places: tuple
    chunk: int
    narrow: int  # of a solve with Jacobians, which has more numbers; the block of a kernel
    even: bool  # whether nothing says that one trajectory takes more steps than another
    starts: bool  # whether the first steps are found before the others
    wide: bool  # whether a solution is too large to keep Jacobians of it
    reduces: bool  # whether statistics are wanted, and no trajectories
    moving: tuple[bool, ...] = ()  # of a solve with Jacobians: by which of the inputs
    kernel: Tuning | None = None  # of one that is a kernel: how that is laid out
    back: bool = False  # whether it pulls cotangents back, and there are no Jacobians


@dataclass(frozen=True)
class Ensemble:
    """Trajectories that are ready to be solved; `shared` is what they have in common."""

    plan: Plan
    shared: dict
    inputs: Inputs
    strategy: str
    mesh: Any = None
    tunes: bool = False  # whether its layout is found by trying

    @cached_property
    def parts(self) -> tuple[list, Any]:
        """What is shared, taken apart: its arrays, and the rest."""
        return flatten(self.shared)

    @property
    def traced(self) -> bool:
        """Whether numbers of it are not known yet."""
        return in_a_trace([*self.parts[0], *self.inputs.rows])

    @property
    def devices(self) -> int:
        """How many devices have a share."""
        return 1 if self.mesh is None else self.mesh.devices.size

    def solved(self) -> Solution:
        """All of them."""
        leaves, structure = self.parts
        index = np.arange(self.inputs.size, dtype=np.int32)
        if self.mesh is not None:
            found = self._on_mesh(self.inputs.rows, index)
            sol = _complete(self.plan, structure, leaves, *found)
        elif self.strategy in _ON_ITS_OWN:
            sol = _lanes(self.plan, structure, leaves, self.inputs.rows, index)
        else:
            found = _lockstep(self.plan, structure, leaves, self.inputs.rows, index)
            sol = _complete(self.plan, structure, leaves, *found)
        return replace(sol, strategy=self.strategy)

    def part(self, index: np.ndarray) -> tuple[Any, Solution]:
        """What was seen of those of these numbers, and what there is of each; −1 is none."""
        leaves, structure = self.parts
        if self.mesh is not None:
            rows = some_of(self.inputs.rows, np.maximum(index, 0), self.mesh)
            found = self._on_mesh(rows, index)
            return jax.tree.map(partial(known_here, mesh=self.mesh), found)
        rows = [row[np.maximum(index, 0)] for row in self.inputs.rows]
        run_some = _anywhere if self.strategy in _ON_ITS_OWN else _lockstep
        return run_some(self.plan, structure, leaves, rows, jnp.asarray(index, jnp.int32))

    def _on_mesh(self, rows: list, index: Any) -> tuple[Any, Solution]:
        leaves, structure = self.parts
        leaves, (index,) = shared_by(leaves, self.mesh), dealt([index], self.mesh)
        return _shares(self.plan, structure, self.strategy, self.mesh, leaves, rows, index)

    def as_kernel(self) -> "Ensemble":
        """The same as a kernel. Raises `Unscalarisable` where there is none."""
        leaves, structure = self.parts
        block = self.plan.narrow
        if self.strategy != "kernel":  # nobody asked for a block: a chunk may have any size
            block = 1 << (block - 1).bit_length()
        tuning = Tuning(block=block, interpret=platform(self.mesh) != "gpu")
        if not tuning.interpreted():  # a warp has no less
            tuning = replace(tuning, block=max(tuning.block, 32))
        even, starts = self.plan.even or not tuning.sorts, self.plan.starts and tuning.sorts
        plan = replace(self.plan, kernel=tuning, even=even, starts=starts)
        _check_kernel(plan, structure, leaves, self.inputs.rows, jnp.int32(0)[None])
        return replace(self, plan=plan, strategy="kernel")

    def joined(self, state: Any, sol: Solution) -> Solution:
        """The solution of all parts: with the statistics of what was seen."""
        leaves, structure = self.parts
        return replace(_complete(self.plan, structure, leaves, state, sol), strategy=self.strategy)

    def merged(self, states: Sequence) -> Any:
        """What was seen in several parts."""
        return Reduction(self.shared["reduce"]).merged(states)

    def numbers(self) -> int:
        """How many numbers one of them has, before it is forgotten."""
        leaves, structure = self.parts
        rows = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in self.inputs.rows]
        one = jax.eval_shape(partial(_one, self.plan, structure), leaves, rows, jnp.int32(0))
        return sum(x.size for x in jax.tree.leaves(one))

    @cached_property
    def tree(self) -> Any:
        """The structure of a part."""
        leaves, structure = self.parts
        some = partial(_lockstep, self.plan, structure)
        return jax.tree.structure(jax.eval_shape(some, leaves, *self._alone))

    def marks(self) -> dict[str, str]:
        """What tells it from other ensembles: sums of its numbers and of its program."""
        leaves, structure = self.parts
        numbers = hashlib.sha256()
        for x in (*leaves, *(known_here(row, self.mesh) for row in self.inputs.rows)):
            plain = jax.random.key_data(x) if _is_key(jnp.asarray(x)) else x
            numbers.update(np.ascontiguousarray(plain).tobytes())
        lowered = _lockstep.lower(self.plan, structure, leaves, *self._alone)
        program = hashlib.sha256(lowered.as_text().encode())
        return {"inputs": numbers.hexdigest()[:16], "program": program.hexdigest()[:16]}

    @property
    def _alone(self) -> tuple[list, Any]:
        """The shapes of the rows of an ensemble of one, and its number."""
        rows = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in self.inputs.rows]
        return rows, jnp.zeros(1, jnp.int32)


def _call(plan: Plan, structure: Any, leaves: Sequence, rows: Sequence, i: Any) -> dict:
    """What `run` gets for trajectory i."""
    shared = unflatten(structure, leaves)
    fields = filled(shared["given"], plan.places, rows)
    problem = shared["traced"]["problem"]
    key = key_of(shared["key"], jnp.maximum(i, 0))
    problem, key = trajectory(problem, shared["draw"], key, fields)
    own = {"problem": problem, "key": key, "stops": stops_of(problem, shared["stops"])}
    return {**shared["traced"], **own}


def _one(plan: Plan, structure: Any, leaves: Sequence, rows: Sequence, i: Any) -> Solution:
    return run(plan.options, **_call(plan, structure, leaves, rows, i))


@partial(jax.jit, static_argnums=(0, 1))
def _lockstep(
    plan: Plan, structure: Any, leaves: list, rows: list, index: Any
) -> tuple[Any, Solution]:
    """What was seen, if statistics are wanted, and what there is of each trajectory."""
    sol = jax.vmap(partial(_one, plan, structure, leaves))(rows, index)
    return _seen(plan, structure, leaves, sol, index)


def _seen(plan: Plan, structure: Any, leaves: list, sol: Any, index: Any) -> tuple[Any, Any]:
    """What was seen of trajectories that are all there, and what is kept of each."""
    if not plan.reduces:
        return (), sol
    reduction = _reduction(structure, leaves)
    state = reduction.update(reduction.init(sol[0]), sol, jnp.asarray(index) >= 0)
    return state, reduction.kept(sol)


def _reduction(structure: Any, leaves: Sequence) -> Reduction:
    return Reduction(unflatten(structure, leaves)["reduce"])


# --- lanes, and kernels ---------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _lanes(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> Solution:
    return _complete(plan, structure, leaves, *_anywhere(plan, structure, leaves, rows, index))


def _complete(plan: Plan, structure: Any, leaves: list, state: Any, sol: Solution) -> Solution:
    """The solution with its statistics, if these were asked for."""
    return _reduction(structure, leaves).finished(state, sol) if plan.reduces else sol


def _anywhere(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> tuple[Any, Any]:
    """On all cores, if the numbers are known; else in the program that they are part of. What was
    seen, if statistics are wanted, and what there is of each trajectory.
    """
    known = not in_a_trace([*leaves, *rows]) and not any(map(_is_key, rows))
    if plan.kernel is not None or not known or platform() != "cpu":
        return _in_program(plan, structure, leaves, rows, index)
    return _on_cores(plan, structure, leaves, rows, index)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.extended)


@partial(jax.jit, static_argnums=(0, 1))
def _first(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> Any:
    """The first step of each trajectory, and what it costs beside the others."""

    def one(rows: list, i: Any) -> Any:
        return first_step(plan.options, **_call(plan, structure, leaves, rows, i))

    leaves, rows = jax.lax.stop_gradient((leaves, rows))
    if plan.kernel is not None:  # beside it, one step is little
        return jax.vmap(one)(rows, index)
    return in_chunks(one, rows, index, plan.chunk)


def _alone(plan: Plan, structure: Any, leaves: Sequence, rows: Sequence, i: Any) -> Any:
    """Trajectory i, with its Jacobians if they are wanted; the last of its rows is the first step,
    if that is known.
    """
    first = {"dt0": rows[-1]} if plan.starts else {}
    own = rows[:-1] if plan.starts else rows

    def solve(xs: Sequence) -> Solution:
        common, mine = split(xs, (len(leaves), len(own)))
        return run(plan.options, **{**_call(plan, structure, common, mine, i), **first})

    inputs = [*leaves, *own]
    return _with_jacobian(solve, inputs, plan.moving) if plan.moving else solve(inputs)


@partial(jax.jit, static_argnums=(0, 1))
def _chunks(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> tuple[Any, Any]:
    """A chunk after the other, or all as blocks of a kernel. One with the index −1 fills up a
    share.
    """
    one = partial(_alone, plan, structure)
    if plan.kernel is not None:
        return _seen(
            plan, structure, leaves, in_kernel(one, leaves, rows, index, plan.kernel), index
        )
    if not plan.reduces:
        return (), in_chunks(partial(one, leaves), rows, index, plan.chunk)
    reduction = _reduction(structure, leaves)

    def step(state: Any, xs: tuple, counts: Any) -> tuple[Any, Solution]:
        sol = jax.vmap(partial(one, leaves))(*xs)
        return reduction.update(state, sol, counts & (xs[1] >= 0)), reduction.kept(sol)

    like = jax.eval_shape(partial(one, leaves), [row[0] for row in rows], index[0])
    return through_chunks(step, reduction.init(like), (rows, index), plan.chunk)


@partial(jax.jit, static_argnums=(0, 1))
def _in_program(
    plan: Plan, structure: Any, leaves: list, rows: list, index: Any
) -> tuple[Any, Any]:
    """One program, on one core."""
    if plan.even:
        return _chunks(plan, structure, leaves, rows, index)
    order, back, first = _by_cost(plan, structure, leaves, rows, index)
    rows = [row[order] for row in (*rows, *first)]
    state, found = _chunks(plan, structure, leaves, rows, index[order])
    return state, jax.tree.map(lambda x: x[back], found)


def _by_cost(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> tuple:
    """The order in which those of similar cost go together, the way back from it, and the first
    steps, if they are wanted.
    """
    first, costs = _first(plan, structure, leaves, rows, index)
    order = ordered(costs, plan.chunk)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]))
    return order, back, [first] if plan.starts else []


def _on_cores(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> tuple[Any, Any]:
    """A share of the chunks on each core. The two programs are compiled side by side, too."""
    size = index.shape[0]
    shares = min(cores(), -(-size // plan.chunk))
    length = -(-size // (shares * plan.chunk)) * plan.chunk
    first = None if plan.even else program(_first, (plan, structure), leaves, rows, index)
    like = [*rows, *([first.out[0]] if first is not None and plan.starts else [])]
    share = [jax.ShapeDtypeStruct((length, *x.shape[1:]), x.dtype) for x in (*like, index)]
    go = program(_chunks, (plan, structure), leaves, share[:-1], share[-1])
    order = np.arange(size)
    if first is not None:
        steps, costs = first(leaves, rows, index)
        order = ordered(np.asarray(costs), plan.chunk, np)
        rows = [*rows, steps] if plan.starts else rows
    found, together = on_cores(partial(go, leaves), rows, index, order, plan.chunk, shares)
    states, parts = zip(*found, strict=True)
    state = _reduction(structure, leaves).merged(states) if plan.reduces else ()
    return state, together(*parts)


# Whether there is a kernel of it, by what it is compiled for: the reason, if there is none.
_reasons: OrderedDict[Any, Unscalarisable | None] = OrderedDict()
_KEPT = 64  # of them, for each keeps the functions of its problem


def _check_kernel(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> None:
    """Raises `Unscalarisable` where there is no kernel of it."""
    leaves, rows = jax.lax.stop_gradient((leaves, rows))
    kinds = tuple((jnp.shape(x), jnp.result_type(x)) for x in (*leaves, *rows))
    key = (plan, structure, kinds)
    if key not in _reasons:
        bare, sums = replace(plan, starts=False), 0
        if plan.back:
            rows = [*rows, *_outputs(bare, structure, leaves, rows, index)]
            sums = _count_shared(plan, leaves)
        one = partial(_pulled_one if plan.back else _alone, bare, structure)
        _reasons[key] = refusal(one, leaves, rows, index, plan.kernel or Tuning(), sums)
        if len(_reasons) > _KEPT:
            _reasons.popitem(last=False)
    _reasons.move_to_end(key)
    if (reason := _reasons[key]) is not None:
        raise reason.with_traceback(None)  # which would grow each time


def _has_kernel(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> bool:
    """Whether a kernel, if that is wanted, can be made."""
    if plan.kernel is None:
        return True
    try:
        _check_kernel(plan, structure, leaves, rows, index)
    except Unscalarisable:
        return False
    return True


# --- several devices ------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _shares(
    plan: Plan, structure: Any, strategy: str, mesh: Any, leaves: list, rows: list, index: Any
) -> tuple[Any, Solution]:
    """A share of the trajectories on each device."""

    def share(leaves: list, rows: list, index: Any) -> tuple[Any, Solution]:
        if strategy == "lockstep":
            return _lockstep(plan, structure, leaves, rows, index)
        if plan.reduces:
            return _differentiable(plan, structure, leaves, rows, index)
        return (), _lanes(plan, structure, leaves, rows, index)

    merged = _reduction(structure, leaves).merged if plan.reduces else None
    return over(mesh, share, merged)(leaves, rows, index)


# --- the derivative of lanes ----------------------------------------------------------------------


@partial(_lanes.defjvp, symbolic_zeros=True)
def _lanes_jvp(plan: Plan, structure: Any, primals: Any, tangents: Any) -> tuple:
    leaves, rows, index = primals
    inputs, dots = [*leaves, *rows], [*tangents[0], *tangents[1]]
    moving = tuple(_moves(x, dot) for x, dot in zip(inputs, dots, strict=True))
    live = [(x, d) for x, d, m in zip(inputs, dots, moving, strict=True) if m]

    along = replace(plan.options, adjoint=Alongside(plan.options.adjoint))
    own = replace(plan, moving=moving, options=along, chunk=plan.narrow)
    values, slopes = [x for x, _ in live], [d for _, d in live]
    shared = _count_shared(own, leaves)
    if _few(plan, values, shared) and _has_kernel(own, structure, leaves, rows, index):
        _, (sol, jacobians) = _jacobians(own, structure, leaves, rows, index)
        return sol, _tangent(sol, _along(slopes[:shared], slopes[shared:], jacobians))

    def plain(live: list) -> Solution:
        common, own = split(_replaced(inputs, moving, live), (len(leaves), len(rows)))
        found = _differentiable(plan, structure, common, own, index)
        return _complete(plan, structure, common, *found)

    return jax.jvp(plain, (values,), (slopes,))


def _tangent(sol: Any, found: Iterable) -> Any:
    """The tangent of a solution, of those of what is inexact in it."""
    parts, tree = jax.tree.flatten(sol)
    found = iter(found)
    dot = [next(found) if is_inexact(x) else np.zeros(x.shape, jax.dtypes.float0) for x in parts]
    return jax.tree.unflatten(tree, dot)


def _count_shared(plan: Plan, leaves: Sequence) -> int:
    """How many of the moving inputs are shared."""
    return plan.moving[: len(leaves)].count(True)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _jacobians(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> Any:
    """Solutions and Jacobians, whose own derivative goes along tapes."""
    return _anywhere(plan, structure, leaves, rows, index)


@_jacobians.defjvp
def _jacobians_jvp(plan: Plan, structure: Any, primals: Any, tangents: Any) -> tuple:
    options = replace(plan.options, adjoint=plan.options.adjoint.tape)
    taped = replace(plan, options=options, kernel=None, starts=plan.starts and not plan.kernel)

    def together(leaves: list, rows: list, index: Any) -> Any:
        return (), jax.vmap(partial(_alone, taped, structure, leaves))(rows, index)

    find = partial(_in_program, taped, structure) if plan.kernel is None else together
    return jax.jvp(find, primals, tangents)


def _moves(x: Any, dot: Any) -> bool:
    return not isinstance(dot, SymbolicZero) and not _is_key(jnp.asarray(x)) and is_inexact(x)


def _replaced(xs: Sequence, flags: Sequence[bool], live: Sequence) -> list:
    found = iter(live)
    return [next(found) if flag else x for x, flag in zip(xs, flags, strict=True)]


def _few(plan: Plan, live: list, shared: int) -> bool:
    """Whether Jacobians by these are less work than the way back; the first of them are shared."""
    if plan.wide or not live or not isinstance(plan.options.adjoint, Discrete):
        return False
    count = sum(math.prod(jnp.shape(x)) for x in live[:shared])
    count += sum(math.prod(jnp.shape(x)[1:]) for x in live[shared:])
    alike = len({jnp.result_type(x) for x in live}) == 1
    return alike and count <= _FEW and not jnp.iscomplexobj(live[0])


def _with_jacobian(solve: Callable, inputs: list, moving: Sequence[bool]) -> tuple[Any, list]:
    """A solution, and the Jacobians of what is inexact in it by the moving inputs, as one vector.

    All directions are tangents of one solve.
    """
    live = [jnp.asarray(x) for x, m in zip(inputs, moving, strict=True) if m]
    sizes = [x.size for x in live]

    def of(vector: Any) -> tuple[list, Solution]:
        parts = jnp.split(vector, np.cumsum(sizes)[:-1])
        own = [part.reshape(x.shape) for part, x in zip(parts, live, strict=True)]
        sol = solve(_replaced(inputs, moving, own))
        return [x for x in jax.tree.leaves(sol) if is_inexact(x)], sol

    vector = jnp.concatenate([x.ravel() for x in live])
    push = lambda e: jax.jvp(of, (vector,), (e,), has_aux=True)[1:]  # noqa: E731
    jacobian, sol = jax.vmap(push, out_axes=(-1, None))(jnp.eye(vector.size, dtype=vector.dtype))
    return sol, jacobian


@jax.jit  # for outside of programs each of its operations would be one, compiled on its own
def _along(shared: list, own: list, jacobians: list) -> list:
    """Jacobians times tangents (of what is shared, and of each) for all trajectories; a row that
    was not reached is NaN, and so is the derivative that asks for it, but for that it is no
    derivative at all (`core/poison.py`).
    """

    def one(jacobian: Any, dot: Any) -> Any:
        lost = jnp.any(jnp.isnan(jacobian), axis=-1)
        kind = jnp.where(lost, Row.missing, Row.reached)
        product = jnp.where(lost[..., None], 0, jacobian) @ dot.astype(jacobian.dtype)
        return poison(product, dot, kind)

    size = jacobians[0].shape[0]
    each = [jnp.broadcast_to(jnp.asarray(d)[None], (size, *jnp.shape(d))) for d in shared]
    dots = jnp.concatenate([d.reshape(size, -1) for d in (*each, *own)], axis=1)
    return [jax.vmap(one)(jacobian, dots) for jacobian in jacobians]


# --- the way back as a kernel ---------------------------------------------------------------------


def _differentiable(
    plan: Plan, structure: Any, leaves: list, rows: list, index: Any
) -> tuple[Any, Solution]:
    """What was seen, if statistics are wanted, and what there is of each trajectory: of a kernel,
    to be differentiated by another one.
    """
    if plan.kernel is None:
        return _in_program(plan, structure, leaves, rows, index)
    sol = _solutions(replace(plan, reduces=False), structure, leaves, rows, index)
    return _seen(plan, structure, leaves, sol, index)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solutions(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> Solution:
    return _in_program(plan, structure, leaves, rows, index)[1]


@partial(_solutions.defjvp, symbolic_zeros=True)
def _solutions_jvp(plan: Plan, structure: Any, primals: Any, tangents: Any) -> tuple:
    leaves, rows, index = primals
    inputs, dots = [*leaves, *rows], [*tangents[0], *tangents[1]]
    moving = tuple(_moves(x, dot) for x, dot in zip(inputs, dots, strict=True))
    # A tape is read again, for which a thread has one lane, whatever was best without.
    tuning = plan.kernel and replace(plan.kernel, warps=None)
    own, dots = replace(plan, moving=moving, back=True, kernel=tuning), pick(dots, moving)
    if not _goes_back(own, structure, leaves, rows, index):
        of, live = _in_lockstep(own, structure, leaves, rows, index)
        _, found, sol = jax.jvp(of, (live,), (dots,), has_aux=True)
        return sol, _tangent(sol, found)
    sol = _solutions(plan, structure, leaves, rows, index)
    rule = _Back(own, structure, len(leaves))
    return sol, _tangent(sol, oneway(rule, [*inputs, index], dots, _inexact(sol)))


def _inexact(tree: Any) -> list:
    return [x for x in jax.tree.leaves(tree) if is_inexact(x)]


@dataclass(frozen=True)
class _Back(Map):
    """From tangents of the moving inputs to those of all solutions: pushed in lockstep, and pulled
    back by a kernel.
    """

    plan: Plan
    structure: Any
    shared: int  # of the inputs

    def push(self, residuals: list, tangents: list) -> list:
        """The tangents of the solutions."""
        of, live = _in_lockstep(self.plan, self.structure, *self._inputs(residuals))
        return jax.jvp(of, (live,), (tangents,), has_aux=True)[1]

    def pull(self, residuals: list, cotangents: list) -> list:
        """The cotangents of the moving inputs."""
        return _pulled(self.plan, self.structure, *self._inputs(residuals), cotangents)

    def _inputs(self, residuals: list) -> tuple[list, list, Any]:
        return residuals[: self.shared], residuals[self.shared : -1], residuals[-1]


def _in_lockstep(
    plan: Plan, structure: Any, leaves: list, rows: list, index: Any
) -> tuple[Callable, list]:
    """What is inexact of all solutions, and these, as a function of the moving inputs; and the
    inputs.
    """
    inputs, plain = [*leaves, *rows], replace(plan, kernel=None)

    def of(live: list) -> tuple[list, Solution]:
        common, own = split(_replaced(inputs, plan.moving, live), (len(leaves), len(rows)))
        sol = _lockstep(plain, structure, common, own, index)[1]
        return _inexact(sol), sol

    return of, pick(inputs, plan.moving)


def _pulled_in_lockstep(
    plan: Plan, structure: Any, leaves: list, rows: list, index: Any, cotangents: list
) -> list:  # fmt: skip
    of, live = _in_lockstep(plan, structure, leaves, rows, index)
    return jax.vjp(of, live, has_aux=True)[1](cotangents)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _pulled(
    plan: Plan, structure: Any, leaves: list, rows: list, index: Any, cotangents: list
) -> list:  # fmt: skip
    """The cotangents of the moving inputs, by a kernel, which has no derivative: that is one of
    lockstep.
    """
    return _in_groups(plan, structure, leaves, rows, index, cotangents)


@_pulled.defjvp
def _pulled_jvp(plan: Plan, structure: Any, primals: Any, tangents: Any) -> tuple:
    return jax.jvp(partial(_pulled_in_lockstep, plan, structure), primals, tangents)


def _goes_back(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> bool:
    """Whether a kernel can pull cotangents back."""
    adjoint = plan.options.adjoint
    if not isinstance(adjoint, Discrete):
        return False
    decides = _decides(structure, leaves)
    tried = Flat(adjoint.rows).may_serve(plan.options.max_steps, decides=decides)
    return tried and _has_kernel(plan, structure, leaves, rows, index)


def _decides(structure: Any, leaves: Sequence) -> bool:
    """Whether steps are as long as a controller says, and not given."""
    traced = unflatten(structure, leaves)["traced"]
    return traced["dt"] is None and traced["controller"].decides


def _outputs(plan: Plan, structure: Any, leaves: list, rows: list, index: Any) -> list:
    """The shapes of what is inexact of all solutions."""
    of, live = _in_lockstep(plan, structure, leaves, rows, index)
    return jax.eval_shape(of, live)[0]


def _pulled_one(
    plan: Plan, structure: Any, leaves: Sequence, rows: Sequence, i: Any
) -> tuple[list, Any]:
    """The cotangents of the moving inputs of trajectory i, whose solution has those behind its own
    rows; and whether the tape was too short for it.
    """
    own = len(plan.moving) - len(leaves)
    inputs = [*leaves, *rows[:own]]
    first = {"dt0": rows[-1]} if plan.starts else {}
    cotangents = rows[own : len(rows) - len(first)]
    options = replace(plan.options, adjoint=Flat(plan.options.adjoint.rows))

    def of(live: list) -> tuple[list, Any]:
        common, mine = split(_replaced(inputs, plan.moving, live), (len(leaves), own))
        sol = run(options, **{**_call(plan, structure, common, mine, i), **first})
        return _inexact(sol), sol.status

    _, pull, status = jax.vjp(of, pick(inputs, plan.moving), has_aux=True)
    return pull(list(cotangents))[0], status == Status.tape_overflow


@partial(jax.jit, static_argnums=(0, 1))
def _in_groups(
    plan: Plan, structure: Any, leaves: list, rows: list, index: Any, cotangents: list
) -> list:  # fmt: skip
    """A launch of the kernel for as many trajectories as their tapes have room; where one of them
    has no room for a single solve, that group once more in lockstep, which thins tapes.
    """
    shared, inner = _count_shared(plan, leaves), (len(rows), len(cotangents))
    behind, order, back = [], None, None
    if not plan.even:
        order, back, behind = _by_cost(plan, structure, leaves, rows, index)
    rows = [*rows, *cotangents, *behind]
    if order is not None:
        rows, index = jax.tree.map(lambda x: x[order], (rows, index))
    one = partial(_pulled_one, plan, structure)
    kernel = Kernel.of(one, leaves, rows, index, plan.kernel or Tuning(), shared)
    flat, most = Flat(plan.options.adjoint.rows), plan.options.max_steps
    whole = flat.serves_all(most, decides=_decides(structure, leaves))

    def step(sums: list, xs: tuple, counts: Any) -> tuple[list, list]:
        rows, index = xs
        own, dots, first = split(rows, (*inner, len(behind)))
        alike = lambda x: counts.reshape(-1, *[1] * (x.ndim - 1))  # noqa: E731
        dots = [jnp.where(alike(x), x, 0) for x in dots]  # of what fills up the last group
        found, cut = kernel(leaves, [*own, *dots, *first], index)
        if not whole:
            again = partial(_pulled_in_lockstep, plan, structure, leaves, own, index, dots)
            found = lax.cond(jnp.any(cut), again, lambda: found)
        more, found = found[:shared], found[shared:]
        return [a + b for a, b in zip(sums, more, strict=True)], found

    zero = [jnp.zeros_like(x) for x in pick(leaves, plan.moving[: len(leaves)])]
    sums, found = through_chunks(step, zero, (rows, index), _group(kernel, index.shape[0]))
    return [*sums, *(found if back is None else [x[back] for x in found])]


def _group(kernel: Kernel, size: int) -> int:
    """How many trajectories are in a launch, so that their tapes take `_SCRATCH` bytes at most."""
    block = kernel.tuning.block
    most = max(_SCRATCH // max(kernel.scratch, 1) // block, 1)
    blocks = -(-size // block)
    return -(-blocks // -(-blocks // most)) * block

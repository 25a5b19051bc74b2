"""An ensemble that is ready to be solved, by one of its strategies, on one device or on several."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from ..autodiff.jax_internals import in_a_trace, is_key
from ..closures import flatten
from ..solution import Solution
from .chunks import Index
from .derivatives import solve_differentiably, solve_in_lanes
from .execution import check_kernel, in_lockstep, reduction_of, run_parallel, with_statistics
from .gpu_kernel.launch import Tuning
from .inputs import Inputs
from .reduction import Reduction
from .sharded import (
    distribute_rows,
    known_here,
    platform,
    replicate_shared,
    run_sharded,
    select_rows,
)
from .trajectory import Plan, solve_plain

__all__ = ["Ensemble"]

_ON_ITS_OWN = ("lanes", "kernel")  # strategies in which no trajectory waits for all others


@dataclass(frozen=True)
class Ensemble:
    """Trajectories that are ready to be solved; `shared` holds the inputs common to all."""

    plan: Plan
    shared: dict
    inputs: Inputs
    strategy: str
    mesh: Mesh | None = None
    tunes: bool = False  # its layout is found by timing

    @cached_property
    def parts(self) -> tuple[list, Hashable]:
        """The shared inputs, taken apart: their arrays, and the static rest."""
        return flatten(self.shared)

    @property
    def traced(self) -> bool:
        """True if some of its arrays are traced."""
        return in_a_trace([*self.parts[0], *self.inputs.rows])

    @property
    def devices(self) -> int:
        """The number of devices that have a share."""
        return 1 if self.mesh is None else self.mesh.devices.size

    def solved(self) -> Solution:
        """The solutions of all trajectories, or their statistics."""
        leaves, structure = self.parts
        index = np.arange(self.inputs.size, dtype=np.int32)
        if self.mesh is not None:
            found = self._on_mesh(self.mesh, self.inputs.rows, index)
            sol = with_statistics(self.plan, structure, leaves, *found)
        elif self.strategy in _ON_ITS_OWN:
            sol = solve_in_lanes(self.plan, structure, leaves, self.inputs.rows, index)
        else:
            found = in_lockstep(self.plan, structure, leaves, self.inputs.rows, index)
            sol = with_statistics(self.plan, structure, leaves, *found)
        return replace(sol, strategy=self.strategy)

    def part(self, index: np.ndarray) -> tuple[PyTree, Solution]:
        """The state of the statistics and the solutions of the trajectories of these numbers; −1
        stands for none.
        """
        leaves, structure = self.parts
        if self.mesh is not None:
            rows = select_rows(self.inputs.rows, np.maximum(index, 0), self.mesh)
            found = self._on_mesh(self.mesh, rows, index)
            return jax.tree.map(partial(known_here, mesh=self.mesh), found)
        rows = [row[np.maximum(index, 0)] for row in self.inputs.rows]
        run_some = run_parallel if self.strategy in _ON_ITS_OWN else in_lockstep
        return run_some(self.plan, structure, leaves, rows, jnp.asarray(index, jnp.int32))

    def _on_mesh(self, mesh: Mesh, rows: list, index: Index) -> tuple[PyTree, Solution]:
        leaves, structure = self.parts
        leaves, (index,) = replicate_shared(leaves, mesh), distribute_rows([index], mesh)
        return _solve_shares(self.plan, structure, self.strategy, mesh, leaves, rows, index)

    def as_kernel(self) -> "Ensemble":
        """The ensemble with the strategy "kernel". Raises `NoKernel` where there is none."""
        leaves, structure = self.parts
        block = self.plan.narrow
        if self.strategy != "kernel":  # no block was given: a chunk may have any size
            block = 1 << (block - 1).bit_length()
        tuning = Tuning(block=block, interpret=platform(self.mesh) != "gpu")
        if not tuning.interpreted():  # a block is at least a warp
            tuning = replace(tuning, block=max(tuning.block, 32))
        even, starts = self.plan.even or not tuning.sorts, self.plan.starts and tuning.sorts
        plan = replace(self.plan, kernel=tuning, even=even, starts=starts)
        check_kernel(plan, structure, leaves, self.inputs.rows, jnp.int32(0)[None])
        return replace(self, plan=plan, strategy="kernel")

    def joined(self, state: PyTree, sol: Solution) -> Solution:
        """The solution of all parts, with the results of their statistics."""
        leaves, structure = self.parts
        return replace(
            with_statistics(self.plan, structure, leaves, state, sol), strategy=self.strategy
        )

    def merged(self, states: Sequence) -> PyTree:
        """The states of the statistics of several parts, merged."""
        return Reduction(self.shared["reduce"]).merged(states)

    def numbers(self) -> int:
        """The number of numbers in one solution, before it is reduced."""
        leaves, structure = self.parts
        rows = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in self.inputs.rows]
        one = jax.eval_shape(partial(solve_plain, self.plan, structure), leaves, rows, jnp.int32(0))
        return sum(x.size for x in jax.tree.leaves(one))

    @cached_property
    def tree(self) -> Hashable:
        """The structure of a part."""
        leaves, structure = self.parts
        some = partial(in_lockstep, self.plan, structure)
        return jax.tree.structure(jax.eval_shape(some, leaves, *self._single))

    def marks(self) -> dict[str, str]:
        """Identifies the ensemble: hashes of its numbers and of its program."""
        leaves, structure = self.parts
        numbers = hashlib.sha256()
        for x in (*leaves, *(known_here(row, self.mesh) for row in self.inputs.rows)):
            plain = jax.random.key_data(x) if is_key(jnp.asarray(x)) else x
            numbers.update(np.ascontiguousarray(plain).tobytes())
        lowered = in_lockstep.lower(self.plan, structure, leaves, *self._single)
        program = hashlib.sha256(lowered.as_text().encode())
        return {"inputs": numbers.hexdigest()[:16], "program": program.hexdigest()[:16]}

    @property
    def _single(self) -> tuple[list, Array]:
        """The shapes of the rows of an ensemble of one, and its number."""
        rows = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in self.inputs.rows]
        return rows, jnp.zeros(1, jnp.int32)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _solve_shares(
    plan: Plan,
    structure: Hashable,
    strategy: str,
    mesh: Mesh,
    leaves: list,
    rows: list,
    index: Int[Array, " n"],
) -> tuple[PyTree, Solution]:
    """Runs a share of the trajectories on each device."""

    def share(leaves: list, rows: list, index: Int[Array, " n"]) -> tuple[PyTree, Solution]:
        if strategy == "lockstep":
            return in_lockstep(plan, structure, leaves, rows, index)
        if plan.reduces:
            return solve_differentiably(plan, structure, leaves, rows, index)
        return (), solve_in_lanes(plan, structure, leaves, rows, index)

    merged = reduction_of(structure, leaves).merged if plan.reduces else None
    return run_sharded(mesh, share, merged)(leaves, rows, index)

"""An ensemble as one kernel: each block of lanes runs its solves from the first step to the last.

A loop of XLA on a GPU is driven by the host, and its arrays travel through memory at each step.
Here the solve of one trajectory is traced as it is, scalarised (`interpreter.py`), and lowered by
Pallas to one Triton kernel: a number of the state is a register of the thread that has the lane, a
block ends when its own lanes are done, and only results are written. It works with every solver,
and needs no code in any.

Inputs and outputs are arrays (numbers, lanes), so that neighbours read and write neighbours. Shared
inputs are read where they are used; only wide layers of a network are spread over several threads
(`tiles.py`). Arrays that are written in a loop and too large for registers (saved rows, a tape) are
further outputs, discarded afterwards. A sum over all trajectories leaves each block as one number.

On a CPU the kernel runs in Pallas's interpreter: for tests, and slowly.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Int, PyTree

from ...autodiff.jax_internals import Jaxpr, ShapedArray, input_types, is_key, output_types
from ...core.split import split_by_sizes
from ..chunks import Index
from ..sharded import platform
from . import LaneArray, NoKernel, Read, Space, Stored, View, WritableArray, scalarised
from .large_arrays import REGISTERS
from .operands import Operand
from .pallas_triton import pallas, triton, triton_is_missing
from .random_keys import wrapped
from .scalar_values import Number, apply, broadcast_entry, is_known_entry, objects

__all__ = ["Kernel", "Tuning", "in_kernel", "no_kernel_reason"]

_WARP = 32  # threads
_MOST_WARPS = 16  # of a block, so that a thread has 128 registers


@dataclass(frozen=True)
class Tuning:
    """The layout of a kernel: `block` lanes, a power of two, by `warps` of 32 threads each (None:
    one lane a thread, or several threads a lane, where wide layers are spread over them). Blocks
    of 64 were fastest for small systems on an H100. `stages` of Triton's own pipelining have
    nothing to overlap here. `sorts`: trajectories of similar cost are grouped, which needs the
    first step size of each beforehand, and a sort, and gains nothing where all cost about the same.
    `interpret`: Pallas's interpreter runs the kernel; None: unless a GPU is JAX's default.

    Where arrays are written to memory and read again, a thread must have one lane: with several,
    Triton may assign them to threads in another way when it reads than when it wrote.
    """

    block: int = 64
    warps: int | None = None
    stages: int = 1
    sorts: bool = True
    interpret: bool | None = None

    def __post_init__(self) -> None:
        if self.block < 1 or self.block & (self.block - 1):
            raise ValueError(
                f"chunk is {self.block}; a kernel has blocks of a power of two of trajectories, "
                "such as 64."
            )

    def params(self, *, remembers: bool, threads: int = 1) -> "triton.CompilerParams":
        """The compiler parameters of Triton for a kernel; `remembers`: it reads again arrays that
        it has written, `threads`: so many of them may share a lane.
        """
        warps = self.warps
        if warps is None:
            warps = max(self.block // _WARP, 1)
            warps = warps if remembers else max(warps, min(warps * threads, _MOST_WARPS))
        if remembers and not self.interpreted() and self.block != warps * _WARP:
            raise NoKernel(
                f"it reads again what it writes, and {warps} warps do not have one thread for each "
                f"of {self.block} lanes"
            )
        return triton.CompilerParams(num_warps=warps, num_stages=self.stages)

    def interpreted(self) -> bool:
        """True if Pallas's interpreter runs the kernel."""
        return platform() != "gpu" if self.interpret is None else self.interpret


def in_kernel(
    one: Callable, shared: Sequence, rows: Sequence, index: Int[Array, " n"], tuning: Tuning
) -> PyTree:
    """Evaluates `one(shared, rows[i], index[i])` for every i. The last block is filled up with
    repeated trajectories, and cut off again.

    Raises:
        NoKernel: there is no kernel of `one`; it names the reason.

    >>> one = lambda shared, rows, i: shared[0] * rows[0] + i
    >>> in_kernel(one, [jnp.array(2.0)], [jnp.arange(3.0)], jnp.arange(3), Tuning(block=2))
    Array([0., 3., 6.], dtype=float32)
    """
    return Kernel.of(one, shared, rows, index, tuning)(shared, rows, index)


def no_kernel_reason(
    one: Callable,
    shared: Sequence,
    rows: Sequence,
    index: Index,
    tuning: Tuning,
    sums: int = 0,
) -> NoKernel | None:
    """The reason why there is no kernel of `one`, from whatever error is raised; None if there is
    one. Nothing is compiled for this.
    """
    if triton_is_missing():
        return NoKernel("this JAX does not lower Pallas to Triton")
    like = [jax.ShapeDtypeStruct((tuning.block, *x.shape[1:]), x.dtype) for x in (*rows, index)]

    def run(shared: Sequence, rows: Sequence, index: Int[Array, " n"]) -> PyTree:
        return Kernel.of(one, shared, rows, index, tuning, sums)(shared, rows, index)

    try:
        traced = jax.jit(run).trace([*map(jnp.asarray, shared)], like[:-1], like[-1])
        if not tuning.interpreted():
            with jax.default_device(jax.local_devices(backend="gpu")[0]):
                traced.lower()
    except NoKernel as reason:
        return reason.with_traceback(None)
    except NotImplementedError as error:
        return NoKernel(f"Triton does not take it ({error})")
    except Exception as error:  # the user's own is raised again by the next strategy
        said = str(error).strip().partition("\n")[0]
        return NoKernel(f"it raises {type(error).__name__}: {said}")
    return None


# --- inputs and outputs ---------------------------------------------------------------------------


def _key_data(x: Array) -> Array:
    """The array as numbers: of keys, their words."""
    x = jnp.asarray(x)
    return jax.random.key_data(x) if is_key(x) else x


def _key_width(aval: ShapedArray) -> int:
    """The number of 32-bit words of a key; 0 for arrays that are no keys."""
    like = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    return jax.eval_shape(jax.random.key_data, like).shape[-1] if is_key(aval) else 0


def _memory_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of a number in memory: a boolean is a byte there."""
    return np.dtype(np.int8) if jnp.issubdtype(dtype, jnp.bool_) else dtype


def _from_memory(entry: Array, dtype: np.dtype) -> Array:
    return entry != 0 if jnp.issubdtype(dtype, jnp.bool_) else entry


@dataclass(frozen=True)
class _KernelInput:
    """An argument of a trajectory: its type; `common` is True if all share it."""

    aval: ShapedArray
    words: int  # of each key; 0 for arrays that are no keys
    common: bool

    @property
    def size(self) -> int:
        """The number of its numbers."""
        return math.prod(self.aval.shape) * max(self.words, 1)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of its numbers."""
        return np.dtype(np.uint32) if self.words else self.aval.dtype

    def laid_out(self, x: Array, lanes: int) -> Array:
        """The argument of all trajectories, (numbers,) or (numbers, lanes)."""
        x = _key_data(x).astype(_memory_dtype(self.dtype))
        if self.common:
            return x.reshape(-1)
        x = x.reshape(x.shape[0], -1)
        fill = jnp.broadcast_to(x[-1:], (lanes - x.shape[0], x.shape[1]))
        return jnp.concatenate([x, fill]).T

    def shape(self, lanes: int) -> tuple[int, ...]:
        """The shape of its numbers in memory."""
        return (self.size,) if self.common else (self.size, lanes)

    def entries[R: jax.Ref | Array](
        self, ref: R, memory: Callable[[R, Sequence[int], DTypeLike], WritableArray]
    ) -> Operand:
        """The scalarised array; a large one stays in a `memory`. In a dry run an array stands for
        the reference.
        """
        if self.words:
            shape = (*self.aval.shape, self.words)
            return wrapped(self._loads(ref).reshape(shape), self.aval.shape)
        if self.size > REGISTERS:
            shape, dtype = self.aval.shape, self.dtype
            return (
                _SharedReference(ref, shape, dtype)
                if self.common
                else View(memory(ref, shape, dtype))
            )
        return self._loads(ref).reshape(self.aval.shape)

    def _loads(self, ref: jax.Ref | Array) -> np.ndarray:
        out = np.empty(self.size, object)
        for k in range(self.size):
            out[k] = _from_memory(ref[k] if self.common else ref[k, :], self.dtype)
        return out


class _SharedReference(Read):
    """An array of all lanes in memory."""

    def read(self, place: Number) -> Array:
        """The entry at a place."""
        return _from_memory(super().read(place), self.dtype)


class _LaneMemory(WritableArray):
    """An array of each lane in memory, of which only the last version is valid."""

    width = 0

    def __init__(
        self,
        ref: jax.Ref,
        shape: Sequence[int],
        dtype: DTypeLike,
        state: "_WriteCount | None" = None,
    ) -> None:
        super().__init__(shape, dtype)
        self.ref, self.state = ref, state or _WriteCount()
        self.version = self.state.version

    def _current(self) -> None:
        if self.version != self.state.version:
            raise NoKernel("an array in memory is read after it was written again")

    def read(self, place: Number) -> Array:
        """The entry at a place."""
        self._current()
        return _from_memory(_load(self.ref, place), self.dtype)

    def write(self, place: Number, entries: Sequence[Number], where: Number) -> "_LaneMemory":
        """The array with entries written from a place on."""
        self._current()
        for k, entry in enumerate(entries):
            _store(self.ref, apply("add", place, np.int32(k)), entry, where)
        self.state.version += 1
        return _LaneMemory(self.ref, self.shape, self.dtype, self.state)

    def same(self, other: WritableArray) -> bool:
        """True if another version is in the same place."""
        return isinstance(other, _LaneMemory) and other.state is self.state

    def carried(self) -> list[Array]:
        """No arrays for the carry of a loop: it is written in place."""
        self._current()
        return []

    def after(self, carried: Sequence[Array]) -> "_LaneMemory":
        """The current version of the array: each iteration of a loop makes another."""
        del carried
        self.state.version += 1
        return _LaneMemory(self.ref, self.shape, self.dtype, self.state)

    def reshaped(self, shape: Sequence[int]) -> "_LaneMemory":
        """The memory with another shape."""
        self._current()
        return _LaneMemory(self.ref, shape, self.dtype, self.state)


def _lane_places(ref: jax.Ref, place: Number) -> tuple[Int[Array, " lanes"], Int[Array, " lanes"]]:
    """The indices of the numbers of all lanes at a place, which may differ from lane to lane."""
    lane = jnp.arange(ref.shape[1], dtype=jnp.int32)
    return jnp.broadcast_to(jnp.asarray(place), lane.shape), lane


def _load(ref: jax.Ref, place: Number) -> Array:
    return (
        ref[int(place), :]
        if is_known_entry(place)
        else triton.load(ref.at[_lane_places(ref, place)])
    )


def _store(ref: jax.Ref, place: Number, entry: Number, where: Number) -> None:
    lanes = (ref.shape[1],)
    value = jnp.broadcast_to(jnp.asarray(entry, ref.dtype), lanes)
    if not is_known_entry(where):
        triton.store(ref.at[_lane_places(ref, place)], value, mask=broadcast_entry(where, lanes))
    elif where and is_known_entry(place):
        ref[int(place), :] = value
    elif where:
        triton.store(ref.at[_lane_places(ref, place)], value)


class _WriteCount:
    """The number of times that a memory was written."""

    version = 0


class _References(Space):
    """The large arrays of a kernel: references in the order in which the dry run requested them."""

    def __init__(
        self, lanes: int, tables: Sequence[jax.Ref], memories: Sequence[jax.Ref], *, barriers: bool
    ) -> None:
        super().__init__(lanes, kernel=True)
        self.barriers = barriers
        self._tables, self._rooms = list(tables), iter(memories)

    def _table(self, number: int, known: np.ndarray) -> Read:
        return _SharedReference(self._tables[number], known.shape, known.dtype)

    def memory(self, shape: Sequence[int], dtype: DTypeLike) -> WritableArray:
        """Memory for an array of each lane."""
        self.memories.append((math.prod(shape), jnp.dtype(dtype)))
        room = next(self._rooms, None)
        if room is None:
            raise NoKernel("it asks for more memory than it did in its dry run")
        return _LaneMemory(room, shape, dtype)


# --- the kernel -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """A solve that is ready to be a kernel: the result of a dry run of the rewriting. `output` has
    the shapes of a trajectory's; the first `sums` of them are summed over all trajectories.
    """

    jaxpr: Jaxpr
    output: PyTree
    inputs: list[_KernelInput]
    tables: list[np.ndarray]
    memories: list[tuple[int, np.dtype]]
    tuning: Tuning
    sums: int = 0
    threads: int = 1

    @classmethod
    def of(
        cls,
        one: Callable,
        shared: Sequence,
        rows: Sequence,
        index: Int[Array, " n"],
        tuning: Tuning,
        sums: int = 0,
    ) -> "Kernel":
        """The kernel of `one(shared, rows[i], index[i])`."""
        *row, place = (jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in (*rows, index))
        jaxpr, output = jax.make_jaxpr(one, return_shape=True)(
            [*map(jnp.asarray, shared)], row, place
        )
        inputs = [
            _KernelInput(a, _key_width(a), i < len(shared))
            for i, a in enumerate(input_types(jaxpr))
        ]
        space = Space(tuning.block, kernel=True)
        found = cls(jaxpr, output, inputs, space.tables, space.memories, tuning, sums)
        like = [jax.ShapeDtypeStruct(i.shape(tuning.block), _memory_dtype(i.dtype)) for i in inputs]
        jax.eval_shape(
            lambda xs: found.outputs(xs, space, LaneArray, lambda k, place, entry: None), like
        )
        return replace(found, threads=space.threads)

    @property
    def scratch(self) -> int:
        """The bytes of memory for each lane that are discarded afterwards."""
        return sum(size * jnp.dtype(_memory_dtype(dtype)).itemsize for size, dtype in self.memories)

    def outputs[R: jax.Ref | Array](
        self,
        refs: Sequence[R],
        space: Space,
        memory: Callable[[R, Sequence[int], DTypeLike], WritableArray],
        put: Callable[[int, Number, Number], None],
    ) -> None:
        """Calls `put(number, place, entry)` for every entry of every output."""
        arrays = [i.entries(ref, memory) for i, ref in zip(self.inputs, refs, strict=True)]
        outs = scalarised(self.jaxpr, arrays, self.tuning.block, space)
        for k, x in enumerate(outs):
            if isinstance(x, Stored):
                each = lambda i, c, k=k, x=x: (put(k, i, x.read(i)), c)[1]  # noqa: E731
                lax.fori_loop(jnp.int32(0), jnp.int32(x.size), each, 0)
                continue
            for place, entry in enumerate(objects(x).flat):
                put(k, np.int32(place), entry)

    def __call__(self, shared: Sequence, rows: Sequence, index: Int[Array, " n"]) -> PyTree:
        """The outputs of all trajectories."""
        block, avals = self.tuning.block, output_types(self.jaxpr)
        size = index.shape[0]
        lanes = -(-size // block) * block
        args = [
            i.laid_out(x, lanes) for i, x in zip(self.inputs, [*shared, *rows, index], strict=True)
        ]
        args += [jnp.asarray(t.reshape(-1)).astype(_memory_dtype(t.dtype)) for t in self.tables]
        kinds = [(a.size, a.dtype) for a in avals] + self.memories
        shapes = [
            jax.ShapeDtypeStruct(
                (max(n, 1), lanes // block if k < self.sums else lanes), _memory_dtype(d)
            )
            for k, (n, d) in enumerate(kinds)
        ]
        specs = [self._spec(x, 1 if k < self.sums else block) for k, x in enumerate(shapes)]
        found = pallas.pallas_call(
            partial(self._kernel, size),
            grid=(lanes // block,),
            out_shape=shapes,
            in_specs=[self._spec(x, block) for x in args],
            out_specs=specs,
            interpret=self.tuning.interpreted(),
            name="solve_ensemble",
            compiler_params=self.tuning.params(remembers=bool(self.memories), threads=self.threads),
        )(*args)
        out = [
            jnp.sum(x[: a.size], axis=1).reshape(a.shape)
            if k < self.sums
            else _from_memory(x[: a.size, :size], a.dtype).T.reshape(size, *a.shape)
            for k, (x, a) in enumerate(zip(found, avals, strict=False))
        ]
        return jax.tree.unflatten(jax.tree.structure(self.output), out)

    @staticmethod
    def _spec(x: Array | jax.ShapeDtypeStruct, block: int) -> "pallas.BlockSpec":
        """The block of an array: all of a shared one; of another, the lanes of this block, or its
        sum.
        """
        if x.ndim == 1:
            return pallas.BlockSpec(x.shape, lambda i: (0,))
        return pallas.BlockSpec((x.shape[0], block), lambda i: (0, i))

    def _kernel(self, size: int, *refs: jax.Ref) -> None:
        block = self.tuning.block
        counts = [len(x) for x in (self.inputs, self.tables, self.jaxpr.outvars, self.memories)]
        inputs, tables, outs, memories = split_by_sizes(refs, counts)
        space = _References(block, tables, memories, barriers=self.tuning.interpreted())
        number = pallas.program_id(0) * block + jnp.arange(block, dtype=jnp.int32)
        counted = number < size  # the others fill up the last block

        def put(k: int, place: Number, entry: Number) -> None:
            if k >= self.sums:
                _store(outs[k], place, entry, np.bool_(True))
                return
            each = jnp.broadcast_to(jnp.asarray(entry, outs[k].dtype), counted.shape)
            total = jnp.sum(jnp.where(counted, each, 0))
            outs[k][int(place) if is_known_entry(place) else place, 0] = total

        self.outputs(inputs, space, _LaneMemory, put)

"""Arrays that are too large to be taken apart: they stay in memory, and single entries are read or
written.

`Read` is an array that all lanes share and that is never written (weights, a table of times).
`LazyArray` is one that is computed from others where it is read: an operation on saved rows after
the solve is then one loop over them, and not a line of the program for each. `WritableArray` has an
array for each lane: saved rows, a tape, the history of a delay equation. Under plain XLA it is an
array (numbers, lanes) that is replaced; in a kernel (`launch.py`) it is a reference that is written
in place, so that only its last version is valid. `View` is one that is only read, such as an input
of a kernel or an array that a loop reads in each iteration: to write it makes a copy.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Shaped

from .operands import Operand, Stored, has_lanes
from .scalar_values import NoKernel, Number, apply, broadcast_entry, is_known_entry, objects

__all__ = [
    "LONGEST",
    "REGISTERS",
    "LaneArray",
    "LazyArray",
    "Read",
    "Space",
    "View",
    "WritableArray",
    "fill_by_loop",
    "read_only",
    "reduce_rows",
    "refill_buffer",
    "to_memory",
]

REGISTERS = 32  # the most numbers of an array that is written in a loop and kept as entries
LONGEST = 20_000  # operations; a compiler of kernels takes minutes for more


class Read(Stored):
    """A flat array, or a reference to one, that all lanes share."""

    varies, anywhere = False, True

    def __init__(
        self, numbers: Shaped[Array, " numbers"] | jax.Ref, shape: Sequence[int], dtype: DTypeLike
    ) -> None:
        super().__init__(shape, dtype)
        self.numbers = numbers

    def read(self, place: Number) -> Array:
        """The entry at a place."""
        return self.numbers[int(place) if is_known_entry(place) else place]

    def reshaped(self, shape: Sequence[int]) -> "Read":
        """The numbers with another shape."""
        return Read(self.numbers, shape, self.dtype)


# Values that were computed in the current read; each thread has its own.
_reading: ContextVar[dict | None] = ContextVar("reading", default=None)


class LazyArray(Stored):
    """An array that is computed where it is read."""

    def __init__(
        self,
        function: Callable[[Number], Number],
        shape: Sequence[int],
        dtype: DTypeLike,
        of: Sequence[Operand] = (),
    ) -> None:
        super().__init__(shape, dtype)
        self.function, self.of = function, of
        self.varies = any(map(has_lanes, of))
        self.anywhere = all(x.anywhere for x in of if isinstance(x, Stored))

    def read(self, place: Number) -> Number:
        """The entry at a place. A value that several operations need is computed once a read."""
        known = _reading.get()
        if known is None:
            token = _reading.set({})
            try:
                return self.read(place)
            finally:
                _reading.reset(token)
        key = (id(self.function), id(place))
        if key not in known:  # kept with the objects of its key, so that no others get their ids
            known[key] = (self.function(place), self.function, place)
        return known[key][0]

    def reshaped(self, shape: Sequence[int]) -> "LazyArray":
        """The numbers with another shape."""
        return LazyArray(self.function, shape, self.dtype, self.of)


class WritableArray(Stored):
    """An array for each lane, as `width` arrays in the carry of a loop."""

    width = 1

    def write(self, place: Number, entries: Sequence[Number], where: Number) -> "WritableArray":
        """The array with entries written from a place on, in the lanes of the mask `where`."""
        raise NotImplementedError

    def carried(self) -> list[Array]:
        """The arrays for the carry of a loop."""
        raise NotImplementedError

    def after(self, carried: Sequence[Array]) -> "WritableArray":
        """The array from the carry of a loop; its previous version is not read again."""
        raise NotImplementedError

    def reshaped(self, shape: Sequence[int]) -> "WritableArray":
        """The memory with another shape."""
        raise NotImplementedError

    def copied(self, space: "Space") -> "WritableArray":
        """A copy that may be written while this is read."""
        room = space.memory(self.shape, self.dtype)
        return fill_by_loop(
            self.size, room, lambda room, i: room.write(i, [self.read(i)], np.bool_(True))
        )

    def same(self, other: "WritableArray") -> bool:
        """True if another version is in the same place."""
        raise NotImplementedError


class View(Stored):
    """An array for each lane that is only read."""

    def __init__(self, of: WritableArray) -> None:
        super().__init__(of.shape, of.dtype)
        self.of = of

    def read(self, place: Number) -> Number:
        """The entry at a place."""
        return self.of.read(place)

    def reshaped(self, shape: Sequence[int]) -> "View":
        """The memory with another shape."""
        return View(self.of.reshaped(shape))


def read_only(x: Operand) -> Operand:
    """A read-only view of an array: to write it makes a copy."""
    return View(x) if isinstance(x, WritableArray) else x


class LaneArray(WritableArray):
    """Under plain XLA: an array (numbers, lanes)."""

    def __init__(
        self,
        numbers: Shaped[Array, "numbers lanes"],
        shape: Sequence[int],
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(shape, dtype or numbers.dtype)
        self.numbers = numbers.astype(self.dtype)

    def _place(self, place: Number) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
        lane = jnp.arange(self.numbers.shape[1], dtype=jnp.int32)
        shape = np.broadcast_shapes(np.shape(place), lane.shape)
        return broadcast_entry(place, shape), broadcast_entry(lane, shape)

    def read(self, place: Number) -> Array:
        """The entry at a place."""
        if is_known_entry(place):
            return self.numbers[int(place)]
        return self.numbers.at[self._place(place)].get(mode="promise_in_bounds")

    def write(self, place: Number, entries: Sequence[Number], where: Number) -> "LaneArray":
        """The array with entries written from a place on."""
        numbers = self.numbers
        for k, entry in enumerate(entries):
            at, lane = self._place(apply("add", place, np.int32(k)))
            at = jnp.where(broadcast_entry(where, at.shape), at, self.size)
            numbers = numbers.at[at, lane].set(entry, mode="drop", unique_indices=True)
        return LaneArray(numbers, self.shape)

    def carried(self) -> list[Array]:
        """The array itself."""
        return [self.numbers]

    def after(self, carried: Sequence[Array]) -> "LaneArray":
        """The array from the carry of a loop."""
        return LaneArray(carried[0], self.shape)

    def copied(self, space: "Space") -> "LaneArray":
        """The array itself, which is replaced and never changed. Its memory is counted, as a kernel
        needs room for the copy.
        """
        space.memory(self.shape, self.dtype)
        return self

    def same(self, other: WritableArray) -> bool:
        """True: a version under plain XLA is in no place of its own."""
        del other
        return True

    def reshaped(self, shape: Sequence[int]) -> "LaneArray":
        """The numbers with another shape."""
        return LaneArray(self.numbers, shape)


class Space:
    """The memory of large arrays under plain XLA. Requests are recorded in their order, so that a
    kernel can be given as much. `barriers`: a compiler may be made to compute a value once.
    `kernel`: operations that Triton lacks are replaced by others, or raise `NoKernel`. `threads`:
    the number of threads that may share a lane (`tiles.py`).
    """

    barriers, threads = True, 1

    def __init__(self, lanes: int, *, kernel: bool = False) -> None:
        self.lanes, self.kernel, self.spent = lanes, kernel, 0
        self.tables: list[np.ndarray] = []
        self.memories: list[tuple[int, np.dtype]] = []

    def spend(self, operations: int) -> None:
        """Counts the operations of the program; raises `NoKernel` when it gets too long."""
        self.spent += operations
        if self.spent > LONGEST:
            raise NoKernel(
                f"the program would have more than {LONGEST} operations on single numbers"
            )

    def table(self, known: np.ndarray) -> Read:
        """A known array in memory, to be read at places that are not known."""
        found = next((i for i, x in enumerate(self.tables) if _is_same_table(x, known)), None)
        if found is None:
            found = len(self.tables)
            self.tables.append(known)
        return self._table(found, known)

    def _table(self, number: int, known: np.ndarray) -> Read:
        del number
        return Read(jnp.asarray(known.reshape(-1)), known.shape, known.dtype)

    def memory(self, shape: Sequence[int], dtype: DTypeLike) -> WritableArray:
        """Memory for an array of each lane."""
        size = int(np.prod(shape))
        self.memories.append((size, jnp.dtype(dtype)))
        return LaneArray(jnp.zeros((size, self.lanes), dtype), shape)


def _is_same_table(a: np.ndarray, b: np.ndarray) -> bool:
    alike = a.shape == b.shape and a.dtype == b.dtype
    return a is b or (alike and a.tobytes() == b.tobytes())


def to_memory(x: Operand, space: Space, dtype: DTypeLike) -> WritableArray:
    """An array in memory, to be written; copied there, if it is not."""
    if isinstance(x, WritableArray):
        return x
    if isinstance(x, View):
        return x.of.copied(space)
    room = space.memory(x.shape, dtype)
    if isinstance(x, Stored):
        return fill_by_loop(
            x.size, room, lambda room, i: room.write(i, [x.read(i)], np.bool_(True))
        )
    entries = objects(x).reshape(-1)
    first = entries[0]
    alike = is_known_entry(first) and all(
        is_known_entry(e) and e.tobytes() == first.tobytes() for e in entries
    )
    if alike and len(entries) > REGISTERS // 4:
        return fill_by_loop(
            len(entries), room, lambda room, i: room.write(i, [first], np.bool_(True))
        )
    return room.write(np.int32(0), list(entries), np.bool_(True))


def refill_buffer(old: WritableArray, new: Operand, where: Number, space: Space) -> WritableArray:
    """Writes the new value of a buffer, after an iteration of a loop, to the buffer's own place."""
    made = isinstance(new, LazyArray)
    if made:  # it may read other places of the buffer itself
        new = to_memory(new, space, old.dtype)
    new = new.of if isinstance(new, View) else new
    if isinstance(new, WritableArray) and old.same(new) and not made:
        return new
    if isinstance(new, Stored):
        return fill_by_loop(new.size, old, lambda room, i: room.write(i, [new.read(i)], where))
    return old.write(np.int32(0), list(objects(new).reshape(-1)), where)


def fill_by_loop(
    count: int, memory: WritableArray, write: Callable[[WritableArray, Array], WritableArray]
) -> WritableArray:
    """Computes `memory = write(memory, i)` for all i < count, in a loop."""

    def body(i: Int[Array, ""], carried: list[Array]) -> list[Array]:
        return write(memory.after(carried), i).carried()

    end = lax.fori_loop(jnp.int32(0), jnp.int32(count), body, memory.carried())
    return memory.after(end)


def reduce_rows(
    x: Stored, rows: int, size: int, combine: Callable[[Number, Number], Number], lanes: int
) -> Sequence[Number]:
    """The combination of all rows of an array, from the first to the last, in a loop."""
    shape = (lanes,) if x.varies else ()

    def entries(first: Number) -> Sequence[Number]:
        found = [x.read(apply("add", first, np.int32(k))) for k in range(size)]
        return [jnp.broadcast_to(jnp.asarray(e, x.dtype), shape) for e in found]

    def body(i: Int[Array, ""], carried: Sequence[Number]) -> Sequence[Number]:
        new = entries(apply("mul", i, np.int32(size)))
        return [combine(a, b) for a, b in zip(carried, new, strict=True)]

    return lax.fori_loop(jnp.int32(1), jnp.int32(rows), body, entries(np.int32(0)))

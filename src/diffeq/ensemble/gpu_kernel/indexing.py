"""Rules of places that may not be known: slices, gathers, scatters, and rows of large arrays.

In an array of entries, an unknown place is a chain of selects over all possible ones; in an array
in memory it is a load or a store. Both clamp as the primitives do, and a kernel relies on it:
whatever a lane that is done has in its registers, no place outside of an array is accessed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import lax

from .context import LaneContext, Rule
from .large_arrays import REGISTERS, Space, WritableArray, to_memory
from .operands import Operand, Operands, Stored, all_entries, entry_dtype, entry_of, is_known
from .scalar_values import (
    Entry,
    Ints,
    Number,
    apply,
    index_array,
    is_known_entry,
    map_entries,
    objects,
    select,
    select_entry,
)

__all__ = ["CHAIN", "INDEXING", "clamped_row", "dynamic_slice", "write_row"]

CHAIN = 16  # the number of selects that cost as much as a load


def _clamp_place(entry: Number, most: int) -> Number:
    """A place, as an int32 within 0…most."""
    entry = _int32(entry)
    low, high = np.int32(0), np.int32(most)
    return apply("min", apply("max", entry, low), high)


def _int32(entry: Number) -> Number:
    if isinstance(entry, np.generic):
        return np.int32(min(max(int(entry), -1), 2**31 - 1))
    if entry.dtype == jnp.int32:
        return entry
    # Out of the range of an int32 is out of any array.
    if jnp.issubdtype(entry.dtype, jnp.signedinteger):
        return jnp.clip(entry, -1, 2**31 - 1).astype(jnp.int32)
    most = entry.dtype.type(min(2**31 - 1, jnp.iinfo(entry.dtype).max))
    return jnp.minimum(entry, most).astype(jnp.int32)


def clamped_row(x: Operand, j: Number, space: Space) -> np.ndarray:
    """Row j of an array, clamped."""
    return dynamic_slice(x, [j, *(np.int32(0) for _ in x.shape[1:])], (1, *x.shape[1:]), space)[
        0, ...
    ]


def write_row(x: Operand, j: Number, value: Operand, where: Number, space: Space) -> Operand:
    """The array with row j written in the lanes of the mask `where`; none past the end."""
    j, value = _int32(j), all_entries(value)
    x = to_memory(x, space, x.dtype) if isinstance(x, Stored) else x
    if isinstance(x, WritableArray):
        size = x.size // max(x.shape[0], 1)
        inside = apply("and", apply("ge", j, np.int32(0)), apply("lt", j, np.int32(x.shape[0])))
        first = apply("mul", _clamp_place(j, x.shape[0] - 1), np.int32(size))
        return x.write(first, list(objects(value).reshape(-1)), apply("and", inside, where))
    out, new = objects(x).copy(), objects(value)
    for k in [int(j)] if is_known_entry(j) else range(len(out)):
        if 0 <= k < len(out):
            here = apply("and", apply("eq", j, np.int32(k)), where)
            out[k, ...] = map_entries(partial(select_entry, here), new, out[k, ...])
    return out


# --- slices ---------------------------------------------------------------------------------------


def dynamic_slice(x: Operand, starts: Sequence[Number], sizes: Ints, space: Space) -> np.ndarray:
    """A slice whose starts are entries, clamped so that it is inside of the array."""
    room = [n - size for n, size in zip(x.shape, sizes, strict=True)]
    starts = [_clamp_place(s, r) for s, r in zip(starts, room, strict=True)]
    candidates = int(
        np.prod([r + 1 for s, r in zip(starts, room, strict=True) if not is_known_entry(s)])
    )
    if is_known(x) and candidates > CHAIN:
        x = space.table(x)
    if isinstance(x, Stored):
        return _read_slice(x, starts, sizes)
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        cut = lambda s, axis=axis, size=size, x=x: x[(slice(None),) * axis + (slice(s, s + size),)]  # noqa: E731
        if is_known_entry(start):
            x = cut(int(start))
            continue
        chosen = objects(cut(0))
        for s in range(1, room[axis] + 1):
            here = apply("eq", start, np.int32(s))
            chosen = map_entries(partial(select_entry, here), cut(s), chosen)
        x = chosen
    return x


def _read_slice(x: Stored, starts: Sequence[Number], sizes: Ints) -> np.ndarray:
    """A slice of an array in memory, which is laid out by rows."""
    strides = [int(np.prod(x.shape[i + 1 :])) for i in range(len(x.shape))]
    first: Number = np.int32(0)
    for start, stride in zip(starts, strides, strict=True):
        first = apply("add", first, apply("mul", start, np.int32(stride)))
    out = np.empty(tuple(map(int, sizes)), object)
    for i in np.ndindex(out.shape):
        further = sum(k * stride for k, stride in zip(i, strides, strict=True))
        out[i] = x.read(apply("add", first, np.int32(further)))
    return out


def _dynamic_slice(
    context: LaneContext, x: Operand, *starts: np.ndarray, slice_sizes: Ints
) -> Operands:
    return [dynamic_slice(x, list(map(entry_of, starts)), slice_sizes, context.space)]


def _dynamic_update(
    context: LaneContext, x: Operand, update: Operand, *starts: np.ndarray
) -> Operands:
    update = all_entries(update)
    room = [n - size for n, size in zip(x.shape, update.shape, strict=True)]
    entries = [_clamp_place(entry_of(s), r) for s, r in zip(starts, room, strict=True)]
    rows_of_one = x.shape and update.shape == (1, *x.shape[1:])
    if rows_of_one and all(is_known_entry(s) and s == 0 for s in entries[1:]):
        return [write_row(x, entries[0], index_array(update, 0), np.bool_(True), context.space)]
    return [_combine_window(all_entries(x), entries, update, lambda old, new: new)]


def _combine_window(
    x: np.ndarray,
    starts: Sequence[Number],
    update: np.ndarray,
    combine: Callable[[Entry, Entry], Entry],
) -> np.ndarray:
    """An array with an update combined into it; unchanged where the update lies outside."""
    room = [n - size for n, size in zip(x.shape, update.shape, strict=True)]
    each = [
        [int(s)] if is_known_entry(s) else range(r + 1) for s, r in zip(starts, room, strict=True)
    ]
    out, new = objects(x).copy(), objects(update)
    for origin in product(*each):
        if any(not 0 <= o <= r for o, r in zip(origin, room, strict=True)):
            continue
        here: Number = np.bool_(True)
        for start, o in zip(starts, origin, strict=True):
            if not is_known_entry(start):
                here = apply("and", here, apply("eq", start, np.int32(o)))
        window = (*(slice(o, o + n) for o, n in zip(origin, new.shape, strict=True)), ...)
        made = map_entries(combine, out[window], new)
        out[window] = map_entries(partial(select_entry, here), made, out[window])
    return out


# --- gathers and scatters -------------------------------------------------------------------------


def _gather(
    context: LaneContext,
    x: Operand,
    indices: Operand,
    *,
    dimension_numbers: lax.GatherDimensionNumbers,
    slice_sizes: Ints,
    mode: lax.GatherScatterMode,
    fill_value: float | None,
    **_: object,
) -> Operands:
    """A slice for each of the indices."""
    numbers, batch = dimension_numbers, indices.shape[:-1]
    offset, indices = numbers.offset_dims, objects(all_entries(indices))
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept_sizes = [n for axis, n in enumerate(slice_sizes) if axis not in gone]
    room = [n - size for n, size in zip(x.shape, slice_sizes, strict=True)]
    fills = mode == lax.GatherScatterMode.FILL_OR_DROP
    out = np.empty(_with_offset(batch, kept_sizes, offset), object)
    for b in np.ndindex(batch):
        starts = _window_starts(
            b,
            indices,
            numbers.start_index_map,
            numbers.operand_batching_dims,
            numbers.start_indices_batching_dims,
            len(x.shape),
        )
        window = objects(dynamic_slice(x, starts, slice_sizes, context.space)).reshape(kept_sizes)
        if fills:
            inside = _is_inside(starts, room)
            blank = _fill_value(entry_dtype(x), fill_value)
            window = map_entries(
                lambda e, on=inside, blank=blank: select_entry(on, e, blank), window
            )
        at = iter(b)
        place = tuple(slice(None) if d in offset else next(at) for d in range(out.ndim))
        out[(*place, ...)] = window
    return [out]


def _with_offset(batch: Sequence[int], window: Ints, offset: Sequence[int]) -> tuple[int, ...]:
    at, inner = iter(batch), iter(window)
    return tuple(
        int(next(inner)) if d in offset else next(at) for d in range(len(batch) + len(window))
    )


def _window_starts(
    b: tuple[int, ...],
    indices: np.ndarray,
    mapped: Sequence[int],
    batching: Sequence[int],
    own: Sequence[int],
    ndim: int,
) -> list[Number]:
    """The start of the window of one of the indices, along each axis of the operand."""
    starts: list[Number] = [np.int32(0)] * ndim
    for k, axis in enumerate(mapped):
        starts[axis] = _int32(indices[(*b, k)])
    for axis, place in zip(batching, own, strict=True):
        starts[axis] = np.int32(b[place])
    return starts


def _is_inside(starts: Sequence[Number], room: Sequence[int]) -> Number:
    inside: Number = np.bool_(True)
    for start, r in zip(starts, room, strict=True):
        within = apply("and", apply("ge", start, np.int32(0)), apply("le", start, np.int32(r)))
        inside = apply("and", inside, within)
    return inside


def _fill_value(dtype: np.dtype, given: float | None) -> np.generic:
    """The value of an entry outside of the array."""
    if given is not None:
        return dtype.type(given)
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype.type(np.nan)
    if jnp.issubdtype(dtype, jnp.bool_):
        return np.bool_(True)
    limits = jnp.iinfo(dtype)
    return dtype.type(limits.min if jnp.issubdtype(dtype, jnp.signedinteger) else limits.max)


def _scatter(name: str | None) -> Rule:
    combine = (lambda old, new: apply(name, old, new)) if name else (lambda old, new: new)

    def rule(
        context: LaneContext,
        x: Operand,
        indices: Operand,
        updates: Operand,
        *,
        dimension_numbers: lax.ScatterDimensionNumbers,
        mode: lax.GatherScatterMode,
        **_: object,
    ) -> Operands:
        del context
        numbers, x = dimension_numbers, all_entries(x)
        indices, updates = objects(all_entries(indices)), objects(all_entries(updates))
        window_axes = numbers.update_window_dims
        gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        for b in np.ndindex(indices.shape[:-1]):
            starts = _window_starts(
                b,
                indices,
                numbers.scatter_dims_to_operand_dims,
                numbers.operand_batching_dims,
                numbers.scatter_indices_batching_dims,
                x.ndim,
            )
            at = iter(b)
            place = tuple(
                slice(None) if d in window_axes else next(at) for d in range(updates.ndim)
            )
            window = index_array(updates, place)
            inner = iter(window.shape)
            window = window.reshape([1 if axis in gone else next(inner) for axis in range(x.ndim)])
            if mode == lax.GatherScatterMode.CLIP:
                room = [n - size for n, size in zip(x.shape, window.shape, strict=True)]
                starts = [_clamp_place(s, r) for s, r in zip(starts, room, strict=True)]
            x = _combine_window(x, starts, window, combine)
        return [x]

    return rule


# --- rows of large arrays (`autodiff/row_buffers.py`, `autodiff/tables.py`) -----------------------


def _get_row(context: LaneContext, x: Operand, j: np.ndarray) -> Operands | None:
    return None if j.shape else [clamped_row(x, entry_of(j), context.space)]


def _unset(context: LaneContext, *, shape: Sequence[int], dtype: np.dtype) -> Operands:
    few = int(np.prod(shape)) <= REGISTERS
    return [np.zeros(shape, dtype) if few else context.space.memory(shape, dtype)]


def _put_row(context: LaneContext, x: Operand, value: Operand, j: np.ndarray) -> Operands | None:
    if j.shape:
        return None
    return [
        write_row(_row_buffer(context, x, value), entry_of(j), value, context.on, context.space)
    ]


def _row_buffer(context: LaneContext, x: Operand, value: Operand) -> Operand:
    """An array of entries, if it is not too large to be one."""
    return x if x.size <= REGISTERS else to_memory(x, context.space, entry_dtype(value))


def _pick_row(context: LaneContext, x: Operand, i: Operand, *, queries: int) -> Operands | None:
    if len(i.shape) > queries:
        return None
    length = x.shape[0]
    out = np.empty((*i.shape, *x.shape[1:]), object)
    for q, number in zip(np.ndindex(i.shape), all_entries(i).flat, strict=True):
        out[(*q, ...)] = objects(clamped_row(x, _ring_place(number, length), context.space))
    return [out]


def _add_row(
    context: LaneContext, x: Operand, value: Operand, i: Operand, *, queries: int
) -> Operands | None:
    if len(i.shape) > queries:
        return None
    length, value = x.shape[0], all_entries(value)
    x = _row_buffer(context, x, value)
    for q, number in zip(np.ndindex(i.shape), all_entries(i).flat, strict=True):
        j, own = _ring_place(number, length), index_array(value, q) if q else value
        old = objects(clamped_row(x, j, context.space))
        new = map_entries(partial(apply, "add"), old, own)
        x = write_row(x, j, new, context.on, context.space)
    return [x]


def _ring_place(i: Number, length: int) -> Number:
    """The place of row i: in a ring, if the length is a power of two."""
    return apply("and", i, np.int32(length - 1)) if length & (length - 1) == 0 else i


def _find_row(
    context: LaneContext, ends: Operand, count: np.ndarray, x: Operand, *, queries: int
) -> Operands | None:
    """Finds rows by bisection, with a fixed number of halvings for a length."""
    if count.shape or len(x.shape) > queries:
        return None
    length, high = ends.shape[0], entry_of(count)
    first = apply("max", apply("sub", high, np.int32(length)), np.int32(0))
    out = np.empty(x.shape, object)
    for q, wanted in zip(np.ndindex(x.shape), all_entries(x).flat, strict=True):
        low, top = first, high
        for _ in range(length.bit_length()):
            two = apply("add", low, top)
            middle = _half_of(two)
            end = entry_of(clamped_row(ends, _ring_place(middle, length), context.space))
            on = apply("lt", low, top)
            after = apply("and", apply("lt", end, wanted), on)
            low, top = (
                select(after, apply("add", middle, np.int32(1)), low),
                select(apply("and", on, apply("not", after)), middle, top),
            )
        out[q] = low
    return [out]


def _half_of(entry: Number) -> Number:
    if is_known_entry(entry):
        return np.int32(int(entry) >> 1)
    return lax.shift_right_logical_p.bind(entry, jnp.broadcast_to(np.int32(1), jnp.shape(entry)))


INDEXING: dict[str, Rule] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "gather": _gather,
    "scatter": _scatter(None),
    **{f"scatter-{name}": _scatter(name) for name in ("add", "mul", "min", "max", "sub")},
    "get_row": _get_row,
    "put_row": _put_row,
    "pick_row": _pick_row,
    "add_row": _add_row,
    "find_row": _find_row,
    "unset": _unset,
}

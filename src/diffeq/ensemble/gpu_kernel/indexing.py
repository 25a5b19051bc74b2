"""Rules of places that may not be known: slices, gathers, scatters, and rows of large arrays.

In an array of entries, an unknown place is a chain of selects over all possible ones; in an array
in memory it is a load or a store. Both clamp as the primitives do, and a kernel relies on it:
whatever a lane that is done has in its registers, no place outside of an array is accessed.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .large_arrays import REGISTERS, Space, Stored, WritableArray, all_entries, to_memory
from .scalar_values import apply, index_array, is_known, is_known_entry, objects, select

__all__ = ["CHAIN", "INDEXING", "clamped_row", "dynamic_slice", "write_row"]

CHAIN = 16  # the number of selects that cost as much as a load


def _clamp_place(entry: Any, most: int) -> Any:
    """A place, as an int32 within 0…most."""
    entry = _int32(entry)
    low, high = np.int32(0), np.int32(most)
    return apply("min", apply("max", entry, low), high)


def _int32(entry: Any) -> Any:
    if is_known_entry(entry):
        return np.int32(min(max(int(entry), -1), 2**31 - 1))
    if entry.dtype == jnp.int32:
        return entry
    # Out of the range of an int32 is out of any array.
    if jnp.issubdtype(entry.dtype, jnp.signedinteger):
        return jnp.clip(entry, -1, 2**31 - 1).astype(jnp.int32)
    return jnp.minimum(entry, entry.dtype.type(min(2**31 - 1, jnp.iinfo(entry.dtype).max))).astype(
        jnp.int32
    )


def clamped_row(x: Any, j: Any, space: Space) -> np.ndarray:
    """Row j of an array, clamped."""
    return dynamic_slice(x, [j, *(np.int32(0) for _ in x.shape[1:])], (1, *x.shape[1:]), space)[
        0, ...
    ]


def write_row(x: Any, j: Any, value: Any, where: Any, space: Space) -> Any:
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
            for i in np.ndindex(new.shape):
                out[(k, *i)] = select(here, new[i], out[(k, *i)])
    return out


# --- slices ---------------------------------------------------------------------------------------


def dynamic_slice(x: Any, starts: Sequence, sizes: Sequence, space: Space) -> np.ndarray:
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
        chosen = objects(cut(0)).copy()
        for s in range(1, room[axis] + 1):
            here, found = apply("eq", start, np.int32(s)), objects(cut(s))
            for i in np.ndindex(chosen.shape):
                chosen[i] = select(here, found[i], chosen[i])
        x = chosen
    return x


def _read_slice(x: Stored, starts: Sequence, sizes: Sequence) -> np.ndarray:
    """A slice of an array in memory, which is laid out by rows."""
    strides = [int(np.prod(x.shape[i + 1 :])) for i in range(len(x.shape))]
    first: Any = np.int32(0)
    for start, stride in zip(starts, strides, strict=True):
        first = apply("add", first, apply("mul", start, np.int32(stride)))
    out = np.empty(tuple(sizes), object)
    for i in np.ndindex(out.shape):
        further = sum(k * stride for k, stride in zip(i, strides, strict=True))
        out[i] = x.read(apply("add", first, np.int32(further)))
    return out


def _dynamic_slice(context: Any, x: Any, *starts: Any, slice_sizes: Any) -> list:
    return [dynamic_slice(x, [objects(s)[()] for s in starts], slice_sizes, context.space)]


def _dynamic_update(context: Any, x: Any, update: Any, *starts: Any) -> list:
    update = all_entries(update)
    entries = [objects(s)[()] for s in starts]
    room = [n - size for n, size in zip(x.shape, update.shape, strict=True)]
    entries = [_clamp_place(s, r) for s, r in zip(entries, room, strict=True)]
    rows_of_one = x.shape and update.shape == (1, *x.shape[1:])
    if rows_of_one and all(is_known_entry(s) and s == 0 for s in entries[1:]):
        return [write_row(x, entries[0], index_array(update, 0), np.bool_(True), context.space)]
    return [_combine_window(all_entries(x), entries, update, lambda old, new: new)]


def _combine_window(
    x: np.ndarray, starts: Sequence, update: np.ndarray, combine: Callable
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
        here: Any = np.bool_(True)
        for start, o in zip(starts, origin, strict=True):
            if not is_known_entry(start):
                here = apply("and", here, apply("eq", start, np.int32(o)))
        for i in np.ndindex(new.shape):
            at = tuple(a + b for a, b in zip(origin, i, strict=True))
            out[at] = select(here, combine(out[at], new[i]), out[at])
    return out


# --- gathers and scatters -------------------------------------------------------------------------


def _gather(
    context: Any,
    x: Any,
    indices: Any,
    *,
    dimension_numbers: Any,
    slice_sizes: Any,
    mode: Any,
    fill_value: Any,
    **_: Any,
) -> list:
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
            blank = _fill_value(_entry_dtype(x), fill_value)
            for i in np.ndindex(window.shape):
                window[i] = select(inside, window[i], blank)
        at = iter(b)
        place = tuple(slice(None) if d in offset else next(at) for d in range(out.ndim))
        out[(*place, ...)] = window
    return [out]


def _with_offset(batch: Sequence, window: Sequence, offset: Sequence) -> tuple:
    at, inner = iter(batch), iter(window)
    return tuple(next(inner) if d in offset else next(at) for d in range(len(batch) + len(window)))


def _window_starts(
    b: tuple, indices: np.ndarray, mapped: Any, batching: Any, own: Any, ndim: int
) -> list:
    """The start of the window of one of the indices, along each axis of the operand."""
    starts: list[Any] = [np.int32(0)] * ndim
    for k, axis in enumerate(mapped):
        starts[axis] = _int32(indices[(*b, k)])
    for axis, place in zip(batching, own, strict=True):
        starts[axis] = np.int32(b[place])
    return starts


def _is_inside(starts: Sequence, room: Sequence) -> Any:
    inside: Any = np.bool_(True)
    for start, r in zip(starts, room, strict=True):
        within = apply("and", apply("ge", start, np.int32(0)), apply("le", start, np.int32(r)))
        inside = apply("and", inside, within)
    return inside


def _entry_dtype(x: Any) -> Any:
    return jnp.dtype(x.dtype if isinstance(x, Stored) or is_known(x) else x.flat[0].dtype)


def _fill_value(dtype: Any, given: Any) -> Any:
    """The value of an entry outside of the array."""
    kind = jnp.dtype(dtype)
    if given is not None:
        return kind.type(given)
    if jnp.issubdtype(kind, jnp.inexact):
        return kind.type(np.nan)
    if jnp.issubdtype(kind, jnp.bool_):
        return np.bool_(True)
    limits = jnp.iinfo(kind)
    return kind.type(limits.min if jnp.issubdtype(kind, jnp.signedinteger) else limits.max)


def _scatter(name: str | None) -> Callable:
    combine = (lambda old, new: apply(name, old, new)) if name else (lambda old, new: new)

    def rule(
        context: Any,
        x: Any,
        indices: Any,
        updates: Any,
        *,
        dimension_numbers: Any,
        mode: Any,
        **_: Any,
    ) -> list:
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


def _get_row(context: Any, x: Any, j: np.ndarray) -> list | None:
    return None if j.shape else [clamped_row(x, objects(j)[()], context.space)]


def _unset(context: Any, *, shape: Sequence[int], dtype: Any) -> list:
    few = int(np.prod(shape)) <= REGISTERS
    return [np.zeros(shape, dtype) if few else context.space.memory(shape, dtype)]


def _put_row(context: Any, x: Any, value: Any, j: np.ndarray) -> list | None:
    if j.shape:
        return None
    return [
        write_row(_row_buffer(context, x, value), objects(j)[()], value, context.on, context.space)
    ]


def _row_buffer(context: Any, x: Any, value: Any) -> Any:
    """An array of entries, if it is not too large to be one."""
    return x if x.size <= REGISTERS else to_memory(x, context.space, _entry_dtype(value))


def _pick_row(context: Any, x: Any, i: Any, *, queries: int) -> list | None:
    if len(i.shape) > queries:
        return None
    length, wanted = x.shape[0], objects(all_entries(i))
    out = np.empty((*i.shape, *x.shape[1:]), object)
    for q in np.ndindex(i.shape):
        out[(*q, ...)] = objects(clamped_row(x, _ring_place(wanted[q], length), context.space))
    return [out]


def _add_row(context: Any, x: Any, value: Any, i: Any, *, queries: int) -> list | None:
    if len(i.shape) > queries:
        return None
    length, wanted, value = x.shape[0], objects(all_entries(i)), all_entries(value)
    x = _row_buffer(context, x, value)
    for q in np.ndindex(i.shape):
        j, own = _ring_place(wanted[q], length), objects(index_array(value, q) if q else value)
        old = objects(clamped_row(x, j, context.space))
        new = np.empty(old.shape, object)
        for k in np.ndindex(old.shape):
            new[k] = apply("add", old[k], own[k])
        x = write_row(x, j, new, context.on, context.space)
    return [x]


def _ring_place(i: Any, length: int) -> Any:
    """The place of row i: in a ring, if the length is a power of two."""
    return apply("and", i, np.int32(length - 1)) if length & (length - 1) == 0 else i


def _find_row(context: Any, ends: Any, count: np.ndarray, x: Any, *, queries: int) -> list | None:
    """Finds rows by bisection, with a fixed number of halvings for a length."""
    if count.shape or len(x.shape) > queries:
        return None
    length, wanted, high = ends.shape[0], objects(all_entries(x)), objects(count)[()]
    first = apply("max", apply("sub", high, np.int32(length)), np.int32(0))
    out = np.empty(x.shape, object)
    for q in np.ndindex(x.shape):
        low, top = first, high
        for _ in range(length.bit_length()):
            two = apply("add", low, top)
            middle = _half_of(two)
            end = objects(clamped_row(ends, _ring_place(middle, length), context.space))[()]
            on = apply("lt", low, top)
            after = apply("and", apply("lt", end, wanted[q]), on)
            low, top = (
                select(after, apply("add", middle, np.int32(1)), low),
                select(apply("and", on, apply("not", after)), middle, top),
            )
        out[q] = low
    return [out]


def _half_of(entry: Any) -> Any:
    return (
        np.int32(entry >> 1)
        if is_known_entry(entry)
        else lax.shift_right_logical_p.bind(entry, jnp.broadcast_to(np.int32(1), jnp.shape(entry)))
    )


INDEXING: dict[str, Callable] = {
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

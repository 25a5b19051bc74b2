"""Rules of arrays that are too large to be taken apart: functions of them are computed where they
are read (`large_arrays.LazyArray`), and a reduction is a loop.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ...autodiff.jax_internals import Equation, ShapedArray, output_types
from .context import LaneContext
from .elementwise import ELEMENTWISE, fits, on_entries
from .indexing import CHAIN, dynamic_slice
from .large_arrays import REGISTERS, LazyArray, reduce_rows
from .operands import Operand, Operands, Stored, all_entries, is_known
from .scalar_values import Ints, Number, apply, is_known_entry, objects, select, squeeze_broadcast

__all__ = ["in_memory"]

_IDENTITIES = frozenset(("copy", "stop_gradient", "reshape", "squeeze", "expand_dims"))
_PARTS = 4  # arrays of a concatenation, each of which is read for each entry
_REDUCED = {"reduce_sum": "add", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "mul",
            "reduce_and": "and", "reduce_or": "or"}  # fmt: skip


def in_memory(
    context: LaneContext, name: str, equation: Equation, xs: Sequence[Operand]
) -> Operands | None:
    """The outputs of an equation of large arrays, without an operation for each number; None where
    its arrays are small, or there is no rule.
    """
    if name == "split":
        return _split_parts(xs[0], **equation.params) if isinstance(xs[0], Stored) else None
    found = _in_memory(context, name, equation, xs)
    return None if found is None else [found]


def _in_memory(
    context: LaneContext, name: str, equation: Equation, xs: Sequence[Operand]
) -> Operand | None:
    """The output of an equation that has one."""
    if not any(isinstance(x, Stored) for x in xs) and name not in ELEMENTWISE:
        return None
    out = output_types(equation)[0]
    if name in _REDUCED and xs[0].size > REGISTERS:
        return _reduction(context, _REDUCED[name], xs[0], equation.params["axes"], out)
    size = int(np.prod(out.shape)) if hasattr(out, "shape") else 0
    if size <= REGISTERS:
        return None
    if name in _IDENTITIES and isinstance(xs[0], Stored):
        return xs[0].reshaped(out.shape)
    if name in ELEMENTWISE and fits(equation):
        return _elementwise(context, equation, xs, out)
    moved = _MOVES.get(name)
    return None if moved is None else moved(context, xs, out, equation.params)


def _elementwise(
    context: LaneContext, equation: Equation, xs: Sequence[Operand], out: ShapedArray
) -> LazyArray | None:
    """A lazy array, if its operands can be read without a chain of selects; else None."""
    if not any(
        isinstance(x, Stored) or (is_known(x) and squeeze_broadcast(x).size > 1) for x in xs
    ):
        return None
    if all(map(is_known, xs)):
        return None
    found = [_reader(context, x, out.shape) for x in xs]
    readers = [reader for reader in found if reader is not None]
    if len(readers) < len(found):
        return None
    function, space = on_entries(equation), context.space

    def read(place: Number) -> Number:
        space.spend(1)
        return function(*(reader(place) for reader in readers))

    return LazyArray(read, out.shape, out.dtype, xs)


def _reader(
    context: LaneContext, x: Operand, shape: tuple[int, ...]
) -> Callable[[Number], Number] | None:
    """A function that reads an operand at a place of the output; None if there is none without a
    chain of selects.
    """
    if isinstance(x, Stored):
        return x.read if x.shape == shape else lambda p: x.read(_broadcast_place(p, shape, x.shape))
    small = squeeze_broadcast(np.broadcast_to(x, shape))
    if small.size == 1:
        entry = objects(small).flat[0]
        return lambda _: entry
    if not is_known(small) and small.size > CHAIN:
        return None

    def read(place: Number) -> Number:
        at = [
            i if n > 1 else np.int32(0)
            for i, n in zip(coordinates(place, shape), small.shape, strict=True)
        ]
        counted = _arithmetic_sequence(small)
        if counted is not None:
            axis, first, step = counted
            return apply("add", first, apply("mul", _typed(at[axis], first.dtype), step))
        return objects(dynamic_slice(small, at, (1,) * small.ndim, context.space)).flat[0]

    return read


def _arithmetic_sequence(x: np.ndarray) -> tuple[int, np.integer, np.integer] | None:
    """The axis, start and step of a known arithmetic sequence of integers."""
    axes = [axis for axis, n in enumerate(x.shape) if n > 1]
    if not is_known(x) or x.dtype.kind not in "iu" or len(axes) != 1:
        return None
    line = x.reshape(-1)
    step = line[1] - line[0]
    return (axes[0], line[0], step) if (np.diff(line) == step).all() else None


def _typed(entry: Number, dtype: np.dtype) -> Number:
    return dtype.type(entry) if is_known_entry(entry) else entry.astype(dtype)


# --- places ---------------------------------------------------------------------------------------


def coordinates(place: Number, shape: Sequence[int]) -> list[Number]:
    """The index, an entry for each axis, of a place of a flat array."""
    found: list[Number] = []
    for n in reversed(shape):
        found.append(_parted(lax.rem, place, n) if n > 1 else np.int32(0))
        place = _parted(lax.div, place, n) if n > 1 else place
    return found[::-1]


def _parted(function: Callable[[Array, Array], Array], place: Number, n: int) -> Number:
    if isinstance(place, np.generic):
        return np.int32(int(place) % n if function is lax.rem else int(place) // n)
    return function(place, jnp.full_like(place, n))


def _flat_place(index: Sequence[Number], shape: Sequence[int]) -> Number:
    """The place of an index in a flat array of a shape."""
    place: Number = np.int32(0)
    for i, n in zip(index, shape, strict=True):
        place = apply("add", apply("mul", place, np.int32(n)), i)
    return place


def _broadcast_place(place: Number, shape: tuple[int, ...], own: tuple[int, ...]) -> Number:
    """The place in an operand whose axes of length one are broadcast."""
    if not own:
        return np.int32(0)
    index = coordinates(place, shape)
    return _flat_place([i if n > 1 else np.int32(0) for i, n in zip(index, own, strict=True)], own)


# --- moves of entries -----------------------------------------------------------------------------


def _index_rule(source: Callable[[list[Number], tuple[int, ...], dict], list[Number]]) -> Callable:
    """An operation on the shape of one array: `source(index, shape, params)` is the index of the
    input for an index of the output.
    """

    def rule(
        context: LaneContext, xs: Sequence[Stored], out: ShapedArray, params: dict
    ) -> LazyArray:
        del context
        x = xs[0]
        read = lambda p: x.read(  # noqa: E731
            _flat_place(source(coordinates(p, out.shape), x.shape, params), x.shape)
        )
        return LazyArray(read, out.shape, out.dtype, xs)

    return rule


def _from_broadcast(index: list[Number], shape: tuple[int, ...], params: dict) -> list[Number]:
    each = zip(params["broadcast_dimensions"], shape, strict=True)
    return [index[axis] if n > 1 else np.int32(0) for axis, n in each]


def _from_slice(index: list[Number], shape: tuple[int, ...], params: dict) -> list[Number]:
    strides = params["strides"] or (1,) * len(shape)
    each = zip(index, params["start_indices"], strides, strict=True)
    return [apply("add", apply("mul", i, np.int32(k)), np.int32(s)) for i, s, k in each]


def _from_transpose(index: list[Number], shape: tuple[int, ...], params: dict) -> list[Number]:
    del shape
    return [index[params["permutation"].index(axis)] for axis in range(len(index))]


def _from_rev(index: list[Number], shape: tuple[int, ...], params: dict) -> list[Number]:
    return [
        apply("sub", np.int32(n - 1), i) if axis in params["dimensions"] else i
        for axis, (i, n) in enumerate(zip(index, shape, strict=True))
    ]


def _split_parts(x: Stored, *, sizes: Ints, axis: int) -> Operands:
    """The parts of an array; small ones as entries."""
    parts, start = [], 0
    for size in sizes:
        first = [start if i == axis else 0 for i in range(len(x.shape))]
        shape = (*x.shape[:axis], int(size), *x.shape[axis + 1 :])
        out = ShapedArray(shape, x.dtype)
        part = _MOVES["slice"](None, [x], out, {"start_indices": first, "strides": None})
        parts.append(part if part.size > REGISTERS else all_entries(part))
        start += int(size)
    return parts


def _concatenated(
    context: LaneContext, xs: Sequence[Operand], out: ShapedArray, params: dict
) -> LazyArray | None:
    """Concatenates a few arrays: each is read, at a clamped place, and one of them selected."""
    xs = [x for x in xs if x.size]
    readers = [_reader(context, x, x.shape) for x in xs[:_PARTS]]
    if len(xs) > _PARTS or any(reader is None for reader in readers):
        return None
    axis = params["dimension"]
    starts = [int(n) for n in np.cumsum([0, *(x.shape[axis] for x in xs)])]

    def one(k: int, index: list[Number]) -> Number:
        i, most = apply("sub", index[axis], np.int32(starts[k])), xs[k].shape[axis] - 1
        i = apply("min", apply("max", i, np.int32(0)), np.int32(most))
        return readers[k](_flat_place([*index[:axis], i, *index[axis + 1 :]], xs[k].shape))  # pyright: ignore[reportOptionalCall]

    def read(place: Number) -> Number:
        index = coordinates(place, out.shape)
        if is_known_entry(index[axis]):
            return one(int(np.searchsorted(starts, index[axis], "right")) - 1, index)
        found = one(0, index)
        for k in range(1, len(xs)):
            found = select(apply("ge", index[axis], np.int32(starts[k])), one(k, index), found)
        return found

    return LazyArray(read, out.shape, out.dtype, xs)


_MOVES: dict[str, Callable] = {
    "broadcast_in_dim": _index_rule(_from_broadcast),
    "slice": _index_rule(_from_slice),
    "transpose": _index_rule(_from_transpose),
    "rev": _index_rule(_from_rev),
    "concatenate": _concatenated,
}


# --- reductions -----------------------------------------------------------------------------------


def _reduction(
    context: LaneContext, name: str, x: Operand, axes: Ints, out: ShapedArray
) -> np.ndarray | None:
    """Reduces over all axes, or over the first of them, by a loop that carries the results."""
    if not isinstance(x, Stored) or tuple(axes) != tuple(range(len(axes))) or x.size == 0:
        return None
    rows = int(np.prod([x.shape[axis] for axis in axes]))
    size = x.size // rows
    if size > REGISTERS:
        return None
    found = np.empty(size, object)
    for k, entry in enumerate(
        reduce_rows(x, rows, size, lambda a, b: apply(name, a, b), context.lanes)
    ):
        found[k] = entry
    return found.reshape(out.shape)

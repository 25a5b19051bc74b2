"""Rules of operations on shapes, of reductions and of products: they move entries, or combine a few
of them.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax.numpy as jnp
import numpy as np

from .operands import is_known
from .scalar_values import (
    Ints,
    Number,
    apply,
    full_array,
    index_array,
    map_entries,
    objects,
    select,
)

__all__ = ["REDUCTIONS", "SHAPES", "DotNumbers", "Ints", "cast_entries", "products", "summed_in"]

type ArrayRule = Callable[..., list[np.ndarray]]
"""A rule of a primitive that takes arrays of entries."""

type DotNumbers = tuple[tuple[Ints, Ints], tuple[Ints, Ints]]
"""The contracted axes of both factors of a product, and their batch axes."""


def _broadcast(
    x: np.ndarray, *, shape: Ints, broadcast_dimensions: Ints, **_: object
) -> list[np.ndarray]:
    wide = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
        wide[axis] = size
    return [np.broadcast_to(x.reshape(wide), tuple(map(int, shape)))]


def _reshape(
    x: np.ndarray, *, new_sizes: Ints, dimensions: Ints | None, **_: object
) -> list[np.ndarray]:
    return [(x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)]


def _squeeze(x: np.ndarray, *, dimensions: Ints) -> list[np.ndarray]:
    return [x.reshape([n for i, n in enumerate(x.shape) if i not in dimensions])]


def _transpose(x: np.ndarray, *, permutation: Ints) -> list[np.ndarray]:
    return [x.transpose(permutation)]


def _slice(
    x: np.ndarray,
    *,
    start_indices: Ints,
    limit_indices: Ints,
    strides: Ints | None,
) -> list[np.ndarray]:
    strides = strides or (1,) * x.ndim
    limits = zip(start_indices, limit_indices, strides, strict=True)
    return [x[tuple(slice(*limit) for limit in limits)]]


def _pad(x: np.ndarray, fill: np.ndarray, *, padding_config: Sequence[Ints]) -> list[np.ndarray]:
    """Pads below, above and between the entries; negative padding cuts off."""
    for axis, (low, high, between) in enumerate(padding_config):
        moved = np.moveaxis(x, axis, 0)
        inner = len(moved) + max(len(moved) - 1, 0) * between
        rows = [*range(0, inner, between + 1)]
        size = low + inner + high
        out = np.array(objects(full_array((size, *moved.shape[1:]), fill.flat[0])))
        for at, row in zip(rows, objects(moved), strict=True):
            if 0 <= at + low < size:
                out[at + low] = row
        x = np.moveaxis(out, 0, axis)
    return [x]


def _join_rule(join: Callable[..., np.ndarray]) -> ArrayRule:
    """A rule that joins arrays, as arrays of entries if one of them is."""

    def rule(*xs: np.ndarray, **params: int | np.integer) -> list[np.ndarray]:
        return [join(xs if all(map(is_known, xs)) else [objects(x) for x in xs], **params)]

    return rule


def _split(x: np.ndarray, *, sizes: Ints, axis: int) -> list[np.ndarray]:
    return np.split(x, np.cumsum(list(map(int, sizes)))[:-1], axis=axis)


def _unstack(x: np.ndarray, *, axis: int, **_: object) -> list[np.ndarray]:
    return [index_array(x, (*(slice(None),) * axis, i)) for i in range(x.shape[axis])]


def _iota(
    *, dtype: np.dtype, shape: Sequence[int], dimension: int, **_: object
) -> list[np.ndarray]:
    line = np.arange(shape[dimension], dtype=dtype)
    return [np.broadcast_to(line.reshape([-1] + [1] * (len(shape) - dimension - 1)), shape)]


def _iota_2x32(*, shape: Sequence[int]) -> list[np.ndarray]:
    """The high and low 32-bit words of 0, 1, 2 and so on."""
    counts = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
    return [(counts >> np.uint64(32)).astype(np.uint32), counts.astype(np.uint32)]


SHAPES: dict[str, ArrayRule] = {
    **dict.fromkeys(("pcast", "pvary", "reshard", "sharding_constraint"), lambda x, **_: [x]),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _join_rule(lambda xs, dimension: np.concatenate(xs, axis=dimension)),
    "stack": _join_rule(lambda xs, axis: np.stack(xs, axis=axis)),
    "rev": lambda x, dimensions: [np.flip(x, dimensions)],
    "tile": lambda x, reps: [np.tile(x, reps)],
    "expand_dims": lambda x, dimensions: [np.expand_dims(x, dimensions)],
    "split": _split,
    "unstack": _unstack,
    "iota": _iota,
    "iota_2x32_shape": _iota_2x32,
}


# --- reductions -----------------------------------------------------------------------------------


def _reduced_axes_last(x: np.ndarray, axes: Ints) -> np.ndarray:
    """The array with the reduced axes last, as one."""
    kept = [i for i in range(x.ndim) if i not in axes]
    return objects(x).transpose(*kept, *axes).reshape(*(x.shape[i] for i in kept), -1)


def _lines(function: Callable[[list[Number]], Number], x: np.ndarray) -> np.ndarray:
    """The function of each line along the last axis."""
    out = np.empty(x.shape[:-1], object)
    for i in np.ndindex(out.shape):
        out[i] = function(list(x[i]))
    return out


def _reduce_rule(name: str) -> ArrayRule:
    """A rule that reduces from left to right, as the loop of a compiler would."""

    def rule(x: np.ndarray, *, axes: Ints, **_: object) -> list[np.ndarray]:
        combine = lambda line: reduce(lambda a, b: apply(name, a, b), line)  # noqa: E731
        return [_lines(combine, _reduced_axes_last(x, axes))]

    return rule


def _arg_extreme(comparison: str) -> ArrayRule:
    """A rule for the position of the extreme; the first NaN is one, as in NumPy."""

    def rule(x: np.ndarray, *, axes: Ints, index_dtype: np.dtype) -> list[np.ndarray]:
        def place(line: list[Number]) -> Number:
            best, found = line[0], np.dtype(index_dtype).type(0)
            for i, entry in enumerate(line[1:], 1):
                undefined = apply("and", apply("ne", entry, entry), apply("eq", best, best))
                better = apply("or", apply(comparison, entry, best), undefined)
                best = select(better, entry, best)
                found = select(better, np.dtype(index_dtype).type(i), found)
            return found

        return [_lines(place, _reduced_axes_last(x, axes))]

    return rule


def _cumulated(name: str) -> ArrayRule:
    def rule(x: np.ndarray, *, axis: int, reverse: bool) -> list[np.ndarray]:
        moved = objects(np.moveaxis(x, axis, 0)).copy()
        rows = range(len(moved) - 2, -1, -1) if reverse else range(1, len(moved))
        for row in rows:
            before = row + 1 if reverse else row - 1
            for i in np.ndindex(moved.shape[1:]):
                moved[(row, *i)] = apply(name, moved[(before, *i)], moved[(row, *i)])
        return [np.moveaxis(moved, 0, axis)]

    return rule


_multiply = partial(apply, "mul")


def summed_in(dtype: np.dtype) -> np.dtype:
    """The dtype in which products of this dtype are summed: at least single precision."""
    short = jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4
    return jnp.dtype(jnp.float32 if short else dtype)


def cast_entries(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array of another type."""
    return map_entries(lambda entry: entry if entry.dtype == dtype else entry.astype(dtype), x)


def products(
    a: np.ndarray,
    b: np.ndarray,
    numbers: DotNumbers,
    multiply: Callable[..., Number] = _multiply,
) -> np.ndarray:
    """Sums of products, from left to right; batch axes first."""
    (ca, cb), (ba, bb) = numbers
    free_a = [i for i in range(a.ndim) if i not in (*ca, *ba)]
    free_b = [i for i in range(b.ndim) if i not in (*cb, *bb)]
    batch, count = [a.shape[i] for i in ba], int(np.prod([a.shape[i] for i in ca]))
    shape = (*batch, *(a.shape[i] for i in free_a), *(b.shape[i] for i in free_b))
    a = objects(a).transpose(*ba, *free_a, *ca).reshape(int(np.prod(batch)), -1, count)
    b = objects(b).transpose(*bb, *free_b, *cb).reshape(int(np.prod(batch)), -1, count)
    out = np.empty((a.shape[0], a.shape[1], b.shape[1]), object)
    for k, i, j in np.ndindex(out.shape):
        found = [multiply(x, y) for x, y in zip(a[k, i], b[k, j], strict=True)]
        out[k, i, j] = reduce(lambda x, y: apply("add", x, y), found)
    return out.reshape(shape)


def _dot(
    a: np.ndarray,
    b: np.ndarray,
    *,
    dimension_numbers: DotNumbers,
    preferred_element_type: np.dtype | None,
    **_: object,
) -> list[np.ndarray]:
    dtype = preferred_element_type or next(a.flat, np.float32(0)).dtype
    wide = summed_in(dtype)
    found = products(cast_entries(a, wide), cast_entries(b, wide), dimension_numbers)
    return [cast_entries(found, dtype)]


def _sort(*xs: np.ndarray, dimension: int, is_stable: bool, num_keys: int) -> list[np.ndarray]:
    """Sorts by exchanges of neighbours, which is stable; NaN is the largest, and −0 is 0."""
    del is_stable
    moved = [objects(np.moveaxis(x, dimension, 0)).copy() for x in xs]
    length = len(moved[0])
    for turn in range(length):
        for low in range(turn % 2, length - 1, 2):
            for i in np.ndindex(moved[0].shape[1:]):
                here, there = (low, *i), (low + 1, *i)
                later = _later(
                    [x[here] for x in moved[:num_keys]], [x[there] for x in moved[:num_keys]]
                )
                for x in moved:
                    a, b = x[here], x[there]
                    x[here], x[there] = select(later, b, a), select(later, a, b)
    return [np.moveaxis(x, 0, dimension) for x in moved]


def _later(a: Sequence[Number], b: Sequence[Number]) -> Number:
    """True if the keys a belong after the keys b."""
    undefined = apply("and", apply("ne", a[0], a[0]), apply("eq", b[0], b[0]))
    later = apply("or", apply("gt", a[0], b[0]), undefined)
    if len(a) == 1:
        return later
    both = apply("and", apply("ne", a[0], a[0]), apply("ne", b[0], b[0]))
    same = apply("or", apply("eq", a[0], b[0]), both)
    return apply("or", later, apply("and", same, _later(a[1:], b[1:])))


REDUCTIONS: dict[str, ArrayRule] = {
    "reduce_sum": _reduce_rule("add"),
    "reduce_prod": _reduce_rule("mul"),
    "reduce_max": _reduce_rule("max"),
    "reduce_min": _reduce_rule("min"),
    "reduce_and": _reduce_rule("and"),
    "reduce_or": _reduce_rule("or"),
    "reduce_xor": _reduce_rule("xor"),
    "argmax": _arg_extreme("gt"),
    "argmin": _arg_extreme("lt"),
    "cumsum": _cumulated("add"),
    "cumprod": _cumulated("mul"),
    "cummax": _cumulated("max"),
    "cummin": _cumulated("min"),
    "dot_general": _dot,
    "sort": _sort,
}

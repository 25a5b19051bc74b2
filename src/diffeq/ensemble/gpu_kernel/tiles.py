"""Layers too wide for registers: arrays that are spread over the threads of a block.

Of a layer W @ x + b with more than `REGISTERS` outputs and weights that all lanes share, the output
is no array of entries but a `Tile`: its long axis is distributed over the threads, as the lanes
are, and an operation on it is one of the program. Weights stay in memory. A first layer is a sum of
products of a column of weights with an entry, a hidden one a product of matrices, and a last one
sums of products over the long axis, which are entries again.

A tile is a `Stored` array: an operation without a rule here reads it line by line, which is
correct, and expensive. So does a loop with a tile in its carry. No thread has more than `REGISTERS`
lines of a lane, as long as a lane has no more than `MOST_THREADS`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Shaped

from ...autodiff.jax_internals import Equation, output_types
from .context import LaneContext, Rule
from .elementwise import ELEMENTWISE, fits, on_entries
from .indexing import dynamic_slice
from .large_arrays import REGISTERS, LazyArray, Space
from .large_rules import coordinates
from .operands import Operand, Operands, Stored, all_entries, is_known
from .scalar_values import NoKernel, Number, broadcast_entry, map_entries, squeeze_broadcast
from .shapes import REDUCTIONS, SHAPES, cast_entries, products, summed_in

__all__ = ["Tile", "in_tiles"]

type Block = Shaped[Array, "height width"]

MOST_THREADS = 8  # the most threads of a lane


class Tile(Stored):
    """An array with one long axis. `lines` are the array with length one along that axis; each of
    its entries is a block (height, lanes), or (height, 1) if it is common to all lanes. The height
    is a power of two, as Triton needs it, and padding repeats the last line: so it stays through
    every elementwise operation, and makes no further NaN. Sums leave padding out.
    """

    def __init__(self, lines: np.ndarray, axis: int, size: int, space: Space) -> None:
        height = _height(size)
        self.lines = map_entries(lambda line: _tall(line, height), lines)
        shape = (*lines.shape[:axis], size, *lines.shape[axis + 1 :])
        super().__init__(shape, self.lines.flat[0].dtype)
        self.axis, self.length, self.space = axis, size, space
        space.threads = max(space.threads, _threads(size))
        self.varies = any(line.shape[1] > 1 for line in self.lines.flat)

    def read(self, place: Number) -> Array:
        """The entry at a place."""
        index = coordinates(place, self.shape)
        at, index[self.axis] = index[self.axis], np.int32(0)
        if np.ndim(at) > 1:
            raise NoKernel("lines of an array that is spread over threads change their order")
        _spend(self.space, self.length)
        line = dynamic_slice(self.lines, index, (1,) * len(index), self.space).flat[0]
        plain = line.astype(jnp.int32) if line.dtype == jnp.bool_ else line
        here = _line_numbers(_height(self.length)) == at
        return _summed(jnp.where(here, plain, plain.dtype.type(0))).astype(line.dtype)

    def reshaped(self, shape: Sequence[int]) -> Stored:
        """The array with another shape: a tile if its long axis stays; else a lazy array, whose
        lines are read one by one.
        """
        before = int(np.prod(self.shape[: self.axis]))
        for axis, n in enumerate(shape):
            if n == self.length and int(np.prod(shape[:axis])) == before:
                lines = self.lines.reshape((*shape[:axis], 1, *shape[axis + 1 :]))
                return Tile(lines, axis, n, self.space)
        return LazyArray(self.read, shape, self.dtype, [self])


def in_tiles(
    context: LaneContext, name: str, equation: Equation, xs: Sequence[Operand]
) -> Operands | None:
    """The outputs of an equation of tiles, or of one that makes a tile; None where there is no
    tile, or no rule.
    """
    if name == "dot_general":
        return _dot(context, equation, *xs)
    if not any(isinstance(x, Tile) for x in xs):
        return None
    if name in ELEMENTWISE and fits(equation):
        return _elementwise(context, equation, xs)
    rule = _RULES.get(name)
    return None if rule is None else rule(context, equation, *xs)


# --- blocks ---------------------------------------------------------------------------------------


def _height(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _threads(size: int) -> int:
    """The number of threads that share a lane."""
    return min(_height(size) // REGISTERS, MOST_THREADS)


def _spend(space: Space, size: int, blocks: int = 1) -> None:
    """Counts operations on blocks of so many lines: those of a thread."""
    space.spend(blocks * _height(size) // _threads(size))


def _tall(line: Number, height: int) -> Block:
    """A block, from one or from a line that is common to all lines."""
    if isinstance(line, jax.Array) and line.ndim > 1:
        return line
    return broadcast_entry(line, (height, *(np.shape(line) or (1,))))


def _line_numbers(height: int, *, down: bool = True) -> Int[Array, "..."]:
    """0, 1, 2 and so on, in each line one or in each column one."""
    return lax.broadcasted_iota(jnp.int32, (height, 1) if down else (1, height), int(not down))


def _without_padding(block: Block, size: int, *, down: bool = True) -> Block:
    """A block that is zero below the last line, or beyond the last column."""
    height = block.shape[0 if down else 1]
    inside = _line_numbers(height, down=down) < size
    return block if size == height else jnp.where(inside, block, block.dtype.type(0))


def _summed(line: Block) -> Array:
    """The sum of all lines, an entry."""
    return jnp.sum(line, axis=0 if line.shape[1] > 1 else None, dtype=line.dtype)


def _total(line: Block, size: int) -> Array:
    """The sum of all lines of a block with padding, an entry."""
    return _summed(_without_padding(line, size))


def _extreme_of_lines(reduce: Callable[..., Array]) -> Callable[[Block, int], Array]:
    """A function for the largest of all lines, or the least; NaN if one is, unlike Triton's own."""

    def found(line: Block, size: int) -> Array:
        del size  # padding repeats a line, and changes no extreme
        axis = 0 if line.shape[1] > 1 else None
        most = reduce(line, axis=axis)
        if not jnp.issubdtype(line.dtype, jnp.inexact):
            return most
        undefined = jnp.max(jnp.where(jnp.isnan(line), jnp.int32(1), jnp.int32(0)), axis=axis)
        return jnp.where(undefined > 0, line.dtype.type(np.nan), most)

    return found


def _flat_places(shape: Sequence[int], index: Sequence[int], along: dict[int, bool]) -> Number:
    """The places of an index in a flat array; along the axes in `along`, those of the whole axis,
    with the last one repeated as padding.
    """
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    place: Number = np.int32(sum(i * s for i, s in zip(index, strides, strict=True)))
    for axis, down in along.items():
        count = _line_numbers(_height(shape[axis]), down=down)
        place = place + jnp.minimum(count, shape[axis] - 1) * strides[axis]
    return place


def _lines_along(x: Operand, axis: int, space: Space) -> np.ndarray | None:
    """The lines of an array along an axis, of which each thread reads its own; None if they cannot
    be read so.
    """
    if isinstance(x, Tile):
        return x.lines if x.axis == axis else None
    if is_known(x):
        x = space.table(np.ascontiguousarray(x))
    if not isinstance(x, Stored) or not x.anywhere:
        return None
    lines = np.empty((*x.shape[:axis], 1, *x.shape[axis + 1 :]), object)
    for index in np.ndindex(lines.shape):
        lines[index] = x.read(_flat_places(x.shape, index, {axis: True}))
    return lines


# --- elementwise ----------------------------------------------------------------------------------


def _elementwise(
    context: LaneContext, equation: Equation, xs: Sequence[Operand]
) -> Operands | None:
    axis, size = next((x.axis, x.length) for x in xs if isinstance(x, Tile))
    found = [_operand_lines(x, axis, context.space) for x in xs]
    lines = [x for x in found if x is not None]
    if len(lines) < len(found):
        return None
    made = map_entries(on_entries(equation), *np.broadcast_arrays(*lines))
    _spend(context.space, size, made.size)
    return [Tile(made, axis, size, context.space)]


def _operand_lines(x: Operand, axis: int, space: Space) -> np.ndarray | None:
    """The lines of another operand of an elementwise operation on a tile; None if there are
    none.
    """
    if isinstance(x, np.ndarray):
        x = squeeze_broadcast(x)
    if not x.shape or x.shape[axis] == 1:
        return all_entries(x)
    return _lines_along(x, axis, space)


# --- products -------------------------------------------------------------------------------------


def _dot(context: LaneContext, equation: Equation, a: Operand, b: Operand) -> Operands | None:
    """Evaluates a layer as a first, hidden or last one, by the position of its long axes."""
    (ca, cb), (batch, _) = equation.params["dimension_numbers"]
    if batch or (is_known(a) and is_known(b)):
        return None
    free = [(0, i) for i in range(len(a.shape)) if i not in ca]
    free += [(1, i) for i in range(len(b.shape)) if i not in cb]
    shape, space = output_types(equation)[0].shape, context.space
    long = [place for place, n in enumerate(shape) if n > REGISTERS]
    inner = [pair for pair in zip(ca, cb, strict=True) if a.shape[pair[0]] > REGISTERS]
    if len(long) > 1 or len(inner) > 1 or not (long or inner):
        return None
    if not long:
        return _last_layer(equation, a, b, inner[0], space)
    operand, axis = free[long[0]]
    if not inner:
        return _first_layer(equation, (a, b), operand, axis, long[0], space)
    return _hidden_layer(equation, (a, b), operand, axis, inner[0], long[0], space)


def _first_layer(
    equation: Equation,
    operands: tuple[Operand, Operand],
    operand: int,
    axis: int,
    place: int,
    space: Space,
) -> Operands | None:
    """A layer of few inputs and many outputs: sums of columns of the weights times entries."""
    wide, few = operands[operand], operands[1 - operand]
    tall = _lines_along(wide, axis, space)
    if tall is None:
        return None
    few, size = all_entries(few), wide.shape[axis]
    a, b = (few, tall) if operand else (tall, few)
    numbers, dtype = equation.params["dimension_numbers"], output_types(equation)[0].dtype
    lines = products(*_to_sum(dtype, a, b), numbers)
    _spend(space, size, lines.size * int(np.prod([a.shape[i] for i in numbers[0][0]])))
    return [Tile(cast_entries(lines, dtype), place, size, space)]


def _to_sum(dtype: np.dtype, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The arrays in the dtype in which their products are summed."""
    return cast_entries(a, summed_in(dtype)), cast_entries(b, summed_in(dtype))


def _last_layer(
    equation: Equation, a: Operand, b: Operand, axes: tuple[int, int], space: Space
) -> Operands | None:
    """A layer of many inputs and few outputs: each is a sum of products over the lines."""
    if not any(isinstance(x, Tile) or (isinstance(x, Stored) and x.varies) for x in (a, b)):
        return None
    size = a.shape[axes[0]]
    left, right = _lines_along(a, axes[0], space), _lines_along(b, axes[1], space)
    if left is None or right is None:
        return None
    numbers, dtype = equation.params["dimension_numbers"], output_types(equation)[0].dtype
    found = products(*_to_sum(dtype, left, right), numbers)
    _spend(space, size, 2 * found.size)
    return [cast_entries(map_entries(lambda line: _total(line, size), found), dtype)]


def _hidden_layer(
    equation: Equation,
    operands: tuple[Operand, Operand],
    operand: int,
    axis: int,
    inner: tuple[int, int],
    place: int,
    space: Space,
) -> Operands | None:
    """A layer of many inputs and many outputs: a product of matrices for each line of the input."""
    weights, x = operands[operand], operands[1 - operand]
    lines = _lines_along(x, inner[1 - operand], space) if _is_common(weights) else None
    if lines is None:
        return None
    blocks = _blocks(weights, axis, inner[operand], space)
    size, width = weights.shape[axis], weights.shape[inner[operand]]
    lines = map_entries(lambda line: _without_padding(line, width), lines)
    precision, dtype = equation.params["precision"], output_types(equation)[0].dtype
    full = lax.Precision.HIGHEST if precision is None else precision
    wide = summed_in(dtype)
    if blocks.flat[0].dtype != lines.flat[0].dtype or wide != jnp.float32:
        blocks, lines = _to_sum(dtype, blocks, lines)

    def product(*pair: Block) -> Block:
        block, line = pair[operand], pair[1 - operand]
        if line.shape[1] == 1:
            terms = block.astype(wide) * line.astype(wide).reshape(1, -1)
            return jnp.sum(terms, axis=1, keepdims=True)
        return lax.dot(block, line, precision=full, preferred_element_type=wide)

    a, b = (lines, blocks) if operand else (blocks, lines)
    found = products(a, b, equation.params["dimension_numbers"], product)
    # To multiply and to add is one instruction.
    _spend(space, size, width * found.size // 2)
    return [Tile(cast_entries(found, dtype), place, size, space)]


def _blocks(weights: Operand, down: int, across: int, space: Space) -> np.ndarray:
    """Matrices of weights, along two of their axes. Padding of columns is zero, as that of their
    factors: repeated values could be infinite.
    """
    weights = space.table(np.ascontiguousarray(weights)) if is_known(weights) else weights
    assert isinstance(weights, Stored)
    along = {down: True, across: False}
    blocks = np.empty([1 if i in along else n for i, n in enumerate(weights.shape)], object)
    for index in np.ndindex(blocks.shape):
        block = jnp.asarray(weights.read(_flat_places(weights.shape, index, along)))
        blocks[index] = _without_padding(block, weights.shape[across], down=False)
    return blocks


def _is_common(x: Operand) -> bool:
    """True if weights are known or in memory, and shared by all lanes and threads."""
    return is_known(x) or (isinstance(x, Stored) and x.anywhere and not x.varies)


# --- shapes and reductions ------------------------------------------------------------------------


def _to_shape(context: LaneContext, equation: Equation, x: Tile) -> Operands:
    del context
    return [x.reshaped(output_types(equation)[0].shape)]


def _broadcast(context: LaneContext, equation: Equation, x: Tile) -> Operands:
    del context
    params = equation.params
    axis, shape = int(params["broadcast_dimensions"][x.axis]), list(params["shape"])
    shape[axis] = 1
    (lines,) = SHAPES["broadcast_in_dim"](x.lines, **{**params, "shape": shape})
    return [Tile(lines, axis, x.length, x.space)]


def _transpose(context: LaneContext, equation: Equation, x: Tile) -> Operands:
    del context
    order = equation.params["permutation"]
    return [Tile(x.lines.transpose(order), order.index(x.axis), x.length, x.space)]


def _slice(context: LaneContext, equation: Equation, x: Tile) -> Operands | None:
    """A slice along the other axes, or a few lines."""
    params, shape = equation.params, output_types(equation)[0].shape
    if shape[x.axis] == x.length:
        limits = [1 if i == x.axis else n for i, n in enumerate(params["limit_indices"])]
        (lines,) = SHAPES["slice"](x.lines, **{**params, "limit_indices": limits})
        return [Tile(lines, x.axis, x.length, context.space)]
    if int(np.prod(shape)) > REGISTERS:
        return None
    strides = params["strides"] or (1,) * len(shape)
    index = np.indices(shape).reshape(len(shape), -1).T * strides + params["start_indices"]
    places = np.ravel_multi_index(index.T, x.shape)
    out = np.empty(len(places), object)
    for k, place in enumerate(places):
        out[k] = x.read(np.int32(place))
    return [out.reshape(shape)]


def _concatenate(context: LaneContext, equation: Equation, *xs: Operand) -> Operands | None:
    """Concatenates along another axis than the long one."""
    axis = next(x.axis for x in xs if isinstance(x, Tile))
    if equation.params["dimension"] == axis:
        return None
    found = [_lines_along(x, axis, context.space) for x in xs]
    lines = [x for x in found if x is not None]
    if len(lines) < len(found):
        return None
    (joined,) = SHAPES["concatenate"](*lines, **equation.params)
    return [Tile(joined, axis, xs[0].shape[axis], context.space)]


def _tile_reduce_rule(name: str, combine: Callable) -> Callable:
    """A rule that combines blocks over other axes, and the lines of each over the long one."""

    def rule(context: LaneContext, equation: Equation, x: Tile) -> Operands:
        axes = equation.params["axes"]
        (found,) = REDUCTIONS[name](x.lines, axes=axes)
        _spend(context.space, x.length, x.lines.size)
        if x.axis not in axes:
            return [Tile(found, x.axis - sum(a < x.axis for a in axes), x.length, x.space)]
        return [map_entries(lambda line: combine(line, x.length), found)]

    return rule


_RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "expand_dims": _to_shape,
    "reshape": _to_shape,
    "slice": _slice,
    "squeeze": _to_shape,
    "transpose": _transpose,
    "reduce_sum": _tile_reduce_rule("reduce_sum", _total),
    "reduce_max": _tile_reduce_rule("reduce_max", _extreme_of_lines(jnp.max)),
    "reduce_min": _tile_reduce_rule("reduce_min", _extreme_of_lines(jnp.min)),
}

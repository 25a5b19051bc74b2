"""`depends_on`: what each number of an output depends on among those of the inputs, by a jaxpr.

Each array in between carries a sparse matrix of flags, a row for each of its numbers and a column
for each number of the inputs. Equations that move numbers about pick rows, those that take several
numbers to one add them up, and loops are followed turn by turn where they are short, or else until
nothing changes. What is not known here depends on all that goes in. Derivatives count, not values:
whole numbers and truth values, such as a comparison, depend on nothing, and each branch of a choice
counts.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int

from .component_dependence import (
    COMPONENTWISE,
    INDEXED,
    MOVES,
    known_outputs,
    output_value,
    unknown_value,
)
from .jax_internals import (
    CALLS,
    RULED,
    Equation,
    Jaxpr,
    Scan,
    ShapedArray,
    Tracer,
    branches_of,
    called,
    count_equations,
    evaluate_equation,
    input_types,
    interpret,
    name_of,
    output_types,
    parameters,
    scan_of,
    tangents_by_rule,
    while_of,
)

__all__ = ["depends_on"]

_CUMULATIVE = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
_LONGEST = 20_000  # equations of a loop that is followed turn by turn
_TURNS = 50  # of a loop that is followed until nothing changes

type Flags = Any
"""A matrix of SciPy's of truth values, or None: all are False."""


class _Dependent(NamedTuple):
    """An array of a jaxpr: what its numbers depend on, and a function that returns its value, or
    None where that is not known here.
    """

    flags: Flags
    value: Callable[[], Any]


def depends_on(
    jaxpr: Jaxpr, inputs: Sequence[bool]
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """The pairs (number of an output, number of a flagged input) that depend on each other; the
    numbers of several outputs, and of several inputs, are counted through.

    >>> rows, columns = depends_on(jax.make_jaxpr(lambda y: y[::-1] ** 2)(jnp.ones(3)), [True])
    >>> list(zip(rows.tolist(), columns.tolist()))
    [(0, 2), (1, 1), (2, 0)]
    """
    from scipy.sparse import eye_array, vstack

    types = input_types(jaxpr)
    size = sum(a.size for a, on in zip(types, inputs, strict=True) if on)
    unit: Any = eye_array(size, dtype=bool, format="csr")
    first, given = 0, []
    for aval, on in zip(types, inputs, strict=True):
        flags = unit[first : first + aval.size] if on else None
        first += aval.size if on else 0
        given.append(_Dependent(flags, unknown_value))
    reader = _Reader(size)
    every = zip(reader.outputs(jaxpr, given), output_types(jaxpr), strict=True)
    whole: Any = vstack([reader.filled(x.flags, a) for x, a in every], format="coo")
    return whole.row.astype(int), whole.col.astype(int)


class _Reader:
    """Reads jaxprs whose flags have `size` columns."""

    def __init__(self, size: int) -> None:
        self.size = size

    def outputs(self, jaxpr: Jaxpr, given: Sequence[_Dependent]) -> list[_Dependent]:
        """The outputs of a jaxpr."""
        return interpret(jaxpr, list(given), self.equation, _literal)

    def filled(self, flags: Flags, aval: ShapedArray) -> Any:
        """The flags as a matrix, also where there are none."""
        from scipy.sparse import csr_array

        return csr_array((aval.size, self.size), dtype=bool) if flags is None else flags

    def equation(self, equation: Equation, inputs: list[_Dependent]) -> list[_Dependent]:
        """The outputs of an equation."""
        outer = output_types(equation)
        if (inner := self.subprogram(equation, inputs)) is not None:
            return inner
        made = cache(partial(known_outputs, equation, inputs))
        values = [partial(output_value, made, i) for i in range(len(outer))]
        if all(x.flags is None for x in inputs):
            return [_Dependent(None, value) for value in values]
        found = self.of_equation(equation, inputs)
        smooth = [jnp.issubdtype(a.dtype, jnp.inexact) for a in outer]
        return [
            _Dependent(flags if on else None, value)
            for flags, on, value in zip(found, smooth, values, strict=True)
        ]

    def of_equation(self, equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
        """The flags of what an equation makes of arrays."""
        name, (first, *_) = name_of(equation), output_types(equation)
        if name == "stop_gradient":
            return [None]
        if name in COMPONENTWISE:
            return [self.componentwise(equation, inputs, first)]
        if name == "optimization_barrier":
            return [x.flags for x in inputs]
        rule = _RULES.get(name, _reduced if name.startswith("reduce_") else None)
        found = None if rule is None else rule(equation, inputs)
        if found is None and name in MOVES and name != "dot_general":
            found = self.moved(equation, inputs)
        if found is None and name in INDEXED:
            found = self.picked(equation, inputs)
        return self.anything(equation, inputs) if found is None else found

    def anything(self, equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
        """Each output depends on all inputs."""
        whole = self.united([x.flags for x in inputs])
        return [self.repeated(whole, a) for a in output_types(equation)]

    # --- rows of flags ----------------------------------------------------------------------------

    def united(self, parts: Sequence[Flags]) -> Flags:
        """One row: whatever any number of these depends on."""
        return _joined(
            [None if x is None else _grouped_rows(x, np.zeros(x.shape[0], int), 1) for x in parts]
        )

    def repeated(self, row: Flags, aval: ShapedArray) -> Flags:
        """That row for each number of an array."""
        return None if row is None else row[np.zeros(aval.size, int)]

    def spread(self, flags: Flags, aval: ShapedArray, out: ShapedArray) -> Flags:
        """The rows of an array that goes to one of more numbers along axes on which it has one."""
        if flags is None or aval.shape == out.shape:
            return flags
        rows = np.arange(aval.size).reshape(aval.shape)
        return flags[np.broadcast_to(rows, out.shape).ravel()]

    def componentwise(
        self, equation: Equation, inputs: list[_Dependent], out: ShapedArray
    ) -> Flags:
        """Number by number. A factor of zero that is known takes its number away, and of a choice
        that is known the number that is chosen counts.
        """
        each = zip(inputs, input_types(equation), strict=True)
        parts = [self.spread(x.flags, a, out) for x, a in each]
        assert all(part is None or part.shape[0] == out.size for part in parts)
        name, own = name_of(equation), np.arange(out.size)
        if name == "mul":
            for x in inputs:
                if x.flags is None and (factor := x.value()) is not None:
                    own = np.where(_flat(factor, out) == 0, -1, own)
            return _rows_of(_joined(parts), own)
        if name == "select_n" and (which := inputs[0].value()) is not None:
            chosen = _flat(which, out).astype(int)
            cases = enumerate(parts[1:])
            return _joined([_rows_of(x, np.where(chosen == i, own, -1)) for i, x in cases])
        return _joined(parts)

    def moved(self, equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
        """Rows picked as the equation picks numbers: it is applied to the numbers of the rows."""
        types = input_types(equation)
        each = zip(inputs, types, strict=True)
        rows, numbers = self.stacked([self.filled(x.flags, a) for x, a in each]), _numbers(types)
        found = MOVES[name_of(equation)](numbers, parameters(equation))
        return [_rows_of(rows, np.ravel(x)) for x in found]

    def picked(self, equation: Equation, inputs: list[_Dependent]) -> list[Flags] | None:
        """Rows picked by an equation that takes numbers by others that say which: it is evaluated
        on the numbers of the rows. None where the others are not known.
        """
        types, operands = input_types(equation), INDEXED[name_of(equation)]
        numbers = dict(zip(operands, _numbers([types[i] for i in operands]), strict=True))
        xs = [numbers[i] if i in operands else x.value() for i, x in enumerate(inputs)]
        if any(x is None for x in xs) or parameters(equation).get("update_jaxpr") is not None:
            return None
        with jax.ensure_compile_time_eval():
            (found,) = evaluate_equation(equation, xs)
        rows = self.stacked([self.filled(inputs[i].flags, types[i]) for i in operands])
        labels = np.asarray(found).ravel()
        outside = (labels < 0) | (labels >= rows.shape[0])  # of a gather that fills up
        return [_rows_of(rows, np.where(outside, -1, labels))]

    def stacked(self, parts: Sequence[Any]) -> Any:
        """The rows of several arrays, one after the other."""
        from scipy.sparse import vstack

        whole: Any = vstack(parts, format="csr")
        return whole

    # --- equations with jaxprs inside -------------------------------------------------------------

    def subprogram(self, equation: Equation, inputs: list[_Dependent]) -> list[_Dependent] | None:
        """The outputs of a call, a choice or a loop; None of another equation."""
        name = name_of(equation)
        if name == RULED and any(x.flags is not None for x in inputs):
            return self.by_rule(equation, inputs)
        if name in CALLS and len(input_types(called(equation))) == len(inputs):
            return self.outputs(called(equation), inputs)
        if name == "cond":
            found = [self.outputs(branch, inputs[1:]) for branch in branches_of(equation)]
            each = zip(*found, strict=True)
            return [_Dependent(_joined([x.flags for x in xs]), unknown_value) for xs in each]
        if name == "while":
            loop = while_of(equation)
            consts, carry = (
                inputs[loop.of_test :][: loop.of_body],
                inputs[loop.of_test + loop.of_body :],
            )
            turn = lambda state: self.outputs(loop.body, [*consts, *state])  # noqa: E731
            return self.settled(turn, carry, output_types(loop.body))
        return self.scanned(equation, inputs) if name == "scan" else None

    def by_rule(self, equation: Equation, inputs: list[_Dependent]) -> list[_Dependent]:
        """The outputs of a function with a derivative of its own, which a solve goes by: tangents
        of the outputs, by those of the inputs.
        """
        moving = [x.flags is not None for x in inputs]
        rule = tangents_by_rule(equation, moving)
        at = [_Dependent(None, x.value) for x in inputs]
        tangents = [x for x, on in zip(inputs, moving, strict=True) if on]
        found = iter(self.outputs(rule, [*at, *tangents]))
        smooth = [jnp.issubdtype(a.dtype, jnp.inexact) for a in output_types(equation)]
        return [_Dependent(next(found).flags if on else None, unknown_value) for on in smooth]

    def settled(
        self, turn: Callable, carry: Sequence[_Dependent], types: Sequence[ShapedArray]
    ) -> list[_Dependent]:
        """The state of a loop, with all that it may depend on after any number of turns."""
        state = [_Dependent(x.flags, unknown_value) for x in carry]
        for _ in range(_TURNS):
            after = turn(state)
            joined = [_joined([x.flags, y.flags]) for x, y in zip(state, after, strict=True)]
            if all(_count(x.flags) == _count(y) for x, y in zip(state, joined, strict=True)):
                return state
            state = [_Dependent(x, unknown_value) for x in joined]
        # What goes in from outside of the loop is in some part of the state after one more turn.
        whole = self.united([x.flags for x in (*state, *turn(state))])
        return [
            _Dependent(
                self.repeated(whole, a) if jnp.issubdtype(a.dtype, jnp.inexact) else None,
                unknown_value,
            )
            for a in types
        ]

    def scanned(self, equation: Equation, inputs: list[_Dependent]) -> list[_Dependent]:
        """The carry and the rows of a scan."""
        scan = scan_of(equation)
        before = scan.constants + scan.carried
        consts, carry, xs = (
            inputs[: scan.constants],
            inputs[scan.constants : before],
            inputs[before:],
        )

        def turn(carry: Sequence[_Dependent], rows: Sequence[_Dependent]) -> tuple[list, list]:
            found = self.outputs(scan.step, [*consts, *carry, *rows])
            return found[: scan.carried], found[scan.carried :]

        is_long = scan.length * count_equations(scan.step) > _LONGEST
        carry, turns = (self.turns_at_once if is_long else self.turn_by_turn)(scan, turn, carry, xs)
        made = [
            self.rows_of_turns([found[i].flags for found in turns], aval)
            for i, aval in enumerate(output_types(scan.step)[scan.carried :])
        ]
        return [*carry, *(_Dependent(x, unknown_value) for x in made)]

    def turn_by_turn(
        self, scan: Scan, turn: Callable, carry: list[_Dependent], xs: Sequence[_Dependent]
    ) -> tuple[list[_Dependent], list[list[_Dependent]]]:
        """The carry of a scan after its last turn, and the rows of each turn in their order."""
        sizes = [a.size for a in input_types(scan.step)[scan.constants + scan.carried :]]
        numbers, made = range(scan.length), []
        for i in reversed(numbers) if scan.reverse else numbers:
            rows = [_row(x, i, n) for x, n in zip(xs, sizes, strict=True)]
            carry, found = turn(carry, rows)
            made.append(found)
        return carry, made[::-1] if scan.reverse else made

    def turns_at_once(
        self, scan: Scan, turn: Callable, carry: list[_Dependent], xs: Sequence[_Dependent]
    ) -> tuple[list[_Dependent], list[list[_Dependent]]]:
        """The carry and the rows of a scan with all that they may depend on in any of its turns,
        each of which sees what any row depends on.
        """
        types = input_types(scan.step)[scan.constants :]
        each = zip(xs, types[scan.carried :], strict=True)
        rows = [_Dependent(_any_row(x.flags, a.size), unknown_value) for x, a in each]
        carry = self.settled(lambda state: turn(state, rows)[0], carry, types[: scan.carried])
        return carry, [turn(carry, rows)[1]] * scan.length

    def rows_of_turns(self, flags: Sequence[Flags], aval: ShapedArray) -> Flags:
        """One array of the rows that the turns of a scan make, each of the same type."""
        if all(x is None for x in flags):
            return None
        return self.stacked([self.filled(x, aval) for x in flags])


def _row(x: _Dependent, i: int, size: int) -> _Dependent:
    """One row of an array that a scan goes through."""
    flags = None if x.flags is None else x.flags[i * size : (i + 1) * size]

    def value() -> Any:
        whole = x.value()
        return None if whole is None else np.asarray(whole)[i]

    return _Dependent(flags, value)


def _any_row(flags: Flags, size: int) -> Flags:
    """The flags of any of the rows of an array, of `size` numbers each, as those of one row."""
    if flags is None or not size:
        return flags
    return _grouped_rows(flags, np.arange(flags.shape[0]) % size, size)


def _literal(x: Any, aval: ShapedArray) -> _Dependent:
    del aval
    return _Dependent(None, lambda: None if isinstance(x, Tracer) else x)


def _numbers(types: Sequence[ShapedArray]) -> list[Int[np.ndarray, "..."]]:
    """The numbers of several arrays, counted through."""
    cuts = np.cumsum([0, *(a.size for a in types)])
    each = zip(cuts[:-1], types, strict=True)
    return [np.arange(a, a + t.size, dtype=np.int32).reshape(t.shape) for a, t in each]


def _flat(x: Any, aval: ShapedArray) -> np.ndarray:
    """The numbers of an array that is known, one for each of those it goes to."""
    return np.broadcast_to(np.asarray(x), aval.shape).ravel()


# --- matrices of flags ----------------------------------------------------------------------------


def _count(flags: Flags) -> int:
    return 0 if flags is None else flags.nnz


def _joined(parts: Sequence[Flags]) -> Flags:
    """Flags that are true in any of several."""
    found = None
    for part in parts:
        if part is not None:
            found = part if found is None else (found + part).tocsr()
    return found


def _rows_of(flags: Flags, rows: Int[np.ndarray, " m"]) -> Flags:
    """The rows of these numbers; −1 is one in which nothing is true."""
    if flags is None:
        return None
    from scipy.sparse import csr_array, vstack

    if (rows >= 0).all():
        return flags[rows]
    blank = csr_array((1, flags.shape[1]), dtype=bool)
    extended: Any = vstack([flags, blank], format="csr")
    return extended[np.where(rows < 0, flags.shape[0], rows)]


def _grouped_rows(flags: Any, groups: Int[np.ndarray, " n"], count: int) -> Any:
    """Rows that are taken together: a row goes to the group of its number."""
    from scipy.sparse import csr_array

    ones = np.ones(len(groups), bool)
    to: Any = csr_array((ones, (groups, np.arange(len(groups)))), (count, len(groups)))
    return (to @ flags).tocsr()


# --- rules ----------------------------------------------------------------------------------------


def _reduced(equation: Equation, inputs: list[_Dependent]) -> list[Flags] | None:
    """Numbers that are summed over meet, or is compared."""
    params, (aval, *others) = parameters(equation), input_types(equation)
    if "axes" not in params or others or inputs[0].flags is None:
        return None
    (out,) = output_types(equation)
    kept = [1 if i in params["axes"] else n for i, n in enumerate(aval.shape)]
    groups = np.broadcast_to(np.arange(out.size).reshape(kept), aval.shape)
    return [_grouped_rows(inputs[0].flags, groups.ravel(), out.size)]


def _cumulative(equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
    """Each number sees those before it along an axis."""
    from scipy.sparse import coo_array, eye_array, kron

    params, (aval,) = parameters(equation), input_types(equation)
    axis = params["axis"]
    n = aval.shape[axis]
    before = math.prod(aval.shape[:axis])
    behind = math.prod(aval.shape[axis + 1 :])
    triangle = (
        np.triu(np.ones((n, n), bool)) if params["reverse"] else np.tril(np.ones((n, n), bool))
    )
    along: Any = kron(kron(eye_array(before), coo_array(triangle)), eye_array(behind))
    return [(along.tocsr().astype(bool) @ inputs[0].flags).tocsr()]


def _sorted(equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
    """Each number may come from any place along the axis."""
    (aval, *_), axis = input_types(equation), parameters(equation)["dimension"]
    shape = [1 if i == axis else n for i, n in enumerate(aval.shape)]
    count = math.prod(shape)
    groups = np.broadcast_to(np.arange(count).reshape(shape), aval.shape).ravel()
    return [
        None if x.flags is None else _grouped_rows(x.flags, groups, count)[groups] for x in inputs
    ]


def _contracted_rows(equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
    """Numbers that are summed over meet, but for zeros of a factor that is known."""
    summed, batch = parameters(equation)["dimension_numbers"]
    (out,), parts = output_types(equation), []
    each = zip(input_types(equation), batch, summed, strict=True)
    numbers = [_in_lanes(a, along, axes) for a, along, axes in each]
    (lanes, left, _), (_, right, _) = (x.shape for x in numbers)
    place = np.arange(out.size).reshape(lanes, left, right)
    # Of either factor: its numbers, those of the other, and places over (lane, own, other's free).
    sides = [(0, 1, place), (1, 0, np.swapaxes(place, 1, 2))]
    for own, other, places in sides:
        if inputs[own].flags is None:
            continue
        seen = np.ones(numbers[other].shape, bool)
        if inputs[other].flags is None and (known := inputs[other].value()) is not None:
            seen = (np.asarray(known) != 0).ravel()[numbers[other]]
        lane, free, along = (x[:, None] for x in np.nonzero(seen))
        each_own = np.arange(numbers[own].shape[1])
        rows, columns = places[lane, each_own, free], numbers[own][lane, each_own, along]
        parts.append(_routed_rows(inputs[own].flags, rows.ravel(), columns.ravel(), out.size))
    return [_joined(parts)]


def _in_lanes(
    aval: ShapedArray, lanes: Sequence[int], summed: Sequence[int]
) -> Int[np.ndarray, "lanes free summed"]:
    """The numbers of a factor by its lane, its free place and its place in the sum."""
    free = [i for i in range(len(aval.shape)) if i not in (*lanes, *summed)]
    axes = (tuple(lanes), tuple(free), tuple(summed))
    sizes = [math.prod(aval.shape[i] for i in part) for part in axes]
    numbers = np.arange(aval.size).reshape(aval.shape)
    return np.transpose(numbers, sum(axes, ())).reshape(sizes)


def _routed_rows(flags: Any, rows: np.ndarray, columns: np.ndarray, count: int) -> Any:
    """Rows of which each is taken together of several."""
    from scipy.sparse import csr_array

    ones = np.ones(len(rows), bool)
    to: Any = csr_array((ones, (rows, columns)), (count, flags.shape[0]))
    return (to @ flags).tocsr()


def _scatter_added(equation: Equation, inputs: list[_Dependent]) -> list[Flags] | None:
    """Each update that is scattered adds to the number that a gather in its place would take."""
    operand, index, update = inputs
    if (places := index.value()) is None:
        return None
    if update.flags is None:
        return [operand.flags]
    base, _, aval = input_types(equation)
    params = parameters(equation)
    numbers = params["dimension_numbers"]
    single = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = iter([aval.shape[i] for i in numbers.update_window_dims])
    with jax.ensure_compile_time_eval():
        found = lax.gather(
            jnp.arange(base.size, dtype=np.int32).reshape(base.shape),
            jnp.asarray(places),
            lax.GatherDimensionNumbers(
                offset_dims=numbers.update_window_dims,
                collapsed_slice_dims=numbers.inserted_window_dims,
                start_index_map=numbers.scatter_dims_to_operand_dims,
                operand_batching_dims=numbers.operand_batching_dims,
                start_indices_batching_dims=numbers.scatter_indices_batching_dims,
            ),
            slice_sizes=[1 if i in single else next(window) for i in range(len(base.shape))],
            mode=params["mode"],
            fill_value=-1,
        )
    target = np.asarray(found).ravel()
    known = np.flatnonzero(target >= 0)
    moved = _routed_rows(update.flags, target[known], known, base.size)
    return [_joined([operand.flags, moved])]


def _convolved(equation: Equation, inputs: list[_Dependent]) -> list[Flags] | None:
    """A place of the output sees a window of the input, but for zeros of a kernel that is known."""
    params, (aval, kernel) = parameters(equation), input_types(equation)
    (out,), (signal, weights) = output_types(equation), inputs
    if params["batch_group_count"] != 1 or signal.flags is None or weights.flags is not None:
        return None
    numbers = params["dimension_numbers"]
    source, target = _by_role(aval, numbers.lhs_spec), _by_role(out, numbers.out_spec)
    known = weights.value()
    used = np.ones(kernel.shape, bool) if known is None else np.asarray(known) != 0
    used = _by_place(np.transpose(used, numbers.rhs_spec))
    channel, feature, offset = np.nonzero(used)
    group = channel // (target.shape[1] // params["feature_group_count"])
    feature = feature + group * kernel.shape[numbers.rhs_spec[1]]
    each = zip((aval, kernel, out), numbers, strict=True)
    sizes = [[a.shape[i] for i in spec[2:]] for a, spec in each]
    seen = _seen_in_windows(params, *sizes)[:, offset].T
    rows, columns = target[:, channel], source[:, feature[:, None], seen]  # batch, term, place
    inside = np.broadcast_to(seen >= 0, rows.shape)
    return [_routed_rows(signal.flags, rows[inside], columns[inside], out.size)]


def _by_role(aval: ShapedArray, spec: Sequence[int]) -> Int[np.ndarray, "batch feature place"]:
    """The numbers of an array that is convolved, or of what comes of it."""
    return _by_place(np.transpose(np.arange(aval.size).reshape(aval.shape), spec))


def _by_place(x: np.ndarray) -> np.ndarray:
    """An array with one axis for all places, after those of the first two roles."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _seen_in_windows(
    params: dict, source: Sequence[int], window: Sequence[int], target: Sequence[int]
) -> Int[np.ndarray, "places offsets"]:
    """The place of the input that each place of the output sees at each offset of its window, of
    these sizes along the axes; −1 where that is outside, or between the places of a dilated input.
    """
    found = np.zeros((1, 1), int)
    names = "window_strides", "padding", "lhs_dilation", "rhs_dilation"
    each = zip(source, window, target, *(params[name] for name in names), strict=True)
    for size, offsets, places, stride, (before, _), spread, step in each:
        wide = np.add.outer(np.arange(places) * stride, np.arange(offsets) * step) - before
        inside = (wide >= 0) & (wide % spread == 0) & (wide // spread < size)
        along = np.where(inside, wide // spread, -1)[None, :, None, :]
        so_far = found[:, None, :, None]
        both = np.where((so_far < 0) | (along < 0), -1, so_far * size + along)
        found = both.reshape(len(found) * places, found.shape[1] * offsets)
    return found


_RULES: dict[str, Callable] = {
    **dict.fromkeys(_CUMULATIVE, _cumulative),
    "sort": _sorted,
    "dot_general": _contracted_rows,
    **dict.fromkeys(("scatter-add", "scatter_add", "scatter-sub", "scatter_sub"), _scatter_added),
    "conv_general_dilated": _convolved,
}

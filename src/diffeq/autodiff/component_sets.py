"""`depends_on`: what each number of an output depends on among those of the inputs, by a jaxpr.

Each array in between carries a sparse matrix of flags, a row for each of its numbers and a column
for each number of the inputs. Equations that move numbers about pick rows, those that take several
numbers to one add them up, and loops are followed turn by turn where they are short, or else until
nothing changes. What is not known here depends on all that goes in. Derivatives count, not values:
whole numbers and truth values, such as a comparison, depend on nothing, and each branch of a choice
counts.
"""

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
    Equation,
    Jaxpr,
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
        if name in COMPONENTWISE:
            return [self.componentwise(equation, inputs, first)]
        if name == "optimization_barrier":
            return [x.flags for x in inputs]
        if name == "dynamic_update_slice":
            return self.written(equation, inputs) or self.anything(equation, inputs)
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

    def componentwise(
        self, equation: Equation, inputs: list[_Dependent], out: ShapedArray
    ) -> Flags:
        """Number by number; a scalar goes to all of them. A factor of zero that is known takes its
        number away.
        """
        parts = [
            self.repeated(x.flags, out) if a.size == 1 and x.flags is not None else x.flags
            for x, a in zip(inputs, input_types(equation), strict=True)
        ]
        found = _joined(parts)
        for x, part in zip(inputs, parts, strict=True):
            if name_of(equation) == "mul" and part is None and (c := x.value()) is not None:
                kept = np.broadcast_to(np.asarray(c) != 0, out.shape).ravel()
                found = _rows_of(found, np.where(kept, np.arange(out.size), -1))
        return found

    def moved(self, equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
        """Rows picked as the equation picks numbers: it is applied to the numbers of the rows."""
        types = input_types(equation)
        each = zip(inputs, types, strict=True)
        rows, numbers = self.stacked([self.filled(x.flags, a) for x, a in each]), _numbers(types)
        found = MOVES[name_of(equation)](numbers, parameters(equation))
        return [_rows_of(rows, np.ravel(x)) for x in found]

    def picked(self, equation: Equation, inputs: list[_Dependent]) -> list[Flags] | None:
        """Rows picked by an equation that takes numbers by others that say which; None where those
        are not known.
        """
        types, operands = input_types(equation), INDEXED[name_of(equation)]
        xs = [x.value() for x in inputs]
        if any(xs[i] is None for i in range(len(xs)) if i not in operands):
            return None
        if parameters(equation).get("update_jaxpr") is not None:
            return None
        numbers = _numbers([types[i] for i in operands])
        for i, labels in zip(operands, numbers, strict=True):
            xs[i] = labels
        rows = self.stacked([self.filled(inputs[i].flags, types[i]) for i in operands])
        with jax.ensure_compile_time_eval():
            (found,) = evaluate_equation(equation, xs)
        labels = np.asarray(found)
        if "dtype" in parameters(equation) or name_of(equation) == "gather":
            labels = np.where((labels < 0) | (labels >= rows.shape[0]), -1, labels)
        return [_rows_of(rows, labels.ravel())]

    def written(self, equation: Equation, inputs: list[_Dependent]) -> list[Flags] | None:
        """A slice that is written over another array, where its place is known."""
        first = [x.value() for x in inputs[2:]]
        if any(x is None for x in first):
            return None
        types = input_types(equation)[:2]
        with jax.ensure_compile_time_eval():
            (found,) = evaluate_equation(equation, [*_numbers(types), *first])
        each = zip(inputs[:2], types, strict=True)
        rows = self.stacked([self.filled(x.flags, a) for x, a in each])
        return [_rows_of(rows, np.asarray(found).ravel())]

    def stacked(self, parts: Sequence[Any]) -> Any:
        """The rows of several arrays, one after the other."""
        from scipy.sparse import vstack

        whole: Any = vstack(parts, format="csr")
        return whole

    # --- equations with jaxprs inside -------------------------------------------------------------

    def subprogram(self, equation: Equation, inputs: list[_Dependent]) -> list[_Dependent] | None:
        """The outputs of a call, a choice or a loop; None of another equation."""
        name = name_of(equation)
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
            return self.settled(lambda state: self.outputs(loop.body, [*consts, *state]), carry)
        return self.scanned(equation, inputs) if name == "scan" else None

    def settled(self, turn: Callable, carry: Sequence[_Dependent]) -> list[_Dependent]:
        """The state of a loop, with all that it may depend on after any number of turns."""
        state = [_Dependent(x.flags, unknown_value) for x in carry]
        for _ in range(_TURNS):
            after = turn(state)
            joined = [_joined([x.flags, y.flags]) for x, y in zip(state, after, strict=True)]
            if all(_count(x.flags) == _count(y) for x, y in zip(state, joined, strict=True)):
                return state
            state = [_Dependent(x, unknown_value) for x in joined]
        whole = self.united([x.flags for x in turn(state)])
        full = [None if x.flags is None else x.flags.shape[0] for x in state]
        rows = [None if n is None or whole is None else whole[np.zeros(n, int)] for n in full]
        return [_Dependent(x, unknown_value) for x in rows]

    def scanned(self, equation: Equation, inputs: list[_Dependent]) -> list[_Dependent]:
        """The carry and the rows of a scan."""
        scan, types = scan_of(equation), input_types(equation)
        before = scan.constants + scan.carried
        consts, carry, xs = (
            inputs[: scan.constants],
            inputs[scan.constants : before],
            inputs[before:],
        )
        sizes = [a.size // max(1, scan.length) for a in types[before:]]
        made: list[list[Flags]] = [[] for _ in output_types(equation)[scan.carried :]]
        step = output_types(scan.step)[scan.carried :]
        if scan.length * count_equations(scan.step) > _LONGEST:
            rows = [
                _Dependent(
                    None
                    if x.flags is None
                    else _grouped_rows(x.flags, np.arange(x.flags.shape[0]) % n, n),
                    unknown_value,
                )
                for x, n in zip(xs, sizes, strict=True)
            ]
            turn = lambda state: self.outputs(scan.step, [*consts, *state, *rows])[: scan.carried]  # noqa: E731
            carry = self.settled(turn, carry)
            out = self.outputs(scan.step, [*consts, *carry, *rows])[scan.carried :]
            made = [[x.flags] * scan.length for x in out]
        else:
            turns = range(scan.length)
            for i in reversed(turns) if scan.reverse else turns:
                rows = [_row(x, i, n) for x, n in zip(xs, sizes, strict=True)]
                found = self.outputs(scan.step, [*consts, *carry, *rows])
                carry = found[: scan.carried]
                for column, x in zip(made, found[scan.carried :], strict=True):
                    column.append(x.flags)
            made = [column[::-1] if scan.reverse else column for column in made]
        whole = [
            None if all(x is None for x in column)
            else self.stacked([self.filled(x, a) for x in column])
            for column, a in zip(made, step, strict=True)
        ]  # fmt: skip
        return [*carry, *(_Dependent(x, unknown_value) for x in whole)]


def _row(x: _Dependent, i: int, size: int) -> _Dependent:
    """One row of an array that a scan goes through."""
    flags = None if x.flags is None else x.flags[i * size : (i + 1) * size]

    def value() -> Any:
        whole = x.value()
        return None if whole is None else np.asarray(whole)[i]

    return _Dependent(flags, value)


def _literal(x: Any, aval: ShapedArray) -> _Dependent:
    del aval
    return _Dependent(None, lambda: None if isinstance(x, Tracer) else x)


def _numbers(types: Sequence[ShapedArray]) -> list[Int[np.ndarray, "..."]]:
    """The numbers of several arrays, counted through."""
    cuts = np.cumsum([0, *(a.size for a in types)])
    each = zip(cuts[:-1], types, strict=True)
    return [np.arange(a, a + t.size, dtype=np.int32).reshape(t.shape) for a, t in each]


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
    before = int(np.prod(aval.shape[:axis], dtype=int))
    behind = int(np.prod(aval.shape[axis + 1 :], dtype=int))
    triangle = (
        np.triu(np.ones((n, n), bool)) if params["reverse"] else np.tril(np.ones((n, n), bool))
    )
    along: Any = kron(kron(eye_array(before), coo_array(triangle)), eye_array(behind))
    return [(along.tocsr().astype(bool) @ inputs[0].flags).tocsr()]


def _sorted(equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
    """Each number may come from any place along the axis."""
    (aval, *_), axis = input_types(equation), parameters(equation)["dimension"]
    shape = [1 if i == axis else n for i, n in enumerate(aval.shape)]
    count = int(np.prod(shape, dtype=int))
    groups = np.broadcast_to(np.arange(count).reshape(shape), aval.shape).ravel()
    return [
        None if x.flags is None else _grouped_rows(x.flags, groups, count)[groups] for x in inputs
    ]


def _contracted_rows(equation: Equation, inputs: list[_Dependent]) -> list[Flags]:
    """Numbers that are summed over meet, but for zeros of a factor that is known."""
    summed, batch = parameters(equation)["dimension_numbers"]
    (out,), parts = output_types(equation), []
    shapes, orders = [], []
    for a, axes, along in zip(input_types(equation), summed, batch, strict=True):
        rest = [i for i in range(len(a.shape)) if i not in (*axes, *along)]
        sizes = [
            int(np.prod([a.shape[i] for i in part], dtype=int)) for part in (along, rest, axes)
        ]
        shapes.append(sizes)
        number = np.arange(a.size).reshape(a.shape)
        orders.append(np.transpose(number, (*along, *rest, *axes)).reshape(sizes))
    (lanes, left, _), (_, right, _) = shapes
    place = np.arange(out.size).reshape(lanes, left, right)
    for i in (0, 1):
        one, other = inputs[i], inputs[1 - i]
        if one.flags is None:
            continue
        seen = np.ones(orders[1 - i].shape, bool)
        if other.flags is None and (known := other.value()) is not None:
            seen = (np.asarray(known) != 0).ravel()[orders[1 - i]]
        b, f, k = np.argwhere(seen).T  # of the other factor: lane, free place, place in the sum
        g = np.arange(shapes[i][1])
        rows = place[b[:, None], g, f[:, None]] if i == 0 else place[b[:, None], f[:, None], g]
        columns = orders[i][b[:, None], g, k[:, None]]
        parts.append(_routed_rows(one.flags, rows.ravel(), columns.ravel(), out.size))
    return [_joined(parts)]


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
    base, _, aval = input_types(equation)
    with jax.ensure_compile_time_eval():
        zeros, labels = jnp.zeros(base.shape, base.dtype), 1 + np.arange(base.size)
        scatter = lambda x: evaluate_equation(equation, [zeros, places, x])[0]  # noqa: E731
        _, pull = jax.vjp(scatter, jnp.zeros(aval.shape, aval.dtype))
        (found,) = pull(jnp.asarray(labels.reshape(base.shape), base.dtype))
    target = np.rint(np.asarray(found)).astype(int).ravel() - 1
    if update.flags is None:
        return [operand.flags]
    known = np.flatnonzero(target >= 0)
    moved = _routed_rows(update.flags, target[known], known, base.size)
    return [_joined([operand.flags, moved])]


def _convolved(equation: Equation, inputs: list[_Dependent]) -> list[Flags] | None:
    """A place of the output sees a window of the input, but for zeros of a kernel that is known."""
    params, (aval, kernel) = parameters(equation), input_types(equation)
    (out,) = output_types(equation)
    plain = params["batch_group_count"] == params["feature_group_count"] == 1
    if not plain or inputs[0].flags is None or inputs[1].flags is not None:
        return None
    numbers = params["dimension_numbers"]
    batch, feature = numbers.lhs_spec[:2]
    window = [kernel.shape[i] for i in numbers.rhs_spec[2:]]
    order = (batch, feature, *numbers.lhs_spec[2:])
    labels = np.transpose(1 + np.arange(aval.size).reshape(aval.shape), order)
    with jax.ensure_compile_time_eval():
        seen = lax.conv_general_dilated_patches(
            jnp.asarray(labels, float), window, params["window_strides"], params["padding"],
            params["lhs_dilation"], params["rhs_dilation"], precision=lax.Precision.HIGHEST,
        )  # fmt: skip
    seen = np.rint(np.asarray(seen)).astype(int) - 1  # batch, channels × window, places
    known = inputs[1].value()
    channels, count = kernel.shape[numbers.rhs_spec[0]], int(np.prod(window, dtype=int))
    used = np.ones((channels, seen.shape[1]), bool)
    if known is not None:
        ordered = np.transpose(np.asarray(known) != 0, numbers.rhs_spec)
        used = ordered.reshape(channels, -1, count).reshape(channels, -1)
    batch, feature = numbers.out_spec[:2]
    place = np.transpose(
        np.arange(out.size).reshape(out.shape), (batch, feature, *numbers.out_spec[2:])
    )
    c, w = np.nonzero(used)
    rows = place.reshape(place.shape[0], channels, -1)[:, c]
    columns = seen.reshape(seen.shape[0], seen.shape[1], -1)[:, w]
    inside = columns >= 0
    return [_routed_rows(inputs[0].flags, rows[inside], columns[inside], out.size)]


_RULES: dict[str, Callable] = {
    **dict.fromkeys(_CUMULATIVE, _cumulative),
    "sort": _sorted,
    "dot_general": _contracted_rows,
    "scatter-add": _scatter_added,
    "scatter_add": _scatter_added,
    "conv_general_dilated": _convolved,
}

"""Rules of control flow: branches, loops that end when no lane is active, scans, walks.

Lanes go through a loop together until each is done; one that is done keeps its values. A value that
does not depend on the lane stays common to all of them (a clock of given steps): it is carried
once, needs no mask, and a loop whose condition is common tests no lane. Iterations that are known
while tracing are unrolled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from ...autodiff.jax_internals import (
    Jaxpr,
    ShapedArray,
    count_equations,
    dependents,
    output_types,
    scan_counts,
)
from ...autodiff.while_loop import lane_dependence
from ...core.split import split_by_sizes
from .context import LaneContext, Rule
from .indexing import clamped_row, write_row
from .large_arrays import (
    REGISTERS,
    Space,
    View,
    WritableArray,
    read_only,
    refill_buffer,
    to_memory,
)
from .operands import Operand, Operands, all_entries, entry_of, has_lanes, is_known
from .scalar_values import (
    Entry,
    KeyWords,
    NoKernel,
    Number,
    apply,
    full_array,
    is_known_entry,
    map_entries,
    objects,
    select_entry,
)

__all__ = ["LOOPS"]

_WRITTEN_OUT = 4  # the most iterations, known while tracing, that are unrolled
_UNROLLED = 400  # the most equations of a scan that is unrolled, over all of its iterations


# --- the carry of a loop --------------------------------------------------------------------------


@dataclass(frozen=True)
class _LoopCarry:
    """Converts arrays to the carry of `lax.while_loop`, a flat list of their numbers, and back."""

    avals: Sequence[ShapedArray]
    varies: Sequence[bool]
    lanes: int

    def flat(self, arrays: Sequence[Operand]) -> list[Array]:
        """The numbers of arrays."""
        out = []
        for x, aval, varies in zip(arrays, self.avals, self.varies, strict=True):
            if isinstance(x, WritableArray):
                out += x.carried()
                continue
            for entry in objects(all_entries(x)).flat:
                words = entry if isinstance(entry, KeyWords) else (entry,)
                dtype = jnp.uint32 if isinstance(entry, KeyWords) else aval.dtype
                out += [self._number(w, dtype, varies) for w in words]
        return out

    def _number(self, entry: Number, dtype: DTypeLike, varies: bool) -> Array:
        shape = (self.lanes,) if varies else ()
        if isinstance(entry, np.generic):
            return jnp.full(shape, np.asarray(entry), dtype)
        assert varies or not entry.ndim, "what no lane influences differs from lane to lane"
        return entry if entry.shape == shape else jnp.broadcast_to(entry, shape)

    def arrays(self, numbers: Sequence[Array], like: Sequence[Operand]) -> Operands:
        """The arrays of these numbers."""
        found, out = iter(numbers), []
        for x, aval in zip(like, self.avals, strict=True):
            if isinstance(x, WritableArray):
                out.append(x.after([next(found) for _ in range(x.width)]))
                continue
            y = np.empty(aval.shape, object)
            for i in np.ndindex(y.shape):
                y[i] = self._entry(found, x, i)
            out.append(y)
        return out

    @staticmethod
    def _entry(found: Iterator[Array], like: Operand, i: tuple[int, ...]) -> Entry:
        example = objects(like)[i] if isinstance(like, np.ndarray) else None
        if isinstance(example, KeyWords):
            return KeyWords(next(found) for _ in example)
        return next(found)


type Test = Callable[[LaneContext, Operands, Operands], Number]
type Turn = Callable[[LaneContext, Number, Operands, Operands], tuple[Operands, Operands]]
type Varies = Callable[[list[bool]], tuple[bool, list[bool]]]


def looped(
    context: LaneContext,
    test: Test,
    turn: Turn,
    state: Operands,
    buffers: Operands,
    varies: Varies,
    avals: Sequence[ShapedArray],
) -> Operands:
    """Repeats `state, buffers = turn(context, active, state, buffers)` while `test(context, state,
    buffers)`.

    `varies(flags) -> (flag, flags)` takes flags of the arrays of state and buffers that differ from
    lane to lane at the start, and returns those of the test and of these arrays in the loop.
    """
    for _ in range(_WRITTEN_OUT):
        on = test(context, state, buffers)
        if not is_known_entry(on):
            break
        if not on:
            return [*state, *buffers]
        state, buffers = turn(context, np.bool_(True), state, buffers)
    count, arrays = len(state), [*state, *buffers]
    test_varies, flags = varies([has_lanes(x) for x in arrays])
    carry = _LoopCarry(avals, flags, context.lanes)

    def active(arrays: Operands) -> Number:
        on = test(context, *split_by_sizes(arrays, (count, len(buffers))))
        return apply("and", on, context.on) if np.ndim(on) else on

    def goes_on(numbers: list[Array]) -> Bool[Array, ""]:
        on = jnp.asarray(active(carry.arrays(numbers, arrays)))
        return context.any(on) if on.ndim else on

    def body(numbers: list[Array]) -> list[Array]:
        old = carry.arrays(numbers, arrays)
        on = active(old)
        inner = context.only(on) if np.ndim(on) else context
        new, written = turn(inner, on, *split_by_sizes(old, (count, len(buffers))))
        if not test_varies:
            on = np.bool_(True)
        found = zip([*new, *written], old, strict=True)
        return carry.flat([_kept_where(on, a, b, inner.space) for a, b in found])

    end = lax.while_loop(goes_on, body, carry.flat(arrays))
    return carry.arrays(end, arrays)


def _kept_where(on: Number, new: Operand, old: Operand, space: Space) -> Operand:
    """The new array in active lanes, the old one in lanes that are done."""
    if new is old:
        return new
    if isinstance(old, WritableArray):
        return refill_buffer(old, new, on, space)
    return map_entries(partial(select_entry, on), all_entries(new), all_entries(old))


def _loop_buffer(x: Operand, context: LaneContext, aval: ShapedArray) -> Operand:
    """A buffer: in memory, if it is large."""
    return x if x.size <= REGISTERS else to_memory(x, context.space, aval.dtype)


def _read_only_operand(x: Operand, context: LaneContext) -> Operand:
    """A large array that a loop only reads: in memory, unless it is known, so that registers are
    left for the carry of the loop.
    """
    if not isinstance(x, np.ndarray) or is_known(x) or x.size <= REGISTERS:
        return x
    entry = x.flat[0]
    return x if isinstance(entry, KeyWords) else to_memory(x, context.space, entry.dtype)


def _propagate_flags(grown: Callable[[list[bool]], list[bool]], flags: list[bool]) -> list[bool]:
    """The fixed point of `grown`, iterated from these flags."""
    while (after := grown(flags)) != flags:
        flags = after
    return flags


# --- loops ----------------------------------------------------------------------------------------


def _while(
    context: LaneContext,
    *xs: Operand,
    cond_jaxpr: Jaxpr,
    body_jaxpr: Jaxpr,
    cond_nconsts: int,
    body_nconsts: int,
) -> Operands:
    """JAX's own loop: all of its carry is masked."""
    consts = cond_nconsts + body_nconsts
    xs = (*map(read_only, xs[:consts]), *xs[consts:])
    of_test, of_body, carry = xs[:cond_nconsts], xs[cond_nconsts:consts], xs[consts:]
    own = [has_lanes(x) for x in of_test], [has_lanes(x) for x in of_body]
    carry = [all_entries(x) for x in carry]

    def test(inner: LaneContext, state: Operands, _: Operands) -> Number:
        return entry_of(inner.run(cond_jaxpr, [*of_test, *state])[0])

    def turn(
        inner: LaneContext, _: Number, state: Operands, __: Operands
    ) -> tuple[Operands, Operands]:
        return [all_entries(x) for x in inner.run(body_jaxpr, [*of_body, *state])], []

    def varies(flags: list[bool]) -> tuple[bool, list[bool]]:
        tested = lambda flags: dependents(cond_jaxpr, [*own[0], *flags])[0]  # noqa: E731

        def grown(flags: list[bool]) -> list[bool]:
            on, out = tested(flags), dependents(body_jaxpr, [*own[1], *flags])
            return [f or o or on for f, o in zip(flags, out, strict=True)]

        flags = _propagate_flags(grown, flags)
        return tested(flags), flags

    return looped(context, test, turn, carry, [], varies, output_types(body_jaxpr))


def _loop(
    context: LaneContext, *xs: Operand, condition: Jaxpr, body: Jaxpr, sizes: Sequence[int]
) -> Operands | None:
    """The loop of `autodiff/while_loop.py`. The buffers of a lane that is done are kept, too: under
    `vmap` the body goes on to write them, at rows that do not count. A loop with lanes of its own,
    of a `vmap` inside of the solve, has no rule, and is replaced by its implementation.
    """
    if output_types(condition)[0].ndim:
        return None
    consts, state, buffers = split_by_sizes(xs, sizes)
    consts = [read_only(_read_only_operand(x, context)) for x in consts]
    own = [has_lanes(x) for x in consts]
    avals = output_types(body)

    def test(inner: LaneContext, state: Operands, buffers: Operands) -> Number:
        return entry_of(inner.run(condition, [*consts, *state, *buffers])[0])

    def turn(
        inner: LaneContext, active: Number, state: Operands, buffers: Operands
    ) -> tuple[Operands, Operands]:
        out = inner.run(body, [_scalar_array(active), *consts, *state, *buffers])
        after, written = split_by_sizes(out, sizes[1:])
        return after, written

    def varies(flags: list[bool]) -> tuple[bool, list[bool]]:
        every = sizes[0], sizes[1] + sizes[2], 0
        flags = lane_dependence(condition, body, every, [*own, *flags])
        return dependents(condition, flags)[0], flags[len(own) :]

    state = [all_entries(x) for x in state]
    if not _starts_with_known_iterations(context, test, state, buffers):
        buffers = [
            _loop_buffer(x, context, a) for x, a in zip(buffers, avals[sizes[1] :], strict=True)
        ]
    return looped(context, test, turn, state, buffers, varies, avals)


def _starts_with_known_iterations(
    context: LaneContext,
    test: Test,
    state: Operands,
    buffers: Operands,
) -> bool:
    """True if a loop starts with known iterations, such as a `single_iteration_loop`, which
    replaces its buffers.
    """
    return all(map(is_known, state)) and is_known_entry(test(context, state, buffers))


def _scalar_array(entry: Number) -> np.ndarray:
    return full_array((), entry)


# --- scans ----------------------------------------------------------------------------------------


def _scan(
    context: LaneContext, *xs: Operand, jaxpr: Jaxpr, length: int, reverse: bool, **params: Any
) -> Operands:
    num_consts, num_carry = scan_counts(params)
    count = num_consts + num_carry
    consts, carry, rows = [read_only(x) for x in xs[:num_consts]], xs[num_consts:count], xs[count:]
    size = length * count_equations(jaxpr)
    if size <= _UNROLLED or length <= 1:
        return _unroll_scan(context, jaxpr, consts, carry, rows, length, reverse)
    types = output_types(jaxpr)
    out = types[num_carry:]
    written = [np.broadcast_to(np.zeros((), a.dtype), (length, *a.shape)) for a in out]
    carry = [all_entries(x) for x in carry]
    written = [_loop_buffer(x, context, a) for x, a in zip(written, out, strict=True)]
    own, of_rows = [has_lanes(x) for x in consts], [has_lanes(x) for x in rows]

    def test(inner: LaneContext, state: Operands, _: Operands) -> Number:
        del inner
        return apply("lt", entry_of(state[0]), np.int32(length))

    def turn(
        inner: LaneContext, active: Number, state: Operands, written: Operands
    ) -> tuple[Operands, Operands]:
        i = entry_of(state[0])
        j = apply("sub", np.int32(length - 1), i) if reverse else i
        here = [clamped_row(x, j, inner.space) for x in rows]
        found = inner.run(jaxpr, [*consts, *state[1:], *here])
        after, new = [all_entries(x) for x in found[:num_carry]], found[num_carry:]
        written = [
            write_row(x, j, y, active, inner.space) for x, y in zip(written, new, strict=True)
        ]
        return [_scalar_array(apply("add", i, np.int32(1))), *after], written

    def varies(flags: list[bool]) -> tuple[bool, list[bool]]:
        def grown(flags: list[bool]) -> list[bool]:
            found = dependents(jaxpr, [*own, *flags[1 : num_carry + 1], *of_rows])
            return [False, *(a or b for a, b in zip(flags[1:], found, strict=True))]

        return False, _propagate_flags(grown, flags)

    counter = ShapedArray((), jnp.int32)
    avals = [
        counter,
        *types[:num_carry],
        *(ShapedArray((length, *a.shape), a.dtype) for a in out),
    ]
    found = looped(context, test, turn, [np.asarray(np.int32(0)), *carry], written, varies, avals)
    return found[1:]


def _unroll_scan(
    context: LaneContext,
    jaxpr: Jaxpr,
    consts: Operands,
    carry: Operands,
    rows: Operands,
    length: int,
    reverse: bool,
) -> Operands:
    """Evaluates a scan iteration by iteration."""
    written, count = [], len(carry)
    for i in range(length - 1, -1, -1) if reverse else range(length):
        here = [clamped_row(x, np.int32(i), context.space) for x in rows]
        found = context.run(jaxpr, [*consts, *carry, *here])
        carry = found[:count]
        written.append([objects(all_entries(x)) for x in found[count:]])
    written = written[::-1] if reverse else written
    avals = output_types(jaxpr)[count:]
    outs = zip(*written, strict=True) if written else [() for _ in avals]
    return [
        *carry,
        *(
            np.stack(x) if x else np.zeros((0, *a.shape), a.dtype)
            for x, a in zip(outs, avals, strict=True)
        ),
    ]


# --- walks (`autodiff/dynamic_scan.py`) -----------------------------------------------------------


def _row_number(lo: Operand, i: Number, count: Number | None, length: int, space: Space) -> Number:
    """The number of the i-th row from `lo`, or of a list `lo`; or of the i-th from the end of
    `count` rows.
    """
    within = lambda j: apply("min", apply("max", j, np.int32(0)), np.int32(length - 1))  # noqa: E731
    place = i if count is None else apply("sub", apply("sub", count, np.int32(1)), i)
    if lo.shape:
        return within(entry_of(clamped_row(lo, within(place), space)))
    return within(apply("add", entry_of(lo), place))


def _walk(
    context: LaneContext,
    lo: Operand,
    n: np.ndarray,
    *xs: Operand,
    step: Jaxpr,
    sizes: Sequence[int],
    lanes: tuple[int, ...],
    length: int,
    reverse: bool,
    fresh: bool,
    **_: object,
) -> Operands | None:
    """Reads and writes rows at the place of each lane; a lane that is done writes none."""
    if lanes or not length:
        return None
    rows, consts, carry, linear, linear_rows, buffers = split_by_sizes(xs, sizes)
    consts, linear = [read_only(x) for x in consts], [read_only(x) for x in linear]
    lo, count = read_only(lo), entry_of(n)
    avals = output_types(step)
    full = [ShapedArray((length, *a.shape), a.dtype) for a in avals[sizes[2] :]]
    carry = [_loop_buffer(x, context, a) for x, a in zip(carry, avals, strict=False)]
    buffers = [_loop_buffer(x, context, a) for x, a in zip(buffers, full, strict=True)]

    def test(inner: LaneContext, state: Operands, _: Operands) -> Number:
        del inner
        return apply("lt", entry_of(state[0]), count)

    def turn(
        inner: LaneContext, active: Number, state: Operands, buffers: Operands
    ) -> tuple[Operands, Operands]:
        i = entry_of(state[0])
        j = _row_number(lo, i, count if reverse else None, length, inner.space)
        at_row = [clamped_row(x, j, inner.space) for x in (*rows, *linear_rows)]
        here, linear_here = at_row[: len(rows)], at_row[len(rows) :]
        old = [
            np.zeros(x.shape[1:], a.dtype) if fresh else clamped_row(x, j, inner.space)
            for x, a in zip(buffers, full, strict=True)
        ]
        xs = [*here, *consts, *state[1:], *linear, *linear_here, *old]
        found = inner.run(step, [_scalar_array(active), *xs])
        after, written = split_by_sizes(found, (sizes[2], sizes[5]))
        buffers = [
            write_row(x, j, y, inner.on, inner.space) for x, y in zip(buffers, written, strict=True)
        ]
        return [_scalar_array(apply("add", i, np.int32(1))), *after], buffers

    own = has_lanes(lo), has_lanes(n)
    fixed = [[has_lanes(x) for x in g] for g in (rows, consts, linear, linear_rows)]
    varies = partial(_variation_in_walk, step, sizes[2], own, fixed)
    counter = ShapedArray((), jnp.int32)
    state = [np.asarray(np.int32(0)), *carry]
    every = [counter, *avals[: sizes[2]], *full]
    return looped(context, test, turn, state, buffers, varies, every)[1:]


def _variation_in_walk(
    step: Jaxpr,
    carries: int,
    own: tuple[bool, bool],
    fixed: Sequence[Sequence[bool]],
    flags: list[bool],
) -> tuple[bool, list[bool]]:
    """The `varies` of a walk: `own` flags its first row and the number of rows, `fixed` the rows,
    constants, linear inputs and linear rows, and `flags` the counter, the carry and the buffers.
    """
    tests, places = own[1] or flags[0], any(own) or flags[0]
    rows, consts, linear, linear_rows = fixed

    def grown(flags: list[bool]) -> list[bool]:
        here, linear_here = ([f or places for f in g] for g in (rows, linear_rows))
        carry, buffers = flags[1 : carries + 1], flags[carries + 1 :]
        inputs = [tests, *here, *consts, *carry, *linear, *linear_here, *buffers]
        found = [a or b or tests for a, b in zip(flags[1:], dependents(step, inputs), strict=True)]
        return [flags[0] or tests, *found[:carries], *(f or places for f in found[carries:])]

    return tests, _propagate_flags(grown, flags)


# --- branches -------------------------------------------------------------------------------------


def _cond(
    context: LaneContext, index: np.ndarray, *xs: Operand, branches: Sequence[Jaxpr], **_: object
) -> Operands:
    """Evaluates the branch that is known to be taken; else all, and selects."""
    which = entry_of(index)
    if is_known_entry(which):
        return context.run(branches[min(max(int(which), 0), len(branches) - 1)], xs)
    found, xs = None, tuple(map(read_only, xs))
    for k, branch in enumerate(branches):
        here = _is_branch(which, k, len(branches))
        out = context.only(here).run(branch, xs) if np.ndim(here) else context.run(branch, xs)
        if found is None:
            found = out
        else:
            found = [
                _select_branch(here, new, old, context.space)
                for new, old in zip(out, found, strict=True)
            ]
    return found or []


def _is_branch(which: Number, k: int, count: int) -> Number:
    if which.dtype == bool:
        return which if k else apply("not", which)
    if k == count - 1:
        return apply("ge", which, np.int32(k))
    return apply("eq", which, np.int32(k)) if k else apply("le", which, np.int32(0))


def _select_branch(here: Number, new: Operand, old: Operand, space: Space) -> Operand:
    if new is old:
        return new
    if any(isinstance(x, WritableArray | View) for x in (new, old)):
        raise NoKernel("an array in memory is written in one branch and not in another")
    return _kept_where(here, new, all_entries(old), space)


LOOPS: dict[str, Rule] = {
    "while": _while,
    "loop": _loop,
    "scan": _scan,
    "walk": _walk,
    "cond": _cond,
}

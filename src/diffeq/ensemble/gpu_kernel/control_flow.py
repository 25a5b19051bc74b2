"""Rules of control flow: branches, loops that end when no lane is active, scans, walks.

Lanes go through a loop together until each is done; one that is done keeps its values. A value that
does not depend on the lane stays common to all of them (a clock of given steps): it is carried
once, needs no mask, and a loop whose condition is common tests no lane. Iterations that are known
while tracing are unrolled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...autodiff.jax_internals import count_equations, dependents, scan_counts
from ...autodiff.while_loop import lane_dependence
from ...core.split import split_by_sizes
from .indexing import clamped_row, write_row
from .large_arrays import (
    REGISTERS,
    View,
    WritableArray,
    all_entries,
    read_only,
    refill_buffer,
    to_memory,
)
from .scalar_values import (
    KeyWords,
    NoKernel,
    apply,
    full_array,
    has_lanes,
    is_known,
    is_known_entry,
    objects,
    select,
)

__all__ = ["LOOPS"]

_WRITTEN_OUT = 4  # the most iterations, known while tracing, that are unrolled
_UNROLLED = 400  # the most equations of a scan that is unrolled, over all of its iterations


# --- the carry of a loop --------------------------------------------------------------------------


@dataclass(frozen=True)
class _LoopCarry:
    """Converts arrays to the carry of `lax.while_loop`, a flat list of their numbers, and back."""

    avals: Sequence
    varies: Sequence[bool]
    lanes: int

    def flat(self, arrays: Sequence) -> list:
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

    def _number(self, entry: Any, dtype: Any, varies: bool) -> Any:
        shape = (self.lanes,) if varies else ()
        if is_known_entry(entry):
            return jnp.full(shape, entry, dtype)
        assert varies or not entry.ndim, "what no lane influences differs from lane to lane"
        return entry if entry.shape == shape else jnp.broadcast_to(entry, shape)

    def arrays(self, numbers: Sequence, like: Sequence) -> list:
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
    def _entry(found: Any, like: Any, i: tuple) -> Any:
        example = objects(like)[i] if isinstance(like, np.ndarray) else None
        if isinstance(example, KeyWords):
            return KeyWords(next(found) for _ in example)
        return next(found)


def looped(
    context: Any,
    test: Callable,
    turn: Callable,
    state: list,
    buffers: list,
    varies: Callable,
    avals: Sequence,
) -> list:
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

    def active(arrays: list) -> Any:
        on = test(context, *split_by_sizes(arrays, (count, len(buffers))))
        return apply("and", on, context.on) if np.ndim(on) else on

    def goes_on(numbers: Any) -> Any:
        on = active(carry.arrays(numbers, arrays))
        return context.any(on) if np.ndim(on) else jnp.asarray(on)

    def body(numbers: Any) -> Any:
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


def _kept_where(on: Any, new: Any, old: Any, space: Any) -> Any:
    """The new array in active lanes, the old one in lanes that are done."""
    if new is old:
        return new
    if isinstance(old, WritableArray):
        return refill_buffer(old, new, on, space)
    new = all_entries(new)
    out, new, old = np.empty(new.shape, object), objects(new), objects(old)
    for i in np.ndindex(out.shape):
        out[i] = select(on, new[i], old[i])
    return out


def _loop_buffer(x: Any, context: Any, aval: Any) -> Any:
    """A buffer: in memory, if it is large."""
    return x if x.size <= REGISTERS else to_memory(x, context.space, aval.dtype)


def _read_only_operand(x: Any, context: Any) -> Any:
    """A large array that a loop only reads: in memory, unless it is known, so that registers are
    left for the carry of the loop.
    """
    if not isinstance(x, np.ndarray) or is_known(x) or x.size <= REGISTERS:
        return x
    entry = x.flat[0]
    return x if isinstance(entry, KeyWords) else to_memory(x, context.space, entry.dtype)


def _propagate_flags(grown: Callable, flags: list[bool]) -> list[bool]:
    """The fixed point of `grown`, iterated from these flags."""
    while (after := grown(flags)) != flags:
        flags = after
    return flags


# --- loops ----------------------------------------------------------------------------------------


def _while(
    context: Any, *xs: Any, cond_jaxpr: Any, body_jaxpr: Any, cond_nconsts: int, body_nconsts: int
) -> list:
    """JAX's own loop: all of its carry is masked."""
    consts = cond_nconsts + body_nconsts
    xs = (*map(read_only, xs[:consts]), *xs[consts:])
    of_test, of_body, carry = xs[:cond_nconsts], xs[cond_nconsts:consts], xs[consts:]
    own = [has_lanes(x) for x in of_test], [has_lanes(x) for x in of_body]
    carry = [all_entries(x) for x in carry]

    def test(inner: Any, state: list, _: list) -> Any:
        return objects(inner.run(cond_jaxpr, [*of_test, *state])[0])[()]

    def turn(inner: Any, _: Any, state: list, __: list) -> tuple:
        return [all_entries(x) for x in inner.run(body_jaxpr, [*of_body, *state])], []

    def varies(flags: list[bool]) -> tuple:
        tested = lambda flags: dependents(cond_jaxpr, [*own[0], *flags])[0]  # noqa: E731

        def grown(flags: list[bool]) -> list[bool]:
            on, out = tested(flags), dependents(body_jaxpr, [*own[1], *flags])
            return [f or o or on for f, o in zip(flags, out, strict=True)]

        flags = _propagate_flags(grown, flags)
        return tested(flags), flags

    return looped(context, test, turn, carry, [], varies, body_jaxpr.out_avals)


def _loop(context: Any, *xs: Any, condition: Any, body: Any, sizes: Any) -> list | None:
    """The loop of `autodiff/while_loop.py`. The buffers of a lane that is done are kept, too: under
    `vmap` the body goes on to write them, at rows that do not count. A loop with lanes of its own,
    of a `vmap` inside of the solve, has no rule, and is replaced by its implementation.
    """
    if condition.out_avals[0].ndim:
        return None
    consts, state, buffers = split_by_sizes(xs, sizes)
    consts = [read_only(_read_only_operand(x, context)) for x in consts]
    own = [has_lanes(x) for x in consts]
    avals = body.out_avals

    def test(inner: Any, state: list, buffers: list) -> Any:
        return objects(inner.run(condition, [*consts, *state, *buffers])[0])[()]

    def turn(inner: Any, active: Any, state: list, buffers: list) -> tuple:
        out = inner.run(body, [_scalar_array(active), *consts, *state, *buffers])
        return tuple(split_by_sizes(out, sizes[1:]))

    def varies(flags: list[bool]) -> tuple:
        every = sizes[0], sizes[1] + sizes[2], 0
        flags = lane_dependence(condition, body, every, [*own, *flags])
        return dependents(condition, flags)[0], flags[len(own) :]

    state = [all_entries(x) for x in state]
    if not _starts_with_known_iterations(context, test, state, buffers):
        buffers = [
            _loop_buffer(x, context, a) for x, a in zip(buffers, avals[sizes[1] :], strict=True)
        ]
    return looped(context, test, turn, state, buffers, varies, avals)


def _starts_with_known_iterations(context: Any, test: Callable, state: list, buffers: list) -> bool:
    """True if a loop starts with known iterations, such as a `single_iteration_loop`, which
    replaces its buffers.
    """
    return all(map(is_known, state)) and is_known_entry(test(context, state, buffers))


def _scalar_array(entry: Any) -> np.ndarray:
    return full_array((), entry)


# --- scans ----------------------------------------------------------------------------------------


def _scan(context: Any, *xs: Any, jaxpr: Any, length: int, reverse: bool, **params: Any) -> list:
    num_consts, num_carry = scan_counts(params)
    count = num_consts + num_carry
    consts, carry, rows = (
        list(map(read_only, xs[:num_consts])),
        list(xs[num_consts:count]),
        list(xs[count:]),
    )
    size = length * count_equations(jaxpr)
    if size <= _UNROLLED or length <= 1:
        return _unroll_scan(context, jaxpr, consts, carry, rows, length, reverse)
    out = jaxpr.out_avals[num_carry:]
    written = [np.broadcast_to(np.zeros((), a.dtype), (length, *a.shape)) for a in out]
    carry = [all_entries(x) for x in carry]
    written = [_loop_buffer(x, context, a) for x, a in zip(written, out, strict=True)]
    own, of_rows = [has_lanes(x) for x in consts], [has_lanes(x) for x in rows]

    def test(inner: Any, state: list, _: list) -> Any:
        del inner
        return apply("lt", objects(state[0])[()], np.int32(length))

    def turn(inner: Any, active: Any, state: list, written: list) -> tuple:
        i = objects(state[0])[()]
        j = apply("sub", np.int32(length - 1), i) if reverse else i
        here = [clamped_row(x, j, inner.space) for x in rows]
        found = inner.run(jaxpr, [*consts, *state[1:], *here])
        after, new = [all_entries(x) for x in found[:num_carry]], found[num_carry:]
        written = [
            write_row(x, j, y, active, inner.space) for x, y in zip(written, new, strict=True)
        ]
        return [_scalar_array(apply("add", i, np.int32(1))), *after], written

    def varies(flags: list[bool]) -> tuple:
        def grown(flags: list[bool]) -> list[bool]:
            found = dependents(jaxpr, [*own, *flags[1 : num_carry + 1], *of_rows])
            return [False, *(a or b for a, b in zip(flags[1:], found, strict=True))]

        return False, _propagate_flags(grown, flags)

    counter = jax.ShapeDtypeStruct((), jnp.int32)
    avals = [
        counter,
        *jaxpr.out_avals[:num_carry],
        *(jax.ShapeDtypeStruct((length, *a.shape), a.dtype) for a in out),
    ]
    found = looped(context, test, turn, [np.asarray(np.int32(0)), *carry], written, varies, avals)
    return found[1:]


def _unroll_scan(
    context: Any, jaxpr: Any, consts: list, carry: list, rows: list, length: int, reverse: bool
) -> list:
    """Evaluates a scan iteration by iteration."""
    written, count = [], len(carry)
    for i in range(length - 1, -1, -1) if reverse else range(length):
        here = [clamped_row(x, np.int32(i), context.space) for x in rows]
        found = context.run(jaxpr, [*consts, *carry, *here])
        carry = found[:count]
        written.append([objects(all_entries(x)) for x in found[count:]])
    written = written[::-1] if reverse else written
    outs = zip(*written, strict=True) if written else [() for _ in jaxpr.out_avals[count:]]
    avals = jaxpr.out_avals[count:]
    return [
        *carry,
        *(
            np.stack(x) if x else np.zeros((0, *a.shape), a.dtype)
            for x, a in zip(outs, avals, strict=True)
        ),
    ]


# --- walks (`autodiff/dynamic_scan.py`) -----------------------------------------------------------


def _row_number(first: Any, i: Any, count: Any, length: int) -> Any:
    """The number of the i-th row from `first`, or of the i-th from the end of `count` rows."""
    place = i if count is None else apply("sub", apply("sub", count, np.int32(1)), i)
    at_least = apply("max", apply("add", first, place), np.int32(0))
    return apply("min", at_least, np.int32(length - 1))


def _walk(
    context: Any,
    lo: Any,
    n: Any,
    *xs: Any,
    step: Any,
    sizes: Any,
    lanes: Any,
    length: int,
    reverse: bool,
    fresh: bool,
    **_: Any,
) -> list | None:
    """Reads and writes rows at the place of each lane; a lane that is done writes none."""
    if lanes or not length:
        return None
    rows, consts, carry, linear, linear_rows, buffers = split_by_sizes(xs, sizes)
    consts, linear = [read_only(x) for x in consts], [read_only(x) for x in linear]
    first, count = objects(lo)[()], objects(n)[()]
    avals = step.out_avals
    full = [jax.ShapeDtypeStruct((length, *a.shape), a.dtype) for a in avals[sizes[2] :]]
    carry = [_loop_buffer(x, context, a) for x, a in zip(carry, avals, strict=False)]
    buffers = [_loop_buffer(x, context, a) for x, a in zip(buffers, full, strict=True)]

    def test(inner: Any, state: list, _: list) -> Any:
        del inner
        return apply("lt", objects(state[0])[()], count)

    def turn(inner: Any, active: Any, state: list, buffers: list) -> tuple:
        i = objects(state[0])[()]
        j = _row_number(first, i, count if reverse else None, length)
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

    own = [has_lanes(x) for x in (full_array((), first), full_array((), count))]
    fixed = [[has_lanes(x) for x in g] for g in (rows, consts, linear, linear_rows)]

    def varies(flags: list[bool]) -> tuple:
        tests, places = own[1] or flags[0], any(own) or flags[0]

        def grown(flags: list[bool]) -> list[bool]:
            inputs = [
                [f or places for f in fixed[0]],
                fixed[1],
                flags[1 : sizes[2] + 1],
                fixed[2],
                [f or places for f in fixed[3]],
                flags[sizes[2] + 1 :],
            ]
            found = dependents(step, [tests, *(f for g in inputs for f in g)])
            found = [a or b or tests for a, b in zip(flags[1:], found, strict=True)]
            return [
                flags[0] or tests,
                *found[: sizes[2]],
                *(f or places for f in found[sizes[2] :]),
            ]

        return tests, _propagate_flags(grown, flags)

    counter = jax.ShapeDtypeStruct((), jnp.int32)
    state = [np.asarray(np.int32(0)), *carry]
    every = [counter, *avals[: sizes[2]], *full]
    return looped(context, test, turn, state, buffers, varies, every)[1:]


# --- branches -------------------------------------------------------------------------------------


def _cond(context: Any, index: np.ndarray, *xs: Any, branches: Any, **_: Any) -> list:
    """Evaluates the branch that is known to be taken; else all, and selects."""
    which = objects(index)[()]
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


def _is_branch(which: Any, k: int, count: int) -> Any:
    if which.dtype == bool:
        return which if k else apply("not", which)
    if k == count - 1:
        return apply("ge", which, np.int32(k))
    return apply("eq", which, np.int32(k)) if k else apply("le", which, np.int32(0))


def _select_branch(here: Any, new: Any, old: Any, space: Any) -> Any:
    if new is old:
        return new
    if any(isinstance(x, WritableArray | View) for x in (new, old)):
        raise NoKernel("an array in memory is written in one branch and not in another")
    return _kept_where(here, new, all_entries(old), space)


LOOPS: dict[str, Callable] = {
    "while": _while,
    "loop": _loop,
    "scan": _scan,
    "walk": _walk,
    "cond": _cond,
}

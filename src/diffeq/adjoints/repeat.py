"""`walk_over_parts`: over the windows of a tape and their parts; `replay_part`: the rows of a part,
computed again into a second buffer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from ..autodiff.dynamic_scan import walk
from ..autodiff.row_buffers import get_row, put_row
from ..integrator import (
    Data,
    Decision,
    Integrator,
    State,
    TapeRow,
    attempt,
    right_limit_form,
    state_of_row,
    tape_row_of,
    with_held,
)
from .tape import Part, Recorder, Tape

__all__ = ["replay_part", "walk_over_parts"]


def walk_over_parts(
    recorder: Recorder,
    record: Tape,
    step: Callable,
    *,
    consts: PyTree = (),
    carry: PyTree,
    linear_consts: PyTree = (),
    linear: bool = False,
    reverse: bool = False,
) -> PyTree:
    """The last carry of a `walk` over the windows of a tape, and in each over its parts:
    `step(record, part, consts, carry, linear_consts)` returns the next one. The walks are nested
    so that a derivative keeps a carry for each window, and for each part of one.
    """
    along = partial(walk, linear=linear, reverse=reverse)

    def over_part(_: Any, i: Any, known: Any, carry: Any, linear_consts: Any, *__: Any) -> Any:
        record, window, consts = known
        part = recorder.part(record, window, i)
        return step(record, part, consts, carry, linear_consts), ()

    def over_window(_: Any, row: Any, known: Any, carry: Any, linear_consts: Any, *__: Any) -> Any:
        record, consts = known
        window = recorder.window(record, row)
        if not recorder.splits:
            return step(record, window, consts, carry, linear_consts), ()
        most = recorder.most_parts
        carry, _ = along(
            over_part,
            0,
            recorder.parts(record, window),
            rows=jnp.arange(most, dtype=jnp.int32),
            consts=(record, window, consts),
            carry=carry,
            linear_consts=linear_consts,
            length=most,
        )
        return carry, ()

    carry, _ = along(
        over_window,
        0,
        recorder.windows(record),
        rows=jnp.arange(recorder.rows + 1, dtype=jnp.int32),
        consts=(record, consts),
        carry=carry,
        linear_consts=linear_consts,
        length=recorder.rows + 1,
    )
    return carry


def replay_part(recorder: Recorder, like: State, data: Data, record: Tape, part: Part) -> TapeRow:
    """The rows of a part of a window, computed again from the first row of the window; the tape
    itself where no row of it was dropped.
    """
    integrator = recorder.integrator
    state = _window_start(integrator, like, data, record, part.row)
    following = jnp.where(part.row + 1 < recorder.windows(record), part.row + 1, recorder.rows)
    end = jax.tree.map(lambda x: get_row(x, following), record.rows)
    n, first = jnp.where(record.thinned, part.n, 0), part.window_first
    last, count = recorder.last_accepted(record, first, n), n
    if recorder.splits:
        last = recorder.last_accepted(record, first, jnp.where(record.thinned, part.window, 0))
        # An inner part ends with the row of the attempt after it, for its number of output rows.
        count = jnp.where(record.thinned, part.skipped + n + part.is_inner, 0)

    written = [True] * len(jax.tree.leaves(record.rows))  # and read by no step
    length = recorder.most_of_window + 1
    numbers = jnp.arange(length, dtype=jnp.int32)
    again = partial(walk, rows=numbers, length=length, stable=written)
    consts = (data, record, part, last, end)

    def lap(_: Any, number: Any, consts: Any, carried: Any, *__: Any) -> Any:
        *consts, count = consts
        record, part = consts[1:3]
        spans = recorder.spans(record, number, part.window_first, count)
        for phase, span in zip(integrator.submethods, spans, strict=True):
            step = partial(_attempt_again, recorder, phase)
            carried, _ = again(step, *span, consts=tuple(consts), carry=carried)
        return carried, ()

    if len(integrator.submethods) == 1:
        step = partial(_attempt_again, recorder, integrator)
        (rows, _), _ = again(step, 0, count, consts=consts, carry=(record.rows, state))
    else:
        (rows, _), _ = walk(
            lap,
            0,
            record.laps,
            rows=recorder.laps,
            consts=(*consts, count),
            carry=(record.rows, state),
            length=len(recorder.laps),
            stable=written,
        )
    # The number of output rows that the window has written is taken from the tape: repeated, a step
    # may end an ulp before a saved time, or after it. (The tape itself, n = 0, has its end already;
    # its last row may be discarded.)
    place, whole = jnp.where(n > 0, n, recorder.rows), end.whole
    if recorder.splits:
        whole = jnp.where((n > 0) & part.is_inner, get_row(rows.whole, place), whole)
    return rows._replace(whole=put_row(rows.whole, whole, place))


def _attempt_again(
    recorder: Recorder,
    integrator: Integrator,
    active: Any,
    number: Int[Array, ""],
    consts: tuple[Data, Tape, Part, Array, TapeRow],
    carried: tuple[TapeRow, State],
    *linear: Any,
) -> tuple[tuple[TapeRow, State], tuple]:
    """A step of a `walk`: attempt `number` of a window, by the recorded decision, and its row. All
    elements of a batch count alike, and write their rows in one piece.
    """
    del active, linear
    (rows, state), (data, record, part, last, end) = carried, consts
    i = part.window_first + number
    decision = recorder.decision(record, i, last, end)
    if data.failed is not None:
        decision = Decision((data.failed < 0) | (state.steps < data.failed))
    after, tried = attempt(integrator, data, state, decision)
    found = tape_row_of(integrator, state, tried)
    if recorder.alternates:  # an element that waits for those of another method does not change
        after = jax.tree.map(partial(jnp.where, recorder.was_made(record, i)), after, state)
    place = number
    if recorder.splits:  # attempts before the part are discarded
        place = jnp.where(number < part.skipped, recorder.rows, number - part.skipped)
    place = lax.optimization_barrier(place)  # found once, not in the kernel of each array
    rows = jax.tree.map(lambda rows, x: put_row(rows, x, place), rows, found)
    return (rows, after), ()


def _window_start(
    integrator: Integrator, like: State, data: Data, record: Tape, index: Any
) -> State:
    """The state at a row of the tape, with the method's memory evaluated where it is not stored."""
    row = jax.tree.map(lambda x: get_row(x, index), record.rows)
    memory = row.memory
    if not integrator.tapes_memory:
        form, method, _ = integrator.parts(with_held(data, row.held))
        memory = method.init(right_limit_form(integrator, data, form, row.t), row.t, row.y)
    return state_of_row(integrator, row, memory, like)

"""`Discrete`: the derivative of the numerical solution itself, in every mode and to every order.

The forward loop keeps a tape of its attempts (`tape.py`). The tangent of a solve is a `walk` over
that tape, linear in the tangents, and what follows (transposes, tangents of tangents, batches)
follows from `walk`. The controller is not differentiated: each dt is a constant, except where a
step landed on a stop or on the end, which it follows.

When the tape had to be thinned (coarsened, as its rows are checkpoints), an outer walk goes over
its windows; each repeats its attempts into a second buffer and then walks over that, part by part
where they are more than its rows. The buffer *is* the tape while it was not thinned, so both cases
are one piece of code and one compilation.
"""

from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from ..autodiff.dynamic_scan import Tangent, walk
from ..autodiff.forward_tangent import push_tangent
from ..autodiff.jax_internals import dependents, jaxpr_as_fun
from ..autodiff.known_value import with_known_value
from ..autodiff.linear_function import linear_function
from ..autodiff.row_buffers import put_row
from ..core.promotion import standard_promotion
from ..core.split import split_by_sizes
from ..core.status import Status
from ..integrator import (
    DRAWN_OR_FOUND,
    Data,
    Integrator,
    SafePoint,
    State,
    TapeRow,
    blank_buffers,
    empty_history,
    integrate,
    replay,
    right_limit_form,
    with_held,
    with_presampled_noise,
)
from ..integrator.call import MAX_STEPS
from ..output import Cursor
from ..problems.history import PastAccess
from .base import Adjoint, register_adjoint, run_with_tape, run_without_tape, runs_as_one
from .base import pick_flagged as _pick
from .base import scatter_live as _spread
from .empty_span import initial_tangents
from .repeat import replay_part, walk_over_parts
from .tape import MOST_ATTEMPTS, Part, Recorder, Tape, fewest_rows

__all__ = [
    "Discrete",
    "blank_like",
    "dense_zero_tangent",
    "fill_zeros",
    "first_carry",
    "first_tangents",
    "tangents_of",
    "tangents_of_consts",
]

_DEFAULT_ROWS = 256  # with which all attempts of the default max_steps are whole windows
_KNOWN_ROWS = 1024
# A tape is filled with zeros before the solve, and copied once in its derivative, used or not: what
# of it lies in the cache costs little. So a wide state, of one solve or of many lanes, has as many
# rows as fit in the first number of bytes, but 32: with these, 1,024 attempts are repeated in whole
# windows. Twice as much is little where max_steps is above the default one, which says that the
# solve is long, and for controlled steps of lanes, which take as many attempts as the slowest.
_CACHED, _CACHED_OF_LONG, _FEW_ROWS = 2**21, 2**22, 32
# Where steps are given, and so rows not filled in vain, a state that is this large has as many rows
# as max_steps needs, and for no more than so many attempts.
_LARGE, _MOST_OF_LARGE = 2**20, 16_384
_ROWS_OF_DELAYS, _MOST_ROWS_OF_GIVEN_STEPS = 1024, 16_384
_MOST_UNTHINNED = 4096  # rows of steps that are given, and so all used


@register_adjoint
class Discrete(Adjoint):
    """Differentiates the accepted steps. The default, for every problem and every mode.

    Args:
        rows: the number of attempts (checkpoints) that the tape keeps before it is thinned. Memory
            is 2·rows states (and as many first stages, where they are small). Up to
            rows · 2^⌊log₂ rows⌋ attempts are repeated once on the way back, of k times as many each
            about k/2 times. None: 256, more if max_steps needs it, and all, up to 1,024, where dt
            fixes their number; of a state of more than 8 kilobytes, in all lanes of a `jax.vmap`
            together, 2 megabytes' worth, but 32, and twice as many where max_steps is above 65,536,
            or steps of lanes are controlled. Of a megabyte or more as few as max_steps needs: at
            most 32, or 128 where dt is given. (A derivative of the derivative keeps a state for
            each attempt of a window, too.)
        checkpoint: False: the tape is never thinned, and a solve of more attempts than `rows` ends
            with the status `tape_overflow` when it is differentiated. For a solve that is
            known to fit: the program is smaller, and compiles in two thirds of the time. `rows` of
            None are then all, up to 4,096, where dt fixes their number.

    The derivative is that of y_{n+1} = Φ(t_n, y_n, dt_n, args) along the accepted steps, with each
    dt_n held constant, but for steps that end at a stop or at t1, whose derivative they have. It is
    exact for the numbers that the solve returns. The tape of a delay equation is its past, too: it
    is never thinned, and holds 1,024 attempts, or `rows`; a solve of more ends with the status
    `tape_overflow` when it is differentiated.

    Reference: hager2000.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
        >>> end = lambda k: de.solve(problem.replace(args=k), rtol=1e-6, adjoint=de.Discrete()).y1
        >>> round(float(jax.grad(end)(1.0)), 4)
        -0.3679
    """

    rows: int | None = eqx.field(static=True, default=None)
    checkpoint: bool = eqx.field(static=True, default=True, kw_only=True)

    def __check_init__(self) -> None:
        whole = isinstance(self.rows, (int, np.integer)) and not isinstance(self.rows, bool)
        if self.rows is not None and not (whole and self.rows > 0):
            raise ValueError(f"rows is {self.rows!r}; a positive whole number is wanted, or None.")
        if not isinstance(self.checkpoint, bool):
            raise ValueError(
                f"checkpoint is {self.checkpoint!r}; True or False is wanted. The number of "
                "checkpoints is rows=."
            )

    def recorder(self, integrator: Integrator, max_steps: int, size: int = 0) -> Recorder:
        """The tape for a solve of at most this many attempts, with a state of `size` bytes in each
        lane.
        """
        if integrator.one_step:
            return Recorder(integrator, 2, False, integrator.controller.is_adaptive, 2)
        is_adaptive = integrator.controller.is_adaptive
        if integrator.rows is not None:
            rows = self.rows or (_ROWS_OF_DELAYS if is_adaptive else _MOST_ROWS_OF_GIVEN_STEPS)
            rows = min(rows, max_steps)
            return Recorder(integrator, rows, False, is_adaptive, rows)
        # Rows that are never dropped bound the attempts of a solve, in lanes as alone.
        lanes = integrator.lanes if self.checkpoint else 1
        rows = self._kept(max_steps, size, lanes, is_adaptive=is_adaptive)
        if max_steps <= rows:
            return Recorder(integrator, max_steps, False, is_adaptive, max_steps)
        rows += rows % 2 if self.checkpoint else 0  # every second row of a full tape is dropped
        return Recorder(integrator, rows, self.checkpoint, is_adaptive, max_steps)

    def holds(self, max_steps: int, size: int = 0, *, is_adaptive: bool) -> bool:
        """True if a tape, thinned or not, can hold every solve of at most `max_steps` attempts."""
        most = MOST_ATTEMPTS if self.checkpoint else 0
        return max_steps <= max(most, self._kept(max_steps, size, is_adaptive=is_adaptive))

    def _kept(self, max_steps: int, size: int, lanes: int = 1, *, is_adaptive: bool) -> int:
        """The number of rows of the tape of a solve of at most `max_steps` attempts."""
        size *= lanes
        given = not is_adaptive and self.rows is None
        if not self.checkpoint and given and max_steps <= _MOST_UNTHINNED:
            return max_steps
        if self.rows:
            return self.rows
        most = fewest_rows(min(max_steps, MOST_ATTEMPTS))
        # With dt, too, the number of steps is unknown where the ends of time are.
        if self.checkpoint and (is_adaptive or max_steps == MAX_STEPS):
            long = most > _DEFAULT_ROWS or (is_adaptive and lanes > 1)
            cached = _CACHED_OF_LONG if long else _CACHED
            cached = max(cached // max(size, 1), min(_FEW_ROWS, most))
            return min(max(_DEFAULT_ROWS, most), cached)
        if size >= _LARGE:
            return fewest_rows(min(max_steps, _MOST_OF_LARGE))
        # Rows of a known number of steps are all used: none is filled with zeros in vain.
        known = not is_adaptive and max_steps <= _KNOWN_ROWS
        return max(_KNOWN_ROWS if known else _DEFAULT_ROWS, most)

    def run(
        self, integrator: Integrator, data: Data, start: Any, max_steps: int
    ) -> tuple[State, list]:
        """`integrate` from a `Start` or a `State`, with a derivative."""
        recorder = self.recorder(integrator, max_steps, start.y.nbytes)
        leaves, tree = jax.tree.flatten((data, start))
        spec = _DiscreteSpec(integrator, recorder, tree, taped=False)
        result = _solve_with_tape(spec, leaves)
        return result.state, result.buffers


class _DiscreteSpec(NamedTuple):
    """The static part of a solve; hashable by identity, for `custom_jvp`."""

    integrator: Integrator
    recorder: Recorder
    tree: Any
    taped: bool


class _DiscreteResult(NamedTuple):
    """The end of a solve and its output, its tape, the noise that was drawn ahead, and the past of
    a delay equation.
    """

    state: State
    buffers: list
    record: Any
    ahead: Any = ()
    past: Any = None


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve_with_tape(spec: _DiscreteSpec, leaves: list) -> _DiscreteResult:
    data, start = jax.tree.unflatten(spec.tree, leaves)
    run = partial(_recorded_solve, spec)
    if spec.taped:
        return run_with_tape(run, data, start)
    return run_without_tape(run, data, start, spec.integrator)


def _recorded_solve(spec: _DiscreteSpec, data: Data, start: Any) -> _DiscreteResult:
    """The solve, with its tape where the specification asks for it."""
    recorder = spec.recorder if spec.taped else None
    data = with_presampled_noise(spec.integrator, data)
    begin = start.state(spec.integrator, data)
    state, buffers, record = integrate(spec.integrator, data, begin, recorder)
    if recorder is None:
        return _DiscreteResult(state, buffers, record)
    # A tape that could not hold the solve must not pass for one that could.
    cut = state.status == Status.running
    cut = cut & (state.steps < data.goal) if spec.integrator.one_step else cut
    status = jnp.where(cut, Status.tape_overflow, state.status)
    if spec.integrator.jump_hides:
        jumped = (record[1].accessed & PastAccess.jump) > 0
        status = jnp.where(jumped, Status.undifferentiable, status).astype(jnp.int32)
    state = eqx.tree_at(lambda s: s.status, state, status)
    record, past = record if spec.integrator.rows is not None else (record, None)
    return _DiscreteResult(state, buffers, record, (data.presampled, data.marks), past)


@partial(_solve_with_tape.defjvp, symbolic_zeros=True)
@standard_promotion()
def _solve_with_tape_jvp(
    spec: _DiscreteSpec, primals: Any, tangents: Any
) -> tuple[_DiscreteResult, _DiscreteResult]:
    (leaves,), (dots,) = primals, tangents
    spec.integrator.check_differentiable()
    result = _solve_with_tape(spec._replace(taped=True), leaves)
    dots = [None if isinstance(d, SymbolicZero) else d for d in dots]
    dots = [
        None if d is None or not jnp.issubdtype(jnp.result_type(x), jnp.inexact) else d
        for d, x in zip(dots, leaves, strict=True)
    ]
    d_end, d_rows = _tangents_as_one(spec, leaves, dots, result)
    out = dense_zero_tangent(result)
    d_t, d_y, d_held, _, d_buffers, d_past = d_end
    zero = out.state
    d_t, d_y, d_held = fill_zeros((d_t, d_y, d_held), (zero.t, zero.y, zero.held))
    end = eqx.tree_at(lambda s: (s.t, s.y), zero, (d_t, d_y))
    end = eqx.tree_at(lambda s: s.held, end, d_held) if d_held else end
    record, past = out.record, out.past
    if spec.taped and d_rows is not None:
        reals, y = record.rows.reals, record.rows.y
        if d_rows[0] is not None:
            reals = reals.at[:, 0].set(d_rows[0])
        many = 2 + len(record.rows.held)
        held = fill_zeros(tuple(d_rows[2:many]), record.rows.held)
        rows = record.rows._replace(reals=reals, y=fill_zeros(d_rows[1], y), held=held)
        if spec.integrator.records_memory:
            before = jax.tree.unflatten(jax.tree.structure(rows.memory), d_rows[many:])
            rows = rows._replace(memory=fill_zeros(before, rows.memory))
        record = record._replace(rows=rows)
    if past is not None:
        past = eqx.tree_at(lambda h: h.rows, past, fill_zeros(d_past, past.rows))
    tangent = _DiscreteResult(end, fill_zeros(d_buffers, out.buffers), record, out.ahead, past)
    if spec.taped:
        return result, tangent
    plain = lambda x: x._replace(record=None, ahead=(), past=None)  # noqa: E731
    return plain(result), plain(tangent)


def dense_zero_tangent(tree: Any) -> Any:
    """The zero tangent of a tree."""

    def zero(x: Any) -> Any:
        if jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            return jnp.zeros_like(x)
        return np.zeros(jnp.shape(x), jax.dtypes.float0)

    return jax.tree.map(zero, tree)


def fill_zeros(dots: Any, zeros: Any) -> Any:
    """Tangents with the missing ones zero."""
    return (
        jax.tree.map(lambda z, d: z if d is None else d, zeros, dots, is_leaf=lambda x: x is None)
        if dots is not None
        else zeros
    )


def _tangents_as_one(spec: _DiscreteSpec, leaves: list, dots: list, result: _DiscreteResult) -> Any:
    """`_tangents`, as one native function where the solve is one."""
    live = [d is not None for d in dots]
    if not any(live) or not runs_as_one(*jax.tree.unflatten(spec.tree, leaves)):
        return _tangents(spec, leaves, dots, result)
    found, tree = jax.tree.flatten(result)
    trees = []

    def pushed(residuals: list, tangents: list) -> list:
        leaves, found = split_by_sizes(residuals, (len(live), len(residuals) - len(live)))
        all_dots = _spread(tangents, live)
        out, out_tree = jax.tree.flatten(
            _tangents(spec, leaves, all_dots, jax.tree.unflatten(tree, found))
        )
        trees.append(out_tree)
        return out

    residuals = [*leaves, *found]
    together = len(leaves), len(residuals)
    out = linear_function(pushed, residuals, _pick(dots, live), together)
    return jax.tree.unflatten(trees[-1], out)


def _tangents(spec: _DiscreteSpec, leaves: list, dots: list, result: _DiscreteResult) -> Any:
    """The tangents of (t, y, held, memory, buffers, past) at the end; and of the first three in the
    rows of the tape, and of the memory that these hold.
    """
    data, state = jax.tree.unflatten(spec.tree, leaves)
    integrator, recorder, record = spec.integrator, spec.recorder, result.record
    first_memory = jax.tree.map(lambda x: x[0], record.rows.memory)
    safe_point = _safe_point(state, result.state).with_step(record.rows.dt[0], first_memory)
    first = partial(first_carry, integrator, recorder, safe_point)
    memory, buffers, past = blank_like(first, data, state)
    carry = (state.t, state.y, state.held, memory, buffers, past)
    of_data, of_state = jax.tree.unflatten(spec.tree, list(range(len(dots))))
    # Known after the loop: the presampled noise, and the given step at which an element failed.
    (cells, marks), failed = result.ahead, result.state.failed
    data = replace(data, presampled=cells, marks=marks, failed=failed)
    history = _history_tables(recorder, result.past)
    consts = data, safe_point, history.consts
    d_consts = tangents_of_consts(dots, of_data, consts)
    d_first = first_tangents(spec.tree, first, leaves, dots, (memory, buffers, past))
    d_carry = [dots[i] for i in (of_state.t, of_state.y, *of_state.held)] + d_first
    by_ends = dots[of_data.t1], dots[of_state.t], dots[of_state.y]
    d_carry[:2] = initial_tangents(integrator, recorder, safe_point, data, state, by_ends)
    row = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype),
        (_with_next(record.rows), history.rows),
    )
    stable = [False] * (len(d_carry) - len(past)) + [True] * len(past)
    tangents = tangents_of(integrator, row, consts, carry, d_consts, d_carry, stable)
    tangent = tangents[0]
    known = len(jax.tree.leaves(memory)) if integrator.records_memory else 0
    others, kept = len(d_first) - known, 2 + len(of_state.held) + known
    keep = [spec.taped] * kept + [False] * others
    unknown = [None] * (others - len(past))
    along = _TangentReplay(
        tangents, recorder, history, consts, d_consts, keep, unknown, result.state
    )
    go = along.windows if recorder.thins else along.flat
    end, rows = go(record, tangent.start(d_carry))
    end = jax.tree.unflatten(jax.tree.structure(carry), _spread(end, tangent.live))
    live = [a and b for a, b in zip(keep, tangent.live, strict=True)]
    return end, _spread(rows, live)[:kept]


def tangents_of_consts(dots: list, of_data: Data, consts: tuple) -> list:
    """The tangents of all leaves of `consts`: the data and the other inputs of a step. Those of the
    data are the `dots` numbered in `of_data`; fields that are known only in a solve or after it
    have none.
    """
    data, *others = consts
    found: list = []
    for field in fields(data):
        late = field.name in DRAWN_OR_FOUND
        leaves = jax.tree.leaves(getattr(data if late else of_data, field.name))
        found += [None if late else dots[i] for i in leaves]
    return [*found, *[None] * len(jax.tree.leaves(others))]


def tangents_of(
    integrator: Integrator,
    row: Any,
    consts: Any,
    carry: Any,
    d_consts: list,
    d_carry: list,
    stable: list,
) -> list[Tangent]:
    """The tangent of a step of each of the alternating methods: all with the same live leaves of
    the carry.
    """
    flat = jax.tree.leaves(carry)
    while True:
        found = [
            Tangent(partial(_replay_tangent, phase), row, consts, carry, d_consts, d_carry, stable)
            for phase in integrator.submethods
        ]
        if all(tangent.live == found[0].live for tangent in found):
            return found
        live = [any(each) for each in zip(*(tangent.live for tangent in found), strict=True)]
        d_carry = [
            jnp.zeros_like(x) if f and d is None else d
            for x, d, f in zip(flat, d_carry, live, strict=True)
        ]


def _safe_point(start: Any, end: State) -> SafePoint:
    """A point at which the field is finite, for use in place of rejected attempts: the
    start. Where the field is not finite even there, as for a missing sample, y = 0 is taken.
    """
    moved = end.steps > (start.steps if isinstance(start, State) else 0)
    nonfinite = ~moved & (end.status == Status.nonfinite)
    t, y, held = jax.lax.stop_gradient((start.t, start.y, start.held))
    return SafePoint(jnp.where(jnp.isfinite(t), t, 0), jnp.where(nonfinite, 0, y), held)


class _HistoryTables(NamedTuple):
    """The history of a delay equation for the replay of its steps; all empty for other equations.

    `tables` are its rows at the end of the solve: the rows that a step has read were written before
    it, and never changed. `consts` hold the numbers of rows, and `rows` go with those of the tape:
    the number of each step, and its row.
    """

    tables: list
    consts: list
    rows: list


def _history_tables(recorder: Recorder, past: Any) -> _HistoryTables:
    if past is None:
        return _HistoryTables([], [], [])
    places = jnp.arange(recorder.rows + 1, dtype=jnp.int32)
    return _HistoryTables(past.rows, [past.ends], [places, lax.stop_gradient(past.rows)])


class _TangentReplay(NamedTuple):
    """The tangent of a solve, pushed through the steps of a tape by a walk over its rows."""

    tangents: list[Tangent]
    recorder: Recorder
    history: _HistoryTables
    consts: tuple[Data, tuple, list]
    d_consts: list
    keep: list
    unknown: list
    end: State

    def flat(self, record: Tape, start: list) -> tuple[list, list]:
        """One walk over all rows."""
        place = (record, jnp.int32(0), record.attempts)
        return self._walk(record.rows, place, self.consts, self.d_consts, start)

    @property
    def live(self) -> list[bool]:
        """Flags the leaves of the carry that have a tangent."""
        return self.tangents[0].live

    def _walk(
        self, rows: TapeRow, place: tuple, consts: tuple, d_consts: list, start: list
    ) -> tuple[list, list]:
        """A walk over the rows of n attempts from attempt `first` of a record; `place` is (record,
        first, n). For alternating methods it is a walk over laps, and in each lap over the rows of
        each method.
        """
        record, first, n = place
        past = jax.tree.leaves(rows.memory) if self.recorder.integrator.records_memory else []
        recorded = [rows.t, rows.y, *rows.held, *past, *self.unknown, *self.history.tables]
        each = (_with_next(rows), self.history.rows)
        length = self.recorder.rows + 1
        if len(self.tangents) == 1:
            lo, n = self._visited(self.tangents[0], rows, (0, n))
            return self.tangents[0].run(
                n, each, consts, recorded, d_consts, start, self.keep, length, lo
            )
        moving = [d is not None for d in d_consts]

        def lap(active: Any, lap: Any, consts: Any, carry: Any, d_consts: Any, *_: Any) -> Any:
            del active
            consts, each, recorded, place = consts
            recorded, d_consts = _spread(recorded, known), _spread(d_consts, moving)
            dots, d_rows = carry
            record, first, n = place
            spans = self.recorder.spans(record, lap, first, n)
            for tangent, span in zip(self.tangents, spans, strict=True):
                lo, n = self._visited(tangent, each[0][0], span)
                dots, found = tangent.run(
                    n, each, consts, recorded, d_consts, dots, self.keep, length, lo
                )
                d_rows = [old + new for old, new in zip(d_rows, found, strict=True)]
            return (tuple(dots), tuple(d_rows)), ()

        known = [x is not None for x in recorded]
        laps, blank = self.recorder.laps, self._blank(start)
        (end, d_rows), _ = walk(
            lap,
            0,
            record.laps,
            rows=laps,
            consts=(consts, each, _pick(recorded, known), (record._replace(rows=()), first, n)),
            carry=(tuple(start), tuple(blank)),
            linear_consts=tuple(_pick(d_consts, moving)),
            length=len(laps),
            linear=True,
        )
        return list(end), list(d_rows)

    def _visited(self, tangent: Tangent, rows: TapeRow, span: tuple) -> tuple:
        """The rows that a walk over a span, (first row, n), visits: those of accepted attempts. But
        lanes, each with a list of its own, read their rows number by number, which costs more than
        rejected attempts do whose steps multiply no matrices: lanes of such steps visit all.
        """
        if self.recorder.integrator.lanes > 1 and not tangent.holds_products:
            return span
        return self.recorder.accepted(rows, *span)

    def _blank(self, start: list) -> list:
        """Zeros for the rows of tangents that are kept."""
        kept = _pick(start, _pick(self.keep, self.live))
        return [jnp.zeros((self.recorder.rows + 1, *x.shape), x.dtype) for x in kept]

    def windows(self, record: Tape, start: list) -> tuple[list, list]:
        """A walk over the parts of the tape's windows, and in each over its repeated rows."""
        live = [d is not None for d in self.d_consts]
        kept_flags = _pick(self.keep, self.live)
        blank = self._blank(start)

        def over_part(record: Tape, part: Part, consts: Any, carry: Any, d_consts: Any) -> Any:
            dots, d_rows = carry
            rows = replay_part(self.recorder, self.end, consts[0], record, part)
            d_consts = _spread(d_consts, live)
            place = (record, part.first, part.n)
            out, found = self._walk(rows, place, consts, d_consts, list(dots))
            # The tape's own rows have tangents too: all of them, or the windows' first ones.
            row = part.row
            if self.recorder.splits:
                row = jnp.where(part.skipped > 0, self.recorder.rows, row)
            d_rows = [
                jnp.where(record.thinned, put_row(old, first, row), new)
                for old, first, new in zip(d_rows, _pick(dots, kept_flags), found, strict=True)
            ]
            return tuple(out), tuple(d_rows)

        end, d_rows = walk_over_parts(
            self.recorder,
            record,
            over_part,
            consts=self.consts,
            carry=(tuple(start), tuple(blank)),
            linear_consts=tuple(_pick(self.d_consts, live)),
            linear=True,
        )
        return list(end), list(d_rows)


def _with_next(rows: TapeRow) -> tuple[TapeRow, Any]:
    """The rows, and the numbers of output rows after each attempt: the next row's `lo`."""
    return rows, jnp.roll(rows.whole, -1, axis=0)


def _replay_tangent(integrator: Integrator, rows: tuple, consts: tuple, carried: tuple) -> Any:
    data, safe_point, ends = consts
    (row, after), made = rows
    past = (*ends, *made) if made else None
    channels = len(integrator.output.channels)
    ends = row._replace(whole=after).lo(channels)
    each = zip(row.lo(channels), ends, strict=True)
    cursors = tuple(Cursor(lo, jnp.maximum(end - lo, 0)) for lo, end in each)
    return replay(integrator, data, safe_point, row, cursors, carried, past)


def first_carry(
    integrator: Integrator,
    recorder: Recorder | None,
    safe_point: SafePoint,
    data: Data,
    state: Any,
) -> tuple[Any, list, list]:
    """The method's memory, the rows of output and the history before the first step, evaluated at
    finite values, so that the zero derivative of an unused NaN does not become NaN.
    """
    past = empty_history(integrator, data, recorder)
    form, method, _ = integrator.parts(with_held(data, state.held), past)
    method = method if past is None else method.knowing(form.shape.filled(0.0))
    t, y = with_known_value(safe_point[0], state.t), with_known_value(safe_point[1], state.y)
    memory = method.init(right_limit_form(integrator, data, form, t), t, y)
    finite = jax.lax.stop_gradient(jnp.where(jnp.isfinite(state.y), state.y, 0))
    state = eqx.tree_at(lambda s: s.y, state, with_known_value(finite, state.y))
    return memory, blank_buffers(integrator, data, state), [] if past is None else past.rows


def blank_like(function: Any, *args: Any) -> Any:
    """Zeros in the shape of a function's result; their values enter no derivative."""
    shapes = jax.eval_shape(function, *args)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def first_tangents(tree: Any, first: Any, leaves: list, dots: list, like: Any) -> list:
    """The tangents of the result of `first`, the carry before the first step, as a flat list."""
    live = [d is not None for d in dots]
    inexact = [jnp.issubdtype(x.dtype, jnp.inexact) for x in jax.tree.leaves(like)]
    if not inexact or not any(live):
        return [None] * len(inexact)

    def flat(*xs: Any) -> list[Array]:
        full = [x if new is None else new for x, new in zip(leaves, _spread(xs, live), strict=True)]
        return _pick(jax.tree.leaves(first(*jax.tree.unflatten(tree, full))), inexact)

    points = _pick(leaves, live)
    jaxpr = jax.make_jaxpr(flat)(*points)
    found = push_tangent(jaxpr_as_fun(jaxpr), points, _pick(dots, live))
    # A zero tangent is None, or an array without a batch axis would get a tangent with one.
    moves = dependents(jaxpr, [True] * len(points))
    found = [d if f else None for d, f in zip(found, moves, strict=True)]
    return _spread(found, inexact)

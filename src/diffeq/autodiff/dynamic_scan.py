"""`walk`: a scan of dynamic length over preallocated rows, closed under every transformation.

For i = 0 … n − 1, with j = lo + i (or counted down from lo + n − 1 when `reverse`),

    carry, buffers[j] =
        step(active, rows[j], consts, carry, linear_consts, linear_rows[j], buffers[j])

`lo` may be a list of rows instead, of `length` numbers: then j = lo[i], for i = 0 … n − 1 or from
n − 1 down, and no row is in it twice.

The jvp of a walk is a walk, the transpose of a linear walk is the reversed walk, and the batch of
a walk is a walk, so that every mode and every order of derivative follows from this file.
Operands come in six groups:

* `rows`, `consts`: residual. The step may be non-linear in them. Rows are read at j.
* `carry`: goes from step to step.
* `linear_consts`, `linear_rows`: enter linearly; their transposes accumulate.
* `buffers`: read, then written in place at j; a row that is not visited stays as it was.
  `linear_rows` transpose to buffers that start from zero, and buffers to buffers.

`fresh` promises that nobody, `step` included, looks at what was in a row before it was visited.
Cotangents of buffers are then only read; without it, visited rows have to be cleared in place.
A step that by itself leaves the carry of an idle lane alone need not be `masked`.

A carry may be `stable`: a table whose rows, where a step reads them, are already what they will be
at the end (it is only written where nobody has read, or only added to where nobody has read yet).
A derivative then needs no record of it, step by step: what it is at the end serves for all steps.

A walk that `keeps` records, for its derivative, the arrays that each step computes on the way to
its result; another one has only the carries recorded, and its derivative computes the rest again.

A walk whose `linear` flag is set is linear in the last four groups together; one without may be
non-linear in all of them, and has a jvp but no transpose.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..core.split import split_by_sizes
from .accumulators import accumulate_inside
from .batch_last import lanes_last, over_lanes
from .jax_internals import (
    Equation,
    ShapedArray,
    bound,
    carry_filled,
    contains,
    define,
    dependents,
    influences,
    input_types,
    instantiate,
    is_key,
    is_unknown,
    is_zero,
    jaxpr_as_fun,
    known_inputs,
    name_of,
    output_types,
    parameters,
    push_moving,
    rearranged,
    shape_of,
    staged,
    trace,
    zero_like,
    zero_tangent,
)
from .network_layers import PRODUCTS
from .residuals import Linearized, keep_residuals
from .reverse_control_flow import linear_inputs, loops_named, transposable
from .row_buffers import read, unset, write
from .tables import drop_writes, in_place
from .transposed_weights import with_transposed_weights

_WIDE = 256  # numbers in a row

GROUPS = ("rows", "consts", "carry", "linear_consts", "linear_rows", "buffers")


def walk(
    step: Any,
    lo: Any,
    n: Any,
    *,
    rows: Any = (),
    consts: Any = (),
    carry: Any = (),
    linear_consts: Any = (),
    linear_rows: Any = (),
    buffers: Any = (),
    length: int,
    linear: bool = False,
    reverse: bool = False,
    fresh: bool = True,
    masked: bool = True,
    stable: Sequence[bool] = (),
    keeps: bool = False,
) -> tuple[Any, Any]:
    """Runs `step(active, rows_j, consts, carry, linear_consts, linear_rows_j, buffers_j)`.

    Every group is a pytree of arrays; `length` is the number of rows (static), `lo` and `n` are
    integers (traced), and `lo` may be a list of rows. What `step` closes over joins `consts`.
    `stable` flags leaves of the carry, the first ones. Returns the last carry and the buffers.

    >>> import jax.numpy as jnp
    >>> double = lambda active, row, const, c, *_: (2 * c, (c,))
    >>> walk(double, 0, 3, carry=jnp.array(1.0), buffers=(jnp.zeros(4),), length=4)
    (Array(8., dtype=float32), (Array([1., 2., 4., 0.], dtype=float32),))
    """
    groups = (rows, consts, carry, linear_consts, linear_rows, buffers)
    flat, trees = zip(
        *(jax.tree.flatten(jax.tree.map(jnp.asarray, g)) for g in groups), strict=True
    )
    sizes = [len(group) for group in flat]

    def flat_step(active: Any, *xs: Any) -> list:
        parts = [
            jax.tree.unflatten(t, x) for t, x in zip(trees, split_by_sizes(xs, sizes), strict=True)
        ]
        carry, written = step(active, *parts)
        return [*jax.tree.leaves(carry), *jax.tree.leaves(written)]

    is_row = (True, False, False, False, True, True)
    avals = [
        _row_shape(x) if r else shape_of(x)
        for r, group in zip(is_row, flat, strict=True)
        for x in group
    ]
    avals = [jax.ShapeDtypeStruct((), bool), *avals]
    jaxpr, closed_over = bound(flat_step, *avals)
    if closed_over:
        closed_over = [*map(jnp.asarray, closed_over)]
        jaxpr = _consts_after_rows(jaxpr, len(closed_over), sizes[0])
        flat = (flat[0], [*closed_over, *flat[1]], *flat[2:])
    out = _bind(
        lo,
        n,
        flat,
        step=jaxpr,
        lanes=(),
        length=length,
        linear=linear,
        reverse=reverse,
        fresh=fresh,
        masked=masked,
        stable=(*stable, *(False,) * (sizes[2] - len(stable))),
        keeps=keeps,
    )
    out_carry, out_buffers = split_by_sizes(out, (sizes[2], sizes[5]))
    return jax.tree.unflatten(trees[2], out_carry), jax.tree.unflatten(trees[5], out_buffers)


def _consts_after_rows(jaxpr: Any, extra: int, rows: int) -> Any:
    """Re-orders the inputs (closed…, active, rows, …) to (active, rows, closed…, …)."""
    cut, count = extra + 1 + rows, len(input_types(jaxpr))
    order = [*range(extra, cut), *range(extra), *range(cut, count)]
    return rearranged(jaxpr, order, [input_types(jaxpr)[i] for i in order])


def _row_shape(x: Any) -> jax.ShapeDtypeStruct:
    x = shape_of(x)
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)


def _bind(lo: Any, n: Any, groups: Sequence, *, shared: Any = None, **params: Any) -> list:
    sizes = tuple(len(group) for group in groups)
    shared = (False,) * sizes[0] if shared is None else shared
    lo, n = (jnp.asarray(x, jnp.int32) for x in (lo, n))
    flat = [x for group in groups for x in group]
    return walk_p.bind(lo, n, *flat, sizes=sizes, shared=shared, **params)


# --- running it ---------------------------------------------------------------------------------


def _fetch(row: Any, j: Any, shared: bool = False) -> Any:
    """Row j; of a row that lanes share, a copy for each of them."""
    if shared and j.ndim:
        return jnp.moveaxis(row[j], range(j.ndim), range(-j.ndim, 0))
    return read(row, j)


def _read_once(row: Array) -> Array:
    """A row behind a barrier: a linear step uses it in many places, and the compiler would read it
    in each. A wide one would be copied for that, where reading it again costs no more.
    """
    return row if row.size > _WIDE else lax.optimization_barrier(row)


def _implementation(
    lo: Any,
    n: Any,
    *xs: Any,
    step: Any,
    sizes: Any,
    shared: Any,
    lanes: Any,
    length: int,
    linear: bool,
    reverse: bool,
    fresh: bool,
    masked: bool,
    stable: Any,
    keeps: bool,
) -> list:
    del masked, stable, keeps
    rows, consts, carry, linear_consts, linear_rows, buffers = split_by_sizes(xs, sizes)
    step, of_tables = carry_filled(step, _filled_buffers)
    tables = [unset(x.shape, x.dtype) for x in of_tables]
    step, transposes = with_transposed_weights(step, xs, range(sizes[0], sizes[0] + sizes[1]))
    run = staged(step)
    last = jnp.max(n, initial=0) if lanes else n  # there may be no lane

    def place(i: Any) -> Any:
        clipped = lambda j: jnp.clip(j, 0, max(length - 1, 0))  # noqa: E731
        i = n - 1 - i if reverse else i
        is_list = lo.ndim > len(lanes)
        j = clipped(read(lo, clipped(i)) if is_list else lo + i)
        # Behind a barrier it is found once, and not in each kernel that reads a row of a buffer.
        return j if lanes else lax.optimization_barrier(j)

    def body(state: Any) -> Any:
        i, carry, buffers, tables = state
        j = place(i)
        active = i < n
        here = [_fetch(r, j, s) for r, s in zip(rows, shared, strict=True)]
        linear_here = [_fetch(r, j) for r in linear_rows]
        if linear and not lanes:
            here, linear_here = jax.tree.map(_read_once, (here, linear_here))
        old = [zero_like(_row_shape(b)) if fresh else _fetch(b, j) for b in buffers]
        out = run(
            active, *here, *consts, *carry, *linear_consts, *linear_here, *old, *tables, *transposes
        )
        carry, written, tables = split_by_sizes(out, (len(carry), len(buffers), len(tables)))
        # A lane that is done writes past the end, which drops it.
        at = jnp.where(active, j, length) if lanes else j
        buffers = [write(b, v, at) for b, v in zip(buffers, written, strict=True)]
        return i + 1, carry, buffers, tables

    state = (jnp.zeros((), jnp.int32), carry, buffers, tables)
    _, carry, buffers, _ = lax.while_loop(lambda s: s[0] < last, body, state)
    return [*carry, *buffers]


def _filled_buffers(equation: Equation) -> Sequence[tuple[int, int]]:
    """The buffers of a walk inside of a step that it fills from the first row to the last, as
    operands and as results.

    A table that is filled and then read, as that of the residuals of stages, is carried from step
    to step: one made in each step would be filled with zeros each time.
    """
    if name_of(equation) != "walk":
        return []
    params, (lo, n, *_) = parameters(equation), known_inputs(equation)
    # None, of what is not known, is neither; nor is a list of rows.
    whole = np.ndim(lo) == 0 and lo == 0 and n == params["length"]
    if not whole or not params["fresh"] or params["lanes"]:
        return []
    sizes, types = params["sizes"], output_types(equation)
    places = ((2 + sum(sizes[:5]) + i, sizes[2] + i) for i in range(sizes[5]))
    return [(i, o) for i, o in places if not is_key(types[o])]


def _abstract(lo: Any, n: Any, *xs: Any, sizes: Any, **params: Any) -> list:
    del lo, n, params
    parts = split_by_sizes(xs, sizes)
    return [ShapedArray(x.shape, x.dtype) for x in (*parts[2], *parts[5])]


# --- its derivative -----------------------------------------------------------------------------


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(shape_of(x).dtype, jnp.inexact)


def _active_groups(step: Any, groups: Sequence, tangents: Sequence) -> list[list[bool]]:
    """Which operands carry a tangent; the carry's and the buffers' flags are a fixed point."""
    flags = [
        [not is_zero(t) and _is_inexact(x) for x, t in zip(g, ts, strict=True)]
        for g, ts in zip(groups, tangents, strict=True)
    ]
    # What a step is given and makes nothing of: the parameters, where it writes a row.
    uses = split_by_sizes(influences(step, derivatives=True)[1:], [len(g) for g in groups])
    for g in (0, 1, 3, 4):
        flags[g] = [f and u for f, u in zip(flags[g], uses[g], strict=True)]
    while True:
        out = dependents(step, [False, *(f for group in flags for f in group)])
        carry, buffers = split_by_sizes(out, (len(groups[2]), len(groups[5])))
        grown = [
            [f or (o and _is_inexact(x)) for f, o, x in zip(flags[g], outs, groups[g], strict=True)]
            for g, outs in ((2, carry), (5, buffers))
        ]
        if grown == [flags[2], flags[5]]:
            return flags
        flags[2], flags[5] = grown


def _select_flagged(xs: Sequence, flags: Sequence[bool]) -> list:
    return [x for x, flag in zip(xs, flags, strict=True) if flag]


def _jvp(
    primals: Sequence,
    tangents: Sequence,
    *,
    step: Any,
    sizes: Any,
    linear: bool,
    stable: Any,
    **params: Any,
) -> Any:
    lo, n, *xs = primals
    groups, dots = split_by_sizes(xs, sizes), split_by_sizes(tangents[2:], sizes)
    shared = params.pop("shared")
    flags = _active_groups(step, groups, dots)
    if linear and not any(flags[0] + flags[1]):
        live = [
            [instantiate(t, x) for x, t in zip(g, ts, strict=True)]
            for g, ts in zip(groups[2:], dots[2:], strict=True)
        ]
        params = {**params, "step": step, "shared": shared, "linear": True, "stable": stable}
        out = _bind(lo, n, groups, **params)
        dot = _bind(lo, n, [*groups[:2], *live], **params)
        return out, dot
    keeps = params["keeps"] and not linear and not params["lanes"]
    kept = _kept_residuals(step, sizes, flags, params["length"]) if keeps else None
    tangent_step, used = _tangent_step(step, sizes, flags, stable, kept)
    recording, lasting = _split_stable(used[2], stable)
    step, residuals = (step, []) if kept is None else (kept.step, kept.residuals)
    params |= {"stable": stable, "linear": linear}
    out, recorded, residual_rows = _recorded(
        lo, n, groups, recording, residuals, step=step, shared=shared, **params
    )
    in_rows = used[0] + recording + used[4] + used[5]
    residual_rows += _select_flagged([*groups[0], *recorded, *groups[4], *groups[5]], in_rows)
    kept_shared = [False for _ in residuals]
    kept_shared += _select_flagged(
        [*shared, *(False for g in (2, 4, 5) for _ in groups[g])], in_rows
    )
    residual_consts = _select_flagged(
        [*groups[1], *groups[3], *out[: sizes[2]]], used[1] + used[3] + lasting
    )
    moving = [_moving(ts, xs, f) for ts, xs, f in zip(dots, groups, flags, strict=True)]
    own = zip(moving[0], _select_flagged(shared, flags[0]), strict=True)
    moving[0] = [_copy_per_lane(t, n) if s else t for t, s in own]
    dot = _bind(
        lo,
        n,
        [
            residual_rows,
            residual_consts,
            moving[2],
            moving[1] + moving[3],
            moving[0] + moving[4],
            moving[5],
        ],
        step=tangent_step,
        shared=tuple(kept_shared),
        **{**params, "linear": True, "stable": tuple(_select_flagged(stable, flags[2]))},
    )
    found = iter(dot)
    return out, [
        next(found) if flag else zero_tangent(x)
        for x, flag in zip((*groups[2], *groups[5]), flags[2] + flags[5], strict=True)
    ]


def _moving(tangents: Sequence, group: Sequence, flags: Sequence[bool]) -> list:
    """The tangents of the flagged operands of a group, as arrays."""
    return [instantiate(t, x) for t, x, f in zip(tangents, group, flags, strict=True) if f]


def _kept_residuals(
    step: Any, sizes: Sequence[int], flags: Sequence, length: int
) -> Linearized | None:
    """The step of a walk with its residuals; rows, carries and buffers differ from step to step."""
    live = [f for group in flags for f in group]
    moving = [g in {0, 2, 4, 5} for g, size in enumerate(sizes) for _ in range(size)]
    return keep_residuals(step, live, flags[2] + flags[5], moving, length)


def _split_stable(used: Sequence[bool], stable: Sequence[bool]) -> tuple[list, list]:
    """Of the carries that are used: those to be recorded at each step, and those that last."""
    each = list(zip(used, stable, strict=True))
    return [u and not s for u, s in each], [u and s for u, s in each]


def _copy_per_lane(row: Any, n: Any) -> Any:
    """A shared row's tangent, one copy a lane: per-lane positions must not add up in place."""
    return jnp.broadcast_to(row[(..., *(None,) * n.ndim)], (*row.shape, *n.shape))


def _recorded(
    lo: Any,
    n: Any,
    groups: Sequence,
    wanted: Sequence[bool],
    residuals: Sequence[jax.ShapeDtypeStruct] = (),
    *,
    step: Any,
    shared: Any,
    **params: Any,
) -> tuple[list, list, list]:
    """The walk itself; for each wanted carry the rows of its values at the start of a step; and the
    rows of the residuals, which a step returns after its buffers.
    """
    sizes = tuple(len(g) for g in groups)
    carry = groups[2]
    if not any(wanted) and not residuals:
        return _bind(lo, n, groups, step=step, shared=shared, **params), carry, []
    kept = _select_flagged(carry, wanted)
    run = jaxpr_as_fun(step)

    def with_carry(active: Any, *xs: Any) -> list:
        parts = split_by_sizes(xs, (*sizes, len(residuals) + len(kept)))
        return [*run(active, *xs[: sum(sizes)]), *_select_flagged(parts[2], wanted)]

    further = [*residuals, *map(shape_of, kept)]
    avals = [*input_types(step), *further]
    blank = [jnp.zeros((params["length"], *x.shape), x.dtype) for x in further]
    extended = [*groups[:5], [*groups[5], *blank]]
    out = _bind(lo, n, extended, step=trace(with_carry, *avals), shared=shared, **params)
    values, of_residuals, rows = split_by_sizes(
        out, (len(out) - len(blank), len(residuals), len(kept))
    )
    rows = iter(rows)
    recorded = [next(rows) if w else c for c, w in zip(carry, wanted, strict=True)]
    return values, recorded, of_residuals


def _tangent_step(
    step: Any,
    sizes: Sequence[int],
    flags: Sequence,
    stable: Sequence[bool],
    kept: Linearized | None = None,
) -> tuple[Any, list]:
    """The tangent step, (active, residual rows, residual consts, tangents…) → tangents. The rows
    begin with the residuals that are `kept`, if any are.

    Only operands that it uses are kept, so that no carry is recorded for nothing. Those that are
    stable come last of the constants.
    """
    run = jaxpr_as_fun(drop_writes(step) if any(stable) else step)
    flat_flags = [f for group in flags for f in group]
    out_flags = flags[2] + flags[5]
    active_aval, *avals = input_types(step)
    live_avals = _select_flagged(avals, flat_flags)

    def tangent(active: Any, primals: Sequence, residuals: Sequence, dots: Sequence) -> list:
        if kept is not None:
            return jaxpr_as_fun(kept.tangent)(active, *primals, *residuals, *dots)

        def outputs(*xs: Any) -> list:
            return _select_flagged(run(active, *xs), out_flags)

        return push_moving(outputs, primals, flat_flags, dots)[1]

    residuals = [] if kept is None else kept.residuals
    jaxpr = trace(tangent, active_aval, list(avals), residuals, live_avals)
    used = split_by_sizes(influences(jaxpr)[1 : 1 + len(avals)], sizes)
    groups = split_by_sizes(avals, sizes)
    recording, lasting = _split_stable(used[2], stable)
    # Residual rows first, then residual constants: a group, and which of it.
    order = (
        (0, used[0]),
        (2, recording),
        (4, used[4]),
        (5, used[5]),
        (1, used[1]),
        (3, used[3]),
        (2, lasting),
    )
    operands = [a for g, which in order for a in _select_flagged(groups[g], which)]
    live = split_by_sizes(live_avals, [sum(f) for f in flags])
    moving_order = (2, 1, 3, 0, 4, 5)  # carry, linear consts, linear rows, buffers
    evaluate = jaxpr_as_fun(jaxpr)

    def pruned(active: Any, *xs: Any) -> list:
        found = iter(xs)
        given = [next(found) for _ in residuals]
        primals: list = [[None] * len(group) for group in groups]
        for g, which in order:
            primals[g] = [next(found) if w else x for w, x in zip(which, primals[g], strict=True)]
        primals = [
            [zero_like(a) if x is None else x for a, x in zip(group, xs, strict=True)]
            for group, xs in zip(groups, primals, strict=True)
        ]
        dots: list = [None] * 6
        for g in moving_order:
            dots[g] = [next(found) for _ in live[g]]
        flat = [x for group in primals for x in group]
        return evaluate(active, *flat, *given, *[d for g in dots for d in g])

    moving = [a for g in moving_order for a in live[g]]
    return trace(pruned, active_aval, *residuals, *operands, *moving), used


def _transpose(
    cotangents: Sequence,
    lo: Any,
    n: Any,
    *xs: Any,
    step: Any,
    sizes: Any,
    linear: bool,
    reverse: bool,
    length: int,
    fresh: bool,
    stable: Any,
    **params: Any,
) -> list:
    if not linear:
        raise NotImplementedError("only a linear walk has a transpose")
    groups = split_by_sizes(xs, sizes)
    unknown = [[is_unknown(x) for x in g] for g in groups]
    ct_carry, ct_buffers = split_by_sizes(
        [instantiate(t, x) for t, x in zip(cotangents, (*groups[2], *groups[5]), strict=True)],
        (sizes[2], sizes[5]),
    )
    sums = [zero_like(k) for k in _select_flagged(groups[3], unknown[3])]
    blank = [zero_like(r) for r in _select_flagged(groups[4], unknown[4])]
    cleared = [u and not fresh for u in unknown[5]]
    written, read = (
        _select_flagged(ct_buffers, cleared),
        _select_flagged(ct_buffers, [not c for c in cleared]),
    )
    out = _bind(
        lo,
        n,
        [groups[0], groups[1], [*ct_carry, *sums], [], read, [*blank, *written]],
        step=_transposed_step(step, sizes, unknown, cleared),
        linear=True,
        reverse=not reverse,
        length=length,
        fresh=fresh,
        stable=(*stable, *(False for _ in sums)),
        **params,
    )
    d_carry, d_consts, d_rows, d_buffers = (
        iter(g) for g in split_by_sizes(out, (sizes[2], len(sums), len(blank), len(written)))
    )
    d_carry = [d if u else None for d, u in zip(d_carry, unknown[2], strict=True)]
    rest = [
        next(found) if u else None
        for found, us in ((d_consts, unknown[3]), (d_rows, unknown[4]))
        for u in us
    ]
    passed = [
        (next(d_buffers) if c else ct) if u else None
        for ct, u, c in zip(ct_buffers, unknown[5], cleared, strict=True)
    ]
    return [None, None, *[None] * (sizes[0] + sizes[1]), *d_carry, *rest, *passed]


def _transposed_step(
    step: Any, sizes: Sequence[int], unknown: Sequence, cleared: Sequence[bool]
) -> Any:
    """(active, rows, consts, λ and sums, –, read ct rows, (blank, ct) rows) → the step before."""
    run = jaxpr_as_fun(step)
    active_aval, *avals = input_types(step)
    kinds = split_by_sizes(avals, sizes)
    sums, blank = _select_flagged(kinds[3], unknown[3]), _select_flagged(kinds[4], unknown[4])
    written, read = (
        _select_flagged(kinds[5], cleared),
        _select_flagged(kinds[5], [not c for c in cleared]),
    )
    counts = (sizes[0], sizes[1], sizes[2], len(sums), len(read), len(blank), len(written))

    def transposed(active: Any, *xs: Any) -> list:
        rows, consts, lam, acc, ct_read, _, ct_written = split_by_sizes(xs, counts)
        found_w, found_r = iter(ct_written), iter(ct_read)
        ct_rows = [next(found_w) if c else next(found_r) for c in cleared]

        def linear_part(*live: Any) -> list:
            values = iter(live)
            moves = ([True] * sizes[2], unknown[3], unknown[4], cleared)
            fill = [
                next(values) if m else zero_like(a)
                for g, ms in zip((2, 3, 4, 5), moves, strict=True)
                for a, m in zip(kinds[g], ms, strict=True)
            ]
            return run(active, *rows, *consts, *fill)

        live = [*kinds[2], *sums, *blank, *written]
        back = jax.linear_transpose(linear_part, *live)([*lam, *ct_rows])
        d_carry, d_sums, d_rows, d_buffers = split_by_sizes(
            back, (sizes[2], len(sums), len(blank), len(written))
        )
        return [*d_carry, *[a + d for a, d in zip(acc, d_sums, strict=True)], *d_rows, *d_buffers]

    avals = [*kinds[0], *kinds[1], *kinds[2], *sums, *read, *blank, *written]
    with loops_named(lambda: (step, linear_inputs(sizes))):
        return accumulate_inside(in_place(trace(transposed, active_aval, *avals)))


# --- many at once -------------------------------------------------------------------------------


def _batch(
    size: int,
    operands: Sequence,
    axes: Sequence,
    *,
    step: Any,
    sizes: Any,
    shared: Any,
    lanes: Any,
    **params: Any,
) -> Any:
    """Lanes go last. While lo and n are common, the batch is the same walk of a wider step.

    Otherwise each lane reads and writes its own rows, and steps past its own n do nothing.
    """
    lo, n, *xs = operands
    groups, dims = split_by_sizes(xs, sizes), split_by_sizes(axes[2:], sizes)
    own = bool(lanes) or axes[0] is not None or axes[1] is not None
    forced = (False, False, True, False, own, True)
    keep = [s or (own and not lanes and d is None) for s, d in zip(shared, dims[0], strict=True)]
    mapped = [[d is not None or forced[g] for d in dims[g]] for g in range(6)]
    if own:
        lo, n = (lanes_last(x, a, size, force=True) for x, a in zip((lo, n), axes[:2], strict=True))
        mapped[0] = [not s or d is not None for s, d in zip(keep, dims[0], strict=True)]
        keep = [s and not m for s, m in zip(keep, mapped[0], strict=True)]
    wide = [
        [
            lanes_last(x, d, size, force=m)
            for x, d, m in zip(groups[g], dims[g], mapped[g], strict=True)
        ]
        for g in range(6)
    ]
    in_axes = [[-1 if m or (own and g == 0) else None for m in mapped[g]] for g in range(6)]
    masks = own and not lanes and params["masked"]
    wide_step = _widened(
        step,
        size,
        sizes,
        in_axes,
        active=-1 if own else None,
        mask=masks,
    )
    if params["linear"]:
        wide_step = transposable(wide_step, step, linear_inputs(sizes))
    new_lanes = (*lanes, size) if own else lanes
    out = _bind(lo, n, wide, step=wide_step, shared=tuple(keep), lanes=new_lanes, **params)
    return out, [x.ndim - 1 for x in out]


def _widened(
    step: Any, size: int, sizes: Sequence[int], in_axes: Sequence, *, active: int | None, mask: bool
) -> Any:
    run = over_lanes(step, size)
    flags = [active is not None, *[a is not None for g in in_axes for a in g]]
    avals = [
        jax.ShapeDtypeStruct((*a.shape, size), a.dtype) if flag else a
        for a, flag in zip(input_types(step), flags, strict=True)
    ]

    def wide(active: Any, *xs: Any) -> list:
        out, found = run(flags, [active, *xs])
        out = [
            lanes_last(x, None if not f else -1, size, force=True)
            for x, f in zip(out, found, strict=True)
        ]
        if not mask:
            return out
        # Masked here, not only where it is written: the transpose must see that an idle lane
        # passes its carry and its rows through and adds nothing to the sums.
        parts = split_by_sizes(xs, sizes)
        return [jnp.where(active, a, b) for a, b in zip(out, (*parts[2], *parts[5]), strict=True)]

    return trace(wide, *avals)


walk_p = define("walk", _implementation, _abstract, jvp=_jvp, transpose=_transpose, batch=_batch)


# --- the derivative of a recorded run -----------------------------------------------------------


class Tangent:
    """The tangent of `carry = step(row, consts, carry)`, to be walked along recorded carries.

    `const_tangents` and `carry_tangents` are flat lists with None where a tangent is zero; `live`
    says which leaves of the carry ever have one, and `stable` which are tables that need no record.
    """

    def __init__(
        self,
        step: Any,
        row: Any,
        consts: Any,
        carry: Any,
        const_tangents: Sequence,
        carry_tangents: Sequence,
        stable: Sequence[bool] | None = None,
    ) -> None:
        flat, trees = zip(*(jax.tree.flatten(g) for g in (row, consts, carry)), strict=True)
        self.groups = [*(list(map(shape_of, f)) for f in flat), [], [], []]
        self.sizes = tuple(len(g) for g in self.groups)

        def flat_step(active: Any, *xs: Any) -> list:
            del active
            parts = [
                jax.tree.unflatten(t, x)
                for t, x in zip(trees, split_by_sizes(xs, self.sizes[:3]), strict=True)
            ]
            return jax.tree.leaves(step(*parts))

        avals = [a for group in self.groups for a in group]
        jaxpr = trace(flat_step, jax.ShapeDtypeStruct((), bool), *avals)
        dots = [[None] * self.sizes[0], list(const_tangents), list(carry_tangents), [], [], []]
        self.flags = _active_groups(jaxpr, self.groups, dots)
        self.stable = [False] * self.sizes[2] if stable is None else list(stable)
        self.step, self.used = _tangent_step(jaxpr, self.sizes, self.flags, self.stable)
        self.live = self.flags[2]

    @property
    def holds_products(self) -> bool:
        """True if a step multiplies matrices, or convolves: it does much for each number that it
        reads.
        """
        return contains(self.step, *PRODUCTS)

    def start(self, carry_tangents: Sequence) -> list:
        """The live tangents of the first carry, as arrays."""
        return [
            instantiate(t, a)
            for t, a, f in zip(carry_tangents, self.groups[2], self.live, strict=True)
            if f
        ]

    def run(  # noqa: PLR0917 - the groups of a walk
        self,
        n: Any,
        rows: Any,
        consts: Any,
        recorded: Sequence,
        const_tangents: Sequence,
        start: Sequence,
        keep: Sequence[bool],
        length: int,
        lo: Any = 0,
    ) -> tuple[list, list]:
        """Walks n rows, from row lo on, from the live tangents `start`: the last ones, and for
        leaves of the carry flagged by `keep` the rows of their tangents. `recorded` has None where
        carries only pass, and what it is at the end where one is stable.
        """
        if any(u and r is None for u, r in zip(self.used[2], recorded, strict=True)):
            raise AssertionError("a carry that was not recorded enters a derivative")
        flat_rows, flat_consts = jax.tree.leaves(rows), jax.tree.leaves(consts)
        recording, lasting = _split_stable(self.used[2], self.stable)
        residual = [
            *_select_flagged(flat_rows, self.used[0]),
            *_select_flagged(recorded, recording),
        ]
        constant = [
            *_select_flagged(flat_consts, self.used[1]),
            *_select_flagged(recorded, lasting),
        ]
        moving = _select_flagged(const_tangents, self.flags[1])
        groups = [residual, constant, list(start), moving, [], []]
        wanted = _select_flagged(keep, self.live)
        out, kept, _ = _recorded(
            lo,
            n,
            groups,
            wanted,
            step=self.step,
            shared=(False,) * len(residual),
            linear=True,
            lanes=(),
            length=length,
            reverse=False,
            fresh=True,
            masked=True,
            stable=tuple(_select_flagged(self.stable, self.live)),
            keeps=False,
        )
        return out, _select_flagged(kept, wanted)

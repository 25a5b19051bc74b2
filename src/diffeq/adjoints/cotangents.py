"""Cotangents of rows become adjoint jumps of a backward solve; its end, cotangents of the
inputs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ..controllers.tolerance import Tolerance
from ..core.norm import magnitude, mean_square
from ..core.status import Status
from ..integrator import left_of, right_of
from ..output import Channel
from .backward_solve import DRIFTED, AdjointIntegrator, BackwardSolve, BackwardStart, Nodes
from .base import is_inexact, raise_if, size_of
from .forward_result import AdjointContext, ForwardResult

__all__ = ["backward"]


def backward(setting: AdjointContext, kept: ForwardResult, cotangents: list) -> list:
    """The cotangents of the perturbed inputs, from those of t and y at the end and of all rows."""
    ct_t, ct_y, *ct_rows = cotangents
    rows = [
        _channel_cotangents(setting, kept, i, cts)
        for i, cts in enumerate(_per_channel(setting, ct_rows))
    ]
    nodes, places = _nodes(setting, kept, rows)
    origin = _origin(setting, kept, ct_y, nodes)
    tolerances = _tolerances(setting, kept, origin.lam, [row.jumps for row in rows])
    back = AdjointIntegrator(setting, kept, origin, nodes, tolerances)
    solve = setting.adjoint.solve_backwards(back)
    found = _cotangents(setting, kept, (ct_t, ct_y), rows, back, solve, places)
    return _mask_failed(setting, solve, cotangents, found)


class ChannelCotangents(NamedTuple):
    """The rows of a channel: flags of those that were reached, the cotangent of y at each (the
    adjoint jump), and the direct terms of the cotangents of the perturbed parameters and the times.
    """

    real_mask: Array
    jumps: Array
    parameters: list
    times: Any


def _per_channel(setting: AdjointContext, cotangents: list) -> list[list]:
    """The cotangents of rows: for each channel a list, one for each array of a row (None for
    integers).
    """
    found, out = iter(cotangents), []
    for channel in setting.integrator.output.channels:
        row = jax.eval_shape(channel.value, setting.data, setting.start.t, setting.start.y)
        out.append([next(found) if is_inexact(x) else None for x in row])
    return out


def _channel_cotangents(
    setting: AdjointContext, kept: ForwardResult, i: int, cotangents: list
) -> ChannelCotangents:
    """The cotangents of y, the parameters and the times, from those of a channel's rows."""
    channel, times = setting.integrator.output.channels[i], setting.data.times[i]
    states, there = kept.states[i], jnp.arange(times.shape[0]) < kept.end.written[i]
    moves = setting.live[setting.index[0].times[i]]
    wide = there.reshape(-1, *(1,) * (states.ndim - 1))
    t, y = jnp.where(there, times, kept.end.t), jnp.where(wide, states, kept.end.y)
    parameters, along = [jnp.zeros_like(p) for p in setting.parameters], jnp.zeros_like(times)
    if setting.is_state(channel):
        jumps = cotangents[0]
    else:
        parameters, along, jumps = _pull_through_channel(setting, channel, t, y, cotangents)
    jumps = jnp.where(wide, jumps, 0)
    if moves:
        f = jax.vmap(lambda t, y: setting.field(setting.parameters, t, y))(t, y)
        along = along + _real_inner_product(jumps, f, 1)
    return ChannelCotangents(there, jumps, parameters, jnp.where(there, along, 0))


def _pull_through_channel(
    setting: AdjointContext, channel: Channel, t: Array, y: Array, cotangents: list
) -> tuple[list, Array, Array]:
    """The cotangents of (parameters, t, y) through the function that a channel saves of a state."""

    def values(moving: list, t: Array, y: Array) -> list:
        data = setting.with_parameters(moving)
        rows = jax.vmap(lambda t, y: channel.value(data, t, y))(t, y)
        return [x for x in rows if is_inexact(x)]

    _, pull = jax.vjp(values, setting.parameters, t, y)
    return pull([c for c in cotangents if c is not None])


def _real_inner_product(a: Array, b: Array, lead: int = 0) -> Array:
    """Σ a b over all but the leading axes: the cotangent of a real number whose derivative is b."""
    return jnp.sum(jnp.real(a * b), axis=tuple(range(lead, a.ndim)))


# --- nodes ----------------------------------------------------------------------------------------


def _nodes(
    setting: AdjointContext, kept: ForwardResult, rows: list[ChannelCotangents]
) -> tuple[Nodes, Array]:
    """All times at which a step of the backward solve has to end, each once and ascending in σ; and
    the number of the node of each stop.
    """
    further = setting.storage_times()
    count = len(setting.integrator.output.channels)
    first = count + len(further[0])
    times = [*setting.data.times, *further[1]]
    there = [row.real_mask for row in rows]
    there += [
        jnp.arange(t.shape[0]) < n
        for t, n in zip(further[1], kept.end.written[first:], strict=True)
    ]
    if not times:
        blank = jnp.zeros((0,), setting.start.t.dtype)
        return Nodes(blank, None, None), blank
    stacked = jnp.concatenate(
        [jnp.where(ok, -t, jnp.inf) for t, ok in zip(times, there, strict=True)]
    )
    order = jnp.argsort(stacked)
    ordered = stacked[order]
    group = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(ordered[1:] != ordered[:-1])])
    unique = jnp.full_like(ordered, jnp.inf).at[group].set(ordered)
    of_row = jnp.zeros_like(group).at[order].set(group)
    jumps = states = None
    if rows:
        blank = jnp.zeros((stacked.shape[0], *setting.start.y.shape), setting.start.y.dtype)
        lead = sum(t.shape[0] for t in setting.data.times)
        jumps = blank.at[of_row[:lead]].add(jnp.concatenate([row.jumps for row in rows]))
    if setting.adjoint.restores:
        known = jnp.concatenate(kept.states)
        states = jnp.zeros_like(known).at[of_row].set(known)
    lead = sum(t.shape[0] for t in setting.data.times)
    stops = (
        of_row[lead : lead + setting.data.stops.shape[0]]
        if setting.integrator.has_stops
        else of_row
    )
    return Nodes(unique, jumps, states), stops


def _origin(
    setting: AdjointContext, kept: ForwardResult, lam: Array, nodes: Nodes
) -> BackwardStart:
    """The initial values of a backward solve: at the end of the forward solve, after the jump
    there; or, where y is restored and λ is zero at the end, at the last node that has a jump: the
    part of a failed solve that no observation needs is not solved backwards.
    """
    t, y = -kept.end.t, kept.end.y
    if nodes.jumps is None:
        return BackwardStart(t, y, lam)
    has_jump = jnp.any((nodes.jumps != 0).reshape(nodes.jumps.shape[0], -1), axis=-1)
    first = jnp.argmax(has_jump)
    skip = setting.adjoint.restores & jnp.all(lam == 0) & jnp.any(has_jump)
    if nodes.states is not None:
        t, y = jnp.where(skip, nodes.times[first], t), jnp.where(skip, nodes.states[first], y)
    at = jnp.where(skip, first, 0)
    return BackwardStart(t, y, lam + jnp.where(nodes.times[at] == t, nodes.jumps[at], 0))


# --- tolerances -----------------------------------------------------------------------------------


def _tolerances(
    setting: AdjointContext, kept: ForwardResult, lam: Array, jumps: list[Array]
) -> tuple:
    """The tolerance of the unknowns of the backward solve, and that of the integral, per parameter.

    λ is measured in units of the loss over units of y: with ȳ the size of y along the solve and S
    the largest adjoint jump in the units of the loss (the root mean square of jump·ȳ), λ has the
    size S/ȳ, and atol/ȳ of that is its absolute tolerance. So neither a loss in other units, nor
    components of y in other units, change a step. Likewise dL/dp has the size S/p̄.
    """
    adjoint, given = setting.adjoint, setting.data.tolerance
    size = magnitude(kept.end.y)
    for states, n in zip(kept.states, _count_rows(setting, kept), strict=True):
        there = (jnp.arange(states.shape[0]) < n).reshape(-1, *(1,) * (states.ndim - 1))
        rows = jnp.where(there, magnitude(states), 0)
        size = jnp.maximum(size, jnp.max(rows, axis=0, initial=0))
    real = size.dtype
    rtol = given.rtol if adjoint.rtol is None else jnp.asarray(adjoint.rtol, real)
    atol = given.atol if adjoint.atol is None else jnp.asarray(adjoint.atol, real)
    size = size_of(given, size)
    loss = jnp.sqrt(mean_square(magnitude(lam) * size))
    for rows in jumps:
        each = jax.vmap(lambda jump: mean_square(magnitude(jump) * size))(rows)
        loss = jnp.maximum(loss, jnp.sqrt(jnp.max(each, initial=0)))
    loss = jnp.where((loss > 0) & jnp.isfinite(loss), loss, 1)
    of_lam = Tolerance(rtol, (atol / size) * loss / size, True)
    share = jnp.mean(jnp.where(jnp.isfinite(atol), atol, 0) / size)
    of_parameters = [
        Tolerance(jnp.min(rtol), (share * loss / _typical_size(p)).astype(magnitude(p).dtype), True)
        for p in setting.parameters
    ]
    parts = [of_lam]
    if adjoint.augmented:
        parts += of_parameters
    if adjoint.restores:
        parts.append(given)
    return _pack_tolerances(setting, parts), of_parameters


def _count_rows(setting: AdjointContext, kept: ForwardResult) -> list:
    """The number of rows that were reached, of each buffer of states."""
    rows, _ = setting.storage_times()
    count = len(setting.integrator.output.channels)
    written = kept.end.written
    return [*written[:count], *written[count + len(rows) :]]


def _typical_size(p: Array) -> Array:
    """The size of a parameter: its own, or that of its neighbours in an array if that is larger."""
    size = jnp.maximum(magnitude(p), jnp.sqrt(mean_square(p)))
    return jnp.where(size > 0, size, 1)


def _pack_tolerances(setting: AdjointContext, parts: list[Tolerance]) -> Tolerance:
    """The tolerance of the unknowns, packed as one array."""
    y = setting.start.y
    if len(parts) == 1:
        return parts[0]
    like = [y, *(setting.parameters if setting.adjoint.augmented else [])]
    like += [y] if setting.adjoint.restores else []

    def join(name: str) -> Array:
        each = [
            jnp.broadcast_to(getattr(t, name), x.shape).ravel()
            for t, x in zip(parts, like, strict=True)
        ]
        return jnp.concatenate(each)

    return Tolerance(join("rtol"), join("atol"), True)


# --- the end --------------------------------------------------------------------------------------


def _cotangents(
    setting: AdjointContext,
    kept: ForwardResult,
    at_end: tuple,
    rows: list[ChannelCotangents],
    back: AdjointIntegrator,
    solve: BackwardSolve,
    places: Array,
) -> list:
    """The cotangents of all perturbed leaves, in their order."""
    ct_t, ct_y = at_end
    found: dict[int, Any] = {}
    of_data, of_start = setting.index
    lam, *others = back.packing.unpack(solve.state.y)
    total = others[0] if setting.adjoint.augmented else solve.total
    for k, i in enumerate(setting.moving):
        found[i] = sum((row.parameters[k] for row in rows), total[k])
    for i, row in zip(of_data.times, rows, strict=True):
        found[i] = row.times
    slope = lambda t, y: setting.field(setting.parameters, t, y)  # noqa: E731
    found[of_start.y] = lam
    shift = setting.data.shift
    if setting.live[of_start.t]:
        t0 = right_of(setting.start.t, shift) if setting.integrator.has_stops else setting.start.t
        found[of_start.t] = -_real_inner_product(lam, slope(t0, setting.start.y))
    if setting.live[of_data.t1]:
        t1 = left_of(kept.end.t, shift) if setting.integrator.has_stops else kept.end.t
        landed = kept.end.status == Status.success
        found[of_data.t1] = jnp.where(
            landed, ct_t + _real_inner_product(ct_y, slope(t1, kept.end.y)), 0
        )
    if setting.integrator.has_stops and setting.live[of_data.stops]:
        found[of_data.stops] = _stop_cotangents(setting, kept, solve.lam_at_nodes[0][places])
    zero = lambda i: jnp.zeros_like(setting.leaves[i])  # noqa: E731
    return [
        jnp.asarray(found[i] if i in found else zero(i), setting.leaves[i].dtype)
        for i, live in enumerate(setting.live)
        if live
    ]


def _stop_cotangents(setting: AdjointContext, kept: ForwardResult, lam: Array) -> Array:
    """The cotangent λ(s)·(f(s⁻) − f(s⁺)) of each stop s: with a later jump of the field, y follows
    the field before it for longer.
    """
    stops = setting.data.stops
    y = kept.states[len(setting.integrator.output.channels)]
    inside = (stops > setting.start.t) & (stops < kept.end.t)
    wide = inside.reshape(-1, *(1,) * (y.ndim - 1))
    s, y = jnp.where(inside, stops, setting.start.t), jnp.where(wide, y, setting.start.y)
    slope = jax.vmap(lambda t, y: setting.field(setting.parameters, t, y))
    before, after = (side(s, setting.data.shift) for side in (left_of, right_of))
    jump = slope(before, y) - slope(after, y)
    return jnp.where(inside, _real_inner_product(lam, jump, 1), 0)


def _mask_failed(
    setting: AdjointContext, solve: BackwardSolve, cotangents: Sequence, found: list
) -> list:
    """The cotangents of the inputs; NaN when the backward solve failed, zero where all cotangents
    of the outputs are zero.
    """
    status = solve.state.status
    silent = jnp.all(jnp.stack([jnp.all(c == 0) for c in cotangents]))
    bad = (status != Status.success) & ~silent
    sign = setting.integrator.direction or setting.data.sign
    name, allowed = repr(setting.adjoint), getattr(setting.adjoint, "drift", np.inf)

    def sentence(status: ArrayLike, t: ArrayLike, drift: ArrayLike, place: ArrayLike) -> str:
        values = [np.ravel(x)[0] for x in (status, t, drift, place)]
        return _backward_failure_message(name, allowed, int(values[0]), *map(float, values[1:]))

    raise_if(
        setting.integrator,
        bad,
        sentence,
        status,
        -sign * solve.state.t,
        solve.drift,
        -sign * solve.place,
    )
    factor = jnp.where(bad, jnp.nan, 1.0)
    return [jnp.where(silent, 0, x * factor.astype(magnitude(x).dtype)) for x in found]


def _backward_failure_message(
    name: str, allowed: float, status: int, t: float, drift: float, place: float
) -> str:
    if status == DRIFTED:
        return (
            f"{name} has lost y on its way back: at t = {place:.6g} the state that was solved "
            f"backwards differs from the one of the forward solve by {drift:.3g} tolerances, and "
            f"{allowed:g} are allowed. What contracts forwards grows backwards: give more "
            "checkpoints=, or take de.Gauss() or de.Discrete()."
        )
    why = Status(status).reason if status in set(Status) else "it did not reach its end"
    return (
        f"{name} solved λ' = −(∂f/∂y)ᵀλ back to t = {t:.6g} only: {why}. Try de.Discrete(), or "
        "other tolerances of the adjoint (rtol=, atol=)."
    )

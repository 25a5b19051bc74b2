"""Saving: the rows of output that an accepted step fills."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..autodiff.dynamic_scan import walk
from ..autodiff.known_value import with_known_value
from ..core.norm import in_dtype_of
from ..methods import Step
from ..methods.interpolant import TruncatedInterpolant
from ..output import Piece
from .init import Start, events_at_start, with_presampled_noise
from .restart import limited_form
from .state import Attempt, Data, Integrator, State, with_held
from .step import attempt

__all__ = ["blank_buffers", "step_interpolant", "write_rows", "written"]


def write_rows(
    integrator: Integrator, data: Data, t: Array, y: Array, tried: Attempt, buffers: list
) -> list:
    """The buffers with the rows of an attempt from (t, y)."""
    output = integrator.output
    if not output.channels:
        return buffers
    tried = tried if integrator.events else tried._replace(end=None)

    def save(
        active: Array, _: PyTree, consts: tuple, buffers: list, *__: PyTree
    ) -> tuple[list, tuple]:
        del active
        data, t, y, tried = consts
        piece = _piece(integrator, data, t, y, tried)
        marks = data.marks or [()] * len(data.times)
        rows = [(ts, *known) for ts, known in zip(data.times, marks, strict=True)]
        return output.write(data, rows, tried.cursors, piece, buffers), ()

    # A walk of at most one turn: a step in which nothing is saved makes no polynomial. Lanes that
    # save nothing have no rows to write, so that no buffer needs a mask.
    buffers, _ = walk(
        save,
        0,
        output.any(tried.cursors),
        consts=(data, t, y, tried),
        carry=buffers,
        length=1,
        masked=False,
    )
    return buffers


def _piece(integrator: Integrator, data: Data, t: Array, y: Array, tried: Attempt) -> Piece:
    """The part of an attempt that output reads."""
    end, interpolant = tried.end, None if tried.end is None else tried.end.path
    if interpolant is None and tried.inside is not None:
        interpolant = tried.inside.path
    if integrator.output.needs_interpolant and interpolant is None:
        form, method, _ = integrator.parts(data)
        form = limited_form(integrator, data, form, t).over_step(t, tried.dt)
        if integrator.noise:
            form = integrator.noise.bound(form, data.noise, tried.drawn, tried.dt)
        interpolant = method.interpolant(form, t, y, in_dtype_of(tried.dt, y), tried.step)
    if end is None:
        held = (data.held, data.held)
        return Piece(t, tried.t1, y, tried.step.y, tried.dt, interpolant, held)
    dt = end.dt
    if end.path is not None:
        # A crossing that cuts a step moves its end, and leaves the polynomial of the whole.
        dt = with_known_value(dt, tried.t1 - t)
        part = in_dtype_of(dt / jnp.where(tried.dt > 0, tried.dt, 1), end.theta)
        interpolant = TruncatedInterpolant(interpolant, with_known_value(end.theta, part))
    dt = jnp.where(end.dt > 0, dt, 1)
    held, happened = (
        (data.held, end.held),
        integrator.events.happened(end) if integrator.events else None,
    )
    return Piece(t, tried.t1, y, end.y, dt, interpolant, held, happened)


def blank_buffers(integrator: Integrator, data: Data, state: "State | Start") -> list:
    """The output buffers before the first step."""
    output = integrator.output
    if not output.channels:
        return []
    known = isinstance(state, State)
    written = state.written if known else _written_at_start(integrator, data, state)
    example = _example(integrator, data, state)
    return output.blank(data, state.t, state.y, state.held, example, written)


def _written_at_start(integrator: Integrator, data: Data, start: Start) -> tuple:
    """The rows that are there before the first step, which an event may change."""
    data = with_held(data, start.held)
    _, shown = events_at_start(integrator, data, start.t, start.y)
    return integrator.output.first(data.times, shown)


def _example(integrator: Integrator, data: Data, state: "State | Start") -> PyTree:
    """The shapes of one dense row."""
    if all(c.kind != "dense" for c in integrator.output.channels):
        return None

    def row(data: Data, state: "State | Start") -> PyTree:
        data, state = with_presampled_noise(integrator, data), state.state(integrator, data)
        data = with_held(data, state.held)
        _, tried = attempt(integrator, data, state)
        tried = tried if integrator.events else tried._replace(end=None)
        piece = _piece(integrator, data, state.t, state.y, tried)
        return state.t, tried.t1, piece.interpolant, data.held

    return jax.eval_shape(row, data, state)


def written(
    integrator: Integrator, data: Data, state: State, tried: Attempt, buffers: list
) -> list:
    """The buffers with the rows of an attempt that was made from a state."""
    return write_rows(integrator, with_held(data, state.held), state.t, state.y, tried, buffers)


def step_interpolant(
    integrator: Integrator, data: Data, t: Array, y: Array, t1: Array, step: Step | None = None
) -> PyTree:
    """A step from (t, y) to t1 as a polynomial; the step itself is made again, unless given."""
    form, method, _ = integrator.parts(data)
    limited = limited_form(integrator, data, form, t)
    dt = in_dtype_of(t1 - t, y)
    step = method.step(limited, t, y, dt, method.init(limited, t, y)) if step is None else step
    return method.interpolant(limited, t, y, dt, step)

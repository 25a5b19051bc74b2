"""Tsit5 and its gradient written by hand: what a training step costs without a library.

The textbook's solver, and no more than it: the error in the root mean square norm, the first step
size by Hairer, the controller dt ← 0.9 r^(−1/5) dt, rows by dense output, and the last step cut so
that it lands on the end (Hairer, Nørsett and Wanner, *Solving Ordinary Differential Equations I*,
II.4 and II.6). The gradient is that of the steps that were taken: a tape keeps the time, the size
and the state of each, and a loop goes through it in reverse with the transpose of one step. There
are no events, no statuses, no checkpoints; where the tape is too short, the rows are NaN.

The stages are *unrolled*, a piece of straight code in which the zeros of the tableau cost nothing,
or *rolled*, a loop in which the field stands once, whatever the number of stages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import diffeq as de

TSIT5 = de.Tsit5().tableau
STAGES, ORDER = 7, 5
SAFETY, LEAST_FACTOR, MOST_FACTOR = 0.9, 0.2, 10.0


class Row(NamedTuple):
    """A step of the tape, or all of them: where it starts, its size, and its first saved row."""

    t: Array
    dt: Array
    y: Array
    first_save: Array


class Progress(NamedTuple):
    """The state of the loop; `slope` is f(t, y), the last stage of the step before."""

    t: Array
    y: Array
    slope: Array
    dt: Array
    steps: Array
    saved: Array
    ys: Array
    tape: Row | None


def combine(weights: Array | np.ndarray, stages: Array) -> Array:
    """Σ w_i k_i over the first axis."""
    weights = jnp.asarray(weights, stages.dtype)
    return jnp.sum(weights.reshape(-1, *[1] * (stages.ndim - 1)) * stages, 0)


def dense_weights(theta: Array) -> Array:
    """b_i(θ), polynomials without a constant term."""
    powers = jnp.stack([theta, theta**2, theta**3, theta**4])
    return jnp.asarray(TSIT5.dense, theta.dtype) @ powers


def row_of(tape: Row, i: Array) -> Row:
    """The i-th row of a tape."""
    return Row(*(lax.dynamic_index_in_dim(column, i, keepdims=False) for column in tape))


@dataclass(frozen=True)
class BareTsit5:
    """A solver of y' = f(t, y, args) for one array y, with a tape of at most `rows` steps.

    `dt`: the size of all steps; None controls the error.
    """

    field: Callable
    rolled: bool
    rows: int
    dt: float | None = None

    # --- one step ---------------------------------------------------------------------------------

    def stages(self, t, y, dt, args, slope=None) -> tuple[Array, Array]:
        """The state after a step, and its seven stages; `slope` is the first, if it is known."""
        return (self._rolled if self.rolled else self._unrolled)(t, y, dt, args, slope)

    def _unrolled(self, t, y, dt, args, slope):
        found, point = [self.field(t, y, args) if slope is None else slope], y
        for i in range(1, STAGES):
            terms = zip(TSIT5.A[i], found, strict=False)
            point = y + dt * sum(float(a) * k for a, k in terms if a)
            found.append(self.field(t + float(TSIT5.c[i]) * dt, point, args))
        return point, jnp.stack(found)

    def _rolled(self, t, y, dt, args, slope):
        a, c = jnp.asarray(TSIT5.A, y.dtype), jnp.asarray(TSIT5.c, y.dtype)
        blank = jnp.zeros((STAGES, *y.shape), y.dtype)
        known = blank if slope is None else blank.at[0].set(slope)

        def turn(carry, i):
            known, _ = carry
            point = y + dt * combine(a[i], known)
            return (known.at[i].set(self.field(t + c[i] * dt, point, args)), point), None

        indices = jnp.arange(0 if slope is None else 1, STAGES)
        (known, point), _ = lax.scan(turn, (known, y), indices)
        return point, known

    # --- forward ----------------------------------------------------------------------------------

    def first_dt(self, args, y0, slope, span, rtol, atol) -> Array:
        """The first step size of Hairer, Nørsett and Wanner, II.4."""
        t0, t1 = span
        norm = lambda x: jnp.sqrt(jnp.mean((x / (atol + rtol * jnp.abs(y0))) ** 2))
        size, speed = norm(y0), norm(slope)
        trial = 0.01 * size / speed
        bend = norm(self.field(t0 + trial, y0 + trial * slope, args) - slope) / trial
        second = (0.01 / jnp.maximum(speed, bend)) ** (1 / ORDER)
        return jnp.minimum(jnp.minimum(100 * trial, second), t1 - t0)

    def run(self, args, y0, ts, span, rtol, atol, *, taped: bool) -> tuple[Progress, Array]:
        """The solve, and the number of rows that are at t0."""
        t0, t1 = span
        slope = self.field(t0, y0, args)
        dt = self.dt
        dt = self.first_dt(args, y0, slope, span, rtol, atol) if dt is None else jnp.float_(dt)
        starts = ts <= t0
        at_start = jnp.sum(starts, dtype=jnp.int32)
        ys = jnp.where(starts.reshape(-1, *[1] * y0.ndim), y0, 0.0)
        blank = lambda shape=(), dtype=y0.dtype: jnp.zeros((self.rows, *shape), dtype)
        tape = Row(blank(), blank(), blank(y0.shape), blank(dtype=jnp.int32)) if taped else None
        start = Progress(t0, y0, slope, dt.astype(y0.dtype), jnp.int32(0), at_start, ys, tape)

        def attempt(now: Progress) -> Progress:
            lands = 1.01 * now.dt >= t1 - now.t
            dt = jnp.where(lands, t1 - now.t, now.dt)
            y, stages = self.stages(now.t, now.y, dt, args, now.slope)
            accepted, factor = self._judge(now.y, y, dt, stages, rtol, atol)
            t = jnp.where(accepted, jnp.where(lands, t1, now.t + dt), now.t)
            tape = now.tape
            if tape is not None:
                # A rejected attempt is written too, and the next one over it.
                tape = Row(*(
                    lax.dynamic_update_index_in_dim(column, value, now.steps, 0)
                    for column, value in zip(tape, (now.t, dt, now.y, now.saved), strict=True)
                ))  # fmt: skip
            saved, ys = self._save(now, ts, t, dt, stages)
            y = jnp.where(accepted, y, now.y)
            slope = jnp.where(accepted, stages[-1], now.slope)
            dt = now.dt if self.dt is not None else dt * factor
            return Progress(t, y, slope, dt, now.steps + accepted, saved, ys, tape)

        return lax.while_loop(lambda now: now.t < t1, attempt, start), at_start

    def _judge(self, before, after, dt, stages, rtol, atol):
        """True if a step is accepted, and the factor of the next."""
        if self.dt is not None:
            return jnp.bool_(True), 1.0
        scale = atol + rtol * jnp.maximum(jnp.abs(before), jnp.abs(after))
        error = jnp.sqrt(jnp.mean((dt * combine(TSIT5.b_error, stages) / scale) ** 2))
        factor = SAFETY * jnp.maximum(error, 1e-10) ** (-1 / ORDER)
        return error <= 1, jnp.clip(factor, LEAST_FACTOR, MOST_FACTOR)

    def _save(self, now: Progress, ts, t, dt, stages):
        """The rows up to t, by dense output; after a rejected attempt t is as before: none."""

        def save(state):
            i, ys = state
            y = now.y + dt * combine(dense_weights((ts[i] - now.t) / dt), stages)
            return i + 1, lax.dynamic_update_index_in_dim(ys, y, i, 0)

        last = len(ts) - 1
        waits = lambda state: (state[0] <= last) & (ts[jnp.minimum(state[0], last)] <= t)
        return lax.while_loop(waits, save, (now.saved, now.ys))

    # --- reverse ----------------------------------------------------------------------------------

    def transpose(self, args, y0, ts, end: Progress, at_start, cotangents):
        """The cotangents of args and y0 from those of the rows, a step of the tape a turn."""

        def turn(state):
            i, after, of_y, of_args = state
            row = row_of(end.tape, i - 1)
            step = lambda args, y: self.stages(row.t, y, row.dt, args)
            _, pull = jax.vjp(step, args, row.y)
            of_row, of_stages = self._pull_saves(row, after, ts, cotangents)
            more, of_start = pull((of_y, of_stages))
            return i - 1, row.first_save, of_start + of_row, jax.tree.map(jnp.add, of_args, more)

        blank = jax.tree.map(jnp.zeros_like, args)
        start = (end.steps, end.saved, jnp.zeros_like(y0), blank)
        _, _, of_y, of_args = lax.while_loop(lambda state: state[0] > 0, turn, start)
        at_start = (jnp.arange(len(ts)) < at_start).reshape(-1, *[1] * y0.ndim)
        return of_args, of_y + jnp.sum(jnp.where(at_start, cotangents, 0.0), 0)

    def _pull_saves(self, row: Row, after, ts, cotangents):
        """The cotangents of a step's state and stages from those of the rows that lie in it."""

        def add(state):
            i, of_y, of_stages = state
            weights = row.dt * dense_weights((ts[i] - row.t) / row.dt)
            weights = weights.reshape(-1, *[1] * row.y.ndim)
            return i + 1, of_y + cotangents[i], of_stages + weights * cotangents[i]

        stages = jnp.zeros((STAGES, *row.y.shape), row.y.dtype)
        start = (row.first_save, jnp.zeros_like(row.y), stages)
        return lax.while_loop(lambda state: state[0] < after, add, start)[1:]

    # --- both -------------------------------------------------------------------------------------

    def solve(self, args, y0, ts, span, rtol=1e-3, atol=1e-6) -> Array:
        """The rows at `ts`, from t0 to t1; differentiable by args and y0."""
        number = lambda x: jnp.asarray(x, y0.dtype)
        t0, t1, rtol, atol = map(number, (*span, rtol, atol))

        @jax.custom_vjp
        def rows(args, y0):
            return self.run(args, y0, ts, (t0, t1), rtol, atol, taped=False)[0].ys

        def forward(args, y0):
            end, at_start = self.run(args, y0, ts, (t0, t1), rtol, atol, taped=True)
            ys = jnp.where(end.steps <= self.rows, end.ys, jnp.nan)
            return ys, (args, y0, end, at_start)

        def reverse(kept, cotangents):
            args, y0, end, at_start = kept
            return self.transpose(args, y0, ts, end, at_start, cotangents)

        rows.defvjp(forward, reverse)
        return rows(args, y0)

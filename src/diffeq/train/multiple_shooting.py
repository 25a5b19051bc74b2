"""Multiple shooting: many short solves instead of one long one, and a price on the gaps."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from ..autodiff.jax_internals import Tracer
from ..core.keywords import keywords
from ..problems import Problem
from ..solution import Solution
from ..solve import solve as solve_problem
from ..validation.options import SolveOption
from ..validation.values import concrete, is_real, shown
from .loss import mse

__all__ = ["Shooting", "multiple_shooting"]


@keywords
def multiple_shooting(
    data: PyTree,
    ts: ArrayLike | Sequence,
    *,
    group_size: int,
    continuity: float = 100.0,
    starts: PyTree = None,
    observe: Callable | None = None,
    args: PyTree = None,
    loss: Callable = mse,
    solve: Callable | None = None,
    **solve_options: SolveOption,
) -> "Shooting":
    """A loss for `de.fit` that cuts the data into groups and solves each from a state of its own.

        loss(y, data) + continuity · mean |y(end of a group) − start of the next|²

    A long solve of a model that is still wrong ends far from the data, and its gradient says
    little; short ones stay near. Neighbouring groups share a point. All groups are one solve under
    `jax.vmap`. A model for which one of them fails has the loss infinity, which `de.fit` steps back
    from; `shooting.solve(model).check()` says which, and why.

    Args:
        data: what was measured, the first axis that of ts; a tree of arrays like the state (or what
            `observe` makes of it). NaN is missing, and counts in nothing.
        ts: when, shape (n,), sorted; NaN at the end is padding.
        group_size: points in a group, from 2 to n; with n it is single shooting.
        continuity: what a gap costs.
        starts: the states in which the groups start, with an axis of groups in front. None: the
            data there, and where some are missing, the line between their neighbours.
        observe: `observe(y)`, what of a state was measured; it needs `starts`.
        args: what a layer gets as args; a problem has its own.
        loss: `loss(ys, data)` of arrays with axes of groups and of points in front; both with NaN
            in data where a group has fewer points.
        solve: `solve(model, y0, tspan, saveat) -> Solution`. None: a layer is called, and a problem
            is solved.
        solve_options: for a problem: `method`, `rtol`, … .

    Returns:
        A `Shooting`, which is called as `loss(model)`. To train the starts, too, which takes noise
        in the data off them, fit the pair: `de.fit((model, shooting.starts), shooting.free, …)`.

    Raises:
        TypeError, ValueError: axes that do not match; times that are not sorted; a group_size or a
            continuity that does not fit; a component that was never measured; observe without
            starts.

    Reference: bock1984, turan2022.

    Example:
        >>> import jax.numpy as jnp, optax, diffeq as de
        >>> ts = jnp.linspace(0.0, 2.0, 9)
        >>> problem = de.ODEProblem(lambda t, y, rate: -rate * y, 1.0, (0.0, 2.0), 0.5)
        >>> shooting = de.multiple_shooting(jnp.exp(-ts), ts, group_size=3)
        >>> fit = de.fit(problem, shooting, optimizer=optax.lbfgs(), steps=10)
        >>> round(fit.model.args, 2)
        1.0
    """
    data = jax.tree.map(jnp.asarray, data)
    ts = jnp.asarray(ts, jnp.result_type(float, *_dtypes(data)))
    _check_shooting(data, ts, group_size)
    _check_sorted(ts)
    _check_shooting_options(continuity, solve_options)
    if observe is not None and starts is None:
        raise TypeError("observe says that data are no states: give starts= for the groups.")
    return Shooting(
        data,
        ts,
        group_size,
        starts=starts,
        observe=observe,
        loss=loss,
        continuity=continuity,
        solver=_solver(solve, args, solve_options),
    )


class Shooting:
    """A multiple-shooting loss, what `multiple_shooting` returns.

    Attributes:
        groups: the points of each group, as ranges of indices.
        starts: the states in which they start, with an axis of groups in front.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> ts = jnp.linspace(0.0, 1.0, 10)
        >>> de.multiple_shooting(jnp.zeros(10), ts, group_size=5).groups
        [range(0, 5), range(4, 9), range(8, 10)]
    """

    def __init__(
        self,
        data: PyTree,
        ts: Array,
        group_size: int,
        *,
        starts: PyTree,
        observe: Callable | None,
        loss: Callable,
        continuity: ArrayLike,
        solver: Callable,
    ) -> None:
        self.observe, self.loss, self.continuity = observe, loss, continuity
        self.solver = solver
        n = len(ts)
        firsts = range(0, n - 1, group_size - 1)
        self.groups = [range(i, min(i + group_size, n)) for i in firsts]
        rows = np.asarray(firsts)[:, None] + np.arange(group_size)
        rows, there = np.minimum(rows, n - 1), rows < n
        # Padding at the end leaves groups of one point or none: solves of no length, with no rows.
        counts = jnp.sum(there & ~jnp.isnan(ts[rows]), axis=1)
        there = jnp.asarray(there) & (counts > 1)[:, None]
        self.ts = jnp.where(there, ts[rows], jnp.nan)
        self.data = jax.tree.map(lambda x: _masked(x[rows], there), data)
        self.starts = _initial_starts(starts, data, ts, rows[:, 0])
        ends = jnp.take_along_axis(self.ts, jnp.maximum(counts - 1, 0)[:, None], axis=1)[:, 0]
        last = ts[jnp.sum(~jnp.isnan(ts)) - 1]
        self.spans = tuple(jnp.where(counts > 1, t, last) for t in (self.ts[:, 0], ends))
        self.joined = counts[1:] > 1

    def __call__(self, model: PyTree) -> Array:
        """The loss with groups that start at the given starts."""
        return self._loss(model, self.starts)

    def free(self, pair: PyTree) -> Array:
        """The loss of the pair (model, starts): both can be trained."""
        model, starts = pair
        return self._loss(model, starts)

    def solve(self, model: PyTree, starts: PyTree = None) -> Solution:
        """The solutions of all groups, as a batch; rows that a short group has not are NaN."""
        starts = self.starts if starts is None else starts
        each = lambda y0, t0, t1, ts: self.solver(model, y0, (t0, t1), ts)  # noqa: E731
        t0, t1 = self.spans
        return jax.vmap(each)(starts, t0, t1, self.ts)

    def _loss(self, model: PyTree, starts: PyTree) -> Array:
        sol = self.solve(model, starts)
        fine = jnp.all(sol.success)
        ys = sol.filled(0.0)
        seen = ys if self.observe is None else jax.vmap(jax.vmap(self.observe))(ys)
        ends = jax.tree.map(lambda y: jnp.where(fine, y[:-1], 0), sol.y1)
        gaps = mse(ends, jax.tree.map(lambda y: y[1:], starts), self.joined)
        return jnp.where(fine, self.loss(seen, self.data) + self.continuity * gaps, jnp.inf)


def _solver(solve: Callable | None, args: PyTree, options: dict) -> Callable:
    if solve is not None:
        return solve

    def solved(model: PyTree, y0: PyTree, tspan: tuple, saveat: Array) -> Solution:
        if isinstance(model, Problem):
            return solve_problem(_restarted(model, y0, tspan), saveat=saveat, **options)
        if not callable(model):
            raise TypeError(
                f"model is {shown(model)}; a problem or a layer is wanted, or say how it is solved "
                "with solve=."
            )
        if options:
            raise TypeError(
                f"multiple_shooting got {next(iter(options))!r}; a {type(model).__name__} has its "
                "own options for de.solve: give it there."
            )
        layer: Any = model
        return layer(y0, args, tspan=tspan, saveat=saveat)

    return solved


def _restarted(problem: Problem, y0: PyTree, tspan: tuple) -> Problem:
    """The problem from another state and time."""
    for names in (("x0", "v0"), ("q0", "p0")):
        if names[0] in problem.fields:
            return problem.replace(**dict(zip(names, y0, strict=True)), tspan=tspan)
    if "y0" not in problem.fields or "history" in problem.fields:
        raise TypeError(
            f"a {type(problem).__name__} does not start anew from a state; say how with solve=."
        )
    return problem.replace(y0=y0, tspan=tspan)


def _initial_starts(starts: PyTree, data: PyTree, ts: Array, rows: np.ndarray) -> PyTree:
    """Those that were given, or the data at the first point of each group."""
    if starts is None:
        _check_measured(data)
        return jax.tree.map(lambda x: _fill_missing(x, ts)[rows], data)
    for x in jax.tree.leaves(starts):
        if jnp.shape(x)[:1] != (len(rows),):
            raise ValueError(
                f"starts has shape {jnp.shape(x)}; its first axis is that of {len(rows)} groups."
            )
    return jax.tree.map(jnp.asarray, starts)


def _fill_missing(x: Array, ts: Array) -> Array:
    """Data with lines through what is missing, and levels before the first and after the last."""
    n = len(ts)
    flat = x.reshape(n, -1)
    known = ~(jnp.isnan(flat) | jnp.isnan(ts)[:, None])
    row = jnp.arange(n)[:, None]
    before = jax.lax.cummax(jnp.where(known, row, -1))
    after = jax.lax.cummin(jnp.where(known, row, n), reverse=True)
    before, after = (
        jnp.clip(jnp.where(before < 0, after, before), 0, n - 1),
        jnp.clip(jnp.where(after >= n, before, after), 0, n - 1),
    )
    low, high = (jnp.take_along_axis(flat, i, axis=0) for i in (before, after))
    span = ts[after] - ts[before]
    level = (span == 0) | jnp.isnan(ts)[:, None]
    weight = jnp.where(level, 0, (ts[:, None] - ts[before]) / jnp.where(level, 1, span))
    return jnp.where(known, flat, low + weight * (high - low)).reshape(x.shape)


def _masked(x: Array, there: Array) -> Array:
    return jnp.where(there.reshape(there.shape + (1,) * (x.ndim - 2)), x, jnp.nan)


# --- checks --------------------------------------------------------------------------------------


def _dtypes(data: PyTree) -> list:
    return [x.real.dtype for x in jax.tree.leaves(data) if jnp.issubdtype(x.dtype, jnp.inexact)]


def _check_shooting(data: PyTree, ts: Array, group_size: Any) -> None:
    if ts.ndim != 1:
        raise ValueError(f"ts has shape {ts.shape}; a vector is wanted.")
    for path, x in jax.tree.leaves_with_path(data):
        name = f"data{jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"{name} has dtype {x.dtype}; floats are wanted: write 1.0 for 1.")
        if x.shape[:1] != ts.shape:
            raise ValueError(f"{name} has shape {x.shape}; its first axis is that of {len(ts)} ts.")
    whole = isinstance(group_size, (int, np.integer)) and not isinstance(group_size, bool)
    if not whole or not 2 <= group_size <= len(ts):
        raise ValueError(f"group_size is {group_size!r}; 2 to {len(ts)} points are possible.")


def _check_sorted(ts: Array) -> None:
    """Refuses times that are not sorted, and NaN before the last of them."""
    if not concrete(ts):
        return
    times = np.asarray(ts)
    known = times[: int(np.sum(~np.isnan(times)))]
    if np.isnan(known).any():
        raise ValueError("ts has NaN between times; NaN is padding, at the end alone.")
    falls = np.flatnonzero(np.diff(known) < 0)
    if len(falls):
        i = int(falls[0])
        raise ValueError(
            f"ts is not sorted: ts[{i}] is {known[i]:g} and ts[{i + 1}] is {known[i + 1]:g}; sort "
            "ts and data by time."
        )


def _check_shooting_options(continuity: Any, options: dict) -> None:
    if not is_real(continuity) or np.ndim(continuity) != 0:
        raise TypeError(f"continuity is {shown(continuity)}; a number is wanted.")
    if concrete(continuity) and not 0 <= float(continuity) < np.inf:
        raise ValueError(
            f"continuity is {shown(continuity)}; what a gap costs is finite and not negative."
        )
    if "saveat" in options:
        raise TypeError("multiple_shooting got saveat=; the solves are saved at ts: leave it out.")


def _check_measured(data: PyTree) -> None:
    for path, x in jax.tree.leaves_with_path(data):
        if not isinstance(x, Tracer) and np.any(np.all(np.isnan(x), axis=0)):
            raise ValueError(
                f"data{jax.tree_util.keystr(path)} has a component that was never measured, so "
                "groups have no start there: give starts=, and leave it out with observe=."
            )

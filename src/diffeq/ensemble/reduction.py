"""Statistics in place of trajectories: the rows of a chunk update them, and are discarded.

A statistic has `init(like)`, `update(state, values, counts)`, `merge(a, b)` and `result(state)`, as
those of `de.stats` have; several of them are a pytree. Rows that were not reached, and trajectories
that failed, do not count.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..solution import Solution

__all__ = ["Reduction", "check_reduce"]

_FUNCTIONS = ("init", "update", "merge", "result")


def _is_statistic(x: PyTree) -> bool:
    known = all(callable(getattr(x, name, None)) for name in _FUNCTIONS)
    return known and not isinstance(x, type)


def check_reduce(statistics: PyTree, saveat: Any, *, dense: bool) -> None:
    """Raises an error for a leaf that is no statistic, and for rows that differ from trajectory to
    trajectory.
    """
    for leaf in jax.tree.leaves(statistics, is_leaf=_is_statistic) or [statistics]:
        if not _is_statistic(leaf):
            hint = " (an instance is wanted)" if isinstance(leaf, type) else ""
            raise TypeError(
                f"reduce has {leaf!r}{hint}; statistics are wanted, such as de.stats.Mean(): what "
                f"has {', '.join(_FUNCTIONS)}."
            )
    each = saveat.values() if isinstance(saveat, dict) else [saveat]
    if dense or any(isinstance(at, str) for at in each):
        what = "dense=True" if dense else f"saveat={saveat!r}"
        raise ValueError(
            f"reduce was given with {what}; statistics are of rows that all trajectories have: "
            "saveat= times, or None for the end."
        )


class Reduction:
    """The statistics of a call. Their state is a pair of dicts: the states of the statistics for
    each set of rows (several for a dict of save times), and the times of these rows.
    """

    def __init__(self, statistics: PyTree) -> None:
        self.statistics = statistics

    def _each(self, function: Callable, *states: PyTree) -> PyTree:
        return jax.tree.map(function, self.statistics, *states, is_leaf=_is_statistic)

    def init(self, like: Solution) -> tuple[dict, dict]:
        """The state before the first chunk; `like` is a solution, or its shapes."""
        rows = _sets(like)
        seen = {key: self._each(lambda s, y=ys: s.init(y)) for key, (_, ys, _) in rows.items()}
        return seen, {key: jnp.zeros(ts.shape, ts.dtype) for key, (ts, _, _) in rows.items()}

    def update(self, state: tuple, sol: Solution, counts: Bool[Array, " chunk"]) -> tuple:
        """The state after one more chunk, of which the trajectories flagged in `counts` count."""
        seen, times = {}, {}
        for key, (ts, ys, saved) in _sets(sol).items():
            rows = (sol.success & counts)[:, None] & saved
            add = lambda s, x, y=ys, r=rows: s.update(x, y, r)  # noqa: E731
            seen[key], times[key] = self._each(add, state[0][key]), ts[0]
        return seen, times

    def merged(self, states: Sequence[tuple]) -> tuple:
        """The states of several parts, merged."""
        both = lambda a, b: self._each(lambda s, x, y: s.merge(x, y), a, b)  # noqa: E731
        together = {key: reduce(both, [seen[key] for seen, _ in states]) for key in states[0][0]}
        return together, states[0][1]

    def kept(self, sol: Solution) -> Solution:
        """The solution without its rows: the status and the numbers of each trajectory."""
        return replace(
            sol,
            ts=None,
            ys=None,
            saved=None,
            num=None,
            y1=None,
            polynomial=None,
            events=(),
            weight=None,
        )

    def finished(self, state: tuple, sol: Solution) -> Solution:
        """The solution with the results of the statistics, and the times of their rows."""
        results = {key: self._each(lambda s, x: s.result(x), x) for key, x in state[0].items()}
        lone = lambda rows: rows.get(None, rows)  # noqa: E731
        return replace(sol, ts=lone(state[1]), reduced=lone(results))


def _sets(sol: Solution) -> dict:
    """(ts, ys, saved) of each set of rows; a single one has the key None."""
    if isinstance(sol.ts, dict):
        return {key: (sol.ts[key], sol.ys[key], sol.saved[key]) for key in sol.ts}
    return {None: (sol.ts, sol.ys, sol.saved)}

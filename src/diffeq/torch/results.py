"""The way in and out that all solves share: the seed of a path, and how a solve went."""

import operator
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import torch
from jaxtyping import Array

from ..core.status import Status
from ..solution import Solution, SolveError
from .few_arrays import FewArrays

__all__ = ["SolveReport", "drawn_seed", "report_of"]

_MOST = 2**31 - 1


def drawn_seed(key: Any) -> int:
    """The seed of a path: a whole number that was given, or one from torch's generator."""
    if key is None:
        return int(torch.randint(_MOST, ()))
    try:
        return operator.index(key) % _MOST
    except TypeError as error:
        raise TypeError(
            f"key is {key!r}; a whole number is wanted, or None and torch.manual_seed(…)."
        ) from error


class SolveReport(NamedTuple):
    """The status of a solve, or of several, as a compiled function returns it. All else that says
    what failed is in few arrays, which are looked at where something did.
    """

    status: Array
    evaluations: Array
    solution: FewArrays

    def check(self, advice: str = "") -> None:
        """Raises a SolveError if the solve failed; `advice` is for one that needs more attempts."""
        if np.any(np.asarray(self.status) > Status.terminated):
            try:
                self.solution.tree().check()
            except SolveError as error:
                if advice and self.spent():
                    error.add_note(advice)
                raise

    def met_event(self) -> bool:
        """True if an event ended the solve."""
        return bool(np.all(np.asarray(self.status) == Status.terminated))

    def spent(self) -> bool:
        """True if the solve has ended because the attempts that it may make were made."""
        return bool(np.any(np.asarray(self.status) == Status.max_steps))

    def calls(self) -> int:
        """The number of evaluations."""
        return int(np.sum(np.asarray(self.evaluations)))


def report_of(sol: Solution) -> SolveReport:
    """The report on a solution, without its rows."""
    where = lambda s: (s.ts, s.ys, s.saved, s.y1, s.events)  # noqa: E731
    emptied = eqx.tree_at(where, sol, ((), (), (), (), ()))
    return SolveReport(sol.status, sol.stats["evaluations"], FewArrays.of(emptied))

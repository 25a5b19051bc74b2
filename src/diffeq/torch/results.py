"""The way in and out that all solves share: the seed of a path, and how a solve went."""

import operator
from typing import Any

import equinox as eqx
import torch

from ..solution import Solution

__all__ = ["drawn_seed", "emptied"]

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


def emptied(sol: Solution) -> Solution:
    """The solution without its rows: how it went."""
    where = lambda s: (s.ts, s.ys, s.saved, s.y1, s.events)  # noqa: E731
    return eqx.tree_at(where, sol, ((), (), (), (), ()))

"""LU of a sparse matrix without fill, ILU(0): the factors have entries where the matrix has them.

With A ≈ L D⁻¹ U, of which L and U have the diagonal D as well, each entry is

    v_ij = a_ij − Σ_k v_ik v_kj / v_kk,    over the k < min(i, j) for which both are stored,

and the product has the entries of A in the places of the pattern, and others outside of it. Sums
that do not wait for each other are made side by side, by levels that are found once for a pattern:
a turn of a loop makes those of a level, or as many of them as it has room for. The solutions of the
two triangles are such sums, too. All of it is array code with static indices, in lanes as well, and
without a call of the host. There is no pivoting: a pivot of zero makes inf or NaN.

Reference: saad2003, 10.3.2 and 11.6.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Inexact, Int

from .linear import AbstractInverse
from .pattern import Pattern

__all__ = ["IncompleteInverse", "incomplete_lu"]

_TERMS = 8  # the most terms of a slot
_TURN, _SLOT = 2000, 2  # the costs of a turn of the loop and of a slot, in terms
_BLOCK = 4_000_000  # pairs of entries that are looked through at once

type Indices = np.ndarray  # of whole numbers, along one axis


class IncompleteInverse(AbstractInverse):
    """b ↦ (L D⁻¹ U)⁻¹ b, with the entries of L D⁻¹ and D⁻¹ U, and the diagonal D."""

    entries: Inexact[Array, " k"]
    diagonal: Inexact[Array, " n"]
    pattern: Pattern = eqx.field(static=True)

    def __call__(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        sums = _sums_of(self.pattern)
        return self._solved(sums.lower, sums.upper, b)

    def transposed(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        sums = _sums_of(self.pattern)
        return self._solved(sums.upper_transposed, sums.lower_transposed, b)

    def _solved(self, first: "_Sums", last: "_Sums", b: Array) -> Array:
        """The solution of one triangle, the diagonal, and the other triangle."""
        stored = jnp.append(self.entries, 0)
        for sums in (first, last):
            entries, unknowns = sums.sources
            b = _subtracted(sums.targets, jnp.append(b, 0), (stored[entries], unknowns))[:-1]
            b = b / self.diagonal if sums is first else b
        return b


def incomplete_lu(pattern: Pattern, values: Inexact[Array, " k"]) -> IncompleteInverse:
    """The incomplete factors of the matrix with these values in the places of the pattern.

    >>> pattern = Pattern(2, np.array([0, 1]), np.array([1, 0]))
    >>> inverse = incomplete_lu(pattern, jnp.array([2.0, 1.0, 1.0, 3.0]))
    >>> inverse(jnp.array([4.0, 7.0])).tolist(), inverse.transposed(jnp.array([3.0, 4.0])).tolist()
    ([1.0, 2.0], [1.0, 1.0])
    """
    sums = _sums_of(pattern).factors
    wide = jnp.concatenate([values, jnp.array([0, 1], values.dtype)])  # of slots with few terms
    found = _subtracted(sums.targets, wide, sums.sources)[:-2]
    diagonal = found[pattern.diagonal]
    pivots = diagonal[np.minimum(pattern.rows, pattern.columns)]
    return IncompleteInverse(found / pivots, diagonal, pattern)


def _subtracted(targets: np.ndarray, x: Array, sources: tuple) -> Array:
    """The numbers x with all sums subtracted, turn by turn: of x[p] x[q] / x[d] for the sources
    (p, q, d), and of a x[p] for (a, p).
    """

    def at(x: Array, places: Array) -> Array:
        return x.at[places].get(mode="promise_in_bounds")

    def turn(x: Array, row: tuple) -> tuple[Array, None]:
        places, (first, second, *pivot) = row
        terms = at(x, first) * at(x, second) / at(x, pivot[0]) if pivot else first * at(x, second)
        return x.at[places].add(-jnp.sum(terms, axis=-1), mode="promise_in_bounds"), None

    found, _ = lax.scan(turn, x, (jnp.asarray(targets), sources))
    return found


# --- the order of the sums ------------------------------------------------------------------------


class _Sums(NamedTuple):
    """Sums over terms that are subtracted from their targets: (turns, slots) and for each source of
    a term (turns, slots, terms). A sum of many terms has several slots of its turn.
    """

    targets: Int[np.ndarray, "turns slots"]
    sources: tuple[Int[np.ndarray, "turns slots terms"], ...]


class _SumsOfPattern(NamedTuple):
    """The sums of the factors, over entries, and of the solutions with both triangles and with
    their transposes, over unknowns with their entries.
    """

    factors: _Sums
    lower: _Sums
    upper: _Sums
    upper_transposed: _Sums
    lower_transposed: _Sums


@lru_cache(maxsize=32)
def _sums_of(pattern: Pattern) -> _SumsOfPattern:
    """The sums of a pattern, found once."""
    n, rows, columns = pattern.n, pattern.rows, pattern.columns
    count = len(rows)
    lower, upper = np.flatnonzero(rows > columns), np.flatnonzero(rows < columns)

    def solution(entries: Indices, targets: Indices, unknowns: Indices, way: int) -> _Sums:
        order = np.argsort(way * targets[entries], kind="stable")
        entries = entries[order]
        targets, unknowns = targets[entries], unknowns[entries]
        levels = _levels(n, targets, (unknowns,))
        return _in_turns(levels, targets, (entries, unknowns), n, (count, n))

    targets, sources = _terms_of_factors(pattern)
    order = np.argsort(np.minimum(rows, columns)[targets], kind="stable")
    targets, sources = targets[order], tuple(x[order] for x in sources)
    levels = _levels(count, targets, sources)
    return _SumsOfPattern(
        _in_turns(levels, targets, sources, count, (count, count, count + 1)),
        solution(lower, rows, columns, 1),
        solution(upper, rows, columns, -1),
        solution(upper, columns, rows, 1),
        solution(lower, columns, rows, -1),
    )


def _terms_of_factors(pattern: Pattern) -> tuple[Indices, tuple[Indices, Indices, Indices]]:
    """The entries (i, j) from which v_ik v_kj / v_kk is subtracted, and those three entries."""
    n, rows, columns, diagonal = pattern.n, pattern.rows, pattern.columns, pattern.diagonal
    places = rows * n + columns
    behind = np.searchsorted(rows, np.arange(1, n + 1)) - diagonal - 1  # of each diagonal entry
    lower = np.flatnonzero(rows > columns)
    blocks = np.cumsum(behind[columns[lower]]) // _BLOCK
    found = [(np.empty(0, int),) * 3]
    for block in np.split(lower, np.flatnonzero(np.diff(blocks)) + 1):
        pivots = columns[block]
        counts = behind[pivots]
        starts = np.repeat(diagonal[pivots] + 1 - np.cumsum(counts) + counts, counts)
        first, second = np.repeat(block, counts), starts + np.arange(counts.sum())
        wanted = rows[first] * n + columns[second]
        target = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
        stored = places[target] == wanted
        found.append((target[stored], first[stored], second[stored]))
    target, first, second = (np.concatenate(x) for x in zip(*found, strict=True))
    return target, (first, second, diagonal[columns[first]])


def _levels(count: int, targets: Indices, sources: Sequence[Indices]) -> Indices:
    """The level of each number: one more than the highest of those in its sum, and 0 without a sum.
    Terms come in an order in which all sources are known.
    """
    level = [0] * count
    for target, *own in zip(targets.tolist(), *(x.tolist() for x in sources), strict=True):
        level[target] = max(level[target], 1 + max([level[source] for source in own]))
    return np.array(level)


def _in_turns(
    levels: Indices, targets: Indices, sources: tuple, blank: int, blanks: tuple[int, ...]
) -> _Sums:
    """The terms in slots and turns, level by level; `blank` is the target of a slot that is not
    used, and `blanks` are the sources of a term that is not.
    """
    if not len(targets):
        none = np.empty((0, 1), np.int32)
        return _Sums(none, tuple(none[..., None] for _ in sources))
    order = np.lexsort((targets, levels[targets]))
    targets = targets[order]
    first = np.flatnonzero(np.diff(targets, prepend=-1))
    counts = np.diff(np.append(first, len(targets)))
    terms = min(range(1, _TERMS + 1), key=lambda w: np.sum(-(-counts // w)) * (w + _SLOT))
    slots = -(-counts // terms)
    of_slot = np.repeat(targets[first], slots)
    nth, place = np.divmod(np.arange(len(targets)) - np.repeat(first, counts), terms)
    slot = np.repeat(np.cumsum(slots) - slots, counts) + nth

    sizes = np.bincount(levels[of_slot])[1:]
    widths = 2 ** np.arange(int(sizes.max() - 1).bit_length() + 1)
    cost = [np.sum(-(-sizes // w)) * (_TURN + w * (terms + _SLOT)) for w in widths]
    width = int(widths[np.argmin(cost)])
    turns = -(-sizes // width)
    nth, column = np.divmod(
        np.arange(len(of_slot)) - np.repeat(np.cumsum(sizes) - sizes, sizes), width
    )
    turn = np.repeat(np.cumsum(turns) - turns, sizes) + nth
    shape = int(turns.sum()), width
    table = np.full(shape, blank, np.int32)
    table[turn, column] = of_slot
    tables = []
    for source, none in zip(sources, blanks, strict=True):
        own = np.full((*shape, terms), none, np.int32)
        own[turn[slot], column[slot], place] = source[order]
        tables.append(own)
    return _Sums(table, tuple(tables))

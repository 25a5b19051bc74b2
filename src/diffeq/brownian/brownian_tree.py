"""`Tree`: controlled steps on one path.

The interval is 2³⁰ ticks. The path over all of it has increments (W, H) that are drawn first; the
halves of a cell are drawn given the whole, their halves given them, and so on. A step is a dyadic
cell: a rejected one descends to a half of it, an accepted one goes on to the next, and the next may
be longer where the tree allows. Draws are numbered by cells, so the path is a function of the key
alone, whatever was tried before.

**No stack.** A cell is reached from one of 64 that are drawn ahead, by as many bridges as there are
levels between: three for 500 steps, ten for 65,536. A stack of pending cells would need one bridge
a step, but lanes side by side wait for the one with the most to do in either case, and read and
write the rows of their stacks each at a place of its own, which costs more than three bridges. And
it would have to be built again for each window of the tape, for stops, and for saved times.

Reference: jelincic2024, foster2020, gaines1997.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree

from ..autodiff.row_buffers import get_row
from .counter_rng import RandomKey, Words, key_words
from .increments import (
    LEVELS,
    TICKS,
    Cell,
    Drawn,
    Noise,
    PathPoint,
    StepCell,
    StepDraw,
    between,
    descend,
    halves,
    lowest,
    part_of,
    tick_length,
)

__all__ = ["Tree"]

_AHEAD = 6  # levels of cells that are drawn before the loop
_RANGE = 7  # how often the longest step that is allowed may be halved at once: three bits


class TreeOrigin(NamedTuple):
    """The interval of time of the tree, and its key."""

    t0: Array
    span: Array
    words: Words


class TreePosition(NamedTuple):
    """The position of the loop on the tree: the tick, W there (of the unit path), the exponent
    of the longest step that is allowed next, and, where there are stops, True inside a cell.
    """

    tick: Int[Array, ""]
    w: PyTree
    most: Int[Array, ""]
    inside: PyTree


@dataclass(frozen=True)
class Tree(Noise[TreeOrigin, TreePosition]):
    """Controlled steps: dyadic cells of one path over the whole interval.

    `cuts`: there are stops or events, so that steps may start and end inside cells. `marked`: rows
    are saved or crossings looked for between the ends of steps, so that W at the start of a step
    has to be known.
    """

    cuts: bool = False
    marked: bool = False

    bits = 3

    def source(self, key: RandomKey, t0: Array, t1: Array) -> TreeOrigin:
        """The interval and the key."""
        return TreeOrigin(t0, t1 - t0, key_words(key))

    def ahead(self, source: TreeOrigin) -> Array:
        """(W, H) of the first cells, and at last of the whole."""
        nodes = jnp.arange(1 << _AHEAD, dtype=jnp.int32)
        draws = jax.vmap(lambda node: self.draws(source.words, node, 2))(nodes)
        whole = self.whole(source.words)
        w, h = whole[:1], whole[1:]
        for level in range(_AHEAD):
            z, n = jnp.moveaxis(draws[1 << level : 2 << level], 1, 0)
            half = jnp.asarray(0.5 ** (level + 1), self.dtype)
            left, h_left, right, h_right = halves(w, h, z, n, half)
            w, h = (
                jnp.stack(pair, 1).reshape(-1, *self.shape)
                for pair in ((left, right), (h_left, h_right))
            )
        return jnp.concatenate([jnp.stack([w, h], 1), whole[None]])

    def writing(self, within: bool) -> "Tree":
        """W at the start of a step is known where rows lie within, or crossings."""
        return replace(self, marked=within or self.marked)

    def marks(self, source: TreeOrigin, times: Array) -> tuple:
        """W at each of the times (of the unit path)."""
        ticks = self._ticks(source, jnp.where(jnp.isnan(times), source.t0, times))
        return (jax.vmap(lambda tick: self.value(source.words, tick))(ticks),)

    def value(self, words: Words, tick: Int[Array, ""]) -> Array:
        """The unit path at a tick."""
        w, h = self.whole(words)
        inside = descend(self, words, (w, h), tick, lowest(tick), LEVELS, follow=True)[2]
        return jnp.where(tick >= TICKS, w, inside)

    def start(self, source: TreeOrigin, t: Array, dt: Array) -> TreePosition:
        """The place of t."""
        tick = self._ticks(source, t)
        w = self.value(source.words, tick) if self.marked else ()
        return TreePosition(
            tick, w, self._exponent(source, dt), jnp.array(True) if self.cuts else ()
        )

    def draw(
        self,
        source: tuple[TreeOrigin, Array],
        path: TreePosition,
        dt: Array,
        landing: Array,
        target: tuple[Array, Array],
        code: Int[Array, ""] | None,
    ) -> StepDraw:
        """The cell that starts here, as long as dt, the tree and the last attempt allow."""
        del landing
        origin, cells = source
        longest = jnp.clip(self._exponent(origin, dt), path.most - _RANGE, path.most)
        k = jnp.maximum(longest if code is None else path.most - code, 0)
        code = path.most - k
        # From inside a cell, where a stop was, a step goes to the end of it.
        aligned = jnp.minimum(k, lowest(path.tick))
        k = jnp.where(path.inside, k, aligned) if self.cuts else aligned
        whole = ((path.tick >> k) + 1) << k
        stop = self._ticks(origin, target[0]) if self.cuts else TICKS
        landing, end = whole >= stop, jnp.minimum(whole, stop)
        ticks = end - path.tick
        w, h = (
            self._between(origin, cells, path.tick, end, k)
            if self.cuts
            else self._cell(origin, cells, path.tick, k)
        )
        root = jnp.sqrt(jnp.where(ticks > 0, tick_length(ticks, self.dtype), 1))
        # What was rejected is shorter the next time, even where a stop made it shorter than a cell.
        shorter = 31 - lax.clz(jnp.maximum(ticks - 1, 1)) if self.cuts else k - 1
        w_after, inside = path.w + w if self.marked else (), whole > stop if self.cuts else ()
        after = TreePosition(end, w_after, jnp.minimum(k + 2, LEVELS), inside)
        drawn = Drawn(path, jnp.stack([w, h]) / root, ticks)
        dt = jnp.where(landing, target[1], self._time(origin, ticks))
        return StepDraw(dt, landing, drawn, after, path._replace(most=shorter), code)

    def cut(
        self, source: TreeOrigin, draw: StepDraw, theta: Array, point: PathPoint | None
    ) -> TreePosition:
        """The place of θ in the attempt."""
        drawn = draw.drawn
        if point is None:
            tick = drawn.path.tick + part_of(drawn.ticks, theta)
            w = self.value(source.words, tick) if self.marked else ()
        else:
            tick, w = point
        return TreePosition(tick, w, draw.accepted.most, jnp.array(True))

    def step_cell(self, source: TreeOrigin, drawn: Drawn) -> StepCell:
        """The smallest cell that holds an attempt: the attempt, but where it was cut."""
        root = jnp.sqrt(tick_length(drawn.ticks, self.dtype))
        w, h = drawn.normal[0] * root, drawn.normal[1] * root
        first, last = drawn.path.tick, drawn.path.tick + drawn.ticks
        level = 32 - lax.clz(first ^ jnp.maximum(last - 1, first))
        complete = drawn.ticks == jnp.int32(1) << level
        top = jnp.where(complete, level, LEVELS)
        whole = self.whole(source.words)
        above = jnp.where(complete, w, whole[0]), jnp.where(complete, h, whole[1])
        found = descend(self, source.words, above, first, level, top, follow=True)
        start = jnp.where(complete, drawn.path.w, found[2])
        cell = Cell((first >> level) << level, start, level, *found[:2])
        ends = PathPoint(first, drawn.path.w), PathPoint(last, drawn.path.w + w)
        return StepCell(source.words, cell, *ends)

    def length(self, source: TreeOrigin, drawn: Drawn, dt: Array) -> Array:
        """Ticks are a part of the interval, and move along with it."""
        del dt
        return self._time(source, drawn.ticks)

    def bound(
        self,
        form: Any,
        source: TreeOrigin,
        drawn: Drawn,
        dt: Array,
        made: Bool[Array, ""] | bool = True,
    ) -> Any:
        """The form with the noise of a step in place: of so many ticks, however dt was rounded."""
        return super().bound(form, source, drawn, self.length(source, drawn, dt), made)

    def within(
        self, source: TreeOrigin, drawn: Drawn, theta: Array, dt: Array, mark: Array | None
    ) -> Array:
        """W at t + θ dt, from the start of the step; by the mark of that time, if there is one."""
        del dt
        if mark is None:
            tick = drawn.path.tick + part_of(drawn.ticks, theta)
            mark = self.value(source.words, tick)
        return jnp.sqrt(source.span).astype(self.dtype) * (mark - drawn.path.w)

    def longest(self, dt: Array) -> Array:
        """1.25 dt: the longest cell of at most that has 0.9 dt in the mean, and controllers aim at
        a dt of 0.8 times what the tolerance allows.
        """
        return 1.25 * dt

    def shortest(self, source: TreeOrigin, tiny: Array) -> Array:
        """A tick."""
        return jnp.maximum(tiny, (source.span * (1 / TICKS)).astype(tiny.dtype))

    def _ticks(self, source: TreeOrigin, t: Array) -> Int[Array, "..."]:
        part = lax.stop_gradient((t - source.t0) / source.span)
        return jnp.round(jnp.clip(part, 0, 1) * TICKS).astype(jnp.int32)

    def _time(self, source: TreeOrigin, ticks: Array) -> Array:
        return source.span * tick_length(ticks, source.span.dtype)

    def _exponent(self, source: TreeOrigin, dt: Array) -> Int[Array, ""]:
        """The longest cell of at most dt."""
        part = jnp.clip(lax.stop_gradient(dt / source.span), 0, 1)
        return 31 - lax.clz(jnp.maximum((part * TICKS).astype(jnp.int32), 1))

    def _cell(self, source: TreeOrigin, cells: Array, tick: Array, k: Array) -> tuple:
        """(W, H) of the cell of 2^k ticks that holds a tick."""
        first = LEVELS - _AHEAD
        long = k > first
        w, h = get_row(cells, jnp.where(long, 1 << _AHEAD, tick >> first))
        return descend(self, source.words, (w, h), tick, k, jnp.where(long, LEVELS, first))

    def _between(
        self, source: TreeOrigin, cells: Array, start: Array, end: Array, k: Array
    ) -> tuple:
        """(W, H) from one tick to another, both in the cell of 2^k ticks that holds the first."""
        return between(self, source.words, self._cell(source, cells, start, k), start, end, k)

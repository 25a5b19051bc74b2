"""Brownian motion by key: increments for the loop, and the path at any time.

Two kinds share one protocol: `Steps` (given steps: the increments of step i are draw number i) and
`Tree` (controlled steps, `brownian_tree.py`). The loop carries a *path*, a few numbers that say
where on it the solve is; an attempt gets a `StepDraw`, of which the tape keeps what is `Drawn`.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Integer, PyTree

from ..autodiff.while_loop import loop
from .counter_rng import RandomKey, Words, key_words, normals, threefry

__all__ = [
    "LEVELS",
    "TICKS",
    "Cell",
    "Drawn",
    "Noise",
    "PathPoint",
    "StepCell",
    "StepDraw",
    "StepNoise",
    "Steps",
    "descend",
    "eighths",
    "halve_cell",
]

LEVELS = 30
TICKS = 1 << LEVELS
_WITHIN = 0xB1D6E  # of the counter, where the keys of the insides of steps are
_OF_H = math.sqrt(1 / 12)  # the deviation of H/√dt


class Drawn(NamedTuple):
    """The noise of an attempt: where on the path it started, its standard increments, and (of a
    tree) its length in ticks.

    `normal` has the shape (1 or 2, …): W/√dt ~ N(0, 1), and where it is wanted H/√dt ~ N(0, 1/12).
    """

    path: PyTree
    normal: Float[Array, "..."]
    ticks: PyTree = ()


class StepDraw(NamedTuple):
    """The draw of an attempt: dt, whether it lands on its target, the noise, the path after the
    attempt if it is accepted and if it is not, and the code that fixes dt when it is run again.
    """

    dt: Array
    landing: Array
    drawn: Drawn
    accepted: PyTree
    rejected: PyTree
    code: Int[Array, ""] | None = None


class PathPoint(NamedTuple):
    """A point of the unit path: its tick, and W there."""

    tick: Int[Array, "*cells"]
    w: Float[Array, "..."]


class Cell(NamedTuple):
    """A dyadic cell of the unit path: its first tick, W there, its level (it has 2^level ticks,
    and none at −1), and (W, H) over it.
    """

    tick: Int[Array, "*cells"]
    start: Float[Array, "..."]
    level: Int[Array, "*cells"]
    w: Float[Array, "..."]
    h: Float[Array, "..."]


class StepCell(NamedTuple):
    """A dyadic cell that holds a step, the words of its key, and the ends of the step."""

    words: Words
    cell: Cell
    first: PathPoint
    last: PathPoint


class StepNoise(NamedTuple):
    """The noise of one step, as a form hands it to a method; `root` is √dt."""

    noise: "Noise"
    source: PyTree
    drawn: Drawn
    root: Array


@dataclass(frozen=True)
class Noise[S, P]:
    """Noise of a shape, one number for each independent Brownian motion; `area`: H is wanted.
    `S` is the type of its source, and `P` that of the path.
    """

    bits: ClassVar[int] = 0  # of the code of a draw

    shape: tuple[int, ...]
    dtype: str
    area: bool

    def source(self, key: RandomKey, t0: Array, t1: Array) -> S:
        """Returns the source of the noise, which the key determines."""
        raise NotImplementedError

    def writing(self, within: bool) -> "Noise":
        """Returns the noise for a solve that saves rows, perhaps `within` steps."""
        del within
        return self

    def ahead(self, source: S) -> PyTree:
        """Draws the numbers that are drawn before the loop."""
        del source
        return ()

    def marks(self, source: S, times: Array) -> tuple:
        """Returns the data of the path that a row needs which is saved at a time."""
        del source, times
        return ()

    def start(self, source: S, t: Array, dt: Array) -> P:
        """The path at t, before an attempt of about dt."""
        raise NotImplementedError

    def draw(
        self,
        source: tuple[S, PyTree],
        path: P,
        dt: Array,
        landing: Array,
        target: tuple[Array, Array],
        code: Int[Array, ""] | None,
    ) -> StepDraw:
        """The noise of an attempt of dt, or of one that is `landing` on its target: (its time, how
        far that is). Here `source` is a pair: the source, and the numbers that were drawn ahead.
        """
        raise NotImplementedError

    def cut(self, source: S, draw: StepDraw, theta: Array, point: PathPoint | None) -> P:
        """The path from θ inside an attempt, where an event has cut it off: at the point of the
        unit path, where that is known.
        """
        raise NotImplementedError

    def step_cell(self, source: S, drawn: Drawn) -> StepCell:
        """A dyadic cell that holds an attempt."""
        raise NotImplementedError

    def length(self, source: S, drawn: Drawn, dt: Array) -> Array:
        """The dt of an attempt that is replayed, as a function of the source."""
        raise NotImplementedError

    def is_remainder(self, drawn: Drawn) -> Bool[Array, ""] | bool:
        """True if an attempt is the rest of a step that an event has cut."""
        del drawn
        return False

    def longest(self, dt: Array) -> Array:
        """The longest step that is made when dt is proposed."""
        return dt

    def shortest(self, source: S, tiny: Array) -> Array:
        """The length below which there are no steps, if that is more than `tiny`."""
        del source
        return tiny

    def bound(
        self, form: Any, source: S, drawn: Drawn, dt: Array, made: Bool[Array, ""] | bool = True
    ) -> Any:
        """The form with the noise of a step of dt in place; no noise where the step is not made."""
        some = dt > 0
        root = jnp.where(made & some, jnp.sqrt(jnp.where(some, dt, 1)), 0)
        return form.with_noise(StepNoise(self, source, drawn, root.astype(self.dtype)))

    def within(self, source: S, drawn: Drawn, theta: Array, dt: Array, mark: Array | None) -> Array:
        """W at t + θ dt, from the start of the step."""
        raise NotImplementedError

    def draws(self, words: Words, index: Integer[Array, ""], count: int) -> Array:
        """`count` standard normals for each Brownian motion."""
        return normals(words, index, (count, *self.shape), self.dtype)

    def whole(self, words: Words, count: int = 2, index: Integer[Array, ""] | int = 0) -> Array:
        """W and H over an interval of length one."""
        scale = np.array([1.0, _OF_H][:count]).reshape(-1, *(1 for _ in self.shape))
        return self.draws(words, jnp.asarray(index), count) * scale.astype(self.dtype)


class Inside(NamedTuple):
    """The position in a given step that an event may cut: its number, the tick inside it, W there
    (of the unit path), the length of the rest, and True if that lands on a target.
    """

    number: Int[Array, ""]
    tick: Int[Array, ""]
    w: Array
    left: Array
    lands: Array


type StepPlace = Int[Array, ""] | Inside
"""The number of a step; with the place inside it, where events cut steps."""


@dataclass(frozen=True)
class Steps(Noise[Words, StepPlace]):
    """Given steps: step i has draw number i, times √dt.

    Inside a step the path is a tree of its own, for times between its ends. `cuts`: events may cut
    a step there; what is left of it is then the next one, with what is left of its noise.
    """

    cuts: bool = False

    def source(self, key: RandomKey, t0: Array, t1: Array) -> Words:
        """The words of the key."""
        del t0, t1
        return key_words(key)

    def start(self, source: PyTree, t: Array, dt: Array) -> StepPlace:
        """The number of the step."""
        del source, t
        zero = jnp.zeros((), jnp.int32)
        return self._start(zero, dt) if self.cuts else zero

    def _start(self, number: Array, dt: Array) -> Inside:
        """The start of a step."""
        zero, w = jnp.zeros((), jnp.int32), jnp.zeros(self.shape, self.dtype)
        return Inside(number, zero, w, jnp.zeros_like(lax.stop_gradient(dt)), jnp.zeros((), bool))

    def draw(
        self,
        source: PyTree,
        path: StepPlace,
        dt: Array,
        landing: Array,
        target: tuple[Array, Array],
        code: Int[Array, ""] | None,
    ) -> StepDraw:
        """The draw of this number."""
        del code
        if isinstance(path, Inside):
            return self._rest(source[0], path, dt, landing, target)
        normal = self.whole(source[0], 2 if self.area else 1, path)
        dt = jnp.where(landing, target[1], dt)
        return StepDraw(dt, landing, Drawn(path, normal), path + 1, path)

    def _rest(
        self, words: Words, path: Inside, dt: Array, landing: Array, target: tuple[Array, Array]
    ) -> StepDraw:
        """The draw of this number, or the rest of it."""
        fresh = path.tick == 0
        landing = jnp.where(fresh, landing, path.lands)
        dt = jnp.where(landing, target[1], jnp.where(fresh, dt, path.left))
        ticks = TICKS - path.tick
        inner, cell = self._cell(words, path.number)
        rest = between(self, inner, cell, path.tick, jnp.int32(TICKS), jnp.int32(LEVELS))
        rest = jnp.stack(rest) / jnp.sqrt(tick_length(ticks, self.dtype))
        normal = jnp.where(fresh, jnp.stack(cell), rest)
        drawn = Drawn(path, normal if self.area else normal[:1], ticks)
        return StepDraw(dt, landing, drawn, self._start(path.number + 1, dt), path)

    def _cell(self, words: Words, number: Array) -> tuple[Array, tuple[Array, Array]]:
        """The words of the inside of a step, and (W, H) of all of it (of the unit path)."""
        inner = jnp.stack(threefry(words, number.astype(jnp.uint32), jnp.uint32(_WITHIN)))
        if self.area:
            w, h = self.whole(words, 2, number)
            return inner, (w, h)
        return inner, (self.whole(words, 1, number)[0], self.whole(inner)[1])

    def is_remainder(self, drawn: Drawn) -> Bool[Array, ""] | bool:
        """True if this is the rest of a step."""
        return drawn.path.tick > 0 if self.cuts else False

    def length(self, source: PyTree, drawn: Drawn, dt: Array) -> Array:
        """dt, or the length of the rest of a step."""
        del source
        return jnp.where(self.is_remainder(drawn), drawn.path.left, dt) if self.cuts else dt

    def cut(self, source: PyTree, draw: StepDraw, theta: Array, point: PathPoint | None) -> Inside:
        """Returns the path of the rest of the step."""
        path = draw.drawn.path
        tick, w = self._at(source, draw.drawn, theta) if point is None else point
        left = (1 - theta.astype(draw.dt.dtype)) * draw.dt
        rest = Inside(path.number, tick, w, lax.stop_gradient(left), draw.landing)
        fresh, done = self._start(path.number + 1, left), tick >= TICKS
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, rest)

    def step_cell(self, source: PyTree, drawn: Drawn) -> StepCell:
        """All of the step, of which the attempt may be the rest."""
        words, (w, h) = self._cell(source, drawn.path.number)
        zero = jnp.zeros((), jnp.int32)
        cell = Cell(zero, jnp.zeros_like(w), jnp.int32(LEVELS), w, h)
        first, last = PathPoint(drawn.path.tick, drawn.path.w), PathPoint(jnp.int32(TICKS), w)
        return StepCell(words, cell, first, last)

    def _at(self, source: PyTree, drawn: Drawn, theta: Array) -> tuple[Array, Array]:
        """The tick at θ of what may be the rest of a step, and W there (of the unit path)."""
        tick = drawn.path.tick + part_of(drawn.ticks, theta)
        words, cell = self._cell(source, drawn.path.number)
        inside = descend(self, words, cell, tick, lowest(tick), LEVELS, follow=True)[2]
        return tick, jnp.where(tick >= TICKS, cell[0], inside)

    def within(
        self, source: PyTree, drawn: Drawn, theta: Array, dt: Array, mark: Array | None
    ) -> Array:
        """W at t + θ dt, from the start of the step; near an end of it, the value at the end."""
        if self.cuts:
            w = self._at(source, drawn, theta)[1] if mark is None else mark
            return jnp.sqrt(dt / tick_length(drawn.ticks, self.dtype)) * (w - drawn.path.w)
        theta = lax.stop_gradient(theta)
        slack = float(jnp.finfo(theta.dtype).eps) ** 0.5
        theta = jnp.where(theta < slack, 0, jnp.where(theta > 1 - slack, 1, theta))
        tick = jnp.round(theta * TICKS).astype(jnp.int32)
        words = jnp.stack(threefry(source, drawn.path.astype(jnp.uint32), jnp.uint32(_WITHIN)))
        w = drawn.normal[0]
        h = drawn.normal[1] if self.area else self.whole(words)[1]
        inside = descend(self, words, (w, h), tick, lowest(tick), LEVELS, follow=True)[2]
        return jnp.sqrt(dt) * jnp.where(tick >= TICKS, w, inside)


def part_of(ticks: Array, theta: Array) -> Int[Array, "..."]:
    """The number of ticks that θ is, of so many."""
    return jnp.round(lax.stop_gradient(theta) * ticks).astype(jnp.int32)


# --- cells and their halves ---------------------------------------------------------------------


def halves(
    w: Array, h: Array, z: Array, n: Array, half: Array
) -> tuple[Array, Array, Array, Array]:
    """(W, H) of both halves, each of length `half`, given those of the whole and two standard
    normals: W_left = W/2 + 3H/2 + Z, H_left = H/4 − Z/2 + N/2 and H_right = H/4 − Z/2 − N/2, with
    Z ~ N(0, half/8) and N ~ N(0, half/6).
    """
    root = jnp.sqrt(half)
    z, n = z * (root * math.sqrt(1 / 8)), n * (root * math.sqrt(1 / 24))
    mean = h / 4 - z / 2
    left = w / 2 + 3 * h / 2 + z
    return left, mean + n, w - left, mean - n


def _split(
    noise: Noise, words: Words, tick: Array, level: Array, cell: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    """The length of the halves of the cell of 2^level ticks that holds a tick, and their (W, H)."""
    node = (jnp.int32(1) << (LEVELS - level)) + (tick >> level)
    half = tick_length(jnp.int32(1) << (level - 1), noise.dtype)
    z, n = noise.draws(words, node, 2)
    return half, halves(*cell, z, n, half)


def halve_cell(noise: Noise, words: Words, cell: Cell) -> tuple[Cell, Cell]:
    """Both halves of a cell; of a single tick, itself and an empty cell at its end, of level −1."""
    level = jnp.maximum(cell.level, 1)
    _, (w, h, w_right, h_right) = _split(noise, words, cell.tick, level, (cell.w, cell.h))
    whole = cell.level <= 0
    w, h = jnp.where(whole, cell.w, w), jnp.where(whole, cell.h, h)
    middle = cell.tick + jnp.where(cell.level < 0, 0, jnp.int32(1) << (level - 1))
    left = Cell(cell.tick, cell.start, jnp.where(whole, cell.level, level - 1), w, h)
    w_right, h_right = jnp.where(whole, 0, w_right), jnp.where(whole, 0, h_right)
    below = jnp.maximum(cell.level - 1, -1)
    return left, Cell(middle, cell.start + w, below, w_right, h_right)


def eighths(noise: Noise, words: Words, cell: Cell) -> Cell:
    """The eight parts of a cell, one after the other."""
    parts = jax.tree.map(lambda x: x[None], cell)
    for _ in range(3):
        both = jax.vmap(lambda part: halve_cell(noise, words, part))(parts)
        parts = jax.tree.map(lambda a, b: jnp.stack([a, b], 1).reshape(-1, *a.shape[1:]), *both)
    return parts


def descend(
    noise: Noise,
    words: Words,
    cell: tuple[Array, Array],
    tick: Array,
    k: Int[Array, ""],
    top: Int[Array, ""] | int,
    *,
    follow: bool = False,
) -> tuple[Array, ...]:
    """(W, H) of the cell of 2^k ticks that holds `tick`, from those of the one of 2^top ticks.

    To `follow` adds W at its start, and the integral of W up to there, both counted from the start
    of the cell above. With k = `lowest(tick)` that is where `tick` is.
    """

    def more(consts: tuple[Words, Array, Array], state: tuple[Array, ...], _: tuple[()]) -> Array:
        return state[0] > consts[2]

    def halve(
        active: Bool[Array, ""],
        consts: tuple[Words, Array, Array],
        state: tuple[Array, ...],
        _: tuple[()],
    ) -> tuple[tuple[Array, ...], tuple[()]]:
        del active
        words, tick = consts[:2]
        x, w, h, *place = state
        half, (left, h_left, right, h_right) = _split(noise, words, tick, x, (w, h))
        goes_right = ((tick >> (x - 1)) & 1) == 1
        if follow:
            start, area = place
            past = area + half * (start + left / 2 + h_left)
            place = [jnp.where(goes_right, start + left, start), jnp.where(goes_right, past, area)]
        w, h = jnp.where(goes_right, right, left), jnp.where(goes_right, h_right, h_left)
        return (x - 1, w, h, *place), ()

    place = [jnp.zeros_like(cell[0])] * 2 if follow else []
    start = (jnp.asarray(top, jnp.int32), *lax.stop_gradient(cell), *place)
    (_, *found), _ = loop(more, halve, start, consts=lax.stop_gradient((words, tick, k)))
    return tuple(found)


def between(
    noise: Noise, words: Words, cell: tuple[Array, Array], start: Array, end: Array, k: Array
) -> tuple[Array, Array]:
    """(W, H) from one tick to another, both in the cell of 2^k ticks that holds the first, whose
    (W, H) is `cell`.

    By differences of W and of its integral, counted from the start of the cell.
    """
    w, h = cell

    def at(tick: Array) -> tuple[Array, ...]:
        level = jnp.minimum(k, lowest(tick))
        return descend(noise, words, (w, h), tick, level, k, follow=True)[2:]

    (w0, area0), (w1, area1) = at(start), at(end)
    size = tick_length(jnp.int32(1) << k, noise.dtype)
    whole = (end >> k) > (start >> k)
    w1, area1 = jnp.where(whole, w, w1), jnp.where(whole, size * (w / 2 + h), area1)
    part = tick_length(end - start, noise.dtype)
    area = area1 - area0 - part * w0
    return w1 - w0, jnp.where(part > 0, area / jnp.where(part > 0, part, 1) - (w1 - w0) / 2, 0)


def lowest(tick: Array) -> Array:
    """The largest k for which 2^k divides a tick; the number of levels for 0."""
    bit = tick & -tick
    return jnp.where(bit == 0, LEVELS, 31 - lax.clz(bit))


def tick_length(ticks: Array, dtype: DTypeLike) -> Array:
    """Ticks as a part of the whole."""
    return ticks.astype(dtype) * (1 / TICKS)

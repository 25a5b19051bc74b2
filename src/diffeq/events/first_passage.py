"""Locates the first zero crossing of the conditions on a path with noise.

Such a path crosses again and again, and is nowhere a polynomial: conditions are evaluated at the
eighths of a dyadic cell of the Brownian motion that holds the step, and the first eighth in which
one changes sign is halved down to a tick, each time to the half that has the first change. A
halving is one bridge; to evaluate the path at a place of its own takes as many as there are levels
above it.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from ..autodiff.while_loop import loop
from ..brownian import TICKS, Cell, PathPoint, StepCell, eighths, halve_cell
from ..methods.brownian_bridge import Bridge
from .locate import ConditionSign, Crossing, CrossingRule, largest_size, pick_first

__all__ = ["first_passage"]

type _Evaluated = tuple[PathPoint, Array]
"""A point of the path, and the numbers of the conditions there."""

type _Search = tuple[Cell, _Evaluated, Array]
"""The cell with the first crossing, the point after it, and the sides before it."""


def first_passage(
    bridge: Bridge,
    numbers: Callable[[Array, Array], Array],
    signs: ConditionSign,
    direction: np.ndarray,
    open_: Array,
    dtype: np.dtype,
) -> Crossing:
    """The first crossing of `numbers(theta, y)`, a vector, along a step, to a tick of the Brownian
    motion. `open_`: whether to search at all.
    """
    step = bridge.step_cell()
    ticks = step.last.tick - step.first.tick
    rule = CrossingRule(direction, jnp.where(direction != 0, direction, -signs.side))

    def place(tick: Array) -> Array:
        return (tick - step.first.tick).astype(dtype) / jnp.maximum(ticks, 1)

    def evaluated(point: PathPoint) -> Array:
        theta = place(point.tick)
        return numbers(theta, bridge(theta, point.w))

    parts = eighths(bridge.noise, step.words, step.cell)
    points = _ends_of(parts, step)
    h = jax.vmap(evaluated)(points)
    some, search = _first_part(rule, signs.side, parts, points, h)
    found = some & open_
    (_, (point, at), before) = _first_tick(rule, evaluated, bridge, step, search, found)
    sides = rule.sides(at)
    over = rule.crossed(before, sides)
    found = found & ~jnp.any(over & jnp.isnan(at))  # the border of a domain is no zero
    crossed = found & over
    first = crossed & (jnp.cumsum(crossed) == 1)
    side = jnp.where(crossed, jnp.where(first, -before, before), sides)
    last = jnp.where(jnp.isnan(h[-1]), signs.side, rule.sides(h[-1]))
    after = ConditionSign(jnp.where(found, side, last), jnp.zeros_like(signs.on))
    theta = jnp.where(found, place(point.tick), 1)
    return Crossing(theta, first, crossed, after, largest_size(h), point)


def _ends_of(parts: Cell, step: StepCell) -> PathPoint:
    """The ends of the parts of a cell, those outside the step moved to its ends."""
    tick = jnp.append(parts.tick, jnp.int32(TICKS))  # after every step
    w = jnp.concatenate([parts.start, parts.start[:1]])
    wide = lambda mask: mask.reshape(-1, *(1,) * (w.ndim - 1))  # noqa: E731
    w = jnp.where(wide(tick <= step.first.tick), step.first.w, w)
    w = jnp.where(wide(tick >= step.last.tick), step.last.w, w)
    return PathPoint(jnp.clip(tick, step.first.tick, step.last.tick), w)


def _first_part(
    rule: CrossingRule, side: Array, parts: Cell, points: PathPoint, h: Array
) -> tuple[Bool[Array, ""], _Search]:
    """Returns whether there is a crossing, and the first of the parts that has one."""
    sides = rule.sides(h)
    before = jnp.concatenate([side[None], sides[:-1]])
    some = jnp.any(rule.crossed(before, sides), axis=1)
    # The first point has no part before it: what has crossed there has done so at once.
    ahead = lambda x: jnp.concatenate([jnp.zeros_like(x[:1]), x])  # noqa: E731
    chosen: PyTree = (jax.tree.map(ahead, parts), (points, h), before)
    return jnp.any(some), jax.tree.map(partial(pick_first, some), chosen)


def _first_tick(
    rule: CrossingRule,
    evaluated: Callable[[PathPoint], Array],
    bridge: Bridge,
    step: StepCell,
    search: _Search,
    found: Array,
) -> _Search:
    """The tick in which the first crossing of a cell lies."""

    def longer(found: Bool[Array, ""], search: _Search, _: tuple[()]) -> Array:
        return found & (search[0].level > 0)

    def halve(
        active: Bool[Array, ""], consts: Bool[Array, ""], search: _Search, _: tuple[()]
    ) -> tuple[_Search, tuple[()]]:
        del active, consts
        cell, after, side = search
        left, right = halve_cell(bridge.noise, step.words, cell)
        middle = PathPoint(right.tick, right.start)
        h = evaluated(middle)
        sides = rule.sides(h)
        inside = (middle.tick > step.first.tick) & (middle.tick < step.last.tick)
        over = inside & jnp.any(rule.crossed(side, sides))
        earlier = over | (middle.tick >= step.last.tick)
        choose = lambda flag, a, b: jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)  # noqa: E731
        cell = choose(earlier, left, right)
        after = choose(over, (middle, h), after)
        return (cell, after, jnp.where(inside & ~over, sides, side)), ()

    return loop(longer, halve, search, consts=found)[0]

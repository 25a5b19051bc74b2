"""Where, inside a step, a condition crosses zero for the first time.

All conditions of a solve are one vector h(θ) along the polynomial of the step, θ from 0 to 1. Its
signs are looked at in `SAMPLES` places, and in the deepest dip between them, so that a pair of
crossings inside one step is found. The first interval in which any sign changes is then narrowed
to rounding by the ITP method (Oliveira and Takahashi): as quick as the secant method, and never
slower than bisection by more than one turn, so that booleans (±1) are bisected by the same code.
What is kept is always the first crossing of all: the interval's left end lies before every one.

A condition that starts on a zero (an event has just happened) would cross it again in rounding
errors: there h is (g(θ) − g(0))/θ, which has lost that root and kept all others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core.loop import loop

__all__ = ["Crossing", "Stand", "first_crossing", "located"]

SAMPLES = 8


class Stand(NamedTuple):
    """How each condition stands at the start of a step: on which `side` of zero (±1; 0: not known),
    and whether `on` the zero itself, from where `side` is where it moves to.
    """

    side: Int[Array, " k"]
    on: Bool[Array, " k"]


class Crossing(NamedTuple):
    """The first crossing in a step. `theta` is where it was, and 1 if there was none; `crossed` all
    that cross there, of which the `first` has done so, while the others are to follow; `stand` is
    how all conditions stand there, and `scale` the largest |g| in the step.
    """

    theta: Float[Array, ""]
    first: Bool[Array, " k"]
    crossed: Bool[Array, " k"]
    stand: Stand
    scale: Float[Array, " k"]


class _Rule(NamedTuple):
    """What counts as a crossing: from which side to which, and what an exact zero is."""

    direction: np.ndarray
    zero: Array

    def sides(self, h: Array) -> Array:
        """±1; a zero, and what is no number any more, counts as where it was on the way to."""
        side = jnp.sign(jnp.where(jnp.isnan(h), 0, h)).astype(jnp.int32)
        return jnp.where(side == 0, self.zero, side)

    def crossed(self, before: Array, after: Array) -> Array:
        """Whether a change of sides is a crossing in the right direction."""
        wanted = (self.direction == 0) | (after == self.direction)
        return (before * after < 0) & wanted


class _Bracket(NamedTuple):
    """An interval with the first crossing inside: none at `a`, at least one at `b`. `reach` halves
    at each turn and bounds the interval, which is what makes ITP no slower than bisection.
    """

    a: Array
    b: Array
    ha: Array
    hb: Array
    side: Array
    reach: Array


def first_crossing(
    values: Callable, stand: Stand, direction: np.ndarray, slack: Array, wanted: Any, open_: Array
) -> Crossing:
    """The first crossing of `values(theta)`, a vector.

    `slack`: crossings so close after the first one (in θ) count as simultaneous. `wanted`: those
    that are known to happen, in a second run, which never takes another path; or None. `open_`:
    whether to look at all.
    """
    free = jnp.where(stand.on, stand.side, jnp.where(direction != 0, direction, -stand.side))
    rule = _Rule(direction, free)
    grid = jnp.arange(SAMPLES + 1).astype(slack.dtype) / SAMPLES
    g = jax.vmap(values)(grid)
    start = g[0]
    deflated = lambda theta: _deflated(values(theta), start, theta, stand.on)  # noqa: E731
    thetas, h = _samples(deflated, grid, g, stand)
    found, bracket = _first_interval(rule, stand.side, thetas, h, wanted, open_)
    bracket = _narrowed(rule, deflated, bracket, found, stand.on)
    sides = rule.sides(bracket.hb)
    later = deflated(bracket.b + slack + 8 * jnp.finfo(slack.dtype).eps * bracket.b)
    # So soon that it counts as at the same time; but not where it jumps over zero.
    size = jnp.max(jnp.where(jnp.isnan(h), 0, jnp.abs(h)), axis=0)
    soon = rule.crossed(sides, rule.sides(later)) & (jnp.abs(later - bracket.hb) <= 0.1 * size)
    over = rule.crossed(bracket.side, sides)
    found = found & ~jnp.any(over & jnp.isnan(bracket.hb))  # the border of a domain is no zero
    crossed = found & (over | soon)
    first = crossed & (jnp.cumsum(crossed) == 1)
    theta = jnp.where(found, bracket.b, 1)
    if wanted is not None:
        first, crossed = wanted, crossed | wanted
        # It was there before; if it is not found again, it is at the nearer end.
        late = jnp.any(wanted & (jnp.abs(g[-1]) < jnp.abs(start)))
        theta = jnp.where(jnp.any(wanted) & ~found, late.astype(theta.dtype), theta)
    side = jnp.where(crossed, jnp.where(first, -bracket.side, bracket.side), sides)
    side = jnp.where(found, side, jnp.where(jnp.isnan(h[-1]), stand.side, rule.sides(h[-1])))
    # What has risen from a zero is off it when its number says so, too.
    there = jnp.where(stand.on, start + bracket.b.astype(g.dtype) * bracket.hb, bracket.hb)
    rests = stand.on & (jnp.sign(jnp.where(found, there, g[-1])) != side) & ~first
    return Crossing(theta, first, crossed, Stand(side, rests), jnp.max(jnp.abs(g), axis=0))


def _deflated(g: Array, start: Array, theta: Array, on: Array) -> Array:
    return jnp.where(on, (g - start) / jnp.where(theta > 0, theta, 1), g)


def _samples(values: Callable, grid: Array, g: Array, stand: Stand) -> tuple[Array, Array]:
    """Places in order, with what is h there; the first is the start."""
    h = _deflated(g, g[0], grid[:, None], stand.on)
    h = jnp.concatenate([jnp.where(stand.on, stand.side, g[0])[None], h[1:]])
    dip = _dip(h, grid.dtype)
    at = jnp.sum(grid <= dip)

    def inserted(xs: Array, x: Array) -> Array:
        place = lax.broadcasted_iota(jnp.int32, (SAMPLES + 2, *xs.shape[1:]), 0)
        before, after = (jnp.concatenate(p) for p in ((xs, xs[-1:]), (xs[:1], xs)))
        return jnp.where(place < at, before, jnp.where(place == at, x, after))

    return inserted(grid, dip), inserted(h, values(dip))


def _dip(h: Array, dtype: Any) -> Array:
    """Where a parabola through three neighbours comes nearest to zero, or beyond it, relative to
    its middle; 1, if none bends that way.
    """
    left, middle, right = h[:-2], h[1:-1], h[2:]
    bend = left - 2 * middle + right
    slope = (left - right) / 2
    bends = (middle * bend > 0) & (left * middle > 0) & (right * middle > 0)
    offset = slope / jnp.where(bends, bend, 1)
    bends = bends & (jnp.abs(offset) < 1)
    depth = jnp.where(bends, 1 - slope * offset / (2 * jnp.where(bends, middle, 1)), jnp.inf)
    places = (lax.broadcasted_iota(dtype, h.shape, 0)[1:-1] + offset.astype(dtype)) / SAMPLES
    deepest = bends & (depth == jnp.min(depth))
    return jnp.min(jnp.where(deepest, places, 1))


def _first_interval(
    rule: _Rule, side: Array, thetas: Array, h: Array, wanted: Any, open_: Array
) -> tuple[Array, _Bracket]:
    """Whether there is a crossing, and between which samples the first one lies."""
    sides = rule.sides(h)
    before = jnp.concatenate([side[None], sides[:-1]])
    hits = rule.crossed(before, sides) & open_
    hits = hits if wanted is None else hits & wanted
    some = jnp.any(hits, axis=1)
    first = some & (jnp.cumsum(some) == 1)

    def pick(xs: Array) -> Array:
        mask = first.reshape(-1, *(1,) * (xs.ndim - 1))
        return jnp.sum(jnp.where(mask, xs, 0), axis=0, dtype=xs.dtype)

    earlier = lambda xs: jnp.concatenate([xs[:1], xs[:-1]])  # noqa: E731
    a, b = pick(earlier(thetas)), pick(thetas)
    return jnp.any(some), _Bracket(a, b, pick(earlier(h)), pick(h), pick(before), b - a)


def _narrowed(
    rule: _Rule, values: Callable, bracket: _Bracket, found: Array, on: Array
) -> _Bracket:
    """The interval, no longer than rounding."""
    eps = jnp.finfo(bracket.a.dtype).eps
    ulp = lambda bracket: eps * jnp.maximum(bracket.b, 1e-3)  # noqa: E731
    width = bracket.b - bracket.a
    steepness = 0.2 / jnp.where(width > 0, width, 1)

    def wide(consts: Any, bracket: _Bracket, _: Any) -> Array:
        return consts[0] & (bracket.b - bracket.a > ulp(bracket))

    def turn(active: Any, consts: Any, now: _Bracket, _: Any) -> tuple[_Bracket, Any]:
        del active
        length, half = now.b - now.a, (now.a + now.b) / 2
        crossing = rule.crossed(now.side, rule.sides(now.hb))
        ha = jnp.where(on & (now.a == 0), -now.hb, now.ha)  # a deflated one has but a sign there
        rise = ha - now.hb
        secant = now.a + length * (ha / jnp.where(rise != 0, rise, 1)).astype(length.dtype)
        secant = jnp.min(jnp.where(crossing & (rise != 0), secant, now.b))
        # Interpolate, truncate towards the middle, project onto what bisection would allow.
        toward = jnp.sign(half - secant)
        step = jnp.maximum(consts[1] * length * length, ulp(now))
        place = jnp.where(step <= jnp.abs(half - secant), secant + toward * step, half)
        radius = jnp.maximum(now.reach - length / 2, 0)
        place = jnp.clip(place, half - radius, half + radius)
        h = values(place)
        sides = rule.sides(h)
        over = jnp.any(rule.crossed(now.side, sides))
        left = now._replace(b=place, hb=h)
        right = now._replace(a=place, ha=h, side=sides)
        now = jax.tree.map(lambda x, y: jnp.where(over, x, y), left, right)
        return now._replace(reach=now.reach / 2), _

    bracket, _ = loop(wide, turn, bracket, consts=(found, steepness))
    return bracket


# --- its derivative -----------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def located(residual: Callable, theta: Array, real: Bool[Array, ""], x: Any) -> Array:
    """`theta`, a root of residual(θ, x), as a function of x: dθ = −(∂g/∂x · dx)/g_θ.

    Both derivatives are taken at this function's own result, which depends on x in turn; with θ
    held fixed there, second derivatives would be wrong. Where it is not `real`, nothing moves.
    """
    del residual, real, x
    return theta


@located.defjvp
def _located_jvp(residual: Callable, primals: Any, tangents: Any) -> tuple[Array, Array]:
    theta, real, x = primals
    at = located(residual, theta, real, x)
    slope = jax.jvp(lambda theta: residual(theta, x), (at,), (jnp.ones_like(at),))[1]
    moved = jax.jvp(lambda x: residual(at, x), (x,), (tangents[2],))[1]
    rate = moved / jnp.where(real, slope, 1)
    return at, -jnp.where(real, rate, 0).astype(at.dtype)

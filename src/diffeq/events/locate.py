"""Locates the first zero crossing of the conditions inside a step.

All conditions of a solve are one vector h(θ) along the polynomial of the step, θ from 0 to 1. They
are evaluated in a part of the step, first in all of it, and interpolated by the polynomial of
degree 8 through nine places. Its coefficients in Bernstein's basis change sign at least as often as
it does (Descartes' rule): where they do so once at most, the nine places show all crossings. Where
they do so more often, or where four places between show that a condition is further from its
polynomial than the coefficients are from zero, the search goes on in half of the part. So all
crossings are found of a condition that is a polynomial of degree ≤ 8 along the step, and of any
other one as far as four places show how smooth it is.

The first interval in which any sign changes is then narrowed to rounding by the ITP method
(Oliveira and Takahashi): as quick as the secant method, and never slower than bisection by more
than one iteration, so that booleans (±1) are bisected by the same code. The bracket always has the
first crossing of all: its left end lies before every one.

A condition that starts on a zero (an event has just happened) would cross it again in rounding
errors: there h is (g(θ) − g(0))/θ, which has lost that root and kept all others.
"""

from collections.abc import Callable
from functools import partial
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..autodiff.while_loop import loop
from ..brownian import PathPoint
from ..core.promotion import standard_promotion

__all__ = [
    "ConditionSign",
    "Crossing",
    "CrossingRule",
    "crossing_at_end",
    "first_crossing",
    "largest_size",
    "located",
    "pick_first",
]

_DEGREE = 8
_NODES = np.arange(_DEGREE + 1) / _DEGREE
# Places between them, at no fraction of their distance that what oscillates could share.
_BETWEEN = np.array([0.0413, 0.3366, 0.6613, 0.9213])
_LOOKS, _NARROWEST = 256, 2.0**-24  # of a step: so many parts at the most, and none narrower


def _lagrange(theta: np.ndarray) -> np.ndarray:
    """The value at each θ of the polynomials that are 1 at one node."""
    ratio = lambda j, m: (theta - _NODES[m]) / (_NODES[j] - _NODES[m])  # noqa: E731
    every = range(len(_NODES))
    return np.stack([np.prod([ratio(j, m) for m in every if m != j], 0) for j in every], 1)


def _bernstein() -> np.ndarray:
    """From values at the nodes to the coefficients, in Bernstein's basis, of their polynomial."""
    t, i = _NODES[:, None], np.arange(_DEGREE + 1)
    binomial = np.array([comb(_DEGREE, k) for k in i])
    return np.linalg.inv(binomial * t**i * (1 - t) ** (_DEGREE - i))


def _distances(theta: np.ndarray) -> np.ndarray:
    """The product of the distances to all nodes."""
    return np.abs(np.prod(theta[:, None] - _NODES, 1))


_AT_BETWEEN, _COEFFICIENTS = _lagrange(_BETWEEN), _bernstein()
_ROUNDING = 2 * float(np.abs(_COEFFICIENTS).sum(1).max())  # of coefficients, in eps of the largest
# The interpolation error is g⁽⁹⁾(ξ)/9! times these products: by how much that may be larger
# elsewhere, and twice that.
_MARGINS = 2 * _distances(np.linspace(0, 1, 2001)).max() / _distances(_BETWEEN)


class ConditionSign(NamedTuple):
    """The sign of each condition at the start of a step: its `side` of zero (±1; 0: not known), and
    whether it is `on` the zero itself, where `side` is the one that it moves to.
    """

    side: Int[Array, " k"]
    on: Bool[Array, " k"]


class Crossing(NamedTuple):
    """The first crossing in a step. `theta` is its place, and 1 if there is none; `crossed` flags
    all that cross there, of which the `first` has done so, while the others are to follow; `signs`
    are those of all conditions there, and `scale` has the largest |g| in the step. `point` is its
    place on a Brownian motion, where the step has one and is searched along it.
    """

    theta: Float[Array, ""]
    first: Bool[Array, " k"]
    crossed: Bool[Array, " k"]
    signs: ConditionSign
    scale: Float[Array, " k"]
    point: PathPoint | None = None


class CrossingRule(NamedTuple):
    """Decides which changes of sign are crossings: those in the wanted `direction`, with an exact
    zero counted as the side `zero`.
    """

    direction: np.ndarray
    zero: Array

    def sides(self, h: Array) -> Array:
        """Returns ±1; a zero counts as the side it was expected to move to, and so does NaN."""
        side = jnp.sign(jnp.where(jnp.isnan(h), 0, h)).astype(jnp.int32)
        return jnp.where(side == 0, self.zero, side)

    def crossed(self, before: Array, after: Array) -> Array:
        """True if a change of sides is a crossing in the right direction."""
        wanted = (self.direction == 0) | (after == self.direction)
        return (before * after < 0) & wanted


class _Bracket(NamedTuple):
    """An interval with the first crossing inside: none at `a`, at least one at `b`. `reach` is
    halved in each iteration and bounds the interval, which is what makes ITP no slower than
    bisection.
    """

    a: Array
    b: Array
    ha: Array
    hb: Array
    side: Array
    reach: Array


class _BracketSearch(NamedTuple):
    """The state of the search through a step: no crossing up to `a`, where conditions have the
    signs `side`; the next part is of length `width`. `bracket` has a crossing, once it is `found`;
    `size` and `scale` are the largest |h| and |g| so far.
    """

    a: Array
    width: Array
    looks: Array
    found: Array
    bracket: _Bracket
    side: Array
    size: Array
    scale: Array


def first_crossing(
    values: Callable[[Array], Array],
    signs: ConditionSign,
    direction: np.ndarray,
    slack: Array,
    wanted: Bool[Array, " k"] | None,
    open_: Array,
    *,
    smooth: bool = True,
) -> Crossing:
    """The first crossing of `values(theta)`, a vector.

    `slack`: crossings so close after the first one (in θ) count as simultaneous. `wanted`: those
    that are known to happen, in a second run, which never takes another path; or None. `open_`:
    whether to search at all. A path that is not `smooth`, of an equation with noise, is nowhere a
    polynomial: the conditions, which here do not see it, are evaluated in nine places.
    """
    free = jnp.where(signs.on, signs.side, jnp.where(direction != 0, direction, -signs.side))
    rule = CrossingRule(direction, free)
    start, end = values(jnp.zeros_like(slack)), values(jnp.ones_like(slack))
    deflated = lambda theta: _deflated(values(theta), start, theta, signs.on)  # noqa: E731
    search = _search_step(rule, values, signs, start, wanted, open_, slack.dtype, smooth=smooth)
    found = search.found
    bracket = _narrow_bracket(rule, deflated, search.bracket, found, signs.on)
    sides = rule.sides(bracket.hb)
    later = deflated(bracket.b + slack + 8 * jnp.finfo(slack.dtype).eps * bracket.b)
    # So soon that it counts as at the same time; but not where it jumps over zero.
    soon = jnp.abs(later - bracket.hb) <= 0.1 * search.size
    soon = soon & rule.crossed(sides, rule.sides(later))
    over = rule.crossed(bracket.side, sides)
    found = found & ~jnp.any(over & jnp.isnan(bracket.hb))  # the border of a domain is no zero
    crossed = found & (over | soon)
    first = crossed & (jnp.cumsum(crossed) == 1)
    theta = jnp.where(found, bracket.b, 1)
    if wanted is not None:
        first, crossed = wanted, crossed | wanted
        # It was there before; if it is not found again, it is at the nearer end.
        late = jnp.any(wanted & (jnp.abs(end) < jnp.abs(start)))
        theta = jnp.where(jnp.any(wanted) & ~found, late.astype(theta.dtype), theta)
    side = jnp.where(crossed, jnp.where(first, -bracket.side, bracket.side), sides)
    last = jnp.where(signs.on, end - start, end)
    side = jnp.where(found, side, jnp.where(jnp.isnan(last), signs.side, rule.sides(last)))
    # A condition that has left a zero is off it once the sign of its number agrees.
    there = jnp.where(signs.on, start + bracket.b.astype(start.dtype) * bracket.hb, bracket.hb)
    at_zero = signs.on & (jnp.sign(jnp.where(found, there, end)) != side) & ~first
    return Crossing(theta, first, crossed, ConditionSign(side, at_zero), search.scale)


def crossing_at_end(
    values: Callable[[Array], Array], signs: ConditionSign, direction: np.ndarray, slack: Array
) -> Bool[Array, " k"]:
    """Flags the conditions that have not crossed at the end of a step, where they have these
    `signs`, and do so within rounding of it: that of time, and of a polynomial, which is a sum of
    larger numbers.
    """
    rule = CrossingRule(direction, jnp.where(direction != 0, direction, -signs.side))
    return rule.crossed(signs.side, rule.sides(values(1 + 16 * slack))) & ~signs.on


def _deflated(g: Array, start: Array, theta: Array, on: Array) -> Array:
    return jnp.where(on, (g - start) / jnp.where(theta > 0, theta, 1), g)


# --- part by part ---------------------------------------------------------------------------------


def _search_step(
    rule: CrossingRule,
    values: Callable[[Array], Array],
    signs: ConditionSign,
    start: Array,
    wanted: Bool[Array, " k"] | None,
    open_: Array,
    dtype: np.dtype,
    *,
    smooth: bool,
) -> _BracketSearch:
    """Searches the step up to its first crossing."""
    on, count = signs.on, len(_NODES)
    places = jnp.asarray(np.append(_NODES, _BETWEEN) if smooth else _NODES, dtype)

    def more(consts: Bool[Array, ""], search: _BracketSearch, _: tuple[()]) -> Array:
        return consts & ~search.found & (search.a < 1)

    def look(
        active: Bool[Array, ""], consts: Bool[Array, ""], search: _BracketSearch, _: tuple[()]
    ) -> tuple[_BracketSearch, tuple[()]]:
        del active, consts
        thetas = search.a + places * search.width
        g = jax.vmap(values)(thetas)
        h = _deflated(g, start, thetas[:, None], on)
        at, between = h[:count], h[count:]
        begin = jnp.where(on & (search.a == 0), _at_start(at, signs), at[0])
        at = jnp.concatenate([begin[None], at[1:]])
        last, clear = rule.sides(at[-1]), jnp.ones((), bool)
        if smooth:
            rough = jnp.where(on, largest_size(g) / thetas[1].astype(g.dtype), 0)
            clear = jnp.all(_is_clear(at, between, (search.side, last), rough))
        clear = clear | (search.width <= _NARROWEST) | (search.looks >= _LOOKS)
        some, bracket = _first_interval(rule, search.side, thetas[:count], at, wanted)
        a = jnp.where(clear, search.a + search.width, search.a)
        width = jnp.where(clear, jnp.minimum(2 * search.width, 1 - a), search.width / 2)
        looks = search.looks + 1
        after = _BracketSearch(
            a,
            jnp.where(looks < _LOOKS, width, 1 - a),
            looks,
            some & clear,
            bracket,
            jnp.where(clear, last, search.side),
            jnp.maximum(search.size, largest_size(at)),
            jnp.maximum(search.scale, largest_size(g)),
        )
        return after, ()

    zero, none = jnp.zeros((), dtype), jnp.zeros_like(start)
    blank = _Bracket(zero, zero, none, none, signs.side, zero)
    first = _BracketSearch(
        zero, zero + 1, jnp.int32(0), jnp.array(False), blank, signs.side, none, none
    )
    open_ = open_ if wanted is None else open_ & jnp.any(wanted)
    return loop(more, look, first, consts=open_)[0]


def largest_size(h: Array) -> Array:
    """The largest |h| of each condition over all places; NaN counts as 0."""
    return jnp.max(jnp.where(jnp.isnan(h), 0, jnp.abs(h)), axis=0)


def _at_start(h: Array, signs: ConditionSign) -> Array:
    """A deflated condition where it starts: by the polynomial through the other places, with the
    sign that is known.
    """
    alternating = (-1.0) ** np.arange(_DEGREE)
    weights = np.array([comb(_DEGREE, j) for j in range(1, _DEGREE + 1)]) * alternating
    return signs.side * jnp.abs(_weighted_sum(weights[None], h[1:])[0])


def _weighted_sum(weights: np.ndarray, h: Array) -> Array:
    """A matrix times h (places, k), as sums that a compiler does not take for a matrix product."""
    return jnp.sum(jnp.asarray(weights, h.dtype)[:, :, None] * h, axis=1)


def _is_clear(h: Array, between: Array, sides: tuple[Array, Array], rough: Array) -> Array:
    """True for a condition that has one crossing at the most, as far as its values show: `h` at the
    nodes, those `between` them, and the sides of both ends. `rough`: the size of the numbers whose
    rounding errors are in h.
    """
    size = jnp.max(jnp.abs(h), axis=0) + rough
    rounding = _ROUNDING * jnp.finfo(h.dtype).eps * size
    missed = jnp.abs(between - _weighted_sum(_AT_BETWEEN, h))
    missed = jnp.max(missed * jnp.asarray(_MARGINS, h.dtype)[:, None], axis=0)
    doubt = jnp.where(missed > rounding, missed, 0)
    never = jnp.full(h.shape[1:], -_DEGREE - 1)
    # The most changes of sign so far, if the last one is up, and if it is down.
    up, down = jnp.where(sides[0] > 0, 0, never), jnp.where(sides[0] < 0, 0, never)
    for b in _weighted_sum(_COEFFICIENTS[1:-1], h):
        known = jnp.where(jnp.abs(b) > doubt, jnp.sign(b), 0)
        above = jnp.where(known < 0, never, jnp.maximum(up, down + 1))
        below = jnp.where(known > 0, never, jnp.maximum(down, up + 1))
        nothing = (jnp.abs(b) <= rounding) & (doubt == 0)  # it has no sign that would be seen
        up, down = jnp.where(nothing, up, above), jnp.where(nothing, down, below)
    most = jnp.where(sides[1] > 0, jnp.maximum(up, down + 1), jnp.maximum(down, up + 1))
    return (most <= 1) | ~jnp.isfinite(missed + size)


def _first_interval(
    rule: CrossingRule, side: Array, thetas: Array, h: Array, wanted: Bool[Array, " k"] | None
) -> tuple[Array, _Bracket]:
    """Returns whether there is a crossing, and the samples between which the first one lies."""
    sides = rule.sides(h)
    before = jnp.concatenate([side[None], sides[:-1]])
    hits = rule.crossed(before, sides)
    hits = hits if wanted is None else hits & wanted
    some = jnp.any(hits, axis=1)
    pick = partial(pick_first, some)
    earlier = lambda xs: jnp.concatenate([xs[:1], xs[:-1]])  # noqa: E731
    a, b = pick(earlier(thetas)), pick(thetas)
    return jnp.any(some), _Bracket(a, b, pick(earlier(h)), pick(h), pick(before), b - a)


def pick_first(flags: Bool[Array, " n"], xs: Array) -> Array:
    """The entry of xs at the first flag; 0 if there is none. Lanes do not read at places of their
    own, as they would by an index.
    """
    first = flags & (jnp.cumsum(flags) == 1)
    mask = first.reshape(-1, *(1,) * (xs.ndim - 1))
    return jnp.sum(jnp.where(mask, xs, 0), axis=0, dtype=xs.dtype)


def _narrow_bracket(
    rule: CrossingRule,
    values: Callable[[Array], Array],
    bracket: _Bracket,
    found: Array,
    on: Array,
) -> _Bracket:
    """The interval, no longer than rounding."""
    eps = jnp.finfo(bracket.a.dtype).eps
    ulp = lambda bracket: eps * jnp.maximum(bracket.b, 1e-3)  # noqa: E731
    width = bracket.b - bracket.a
    steepness = 0.2 / jnp.where(width > 0, width, 1)

    def wide(consts: tuple[Array, Array], bracket: _Bracket, _: tuple[()]) -> Array:
        return consts[0] & (bracket.b - bracket.a > ulp(bracket))

    def turn(
        active: Bool[Array, ""], consts: tuple[Array, Array], now: _Bracket, _: tuple[()]
    ) -> tuple[_Bracket, tuple[()]]:
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
def located(residual: Callable, theta: Array, real: Bool[Array, ""], x: PyTree) -> Array:
    """`theta`, a root of residual(θ, x), as a function of x: dθ = −(∂g/∂x · dx)/g_θ.

    Both derivatives are taken at this function's own result, which depends on x in turn; with θ
    held fixed there, second derivatives would be wrong. Where it is not `real`, nothing moves.
    `residual` must not close over tracers: its derivative is evaluated in a later trace, where they
    are no longer alive.
    """
    del residual, real, x
    return theta


@located.defjvp
@standard_promotion()
def _located_jvp(
    residual: Callable,
    primals: tuple[Array, Array, PyTree],
    tangents: tuple[Array, PyTree, PyTree],
) -> tuple[Array, Array]:
    theta, real, x = primals
    at = located(residual, theta, real, x)
    slope = jax.jvp(lambda theta: residual(theta, x), (at,), (jnp.ones_like(at),))[1]
    moved = jax.jvp(lambda x: residual(at, x), (x,), (tangents[2],))[1]
    rate = moved / jnp.where(real, slope, 1)
    return at, -jnp.where(real, rate, 0).astype(at.dtype)

"""Simplified Newton: one matrix for all turns, stopped by its rate; for the equations of a step.

It finds a root without a derivative, which `implicit_root` of `roots.py` gives it: that of the
equation, with the Jacobian at the root and not the matrix of the turns.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree, Real

from ..autodiff.jax_internals import bound, jaxpr_as_fun, shape_of
from ..autodiff.while_loop import loop

__all__ = ["Bounds", "NewtonResult", "simplified_newton", "stop_closure_gradient"]

_RUNNING, _FOUND, _LOST = 0, 1, 2


class Bounds(NamedTuple):
    """The bounds of Newton's method: `size` measures an update in the scale of the error, where 1
    is the tolerance, `limit` is the error that may remain, and `turns` the largest number of
    iterations. `paired`: updates shrink by pairs, so that one may be larger than the previous one.
    `rounding(x)` is the error that rounding leaves at an iterate x, in that scale, where the limit
    does not account for it: less than that is not asked for.
    """

    size: Callable
    limit: Array | float
    turns: int
    paired: bool = False
    rounding: Callable | None = None


class NewtonResult(NamedTuple):
    """The result of Newton's method: x, whether it is a root, the number of turns, and the largest
    of the factors θ/(1 − θ) by which its updates have bounded the remaining error. The last one may
    be that of rounding: a third update of zero would make the next equation trust its first one,
    however large that is.
    """

    x: Array
    found: Bool[Array, ""]
    turns: Int[Array, ""]
    factor: Real[Array, ""]


def simplified_newton(
    residual: Callable, solve: Callable, guess: Array, bounds: Bounds, factor: Array | float = 1.0
) -> NewtonResult:
    """Turns of x ← x + solve(residual(x)), until what is left is within the bounds.

    With the rate θ = |δ|/|δ before| of the updates δ, those to come add up to at most
    θ/(1 − θ) |δ|, which is what stops the turns; before there is a rate, `factor` stands for
    θ/(1 − θ), and what another equation with the same matrix has left is a good one. The turns end
    without a root when θ ≥ 1, or when θ says that those left will not do.

    Of constraints whose derivative determines a multiplier the updates of the two take turns in
    being small. Where they are `paired` θ² is what two turns make, from the third update on, and
    those to come add up to θ²/(1 − θ²) of the last two together, which is the same if all shrink by
    θ; of a second update, which may be larger than the first, nothing follows.

    Reference: hairer1996, IV.8.

    >>> close = Bounds(jnp.abs, 1e-6, 10)
    >>> found = simplified_newton(lambda x: 2 - x**2, lambda r: r / 3, jnp.array(1.5), close)
    >>> bool(found.found), int(found.turns), round(float(found.x), 5)
    (True, 4, 1.41421)
    """

    def running(limit: Array, state: PyTree, _: PyTree) -> Bool[Array, ""]:
        del limit
        return state[-1] == _RUNNING

    def turn(active: Bool[Array, "..."], limit: Array, state: PyTree, buffers: PyTree) -> tuple:
        del active
        x, (before, earlier), factor, worst, turns, _ = state
        delta = update(x)
        norm, limit = size(delta), limit if rounding is None else jnp.maximum(limit, rounding(x))
        first = turns == 0
        rate = norm / jnp.where(first, jnp.inf, before)
        share = rate / jnp.where(rate < 1, 1 - rate, 1)
        if bounds.paired:
            earlier = jnp.where(turns > 1, earlier, jnp.inf)
            both = norm / earlier
            of_both = (norm + before) / earlier / jnp.where(both < 1, 1 - both, 1)
            rate, share = jnp.sqrt(both), jnp.where(turns > 1, of_both, share)
        factor = jnp.where(first, factor, share)
        left = bounds.turns - 1 - turns
        found = (factor * norm <= limit) | (norm == 0)
        hopeless = ~first & ((rate >= 1) | (rate**left * factor * norm > limit))
        lost = ~jnp.isfinite(norm) | hopeless | (left == 0)
        status = jnp.where(found, _FOUND, jnp.where(lost, _LOST, _RUNNING))
        worst = jnp.where(turns <= (2 if bounds.paired else 1), factor, jnp.maximum(worst, factor))
        status = status.astype(jnp.int32)
        return (x + delta, (norm, before), factor, worst, turns + 1, status), buffers

    real = jnp.finfo(guess.dtype).dtype
    limit, factor = (jnp.asarray(x, real) for x in (bounds.limit, factor))
    guess, limit, factor = lax.stop_gradient((guess, limit, factor))
    update, size = (
        stop_closure_gradient(lambda x: solve(residual(x)), guess),
        stop_closure_gradient(bounds.size, guess),
    )
    rounding = bounds.rounding and stop_closure_gradient(bounds.rounding, guess)
    zero = jnp.zeros((), jnp.int32)
    state = (guess, (jnp.zeros_like(limit),) * 2, factor, factor, zero, zero)
    (x, _, _, worst, turns, status), _ = loop(running, turn, state, consts=limit)
    return NewtonResult(x, status == _FOUND, turns, worst)


def stop_closure_gradient(function: Callable, x: Array) -> Callable:
    """The function with all that it closes over as constants, for a loop has no derivative.

    >>> import jax
    >>> slope = jax.grad(lambda a: stop_closure_gradient(lambda x: a * x, a)(a))
    >>> float(slope(jnp.array(3.0)))
    3.0
    """
    jaxpr, outer = bound(function, shape_of(x))
    run, outer = jaxpr_as_fun(jaxpr), lax.stop_gradient(outer)
    return lambda x: run(*outer, x)[0]

"""Roots of small systems, found by Newton's method and differentiated as functions of their data.

`newton` finds one and is not differentiated; `rooted` gives a root its derivative. The tangent is
that of the implicit function theorem, taken at `rooted`'s own output: it moves along when it is
differentiated again, which makes it right to every order. (A last Newton step with a frozen
Jacobian has the right gradient and a wrong Hessian.)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Inexact

from ..core.primitive import bound, jaxpr_as_fun, shape_of
from .jacobian import jacobian
from .linear import factored, solve

__all__ = ["Root", "newton", "rooted"]

_TURNS = 60
_DAMPINGS = 2.0 ** -np.arange(8)


class Root(NamedTuple):
    """Where the iteration ended, and whether that is a root."""

    x: Inexact[Array, " n"]
    found: Bool[Array, ""]


def newton(residual: Callable, guess: Inexact[Array, " n"]) -> Root:
    """A root near the guess, to the precision of the numbers, by damped Newton steps.

    Of the dampings 1, 1/2, …, 2⁻⁷ a turn takes the longest after which the simplified correction
    K⁻¹ R(x + λ Δ) is shorter than (1 − λ/2) |Δ|: Deuflhard's natural monotonicity test, which does
    not care how the equations are scaled. It goes on until corrections no longer become shorter;
    where they are short then, relative to x and to the guess, it was a root.

    >>> newton(lambda x: x**2 - 2.0, jnp.array([30.0]))
    Root(x=Array([1.4142135], dtype=float32), found=Array(True, dtype=bool))
    >>> bool(newton(lambda x: x**2 + 2.0, jnp.array([1.0])).found)
    False
    """
    guess = lax.stop_gradient(guess)
    enough, extent = float(jnp.finfo(guess.dtype).eps) ** 0.5, jnp.max(jnp.abs(guess))

    def short(x: Array, size: Array) -> Array:
        return size <= enough * jnp.maximum(jnp.max(jnp.abs(x)), extent)

    def turn(state: tuple) -> tuple:
        x, last, turns, _ = state
        factors = factored(jacobian(lambda _, x: residual(x), jnp.zeros(()), x))
        step = -solve(factors, residual(x))
        size = jnp.max(jnp.abs(step))

        def after(damping: Array) -> Array:
            return jnp.max(jnp.abs(solve(factors, residual(x + damping * step))))

        dampings = jnp.asarray(_DAMPINGS, x.dtype)
        good = jax.vmap(after)(dampings) <= (1 - dampings / 2) * size
        damping = dampings[jnp.where(jnp.any(good), jnp.argmax(good), len(_DAMPINGS) - 1)]
        # Short steps are noise in the end: they are taken whole, until they grow.
        damping = jnp.where(short(x, size), 1, damping)
        on = jnp.isfinite(size) & ((size < last / 2) | ~short(x, size))
        return jnp.where(on, x + damping * step, x), jnp.where(on, size, last), turns + 1, on

    start = (guess, jnp.asarray(jnp.inf, guess.real.dtype), jnp.int32(0), jnp.array(True))
    x, size, _, _ = lax.while_loop(lambda s: s[3] & (s[2] < _TURNS), turn, start)
    close = short(x, size) | (jnp.max(jnp.abs(residual(x))) == 0)
    return Root(x, close & jnp.all(jnp.isfinite(x)))


def rooted(residual: Callable, x: Inexact[Array, " n"]) -> Array:
    """A root x of `residual`, with its derivative by all that the residual closes over.

    dx = −(∂R/∂x)⁻¹ ∂R/∂p · dp, to every order. x itself passes for a constant.

    >>> square_root = lambda p: rooted(lambda x: x**2 - p, jnp.sqrt(lax.stop_gradient(p)))[0]
    >>> p = jnp.array([4.0])
    >>> [float(g(p).ravel()[0]) for g in (jax.grad(square_root), jax.hessian(square_root))]
    [0.25, -0.03125]
    """
    x = lax.stop_gradient(x)
    run, data = bound(residual, shape_of(x))
    return _rooted(run, x, data)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rooted(run: Any, x: Array, data: list) -> Array:
    del run, data
    return x


@_rooted.defjvp
def _rooted_jvp(run: Any, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, data), (_, dots) = primals, tangents
    x = _rooted(run, x, data)
    evaluate = jaxpr_as_fun(run)
    _, moved = jax.jvp(lambda data: evaluate(*data, x)[0], (data,), (dots,))
    slope = jacobian(lambda _, x: evaluate(*data, x)[0], jnp.zeros(()), x)
    return x, -solve(factored(slope), moved)

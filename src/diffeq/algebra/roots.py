"""Roots of small systems, found by Newton's method and differentiated as functions of their data.

`find_root` finds one and is not differentiated; `implicit_root` gives a root its derivative. The
tangent is that of the implicit function theorem, taken at `implicit_root`'s own output: it moves
along when it is differentiated again, which makes it right to every order. (A last Newton step with
a frozen Jacobian has the right gradient and a wrong Hessian.)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Inexact

from ..autodiff.jax_internals import bound, jaxpr_as_fun, shape_of
from ..core.promotion import standard_promotion
from .jacobian import jacobian
from .jacobian_structure import JacobianStructure
from .linear import factored, linear_solve

__all__ = ["FoundRoot", "find_root", "implicit_root"]

_TURNS = 60
_DAMPINGS = 2.0 ** -np.arange(8)


class FoundRoot(NamedTuple):
    """The end of the iteration, and whether that is a root."""

    x: Inexact[Array, " n"]
    found: Bool[Array, ""]


def find_root(
    residual: Callable,
    guess: Inexact[Array, " n"],
    unit: Callable | None = None,
    structure: JacobianStructure | None = None,
) -> FoundRoot:
    """A root near the guess, to the precision of the numbers, by damped Newton steps.

    Of the dampings 1, 1/2, …, 2⁻⁷ a turn takes the longest after which the simplified correction
    K⁻¹ R(x + λ Δ) is shorter than (1 − λ/2) |Δ|: Deuflhard's natural monotonicity test, which does
    not care how the equations are scaled. It goes on until corrections no longer become shorter;
    where they are short then, relative to x and to the guess, it was a root. `unit(x)`: the scale
    that they are relative to instead, where the components of x are of different kinds;
    `structure`: that of ∂R/∂x, where it has one.

    >>> find_root(lambda x: x**2 - 2.0, jnp.array([30.0]))
    FoundRoot(x=Array([1.4142135], dtype=float32), found=Array(True, dtype=bool))
    >>> bool(find_root(lambda x: x**2 + 2.0, jnp.array([1.0])).found)
    False
    """
    guess = lax.stop_gradient(guess)
    enough, extent = float(jnp.finfo(guess.dtype).eps) ** 0.5, jnp.max(jnp.abs(guess))

    if unit is None:
        unit = lambda x: jnp.maximum(jnp.max(jnp.abs(x)), extent)  # noqa: E731

    def measured(x: Array, step: Array) -> Array:
        scale = unit(x)
        return jnp.max(jnp.abs(step) / jnp.where(scale > 0, scale, 1))

    def turn(state: tuple) -> tuple:
        x, last, turns, _ = state
        factors = factored(jacobian(lambda _, x: residual(x), jnp.zeros(()), x, structure))
        step = -linear_solve(factors, residual(x))
        size = measured(x, step)

        def after(damping: Array) -> Array:
            return measured(x, linear_solve(factors, residual(x + damping * step)))

        dampings = jnp.asarray(_DAMPINGS, x.dtype)
        good = jax.vmap(after)(dampings) <= (1 - dampings / 2) * size
        damping = dampings[jnp.where(jnp.any(good), jnp.argmax(good), len(_DAMPINGS) - 1)]
        # Short steps are noise in the end: they are taken whole, until they grow.
        damping = jnp.where(size <= enough, 1, damping)
        on = jnp.isfinite(size) & ((size < last / 2) | (size > enough))
        return jnp.where(on, x + damping * step, x), jnp.where(on, size, last), turns + 1, on

    start = (guess, jnp.asarray(jnp.inf, guess.real.dtype), jnp.int32(0), jnp.array(True))
    x, size, _, _ = lax.while_loop(lambda s: s[3] & (s[2] < _TURNS), turn, start)
    close = (size <= enough) | (jnp.max(jnp.abs(residual(x))) == 0)
    return FoundRoot(x, close & jnp.all(jnp.isfinite(x)))


def implicit_root(
    residual: Callable,
    x: Inexact[Array, "..."],
    inverse: Callable | None = None,
    structure: JacobianStructure | None = None,
) -> Array:
    """A root x of `residual`, with its derivative by all that the residual closes over.

    dx = −(∂R/∂x)⁻¹ ∂R/∂p · dp, to every order, exact up to the error of the root; x itself passes
    for a constant. `inverse(x, r)` is −(∂R/∂x)⁻¹ r at x, where something is known of that matrix;
    without it the Jacobian of a vector is found, in its `structure` if it has one, and factored.

    >>> root = lambda p: implicit_root(lambda x: x**2 - p, jnp.sqrt(lax.stop_gradient(p)))[0]
    >>> p = jnp.array([4.0])
    >>> [float(g(p).ravel()[0]) for g in (jax.grad(root), jax.hessian(root))]
    [0.25, -0.03125]
    """

    def by_jacobian(x: Array, r: Array) -> Array:
        found = jacobian(lambda _, x: residual(x), jnp.zeros(()), x, structure)
        return -linear_solve(factored(found), r)

    x = lax.stop_gradient(x)
    like = shape_of(x)
    equation, data = bound(residual, like)
    inverted, others = bound(by_jacobian if inverse is None else inverse, like, like)
    return _rooted(_Equation(equation, inverted), x, data, others)


class _Equation(NamedTuple):
    """The static part of a root: the jaxprs of residual and inverse, whose first inputs are what
    they close over.
    """

    residual: Any
    inverse: Any


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rooted(equation: _Equation, x: Array, data: list, others: list) -> Array:
    del equation, data, others
    return x


@partial(_rooted.defjvp, symbolic_zeros=True)
@standard_promotion()
def _rooted_jvp(equation: _Equation, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, data, others), dots = primals, tangents[1]
    x = _rooted(equation, x, data, others)  # differentiable itself, for the next order
    live = [not isinstance(dot, SymbolicZero) for dot in dots]
    if not any(live):
        return x, jnp.zeros_like(x)

    def of_live(*xs: Array) -> Array:
        found = iter(xs)
        full = [next(found) if on else v for on, v in zip(live, data, strict=True)]
        return jaxpr_as_fun(equation.residual)(*full, x)[0]

    those = lambda xs: tuple(v for v, on in zip(xs, live, strict=True) if on)  # noqa: E731
    _, moved = jax.jvp(of_live, those(data), those(dots))
    return x, jaxpr_as_fun(equation.inverse)(*others, x, moved)[0]

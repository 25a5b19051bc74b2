"""Consistent values of F(t, y, y') = 0 at one time, and slopes where none are known.

The unknowns there are x: the slope y' of each differential component, and each algebraic component
itself. F does not depend on the slopes of algebraic components, so there are as many equations as
unknowns, and the problem has index 1 where their matrix K = F_x is regular. These are the values
that Brown, Hindmarsh and Petzold look for.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..algebra import Factors, factored, linear_solve
from ..algebra.roots import find_root, implicit_root
from ..autodiff.jax_internals import dependents
from ..problems.forms import Implicit

__all__ = [
    "Point",
    "closing_matrix",
    "consistent_rates",
    "depends_on_algebraic_rates",
    "has_state_dependent_mass",
    "newton_correction",
    "pace",
    "slope",
]


class Point(NamedTuple):
    """A state with its slope, of the state's shape, and whether they satisfy the equations; slopes
    of algebraic components, which are in none, are the guess.
    """

    y: Array
    dy: Array
    found: Array


class _LinearisedResidual(NamedTuple):
    """F near a point: its value, the factors of K, and `along(dy)`, how fast F changes in time with
    a slope that stays.
    """

    value: Array
    factors: Factors
    along: Callable


def consistent_rates(form: Implicit, t: Array, y: Array) -> Point:
    """The consistent values with the differential components of y."""
    flags, given, guess = form.differential, y.ravel(), form.guess.ravel()

    def placed(x: Array) -> tuple[Array, Array]:
        return jnp.where(flags, given, x), jnp.where(flags, x, guess)

    def equations(x: Array) -> Array:
        at, dy = placed(x)
        return form.residual(t, at.reshape(y.shape), dy.reshape(y.shape)).ravel()

    x, found = find_root(equations, jnp.where(flags, guess, given), _unknown_scale(form, given))
    at, dy = (z.reshape(y.shape) for z in placed(implicit_root(equations, x)))
    return Point(at, dy, found & ~jnp.any(depends_on_algebraic_rates(form, t, at, dy)))


def slope(form: Implicit, t: Array, y: Array) -> Array:
    """The slope at a consistent y; where there is none, the guess."""
    if not _mass_depends_on(form, t, y, [False, False, True]):
        return pace(form, t, y)
    found = consistent_rates(form, t, y)
    at, dy = found.y.ravel(), found.dy.ravel()
    dy = _completed(form, _linearised_residual(form, t, at, dy, y.shape), dy)
    return jnp.where(found.found, dy.reshape(y.shape), form.guess)


def pace(form: Implicit, t: Array, y: Array) -> Array:
    """The slope at (t, y) after one iteration of Newton's method from the guess: exact where F is
    linear in y' and y is consistent, and elsewhere good enough to find a first step by.
    """
    guess = form.guess.ravel()
    here = _linearised_residual(form, t, y.ravel(), guess, y.shape)
    dy = guess - linear_solve(here.factors, here.value)
    return _completed(form, here, dy).reshape(y.shape)


def newton_correction(form: Implicit, t: Array, y: Array, span: Array) -> tuple[Array, Array]:
    """The step of Newton's method from y and the guess, and the size that it is compared with: of
    an algebraic component itself, of a slope its change of y over the span.
    """
    guess, given = form.guess.ravel(), y.ravel()
    here = _linearised_residual(form, t, given, guess, y.shape)
    step = -linear_solve(here.factors, here.value)
    each = jnp.where(form.differential, span, 1).astype(step.dtype)
    size = jnp.where(form.differential, guess, given)
    bad = jnp.any(depends_on_algebraic_rates(form, t, y, form.guess))
    return jnp.where(bad, jnp.inf, step * each), size * each


def depends_on_algebraic_rates(form: Implicit, t: Array, y: Array, dy: Array) -> Array:
    """Which slopes F depends on though they are those of algebraic components; ravelled."""
    dy = lax.stop_gradient(dy)
    push = lambda e: jax.jvp(lambda dy: form.residual(t, y, dy), (dy,), (e.reshape(dy.shape),))[1]  # noqa: E731
    columns = jax.vmap(push)(jnp.eye(dy.size, dtype=dy.dtype))
    used = jnp.any(columns.reshape(dy.size, -1) != 0, axis=1)
    return used & ~form.differential


def has_state_dependent_mass(form: Implicit, t: Array, y: Array) -> bool:
    """True if ∂F/∂y' depends on t, y or y'."""
    return _mass_depends_on(form, t, y, [True, True, True])


def _mass_depends_on(form: Implicit, t: Array, y: Array, by: list[bool]) -> bool:
    """True if ∂F/∂y' depends on one of t, y and y', those that `by` flags; known from its
    equations, before anything runs.
    """

    def push(t: Array, y: Array, dy: Array, unit: Array) -> Array:
        return jax.jvp(lambda dy: form.residual(t, y, dy), (dy,), (unit,))[1]

    return any(dependents(jax.make_jaxpr(push)(t, y, y, y), [*by, False]))


def closing_matrix(form: Implicit, t: Array, y: Array, dy: Array) -> Array:
    """K at a point."""
    return _by_unknowns(form, t, y.ravel(), dy.ravel(), y.shape)[1]


def _linearised_residual(
    form: Implicit, t: Array, y: Array, dy: Array, shape: tuple[int, ...]
) -> _LinearisedResidual:
    """F near a point."""
    value, matrix = _by_unknowns(form, t, y, dy, shape)

    def along(slope: Array) -> Array:
        moving = lambda t, y: _flat_residual(form, t, y, dy, shape)  # noqa: E731
        return jax.jvp(moving, (t, y), (jnp.ones_like(t), slope))[1]

    return _LinearisedResidual(value, factored(matrix), along)


def _by_unknowns(
    form: Implicit, t: Array, y: Array, dy: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """F and K. An infinite ∂F/∂t, that of √t at 0, stays out of them."""
    flags = form.differential
    value, push = jax.linearize(lambda y, dy: _flat_residual(form, t, y, dy, shape), y, dy)
    column = lambda e: push(jnp.where(flags, 0, e), jnp.where(flags, e, 0))  # noqa: E731
    return value, jax.vmap(column, out_axes=1)(jnp.eye(y.size, dtype=y.dtype))


def _flat_residual(form: Implicit, t: Array, y: Array, dy: Array, shape: tuple[int, ...]) -> Array:
    return form.residual(t, y.reshape(shape), dy.reshape(shape)).ravel()


def _completed(form: Implicit, there: _LinearisedResidual, dy: Array) -> Array:
    """The slopes with those of the algebraic components: dF/dt = 0 is linear in them and in y'', of
    the differential ones, with the matrix K again. Where ∂F/∂t is infinite they may be, too: then
    the guess stands for them, for no step depends on more of them than where it starts to search.
    """
    dy = jnp.where(form.differential, dy, 0)
    others = -linear_solve(there.factors, there.along(dy))
    others = jnp.where(jnp.isfinite(others), others, form.guess.ravel())
    return jnp.where(form.differential, dy, others)


def _unknown_scale(form: Implicit, y: Array) -> Callable:
    """The units of the unknowns: of states the largest of y, and of slopes the largest of
    themselves, or what takes y through the whole interval to its own size.
    """
    flags = form.differential
    size, guess = lax.stop_gradient((jnp.max(jnp.abs(y)), jnp.abs(form.guess.ravel())))
    least = jnp.maximum(size / form.span, jnp.max(jnp.where(flags, guess, 0)))

    def unit(x: Array) -> Array:
        of_slopes, of_states = (jnp.max(jnp.where(kind, jnp.abs(x), 0)) for kind in (flags, ~flags))
        return jnp.where(flags, jnp.maximum(of_slopes, least), jnp.maximum(of_states, size))

    return unit

"""Implicit equations, F(t, y, y') = 0: consistent values at one time, and slopes where none are
known.

The unknowns there are x: the slope y' of each differential component, and each algebraic component
itself. F does not depend on the slopes of algebraic components, so there are as many equations as
unknowns, and the problem has index 1 where their matrix K = F_x is regular. These are the values
that Brown, Hindmarsh and Petzold look for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from ...algebra import Factors, factored, is_singular, linear_solve
from ...algebra.roots import find_root, implicit_root
from ...autodiff.jax_internals import dependents
from .base import DifferentialAlgebraic, StateTolerance
from .linearisation import Linearisation

__all__ = ["Implicit", "divide_by_dt"]


@dataclass(frozen=True)
class Implicit(DifferentialAlgebraic):
    """residual(t, y, dy) = 0, over a state of any shape, with dy = dy/dt.

    `differential` says, of the ravelled state, for which components dy is in the residual; the
    others are algebraic. `guess` is where a search for the slope at a start begins, and `span` how
    long the whole interval is.
    """

    has_constant_mass: ClassVar[bool] = False
    solved_name: ClassVar[str] = "residual"
    mass: ClassVar[None] = None  # slopes are y' themselves
    jac: ClassVar[None] = None

    residual: Callable[..., Array]
    differential: Bool[Array, " n"]
    guess: Array
    span: Array

    @property
    def has_algebraic_equations(self) -> bool:
        """True: the slopes at a start have to be found in any case."""
        return True

    def slope(self, t: Array, y: Array) -> Array:
        """The slope at a consistent y; where there is none, the guess."""
        if not self._mass_depends_on(t, y, [False, False, True]):
            return self._approximate_slope(t, y)
        found = self._consistent_point(t, y)
        at, dy = found.y.ravel(), found.dy.ravel()
        dy = _completed(self, _linearised_residual(self, t, at, dy, y.shape), dy)
        return jnp.where(found.found, dy.reshape(y.shape), self.guess)

    def slope_guess(self, y: Array) -> Array:
        """The guess that is given."""
        del y
        return self.guess

    def initial_step_rates(self) -> tuple[Callable, ...]:
        """The slope after one iteration, good enough to find a first step by."""
        return (self._approximate_slope,)

    def solved_value(self, t: Array, y: Array) -> Array:
        """The residual at (t, y), with the guess of the slope."""
        return self.residual(t, y, self.guess)

    def linearised(
        self,
        t: Array,
        y: Array,
        slope: Callable[[], Array] | None = None,
        *,
        by_products: bool = False,
    ) -> Linearisation:
        """M = ∂F/∂y' and J = −∂F/∂y at (t, y) and the slope that `slope()` is, else the guess."""
        dy = self.guess if slope is None else slope()
        near = lambda y_flat, dy: _flat_residual(self, t, y_flat, dy, y.shape)  # noqa: E731
        _, push = jax.linearize(near, y.ravel(), dy.ravel())
        by_slope, by_state = lambda v: push(0 * v, v), lambda v: -push(v, 0 * v)
        if by_products:
            return Linearisation(by_slope, by_state)
        units = jnp.eye(y.size, dtype=y.dtype)
        mass = jax.vmap(by_slope, out_axes=1)(units)
        return Linearisation(mass, -jax.vmap(lambda e: push(e, 0 * e), out_axes=1)(units))

    def has_state_dependent_mass(self, t: Array, y: Array) -> bool:
        """True if ∂F/∂y' depends on t, y or y'."""
        return self._mass_depends_on(t, y, [True, True, True])

    def mass_times_slope(self, t: Array, y: Array) -> Array:
        """The slope y', for there is no constant M."""
        return self.slope(t, y)

    def residual_of_step(self, dt: Array, t: Array, y: Array, path: Array) -> Array:
        """−dt F(t, y, path/dt), ravelled, where path is dt y': dt f − M path, if F is M y' − f."""
        return -dt * self.residual(t, y, divide_by_dt(path, dt).reshape(y.shape)).ravel()

    def consistent_state(
        self, t0: Array, y0: Array, kept: Bool[Array, " n"] | None, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The y that obeys the equations, with the differential components of y0 and some slopes
        of theirs; and whether it was found.
        """
        del kept, tolerance
        there = self._consistent_point(t0, y0)
        return there.y, there.found

    def newton_correction(
        self, t: Array, y: Array, span: Array, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The step of Newton's method from y and the guess, and the size that it is compared with:
        of an algebraic component itself, of a slope its change of y over the span.
        """
        del tolerance
        guess, given = self.guess.ravel(), y.ravel()
        here = _linearised_residual(self, t, given, guess, y.shape)
        step = -linear_solve(here.factors, here.value)
        each = jnp.where(self.differential, span, 1).astype(step.dtype)
        size = jnp.where(self.differential, guess, given)
        bad = jnp.any(self._undeclared_slopes_at(t, y, self.guess))
        return jnp.where(bad, jnp.inf, step * each), size * each

    def is_regular(self, t: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        """Returns whether K is regular at (t, y, dy), and whether it is finite."""
        matrix = _by_unknowns(self, t, y.ravel(), dy.ravel(), y.shape)[1]
        return ~is_singular(matrix), jnp.all(jnp.isfinite(matrix))

    def algebraic_residual(self, t: Array, y: Array) -> Array:
        """The residual at (t, y), with the guess of the slope; ravelled."""
        return self.solved_value(t, y).ravel()

    def undeclared_slopes(self, t: Array, y: Array) -> Bool[Array, " n"]:
        """Flags of the algebraic components whose slopes the residual depends on at the guess."""
        return self._undeclared_slopes_at(t, y, self.guess)

    def _undeclared_slopes_at(self, t: Array, y: Array, dy: Array) -> Bool[Array, " n"]:
        dy = lax.stop_gradient(dy)
        residual = lambda dy: self.residual(t, y, dy)  # noqa: E731
        push = lambda e: jax.jvp(residual, (dy,), (e.reshape(dy.shape),))[1]  # noqa: E731
        columns = jax.vmap(push)(jnp.eye(dy.size, dtype=dy.dtype))
        used = jnp.any(columns.reshape(dy.size, -1) != 0, axis=1)
        return used & ~self.differential

    def _consistent_point(self, t: Array, y: Array) -> "_Point":
        """The consistent values with the differential components of y."""
        flags, given, guess = self.differential, y.ravel(), self.guess.ravel()

        def placed(x: Array) -> tuple[Array, Array]:
            return jnp.where(flags, given, x), jnp.where(flags, x, guess)

        def equations(x: Array) -> Array:
            at, dy = placed(x)
            return self.residual(t, at.reshape(y.shape), dy.reshape(y.shape)).ravel()

        start = jnp.where(flags, guess, given)
        x, found = find_root(equations, start, _unknown_scale(self, given))
        at, dy = (z.reshape(y.shape) for z in placed(implicit_root(equations, x)))
        return _Point(at, dy, found & ~jnp.any(self._undeclared_slopes_at(t, at, dy)))

    def _approximate_slope(self, t: Array, y: Array) -> Array:
        """The slope at (t, y) after one iteration of Newton's method from the guess: exact where F
        is linear in y' and y is consistent, and elsewhere good enough to find a first step by.
        """
        guess = self.guess.ravel()
        here = _linearised_residual(self, t, y.ravel(), guess, y.shape)
        dy = guess - linear_solve(here.factors, here.value)
        return _completed(self, here, dy).reshape(y.shape)

    def _mass_depends_on(self, t: Array, y: Array, by: list[bool]) -> bool:
        """True if ∂F/∂y' depends on one of t, y and y', those that `by` flags; known from its
        equations, before anything runs.
        """

        def push(t: Array, y: Array, dy: Array, unit: Array) -> Array:
            return jax.jvp(lambda dy: self.residual(t, y, dy), (dy,), (unit,))[1]

        return any(dependents(jax.make_jaxpr(push)(t, y, y, y), [*by, False]))


def divide_by_dt(path: Array, dt: Array) -> Array:
    """The slope path/dt; path itself in a step of dt = 0, which goes nowhere.

    >>> divide_by_dt(jnp.array([2.0, 0.0]), jnp.array(0.0))
    Array([2., 0.], dtype=float32)
    """
    return path / jnp.where(dt == 0, 1, dt)


class _Point(NamedTuple):
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

"""Equations of index 2 and 3 in Hessenberg form, and the constraints hidden in their derivatives.

For y' = f(y, z), 0 = g(y) the constraint says by its derivative that g_y f(y, z) = 0, too, which
determines z: index 2. For q' = f(q, v), v' = k(q, v, z), 0 = g(q) the first derivative g_q f = 0
holds v, and the second one determines z: index 3. Each is the derivative of the one before along
the field, g ↦ g_t + g_y y', for which slopes of algebraic components do not matter: what is
differentiated does not depend on them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ...algebra import factored, field_derivatives, is_singular, jacobian, linear_solve
from ...algebra.roots import implicit_root
from ..dae import algebraic_rows
from .base import Form, StateTolerance
from .mass import Mass

__all__ = ["HigherIndex", "with_index"]

_TURNS = 60
_SMALL = 1e-3  # of the tolerance


@dataclass(frozen=True)
class HigherIndex(Mass):
    """M y' = field(t, y), of which some algebraic equations have to be differentiated before they
    determine the algebraic components.

    `index` is that of each component, above 1 for one at least; `free` is a vector that is 1 where
    a row and a column of M are zero.
    """

    has_higher_index: ClassVar[bool] = True

    index: Int[np.ndarray, " n"] = field(kw_only=True)

    def slope(self, t: Array, y: Array) -> Array:
        """The slope at a y that satisfies the equations: the last derivatives of the constraints
        are differentiated once more.
        """
        by_y = self.rows_by_state(t, y)
        orders = _Orders.of(self, by_y)
        _, by_t = jax.jvp(lambda t: self.derivative_rows(t, y), (t,), (jnp.ones_like(t),))
        right = jnp.where(self.free != 0, -orders.closing(by_t), self.field(t, y).ravel())
        matrix = self._matrix_of_slopes(orders.closing(by_y))
        return linear_solve(factored(matrix), right).reshape(y.shape)

    def initial_step_rates(self) -> tuple[Callable, ...]:
        """The slopes of differential components, and 0 for algebraic ones."""
        return (lambda t, y: self._differential_rates(t, y).reshape(y.shape),)

    def index_weighted(self, dt: Array, x: Array) -> Array:
        """Errors and Newton's updates of each component, along the last axis, as they count: times
        h^(index − 1), for so much does a step magnify what perturbs its equations, without a part
        in the error of y. As in RADAU5, h is a number in the problem's unit of time; one above 1 is
        no reason to be stricter.
        """
        h = jnp.minimum(jnp.abs(lax.stop_gradient(dt)), 1).astype(x.dtype)
        return jnp.where(self.index == 1, x, jnp.where(self.index == 2, h * x, h * h * x))

    def consistent_state(
        self, t0: Array, y0: Array, kept: Bool[Array, " n"] | None, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The y nearest to y0 that obeys the constraints and their derivatives, and whether it was
        found. The differential parts move within the tolerance, but for those that are `kept`:
        where some are, the others may move as far as they have to.
        """
        there = _nearest(self, t0, y0, kept, tolerance.scale(y0))
        near = tolerance.mean_square(there.move) <= 1 if kept is None else True
        return there.y.reshape(y0.shape), there.found & near

    def newton_correction(
        self, t: Array, y: Array, span: Array, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The step of Newton's method from y towards the nearest consistent state, and y."""
        del span
        scale = tolerance.scale(y).ravel()
        unit = jnp.where(self.free != 0, 0, scale)
        return _newton_step(self, t, unit, y, jnp.zeros_like(unit)).by, y.ravel()

    def is_regular(self, t: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        """Returns whether the index is the one that is stated, and whether these numbers can tell.

        It is lower where no equation has to be differentiated as often as that, and higher where
        the last derivatives do not determine the algebraic components.
        """
        del dy
        by_y = self.rows_by_state(t, y)
        orders = _Orders.of(self, by_y)
        matrix = self._matrix_of_slopes(orders.closing(by_y))
        lower = ~jnp.any(orders.closing_rows[-1])
        return ~lower & ~is_singular(matrix), jnp.all(jnp.isfinite(by_y))

    def algebraic_residual(self, t: Array, y: Array) -> Float[Array, "orders n"]:
        """The algebraic equations and those derivatives of them that vanish at consistent values;
        what is none of them is 0.
        """
        orders = _Orders.of(self, self.rows_by_state(t, y))
        return jnp.where(orders.hidden_rows | orders.closing_rows, self.derivative_rows(t, y), 0)

    @property
    def highest(self) -> int:
        """The highest index of a component."""
        return int(self.index.max())

    def derivative_rows(self, t: Array, y: Array) -> Float[Array, "orders n"]:
        """The algebraic equations, and their derivatives along the field up to the order that the
        index asks for. What is no algebraic equation is 0.
        """

        def equations(t: Array, y: Array) -> tuple[Array, ...]:
            return (self.field(t, y).ravel(),)

        def longer(rows: Callable, t: Array, y: Array) -> tuple[Array, ...]:
            along = jnp.ones_like(t), self._differential_rates(t, y).reshape(y.shape)
            found, moved = jax.jvp(rows, (t, y), along)
            return (*found, moved[-1])

        rows = equations
        for _ in range(1, self.highest):
            rows = partial(longer, rows)
        return jnp.where(self.free != 0, jnp.stack(rows(t, y)), 0)

    def rows_by_state(self, t: Array, y: Array) -> Float[Array, "orders n n"]:
        """The Jacobians of the equations and of their derivatives."""
        matrix = jacobian(lambda t, y: self.derivative_rows(t, y), t, y)
        return matrix.reshape(self.highest, y.size, y.size)

    def _differential_rates(self, t: Array, y: Array) -> Array:
        """The slopes of differential components, M y' = f, and 0 for algebraic ones; ravelled."""
        value = jnp.where(self.free != 0, 0, self.field(t, y).ravel())
        if self.mass.ndim == 1:
            return value / jnp.where(self.mass != 0, self.mass, 1)
        return linear_solve(factored(self.mass + jnp.diag(self.free)), value)

    def _matrix_of_slopes(self, by_y: Float[Array, "n n"]) -> Float[Array, "n n"]:
        """The matrix by which the equations determine the slopes, M with the Jacobian of the last
        derivatives in its zero rows: regular where the index is not higher than stated.
        """
        return by_y + (jnp.diag(self.mass) if self.mass.ndim == 1 else self.mass)


def with_index(form: Form, index: Int[np.ndarray, " n"]) -> HigherIndex | None:
    """The equation whose components have this index; None where it cannot be stated, of a
    residual.
    """
    if not isinstance(form, Mass):
        return None
    free = algebraic_rows(form.mass)
    return HigherIndex(form.field, form.jac, form.mass, free, large=form.large, index=index)


class _Nearest(NamedTuple):
    """A ravelled state that satisfies the equations, whether one was found, and how far its
    differential components are from those that were given, in units of their scale.
    """

    y: Float[Array, " n"]
    found: Bool[Array, ""]
    move: Float[Array, " n"]


def _nearest(form: HigherIndex, t: Array, y: Array, kept: Array | None, scale: Array) -> _Nearest:
    """The differential components nearest to those of y, in units of `scale`, that the constraints
    and their derivatives allow, with the algebraic ones that belong to them. Those that are `kept`
    stay, whatever the others become.

    Newton's method with the least move that satisfies the equations near the last one. Its outcome
    is the root of a system with the derivative of one, in x: the algebraic components themselves,
    and of differential ones w = (y − y0)/scale. With A = H_w there and Π = A⁺A it is (1 − Π) w +
    A⁺H = 0 for the hidden constraints H, whose two parts lie in complementary spaces, and the
    closing equations in the places of algebraic components. A passes for a constant: where y0
    satisfies the equations, w is 0 whatever A is.
    """
    given, algebraic = y.ravel(), form.free != 0
    moves = ~algebraic if kept is None else ~algebraic & ~kept
    unit = jnp.where(moves, lax.stop_gradient(scale.ravel()), 0)
    step = lambda at, w: _newton_step(form, t, unit, at.reshape(y.shape), w)  # noqa: E731
    start = lax.stop_gradient((given, jnp.zeros_like(given)))
    (at, w), last, found = lax.stop_gradient(_newton_iteration(step, start))

    def state(x: Array) -> Array:
        return jnp.where(algebraic, x, given + unit * x)

    def residual(x: Array) -> Array:
        rows, w = form.derivative_rows(t, state(x).reshape(y.shape)), jnp.where(algebraic, 0, x)
        rest = w + last.inverse @ (last.orders.hidden(rows) - last.by_w @ w)
        return jnp.where(algebraic, last.orders.closing(rows), rest)

    x = implicit_root(residual, jnp.where(algebraic, at, w))
    fits = True if kept is None else jnp.sum(moves) == jnp.sum(last.orders.hidden_rows)
    return _Nearest(state(x), found & fits, jnp.where(moves, x, 0))


class _NewtonStep(NamedTuple):
    """A step of Newton's method from a state: the w that it leads to, by how much the state moves,
    and whether the hidden constraints hold where it starts; their Jacobian by w, and A⁺.
    """

    w: Array
    by: Array
    holds: Array
    orders: "_Orders"
    by_w: Array
    inverse: Array


def _newton_step(form: HigherIndex, t: Array, unit: Array, y: Array, w: Array) -> _NewtonStep:
    """The step from y, which is w away from what was given. The constraints hold where they vanish
    to half the digits of what moves in them, or to a small part of its unit; where nothing moves in
    them that could mend them, they may not.
    """
    found = field_derivatives(form.derivative_rows, t, y, by_t=False)
    shape = form.highest, y.size
    rows, by_y = found.value.reshape(shape), found.by_y.reshape(*shape, y.size)
    orders, algebraic = _Orders.of(form, by_y), form.free != 0
    hidden, by_y_hidden = orders.hidden(rows), orders.hidden(by_y)
    by_w = by_y_hidden * unit
    inverse = _pseudoinverse(by_w)
    after = inverse @ (by_w @ w - hidden)
    matrix = jnp.where(algebraic[:, None], orders.closing(by_y), jnp.eye(y.size, dtype=y.dtype))
    right = jnp.where(algebraic, -orders.closing(rows), unit * (after - w))
    short = float(jnp.finfo(y.dtype).eps) ** 0.5 * jnp.max(jnp.abs(y)) + _SMALL * unit
    holds = jnp.all(jnp.abs(hidden) <= jnp.abs(by_y_hidden) @ jnp.where(unit > 0, short, 0))
    return _NewtonStep(after, linear_solve(factored(matrix), right), holds, orders, by_w, inverse)


def _pseudoinverse(by_w: Float[Array, "rows n"]) -> Float[Array, "n rows"]:
    """A⁺. The shortest w does not depend on the scale of the equations, but the rank that is found
    does.
    """
    size = jnp.max(jnp.abs(by_w), axis=1)
    size = jnp.where(size > 0, size, 1)
    return jnp.linalg.pinv(by_w / size[:, None]) / size


def _newton_iteration(
    step: Callable, start: tuple[Array, Array]
) -> tuple[tuple, _NewtonStep, Array]:
    """(y, w) after steps until they no longer become shorter, the last one of them, and whether
    that was short relative to the state.
    """
    enough, extent = float(jnp.finfo(start[0].dtype).eps) ** 0.5, jnp.max(jnp.abs(start[0]))

    def turn(state: tuple) -> tuple:
        (y, w), _, before, turns, _ = state
        last = step(y, w)
        largest = jnp.maximum(jnp.max(jnp.abs(y)), extent)
        size = jnp.max(jnp.abs(last.by)) / jnp.where(largest > 0, largest, 1)
        on = jnp.isfinite(size) & ((size < before / 2) | (size > enough))
        after = jnp.where(on, y + last.by, y), jnp.where(on, last.w, w)
        return after, last, jnp.where(on, size, before), turns + 1, on

    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, *start))
    infinite = jnp.full((), jnp.inf, start[0].dtype)
    first = start, blank, infinite, jnp.int32(0), jnp.ones((), bool)
    end, last, size, _, _ = lax.while_loop(lambda s: s[4] & (s[3] < _TURNS), turn, first)
    return end, last, (size <= enough) & last.holds


class _Orders(NamedTuple):
    """Of each equation its last derivative, the first one that depends on algebraic components and
    so may determine some; and those before it, the equation itself among them, which hold
    differential components.
    """

    closing_rows: Bool[Array, "orders n"]
    hidden_rows: Bool[Array, "orders n"]

    @classmethod
    def of(cls, form: HigherIndex, by_y: Float[Array, "orders n n"]) -> "_Orders":
        """The orders, from the Jacobians. Where a derivative depends on algebraic components, and
        by chance not here, the matrix of the last ones is singular.
        """
        depends = jnp.any((by_y != 0) & (form.free != 0), axis=-1).at[-1].set(True)
        before = jnp.cumsum(depends, axis=0) - depends
        equations = form.free != 0
        return cls(equations & depends & (before == 0), equations & ~depends & (before == 0))

    def closing(self, rows: Float[Array, "orders n ..."]) -> Float[Array, "n ..."]:
        """The last derivatives, in the places of the equations."""
        chosen = self.closing_rows.reshape(*self.closing_rows.shape, *(1,) * (rows.ndim - 2))
        return jnp.sum(jnp.where(chosen, rows, 0), axis=0)

    def hidden(self, rows: Float[Array, "orders n ..."]) -> Float[Array, "rows ..."]:
        """Those before them, one after the other; the last order has none."""
        chosen = self.hidden_rows.reshape(*self.hidden_rows.shape, *(1,) * (rows.ndim - 2))
        return jnp.where(chosen, rows, 0)[:-1].reshape(-1, *rows.shape[2:])

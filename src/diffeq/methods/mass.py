"""The mass matrix in implicit methods: M y' = f, where M is a matrix, a diagonal, or 1; and,
through `residual.py`, F(t, y, y') = 0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..algebra import (
    AbstractMatrix,
    JacobianStructure,
    factored,
    field_derivatives,
    identity,
    is_singular,
    jacobian,
    linear_solve,
)
from ..algebra.roots import find_root, implicit_root
from ..problems.forms import Delayed, Form, Implicit, Mass, Sde, diffusion_magnitude, lower
from . import higher_index, residual

__all__ = [
    "apply_mass",
    "combined",
    "consistent_state",
    "constrained",
    "divide_by_dt",
    "initial_step_rates",
    "is_regular",
    "newton_correction",
    "residual_of_step",
    "slope_of",
    "system_matrix",
]


def apply_mass(mass: Array | None, x: Array) -> Array:
    """M x.

    >>> apply_mass(jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0]))
    Array([2., 0.], dtype=float32)
    """
    if mass is None:
        return x
    return mass * x if mass.ndim == 1 else mass @ x


def projected(free: Array, x: Array | AbstractMatrix) -> Any:
    """P x, of the projector on what M cannot reach, where x is a vector or a matrix. That of a
    diagonal M picks rows, and the others may be infinite.

    >>> projected(jnp.array([0.0, 1.0]), jnp.array([jnp.inf, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    if isinstance(x, AbstractMatrix):
        return x.rows_where(free != 0) if free.ndim == 1 else free @ x.dense()
    if free.ndim == 2:
        return free @ x
    return jnp.where(free.reshape(-1, *(1,) * (x.ndim - 1)) != 0, x, 0)


def combined(mass: Array | None, matrix: Array | AbstractMatrix) -> Any:
    """M + a matrix.

    >>> combined(None, jnp.ones((2, 2)))
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """
    if isinstance(matrix, AbstractMatrix):
        return matrix.plus(mass)
    if mass is None:
        return matrix + identity(len(matrix), matrix.dtype)
    return matrix + (jnp.diag(mass) if mass.ndim == 1 else mass)


def system_matrix(mass: Array | None, by_y: Array | AbstractMatrix, scale: Array, dt: Array) -> Any:
    """M − scale J, the matrix of every linear system in a step. In a step of dt = 0 (of an idle
    lane, or between events at one time), which changes nothing, it is 1, for M may be singular.

    >>> system_matrix(None, jnp.ones((2, 2)), jnp.array(0.5), jnp.array(1.0)).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    if isinstance(by_y, AbstractMatrix):
        matrix = by_y.scaled(-scale).plus(mass)
        return matrix if mass is None else matrix.or_identity(dt == 0)
    matrix = combined(mass, -scale * by_y)
    if mass is None:
        return matrix
    return jnp.where(dt == 0, jnp.eye(len(matrix), dtype=matrix.dtype), matrix)


def residual_of_step(form: Mass | Implicit, dt: Array, t: Array, y: Array, path: Array) -> Array:
    """Evaluates dt f − M path, ravelled, where path is dt y': zero where the equation holds. Of a
    residual it is −dt F(t, y, path/dt), which is equal if F is M y' − f.
    """
    if isinstance(form, Implicit):
        return -dt * form.residual(t, y, divide_by_dt(path, dt).reshape(y.shape)).ravel()
    return dt * form.field(t, y).ravel() - apply_mass(form.mass, path)


def divide_by_dt(path: Array, dt: Array) -> Array:
    """The slope path/dt; path itself in a step of dt = 0, which goes nowhere.

    >>> divide_by_dt(jnp.array([2.0, 0.0]), jnp.array(0.0))
    Array([2., 0.], dtype=float32)
    """
    return path / jnp.where(dt == 0, 1, dt)


def slope_of(form: Form, t: Array, y: Array) -> Array:
    """dy/dt at (t, y), for a first step and for dense output where there is no step.

    With a mass matrix, y is consistent, and the algebraic equations are differentiated once:
    (M + free · J) y' = f − free · (f + f_t), of which the second part is zero but for f_t; those of
    a higher index more often. The path of an equation with noise has no slope: 0 stands for it.
    """
    form = form.as_known() if isinstance(form, Delayed) else form
    if isinstance(form, Sde):
        return jnp.zeros_like(y)
    if isinstance(form, Implicit):
        return residual.slope(form, t, y)
    if not isinstance(form, Mass):
        return lower(form, "ode", "a slope").field(t, y)
    if form.mass is None:
        return form.field(t, y)
    if form.index is not None:
        return higher_index.slope(form, t, y).reshape(y.shape)
    value, by_y, by_t = field_derivatives(form.field, t, y, form.jac)
    rate = value - projected(form.free, value if by_t is None else value + by_t)
    return linear_solve(factored(_determining_matrix(form, by_y)), rate).reshape(y.shape)


def initial_step_rates(form: Form) -> tuple[Callable, ...]:
    """Returns the functions that determine the first step size: the slope, and of an equation with
    noise the size of what multiplies √dt.
    """
    if isinstance(form, Sde):
        return form.drift, diffusion_magnitude(form)
    if isinstance(form, Implicit):
        return (partial(residual.pace, form),)
    if isinstance(form, Mass) and form.index is not None:
        return (lambda t, y: higher_index.differential_rates(form, t, y).reshape(y.shape),)
    return (partial(slope_of, form),)


def constrained(form: Form) -> bool:
    """True if there are, or may be, algebraic equations for initial values to satisfy."""
    return isinstance(form, Implicit) or (isinstance(form, Mass) and form.mass is not None)


def consistent_state(
    form: Mass | Implicit, t0: Array, y0: Array, kept: Array | None, tolerance: Any
) -> tuple[Array, Array]:
    """The y that obeys the algebraic equations, with the differential parts of y0, and whether it
    was found: the root of M (y − y0) + free · f(t0, y), both parts of which vanish, as they meet in
    zero alone. `kept`: components that are kept, where the matrix does not say it. Where there are
    hidden constraints, the differential parts may move within the tolerance.
    """
    if isinstance(form, Implicit):
        there = residual.consistent_rates(form, t0, y0)
        return there.y, there.found
    if form.index is not None:
        there = higher_index.nearest(form, t0, y0, kept, tolerance.scale(y0))
        near = tolerance.mean_square(there.move) <= 1 if kept is None else True
        return there.y.reshape(y0.shape), there.found & near
    given, hold = y0.ravel(), _holder(form, kept)

    def equations(y: Array) -> Array:
        rate = form.field(t0, y.reshape(y0.shape)).ravel()
        return apply_mass(hold, y - given) + apply_mass(form.free, rate)

    structure = _structure_of_equations(form, hold)
    x, found = find_root(equations, given, structure=structure)
    if kept is not None:
        found = found & (jnp.sum(kept) == len(given) - jnp.round(_rank(form.free)))
    return implicit_root(equations, x, structure=structure).reshape(y0.shape), found


def _structure_of_equations(form: Mass, hold: Array | None) -> JacobianStructure | None:
    """The structure of the equations of consistent values: that of ∂f/∂y, where M and the matrix of
    what is kept are diagonal.
    """
    diagonal = all(x is None or x.ndim == 1 for x in (form.mass, hold, form.free))
    return form.jac if diagonal and isinstance(form.jac, JacobianStructure) else None


def _rank(projector: Array) -> Array:
    return jnp.sum(projector) if projector.ndim == 1 else jnp.trace(projector)


def _holder(form: Mass, kept: Array | None) -> Array | None:
    """The matrix that is applied to y − y0: M, or a matrix of the same range that depends on the
    kept parts alone.

    At a root y − y0 vanishes in these parts, so that the basis of the range may pass for constant.
    """
    if kept is None:
        return form.mass
    mass = jax.lax.stop_gradient(form.mass)
    basis, _, _ = jnp.linalg.svd(jnp.diag(mass) if mass.ndim == 1 else mass)
    rows = jnp.eye(len(kept), dtype=mass.dtype)[jnp.argsort(~kept, stable=True)]
    count = jnp.sum(kept)
    return (basis * (jnp.arange(len(kept)) < count)) @ rows


def newton_correction(
    form: Mass | Implicit, t: Array, y: Array, span: Array, tolerance: Any
) -> tuple[Array, Array]:
    """The step of Newton's method from y towards the algebraic equations, M dy = 0, and the size
    that it is compared with: y, and for a slope that is corrected its change over the span;
    ravelled.
    """
    if isinstance(form, Implicit):
        return residual.newton_correction(form, t, y, span)
    if form.index is not None:
        return higher_index.newton_correction(form, t, y, tolerance.scale(y)), y.ravel()
    value, by_y, _ = field_derivatives(form.field, t, y, form.jac, by_t=False)
    factors = factored(_determining_matrix(form, by_y))
    return -linear_solve(factors, apply_mass(form.free, value)), y.ravel()


def is_regular(form: Mass | Implicit, t: Array, y: Array, dy: Array) -> tuple[Array, Array]:
    """Returns whether the equations determine what M leaves open, and whether that is known:
    whether a matrix is regular, and whether it is finite. It is M + P J at (t, y); of a residual,
    at (t, y, dy), ∂F/∂x, where x are the slopes of differential components and the algebraic ones.
    """
    if isinstance(form, Mass) and form.index is not None:
        return higher_index.is_regular(form, t, y)
    if isinstance(form, Implicit):
        matrix = residual.closing_matrix(form, t, y, dy)
    else:
        matrix = _determining_matrix(form, jacobian(form.field, t, y, form.jac))
    if isinstance(matrix, AbstractMatrix):
        return ~is_singular(matrix), matrix.is_finite()
    return ~is_singular(matrix), jnp.all(jnp.isfinite(matrix))


def _determining_matrix(form: Mass, by_y: Array | AbstractMatrix) -> Any:
    """M + P J."""
    return combined(form.mass, projected(form.free, by_y))

"""Equations with a mass matrix, M y' = f, of index 1."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...algebra import (
    AbstractMatrix,
    JacobianStructure,
    apply_mass,
    factored,
    field_derivatives,
    is_singular,
    jacobian,
    linear_solve,
    plus_mass,
)
from ...algebra.roots import find_root, implicit_root
from .base import DifferentialAlgebraic, OneField, StateTolerance

__all__ = ["Mass"]


@dataclass(frozen=True)
class Mass(OneField, DifferentialAlgebraic):
    """M y' = field(t, y) over the ravelled state.

    `mass` is M: a matrix, its diagonal as a vector, or None for 1. `free` projects on what M cannot
    reach, in the same shape: free · M = 0, and free · field = 0 are the algebraic equations.
    """

    explicit: ClassVar[None] = None  # no part of the field is stepped explicitly

    mass: Any = None
    free: Any = None

    @property
    def has_algebraic_equations(self) -> bool:
        """True unless M = 1."""
        return self.mass is not None

    def slope(self, t: Array, y: Array) -> Array:
        """The slope at a consistent y: the algebraic equations are differentiated once,
        (M + free · J) y' = f − free · (f + f_t), of which the second part is zero but for f_t.
        """
        if self.mass is None:
            return self.field(t, y)
        value, by_y, by_t = field_derivatives(self.field, t, y, self.jac)
        rate = value - _projected(self.free, value if by_t is None else value + by_t)
        return linear_solve(factored(self._determining_matrix(by_y)), rate).reshape(y.shape)

    def mass_times_slope(self, t: Array, y: Array) -> Array:
        """field(t, y)."""
        return self.field(t, y)

    def residual_of_step(self, dt: Array, t: Array, y: Array, path: Array) -> Array:
        """The value dt f − M path, ravelled, where path is dt y': zero where the equation holds."""
        return dt * self.field(t, y).ravel() - apply_mass(self.mass, path)

    def consistent_state(
        self, t0: Array, y0: Array, kept: Bool[Array, " n"] | None, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The root of M (y − y0) + free · f(t0, y), both parts of which vanish, as they meet in
        zero alone; and whether it was found. `kept`: components that are kept, where the matrix
        does not say it.
        """
        del tolerance
        given, hold = y0.ravel(), self._holder(kept)

        def equations(y: Array) -> Array:
            rate = self.field(t0, y.reshape(y0.shape)).ravel()
            return apply_mass(hold, y - given) + apply_mass(self.free, rate)

        structure = self._structure_of_equations(hold)
        x, found = find_root(equations, given, structure=structure)
        if kept is not None:
            found = found & (jnp.sum(kept) == len(given) - jnp.round(_rank(self.free)))
        return implicit_root(equations, x, structure=structure).reshape(y0.shape), found

    def newton_correction(
        self, t: Array, y: Array, span: Array, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The step of Newton's method from y towards the algebraic equations, M dy = 0, and y."""
        del span, tolerance
        value, by_y, _ = field_derivatives(self.field, t, y, self.jac, by_t=False)
        factors = factored(self._determining_matrix(by_y))
        return -linear_solve(factors, apply_mass(self.free, value)), y.ravel()

    def is_regular(self, t: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        """Returns whether M + P J is regular at (t, y), and whether it is finite."""
        del dy
        matrix = self._determining_matrix(jacobian(self.field, t, y, self.jac))
        if isinstance(matrix, AbstractMatrix):
            return ~is_singular(matrix), matrix.is_finite()
        return ~is_singular(matrix), jnp.all(jnp.isfinite(matrix))

    def algebraic_residual(self, t: Array, y: Array) -> Array:
        """Free · f at (t, y)."""
        return apply_mass(self.free, self.field(t, y).ravel())

    def _determining_matrix(self, by_y: Array | AbstractMatrix) -> Array | AbstractMatrix:
        """M + P J, which determines what M leaves open."""
        if isinstance(by_y, AbstractMatrix):
            if self.free.ndim == 1:
                return by_y.rows_where(self.free != 0).plus(self.mass)
            by_y = by_y.dense()
        return plus_mass(self.mass, _projected(self.free, by_y))

    def _structure_of_equations(self, hold: Array | None) -> JacobianStructure | None:
        """The structure of the equations of consistent values: that of ∂f/∂y, where M and the
        matrix of what is kept are diagonal.
        """
        diagonal = all(x is None or x.ndim == 1 for x in (self.mass, hold, self.free))
        return self.jac if diagonal and isinstance(self.jac, JacobianStructure) else None

    def _holder(self, kept: Array | None) -> Array | None:
        """The matrix that is applied to y − y0: M, or a matrix of the same range that depends on
        the kept parts alone.

        At a root y − y0 vanishes in these parts, so that the basis of the range may pass for
        constant.
        """
        if kept is None:
            return self.mass
        mass = jax.lax.stop_gradient(self.mass)
        basis, _, _ = jnp.linalg.svd(jnp.diag(mass) if mass.ndim == 1 else mass)
        rows = jnp.eye(len(kept), dtype=mass.dtype)[jnp.argsort(~kept, stable=True)]
        count = jnp.sum(kept)
        return (basis * (jnp.arange(len(kept)) < count)) @ rows


def _projected(free: Array, x: Array) -> Array:
    """P x, of the projector on what M cannot reach, where x is a vector or a matrix. That of a
    diagonal M picks rows, and the others may be infinite.

    >>> _projected(jnp.array([0.0, 1.0]), jnp.array([jnp.inf, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    if free.ndim == 2:
        return free @ x
    return jnp.where(free.reshape(-1, *(1,) * (x.ndim - 1)) != 0, x, 0)


def _rank(projector: Array) -> Array:
    return jnp.sum(projector) if projector.ndim == 1 else jnp.trace(projector)

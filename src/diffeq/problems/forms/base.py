"""The base of the canonical equations, and the questions that methods and solves ask of each."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...algebra import JacobianStructure
from .linearisation import Linearisation, linearised_field

__all__ = ["DifferentialAlgebraic", "Form", "OneField", "StateTolerance"]


@dataclass(frozen=True)
class Form:
    """The base of all equations, which are made of functions. Where these are `large`, the stages
    of a step are a loop (`methods.stage_loop`).

    `has_algebraic_equations` is True if there are, or may be, equations without y' for initial
    values to satisfy; `has_constant_mass`, if y' enters as M y' with one M for all t and y (or as
    y'); `has_given_steps`, if the data of the equation are known at the ends of steps alone.
    `solved_name` is the name, in a problem, of the function that implicit methods solve for, where
    they take the equation.
    """

    has_constant_mass: ClassVar[bool] = True
    has_given_steps: ClassVar[bool] = False
    solved_name: ClassVar[str] = "f"

    large: bool = field(default=False, kw_only=True)

    @property
    def has_algebraic_equations(self) -> bool:
        """False, but for equations that say otherwise."""
        return False

    def functions(self) -> dict[str, Callable]:
        """Its functions by their names."""
        return {name: f for name, f in vars(self).items() if callable(f)}

    def mapped(self, change: Callable) -> Any:
        """Returns the form with each of its functions changed."""
        return replace(self, **{name: change(f) for name, f in self.functions().items()})

    def sized(self, *, large: bool) -> Any:
        """Returns the form with `large` set."""
        return replace(self, large=large)

    def over_step(self, t: Array, dt: Array) -> Any:
        """Returns the form of the step from t to t + dt: itself, where all steps have one."""
        del t, dt
        return self

    def with_slope(self, t: Array, y: Array, slope: Array) -> Any:
        """Returns the form of which it is known what its field is at (t, y), these very arrays."""
        del t, y, slope
        return self

    def slope(self, t: Array, y: Array) -> Array:
        """The slope y' at (t, y), for a first step and for dense output where there is no step.
        Where there are algebraic equations, y satisfies them.
        """
        raise NotImplementedError

    def slope_guess(self, y: Array) -> Array:
        """A slope of y to start a search from: 0 where none is given."""
        return jnp.zeros_like(y)

    def initial_step_rates(self) -> tuple[Callable, ...]:
        """The functions of (t, y) that determine the first step size: the slope, and of an equation
        with noise the size of what multiplies √dt.
        """
        return (self.slope,)


class SolvedForField(Form):
    """The base of equations M y' = f(t, y), or with further parts, which implicit methods solve for
    f, their `solved_field`; `jac` is ∂f/∂y, if known, and M is 1 where `mass` is None.
    """

    @property
    def solved_field(self) -> Callable[..., Array]:
        """The field that implicit methods solve for."""
        raise NotImplementedError

    def solved_value(self, t: Array, y: Array) -> Array:
        """The value of that field at (t, y)."""
        return self.solved_field(t, y)

    def linearised(
        self,
        t: Array,
        y: Array,
        slope: Callable[[], Array] | None = None,
        *,
        by_products: bool = False,
    ) -> Linearisation:
        """M, and J = ∂f/∂y at (t, y)."""
        del slope
        known: Any = self  # the fields `jac` and `mass`, which subclasses have
        field = self.solved_field
        return linearised_field(field, t, y, known.jac, known.mass, by_products=by_products)


@dataclass(frozen=True)
class OneField(SolvedForField):
    """The base of equations of one field(t, y). `jac(t, y)`, if known, is ∂field/∂y of the ravelled
    state; or jac is the structure that ∂field/∂y has (`algebra.JacobianStructure`).
    """

    field: Callable[..., Array]
    jac: Callable[..., Array] | JacobianStructure | None = None

    @property
    def solved_field(self) -> Callable[..., Array]:
        """The field that implicit methods solve for."""
        return self.field

    def with_slope(self, t: Array, y: Array, slope: Array) -> Any:
        """Returns the equation with a field that is not evaluated at (t, y)."""
        known = lambda at, state: slope if at is t and state is y else self.field(at, state)  # noqa: E731
        return replace(self, field=known)


@runtime_checkable
class StateTolerance(Protocol):
    """The error that a solve accepts of a state (`controllers.tolerance.Tolerance`)."""

    def scale(self, y: Array) -> Array:
        """The accepted error of y, per component."""
        ...

    def mean_square(self, scaled: Array) -> Array:
        """The mean of the squares of errors in units of the scale."""
        ...


@dataclass(frozen=True)
class DifferentialAlgebraic(Form):
    """The base of equations that may have algebraic ones among them, M y' = f with a singular M or
    F(t, y, y') = 0. `has_higher_index` is True if some of them have to be differentiated before
    they determine the algebraic components.
    """

    has_higher_index: ClassVar[bool] = False

    def residual_of_step(self, dt: Array, t: Array, y: Array, path: Array) -> Array:
        """The value dt f − M path, ravelled, where path is dt y': zero where the equation holds."""
        raise NotImplementedError

    def mass_times_slope(self, t: Array, y: Array) -> Array:
        """M y' at (t, y); of a residual, which has no constant M, y'."""
        raise NotImplementedError

    def has_state_dependent_mass(self, t: Array, y: Array) -> bool:
        """True if the M at y' depends on t, y or y'."""
        del t, y
        return False

    def index_weighted(self, dt: Array, x: Array) -> Array:
        """Errors and Newton's updates of each component, along the last axis, as they count."""
        del dt
        return x

    def consistent_state(
        self, t0: Array, y0: Array, kept: Bool[Array, " n"] | None, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The y that obeys the algebraic equations, with the differential parts of y0, and whether
        it was found. `kept`: components that are kept, where the equations do not say it.
        """
        raise NotImplementedError

    def newton_correction(
        self, t: Array, y: Array, span: Array, tolerance: StateTolerance
    ) -> tuple[Array, Array]:
        """The step of Newton's method from y towards the algebraic equations, M dy = 0, and the
        size that it is compared with: y, and for a slope that is corrected its change over the
        span; ravelled.
        """
        raise NotImplementedError

    def is_regular(self, t: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        """Returns whether the equations determine, at (t, y, dy), the algebraic components and the
        slopes of the others; and whether that is known, their matrix being finite.
        """
        raise NotImplementedError

    def algebraic_residual(self, t: Array, y: Array) -> Array:
        """The algebraic equations at (t, y), one a component of the last axis: 0 where y satisfies
        them.
        """
        raise NotImplementedError

    def undeclared_slopes(self, t: Array, y: Array) -> Bool[Array, " n"]:
        """Flags of the components that are said to be algebraic, and whose slopes are in the
        equations.
        """
        del t
        return jnp.zeros(y.size, bool)

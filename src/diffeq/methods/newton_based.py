"""The base of methods that solve equations: the accuracy of Newton's method, and its linear
systems.

A root that is off by a small part of the tolerance costs the step no accuracy, so Newton stops
there. It gives up early, for a shorter step is cheaper than many iterations; but where no shorter
step would be tried (a fixed dt, or the replay of a step that was accepted once), it goes on.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike

from ..algebra import (
    AbstractFactors,
    Factors,
    Krylov,
    Products,
    check_linear,
    factored,
    linear_solve,
    solve_iteratively,
    system_matrix,
)
from ..algebra.newton import Bounds, stop_closure_gradient
from ..algebra.preconditioner import inverses_by_function, inverses_of_products, is_function
from ..algebra.small_lu import LARGEST
from ..core.norm import magnitude, mean_square
from ..problems.forms import Implicit, Mass, Ode, Split, linearised_field
from .base import Method

__all__ = [
    "Aim",
    "ImplicitMethod",
    "LinearSystem",
    "factors_of",
    "inverse_of",
    "linearised",
    "named_solver",
    "of_field",
    "solved_by",
]

# Hairer and Wanner's κ, the error of Newton in tolerances, lies between 1e-1 and 1e-2.
_KAPPA = 1e-2
_TURNS, _FINAL_TURNS = 10, 50
# Of a method that no solve has tuned.
_RTOL, _ATOL = 1e-13, 1e-15


class Aim(eqx.Module):
    """The accuracy to which equations are solved: a part of a tolerance. `final`: no shorter step
    will be tried.
    """

    tolerance: Any = None
    final: bool = eqx.field(static=True, default=True)

    def bounds(self, y: Array) -> Bounds:
        """Returns the norm of Newton's updates at y, which it takes as vectors, and the bound at
        which Newton stops. That is never below the rounding of y. A step that has to succeed is
        allowed that of the increment x from y, too: components that are 0 at y have no other.
        """
        y = lax.stop_gradient(y)
        scale, square = _ATOL + _RTOL * magnitude(y), mean_square
        if self.tolerance is not None:
            square = lax.stop_gradient(self.tolerance).mean_square
            scale = jnp.broadcast_to(lax.stop_gradient(self.tolerance.scale(y)), y.shape)
        scale = scale.ravel()

        def size(update: Array) -> Array:
            return jnp.sqrt(square(update / scale))

        def rounding(x: ArrayLike) -> Array:
            return 10 * jnp.finfo(y.dtype).eps * size(magnitude(y.ravel()) + jnp.abs(x))

        limit = jnp.maximum(_KAPPA, rounding(0.0))
        if not self.final:
            return Bounds(size, limit, _TURNS)
        return Bounds(size, limit, _FINAL_TURNS, rounding=rounding)


class ImplicitMethod(Method):
    """The base of methods that solve their equations by Newton's method. `aim` is how exactly,
    which a solve fills in (`with_tolerance`); `linear` what solves the linear systems, None for LU.
    """

    real_view: ClassVar[bool] = True

    aim: Aim = eqx.field(kw_only=True, default_factory=Aim, repr=False)
    linear: Any = eqx.field(kw_only=True, static=True, default=None)
    view: Callable | None = eqx.field(kw_only=True, default=None, repr=False)

    def __check_init__(self) -> None:
        check_linear(self.linear)

    @property
    def evaluations(self) -> int | None:
        """None: as many as Newton takes turns, counted step by step; Jacobians aside."""
        return None

    @property
    def stores_memory(self) -> bool:
        """Always: slopes and starts of Newton's method are known up to its error."""
        return True

    def with_tolerance(self, tolerance: Any, *, final: bool = False) -> "ImplicitMethod":
        """The method for a solve to this tolerance."""
        return eqx.tree_at(lambda method: method.aim, self, Aim(tolerance, final))

    def with_view(self, view: Callable) -> "ImplicitMethod":
        """The method with a point as a user's preconditioner sees it."""
        if not (isinstance(self.linear, Krylov) and is_function(self.linear.preconditioner)):
            return self
        return eqx.tree_at(lambda m: m.view, self, view, is_leaf=lambda x: x is None)

    def without_preconditioner(self) -> "ImplicitMethod":
        """The method with the solver alone."""
        if not isinstance(self.linear, Krylov):
            return self
        bare = copy.copy(self)
        object.__setattr__(bare, "linear", self.linear.solver)  # static, and frozen
        return bare

    @property
    def solver(self) -> "Solver":
        """The solver of the linear systems of a step."""
        return Solver(self.linear, self.view)


class Solver(NamedTuple):
    """The option `linear=` of a method, and a point as a user's preconditioner sees it."""

    linear: Any = None
    view: Callable | None = None

    @property
    def by_products(self) -> Any:
        """The solver of lineax, if there is one."""
        return self.linear.solver if isinstance(self.linear, Krylov) else self.linear

    def inverses_of(self, system: "LinearSystem", product: Callable, c: Array) -> tuple | None:
        """The preconditioner of a matrix M − c J, if there is one."""
        if not isinstance(self.linear, Krylov):
            return None
        jac, t, y = system.at
        given, like = self.linear.preconditioner, jnp.zeros_like(y.ravel())
        if not is_function(given):
            return inverses_of_products(given, jac, product, like)
        point = (t, y, None, c) if self.view is None else self.view(t, y, c)
        return inverses_by_function(given, point, like)


BY_LU = Solver()


def named_solver(linear: Any) -> str:
    """The option, as a method shows it."""
    shown = repr(linear) if isinstance(linear, Krylov) else type(linear).__name__
    return "" if linear is None else f"linear={shown}"


class LinearSystem(NamedTuple):
    """An equation near a point, M y' = J y + …, over the ravelled state: M (None for 1), and J;
    where there is a `solver` by products, as functions, with `at`, the structure that is declared
    of J and the point (t, y).
    """

    mass: Any
    by_y: Any
    solver: Solver = BY_LU
    at: tuple = ()


def linearised(
    form: Ode | Mass | Split | Implicit,
    t: Array,
    y: Array,
    slope: Callable[[], Array] | None = None,
    solver: Solver = BY_LU,
) -> LinearSystem:
    """M and ∂f/∂y at (t, y), of the implicit part where there are two; of a residual ∂F/∂y' and
    −∂F/∂y, at the slope that `slope()` is, which nothing else asks for.
    """
    if solver.linear is None:
        return LinearSystem(*form.linearised(t, y, slope))
    products = form.linearised(t, y, slope, by_products=True)
    return LinearSystem(*products, solver, (form.jac, t, y))


def of_field(field: Callable, t: Array, y: Array, solver: Solver) -> LinearSystem:
    """Linearises y' = f(t, y) at (t, y)."""
    if solver.linear is None:
        return LinearSystem(*linearised_field(field, t, y))
    products = linearised_field(field, t, y, by_products=True)
    return LinearSystem(*products, solver, (None, t, y))


def solved_by(factors: Factors | AbstractFactors | Products, r: Array) -> Array:
    """A⁻¹ r, with its derivative."""
    if isinstance(factors, Products):
        return solve_iteratively(factors._replace(exact=True), r)
    return linear_solve(factors, r)


def inverse_of(factors: Factors | AbstractFactors | Products) -> Callable:
    """The map r ↦ A⁻¹ r, without a derivative, for many right sides one after the other.

    A small matrix is inverted: a product is one sum over its entries, where two triangles are a
    chain of as many steps as they have rows. Newton's method corrects what rounding loses by it.
    """
    if isinstance(factors, Products):
        return lambda r: stop_closure_gradient(partial(solve_iteratively, factors), r)(
            lax.stop_gradient(r)
        )
    factors = lax.stop_gradient(factors)
    if isinstance(factors, Factors) and len(factors.lu) <= LARGEST:
        inverse = linear_solve(factors, jnp.eye(len(factors.lu), dtype=factors.lu.dtype))
        return lambda r: jnp.sum(inverse * r, axis=1)
    return lambda r: linear_solve(factors, r)


def factors_of(
    linear: LinearSystem, dt: Array, scale: Array | float | complex
) -> Factors | AbstractFactors | Products:
    """Factors M − dt scale J; 1 in a step of dt = 0, as `system_matrix` is."""
    solver = linear.solver
    if solver.linear is not None:
        by_mass, by_y, c = linear.mass, linear.by_y, dt * scale
        product = lambda v: jnp.where(dt == 0, v, by_mass(v) - c * by_y(v))  # noqa: E731
        inverses = solver.inverses_of(linear, product, c)
        return Products(product, solver.by_products, inverses=inverses)
    return factored(system_matrix(linear.mass, linear.by_y, dt * scale, dt))

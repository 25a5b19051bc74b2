"""`SteadyState` differentiates a steady state by the implicit function theorem."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..algebra import check_solver
from ..core.norm import mean_square
from ..core.promotion import standard_promotion
from ..integrator import Integrator
from ..problems import Problem
from ..problems.forms import lower
from .base import Adjoint, register_adjoint

__all__ = ["Rest", "SteadyState"]


@register_adjoint
class SteadyState(Adjoint):
    """Differentiates a steady state, 0 = f(y, p), by the implicit function theorem.

    (∂f/∂y) ẏ = −(∂f/∂p) ṗ, or transposed (∂f/∂y)ᵀ λ = −(∂L/∂y)ᵀ and dL/dp = λᵀ ∂f/∂p: one linear
    system, however the state was found and however long that took. Both modes, to any order. The
    derivative is that of the state to which Newton's method has converged, exact up to its
    tolerance; the Jacobian ∂f/∂y must not be singular there. The derivative by the guess y0 is
    zero.

    Args:
        linear: a linear solver of lineax, such as `lineax.GMRES(rtol=1e-8, atol=1e-8)` for many
            states, or `lineax.AutoLinearSolver(well_posed=False)` for the least-squares solution
            of a singular system. None: LU.

    Raises:
        TypeError: (by `solve`) the problem is no `SteadyStateProblem`.

    Reference: sapienza2024.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.SteadyStateProblem(lambda t, y, k: k - y**3, 1.0, 8.0)
        >>> steady = lambda k: de.solve(problem.replace(args=k), adjoint=de.SteadyState()).y1
        >>> round(float(steady(8.0)), 4), round(float(jax.grad(steady)(8.0)), 4)
        (2.0, 0.0833)
    """

    serves: ClassVar[frozenset[str]] = frozenset({"reverse", "forward", "second"})

    linear: Any = eqx.field(static=True, default=None)

    @classmethod
    def solves(cls, problem: type[Problem]) -> bool:
        """True for steady states alone."""
        return problem.is_steady

    def __check_init__(self) -> None:
        check_solver(self.linear)


class Rest(NamedTuple):
    """The equation 0 = f(y, p) of a steady state, over real vectors: a complex state is its real
    and imaginary parts.
    """

    integrator: Integrator
    tree: Any
    shape: tuple
    dtype: Any
    linear: Any
    most: int

    def residual(self, leaves: list, z: Array) -> Array:
        """The field f(y, p) at a real vector, as a real vector."""
        data, start = jax.tree.unflatten(self.tree, leaves)
        form = lower(self.integrator.form(data.parameters, data.sign), "ode", "a steady state")
        return self.flat(form.field(start.t, self.state(z)))

    def flat(self, y: Array) -> Array:
        """A state as a real vector."""
        y = y.ravel()
        return jnp.concatenate([y.real, y.imag]) if jnp.iscomplexobj(y) else y

    def state(self, z: Array) -> Array:
        """The state of a real vector."""
        if jnp.issubdtype(self.dtype, jnp.complexfloating):
            z = jax.lax.complex(*jnp.split(z, 2))
        return z.reshape(self.shape)

    def inverse(self, equation: Callable, z: Array) -> Callable:
        """The map x ↦ (∂equation/∂z)⁻¹ x at z."""
        if self.linear is None:
            matrix = jax.jacfwd(equation)(z)
            return lambda right: jnp.linalg.solve(matrix, right)
        import lineax as lx

        operator = lx.JacobianLinearOperator(lambda z, _: equation(z), z)
        return lambda right: lx.linear_solve(operator, right, self.linear, throw=False).value

    def found(self, leaves: list, guess: Array) -> tuple[Array, Array, Array]:
        """A steady state near a guess; True if it is one; and the number of iterations.

        The search is Powell's dogleg. Its end is a root if a Newton step from it is within
        tolerance, and solves its linear system; that step is then taken.
        """
        import lineax as lx
        import optimistix as ox

        tolerance = jax.tree.unflatten(self.tree, leaves)[0].tolerance
        rtol: Any = jnp.min(tolerance.rtol)
        atol: Any = jnp.min(tolerance.atol)
        linear = self.linear or lx.AutoLinearSolver(well_posed=None)
        search = ox.root_find(
            lambda z, leaves: self.residual(leaves, z),
            ox.Dogleg(rtol, atol, linear_solver=linear),
            guess,
            leaves,
            max_steps=self.most,
            throw=False,
            adjoint=ox.ImplicitAdjoint(),
        )
        z = search.value
        equation, y = partial(self.residual, leaves), self.state(z)
        value = equation(z)
        unit = jnp.max(jnp.abs(value))  # an iterative solver is to be as accurate for small values
        newton = unit * self.inverse(equation, z)(value / jnp.where(unit > 0, unit, 1))
        error2, _ = tolerance.squared(self.state(newton), y, y, None)
        left = jax.jvp(equation, (z,), (newton,))[1] - value
        solved = mean_square(left) <= 1e-6 * mean_square(value)
        good = (error2 <= 1) & solved & jnp.all(jnp.isfinite(newton))
        return jnp.where(good, z - newton, z), good, search.stats["num_steps"]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_rest(rest: Rest, leaves: list, guess: Array) -> tuple[Array, Array, Array]:
    """A steady state near a guess; True if it is one; and the number of iterations."""
    return rest.found(leaves, guess)


@at_rest.defjvp
@standard_promotion()
def _at_rest_jvp(
    rest: Rest, primals: tuple[list, Array], tangents: tuple[list, Array]
) -> tuple[tuple, tuple]:
    leaves, guess = primals
    dots, _ = tangents
    z, good, count = at_rest(rest, leaves, guess)

    # Where no steady state was found, the identity replaces the equation: the tangents are zero.
    def equation(leaves: list, z: Array) -> Array:
        return jnp.where(good, rest.residual(leaves, jnp.where(good, z, 0)), z)

    pushed = jax.jvp(lambda leaves: equation(leaves, z), (leaves,), (dots,))[1]
    moved = -rest.inverse(partial(equation, leaves), z)(pushed)
    zero = lambda x: jnp.zeros(x.shape, jax.dtypes.float0)  # noqa: E731
    return (z, good, count), (moved, zero(good), zero(count))

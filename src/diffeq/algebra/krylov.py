"""Linear systems by products with their matrix, for states too many to write the matrix down.

The iteration is a solver of lineax. Its derivative is another solve, d x = A⁻¹ (d b − d A · x), its
transpose one with Aᵀ; what a Krylov method went through is never differentiated.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact

from ..autodiff.jax_internals import shape_of

__all__ = ["Products", "check_solver", "solve_iteratively"]


class Products(NamedTuple):
    """A matrix as v ↦ A v, with a solver of lineax for it; `exact`, where its tolerances are to be
    as small as can be: for derivatives, which nobody corrects afterwards as Newton's method
    corrects its steps. `inverses`, if any, are those of a preconditioner, b ↦ P⁻¹ b and b ↦ P⁻ᵀ b.
    """

    times: Callable
    solver: Any
    exact: bool = False
    inverses: tuple[Callable, Callable] | None = None


def check_solver(solver: Any) -> None:
    """Refuses what is no solver of lineax."""
    if solver is None:
        return
    import lineax as lx

    if not isinstance(solver, lx.AbstractLinearSolver):
        raise TypeError(
            f"linear is {solver!r}; a linear solver of lineax is wanted, such as "
            "lineax.GMRES(rtol=1e-3, atol=1e-3), or None for LU."
        )


def solve_iteratively(matrix: Products, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
    """The x with A x = b, up to the solver's tolerances relative to the largest of b; but not below
    ε^(2/3), which an iteration reaches before rounding stops it. NaN where it did not get there.

    With a preconditioner A P⁻¹ z = b is solved, and x is P⁻¹ z: the residual of z is that of x, and
    the tolerances are for it. (As an option of lineax P would be used from the left by GMRES, which
    then compares P⁻¹ times the residual with b itself.) If P⁻¹ b is accurate enough it is x.

    >>> import lineax as lx
    >>> A = jnp.array([[4.0, 1.0], [1.0, 3.0]])
    >>> products = Products(lambda v: A @ v, lx.GMRES(1e-6, 1e-6))
    >>> found = solve_iteratively(products, jnp.array([1.0, 2.0]))
    >>> [round(float(x), 4) for x in found]
    [0.0909, 0.6364]
    """
    by = partial(_by_lineax, _bounded(matrix, b.dtype))
    inverse, transposed = matrix.inverses or (None, None)
    return lax.custom_linear_solve(
        matrix.times, b, solve=partial(by, inverse), transpose_solve=partial(by, transposed)
    )


def _bounded(matrix: Products, dtype: DTypeLike) -> Any:
    """The solver with tolerances that can be reached."""
    least = float(jnp.finfo(dtype).eps) ** (2 / 3)
    known = {x: getattr(matrix.solver, x) for x in ("rtol", "atol") if hasattr(matrix.solver, x)}
    wanted = {x: least if matrix.exact else max(float(size), least) for x, size in known.items()}
    return replace(matrix.solver, **wanted)


def _by_lineax(solver: Any, inverse: Callable | None, times: Callable, b: Array) -> Array:
    size = jnp.max(jnp.abs(b))  # tolerances are absolute, too: of a small b, x = 0 would do
    unit = jnp.where((size > 0) & jnp.isfinite(size), size, 1).astype(b.dtype)
    b = b / unit
    if inverse is None:
        x = _iterated(solver, times, b)
    else:
        start = inverse(b)  # which is x where P is the matrix; BiCGStab would divide zero by zero
        near = jnp.all(jnp.abs(b - times(start)) <= solver.atol + solver.rtol * jnp.abs(b))
        product = lambda z: times(inverse(z))  # noqa: E731
        x = lax.cond(near, lambda: start, lambda: inverse(_iterated(solver, product, b)))
    return jnp.where(jnp.isfinite(size), unit * x, jnp.nan)


def _iterated(solver: Any, times: Callable, b: Array) -> Array:
    """The solution by lineax, or NaN."""
    import lineax as lx

    operator = lx.FunctionLinearOperator(times, shape_of(b))
    try:
        found = lx.linear_solve(operator, b, solver, throw=False)
    except ValueError as error:
        raise ValueError(
            f"linear is {type(solver).__name__}, which asks more of a matrix than I − γ dt ∂f/∂y "
            f"has ({error}); one for any matrix is wanted, such as lineax.GMRES(rtol=1e-3, "
            "atol=1e-3), or None for LU."
        ) from error
    return jnp.where(found.result == lx.RESULTS.successful, found.value, jnp.nan)

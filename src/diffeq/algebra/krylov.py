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
    corrects its steps.
    """

    times: Callable
    solver: Any
    exact: bool = False


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

    >>> import lineax as lx
    >>> A = jnp.array([[4.0, 1.0], [1.0, 3.0]])
    >>> products = Products(lambda v: A @ v, lx.GMRES(1e-6, 1e-6))
    >>> found = solve_iteratively(products, jnp.array([1.0, 2.0]))
    >>> [round(float(x), 4) for x in found]
    [0.0909, 0.6364]
    """
    by = partial(_by_lineax, _bounded(matrix, b.dtype))
    return lax.custom_linear_solve(matrix.times, b, solve=by, transpose_solve=by)


def _bounded(matrix: Products, dtype: DTypeLike) -> Any:
    """The solver with tolerances that can be reached."""
    least = float(jnp.finfo(dtype).eps) ** (2 / 3)
    known = {x: getattr(matrix.solver, x) for x in ("rtol", "atol") if hasattr(matrix.solver, x)}
    wanted = {x: least if matrix.exact else max(float(size), least) for x, size in known.items()}
    return replace(matrix.solver, **wanted)


def _by_lineax(solver: Any, times: Callable, b: Array) -> Array:
    import lineax as lx

    size = jnp.max(jnp.abs(b))  # tolerances are absolute, too: of a small b, x = 0 would do
    unit = jnp.where((size > 0) & jnp.isfinite(size), size, 1).astype(b.dtype)
    operator = lx.FunctionLinearOperator(times, shape_of(b))
    try:
        found = lx.linear_solve(operator, b / unit, solver, throw=False)
    except ValueError as error:
        raise ValueError(
            f"linear is {type(solver).__name__}, which asks more of a matrix than I − γ dt ∂f/∂y "
            f"has ({error}); one for any matrix is wanted, such as lineax.GMRES(rtol=1e-3, "
            "atol=1e-3), or None for LU."
        ) from error
    sound = (found.result == lx.RESULTS.successful) & jnp.isfinite(size)
    return jnp.where(sound, unit * found.value, jnp.nan)

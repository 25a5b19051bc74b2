"""Linear systems by products with their matrix, for states too many to write the matrix down.

The iteration is a solver of lineax. Its derivative is another solve, d x = A⁻¹ (d b − d A · x), its
transpose one with Aᵀ; what a Krylov method went through is never differentiated.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Inexact

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
    """The x with A x = b, up to the solver's tolerances relative to the largest of b; or, for
    derivatives, up to ε^(2/3), or to rounding where that leaves a larger residual. NaN where it did
    not get there.

    With a preconditioner A P⁻¹ z = b is solved, and x is P⁻¹ z: the residual of z is that of x, and
    the tolerances are for it. (As an option of lineax P would be used from the left by GMRES, which
    then compares P⁻¹ times the residual with b itself.)

    >>> import lineax as lx
    >>> A = jnp.array([[4.0, 1.0], [1.0, 3.0]])
    >>> products = Products(lambda v: A @ v, lx.GMRES(1e-6, 1e-6))
    >>> found = solve_iteratively(products, jnp.array([1.0, 2.0]))
    >>> [round(float(x), 4) for x in found]
    [0.0909, 0.6364]
    """
    solve = _refined if matrix.exact else _approximate
    inverse, transposed = matrix.inverses or (_unchanged, _unchanged)
    return lax.custom_linear_solve(
        matrix.times,
        b,
        solve=partial(_scaled, partial(solve, matrix.solver, inverse)),
        transpose_solve=partial(_scaled, partial(solve, matrix.solver, transposed)),
    )


def _unchanged(r: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
    return r


def _scaled(solve: Callable, times: Callable, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
    """The x of b by that of b / max |b|: tolerances are absolute, too, and for a small b x = 0
    would do. NaN where b is not finite.
    """
    unit = _unit(b)
    return jnp.where(jnp.all(jnp.isfinite(b)), unit * solve(times, b / unit), jnp.nan)


def _unit(b: Inexact[Array, " n"]) -> Inexact[Array, ""]:
    """The largest of |b|, or 1 where that is zero or no number."""
    size = jnp.max(jnp.abs(b))
    return jnp.where((size > 0) & jnp.isfinite(size), size, 1).astype(b.dtype)


def _approximate(
    solver: Any, inverse: Callable, times: Callable, b: Inexact[Array, " n"]
) -> Inexact[Array, " n"]:
    """The x with |b − A x| within the tolerances, but not below ε^(2/3), which an iteration reaches
    before rounding stops it.
    """
    least = _least_tolerance(b)
    solver = _with_tolerances(solver, lambda given: max(given, least))

    def iterated() -> Inexact[Array, " n"]:
        z, solved = _iterated(solver, lambda z: times(inverse(z)), b)
        return jnp.where(solved, inverse(z), jnp.nan)

    if inverse is _unchanged:
        return iterated()
    start = inverse(b)  # which is x where P is the matrix; BiCGStab would divide zero by zero
    near = jnp.all(jnp.abs(b - times(start)) <= solver.atol + solver.rtol * jnp.abs(b))
    return lax.cond(near, lambda: start, iterated)


def _refined(
    solver: Any, inverse: Callable, times: Callable, b: Inexact[Array, " n"]
) -> Inexact[Array, " n"]:
    """The x whose residual b − A x is below ε^(2/3), or as small as rounding lets it be.

    It is found by rounds, x ← x + P⁻¹ z with A P⁻¹ z = b − A x up to ε^(1/3): the rounding of z
    counts in a residual times the size of A, so that in single precision one round may end far
    above ε^(2/3); that of a correction is smaller by as much as the correction is. The last round
    is that which does not make the residual half of the previous one; it counts if it makes it
    smaller. If its z was found, rounding alone can have kept it from that; then the x counts whose
    residual is below ε^(1/3).
    """
    least = _least_tolerance(b)
    most = math.sqrt(least)
    solver = _with_tolerances(solver, lambda _: most)

    def correct(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, r, *_ = state
        size = _unit(r)
        z, found = _iterated(solver, lambda z: times(inverse(z)), r / size)
        next_x = x + inverse(size * z)
        next_r = b - times(next_x)
        left = jnp.max(jnp.abs(next_r))
        x, r = (jnp.where(left < size, new, old) for new, old in ((next_x, x), (next_r, r)))
        return x, r, (left <= least) | ~(left <= size / 2), found

    x = inverse(b)  # which is all where P is the matrix; BiCGStab would divide zero by zero
    r = b - times(x)
    near = jnp.max(jnp.abs(r)) <= least
    start = jnp.where(near, x, 0), jnp.where(near, r, b), near, near
    x, r, _, found = lax.while_loop(lambda state: ~state[2], correct, start)
    return jnp.where(jnp.max(jnp.abs(r)) <= jnp.where(found, most, least), x, jnp.nan)


def _least_tolerance(b: Inexact[Array, " n"]) -> float:
    return float(jnp.finfo(b.dtype).eps) ** (2 / 3)


def _with_tolerances(solver: Any, change: Callable[[float], float]) -> Any:
    """The solver with changed tolerances."""
    given = {x: getattr(solver, x) for x in ("rtol", "atol") if hasattr(solver, x)}
    return replace(solver, **{x: change(float(size)) for x, size in given.items()})


def _iterated(
    solver: Any, times: Callable, b: Inexact[Array, " n"]
) -> tuple[Inexact[Array, " n"], Bool[Array, ""]]:
    """The solution by lineax as far as it got, and whether that is within the tolerances."""
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
    return found.value, found.result == lx.RESULTS.successful

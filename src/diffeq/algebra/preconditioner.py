"""Krylov methods with a preconditioner: an approximate inverse of M − γ dt J that is cheap.

It is computed where the matrix of a step is, from products with it: those entries that lie in a
structure, factored by the structure's own LU, or without fill. It is a constant of all derivatives.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Inexact, Int

from ..core.promotion import user_promotion
from ..core.user_functions import check_arguments
from .incomplete_lu import IncompleteInverse, incomplete_lu
from .jacobian_structure import Banded, Block, JacobianStructure, Sparse
from .krylov import check_solver
from .newton import stop_closure_gradient
from .pattern import pattern_of

__all__ = [
    "ILU0",
    "Krylov",
    "check_linear",
    "inverses_by_function",
    "inverses_of_products",
    "is_function",
    "preconditioner_structure",
]

_READY = "de.ILU0(), de.Banded(lower, upper), de.Block(size)"


class ILU0:
    """The incomplete LU without fill, ILU(0), as a preconditioner of `de.Krylov`: the factors have
    entries in the places of a pattern alone, and their product is the matrix there.

    Factorisation and solution are loops over levels of equations that do not wait for each other
    (on a square of n × n cells 2n of them, on a line n), array code without a call of the host. A
    level takes some microseconds, so that on a CPU a solution costs as much as ten products with
    the Jacobian of a cheap f: 1 ms on 100 × 100 cells with two quantities each. Of a matrix whose
    LU has no fill, as one with three diagonals, it is the LU. There is no pivoting: where a pivot
    is zero the equations of the step count as not solved.

    Args:
        pattern: an (n, n) array whose entries are True, or not zero, in the places that the factors
            have, or a sparse matrix, as that of `de.Sparse`. None: the pattern of the problem,
            `jac=de.Sparse(pattern)` or `jac=de.Sparse("detect")`.

    Raises:
        TypeError: pattern is none of these; (by `solve`) it is None and `jac` is no `de.Sparse`.
        ValueError: it is not square; (by `solve`) its shape is not that of ∂f/∂y.

    Reference: saad2003, 10.3.2.

    Example:
        >>> import diffeq as de, lineax as lx
        >>> case = de.zoo.brusselator_2d(8)
        >>> linear = de.Krylov(lx.GMRES(rtol=1e-3, atol=1e-3, restart=5), de.ILU0())
        >>> sol = de.solve(case.problem(), de.KenCarp4(linear=linear), stops=[1.1])
        >>> sol.y1.shape
        (8, 8, 2)
    """

    def __init__(self, pattern: Any = None) -> None:
        if isinstance(pattern, str):
            raise TypeError(
                f"pattern is {pattern!r}; an (n, n) pattern is wanted, or None for that of the "
                'problem: with jac=de.Sparse("detect") it is detected.'
            )
        self.pattern = None if pattern is None else pattern_of(pattern)

    def __repr__(self) -> str:
        return "ILU0()" if self.pattern is None else f"ILU0({self.pattern!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ILU0) and self.pattern == other.pattern

    def __hash__(self) -> int:
        return hash((ILU0, self.pattern))


class Krylov(eqx.Module):
    """A Krylov method with a preconditioner, as `linear=` of an implicit method.

    The systems (M − γ dt J) x = b are solved by products with J, as by the bare solver: what is
    iterated is (M − γ dt J) P⁻¹ z = b with x = P⁻¹ z, so that the residual is that of x itself and
    tolerances mean what they do without P. A preconditioner that is wrong costs iterations, or a
    step whose equations are not solved; no result is wrong by it. It is evaluated where the matrix
    of the step is, and is a constant of all derivatives, whose transposed systems have Pᵀ.

    `de.Banded` and `de.Block` are the entries of M − γ dt J in that structure, factored by its LU,
    and `de.ILU0` those in a pattern, factored without fill. Where the problem declares a structure,
    `jac=`, these are the very entries, and those of jac outside are left out. Where it declares
    none, columns are found together by one product a colour, so that entries outside are added to
    those inside, as in the banded preconditioner of CVODE.

    GMRES of lineax looks at its residual once a restart, and makes two of them at least: with a
    good preconditioner a `restart` of a few products is enough. BiCGStab looks after every two, and
    is for double precision: in single precision it takes negative numbers for a breakdown. The
    systems of derivatives are solved to ε^(2/3), or as far as rounding lets them be.

    In the backward solves of `de.Gauss` and `de.Backsolve`, which have another matrix, the bare
    solver is used.

    Args:
        solver: `lineax.GMRES` or `lineax.BiCGStab`.
        preconditioner: a `de.ILU0`, a `de.Banded`, a `de.Block`; or a function
            `preconditioner(t, y, args, c)` that returns a function r ↦ P⁻¹ r, which is linear in r,
            for a P near M − c ∂f/∂y. It sees t, y and args as f does, and c = γ dt with the sign of
            dt; r is a vector, the ravelled state (of a complex one the real parts, and then the
            imaginary ones). What the outer function computes is computed once for many r.

    Raises:
        TypeError: solver is another one, or preconditioner is none of these, or a function with
            other arguments; (by `solve`) it returns no function, or, in a derivative, one that is
            not linear.
        ValueError: (by `solve`) the structure does not fit the number of equations.

    Reference: saad2003, 9.3.2; hindmarsh2005.

    Example:
        Two quantities in each of 100 cells that react fast, and conduct slowly: the reactions of a
        cell are a block.

        >>> import jax.numpy as jnp, diffeq as de, lineax as lx
        >>> def field(t, y, k):
        ...     fast = k * (y[:, :1] - y[:, 1:]) * jnp.array([-1.0, 1.0])
        ...     return fast + 20 * (jnp.roll(y, 1, 0) - 2 * y + jnp.roll(y, -1, 0))
        >>> start = jnp.stack([jnp.linspace(0, 1, 100), jnp.zeros(100)], axis=1)
        >>> problem = de.ODEProblem(field, start, (0.0, 1.0), 1e5)
        >>> linear = de.Krylov(lx.GMRES(rtol=1e-3, atol=1e-3, restart=5), de.Block(2))
        >>> round(float(de.solve(problem, de.KenCarp4(linear=linear)).y1.sum()), 2)
        50.0
    """

    solver: Any
    preconditioner: Any

    def __check_init__(self) -> None:
        import lineax as lx

        if not isinstance(self.solver, (lx.GMRES, lx.BiCGStab)):
            raise TypeError(
                f"solver is {self.solver!r}; one that takes a preconditioner and any matrix is "
                "wanted, lineax.GMRES(rtol=1e-3, atol=1e-3) or lineax.BiCGStab(rtol=1e-3, "
                "atol=1e-3)."
            )
        given = self.preconditioner
        if isinstance(given, Sparse):
            raise TypeError(
                f"preconditioner is {given!r}, whose LU is exact: leave linear out, with "
                f"jac={given!r} in the problem, or give de.ILU0(pattern)."
            )
        if isinstance(given, type) and issubclass(given, (ILU0, JacobianStructure)):
            raise TypeError(
                f"preconditioner is the class {given.__name__}; an instance is wanted: {_READY}."
            )
        if not (isinstance(given, (ILU0, Banded, Block)) or callable(given)):
            raise TypeError(
                f"preconditioner is {given!r}; one of {_READY} is wanted, or a function "
                "preconditioner(t, y, args, c) that returns r ↦ P⁻¹ r."
            )
        if callable(given) and is_function(given):
            check_arguments(given, "preconditioner", "t, y, args, c")

    def __repr__(self) -> str:
        given = self.preconditioner
        own = getattr(given, "__name__", type(given).__name__)
        shown = own if is_function(given) else repr(given)
        return f"Krylov({type(self.solver).__name__}, {shown})"


def is_function(preconditioner: Any) -> bool:
    """True if the preconditioner is a function of the user's."""
    return not isinstance(preconditioner, (ILU0, JacobianStructure))


def preconditioner_structure(preconditioner: Any, jac: Any) -> JacobianStructure:
    """The structure of a preconditioner, for a problem that declares `jac`."""
    if not isinstance(preconditioner, ILU0):
        return preconditioner
    if preconditioner.pattern is not None:
        return _Incomplete(preconditioner.pattern)
    if isinstance(jac, Sparse):
        return _Incomplete(jac.pattern if jac.is_known else "detect")
    raise TypeError(
        f"preconditioner is ILU0(), the pattern of the problem, and jac is {jac!r}: give "
        'jac=de.Sparse("detect") or jac=de.Sparse(pattern) in the problem, or de.ILU0(pattern).'
    )


def inverses_of_products(
    preconditioner: Any, jac: Any, product: Callable, like: Inexact[Array, " n"]
) -> tuple[Callable, Callable]:
    """The maps r ↦ P⁻¹ r and r ↦ P⁻ᵀ r of a structure, for the matrix v ↦ product(v).

    >>> product = lambda v: jnp.array([4.0, 2.0, 8.0]) * v
    >>> inverse, _ = inverses_of_products(Block(1), None, product, jnp.zeros(3))
    >>> inverse(jnp.ones(3)).tolist()
    [0.25, 0.5, 0.125]
    """
    structure = preconditioner_structure(preconditioner, jac)
    declared = jac if isinstance(jac, JacobianStructure) else None
    values = _values(structure, declared, stop_closure_gradient(product, like), like)
    inverse = structure.factored(lax.stop_gradient(values))
    return inverse, inverse.transposed


def inverses_by_function(
    preconditioner: Callable, point: tuple, like: Inexact[Array, " n"]
) -> tuple[Callable, Callable]:
    """The maps r ↦ P⁻¹ r, which a user's function returns at a point (t, y, args, c), and
    r ↦ P⁻ᵀ r; 1 where c is zero.
    """
    arrays, others = eqx.partition(point, eqx.is_array)  # args may have functions among them
    with user_promotion():
        given = preconditioner(*eqx.combine(lax.stop_gradient(arrays), others))
    if not callable(given):
        raise TypeError(
            f"preconditioner(t, y, args, c) returned {given!r}; a function r ↦ P⁻¹ r is wanted."
        )
    inverse = stop_closure_gradient(partial(_checked_solution, given, point[-1]), like)
    return inverse, partial(_transposed_solution, inverse)


def _transposed_solution(inverse: Callable, r: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
    """P⁻ᵀ r of the map r ↦ P⁻¹ r."""
    try:  # of what is traced already: errors of the user's own code have come out before
        (x,) = jax.linear_transpose(inverse, r)(r)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise TypeError(
            "preconditioner(t, y, args, c) returned a function r ↦ P⁻¹ r whose transpose a "
            "derivative needs, and JAX has none: it is not linear in r, or has a loop of unknown "
            "length. Write it with linear operations of r, and lax.scan or a fori_loop between "
            "two numbers for a loop."
        ) from error
    return x


def _checked_solution(solve: Callable, c: Array, r: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
    """P⁻¹ r by a user's function, if it fits r."""
    with user_promotion():
        x = jnp.asarray(solve(r))
    if x.shape != r.shape or jnp.promote_types(x.dtype, r.dtype) != r.dtype:
        raise TypeError(
            f"preconditioner(t, y, args, c)(r) has shape {x.shape} and dtype {x.dtype}; those of r "
            f"are wanted, {r.shape} and {r.dtype}."
        )
    return jnp.where(c == 0, r, x.astype(r.dtype))


class _Incomplete(Sparse):
    """A sparse matrix whose factors have no fill."""

    def factored(self, values: Array) -> IncompleteInverse:
        return incomplete_lu(self.known, values)


def _values(
    structure: JacobianStructure,
    declared: JacobianStructure | None,
    product: Callable,
    like: Inexact[Array, " n"],
) -> Array:
    """The values of a matrix in a structure: of its entries, where those of the matrix are
    declared, else of sums of entries in rows.
    """
    if declared is None:
        return structure.of_map(product, like)
    values = declared.of_map(product, like)
    places = _places(structure, declared, like.size)
    found = jnp.where(places >= 0, values.ravel()[places], 0)
    return found.reshape(structure.values_shape(like.size))


def _places(
    structure: JacobianStructure, declared: JacobianStructure, n: int
) -> Int[np.ndarray, " k"]:
    """The place among the declared values of each value of a structure; −1 of those without one."""
    (rows, columns), (own_rows, own_columns) = declared.entries(n), structure.entries(n)
    stored = np.flatnonzero(rows >= 0)
    keys = (rows * n + columns)[stored]
    order = np.argsort(keys)
    keys, stored = keys[order], stored[order]
    wanted = np.where(own_rows >= 0, own_rows * n + own_columns, -1)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, stored[place], -1)


def check_linear(linear: Any) -> None:
    """Refuses a `linear=` that is no solver of lineax, and no `Krylov`."""
    if isinstance(linear, type) and issubclass(linear, Krylov):
        raise TypeError(
            "linear is the class Krylov; an instance is wanted, de.Krylov(solver, preconditioner)."
        )
    if isinstance(linear, (ILU0, JacobianStructure)):
        raise TypeError(
            f"linear is {linear!r}, which is a preconditioner; a solver is wanted with it, such as "
            f"de.Krylov(lineax.GMRES(rtol=1e-3, atol=1e-3), {linear!r})."
        )
    if not isinstance(linear, Krylov):
        check_solver(linear)

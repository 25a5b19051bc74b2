"""Differential-algebraic equations: M y' = f(t, y, args) with a constant mass matrix, and residuals
F(t, y, y', args) = 0.
"""

from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from ..autodiff.jax_internals import Tracer
from ..closures import flatten_fields
from ..core.packing import Packing, as_state, without_held
from ..core.user_functions import described
from .base import Problem, TimeSpan, evaluated

__all__ = [
    "DAEProblem",
    "ImplicitDAEProblem",
    "algebraic_rows",
    "free_projector",
    "kept_components",
    "packed_differential",
    "packed_index",
    "packed_mass",
    "packed_slope",
]


class DAEProblem(Problem):
    """M y' = f(t, y, args) on tspan, y(tspan[0]) = y0, where the matrix M may be singular.

    What M cannot reach are algebraic equations, 0 = g(t, y): they have to determine, with the
    differential parts of y, all the others (index 1). Consistent initial values are found by
    `solve(init="consistent")`, the default: what M sees of y0 is kept, and the rest is a guess.

    Where the algebraic equations have to be differentiated once or twice before they determine the
    algebraic parts (index 2 or 3, in Hessenberg form: y' = f(y, z), 0 = g(y); or q' = f(q, v), v' =
    k(q, v, z), 0 = g(q), as of a mechanical system with constraints), say so by `index`, and
    `RadauIIA5` solves the equations as they stand. Then y0 has to satisfy the constraint and what
    follows from it for the differential parts, such as the velocities, within the tolerance: it is
    corrected by as much, or refused. Steps of length h hold components of index k to a
    tolerance of rtol/h^(k−1).

    Args:
        f: as in `ODEProblem`.
        y0: the initial state, any pytree, or a function of args; algebraic parts are guesses.
        tspan, args: as in `ODEProblem`.
        mass_matrix: M, constant in t: its diagonal with the structure of y0 (a vector for a
            vector), or an (n, n) array over the ravelled state; or a function of args.
        differential: which components of y0 are kept, as booleans with the structure of y0. None:
            those that the matrix says, M (y − y0) = 0. Of an index above 1: as many as there are
            degrees of freedom, so that the constraint and its derivatives determine the others.
        jac: `jac(t, y, args)`, ∂f/∂y, or its structure, as in `ODEProblem`; an array of all entries
            of M has to fit in the same structure.
        index: the index of each component: 1, 2 or 3, as whole numbers with the structure of y0
            (one for a leaf stands for all of it). Positions are 1, velocities 2 and multipliers 3;
            or, where the constraint holds velocities, all 1 but for multipliers, 2. None: 1. A
            solve of a problem of higher index without it is refused, and tells what to give.

    Raises:
        TypeError: (by `solve`) as for `ODEProblem`; the method is explicit.
        ValueError: (by `solve`) mass_matrix, differential or index has another shape; they do not
            fit; above index 1 the algebraic equations are not the zero rows of mass_matrix.
        SolveError: (by `solve`) no consistent initial values were found; the index is another.

    Reference: hairer1996, VI, VII.

    Example:
        Robertson's reaction with its mass balance as an algebraic equation:

        >>> import jax.numpy as jnp, diffeq as de
        >>> def robertson(t, y, k):
        ...     a, b, c = y
        ...     slow, fast = k[0] * a - k[2] * b * c, k[1] * b**2
        ...     return jnp.array([-slow, slow - fast, a + b + c - 1])
        >>> problem = de.DAEProblem(
        ...     robertson, [1.0, 0.0, 0.7], (0.0, 40.0), jnp.array([0.04, 3e7, 1e4]),
        ...     mass_matrix=jnp.array([1.0, 1.0, 0.0]),
        ... )
        >>> sol = de.solve(problem, saveat=jnp.array([0.0, 40.0]), rtol=1e-4)
        >>> [[round(float(a), 3), round(float(c), 3)] for a, _, c in sol.ys]
        [[1.0, 0.0], [0.716, 0.284]]

        A weight u on a line that is led along sin t, and the force λ that does so, index 3:

        >>> led = lambda t, y, args: jnp.stack([y[1], y[2], y[0] - jnp.sin(t)])
        >>> problem = de.DAEProblem(
        ...     led, [0.0, 1.0, 0.0], (0.0, 1.0), mass_matrix=[1.0, 1.0, 0.0], index=[1, 2, 3]
        ... )
        >>> [round(float(y), 2) for y in de.solve(problem, dt=0.1).y1]  # sin, cos, −sin
        [0.84, 0.54, -0.84]
    """

    algebraic: ClassVar[bool] = True
    fields = ("f", "y0", "tspan", "args", "mass_matrix", "differential", "jac", "index")
    functions: ClassVar[dict[str, str]] = {"f": "t, y, args"}

    def __init__(
        self,
        f: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        mass_matrix: PyTree,
        differential: PyTree = None,
        jac: Any = None,
        index: PyTree = None,
    ) -> None:
        self.f, self.y0, self.tspan, self.args = f, as_state(y0), tspan, args
        self.mass_matrix, self.differential, self.jac = mass_matrix, differential, jac
        self.index = index

    def _flatten(self) -> tuple[list, Hashable]:
        # Methods differ by the index: as a function, it is a part of the program.
        problem = self.replace(index=_static(self.index))
        return flatten_fields(problem, self.fields, (*self.functions, "jac", "index"))


class ImplicitDAEProblem(Problem):
    """residual(t, y, dy, args) = 0 on tspan with dy = dy/dt, from y(tspan[0]) = y0.

    `differential` says for which components of y the slope is in the residual; the others are
    algebraic, and their slopes are not in it. The equations have to determine both, the slopes of
    the differential components and the algebraic ones, from t and the differential components
    (index 1). `BDF` and `RadauIIA5` solve it.

    Consistent initial values are found by `solve(init="consistent")`, the default: differential
    components of y0 are kept, and all else, dy0 included, is where the search begins. Where there
    are several slopes that satisfy the equations, dy0 chooses between them; after an event it does
    so again.

    Args:
        residual: `residual(t, y, dy, args)`: one equation for each component of y, with the
            structure and the shapes of y; dy comes like y.
        y0: the initial state, any pytree, or a function of args.
        tspan, args: as in `ODEProblem`.
        dy0: a guess of dy/dt at the start, with the structure and the shapes of y0, or a function
            of args.
        differential: booleans with the structure and the shapes of y0.

    Raises:
        TypeError: (by `solve`) residual or dy0 does not fit y0; the method does not solve it.
        ValueError: (by `solve`) differential does not fit y0; dy0 has NaN or inf.
        SolveError: (by `solve`) no consistent initial values were found.

    Reference: brown1998.

    Example:
        Robertson's reaction with its mass balance, and no idea of the slopes:

        >>> import jax.numpy as jnp, diffeq as de
        >>> def robertson(t, y, dy, k):
        ...     a, b, c = y
        ...     slow, fast = k[0] * a - k[2] * b * c, k[1] * b**2
        ...     return jnp.array([dy[0] + slow, dy[1] - slow + fast, a + b + c - 1])
        >>> problem = de.ImplicitDAEProblem(
        ...     robertson, [1.0, 0.0, 0.7], (0.0, 40.0), jnp.array([0.04, 3e7, 1e4]),
        ...     dy0=[0.0, 0.0, 0.0], differential=[True, True, False],
        ... )
        >>> sol = de.solve(problem, saveat=jnp.array([0.0, 40.0]), rtol=1e-4)
        >>> [[round(float(a), 3), round(float(c), 3)] for a, _, c in sol.ys]
        [[1.0, 0.0], [0.716, 0.284]]
    """

    algebraic: ClassVar[bool] = True
    default_implicit: ClassVar[str] = "BDF"
    fields = ("residual", "y0", "tspan", "args", "dy0", "differential")
    functions: ClassVar[dict[str, str]] = {"residual": "t, y, dy, args"}

    def __init__(
        self,
        residual: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        dy0: PyTree,
        differential: PyTree,
    ) -> None:
        self.residual, self.y0, self.tspan, self.args = residual, as_state(y0), tspan, args
        self.dy0, self.differential = as_state(dy0), differential


def packed_mass(problem: DAEProblem, packing: Packing) -> Array:
    """M over the packed state: its diagonal as a vector, or a matrix. Where a real view has numbers
    that are not there it is 1, for f is 0.
    """
    value = as_state(evaluated(problem.mass_matrix, problem.args))
    if hasattr(value, "toarray"):
        raise TypeError(
            f"mass_matrix is a {type(value).__name__}, sparse; an array is wanted, of which a "
            "diagonal matrix is a vector: mass_matrix.diagonal(), or mass_matrix.toarray()."
        )
    if _is_complex_for_real(value, packing):
        raise ValueError(
            f"mass_matrix is {_describe_value(value)}, complex, and y0 is real; real numbers are "
            "wanted, or a complex y0."
        )
    diagonal = _as_diagonal(value, packing)
    if diagonal is not None:
        return _real_view_of_mass(jnp.diag(diagonal), packing) if packing.viewed else diagonal
    matrix = jnp.asarray(value) if _is_arraylike(value) else None
    n = packing.size
    if matrix is None or matrix.shape != (n, n):
        raise ValueError(
            f"mass_matrix is {_describe_value(value)}; its diagonal with the structure of y0 is "
            f"wanted, or a matrix over the ravelled state, of shape ({n}, {n})."
        )
    return _real_view_of_mass(matrix.astype(packing.dtype), packing)


def packed_slope(problem: ImplicitDAEProblem, packing: Packing) -> Array:
    """dy0, packed like the state."""
    value = as_state(evaluated(problem.dy0, problem.args))
    fits = not _is_complex_for_real(value, packing)
    try:
        fits = fits and _as_diagonal(value, packing) is not None
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise TypeError(
            f"dy0 is {_describe_value(value)}; numbers with the structure and shapes of y0 are "
            "wanted, or a function of args."
        )
    return packing.pack(without_held(value, packing.marks) if packing.holds else value)


def _is_complex_for_real(value: PyTree, packing: Packing) -> bool:
    """True if a complex number is given for a real state."""
    wide = any(map(jnp.iscomplexobj, jax.tree.leaves(value)))
    return wide and jnp.issubdtype(packing.dtype, jnp.floating)


def packed_differential(
    problem: DAEProblem | ImplicitDAEProblem, packing: Packing
) -> Bool[Array, " n"] | None:
    """Flags of the components that are kept, over the ravelled packed state; None: what the matrix
    says.
    """
    if problem.differential is None:
        return None
    value = as_state(problem.differential)
    try:
        flags = _as_diagonal(jax.tree.map(lambda x: jnp.asarray(x, bool), value), packing)
    except (TypeError, ValueError):
        flags = None
    if flags is None:
        raise ValueError(
            f"differential is {_describe_value(value)}; booleans with the structure and shapes of "
            "y0 are wanted."
        )
    flags = flags.real != 0
    return jnp.concatenate([flags, flags]) | ~packing.real_mask if packing.viewed else flags


def kept_components(problem: Problem, packing: Packing) -> Bool[Array, " n"] | None:
    """Flags of the components that keep their initial values where the mass matrix does not say
    it, as a user flags them; None where nothing is flagged.
    """
    return packed_differential(problem, packing) if isinstance(problem, DAEProblem) else None


def _static(index: PyTree) -> PyTree:
    """An index that a user gave, without arrays of JAX, so that it is a constant of the program."""

    def known(x: PyTree) -> PyTree:
        if isinstance(x, Tracer):
            raise TypeError("index is traced; whole numbers are wanted that are known: 1, 2 or 3.")
        return np.asarray(x) if isinstance(x, jax.Array) else x

    return jax.tree.map(known, index)


def packed_index(index: PyTree, packing: Packing) -> Int[np.ndarray, " n"] | None:
    """The index of each component, over the ravelled packed state; None where all are 1."""
    if index is None:
        return None
    parts = _index_of_leaves(_static(index), packing)
    if parts is None:
        raise ValueError(
            f"index is {index!r}; whole numbers from 1 to 3 with the structure and shapes of y0 "
            "are wanted, one for each component (a solve without index= tells which)."
        )
    found = np.concatenate(parts)
    found = np.concatenate([found, found]) if packing.viewed else found
    return found if found.max() > 1 else None


def _index_of_leaves(value: PyTree, packing: Packing) -> list[np.ndarray] | None:
    """The numbers of each leaf that is not held, ravelled; None if they are something else."""
    try:
        parts = packing.tree.flatten_up_to(value)
        parts = [np.asarray(x) for x, held in zip(parts, packing.held, strict=True) if not held]
    except (TypeError, ValueError):
        return None
    one = packing.single and packing.size > 1  # the index of the system is not that of components
    for part, shape in zip(parts, packing.shapes, strict=True):
        if part.dtype.kind not in "iu" or part.shape not in ((shape,) if one else (shape, ())):
            return None
        if part.size and not (part.min() >= 1 and part.max() <= 3):
            return None
    each = zip(parts, packing.shapes, strict=True)
    return [np.broadcast_to(part, shape).ravel().astype(int) for part, shape in each]


def algebraic_rows(mass: Array) -> Array:
    """1 for each row of M that is zero, and 0 for the others: the diagonal of a projector."""
    zero = mass == 0
    return (zero if mass.ndim == 1 else jnp.all(zero, axis=1)).astype(mass.dtype)


def free_projector(mass: Array) -> Array:
    """1 − M M⁺, the projector on what M cannot reach; the derivative of a pseudo-inverse is exact
    as long as the rank stays what it is.
    """
    if mass.ndim == 1:
        return algebraic_rows(mass)
    return jnp.eye(len(mass), dtype=mass.dtype) - mass @ jnp.linalg.pinv(mass)


def _real_view_of_mass(matrix: Array, packing: Packing) -> Array:
    if not packing.viewed:
        return matrix
    return packing.matrix_view(matrix) + jnp.diag(~packing.real_mask).astype(matrix.real.dtype)


def _as_diagonal(value: PyTree, packing: Packing) -> Array | None:
    """A tree like the state, ravelled; None if it is something else."""
    if packing.holds:
        value = without_held(value, packing.marks)
    same = jax.tree.structure(value) == packing.rates
    if not same or [jnp.shape(x) for x in jax.tree.leaves(value)] != packing.shapes:
        return None
    dtype = packing.dtype
    return jnp.concatenate([jnp.ravel(jnp.asarray(x, dtype)) for x in jax.tree.leaves(value)])


def _is_arraylike(value: PyTree) -> bool:
    if isinstance(value, (list, tuple)):
        try:
            jnp.asarray(value)
        except (TypeError, ValueError):
            return False
        return True
    return hasattr(value, "shape")


def _describe_value(value: PyTree) -> str:
    return repr(value) if isinstance(value, str) else described(value)

"""Jacobians that know their zeros: `Banded`, `Sparse` and `Block` say where the numbers are.

Columns of ∂f/∂y that share no row are found together, by one tangent of the field: a band of
lower + upper + 1 diagonals takes that many tangents, whatever n is. What is done with the values
of such a matrix is here, one class a structure; to the methods a `StructuredMatrix` is a matrix
like another.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact, Int

from .banded_lu import banded_lu
from .detection import detected_pattern
from .linear import AbstractInverse, Factors, factored, linear_solve
from .pattern import Pattern, colour_columns, full_rows, pattern_of
from .sparse_lu import factor_entries, sparse_lu

__all__ = ["Banded", "Block", "JacobianStructure", "Sparse"]

_SMALL = 128  # equations whose sparse matrix is solved by dense LU, within the program
_MEDIUM, _FULL = 512, 0.25  # equations, and the share of n² in their factors, of which so is that
_FEW = 8  # colours among which a value is chosen by comparisons, not by a gather


class JacobianStructure:
    """The base of what `jac=` declares: which entries of ∂f/∂y may differ from zero.

    An entry is ∂f_i/∂y_j over the ravelled state: the leaves of a tree in JAX's order, one after
    the other, each row by row. The diagonal always belongs to it.
    """

    @property
    def is_known(self) -> bool:
        """True, but for a pattern that is to be detected."""
        return True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def check_size(self, n: int, name: str = "jac") -> None:
        """Refuses a state of n numbers that it does not fit; `name` is that of the argument."""
        raise NotImplementedError

    def entries(self, n: int) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
        """The rows and the columns of all entries, in the order of the ravelled values; where a
        value stands for no entry both are −1.
        """
        raise NotImplementedError

    def colours(self, n: int) -> Int[np.ndarray, " n"]:
        """The colour of each column: columns of one colour have no row in common."""
        raise NotImplementedError

    def of_columns(self, columns: Inexact[Array, "colours n"]) -> Array:
        """The values, from the sums of the columns of each colour."""
        raise NotImplementedError

    def of_map(self, push: Callable, like: Inexact[Array, " n"]) -> Array:
        """The values of a linear map v ↦ A v, from one product a colour."""
        return self.of_columns(_products(push, self.colours(like.size), like))

    def times(self, values: Array, x: Inexact[Array, " n"]) -> Array:
        """A x."""
        raise NotImplementedError

    def with_diagonal(self, values: Array, diagonal: Inexact[Array, " n"]) -> Array:
        """The values of A + a diagonal matrix."""
        raise NotImplementedError

    def rows_where(self, flags: Bool[Array, " n"], values: Array) -> Array:
        """The values of A with zeros in all rows but the flagged ones."""
        raise NotImplementedError

    def picked(self, matrix: Inexact[Array, "n n"]) -> Array:
        """The values of a matrix that is written down."""
        rows, columns = self.entries(len(matrix))
        found = jnp.where(rows >= 0, matrix[rows, columns], 0)
        return found.reshape(self.values_shape(len(matrix)))

    def interleaved(self, count: int, *, heavy: bool) -> "JacobianStructure":
        """The structure of `count` copies of the equations that are coupled within each component,
        whose copies are neighbours; where M is `heavy`, no diagonal, within each of its entries.
        """
        raise NotImplementedError

    def dense(self, values: Array, n: int) -> Inexact[Array, "n n"]:
        """The n×n matrix of these values, as an array of all entries."""
        rows, columns = (np.where(x < 0, n, x) for x in self.entries(n))
        blank = jnp.zeros((n, n), values.dtype)
        return blank.at[rows, columns].set(values.ravel(), mode="drop")

    def values_shape(self, n: int) -> tuple[int, ...]:
        """The shape of the values of an n×n matrix."""
        raise NotImplementedError

    def factored(self, values: Array) -> AbstractInverse:
        """Factors A; returns b ↦ A⁻¹ b, which is linear in b."""
        raise NotImplementedError


class Banded(JacobianStructure):
    """∂f_i/∂y_j is zero but for −lower ≤ j − i ≤ upper: equations on a line, each of which sees its
    neighbours.

    Several quantities in each cell belong next to each other, y of shape (cells, quantities): with
    q of them, of which each sees the neighbouring cells, lower = upper = 2q − 1, and q where a cell
    sees the same quantity of its neighbours alone.

    A Jacobian costs lower + upper + 1 tangents of the field, and its LU about 10 n (lower + upper)²
    operations in log₂ n stages, with row pivoting.

    Args:
        lower: the number of diagonals below the main one.
        upper: the number of diagonals above it.

    Raises:
        TypeError: a bandwidth is not a whole number.
        ValueError: it is negative; (by `solve`) it is not smaller than the number of equations, or
            y0 is complex.

    Reference: curtis1974; amodio2000.

    Example:
        Heat on a line of 100 cells:

        >>> import jax.numpy as jnp, diffeq as de
        >>> def heat(t, y, rate):
        ...     wide = jnp.pad(y, 1)
        ...     return rate * (wide[2:] - 2 * y + wide[:-2])
        >>> problem = de.ODEProblem(heat, jnp.ones(100), (0.0, 1.0), 1e3, jac=de.Banded(1, 1))
        >>> sol = de.solve(problem)
        >>> sol.about.method, bool(sol.stats["steps"] < 30)
        ('Rodas5P()', True)
    """

    def __init__(self, lower: Any, upper: Any) -> None:
        for name, width in (("lower", lower), ("upper", upper)):
            _check_whole(name, width, 0)
        self.lower, self.upper = int(lower), int(upper)

    def __repr__(self) -> str:
        return f"Banded({self.lower}, {self.upper})"

    def check_size(self, n: int, name: str = "jac") -> None:
        for side, width in (("lower", self.lower), ("upper", self.upper)):
            if width >= n:
                raise ValueError(
                    f"{name} is {self!r}, and y has {n} numbers: {side} from 0 to {n - 1} is "
                    "wanted."
                )

    @property
    def _width(self) -> int:
        return self.lower + self.upper + 1

    def _offsets(self) -> Int[np.ndarray, "w 1"]:
        return np.arange(-self.lower, self.upper + 1)[:, None]

    def values_shape(self, n: int) -> tuple[int, ...]:
        return self._width, n

    def entries(self, n: int) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
        rows = np.broadcast_to(np.arange(n), (self._width, n))
        columns = rows + self._offsets()
        inside = (columns >= 0) & (columns < n)
        return np.where(inside, rows, -1).ravel(), np.where(inside, columns, -1).ravel()

    def colours(self, n: int) -> Int[np.ndarray, " n"]:
        return np.arange(n) % min(self._width, n)

    def of_columns(self, columns: Inexact[Array, "colours n"]) -> Array:
        n = columns.shape[1]
        place = np.arange(n) + self._offsets()
        inside = (place >= 0) & (place < n)
        return jnp.where(inside, _chosen(columns, place % len(columns)), 0)

    def times(self, values: Array, x: Inexact[Array, " n"]) -> Array:
        n, wide = len(x), jnp.pad(x, (self.lower, self.upper))
        terms = [values[d] * wide[d : d + n] for d in range(self._width)]
        return reduce(jnp.add, terms)

    def with_diagonal(self, values: Array, diagonal: Inexact[Array, " n"]) -> Array:
        return values.at[self.lower].add(diagonal)

    def rows_where(self, flags: Bool[Array, " n"], values: Array) -> Array:
        return jnp.where(flags, values, 0)

    def interleaved(self, count: int, *, heavy: bool) -> "Banded":
        own = count - 1
        widths = (count * width for width in (self.lower, self.upper))
        return Banded(*(width + own if heavy else max(width, own) for width in widths))

    def factored(self, values: Array) -> AbstractInverse:
        if self._width == 1:
            return _DiagonalInverse(values[0])
        if 3 * self._width > values.shape[1]:
            return _DenseInverse(factored(self.dense(values, values.shape[1])))
        return banded_lu(values, self.lower)


class Block(JacobianStructure):
    """∂f/∂y has square blocks of one size on its diagonal, and zeros elsewhere: many systems of
    equations that do not see each other, y of shape (systems, size).

    A Jacobian costs `size` tangents of the field, and its LU is that of each block.

    Args:
        size: the number of rows of each block.

    Raises:
        TypeError: size is not a whole number.
        ValueError: it is not positive; (by `solve`) the number of equations is no multiple of it,
            or y0 is complex.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> decay = lambda y, k: jnp.stack([-k * y[0], k * y[0] - y[1]])
        >>> def many(t, y, k):
        ...     return jax.vmap(decay)(y, k)
        >>> rates = jnp.logspace(0, 4, 50)
        >>> problem = de.ODEProblem(many, jnp.ones((50, 2)), (0.0, 1.0), rates, jac=de.Block(2))
        >>> de.solve(problem).y1.shape
        (50, 2)
    """

    def __init__(self, size: Any) -> None:
        _check_whole("size", size, 1)
        self.size = int(size)

    def __repr__(self) -> str:
        return f"Block({self.size})"

    def check_size(self, n: int, name: str = "jac") -> None:
        if n % self.size:
            raise ValueError(
                f"{name} is {self!r}, and y has {n} numbers: a size is wanted that divides them."
            )

    def values_shape(self, n: int) -> tuple[int, ...]:
        return n // self.size, self.size, self.size

    def entries(self, n: int) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
        shape = self.values_shape(n)
        own = np.arange(n).reshape(shape[:2])
        rows, columns = own[:, :, None], own[:, None, :]
        return np.broadcast_to(rows, shape).ravel(), np.broadcast_to(columns, shape).ravel()

    def colours(self, n: int) -> Int[np.ndarray, " n"]:
        return np.arange(n) % self.size

    def of_columns(self, columns: Inexact[Array, "colours n"]) -> Array:
        return jnp.transpose(columns.reshape(self.size, -1, self.size), (1, 2, 0))

    def times(self, values: Array, x: Inexact[Array, " n"]) -> Array:
        return jnp.sum(values * x.reshape(-1, 1, self.size), axis=2).ravel()

    def with_diagonal(self, values: Array, diagonal: Inexact[Array, " n"]) -> Array:
        unit = np.eye(self.size, dtype=bool)
        return values + jnp.where(unit, diagonal.reshape(-1, 1, self.size), 0)

    def rows_where(self, flags: Bool[Array, " n"], values: Array) -> Array:
        return jnp.where(flags.reshape(-1, self.size, 1), values, 0)

    def interleaved(self, count: int, *, heavy: bool) -> "Block":
        del heavy
        return Block(count * self.size)

    def factored(self, values: Array) -> AbstractInverse:
        return _BlockInverse(jax.vmap(factored)(values))


class Sparse(JacobianStructure):
    """∂f/∂y is zero but in the places of a pattern, or in those that `"detect"` finds.

    The columns are coloured so that none of one colour share a row, and a Jacobian costs one
    tangent of the field a colour. A few rows that are nearly full, of quantities that all others
    change, would ask for as many colours as there are columns: these are found one by one, by the
    transpose of the tangent, where it has one. The LU is that of SuperLU, in an order that is found
    once for a pattern; it is called on the host, also where the solve runs on a GPU. Up to 128
    equations it is dense, and up to 512 whose factors would be full by a quarter.

    `"detect"` reads the pattern from the equations of the traced field, for all t, y and args at
    once: each branch of a `jnp.where` belongs to it. What it cannot see through (an index that
    depends on y, a callback) counts as seeing everything. The entries of a mass matrix are added.

    Args:
        pattern: an (n, n) array whose entries are True, or not zero, where ∂f_i/∂y_j may differ
            from zero; a sparse matrix of SciPy or of `jax.experimental.sparse`, of which the
            stored entries count; or "detect".

    Raises:
        TypeError: pattern is none of these.
        ValueError: it is not square, or its rows differ in length; (by `solve`) its shape is not
            that of ∂f/∂y, or y0 is complex.

    Reference: curtis1974; coleman1998; demmel1999.

    Example:
        >>> import jax.numpy as jnp, numpy as np, diffeq as de
        >>> def ring(t, y, k):  # each sees its left neighbour, and the first one the last
        ...     return k * (jnp.roll(y, 1) - y)
        >>> pattern = np.eye(50) + np.roll(np.eye(50), 1, axis=0)
        >>> start = jnp.zeros(50).at[0].set(1.0)
        >>> problem = de.ODEProblem(ring, start, (0.0, 1.0), 1e3, jac=de.Sparse(pattern))
        >>> round(float(de.solve(problem).y1.mean()), 4)
        0.02
    """

    def __init__(self, pattern: Any) -> None:
        self.pattern = None if _is_detect(pattern) else pattern_of(pattern)

    def __repr__(self) -> str:
        return 'Sparse("detect")' if self.pattern is None else f"Sparse({self.pattern!r})"

    @property
    def is_known(self) -> bool:
        """False while the pattern is to be detected."""
        return self.pattern is not None

    def detected(self, function: Callable, x: np.ndarray, *others: Any) -> "Sparse":
        """The structure of ∂f/∂x of f(x, *others)."""
        return Sparse(detected_pattern(function, x, *others))

    def with_places(self, places: Bool[np.ndarray, "n n"]) -> "Sparse":
        """The structure with these entries as well."""
        return Sparse(self.known.united(pattern_of(places)))

    @property
    def known(self) -> "Pattern":
        """The pattern, once it is known."""
        if self.pattern is None:
            raise ValueError('the pattern of Sparse("detect") is found by solve.')
        return self.pattern

    def check_size(self, n: int, name: str = "jac") -> None:
        if self.pattern is not None and self.pattern.n != n:
            own = self.pattern.n
            raise ValueError(
                f"{name} is a pattern of shape ({own}, {own}), and y has {n} numbers: the shape "
                f"({n}, {n}) is wanted."
            )

    def values_shape(self, n: int) -> tuple[int, ...]:
        del n
        return self.known.rows.shape

    def entries(self, n: int) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
        del n
        return self.known.rows, self.known.columns

    def colours(self, n: int) -> Int[np.ndarray, " n"]:
        del n
        return colour_columns(self.known)

    def of_columns(self, columns: Inexact[Array, "colours n"]) -> Array:
        rows, own = self.entries(columns.shape[1])
        return columns[self.colours(columns.shape[1])[own], rows]

    def of_map(self, push: Callable, like: Inexact[Array, " n"]) -> Array:
        apart = full_rows(self.known)
        pull = _transposed(push, like) if apart.size else None
        if pull is None:
            return super().of_map(push, like)
        rows, own = self.entries(like.size)
        colours = colour_columns(self.known.without_rows(apart))
        by_column = _products(push, colours, like)[colours[own], rows]
        units = (apart[:, None] == np.arange(like.size)).astype(like.dtype)
        by_row = jax.vmap(pull)(jnp.asarray(units))
        place = np.minimum(np.searchsorted(apart, rows), apart.size - 1)
        return jnp.where(apart[place] == rows, by_row[place, own], by_column)

    def times(self, values: Array, x: Inexact[Array, " n"]) -> Array:
        rows, columns = self.entries(len(x))
        return jax.ops.segment_sum(values * x[columns], rows, len(x), indices_are_sorted=True)

    def with_diagonal(self, values: Array, diagonal: Inexact[Array, " n"]) -> Array:
        return values.at[self.known.diagonal].add(diagonal, unique_indices=True)

    def rows_where(self, flags: Bool[Array, " n"], values: Array) -> Array:
        return jnp.where(flags[self.known.rows], values, 0)

    def interleaved(self, count: int, *, heavy: bool) -> "Sparse":
        return Sparse(self.known.interleaved(count, heavy=heavy))

    def factored(self, values: Array) -> AbstractInverse:
        n = self.known.n
        # Up to some hundred equations a call of the host takes as long as the elimination.
        if n <= _SMALL or (n <= _MEDIUM and factor_entries(self.known) > _FULL * n**2):
            return _DenseInverse(factored(self.dense(values, n)))
        return sparse_lu(self.known, values)


def _products(
    push: Callable, colours: Int[np.ndarray, " n"], like: Inexact[Array, " n"]
) -> Inexact[Array, "colours n"]:
    """The sums of the columns of each colour."""
    each = jnp.arange(int(colours.max()) + 1, dtype=jnp.int32)[:, None]
    seeds = (jnp.asarray(colours, jnp.int32) == each).astype(like.dtype)
    return jax.vmap(push)(seeds)


def _transposed(push: Callable, like: Inexact[Array, " n"]) -> Callable | None:
    """The map v ↦ Aᵀ v; None where JAX knows no transpose, as that of a `while_loop`."""
    try:
        transpose = jax.linear_transpose(push, like)
        jax.eval_shape(transpose, jax.eval_shape(push, like))
    except (AssertionError, NotImplementedError, TypeError, ValueError):
        return None
    return lambda v: transpose(v)[0]


class _DiagonalInverse(AbstractInverse):
    """b ↦ b / d."""

    diagonal: Inexact[Array, " n"]

    def __call__(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        return b / self.diagonal


class _DenseInverse(AbstractInverse):
    """The solution with the factors of a matrix that is small for its band."""

    factors: Factors

    def __call__(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        return linear_solve(self.factors, b)


class _BlockInverse(AbstractInverse):
    """The solution with the factors of each block."""

    factors: Factors

    def __call__(self, b: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        count, size = self.factors.matrix.shape[:2]
        return jax.vmap(linear_solve)(self.factors, b.reshape(count, size)).ravel()


def _is_detect(pattern: Any) -> bool:
    if isinstance(pattern, str) and pattern != "detect":
        raise TypeError(f'pattern is {pattern!r}; "detect" is wanted, or an (n, n) pattern.')
    return isinstance(pattern, str)


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {value!r}; a whole number is wanted.")
    if value < least:
        raise ValueError(f"{name} is {value}; a whole number from {least} on is wanted.")


def _chosen(columns: Inexact[Array, "colours n"], which: Int[np.ndarray, "w n"]) -> Array:
    """columns[which[d, i], i]."""
    if len(columns) > _FEW:
        return jnp.take_along_axis(columns, which, axis=0)
    each = range(1, len(columns))
    return reduce(lambda found, c: jnp.where(which == c, columns[c], found), each, columns[:1])

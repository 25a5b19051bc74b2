"""Bases of functions of one variable, and the layer of their products."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Real

from ..core.whole_numbers import whole_number
from ..validation.problem_checks import check_one_key
from ..validation.values import shown

__all__ = ["Basis", "Chebyshev", "Cos", "Fourier", "Legendre", "Polynomial", "Sin", "TensorLayer"]


class Basis(eqx.Module):
    """n functions of one variable, the base of all bases here: `basis(x)` is a vector (n,).

    One of your own subclasses this, and has `__call__`. Polynomials are made by recurrences, so
    they, and their derivatives to any order, are right for every x, inside [−1, 1] and beyond.

    Raises:
        TypeError: n is no positive whole number.
        ValueError: (by a call of those here) x has axes.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> class Powers(de.nn.Basis):
        ...     def __call__(self, x):
        ...         return jnp.stack([2.0 ** (j * x) for j in range(self.n)])
        >>> print(Powers(3)(1.0))
        [1. 2. 4.]
    """

    n: int = eqx.field(static=True, converter=lambda n: whole_number("n", n))

    def __call__(self, x: ArrayLike) -> Array:
        """The n values at x."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its functions are.")


def _one_number(x: ArrayLike) -> Array:
    """The variable of a basis, one number."""
    x = jnp.asarray(x)
    if x.ndim:
        raise ValueError(
            f"x has shape {x.shape}; a basis is of one number. Many are jax.vmap(basis)(x)."
        )
    return x


class _Recurrence(Basis):
    """P₀ = 1, P₁ = x, and the next from two before it."""

    def __call__(self, x: ArrayLike) -> Array:
        x = _one_number(x)
        values = [jnp.ones_like(x), x]
        for j in range(1, self.n - 1):
            values.append(self._next(j, x, *values[-2:]))
        return jnp.stack(values[: self.n])

    def _next(self, j: int, x: Array, before: Array, last: Array) -> Array:
        raise NotImplementedError


class Chebyshev(_Recurrence):
    """T_0 … T_(n−1), where T_j(cos φ) = cos jφ: of all polynomials, the best-tempered on [−1, 1].

    Reference: mason2002.

    Example:
        >>> import diffeq as de
        >>> print(de.nn.Chebyshev(4)(0.5))
        [ 1.   0.5 -0.5 -1. ]
    """

    def _next(self, j: int, x: Array, before: Array, last: Array) -> Array:
        return 2 * x * last - before


class Legendre(_Recurrence):
    """P_0 … P_(n−1), orthogonal on [−1, 1]: ∫ P_i P_j dx is 2/(2j + 1) for i = j, else 0.

    Reference: szego1939.

    Example:
        >>> import diffeq as de
        >>> print(de.nn.Legendre(3)(1.0))
        [1. 1. 1.]
    """

    def _next(self, j: int, x: Array, before: Array, last: Array) -> Array:
        return ((2 * j + 1) * x * last - j * before) / (j + 1)


class Polynomial(_Recurrence):
    """1, x, …, x^(n−1).

    Example:
        >>> import diffeq as de
        >>> print(de.nn.Polynomial(4)(2.0))
        [1. 2. 4. 8.]
    """

    def _next(self, j: int, x: Array, before: Array, last: Array) -> Array:
        return x * last


class Sin(Basis):
    """sin x, sin 2x, …, sin nx: odd functions of period 2π.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> print(de.nn.Sin(2)(jnp.pi / 2).round(3) + 0.0)
        [1. 0.]
    """

    def __call__(self, x: ArrayLike) -> Array:
        return jnp.sin(jnp.arange(1, self.n + 1) * _one_number(x))


class Cos(Basis):
    """1, cos x, …, cos (n−1)x: even functions of period 2π.

    Example:
        >>> import diffeq as de
        >>> print(de.nn.Cos(3)(0.0))
        [1. 1. 1.]
    """

    def __call__(self, x: ArrayLike) -> Array:
        return jnp.cos(jnp.arange(self.n) * _one_number(x))


class Fourier(Basis):
    """The first n of 1, cos x, sin x, cos 2x, sin 2x, …: functions of period 2π.

    Example:
        >>> import diffeq as de
        >>> print(de.nn.Fourier(5)(0.0))
        [1. 1. 0. 1. 0.]
    """

    def __call__(self, x: ArrayLike) -> Array:
        x, waves = _one_number(x), self.n // 2 + 1
        pairs = jnp.stack([jnp.cos(jnp.arange(waves) * x), jnp.sin(jnp.arange(waves) * x)], axis=1)
        return jnp.concatenate([pairs[0, :1], pairs[1:].ravel()])[: self.n]  # no sin 0


class TensorLayer(eqx.Module):
    """All products of functions of one variable each, in a linear combination.

        z = W (B_1(x_1) ⊗ … ⊗ B_d(x_d)),   W of shape (out, n_1 ⋯ n_d)

    A net without hidden layers, linear in what is trained, for fields of few variables: with
    `Legendre(10)` for each of two, 100 numbers an output.

    Args:
        bases: one for each component of x.
        out: components of the result.
        key: for W, whose entries are normal with the variance 1/(n_1 ⋯ n_d).

    Raises:
        TypeError: bases is no sequence of bases; out is no positive whole number; key is no key.
        ValueError: x of another length than the list of bases.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> net = de.nn.TensorLayer([de.nn.Legendre(3), de.nn.Fourier(5)], 2, key=jax.random.key(0))
        >>> net(jnp.array([0.5, 1.0])).shape, net.weight.shape
        ((2,), (2, 15))
    """

    weight: Real[Array, "out n"]
    bases: tuple[Basis, ...]

    def __init__(self, bases: Any, out: Any, *, key: Any) -> None:
        listed = isinstance(bases, Sequence) and len(bases) > 0
        if not (listed and all(isinstance(basis, Basis) for basis in bases)):
            raise TypeError(
                f"bases is {shown(bases)}; a list is wanted, with a basis for each component of x: "
                "[Legendre(3)] for one."
            )
        check_one_key(key)
        self.bases, out = tuple(bases), whole_number("out", out)
        count = math.prod(basis.n for basis in self.bases)
        self.weight = jax.random.normal(key, (out, count)) / math.sqrt(count)

    def __call__(self, x: Array) -> Array:
        """The result for one x, a vector (d,)."""
        if jnp.shape(x) != (len(self.bases),):
            raise ValueError(
                f"x has shape {jnp.shape(x)}; with a basis for each component it has "
                f"({len(self.bases)},). Batches are jax.vmap."
            )
        parts = [basis(part) for basis, part in zip(self.bases, x, strict=True)]
        return self.weight @ reduce(lambda a, b: jnp.outer(a, b).ravel(), parts)

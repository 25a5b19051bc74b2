"""`one_way_linear`: a linear map that is known in one direction only, and says so in the other.

The tangent of a solve is linear in the tangents of its inputs. `Forward` knows how to push tangents
(its steps depend on them, so nothing can transpose it), a continuous adjoint how to pull cotangents
back. JAX asks for the other direction only where a user does, and then an error names the solution.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from ..core.promotion import standard_promotion
from ..core.split import Sizes, split_by_sizes
from .batch_last import lanes_last
from .jax_internals import (
    ShapedArray,
    define,
    instantiate,
    is_unknown,
    is_zero,
    push_moving,
    shape_of,
    zero_like,
)
from .operand import Operand

__all__ = ["Map", "one_way_linear", "undifferentiable", "with_common_lanes"]

type OutputTypes = tuple[tuple[tuple[int, ...], np.dtype], ...]
"""The shape and the dtype of each output."""


class Map:
    """One linear map; a subclass gives `push` or `pull`, and the sentence of what it has not.

    Both take the residuals, in which the map need not be linear, and a list of (co)tangents.
    """

    refusal = "this linear map has no other direction"

    def push(self, residuals: list, tangents: list) -> list:
        """The tangents of the outputs."""
        raise TypeError(self.refusal)

    def pull(self, residuals: list, cotangents: list) -> list:
        """The cotangents of the inputs."""
        raise TypeError(self.refusal)

    def over(self, size: int, residual_axes: Sequence, like: Sequence) -> "Map":
        """The map of `size` lanes; (co)tangents have them last, residuals at their axes."""
        del like
        return _BatchedMap(self, size, residual_axes)


class _BatchedMap(Map):
    """A map, lane by lane."""

    def __init__(self, inner: Map, size: int, axes: Sequence) -> None:
        self.inner, self.size, self.axes = inner, size, list(axes)
        self.refusal = inner.refusal

    def _mapped(
        self, function: Callable[[list, list], list], residuals: list, moving: list
    ) -> list:
        run = jax.vmap(function, in_axes=(self.axes, -1), out_axes=-1, axis_size=self.size)
        return run(residuals, moving)

    def push(self, residuals: list, tangents: list) -> list:
        return self._mapped(self.inner.push, residuals, tangents)

    def pull(self, residuals: list, cotangents: list) -> list:
        return self._mapped(self.inner.pull, residuals, cotangents)


def one_way_linear(rule: Map, residuals: Sequence, tangents: Sequence, like: Sequence) -> list:
    """The map's outputs, of the shapes and dtypes of `like`.

    >>> class Twice(Map):
    ...     refusal = "Twice only goes back: use jax.grad."
    ...     def pull(self, residuals, cotangents):
    ...         return [2 * c for c in cotangents]
    >>> @jax.custom_jvp
    ... def twice(x):
    ...     return 2 * x
    >>> _ = twice.defjvp(lambda p, t: (twice(*p), one_way_linear(Twice(), [], t, p)[0]))
    >>> float(jax.grad(twice)(3.0))
    2.0
    >>> jax.jvp(twice, (3.0,), (1.0,))
    Traceback (most recent call last):
    TypeError: Twice only goes back: use jax.grad. ...
    """
    residuals = [jnp.asarray(x) for x in residuals]
    tangents = [jnp.asarray(x) for x in tangents]
    return one_way_linear_p.bind(
        *residuals,
        *tangents,
        rule=rule,
        sizes=(len(residuals), len(tangents)),
        like=tuple((shape_of(x).shape, jnp.dtype(shape_of(x).dtype)) for x in like),
    )


def undifferentiable[**P, R](function: Callable[P, R], sentence: str) -> Callable[P, R]:
    """The function, with a sentence where its derivative is asked for.

    >>> jax.grad(undifferentiable(lambda x: x * x, "There is no derivative here."))(1.0)
    Traceback (most recent call last):
    TypeError: There is no derivative here. ...
    """

    @jax.custom_jvp
    def closed(*args: P.args, **options: P.kwargs) -> R:
        return function(*args, **options)

    @closed.defjvp
    @standard_promotion()
    def rule(primals: tuple, tangents: tuple) -> Any:
        del primals, tangents
        raise TypeError(sentence)

    return closed


def _implementation(*xs: ArrayLike, rule: Map, sizes: Sizes, like: OutputTypes) -> list:
    residuals, tangents = split_by_sizes(xs, sizes)
    return [
        jnp.asarray(x, d) for x, (_, d) in zip(rule.push(residuals, tangents), like, strict=True)
    ]


def _abstract(*xs: ShapedArray, like: OutputTypes, **params: Map | Sizes) -> list:
    del xs, params
    return [ShapedArray(shape, dtype) for shape, dtype in like]


def _jvp(
    primals: Sequence, dots: Sequence, *, rule: Map, sizes: Sizes, like: OutputTypes
) -> tuple[list, list]:
    """The derivative of a push, if it has one; where only tangents move, the map again."""
    bind = lambda xs: one_way_linear_p.bind(*xs, rule=rule, sizes=sizes, like=like)  # noqa: E731
    residual_dots, tangent_dots = split_by_sizes(dots, sizes)
    residuals, tangents = split_by_sizes(primals, sizes)
    out = bind(primals)
    if all(is_zero(d) for d in residual_dots):
        moved = [instantiate(d, t) for d, t in zip(tangent_dots, tangents, strict=True)]
        return out, bind([*residuals, *moved])
    flags = [not is_zero(d) for d in dots]

    push = partial(_implementation, rule=rule, sizes=sizes, like=like)
    moving = [d for d, f in zip(dots, flags, strict=True) if f]
    return out, push_moving(push, primals, flags, moving)[1]


def _transpose(
    cotangents: Sequence, *xs: Operand, rule: Map, sizes: Sizes, like: OutputTypes
) -> list:
    residuals, tangents = split_by_sizes(xs, sizes)
    if all(is_zero(c) for c in cotangents):
        return [None] * len(xs)
    blank = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in like]
    full = [zero_like(a) if is_zero(c) else c for c, a in zip(cotangents, blank, strict=True)]
    found = rule.pull(residuals, full)
    found = [f if is_unknown(t) else None for f, t in zip(found, tangents, strict=True)]
    return [*[None] * len(residuals), *found]


def _batch(
    size: int, xs: Sequence, axes: Sequence, *, rule: Map, sizes: Sizes, like: OutputTypes
) -> tuple[list, list[int]]:
    residuals, tangents = split_by_sizes(xs, sizes)
    residual_axes, tangent_axes = split_by_sizes(axes, sizes)
    moved = [
        lanes_last(x, a, size, force=True) for x, a in zip(tangents, tangent_axes, strict=True)
    ]
    wide = [ShapedArray((*shape, size), dtype) for shape, dtype in like]
    out = one_way_linear(rule.over(size, residual_axes, like), residuals, moved, wide)
    return out, [x.ndim - 1 for x in out]


one_way_linear_p = define(
    "one_way_linear", _implementation, _abstract, jvp=_jvp, transpose=_transpose, batch=_batch
)


def with_common_lanes(outputs: Sequence, inputs: Sequence) -> list:
    """The outputs, each with lanes under `vmap` if any output or input has them. A tangent of this
    map has lanes wherever an input does, and JAX wants the same of the value beside it.
    """
    return with_common_lanes_p.bind(*outputs, *inputs, count=len(outputs))


def _first(*xs: ArrayLike, count: int) -> list:
    return list(xs[:count])


def _first_with_lanes(
    size: int, xs: Sequence, axes: Sequence, *, count: int
) -> tuple[list, list[int]]:
    pairs = zip(xs, axes, strict=True)
    wide = with_common_lanes_p.bind(
        *(lanes_last(x, a, size, force=True) for x, a in pairs), count=count
    )
    return wide, [x.ndim - 1 for x in wide]


def _first_jvp(primals: Sequence, dots: Sequence, *, count: int) -> tuple[list, list]:
    return with_common_lanes_p.bind(*primals, count=count), list(dots[:count])


with_common_lanes_p = define(
    "with_common_lanes",
    _first,
    lambda *xs, count: list(xs[:count]),
    jvp=_first_jvp,
    batch=_first_with_lanes,
)

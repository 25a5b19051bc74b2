"""`with_known_value`: a value that is known already, with the derivative of another computation of
it.

A step that is run again can compute the memory of the step before (a first stage that equals the
last one), but its derivative is there already, and cheaper than another one.
"""

from collections.abc import Sequence

from jaxtyping import Array, Inexact

from .batch_last import lanes_last
from .jax_internals import ShapedArray, define, is_zero, zero_tangent

__all__ = ["with_known_value"]


def with_known_value(value: Inexact[Array, "..."], like: Inexact[Array, "..."]) -> Array:
    """`value`, with the derivative of `like`; with its own where `like` has none.

    Both are the same quantity, so that this is right to every order: what a tangent step keeps of
    `like` is nothing, and a second derivative goes through `value`.

    >>> import jax
    >>> f = lambda x: with_known_value(x**2, x * x)
    >>> [float(g(3.0)) for g in (f, jax.grad(f), jax.grad(jax.grad(f)))]
    [9.0, 6.0, 2.0]
    """
    return with_known_value_p.bind(value, like)[0]


def _jvp(primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    out = with_known_value_p.bind(*primals)
    dot = tangents[0] if is_zero(tangents[1]) else tangents[1]
    return out, [zero_tangent(out[0]) if is_zero(dot) else dot]


def _batch(size: int, xs: Sequence, axes: Sequence) -> tuple[list, list[int]]:
    out = with_known_value_p.bind(
        *(lanes_last(x, a, size, force=True) for x, a in zip(xs, axes, strict=True))
    )
    return out, [out[0].ndim - 1]


with_known_value_p = define(
    "with_known_value",
    lambda value, like: [value],
    lambda value, like: [ShapedArray(value.shape, value.dtype)],
    jvp=_jvp,
    batch=_batch,
    influence=[True, False],
)

"""`linear_function`: a linear map that runs as one function, and so does its transpose.

The tangent of a small solve is a loop among some dozens of operations on a few numbers, and so is
what JAX makes of it, piece by piece, for the way back. XLA on a CPU runs each piece as a task of
its own, which takes longer than its arithmetic; in a loop of one turn it makes one native function
of them all.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from .jax_internals import (
    Jaxpr,
    ShapedArray,
    define,
    instantiate,
    is_unknown,
    is_zero,
    jaxpr_as_fun,
    output_types,
    push_moving,
    shape_of,
    trace,
)
from .operand import Operand
from .packed import pack, unpack
from .while_loop import lane_by_lane, single_iteration_loop

__all__ = ["linear_function"]


def linear_function(
    function: Callable[[list, list], list],
    residuals: Sequence,
    tangents: Sequence,
    together: tuple[int, int] = (0, 0),
) -> list:
    """`function(residuals, tangents)`, which is linear in the tangents and closes over no tracers.

    The residuals from one number to another, `together`, are all the results of a native function:
    XLA finds that what is packed of them is what was unpacked there.

    It has derivatives of every order: by the residuals, and under `vmap`, those of the operations
    that it is made of, one by one.

    >>> import jax
    >>> scaled = lambda residuals, tangents: [residuals[0] * tangents[0]]
    >>> product = lambda x, t: linear_function(scaled, [x], [t])[0]
    >>> float(product(2.0, 3.0)), float(jax.grad(product, 1)(2.0, 3.0))
    (6.0, 2.0)
    >>> float(jax.grad(jax.grad(product, 1))(2.0, 3.0))
    1.0
    """
    residuals, tangents = ([jnp.asarray(x) for x in xs] for xs in (residuals, tangents))
    return _bound(function, residuals, tangents, together)


def _bound(
    function: Callable[[list, list], list],
    residuals: list,
    tangents: list,
    together: tuple[int, int],
) -> list:
    xs, count = [*residuals, *tangents], len(residuals)
    jaxpr = trace(lambda *xs: function(list(xs[:count]), list(xs[count:])), *map(shape_of, xs))
    return linear_function_p.bind(*xs, jaxpr=jaxpr, count=count, together=together)


def _implementation(*xs: ArrayLike, jaxpr: Jaxpr, count: int, together: tuple[int, int]) -> list:
    del count
    start, stop = together
    middle = [jnp.asarray(x) for x in xs[start:stop]]

    def run(first: list, vectors: list, last: list) -> list:
        return jaxpr_as_fun(jaxpr)(*first, *unpack(vectors, middle), *last)

    return single_iteration_loop(run, list(xs[:start]), pack(middle), list(xs[stop:]))


def _abstract(*xs: ShapedArray, jaxpr: Jaxpr, **params: int | tuple) -> list:
    del xs, params
    return output_types(jaxpr)


def _jvp(
    primals: Sequence, dots: Sequence, *, jaxpr: Jaxpr, count: int, together: tuple[int, int]
) -> tuple[list, list]:
    bind = partial(linear_function_p.bind, jaxpr=jaxpr, count=count, together=together)
    out = bind(*primals)
    if all(is_zero(d) for d in dots[:count]):
        pairs = zip(dots[count:], primals[count:], strict=True)
        moved = [instantiate(d, x) for d, x in pairs]
        return out, bind(*primals[:count], *moved)
    flags = [not is_zero(d) for d in dots]
    moving = [d for d, f in zip(dots, flags, strict=True) if f]
    return out, push_moving(jaxpr_as_fun(jaxpr), primals, flags, moving)[1]


def _transpose(
    cotangents: Sequence, *xs: Operand, jaxpr: Jaxpr, count: int, together: tuple[int, int]
) -> list:
    """The transpose, another linear function, of the cotangents that are not zero."""
    flags = [not is_zero(c) for c in cotangents]
    residuals, tangents = list(xs[:count]), xs[count:]
    if not any(flags):
        return [None] * len(xs)
    types = [shape_of(t) for t in tangents]

    def pulled(residuals: list, cotangents: list) -> list:
        def live(*tangents: Array) -> list:
            out = jaxpr_as_fun(jaxpr)(*residuals, *tangents)
            return [x for x, f in zip(out, flags, strict=True) if f]

        return list(jax.linear_transpose(live, *types)(cotangents))

    moving = [c for c, f in zip(cotangents, flags, strict=True) if f]
    found = _bound(pulled, residuals, moving, together)
    found = [f if is_unknown(t) else None for f, t in zip(found, tangents, strict=True)]
    return [*[None] * count, *found]


def _batch(
    size: int, xs: Sequence, axes: Sequence, *, jaxpr: Jaxpr, **params: int | tuple
) -> tuple[list, list[int | None]]:
    del params
    return lane_by_lane(jaxpr, size, xs, axes)


linear_function_p = define(
    "linear_function", _implementation, _abstract, jvp=_jvp, transpose=_transpose, batch=_batch
)

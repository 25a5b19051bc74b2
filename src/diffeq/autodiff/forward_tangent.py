"""`push_tangent`: the tangent of a function that is evaluated once, outside of a walk."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .dynamic_scan import walk
from .jax_internals import bound, contains, jaxpr_as_fun, output_types, shape_of

__all__ = ["push_tangent"]


def push_tangent(
    function: Callable, primals: Sequence[Array], dots: Sequence[Array]
) -> list[Array]:
    """The tangents of `function(*primals)`, a list of arrays: `jax.jvp`, with a transpose over
    lanes also where the function has branches.

    A branch that lanes choose each for itself has one in a walk alone (`transposable`), so that
    such a function is a walk of one step.

    >>> double = lambda x: [jax.lax.cond(x > 0, lambda x: 2 * x, lambda x: -x, x)]
    >>> over = jax.vmap(lambda x, d: push_tangent(double, [x], [d])[0])
    >>> jax.grad(lambda d: over(jnp.array([1.0, -1.0]), d).sum())(jnp.ones(2)).tolist()
    [2.0, -1.0]
    """
    count = len(primals)

    def moved(*xs: Array) -> list[Array]:
        return jax.jvp(function, xs[:count], xs[count:])[1]

    jaxpr, closed = bound(moved, *map(shape_of, (*primals, *dots)))
    run = jaxpr_as_fun(jaxpr)
    if not contains(jaxpr, "cond"):
        return [jnp.asarray(x) for x in run(*closed, *primals, *dots)]

    def step(
        active: Array, row: tuple, consts: list, carry: tuple, dots: list, *_: object
    ) -> tuple:
        del active, row
        return carry, run(*consts, *dots)

    blank = [jnp.zeros((1, *x.shape), x.dtype) for x in map(shape_of, output_types(jaxpr))]
    _, rows = walk(
        step,
        0,
        1,
        consts=[*closed, *primals],
        linear_consts=list(dots),
        buffers=blank,
        length=1,
        linear=True,
    )
    return [row[0] for row in rows]

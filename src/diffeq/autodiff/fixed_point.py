"""`fixed_point`: the outcome of a fixed-point iteration, with the derivative of the fixed point."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Int

from ..core.promotion import standard_promotion
from .dynamic_scan import walk
from .jax_internals import Jaxpr, bound, jaxpr_as_fun

__all__ = ["fixed_point"]


def fixed_point(
    turn: Callable, known: Sequence[Array], turns: Int[Array, ""], most: int
) -> tuple[list, Any]:
    """`turn(known)`, where `known` is (nearly) the x of x, other = turn(x).

    With P = ∂turn/∂x and c what everything else does, the tangent is ẋ = c + P ẋ, by `turns` ≤
    `most` turns of that iteration from ẋ = c; none, where the turn does not depend on x. It is
    taken at the value that `fixed_point` returns, which has this derivative again: right to any
    order.

    >>> newton = lambda a: lambda x: ([0.5 * (x[0] + a / x[0])], [])
    >>> root = lambda a: fixed_point(newton(a), [a**0.5], 9, 9)[0][0]
    >>> float(jax.grad(root)(4.0)), float(jax.grad(jax.grad(root))(4.0))
    (0.25, -0.03125)
    """
    jaxpr, closed_over = bound(lambda *x: jax.tree.leaves(turn(list(x))), *known)
    trees = jax.tree.structure(jax.eval_shape(lambda *x: turn(list(x)), *known))
    out = _outcome(jaxpr, most, jnp.asarray(turns, jnp.int32), list(known), closed_over)
    return jax.tree.unflatten(trees, out)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _outcome(jaxpr: Jaxpr, most: int, turns: Int[Array, ""], known: list, consts: list) -> list:
    del most, turns
    return jaxpr_as_fun(jaxpr)(*consts, *known)


@partial(_outcome.defjvp, symbolic_zeros=True)
@standard_promotion()
def _outcome_jvp(
    jaxpr: Jaxpr,
    most: int,
    primals: tuple[Int[Array, ""], list, list],
    tangents: tuple[Array | SymbolicZero, list, list],
) -> tuple[list, list]:
    turns, known, consts = primals
    dots = tangents[2]
    out = _outcome(jaxpr, most, turns, known, consts)
    real = [jnp.issubdtype(x.dtype, jnp.inexact) for x in out]
    live = [not isinstance(d, SymbolicZero) for d in dots]
    at, run = out[: len(known)], jaxpr_as_fun(jaxpr)
    inexact = lambda xs: [x for x, r in zip(xs, real, strict=True) if r]  # noqa: E731

    def by_consts(*moved: Array) -> list:
        found = iter(moved)
        full = [next(found) if m else c for m, c in zip(live, consts, strict=True)]
        return inexact(run(*full, *at))

    pick = lambda xs: tuple(x for x, m in zip(xs, live, strict=True) if m)  # noqa: E731
    direct = jax.jvp(by_consts, pick(consts), pick(dots))[1]

    def again(
        active: Array,
        _: tuple,
        fixed: tuple[list, list],
        dot: list[Array],
        direct: list[Array],
        *__: tuple,
    ) -> tuple[list[Array], tuple]:
        del active
        consts, at = fixed
        through = jax.jvp(lambda *x: inexact(run(*consts, *x)), tuple(at), tuple(dot[: len(at)]))[1]
        return [a + b for a, b in zip(direct, through, strict=True)], ()

    dot, _ = walk(
        again,
        0,
        turns,
        consts=(consts, at),
        carry=direct,
        linear_consts=direct,
        length=most,
        linear=True,
    )
    found = iter(dot)
    return out, [
        next(found) if r else np.zeros(x.shape, jax.dtypes.float0)
        for x, r in zip(out, real, strict=True)
    ]

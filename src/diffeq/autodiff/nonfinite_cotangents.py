"""`throw="compiled"`: raising from inside compiled code, and in the reverse pass with its time.

A callback that raises ends the computation; JAX reports it as a runtime error with our sentence.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Inexact, PyTree, Real

from .batch_last import lanes_last
from .jax_internals import ShapedArray, define, is_unknown, is_zero, zero_tangent
from .operand import Operand

__all__ = ["call_host", "tripwire"]


def call_host(function: Callable, *values: PyTree) -> None:
    """Calls `function` on the host with the values of arrays; once a lane under vmap."""
    jax.debug.callback(function, *values)


def tripwire(y: Inexact[Array, "..."], t: Real[Array, ""]) -> Array:
    """Returns y itself; where a cotangent first becomes non-finite in the reverse pass, an error
    names t.
    """
    return tripwire_p.bind(y, t, armed=False)[0]


def _tripped(cotangent: Array, t: Array) -> None:
    if not np.isfinite(np.asarray(cotangent)).all():
        where = np.asarray(t)
        shown = (
            f"{float(where):.6g}" if where.ndim == 0 else f"{where.min():.6g} … {where.max():.6g}"
        )
        raise FloatingPointError(
            f"the cotangent of y first became infinite or NaN on its way back at t = {shown}: the "
            "solve is finite there, its derivative is not. Look for square roots, divisions or "
            "norms at zero in the field, or a loss of rows that were not reached."
        )


def _implementation(y: Array, t: Array, *, armed: bool) -> list:
    if armed:
        bad = ~jnp.all(jnp.isfinite(y))
        jax.lax.cond(bad, lambda: jax.debug.callback(_tripped, y, t), lambda: None)
    return [y]


def _abstract(y: ShapedArray, t: ShapedArray, *, armed: bool) -> list:
    del t, armed
    return [ShapedArray(y.shape, y.dtype)]


def _jvp(primals: Sequence, tangents: Sequence, *, armed: bool) -> tuple[list, list]:
    out = tripwire_p.bind(*primals, armed=armed)
    if is_zero(tangents[0]):
        return out, [zero_tangent(out[0])]
    return out, tripwire_p.bind(tangents[0], primals[1], armed=armed)


def _transpose(cotangents: Sequence, y: Operand, t: ArrayLike, *, armed: bool) -> list:
    del armed
    ct = cotangents[0]
    return [
        None if is_zero(ct) or not is_unknown(y) else tripwire_p.bind(ct, t, armed=True)[0],
        None,
    ]


def _batch(size: int, xs: Sequence, axes: Sequence, *, armed: bool) -> tuple[list, list]:
    wide = [lanes_last(x, a, size, force=True) for x, a in zip(xs, axes, strict=True)]
    return tripwire_p.bind(*wide, armed=armed), [wide[0].ndim - 1]


tripwire_p = define(
    "tripwire", _implementation, _abstract, jvp=_jvp, transpose=_transpose, batch=_batch
)

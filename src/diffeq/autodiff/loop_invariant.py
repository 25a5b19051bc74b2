"""`split_invariant`: the part of a field that is computed at each call, and constant in a solve.

The slopes of a spline, a factorisation, a product of weights: equations of parameters alone. A
compiler moves some of them out of a loop, and none of those that are loops themselves.
"""

from collections.abc import Sequence

from .jax_internals import Jaxpr, Literal, is_or_contains, remade

__all__ = ["split_invariant"]

_COSTLY = (
    "scan", "while", "cond", "dot_general", "conv_general_dilated", "triangular_solve", "cholesky",
    "lu", "qr", "svd", "eigh", "eig", "fft", "sort", "custom_linear_solve", "tridiagonal_solve",
)  # fmt: skip


def split_invariant(jaxpr: Jaxpr, fixed: Sequence[bool]) -> tuple[Jaxpr, Jaxpr] | None:
    """(before, rest) of a jaxpr whose flagged inputs, like its constants, do not change: `before`
    is a function of the constants and of those inputs, and `rest` one of the constants, of what
    `before` returns, and of all inputs. None if nothing that costs more than reading it back
    depends on them alone.

    >>> import jax, jax.numpy as jnp
    >>> f = jax.make_jaxpr(lambda t, a: t * jnp.sort(a)[0])(0.0, jnp.ones(3))
    >>> before, rest = split_invariant(f, [False, True])
    >>> len(before.in_avals), len(rest.in_avals)
    (1, 3)
    """
    inner = jaxpr.jaxpr
    inputs = [v for v, flag in zip(inner.invars, fixed, strict=True) if flag]
    known, costly = {*inner.constvars, *inputs}, []
    for equation in inner.eqns:
        if equation.effects or not all(
            isinstance(v, Literal) or v in known for v in equation.invars
        ):
            continue
        known.update(equation.outvars)
        if is_or_contains(equation, *_COSTLY):
            costly.append(equation)
    if not costly:
        return None
    rest = [e for e in inner.eqns if not any(e is c for c in costly)]
    used = {v for e in rest for v in e.invars if not isinstance(v, Literal)}
    used |= {v for v in inner.outvars if not isinstance(v, Literal)}
    cut = [v for e in costly for v in e.outvars if v in used]
    before = remade(jaxpr, inner.constvars, inputs, cut, inner.eqns)
    return before, remade(jaxpr, [*inner.constvars, *cut], inner.invars, inner.outvars, rest)

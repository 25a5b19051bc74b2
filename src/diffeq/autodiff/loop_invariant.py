"""`split_invariant`: the part of a field that is computed at each call, and constant in a solve.

The slopes of a spline, a factorisation, a product of weights: equations of parameters alone. A
compiler moves some of them out of a loop, and none of those that are loops themselves.
"""

from collections.abc import Sequence

from .jax_internals import Jaxpr, is_or_contains, split_known

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
    >>> from diffeq.autodiff.jax_internals import input_types
    >>> f = jax.make_jaxpr(lambda t, a: t * jnp.sort(a)[0])(0.0, jnp.ones(3))
    >>> before, rest = split_invariant(f, [False, True])
    >>> len(input_types(before)), len(input_types(rest))
    (1, 3)
    """
    return split_known(jaxpr, fixed, lambda equation: is_or_contains(equation, *_COSTLY))

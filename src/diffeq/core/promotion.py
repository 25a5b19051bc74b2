"""Type promotion: the package's own code has JAX's standard rules, a user's function the user's.

Under `jax_numpy_dtype_promotion="strict"` an addition of an int32 and a bool is an error. That is
a check of what a user writes, and is kept for it. The package's code is written for the standard
rules and checked by types of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike

__all__ = [
    "as_floating",
    "floating_dtype",
    "given_promotion",
    "standard_promotion",
    "user_promotion",
]

_given: ContextVar[str | None] = ContextVar("user_promotion", default=None)


@contextmanager
def standard_promotion() -> Iterator[None]:
    """Within it JAX promotes by its standard rules; costs nothing where it does so already.

    >>> with jax.numpy_dtype_promotion("strict"), standard_promotion():
    ...     (jax.numpy.array(True) + jax.numpy.int32(1)).dtype
    dtype('int32')
    """
    mode = jax.config.jax_numpy_dtype_promotion  # pyright: ignore[reportAttributeAccessIssue]
    if mode == "standard":
        yield
        return
    token = _given.set(mode)
    try:
        with jax.numpy_dtype_promotion("standard"):
            yield
    finally:
        _given.reset(token)


def given_promotion() -> str | None:
    """The rules that a user has chosen, where they are not the standard ones."""
    return _given.get()


@contextmanager
def user_promotion() -> Iterator[None]:
    """Within `standard_promotion`, the rules that were there before: those for a user's function.

    >>> with jax.numpy_dtype_promotion("strict"), standard_promotion(), user_promotion():
    ...     print(jax.config.jax_numpy_dtype_promotion)
    strict
    """
    mode = _given.get()
    if mode is None:
        yield
        return
    token = _given.set(None)
    try:
        with jax.numpy_dtype_promotion(mode):
            yield
    finally:
        _given.reset(token)


def floating_dtype(x: ArrayLike | DTypeLike) -> np.dtype:
    """The dtype in which numbers of x are computed with: its own, of whole numbers JAX's default,
    of half precision float32.

    >>> import jax.numpy as jnp
    >>> floating_dtype(jnp.arange(3)), floating_dtype(jnp.ones(3, jnp.bfloat16))
    (dtype('float32'), dtype('float32'))
    """
    return jnp.promote_types(jnp.result_type(x, float), jnp.float32)


def as_floating(x: ArrayLike | Sequence) -> Array:
    """An array of the numbers of x; of whole numbers one of JAX's default floating-point dtype.

    >>> as_floating([1, 2]).dtype, as_floating(jnp.ones(2, jnp.bfloat16)).dtype
    (dtype('float32'), dtype(bfloat16))
    """
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)

"""The operands that JAX gives to the rules and to the implementation of a primitive."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, ArrayLike, Int

from .jax_internals import ShapedArray

__all__ = ["Index", "Operand", "Unknown"]

type Index = Int[Array | np.ndarray, "..."]
"""One index or several: an array, or without jit a constant, which is one of NumPy's."""


@runtime_checkable
class Unknown(Protocol):
    """An operand in which a function is linear: its type is known, and its value is not
    (`is_unknown`).
    """

    aval: ShapedArray


type Operand = ArrayLike | Unknown
"""An operand of a transposition."""

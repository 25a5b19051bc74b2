"""The operands that JAX gives to the rule of a transposition."""

from typing import Protocol, runtime_checkable

from jaxtyping import ArrayLike

from .jax_internals import ShapedArray

__all__ = ["Operand", "Unknown"]


@runtime_checkable
class Unknown(Protocol):
    """An operand in which a function is linear: its type is known, and its value is not
    (`is_unknown`).
    """

    aval: ShapedArray


type Operand = ArrayLike | Unknown

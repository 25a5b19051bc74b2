"""Pallas and its Triton, which JAX may leave out: without them there is no kernel of any solve."""

from typing import TYPE_CHECKING

from .scalar_values import NoKernel

__all__ = ["Absent", "pallas", "triton", "triton_is_missing"]


class Absent:
    """A module that this JAX does not have: any attribute of it raises `NoKernel`."""

    def __getattr__(self, name: str) -> None:
        raise NoKernel("this JAX does not lower Pallas to Triton")


if TYPE_CHECKING:
    from jax.experimental import pallas
    from jax.experimental.pallas import triton
else:
    try:
        from jax.experimental import pallas
        from jax.experimental.pallas import triton
    except ImportError:
        pallas = triton = Absent()


def triton_is_missing() -> bool:
    """True if this JAX cannot make a kernel."""
    return isinstance(triton, Absent)

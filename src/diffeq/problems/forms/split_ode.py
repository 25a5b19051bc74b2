"""Equations of two parts, of which a method may step one explicitly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array

from ...algebra import JacobianStructure
from .base import SolvedForField

__all__ = ["Split"]


@dataclass(frozen=True)
class Split(SolvedForField):
    """y' = implicit(t, y) + explicit(t, y); `jac` is that of the implicit part."""

    mass: ClassVar[None] = None
    solved_name: ClassVar[str] = "implicit"

    implicit: Callable[..., Array]
    explicit: Callable[..., Array]
    jac: Callable[..., Array] | JacobianStructure | None = None

    @property
    def solved_field(self) -> Callable[..., Array]:
        """The field that implicit methods solve for: the implicit part."""
        return self.implicit

    def field(self, t: Array, y: Array) -> Array:
        """The sum of both parts."""
        return self.implicit(t, y) + self.explicit(t, y)

    def slope(self, t: Array, y: Array) -> Array:
        """The sum of both parts."""
        return self.field(t, y)

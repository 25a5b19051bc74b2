"""Norms of the scaled errors of a step, as torchdiffeq takes them."""

import math
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float, Inexact

from .functions import TorchProgram, torch_function

__all__ = ["LargestPart", "TorchNorm", "norm_by_torch"]


@dataclass(frozen=True)
class LargestPart:
    """The largest of the root mean squares of the parts of a tuple, torchdiffeq's own norm.

    >>> float(LargestPart((2, 1))(jnp.array([1.0, 1.0, 3.0])))
    3.0
    """

    sizes: tuple[int, ...]

    def __call__(self, errors: Inexact[Array, " n"]) -> Float[Array, ""]:
        parts = [x for x in _parts_of_errors(errors, self.sizes) if x.size]
        return jnp.max(jnp.stack([jnp.sqrt(jnp.mean(jnp.abs(x) ** 2)) for x in parts]))


@dataclass(frozen=True, eq=False)
class TorchNorm:
    """A norm in torch of errors of these shapes, and the numbers that it sees from outside."""

    program: TorchProgram
    constants: list[np.ndarray]
    shapes: list[torch.Size]

    def __call__(self, errors: Inexact[Array, " n"]) -> Float[Array, ""]:
        parts = _parts_of_errors(errors, [math.prod(shape) for shape in self.shapes])
        shaped = [x.reshape(shape) for x, shape in zip(parts, self.shapes, strict=True)]
        found = self.program([jnp.asarray(x) for x in self.constants], *shaped)
        return found.reshape(()).astype(jnp.finfo(errors.dtype).dtype)


# One object for equal norms, as long as a program has it: what a controller holds is told apart by
# what it reads, and a graph of torch reads as another one each time.
_norms: "weakref.WeakValueDictionary[Hashable, TorchNorm]" = weakref.WeakValueDictionary()


def norm_by_torch(norm: object, y0: Sequence[torch.Tensor], *, is_tuple: bool) -> TorchNorm:
    """`norm`, a function in torch of errors like y0, a tensor or a tuple.

    Raises:
        TypeError: it is no function, or does what `torch_function` refuses.
        ValueError: it returns no single real number.
    """
    name = "options['norm']"
    if not callable(norm):
        raise TypeError(f"{name} is {norm!r}; a function of the scaled errors is wanted, or None.")
    call = _called_with_parts if is_tuple else _called_with_error
    found = torch_function(norm, [x.detach() for x in y0], name, call)
    _check_number(name, found.program.returned)
    constants = [x.detach().cpu().numpy() for x in found.tensors]
    key = (found.program.key, *(x.tobytes() for x in constants))
    return _norms.setdefault(key, TorchNorm(found.program, constants, [x.shape for x in y0]))


def _called_with_error(norm: Callable, error: torch.Tensor) -> torch.Tensor:
    return norm(error)


def _called_with_parts(norm: Callable, *errors: torch.Tensor) -> torch.Tensor:
    return norm(errors)


def _check_number(name: str, found: object) -> None:
    if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.is_floating_point():
        kind = (
            f"{found.dtype} numbers of shape {tuple(found.shape)}"
            if isinstance(found, torch.Tensor)
            else f"{found!r}"
        )
        raise ValueError(
            f"{name} returned {kind}; one real number is wanted, such as errors.abs().max()."
        )


def _parts_of_errors(errors: Inexact[Array, " n"], sizes: Sequence[int]) -> list[Array]:
    return jnp.split(errors, np.cumsum(sizes)[:-1].tolist())

"""Tensors of torch as arrays of JAX, and back, in the same memory."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array

__all__ = ["Operand", "check_numeric", "double_where", "to_jax", "to_torch"]

# An array that a compiled function takes as it is.
Operand = Array | np.ndarray

_DOUBLE = (torch.float64, torch.complex128)
_SINGLE = (torch.float32, torch.complex64)


def to_jax(x: torch.Tensor) -> Operand:
    """The numbers of a tensor as an operand of a compiled function, in the tensor's own memory.

    A NumPy view enters a compiled call of the CPU without a copy, in a tenth of the time that
    DLPack takes; from a GPU the way is DLPack.
    """
    x = x.detach()
    if x.is_cpu and x.dtype is torch.bfloat16:  # which NumPy has from JAX alone
        return x.view(torch.int16).numpy().view(jnp.bfloat16)
    if x.is_cpu:
        return x.resolve_conj().resolve_neg().numpy()
    return jax.dlpack.from_dlpack(x)


def to_torch(arrays: Sequence[Array], others: Iterable[torch.Tensor] = ()) -> list[torch.Tensor]:
    """Arrays as tensors that may be written to: each in memory of its own.

    XLA gives two equal results, or a result that is an operand, in one place: such are copied.
    """
    taken = {x.data_ptr() for x in others}
    found = []
    for array in arrays:
        x = torch.from_dlpack(array)
        if x.data_ptr() in taken:
            x = x.clone()
        taken.add(x.data_ptr())
        found.append(x)
    return found


@contextmanager
def double_where(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """JAX computes in double precision inside where one of the tensors is of it.

    Torch has a dtype for each tensor and JAX one switch, `jax_enable_x64`: it is on in here alone.
    """
    double = any(x.dtype in _DOUBLE for x in tensors)
    with jax.enable_x64(True) if double else nullcontext():
        yield


def check_numeric(name: str, x: torch.Tensor) -> None:
    """Refuses a tensor that is not of single or double precision, or whose numbers JAX cannot
    reach.
    """
    if x.dtype not in (*_SINGLE, *_DOUBLE):
        kind = str(x.dtype).removeprefix("torch.")
        raise TypeError(
            f"`{name}` must be a floating point Tensor but is a {x.type()} ({kind}): float32 or "
            f"float64 are wanted, {name}.float() or {name}.double()."
        )
    check_device(name, x)
    try:
        x.data_ptr()
    except RuntimeError as error:
        raise TypeError(
            f"{name} has no numbers of its own, as in a transform of torch.func (vmap, grad, "
            "jacrev), which sees functions of torch alone: give a batch as an axis of y0; take "
            "derivatives by backward() or torch.autograd, or write the field in JAX."
        ) from error


def check_device(name: str, x: torch.Tensor) -> None:
    """Refuses a tensor on a device that JAX does not have."""
    if x.device.type == "cpu":
        return
    if x.device.type != "cuda" or jax.default_backend() != "gpu":
        raise ValueError(
            f"{name} is on {x.device}, and JAX computes on {jax.default_backend()} here: install "
            f"JAX for the GPU (pip install 'jax[cuda13]'), or move what is solved to the CPU, "
            f"{name}.cpu()."
        )

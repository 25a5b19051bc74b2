"""`Operation`: a function in JAX as an operation of torch, with derivatives of every order."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import jax
import torch
from jaxtyping import PyTree

from .arrays import double_where, to_jax, to_torch
from .few_arrays import FewArrays

__all__ = ["Operation", "operation"]


class Operation:
    """An operation of torch that JAX computes.

    `function(extras, arrays)` returns a list of arrays and what else is to be known of them; it is
    compiled once for each shape. `extras` are numbers of JAX that are not differentiated. Its
    reverse derivative is that of JAX, and itself an `Operation` where torch asks for a second one
    (`create_graph=True`).
    """

    def __init__(self, function: Callable[[PyTree, list], tuple[list, PyTree]]) -> None:
        self.function = function
        self.value = jax.jit(function)
        self.with_pullback = jax.jit(self._with_pullback, static_argnums=0)
        self.gradients: dict[tuple[bool, ...], Operation] = {}

    def __call__(
        self, extras: PyTree, tensors: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], PyTree]:
        """The results as tensors, and what else is known of them."""
        recorded = torch.is_grad_enabled()
        wanted = tuple(recorded and x.requires_grad for x in tensors)
        known: list[PyTree] = []
        found = _Apply.apply(self, extras, wanted, known, *tensors)
        return list(found), known[0]

    def _with_pullback(
        self, wanted: tuple[bool, ...], extras: PyTree, arrays: list
    ) -> tuple[list, FewArrays, PyTree]:
        """Results, and their reverse derivative by the operands that are wanted."""
        function = partial(_of_wanted, self.function, wanted, extras, arrays)
        moving = [x for x, w in zip(arrays, wanted, strict=True) if w]
        results, pull, aux = jax.vjp(function, moving, has_aux=True)
        return results, FewArrays.of(pull), aux

    def gradient(self, wanted: tuple[bool, ...]) -> "Operation":
        """The operation (operands, cotangents) → gradients by the operands that are wanted."""
        if wanted not in self.gradients:
            count = len(wanted)

            def pulled_back(extras: PyTree, arrays: list) -> tuple[list, None]:
                _, pull, _ = self._with_pullback(wanted, extras, arrays[:count])
                return pull.tree()(arrays[count:])[0], None

            self.gradients[wanted] = Operation(pulled_back)
        return self.gradients[wanted]


def _of_wanted(
    function: Callable, wanted: tuple[bool, ...], extras: PyTree, arrays: list, moving: list
) -> tuple[list, PyTree]:
    rest = iter(moving)
    return function(extras, [next(rest) if w else x for x, w in zip(arrays, wanted, strict=True)])


@jax.jit
def _pulled(pull: FewArrays, cotangents: list) -> list:
    return pull.tree()(cotangents)[0]


class _Apply(torch.autograd.Function):
    """One evaluation of an operation. The gradient of torch is the conjugate of JAX's."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        operation: Operation,
        extras: PyTree,
        wanted: tuple[bool, ...],
        known: list[PyTree],
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.operation, ctx.extras, ctx.wanted = operation, extras, wanted
        ctx.save_for_backward(*tensors)
        with double_where(tensors):
            arrays = [to_jax(x) for x in tensors]
            if any(wanted):
                results, ctx.pull, aux = operation.with_pullback(wanted, extras, arrays)
            else:
                results, aux = operation.value(extras, arrays)
            known.append(aux)
            return tuple(to_torch(results, tensors))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        tensors = ctx.saved_tensors  # raises where one was written to since
        cotangents = tuple(_conjugate(g) for g in cotangents)
        if torch.is_grad_enabled():
            gradient = ctx.operation.gradient(ctx.wanted)
            gradients, _ = gradient(ctx.extras, [*tensors, *cotangents])
        else:
            with double_where([*tensors, *cotangents]):
                arrays = _pulled(ctx.pull, [to_jax(g) for g in cotangents])
                gradients = to_torch(arrays, cotangents)
        rest = iter(gradients)
        each = (_conjugate(next(rest)) if w else None for w in ctx.wanted)
        return None, None, None, None, *each


def _conjugate(x: torch.Tensor) -> torch.Tensor:
    return x.conj().resolve_conj() if x.is_complex() else x


_KEPT_OPERATIONS = 256
_operations: OrderedDict[Hashable, Operation] = OrderedDict()


def operation(key: Hashable, function: Callable[[PyTree, list], tuple[list, PyTree]]) -> Operation:
    """The operation of a function, of which equal keys promise the same program."""
    found = _operations.get(key)
    if found is None:  # an operation costs two functions to compile, whether or not one is called
        found = _operations[key] = Operation(function)
    _operations.move_to_end(key)
    if len(_operations) > _KEPT_OPERATIONS:
        _operations.popitem(last=False)
    return found

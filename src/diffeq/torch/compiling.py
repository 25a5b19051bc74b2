"""`torch.compile` beside this package: a solve is compiled by JAX, and not by torch."""

import functools
from collections.abc import Callable

import torch

__all__ = ["graph_break"]


def graph_break[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function, which `torch.compile` calls as it is from functions that it compiles.

    >>> import torch, diffeq.torch
    >>> def end(y):
    ...     return diffeq.torch.odeint(lambda t, y: -y, 2 * y, torch.tensor([0.0, 1.0]))[-1] / 2
    >>> torch.compile(end, backend="eager")(torch.ones(2))
    tensor([0.3679, 0.3679])
    """

    @functools.wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        if torch.compiler.is_dynamo_compiling():
            return torch.compiler.disable(function)(*args, **options)  # pyright: ignore[reportCallIssue]
        return function(*args, **options)

    return called

"""Modules of torch that solve an equation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..core.keywords import keywords
from ..problems import ODEProblem, Problem
from .compiling import graph_break
from .solve import Solution, solve

__all__ = ["Layer", "NeuralODE"]


class Layer(nn.Module):
    """A problem with a network in it, as a module of torch.

    Its parameters are those of the network: optimisers, `state_dict`, `train` and `eval` are as
    everywhere in torch.

    Args:
        net: a module.
        problem: `problem(net, y0, args)`, a problem of this package whose functions call the
            network.
        options: of `diffeq.torch.solve`: method, saveat, rtol, events, …

    A call is `layer(y0, args=None, **options)` and returns a `diffeq.torch.Solution`. y0 with a
    batch axis is one state, whose steps are shared.

    Raises:
        TypeError: net is no module, or problem no function that returns a problem.

    Example:
        A network in a delay equation:

        >>> import torch, diffeq as de, diffeq.torch
        >>> def problem(net, y0, args):
        ...     field = lambda t, y, past, args: -y + net(past(t - 1.0))
        ...     return de.DDEProblem(field, y0, (0.0, 3.0), history=y0, lags=(1.0,))
        >>> layer = de.torch.Layer(torch.nn.Linear(2, 2), problem, method=de.Tsit5())
        >>> layer(torch.ones(2)).y1.sum().backward()
        >>> layer.net.weight.grad.shape
        torch.Size([2, 2])
    """

    @keywords
    def __init__(self, net: Any, problem: Any, **options: Any) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net is {net!r}; a torch.nn.Module is wanted.")
        if not callable(problem):
            raise TypeError(f"problem is {problem!r}; a function problem(net, y0, args) is wanted.")
        self.net, self.problem, self.options = net, problem, options

    @graph_break
    def forward(self, y0: Any, args: Any = None, **options: Any) -> Solution:
        """Solves for one initial state, with other options if they are given."""
        problem = self.problem(self.net, y0, args)
        if not isinstance(problem, Problem):
            raise TypeError(
                f"problem(net, y0, args) returned {problem!r}; a problem is wanted, such as "
                "de.ODEProblem(…)."
            )
        return solve(problem, **{**self.options, **options})


class NeuralODE(Layer):
    """y' = net(y), or y' = field(net, t, y, args): the neural ODE, as a module of torch.

    Args:
        net: a module.
        tspan: (t0, t1).
        field: `field(net, t, y, args)`; None: net(y).
        options: of `diffeq.torch.solve`: method, saveat, rtol, …

    Raises:
        TypeError: as `Layer`.

    Reference: chen2018.

    Example:
        >>> import torch, diffeq as de, diffeq.torch
        >>> nn = torch.nn
        >>> net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
        >>> node = de.torch.NeuralODE(net, (0.0, 1.0), saveat=torch.linspace(0.0, 1.0, 5))
        >>> node(torch.ones(8, 2)).ys.shape
        torch.Size([5, 8, 2])
    """

    @keywords
    def __init__(self, net: Any, tspan: Any, field: Any = None, **options: Any) -> None:
        super().__init__(net, _ODEOf(tspan, field), **options)


class _ODEOf:
    """Makes the problem of a neural ODE."""

    def __init__(self, tspan: Any, field: Callable | None) -> None:
        self.tspan, self.field = tspan, field

    def __call__(self, net: nn.Module, y0: torch.Tensor, args: Any) -> ODEProblem:
        return ODEProblem(_FieldOf(net, self.field), y0, self.tspan, args)


class _FieldOf:
    """The field of a neural ODE."""

    def __init__(self, net: nn.Module, field: Callable | None) -> None:
        self.net, self.field = net, field

    def __call__(self, t: torch.Tensor, y: Any, args: Any) -> Any:
        return self.net(y) if self.field is None else self.field(self.net, t, y, args)

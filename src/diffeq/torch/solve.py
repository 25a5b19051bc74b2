"""`solve` for problems whose functions and data are torch's."""

import copy
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import torch
from jaxtyping import Array, PyTree
from torch.utils._pytree import tree_map_only

from ..core.keywords import keywords
from ..core.status import Status
from ..events import AbstractEvent
from ..methods import Method
from ..problems import Jump, Problem, Separable
from ..solution import Solution as JaxSolution
from ..solve import solve as solve_in_jax
from ..validation.step_checks import known_span
from ..validation.tolerances import tolerance_of
from .arrays import check_numeric, double_where, to_jax
from .autograd import Operation, operation
from .compiling import graph_break
from .functions import TorchReader, torch_function
from .graph import past_by_torch
from .results import drawn_seed

__all__ = ["Solution", "solve"]


class Solution(NamedTuple):
    """The solution of a problem in tensors.

    ts, ys, saved: times, rows with the structure of y0 (or of what `save` returned), and which of
    them were reached. t1, y1: where the solve ended, and the state there. events: for each event
    its `ts`, the states `before` and `after`, and `num`, how many there are. stats: numbers of
    steps, of rejected steps, of evaluations. status: a `de.Status`. weight: of jumps with
    `estimator="score"`.

    Example:
        >>> import torch, diffeq as de, diffeq.torch
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, torch.ones(2), (0.0, 1.0), 2.0)
        >>> sol = de.torch.solve(problem)
        >>> sol.status.name, sol.y1.shape
        ('success', torch.Size([2]))
    """

    ts: Any
    ys: Any
    saved: Any
    t1: Any
    y1: Any
    events: tuple
    stats: dict[str, int]
    status: Any
    weight: Any


@graph_break
@keywords
def solve(problem: Any, method: Method | None = None, **options: Any) -> Solution:
    """Solves a problem of this package whose functions are written in torch and whose data are
    tensors, as `diffeq.solve` does.

    Stiff equations, DAEs, delays, jumps, noise, events and all methods are served. The functions
    (fields, conditions, affects, history, save, …) get tensors where those of `diffeq.solve` get
    arrays. Gradients go to the tensors in y0, args, tspan, saveat and tolerances, and to all that
    the functions see, parameters of modules included.

    Args:
        problem: such as `de.ODEProblem(f, y0, tspan, args)`.
        method: such as `de.Rodas5P()`; None: `diffeq.solve` chooses.
        options: as of `diffeq.solve`, but for dense and progress. key is a whole number; None: one
            that torch's generator draws.

    Returns:
        A `diffeq.torch.Solution`.

    Raises:
        TypeError, ValueError: an argument does not fit, or a function does what cannot be compiled.
        SolveError: the solve failed (with throw=True, the default).

    Example:
        Robertson's reactions, which are stiff, with a gradient by a rate:

        >>> import torch, diffeq as de, diffeq.torch
        >>> def robertson(t, y, k):
        ...     a, b, c = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        ...     return torch.stack([c - a, a - b - c, b])
        >>> k = torch.tensor([0.04, 3e7, 1e4], requires_grad=True)
        >>> start = torch.tensor([1.0, 0.0, 0.0])
        >>> problem = de.ODEProblem(robertson, start, (0.0, 40.0), k)
        >>> y1 = de.torch.solve(problem, de.Rodas5P(), rtol=1e-5, atol=1e-8).y1
        >>> [round(y, 3) for y in y1.tolist()]
        [0.716, 0.0, 0.284]
        >>> y1[0].backward()
        >>> bool(k.grad[0] < 0)
        True
    """
    for name in ("dense", "progress"):
        if options.get(name):
            raise ValueError(
                f"{name} is {options[name]!r}; diffeq.torch.solve gives rows, at saveat=."
            )
    if not isinstance(problem, Problem):
        raise TypeError(f"problem is {problem!r}; a problem is wanted, such as de.ODEProblem(…).")
    _check_numbers(problem, options)
    if problem.stochastic:
        options["key"] = drawn_seed(options.get("key"))
    throw = options.pop("throw", True)
    return _ProblemCall(problem, {"method": method, **options}).solved(throw)


def _check_numbers(problem: Problem, options: dict[str, Any]) -> None:
    """Refuses tolerances and times of tensors that `diffeq.solve`, which would see arrays without
    numbers, could not refuse.
    """
    known = partial(tree_map_only, torch.Tensor, to_jax)
    for name in ("rtol", "atol"):
        tolerance_of(name, known(options.get(name)), 0.0)
    if not callable(problem.tspan):
        ends = copy.copy(problem)
        ends.__dict__.update(tspan=known(problem.tspan))
        known_span(ends)


class _ProblemCall:
    """A problem and options, in their numbers (tensors and others), functions, and the rest."""

    def __init__(self, problem: Problem, options: dict[str, Any]) -> None:
        self.problem, self.options = problem, options
        self.reader = TorchReader()
        self.tensors: dict[int, torch.Tensor] = {}
        self.key = self._key((problem, options))
        for x in self.reader.tensors:
            self.tensors.setdefault(id(x), x)

    def _key(self, x: Any) -> Hashable:
        """All that a trace would read of it; tensors are collected."""
        if isinstance(x, torch.Tensor):
            if x.is_floating_point() or x.is_complex():
                check_numeric("a tensor of the problem", x)
            self.tensors.setdefault(id(x), x)
            return "tensor", list(self.tensors).index(id(x)), x.dtype, x.shape
        if isinstance(x, dict):
            return tuple((k, self._key(v)) for k, v in x.items())
        if isinstance(x, (list, tuple)):
            return type(x), tuple(map(self._key, x))
        if isinstance(x, (Problem, AbstractEvent, Jump, Separable)):
            return type(x), self._key(vars(x))
        return self.reader.read(x)

    def solved(self, throw: Any) -> Solution:
        """The answer in tensors."""
        operands = list(self.tensors.values())
        function = partial(_program, self.problem, self.options, list(self.tensors))
        if self.reader.certain:
            compiled = operation(("problem", self.key), function)
        else:
            compiled = Operation(function)
        with double_where(operands):
            tensors, sol = compiled((), operands)
            if throw:
                sol.check()
            return _in_tensors(sol, tensors, by_steps=self.options.get("saveat") == "steps")


def _program(
    problem: Problem, options: dict[str, Any], places: list[int], extras: PyTree, arrays: list
) -> tuple[list, JaxSolution]:
    """Solves in JAX: the numbers of the solution that differentiate, and all of it."""
    del extras
    inside = _InJax(dict(zip(places, arrays, strict=True)))
    given = {name: inside.converted(x, name) for name, x in options.items()}
    if "key" in given:
        given["key"] = jax.random.key(given["key"])
    sol = solve_in_jax(inside.converted(problem, "problem"), throw=False, **given)
    return jax.tree.leaves(eqx.filter(sol, eqx.is_inexact_array)), sol


class _InJax:
    """Puts arrays in the place of tensors, and functions of these for those in torch."""

    def __init__(self, arrays: dict[int, Array]) -> None:
        self.arrays = arrays

    def converted(self, x: Any, name: str) -> Any:
        """Returns it in JAX."""
        if isinstance(x, torch.Tensor):
            return self.arrays[id(x)]
        if isinstance(x, dict):
            return {k: self.converted(v, str(k)) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            parts = [self.converted(v, name) for v in x]
            return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
        if isinstance(x, (Problem, AbstractEvent, Jump, Separable)):
            other = copy.copy(x)
            other.__dict__.update({k: self.converted(v, k) for k, v in vars(x).items()})
            return other
        return partial(self.call, x, name) if _is_of_users(x) and name != "mark" else x

    def call(self, f: Callable, name: str, *args: PyTree) -> PyTree:
        """Calls a function in torch with arrays."""
        leaves, tree = jax.tree.flatten(args)
        known = [not isinstance(x, (jax.Array, np.ndarray)) for x in leaves]
        past = next((x for x in leaves if callable(x)), None)
        rest = [x if k else None for x, k in zip(leaves, known, strict=True)]
        arrays = [x for x, k in zip(leaves, known, strict=True) if not k]
        found = torch_function(f, list(map(_tensor_like, arrays)), name, _CallInTorch(tree, rest))
        seen = [self.arrays[id(x)] for x in found.tensors]
        return found.program(seen, *arrays, past=past)


def _is_of_users(f: Any) -> bool:
    """True of a function that is not one of this package's in JAX, as that of `de.doses` is."""
    home = type(f).__module__
    return callable(f) and (home.startswith("diffeq.torch") or not home.startswith("diffeq."))


class _CallInTorch:
    """A call of a function with a tree of arguments, of which the tensors are given in order."""

    def __init__(self, tree: Any, rest: list) -> None:
        self.tree, self.rest = tree, rest

    def __call__(self, f: Callable, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if x is None else x for x in self.rest]
        args = list(jax.tree.unflatten(self.tree, leaves))
        for i, x in enumerate(args):
            if callable(x):  # past, after the state
                args[i] = past_by_torch(args[i - 1])
        return f(*args)


def _tensor_like(x: Array) -> torch.Tensor:
    dtype = torch.from_numpy(np.empty((), x.dtype)).dtype
    return torch.empty(x.shape, dtype=dtype)


def _in_tensors(sol: JaxSolution, tensors: list[torch.Tensor], *, by_steps: bool) -> Solution:
    """The solution with these tensors in the place of the numbers that differentiate."""
    rest = iter(tensors)
    leaves, tree = jax.tree.flatten(sol)
    found = [next(rest) if eqx.is_inexact_array(x) else _as_tensor(x) for x in leaves]
    new: Any = jax.tree.unflatten(tree, found)
    ts, ys, saved = new.ts, new.ys, new.saved
    if by_steps:
        ts, ys, saved = (jax.tree.map(lambda x: x[: int(new.num)], x) for x in (ts, ys, saved))
    records = tuple(
        record._replace(
            ts=record.ts[: int(record.num)],
            before=jax.tree.map(lambda x, n=int(record.num): x[:n], record.before),
            after=jax.tree.map(lambda x, n=int(record.num): x[:n], record.after),
            fired=record.fired[: int(record.num)],
            num=int(record.num),
        )
        for record in new.events
    )
    stats = {name: x.item() for name, x in new.stats.items()}
    status = Status(int(sol.status))
    return Solution(ts, ys, saved, new.last.t, new.y1, records, stats, status, new.weight)


def _as_tensor(x: Any) -> torch.Tensor:
    return torch.from_dlpack(x).clone()

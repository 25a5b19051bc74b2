"""`Segments`: a traced function whose calls of one costly function are made on the host.

A line search calls the loss and its gradient from a loop, from both branches of a condition. XLA
compiles a copy for each place, which for the gradient of a solve takes minutes. Here the places are
marks (`outside`) in the traced function: what lies between them is compiled, its loops and branches
around them run in Python, and at a mark a function of the host is called, whose one program serves
all of them.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ..core.split import split_by_sizes
from .jax_internals import (
    Equation,
    Jaxpr,
    ShapedArray,
    branches_of,
    define,
    equations,
    grouped,
    inlinable,
    interpret,
    is_or_contains,
    jaxpr_as_fun,
    name_of,
    while_of,
)

__all__ = ["Segments", "outside"]


def outside(*xs: Array, like: Sequence) -> list:
    """A mark: at this place a function of the host is called with these arrays, and returns arrays
    of the shapes and dtypes of `like`.
    """
    avals = tuple((tuple(x.shape), jnp.dtype(x.dtype)) for x in like)
    return outside_p.bind(*xs, avals=avals)


def _nowhere(*xs: Array, avals: tuple) -> list:
    raise NotImplementedError("a mark is called by `Segments` alone.")


outside_p = define(
    "outside", _nowhere, lambda *_, avals: [ShapedArray(shape, dtype) for shape, dtype in avals]
)


class Segments:
    """A closed jaxpr with marks in it, as a function `(call, *inputs) -> outputs`.

    Raises:
        NotImplementedError: a mark inside anything but a loop (`while`), a condition or a jit.

    >>> def grown(x):
    ...     halve = lambda x: outside(x, like=[x])[0] + 1.0
    ...     return 2.0 * jax.lax.while_loop(lambda x: x > 3.0, halve, x)
    >>> x = jnp.asarray(20.0)
    >>> segments = Segments(jax.make_jaxpr(grown)(x))
    >>> float(segments(lambda x: [x / 2], x)[0])
    5.125
    """

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.program = grouped(jaxpr, _has_marks)
        self.steps = list(map(_step, equations(self.program)))

    def __call__(self, call: Callable, *inputs: ArrayLike) -> list:
        """The outputs; `call(*arrays)` is made at each mark."""
        steps = iter(self.steps)
        step = lambda _, given: next(steps)(call, given)  # noqa: E731
        return interpret(self.program, inputs, step, lambda x, aval: x)


def _has_marks(equation: Equation) -> bool:
    return is_or_contains(equation, outside_p.name)


def _step(equation: Equation) -> Callable[[Callable, list], list]:
    """An equation on the host: what is compiled of it is compiled once."""
    name, inner = name_of(equation), inlinable(equation)
    if name == outside_p.name:
        return lambda call, given: call(*given)
    if name == "cond":
        branches = list(map(Segments, branches_of(equation)))
        return lambda call, given: branches[int(given[0])](call, *given[1:])
    if name == "while":
        return _loop_on_host(equation)
    if inner is None:
        raise NotImplementedError(f"a mark inside {name}")
    if not _has_marks(equation):
        compiled = jax.jit(jaxpr_as_fun(inner))
        return lambda call, given: compiled(*given)
    segments = Segments(inner)
    return lambda call, given: segments(call, *given)


def _loop_on_host(equation: Equation) -> Callable[[Callable, list], list]:
    loop = while_of(equation)
    test, body, sizes = Segments(loop.test), Segments(loop.body), (loop.of_test, loop.of_body)

    def run(call: Callable, given: list) -> list:
        of_test, of_body, carry = split_by_sizes(given, (*sizes, len(given) - sum(sizes)))
        while bool(test(call, *of_test, *carry)[0]):
            carry = body(call, *of_body, *carry)
        return carry

    return run

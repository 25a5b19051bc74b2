"""`Segments`: a traced function whose calls of one costly function are made on the host.

A line search calls the loss and its gradient from a loop, from both branches of a condition. XLA
compiles a copy for each place, which for the gradient of a solve takes minutes. Here the places are
marks (`outside`) in the traced function: what lies between them is compiled, its loops and branches
around them run in Python, and at a mark a function of the host is called, whose one program serves
all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from .jax_internals import Jaxpr, Literal, ShapedArray, define, inner_jaxpr, is_or_contains, rebind

__all__ = ["Segments", "outside"]


def outside(*xs: Any, like: Sequence) -> list:
    """A mark: at this place a function of the host is called with these arrays, and returns arrays
    of the shapes and dtypes of `like`.
    """
    avals = tuple((tuple(x.shape), jnp.dtype(x.dtype)) for x in like)
    return outside_p.bind(*xs, avals=avals)


def _nowhere(*xs: Any, avals: tuple) -> list:
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
        self.jaxpr = jaxpr
        self.parts: list[_Compiled | _Marked] = []
        run: list = []
        for equation in jaxpr.jaxpr.eqns:
            if is_or_contains(equation, outside_p.name):
                self._close(run)
                self.parts.append(_Marked(equation))
                run = []
            else:
                run.append(equation)
        self._close(run)
        self._name_outputs()

    def _close(self, equations: list) -> None:
        if equations:
            self.parts.append(_Compiled(equations))

    def _name_outputs(self) -> None:
        """Sets the outputs of each compiled part: the variables that are read after it."""
        read = set(_variables(self.jaxpr.jaxpr.outvars))
        for part in reversed(self.parts):
            part.outputs = [v for v in part.made if v in read]
            read.update(part.inputs)

    def __call__(self, call: Callable, *inputs: Any) -> list:
        """The outputs; `call(*arrays)` is made at each mark."""
        inner = self.jaxpr.jaxpr
        values = dict(zip(inner.constvars, self.jaxpr.consts, strict=True))
        values.update(zip(inner.invars, inputs, strict=True))
        for part in self.parts:
            values.update(part.run(call, values))
        return [_value(v, values) for v in inner.outvars]


class _Compiled:
    """Equations without marks."""

    def __init__(self, equations: list) -> None:
        self.equations = equations
        self.made = [v for equation in equations for v in equation.outvars]
        known = set(self.made)
        read = [v for equation in equations for v in _variables(equation.invars)]
        self.inputs = [v for v in dict.fromkeys(read) if v not in known]
        self.outputs: list = []

    def run(self, call: Callable, values: dict) -> Iterable:
        del call
        given = [values[v] for v in self.inputs]
        return zip(self.outputs, self._program(*given), strict=True)

    @cached_property
    def _program(self) -> Callable:
        def program(*given: Any) -> list:
            values = dict(zip(self.inputs, given, strict=True))
            for equation in self.equations:
                out = rebind(equation, [_value(v, values) for v in equation.invars])
                values.update(zip(equation.outvars, out, strict=True))
            return [values[v] for v in self.outputs]

        return jax.jit(program)


class _Marked:
    """An equation that is a mark, or holds marks."""

    def __init__(self, equation: Any) -> None:
        self.equation = equation
        self.made, self.inputs = list(equation.outvars), _variables(equation.invars)
        self.outputs: list = []
        self._run = self._runner()

    def run(self, call: Callable, values: dict) -> Iterable:
        given = [_value(v, values) for v in self.equation.invars]
        return zip(self.made, self._run(call, given), strict=True)

    def _runner(self) -> Callable[[Callable, list], list]:
        name, params = self.equation.primitive.name, self.equation.params
        if name == outside_p.name:
            return lambda call, given: call(*given)
        if name == "cond":
            branches = [Segments(branch) for branch in params["branches"]]
            return lambda call, given: branches[int(given[0])](call, *given[1:])
        if name == "while":
            return _loop_on_host(params)
        inner = inner_jaxpr(self.equation)
        if inner is None:
            raise NotImplementedError(f"a mark inside {name}")
        segments = Segments(inner)
        return lambda call, given: segments(call, *given)


def _loop_on_host(params: dict) -> Callable[[Callable, list], list]:
    test, body = Segments(params["cond_jaxpr"]), Segments(params["body_jaxpr"])
    ends = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

    def run(call: Callable, given: list) -> list:
        of_test, of_body, carry = given[: ends[0]], given[ends[0] : ends[1]], given[ends[1] :]
        while bool(test(call, *of_test, *carry)[0]):
            carry = body(call, *of_body, *carry)
        return carry

    return run


def _variables(xs: Sequence) -> list:
    return [x for x in xs if not isinstance(x, Literal)]


def _value(v: Any, values: dict) -> Any:
    return v.val if isinstance(v, Literal) else values[v]

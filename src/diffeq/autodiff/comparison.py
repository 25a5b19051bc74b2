"""`compared`: the difference of the two numbers that a traced comparison compares."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from .jax_internals import (
    Equation,
    Jaxpr,
    evaluate_equation,
    inlinable,
    input_types,
    interpret,
    name_of,
    output_types,
    with_constants,
)

__all__ = ["compared"]

# What an array passes through as it is, but for its shape; and comparisons, with the sign of a − b.
_SHAPES = ("broadcast_in_dim", "concatenate", "copy", "reshape", "squeeze", "stack")
_COMPARISONS = {"gt": 1, "ge": 1, "lt": -1, "le": -1}


class _Term(NamedTuple):
    """A number of a program (None before it is there), and the equation that it is from."""

    value: Any = None
    equation: Equation | None = None
    inputs: Sequence["_Term"] = ()

    @property
    def name(self) -> str:
        return "" if self.equation is None else name_of(self.equation)


def compared(jaxpr: Jaxpr) -> tuple[str, Callable] | None:
    """Returns the kind of the comparisons of numbers a ⋚ b that a jaxpr's boolean ends in, if it
    does: "order", and a function of (constants, *inputs) that returns a − b, positive where the
    boolean is true; or "equality", for a == b.

    >>> import jax
    >>> jaxpr = jax.make_jaxpr(lambda x: jnp.less(x, 2.0))(1.0)
    >>> float(compared(jaxpr)[1]([], 5.0))
    -3.0
    """
    blank = [_Term() for _ in input_types(jaxpr)]
    needed = [_result(jaxpr, blank, lambda equation, _: [None] * len(output_types(equation)))]
    while needed:
        term = needed.pop()
        if term.name in (*_SHAPES, "not"):
            needed += term.inputs
        elif term.name not in _COMPARISONS or not _compares_floats(term):
            return ("equality", lambda *_: None) if term.name == "eq" else None

    def difference(constants: Sequence, *inputs: ArrayLike) -> Array:
        terms = [_Term(x) for x in inputs]
        return _compared_difference(
            _result(with_constants(jaxpr, constants), terms, evaluate_equation)
        )

    return "order", difference


def _compares_floats(term: _Term) -> bool:
    assert term.equation is not None
    return all(jnp.issubdtype(a.dtype, jnp.floating) for a in input_types(term.equation))


def _compared_difference(term: _Term) -> Array:
    """The difference a − b of the comparisons that a term is made of."""
    assert term.equation is not None
    if term.name in _COMPARISONS:
        a, b = (x.value for x in term.inputs)
        return jnp.asarray(_COMPARISONS[term.name] * (a - b))
    inner = list(map(_compared_difference, term.inputs))
    return -inner[0] if term.name == "not" else evaluate_equation(term.equation, inner)[0]


def _result(jaxpr: Jaxpr, inputs: list[_Term], evaluate: Callable) -> _Term:
    """The first output of a jaxpr, with nested calls opened."""

    def terms(equation: Equation, xs: list[_Term]) -> list[_Term]:
        inner = inlinable(equation)
        if inner is not None:
            return interpret(inner, xs, terms, lambda x, aval: _Term(x))
        out = evaluate(equation, [x.value for x in xs])
        return [_Term(x, equation, xs) for x in out]

    return interpret(jaxpr, inputs, terms, lambda x, aval: _Term(x))[0]

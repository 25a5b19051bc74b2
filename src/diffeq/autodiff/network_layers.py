"""`has_hidden_layer`: whether a function is a neural network, read from its jaxpr.

A network takes its input through a product with weights, an activation, and a product with further
weights: a hidden layer. So does hardly a law of nature: the rates of chemical reactions are
exponentials and powers, and the stencils of a discretisation are constants of the program.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Array

from .jax_internals import (
    CALLS,
    Equation,
    Jaxpr,
    ShapedArray,
    Tracer,
    called,
    interpret,
    is_or_contains,
    name_of,
    output_types,
    subprograms,
)

__all__ = ["has_hidden_layer"]

_PRODUCTS = ("dot_general", "conv_general_dilated")
_ACTIVATIONS = (
    "tanh", "logistic", "max", "erf", "erfc", "log1p", "expm1", "sin", "cos", "select_n",
)  # fmt: skip


class _Number(NamedTuple):
    """A number of a jaxpr: whether it is made of the input, whether it is made of parameters, and
    how far through a hidden layer the input has come: 1 after a product with weights, 2 after an
    activation, 3 after the second product.
    """

    input: bool
    parameter: bool
    depth: int


def has_hidden_layer(jaxpr: Jaxpr, inputs: Sequence[bool], parameters: Sequence[bool]) -> bool:
    """True if an output is made of a flagged input by a product with parameters, an activation, and
    a second product with parameters. Parameters are the operands so flagged, and arrays of JAX that
    the jaxpr closes over; an array of NumPy is a constant of the program.

    >>> import jax, jax.numpy as jnp
    >>> weights = jnp.ones((2, 2))
    >>> network = jax.make_jaxpr(lambda y, w: w @ jnp.tanh(w @ y))(jnp.ones(2), weights)
    >>> linear = jax.make_jaxpr(lambda y, w: w @ (w @ y))(jnp.ones(2), weights)
    >>> [has_hidden_layer(f, [True, False], [False, True]) for f in (network, linear)]
    [True, False]
    """
    flags = zip(inputs, parameters, strict=True)
    found = interpret(jaxpr, [_Number(i, p, 0) for i, p in flags], _layers_of, _closed_over)
    return any(number.depth == 3 for number in found)


def _closed_over(x: Any, aval: ShapedArray) -> _Number:
    del aval
    return _Number(False, isinstance(x, Array | Tracer), 0)


def _layers_of(equation: Equation, numbers: list[_Number]) -> Sequence[_Number]:
    name = name_of(equation)
    if name in CALLS:
        return interpret(called(equation), numbers, _layers_of, _closed_over)
    moving = [x for x in numbers if x.input]
    depth = max((x.depth for x in moving), default=0)
    weighted = any(x.parameter and not x.input for x in numbers)
    if moving and weighted and any(subprograms(equation)):
        # A loop with both in it goes through layer after layer.
        layered = is_or_contains(equation, *_PRODUCTS) and is_or_contains(equation, *_ACTIVATIONS)
        depth = 3 if layered else depth
    elif name in _PRODUCTS and moving and weighted:
        depth = 3 if depth == 2 else max(depth, 1)
    elif name in _ACTIVATIONS and depth == 1:
        depth = 2
    made = _Number(bool(moving), any(x.parameter for x in numbers), depth)
    return [made] * len(output_types(equation))

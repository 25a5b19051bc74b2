"""`is_network`: whether a function is a neural network, read from its jaxpr.

A network takes its input through a product with weights, an activation, and a product with other
weights: a hidden layer. A law of nature hardly does. The rates of chemical reactions are
exponentials and powers, the stencils of a discretisation are constants of the program, or one
matrix twice; and in a law with a network as one of its terms the input has another way to the
output.
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

__all__ = ["PRODUCTS", "is_network"]

PRODUCTS = ("dot_general", "conv_general_dilated")
_ACTIVATIONS = (
    "tanh", "logistic", "max", "erf", "erfc", "log1p", "expm1", "sin", "cos", "select_n",
)  # fmt: skip


class _Number(NamedTuple):
    """A number of a jaxpr: whether it is made of the input, the parameters that it is made of, and
    how far through a hidden layer the input has come on every way to it: 1 after a product with
    weights, 2 after an activation, 3 after a product with other weights. `weights` are those of the
    first product.
    """

    input: bool
    parameters: frozenset[int]
    depth: int = 0
    weights: frozenset[int] = frozenset()


def is_network(jaxpr: Jaxpr, inputs: Sequence[bool], parameters: Sequence[bool]) -> bool:
    """True if all outputs are made of the flagged inputs by a product with parameters, an
    activation, and a product with other parameters, and in no other way. Parameters are the
    operands so flagged, and arrays of JAX that the jaxpr closes over; an array of NumPy is a
    constant of the program.

    >>> import jax, jax.numpy as jnp
    >>> function = lambda y, v, w: v @ jnp.tanh(w @ y)
    >>> network = jax.make_jaxpr(function)(jnp.ones(2), jnp.ones((2, 2)), jnp.ones((2, 2)))
    >>> hybrid = jax.make_jaxpr(lambda *x: function(*x) - x[0])(*[jnp.ones((2, 2))] * 3)
    >>> [is_network(f, [True, False, False], [False, True, True]) for f in (network, hybrid)]
    [True, False]
    """
    flags = enumerate(zip(inputs, parameters, strict=True))
    numbers = [_Number(x, frozenset([i] if p else [])) for i, (x, p) in flags]
    found = interpret(jaxpr, numbers, _layers_of, _closed_over)
    moving = [x for x in found if x.input]
    return bool(moving) and all(x.depth == 3 for x in moving)


def _closed_over(x: Any, aval: ShapedArray) -> _Number:
    del aval
    return _Number(False, frozenset([id(x)] if isinstance(x, Array | Tracer) else []))


def _layers_of(equation: Equation, numbers: list[_Number]) -> Sequence[_Number]:
    name = name_of(equation)
    if name in CALLS:
        return interpret(called(equation), numbers, _layers_of, _closed_over)
    moving = [x for x in numbers if x.input]
    still = frozenset().union(*(x.parameters for x in numbers if not x.input))
    depths = [x.depth for x in moving] or [0]
    weights = frozenset().union(*(x.weights for x in moving))
    # On every way; but what an activation multiplies goes on through it (SiLU, GELU).
    depth = max(depths) if name == "mul" and min(depths) > 0 else min(depths)
    if any(subprograms(equation)):
        # A loop with both in it goes through layer after layer.
        layered = is_or_contains(equation, *PRODUCTS) and is_or_contains(equation, *_ACTIVATIONS)
        depth = 3 if layered and still and moving else depth
    elif name in PRODUCTS and moving and still:
        if depth == 0:
            depth, weights = 1, still
        elif depth == 2 and still - weights:
            depth = 3
    elif name in _ACTIVATIONS and depth == 1:
        depth = 2
    parameters = still.union(*(x.parameters for x in moving))
    return [_Number(bool(moving), parameters, depth, weights)] * len(output_types(equation))

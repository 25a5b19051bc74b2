"""`with_transposed_weights`: the turn of a loop, whose products read each matrix row by row.

A network over lanes, which are the last axis, is a product of its weights W with a matrix: W · Y
forwards and Wᵀ · Λ in reverse, or the other way round where a field is written y @ W. XLA on a CPU
has a fast kernel for a product that contracts the last axis of its first operand, and takes up to
twice as long for one that contracts the first. So a loop transposes a matrix that no turn changes
once, before the first turn. The transpose stands behind a barrier, or XLA would undo it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
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
    parameters,
    shape_of,
    trace,
)

__all__ = ["with_transposed_weights"]

type _Numbered = tuple[ArrayLike, int | None]
"""An array, or a number that is written in the jaxpr; and the number of the fixed input that it is,
or None.
"""


def with_transposed_weights(
    step: Jaxpr, operands: Sequence[ArrayLike], fixed: range
) -> tuple[Jaxpr, list[Array]]:
    """A step (active, *operands) with further inputs, and these: the transposes of those of its
    `fixed` operands by which a product is faster. It is the same step where there is none.
    """
    inputs = range(1 + fixed.start, 1 + fixed.stop)
    numbers = sorted(_slow_weights(step, inputs)) if jax.default_backend() == "cpu" else []
    if not numbers:
        return step, []

    def run(*xs: Array) -> list[Array]:
        xs, transposes = xs[: -len(numbers)], dict(zip(numbers, xs[-len(numbers) :], strict=True))
        numbered = [(x, i if i in transposes else None) for i, x in enumerate(xs)]
        return [jnp.asarray(x) for x, _ in _with_products(step, numbered, transposes)]

    avals = list(map(shape_of, input_types(step)))
    further = [jax.ShapeDtypeStruct(avals[i].shape[::-1], avals[i].dtype) for i in numbers]
    transposes = [lax.optimization_barrier(jnp.transpose(operands[i - 1])) for i in numbers]
    return trace(run, *avals, *further), transposes


def _with_products(
    jaxpr: Jaxpr, inputs: Sequence[_Numbered], transposes: dict[int, Array]
) -> list[_Numbered]:
    """The outputs of a jaxpr, in which a slow product is one with the transpose."""

    def outputs(equation: Equation, inputs: list[_Numbered]) -> list[_Numbered]:
        inner = inlinable(equation)
        if inner is not None:
            return _with_products(inner, inputs, transposes)
        operands, numbers = [x for x, _ in inputs], [number for _, number in inputs]
        if not (_is_slow_product(equation) and any(n is not None for n in numbers)):
            return [(x, None) for x in evaluate_equation(equation, operands)]
        lhs, rhs = (x if n is None else transposes[n] for x, n in inputs)
        of_lhs, of_rhs = ((0,) if n is None else (1,) for n in numbers)
        params = parameters(equation)
        product = lax.dot_general(
            lhs,
            rhs,
            ((of_lhs, of_rhs), ((), ())),
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )
        return [(product, None)]

    return interpret(jaxpr, inputs, outputs, lambda x, aval: (x, None))


def _slow_weights(jaxpr: Jaxpr, fixed: range) -> set[int]:
    """The numbers of the fixed inputs that are an operand of a slow product."""
    found: set[int] = set()

    def outputs(equation: Equation, numbers: list[int | None]) -> list[int | None]:
        inner = inlinable(equation)
        if inner is not None:
            return interpret(inner, numbers, outputs, lambda x, aval: None)
        if _is_slow_product(equation):
            found.update(n for n in numbers if n is not None)
        return [None] * len(output_types(equation))

    numbers = [i if i in fixed else None for i in range(len(input_types(jaxpr)))]
    interpret(jaxpr, numbers, outputs, lambda x, aval: None)
    return found


def _is_slow_product(equation: Equation) -> bool:
    """True if it is a product of two matrices, both contracted along their first axes."""
    if name_of(equation) != "dot_general" or any(a.ndim != 2 for a in input_types(equation)):
        return False
    return parameters(equation)["dimension_numbers"] == (((0,), (0,)), ((), ()))

"""`check_indices`: an index that is outside of its array, where the program shows it.

JAX cannot raise for an index that is out of range: `y[5]` of two numbers is the last of them. Where
the index is a number that is written in the program, that is a mistake, and it is seen before
anything is compiled. (A write out of range, `y.at[5].set(…)`, does nothing, which some programs ask
for: mode="drop".)
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike

from ..autodiff.jax_internals import (
    Equation,
    Jaxpr,
    input_types,
    interpret,
    name_of,
    output_types,
    parameters,
    subprograms,
    user_line,
)

__all__ = ["check_indices"]

_MOST = 64  # numbers in an array of indices; of more there is no mistake made by hand

# How an index is normalised: from the end where it is negative.
_EVALUATED: dict[str, Callable] = {
    "lt": np.less,
    "add": np.add,
    "select_n": lambda which, no, yes: np.where(which, yes, no),
    "convert_element_type": lambda x: x,
    "reshape": lambda x: x,
    "broadcast_in_dim": lambda x: x,
}


class _Index(NamedTuple):
    """An integer that the program knows, and as it was written."""

    value: np.ndarray
    written: np.ndarray


def check_indices(name: str, jaxpr: Jaxpr, constants: Sequence) -> None:
    """Refuses a program in which an index is out of range that does not depend on its inputs;
    `constants` are the first of these, with None for those that are not known.

    >>> program = jax.make_jaxpr(lambda y: y[5] * y)(np.zeros(2))
    >>> check_indices("f", program, [])
    Traceback (most recent call last):
    IndexError: f reads index 5 of an array of shape (2,), whose axis 0 has 2 entries, ...
    """
    unknown = len(input_types(jaxpr)) - len(constants)
    given = [*map(_constant_index, constants), *[None] * unknown]
    check = lambda equation, inputs: _check_equation(name, equation, inputs)  # noqa: E731
    interpret(jaxpr, given, check, lambda x, aval: _constant_index(x))


def _check_equation(
    name: str, equation: Equation, inputs: list[_Index | None]
) -> Sequence[_Index | None]:
    """Returns the outputs of an equation as far as they are known, if all it reads is there."""
    for inner in subprograms(equation):
        check_indices(name, inner, ())
    kind, params = name_of(equation), parameters(equation)
    found = [x for x in inputs if x is not None]
    if kind in _EVALUATED and len(found) == len(inputs):
        return [_evaluate_index(kind, found)]
    if kind == "dynamic_slice":
        shape, sizes = _shape(equation), params["slice_sizes"]
        for axis, index in enumerate(inputs[1:]):
            _check_bounds(name, equation, index, shape, axis, sizes[axis])
    elif kind == "gather" and "PROMISE_IN_BOUNDS" in str(params["mode"]):
        numbers = params["dimension_numbers"].start_index_map
        _check_rows(name, equation, inputs[1], numbers, params["slice_sizes"])
    return [None for _ in output_types(equation)]


def _shape(equation: Equation) -> tuple[int, ...]:
    """That of the array which is read."""
    return input_types(equation)[0].shape


def _constant_index(x: ArrayLike | None) -> _Index | None:
    """A constant that may be an index."""
    if x is None or isinstance(x, jax.Array):
        return None
    x = np.asarray(x)
    return _Index(x, x) if x.dtype.kind in "biu" and x.size <= _MOST else None


def _evaluate_index(kind: str, inputs: list[_Index]) -> _Index | None:
    value = _EVALUATED[kind](*(x.value for x in inputs))
    written = inputs[1].written if kind == "select_n" else inputs[0].written
    return _Index(value, written)


def _check_bounds(
    name: str, equation: Equation, index: _Index | None, shape: Sequence, axis: int, size: int
) -> None:
    if index is None or index.value.ndim or 0 <= index.value <= shape[axis] - size:
        return
    raise IndexError(_message(name, int(index.written), shape, axis, equation))


def _check_rows(
    name: str, equation: Equation, index: _Index | None, axes: Sequence, sizes: Sequence
) -> None:
    """Indices of a gather along one axis."""
    if index is None or len(axes) != 1:
        return
    axis, shape = axes[0], _shape(equation)
    wrong = np.flatnonzero((index.value < 0) | (index.value > shape[axis] - sizes[axis]))
    if wrong.size:
        raise IndexError(_message(name, int(index.written.flat[wrong[0]]), shape, axis, equation))


def _message(name: str, index: int, shape: Sequence, axis: int, equation: Equation) -> str:
    entries = "1 entry" if shape[axis] == 1 else f"{shape[axis]} entries, 0 to {shape[axis] - 1}"
    place = user_line(equation)
    return (
        f"{name} reads index {index} of an array of shape {tuple(shape)}, whose axis {axis} has "
        f"{entries}. JAX would read another entry instead" + (f" ({place})." if place else ".")
    )

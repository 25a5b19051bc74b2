"""`check_indices`: an index that is outside of its array, where the program shows it.

JAX cannot raise for an index that is out of range: `y[5]` of two numbers is the last of them. Where
the index is a number that is written in the program, that is a mistake, and it is seen before
anything is compiled. (A write out of range, `y.at[5].set(…)`, does nothing, which some programs ask
for: mode="drop".)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..autodiff.jax_internals import Jaxpr, Literal, subjaxprs, user_line

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
    >>> check_indices("f", program.jaxpr, [])
    Traceback (most recent call last):
    IndexError: f reads index 5 of an array of shape (2,), whose axis 0 has 2 entries, ...
    """
    known = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], map(_constant_index, constants), strict=False)
    )
    for equation in jaxpr.eqns:
        inputs = [_looked_up(x, known) for x in equation.invars]
        kind = equation.primitive.name
        found = [x for x in inputs if x is not None]
        if kind in _EVALUATED and len(found) == len(inputs):
            known.update(dict.fromkeys(equation.outvars, _evaluate_index(kind, found)))
        elif kind == "dynamic_slice":
            shape, sizes = _shape(equation), equation.params["slice_sizes"]
            for axis, index in enumerate(inputs[1:]):
                _check_bounds(name, equation, index, shape, axis, sizes[axis])
        elif kind == "gather" and "PROMISE_IN_BOUNDS" in str(equation.params["mode"]):
            numbers = equation.params["dimension_numbers"].start_index_map
            _check_rows(name, equation, inputs[1], numbers, equation.params["slice_sizes"])
    for inner in subjaxprs(jaxpr):
        check_indices(name, inner, ())


def _shape(equation: Any) -> tuple[int, ...]:
    """That of the array which is read."""
    return equation.invars[0].aval.shape


def _constant_index(x: Any) -> _Index | None:
    """A constant that may be an index."""
    if x is None or isinstance(x, jax.Array):
        return None
    x = np.asarray(x)
    return _Index(x, x) if x.dtype.kind in "biu" and x.size <= _MOST else None


def _looked_up(x: Any, known: dict) -> _Index | None:
    return _constant_index(x.val) if isinstance(x, Literal) else known.get(x)


def _evaluate_index(kind: str, inputs: list[_Index]) -> _Index | None:
    value = _EVALUATED[kind](*(x.value for x in inputs))
    written = inputs[1].written if kind == "select_n" else inputs[0].written
    return _Index(value, written)


def _check_bounds(
    name: str, equation: Any, index: _Index | None, shape: Sequence, axis: int, size: int
) -> None:
    if index is None or index.value.ndim or 0 <= index.value <= shape[axis] - size:
        return
    raise IndexError(_message(name, int(index.written), shape, axis, equation))


def _check_rows(
    name: str, equation: Any, index: _Index | None, axes: Sequence, sizes: Sequence
) -> None:
    """Indices of a gather along one axis."""
    if index is None or len(axes) != 1:
        return
    axis, shape = axes[0], _shape(equation)
    wrong = np.flatnonzero((index.value < 0) | (index.value > shape[axis] - sizes[axis]))
    if wrong.size:
        raise IndexError(_message(name, int(index.written.flat[wrong[0]]), shape, axis, equation))


def _message(name: str, index: int, shape: Sequence, axis: int, equation: Any) -> str:
    entries = "1 entry" if shape[axis] == 1 else f"{shape[axis]} entries, 0 to {shape[axis] - 1}"
    place = user_line(equation)
    return (
        f"{name} reads index {index} of an array of shape {tuple(shape)}, whose axis {axis} has "
        f"{entries}. JAX would read another entry instead" + (f" ({place})." if place else ".")
    )

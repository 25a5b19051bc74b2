"""`own_components`: the dependence of the components of an output on those of an input, read from
a jaxpr.

Each number in between carries a label: the one component of the input that it depends on, none of
them, or several. Labels follow what moves numbers about, and meet where an operation takes several
numbers to one; what is not known here is taken to depend on all that goes in.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Int32

from .batch_last import ELEMENTWISE
from .jax_internals import (
    CALLS,
    Equation,
    Jaxpr,
    ShapedArray,
    Tracer,
    branches_of,
    called,
    evaluate_equation,
    input_types,
    interpret,
    name_of,
    output_types,
    parameters,
)

__all__ = [
    "COMPONENTWISE",
    "INDEXED",
    "MOVES",
    "known_outputs",
    "output_value",
    "own_components",
    "unknown_value",
]

NONE, SEVERAL = -1, -2
Labels = Int32[np.ndarray, "..."]

COMPONENTWISE = ELEMENTWISE | frozenset(
    """
    acos acosh asin asinh atan atanh digamma erf_inv imag conj lgamma real reduce_precision
    """.split()  # noqa: SIM905 - read as words
)


def own_components(jaxpr: Jaxpr, inputs: Sequence[bool]) -> bool:
    """True if each component of the outputs depends on its own component of the flagged inputs
    alone, all of them in order, as far as the equations tell: False may also mean that they do not.

    >>> own = lambda f: own_components(jax.make_jaxpr(f)(jax.numpy.ones(3)), [True])
    >>> own(lambda y: jax.numpy.stack([y[0] ** 2, jax.numpy.sin(y[1]), y[2]]))
    True
    >>> own(lambda y: y * y.sum()), own(lambda y: y[::-1])
    (False, False)
    """
    labels, first = [], 0
    for aval, flag in zip(input_types(jaxpr), inputs, strict=True):
        if not flag:
            labels.append(_unlabelled(aval))
            continue
        own = np.arange(first, first + aval.size, dtype=np.int32)
        labels.append(own.reshape(aval.shape))
        first += aval.size
    found = np.concatenate([np.ravel(x) for x in _labels_of(jaxpr, labels)])
    return found.size == first and bool(np.all((found == NONE) | (found == np.arange(first))))


class _Labelled(NamedTuple):
    """A number of a jaxpr: its labels, and a function that returns its value, or None where that
    is not known here.
    """

    labels: Labels
    value: Callable[[], Any]


def _unlabelled(aval: ShapedArray) -> Labels:
    return np.full(aval.shape, NONE, np.int32)


def unknown_value() -> None:
    """The value of a number that is not known."""
    return


def _constant(x: ArrayLike, aval: ShapedArray) -> _Labelled:
    return _Labelled(_unlabelled(aval), lambda: None if isinstance(x, Tracer) else x)


def _labels_of(jaxpr: Jaxpr, inputs: Sequence[Labels]) -> list[Labels]:
    """The labels of the outputs of a jaxpr."""
    given = [_Labelled(x, unknown_value) for x in inputs]
    return [x.labels for x in interpret(jaxpr, given, _labelled, _constant)]


def _labelled(equation: Equation, inputs: list[_Labelled]) -> list[_Labelled]:
    """The outputs of an equation: labelled, or, of constants alone, with their values."""
    labels = [x.labels for x in inputs]
    if any((x != NONE).any() for x in labels):
        found = _equation(equation, labels, lambda i: inputs[i].value())
        return [_Labelled(x, unknown_value) for x in found]
    made = cache(lambda: known_outputs(equation, inputs))
    return [
        _Labelled(_unlabelled(a), partial(output_value, made, i))
        for i, a in enumerate(output_types(equation))
    ]


def known_outputs(equation: Equation, inputs: Sequence) -> list | None:
    """The outputs of an equation, where its inputs are known."""
    values = [x.value() for x in inputs]
    if any(x is None for x in values):
        return None
    with jax.ensure_compile_time_eval():
        return evaluate_equation(equation, values)


def output_value(made: Callable[[], list | None], i: int) -> ArrayLike | None:
    """One of the outputs that a function makes, if they are known."""
    found = made()
    return None if found is None else found[i]


def _equation(equation: Equation, inputs: list[Labels], known: Callable) -> list[Labels]:
    """The labels of what an equation makes."""
    name, params = name_of(equation), parameters(equation)
    found = _subprogram_labels(equation, inputs)
    if found is not None:
        return found
    if name in MOVES:
        return MOVES[name](inputs, params)
    moved = _indexed(equation, inputs, known) if name in INDEXED else None
    if moved is not None:
        return moved
    if name in COMPONENTWISE:
        return [_met(_stack_labels(*inputs), (0,))]
    if name.startswith(("reduce_", "arg")) and "axes" in params and len(inputs) == 1:
        return [_met(inputs[0], params["axes"])]
    whole = _met(np.concatenate([x.ravel() for x in inputs]), (0,))
    return [np.broadcast_to(whole, a.shape) for a in output_types(equation)]


def _subprogram_labels(equation: Equation, inputs: list[Labels]) -> list[Labels] | None:
    """The labels of what a call makes; of a choice among branches, what it is made by meets what
    each of them makes. None of another equation.
    """
    if name_of(equation) in CALLS and len(input_types(called(equation))) == len(inputs):
        return _labels_of(called(equation), inputs)
    if name_of(equation) != "cond":
        return None
    found = [_labels_of(branch, inputs[1:]) for branch in branches_of(equation)]
    return [_met(_stack_labels(inputs[0], *xs), (0,)) for xs in zip(*found, strict=True)]


def _stack_labels(*labels: Labels) -> Labels:
    """Labels of several arrays, number by number, along a new first axis."""
    return np.stack(np.broadcast_arrays(*labels))


def _met(labels: Labels, axes: Sequence[int]) -> Labels:
    """The label of a number that is made of all along some axes."""
    axes = tuple(axes)
    most = np.max(labels, axis=axes, initial=NONE)
    top = np.iinfo(np.int32).max
    least = np.min(np.where(labels == NONE, top, labels), axis=axes, initial=top)
    mixed = (most != NONE) & (least != most) | (least == SEVERAL)
    return np.where(mixed, SEVERAL, most).astype(np.int32)


def _contracted(inputs: list[Labels], params: dict) -> list[Labels]:
    """Of a product of two arrays: what is summed over meets, and then the factors do."""
    (summed, batch) = params["dimension_numbers"]
    parts, free = [], []
    for x, axes, along in zip(inputs, summed, batch, strict=True):
        rest = [a for a in range(x.ndim) if a not in (*axes, *along)]
        ordered = np.transpose(x, (*along, *rest, *axes))
        parts.append(_met(ordered, range(x.ndim - len(axes), x.ndim)))
        free.append(len(rest))
    left = parts[0].reshape(*parts[0].shape, *(1,) * free[1])
    count = len(batch[0])
    shape = parts[1].shape
    right = parts[1].reshape(*shape[:count], *(1,) * free[0], *shape[count:])
    return [_met(_stack_labels(left, right), (0,))]


def _indexed(equation: Equation, inputs: list[Labels], known: Callable) -> list[Labels] | None:
    """The operation itself on labels, where it is known which numbers it takes."""
    operands = INDEXED[name_of(equation)]
    xs = [inputs[i] if i in operands else known(i) for i in range(len(inputs))]
    if any(x is None for x in xs) or parameters(equation).get("update_jaxpr") is not None:
        return None
    with jax.ensure_compile_time_eval():
        return [np.maximum(np.asarray(x), SEVERAL) for x in evaluate_equation(equation, xs)]


def _broadcast(inputs: list[Labels], params: dict) -> list[Labels]:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], inputs[0].shape, strict=True):
        shape[int(axis)] = size
    return [np.broadcast_to(inputs[0].reshape(shape), params["shape"])]


def _slice(inputs: list[Labels], params: dict) -> list[Labels]:
    ends = zip(params["start_indices"], params["limit_indices"], strict=True)
    strides = params["strides"] or (1,) * inputs[0].ndim
    return [inputs[0][tuple(slice(a, b, s) for (a, b), s in zip(ends, strides, strict=True))]]


def _split(inputs: list[Labels], params: dict) -> list[Labels]:
    return np.split(inputs[0], np.cumsum(params["sizes"])[:-1], params["axis"])


# What moves numbers about, and what makes several of one or one of several by its parameters.
MOVES: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda xs, p: [np.concatenate(xs, p["dimension"])],
    "dot_general": _contracted,
    "expand_dims": lambda xs, p: [np.expand_dims(xs[0], p["dimensions"])],
    "optimization_barrier": lambda xs, p: xs,
    "reshape": lambda xs, p: [xs[0].reshape(p["new_sizes"])],
    "rev": lambda xs, p: [np.flip(xs[0], p["dimensions"])],
    "slice": _slice,
    "split": _split,
    "squeeze": lambda xs, p: [np.squeeze(xs[0], tuple(p["dimensions"]))],
    "stack": lambda xs, p: [np.stack(xs, p["axis"])],
    "transpose": lambda xs, p: [np.transpose(xs[0], p["permutation"])],
    "unstack": lambda xs, p: list(np.moveaxis(xs[0], p["axis"], 0)),
}
# What takes numbers by others that say which: the places of those that are moved.
INDEXED = {
    "gather": (0,),
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "scatter": (0, 2),
    "pad": (0, 1),
}

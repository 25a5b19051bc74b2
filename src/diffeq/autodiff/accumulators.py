"""`accumulate_inside`: sums over the steps of a walk that are added to an input start from it.

The cotangent of a parameter is a sum over the stages of a step, over the steps of a window and over
the windows. A transposition makes each of these from zero, and adds it to the next: three arrays of
the parameters' size to fill and three to add, where one is enough.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array

from .jax_internals import (
    Equation,
    Jaxpr,
    ShapedArray,
    equations,
    evaluate_equation,
    input_types,
    interpret,
    name_of,
    output_types,
    parameters,
    shape_of,
    trace,
)

__all__ = ["accumulate_inside"]

_ADDITIONS = ("add", "add_any")


class _Value:
    """A value of a jaxpr: an input, by its number, or an output of an equation, by its number."""

    def __init__(
        self,
        number: int,
        equation: Equation | None = None,
        operands: "Sequence[_Value]" = (),
        *,
        zero: bool = False,
    ) -> None:
        self.number, self.equation, self.operands, self.zero = number, equation, operands, zero
        self.uses = 0

    @property
    def is_input(self) -> bool:
        return self.equation is None and not self.zero and self.number >= 0


def accumulate_inside(jaxpr: Jaxpr) -> Jaxpr:
    """Returns the function, in which a sum that a walk makes from zero, and that is added to an
    input and used nowhere else, is made from that input.
    """
    if not any(name_of(e) == "walk" for e in equations(jaxpr)):
        return jaxpr
    starts: dict[int, dict[int, int]] = {}
    passed: dict[int, int] = {}
    steps: _Steps = {}
    for value in _outputs(jaxpr):
        for own, other in _both_orders(value):
            found = _walk_sum(other, steps) if own.is_input and own.uses == 1 else None
            if found is not None and found.equation is not None:
                starts.setdefault(id(found.equation), {})[found.number] = own.number
                passed[id(value.equation)] = value.operands.index(other)
                break
    return _with_starts(jaxpr, starts, passed) if starts else jaxpr


def _with_starts(jaxpr: Jaxpr, starts: dict[int, dict[int, int]], passed: dict[int, int]) -> Jaxpr:
    """The jaxpr whose walks start carries from inputs; additions in `passed` return an operand."""

    def run(*xs: Array) -> list[Array]:
        def outputs(equation: Equation, inputs: list) -> list:
            if id(equation) in passed:
                return [inputs[passed[id(equation)]]]
            operands = list(inputs)
            for carry, number in starts.get(id(equation), {}).items():
                operands[_first_carry(equation) + 2 + carry] = xs[number]
            return evaluate_equation(equation, operands)

        return interpret(jaxpr, xs, outputs, lambda x, aval: x)

    return trace(run, *map(shape_of, input_types(jaxpr)))


def _outputs(jaxpr: Jaxpr) -> list[_Value]:
    """The outputs of a jaxpr, with how they are made and how often each value is used."""

    def rule(equation: Equation, operands: list[_Value]) -> list[_Value]:
        for operand in operands:
            operand.uses += 1
        filled = name_of(equation) == "broadcast_in_dim" and operands[0].zero
        count = len(output_types(equation))
        return [_Value(i, equation, operands, zero=filled) for i in range(count)]

    def constant(x: Array | float, aval: ShapedArray) -> _Value:
        del aval
        number = isinstance(x, float | np.ndarray | np.generic) and np.ndim(x) == 0
        known = number and np.issubdtype(np.asarray(x).dtype, np.number)
        return _Value(-1, zero=known and bool(x == 0))

    inputs = [_Value(i) for i in range(len(input_types(jaxpr)))]
    found = interpret(jaxpr, inputs, rule, constant)
    for value in found:
        value.uses += 1
    return found


def _both_orders(value: _Value) -> list[tuple[_Value, _Value]]:
    """The operands of a sum in both orders; none of another value."""
    if value.equation is None or name_of(value.equation) not in _ADDITIONS:
        return []
    a, b = value.operands
    return [(a, b), (b, a)]


type _Steps = dict[int, list[_Value]]
"""The outputs of the steps of walks, by the identities of the walks: there is one for each sum."""


def _walk_sum(value: _Value, steps: _Steps) -> _Value | None:
    """The sum that a walk makes from zero: a value that is used once, or a part of it."""
    if value.uses != 1:
        return None
    start = _start_of_carry(value)
    if start is not None:
        return value if start.zero and _adds_up(value, steps) else None
    found = (_walk_sum(part, steps) for part, _ in _both_orders(value))
    return next((part for part in found if part is not None), None)


def _start_of_carry(value: _Value) -> _Value | None:
    """The value from which a walk starts the carry whose end this is; None of another value."""
    walk = value.equation
    if walk is None or name_of(walk) != "walk" or value.number >= parameters(walk)["sizes"][2]:
        return None
    return value.operands[_first_carry(walk) + 2 + value.number]


def _adds_up(end: _Value, steps: _Steps) -> bool:
    """True if each step of a walk adds to the carry whose end this is, and uses it for nothing
    else.
    """
    walk = end.equation
    assert walk is not None, "the end of a carry is an output of a walk"
    if id(walk) not in steps:
        steps[id(walk)] = _outputs(parameters(walk)["step"])
    return _has_once(steps[id(walk)][end.number], 1 + _first_carry(walk) + end.number, steps)


def _has_once(value: _Value, number: int, steps: _Steps) -> bool:
    """True if a value is an input plus something that does not depend on it, nor does any other."""
    if value.uses != 1:
        return False
    start = _start_of_carry(value)
    if start is not None:
        return _has_once(start, number, steps) and _adds_up(value, steps)
    own = value.is_input and value.number == number
    return own or any(_has_once(part, number, steps) for part, _ in _both_orders(value))


def _first_carry(walk: Equation) -> int:
    """The number of rows and constants of a walk, which come before its carries."""
    rows, consts, *_ = parameters(walk)["sizes"]
    return rows + consts

"""`same_program`: a traced function as a program that equals every other of the same equations.

Two traces of one function, or of two fresh lambdas of the same code, are two jaxprs. JAX compares
them by identity, and would compile both. Here a jaxpr is read into a key (primitives, parameters,
literals, how the equations are joined), and of all equal ones the first is used.
"""

import types
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from itertools import count
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike

from ..autodiff.jax_internals import (
    Equation,
    Jaxpr,
    ShapedArray,
    input_types,
    interpret,
    name_of,
    operation_of,
    output_types,
    parameters,
    parts_of_rule,
)
from .reading import HashedKey, Identity, attributes_of, cell_content, reading_key

__all__ = ["constant_key", "key_of_jaxpr", "same_program"]

_KEPT = 4096  # programs that are remembered
_programs: OrderedDict[Hashable, Any] = OrderedDict()


def same_program[T](key: Hashable, made: T) -> T:
    """Of all that was made for this key the first, which is `made` if there is none."""
    found = _programs.setdefault(key, made)
    _programs.move_to_end(key)
    if len(_programs) > _KEPT:
        _programs.popitem(last=False)
    return found


def key_of_jaxpr(jaxpr: Jaxpr, constants: Hashable = None) -> HashedKey:
    """The key of a jaxpr. Its constants count by value, arrays of JAX by identity; or they count as
    `constants` says.

    >>> twice = lambda: jax.make_jaxpr(lambda x: 2.0 * x)(1.0)
    >>> twice() == twice(), key_of_jaxpr(twice()) == key_of_jaxpr(twice())
    (False, True)
    """
    numbers, read = count(), []

    def numbered(types: Sequence[ShapedArray]) -> list[Hashable]:
        """The variables of these types: numbered in the order of their appearance."""
        read.append(tuple(map(_type_key, types)))
        return [next(numbers) for _ in types]

    def outputs(equation: Equation, inputs: list[Hashable]) -> list[Hashable]:
        read.append((_equation_key(equation), *inputs))
        return numbered(output_types(equation))

    def constant(x: ArrayLike, aval: ShapedArray) -> Hashable:
        return _type_key(aval), constant_key(x)

    returned = interpret(jaxpr, numbered(input_types(jaxpr)), outputs, constant)
    return HashedKey((constants, tuple(read), tuple(returned)))


# Keys of nested jaxprs, which JAX keeps for functions under `jax.jit`.
_known: "weakref.WeakKeyDictionary[Any, HashedKey]" = weakref.WeakKeyDictionary()


def _equation_key(equation: Equation) -> Hashable:
    """The key of an equation, inputs aside."""
    name = name_of(equation)
    each = sorted(parameters(equation).items())
    params = tuple((key, _parameter(value, name)) for key, value in each)
    return params, _parameter(operation_of(equation), "")


def _type_key(aval: ShapedArray) -> Hashable:
    return getattr(aval, "shape", None), getattr(aval, "dtype", aval), getattr(aval, "weak_type", 0)


def _nested_key(jaxpr: Jaxpr) -> HashedKey:
    found = _known.get(jaxpr)
    if found is None:
        found = _known[jaxpr] = key_of_jaxpr(jaxpr)
    return found


def constant_key(x: ArrayLike | np.generic) -> Hashable:
    """The key of an array: that of JAX by identity, another by value."""
    if isinstance(x, jax.Array):
        return Identity(x)
    value = np.asarray(x)
    return value.dtype.str, value.shape, value.tobytes()


# What these call runs on the host while the program runs, and reads what is there then.
_CALLBACKS = ("debug_callback", "pure_callback", "io_callback", "debug_print")


def _parameter(value: object, primitive: str) -> Hashable:  # noqa: PLR0911 - a table
    if isinstance(value, Jaxpr):
        return _nested_key(value)
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_parameter(x, primitive) for x in value)
    if isinstance(value, dict):
        return dict, tuple((k, _parameter(x, primitive)) for k, x in value.items())
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return constant_key(value)
    if primitive in _CALLBACKS and callable(value):
        return _callback(value)
    if callable(value) or parts_of_rule(value) is not None:
        return reading_key(value)
    try:
        hash(value)
    except TypeError:
        return Identity(value)
    return type(value), value


def _callback(x: object, *, opened: bool = True) -> Hashable:
    """A function that runs on the host: its code, and the things themselves that it closes over.
    Containers are `opened` in what JAX wraps around it, and not in a user's function.
    """
    if isinstance(x, types.FunctionType):
        seen = (*map(cell_content, x.__closure__ or ()), *(x.__defaults__ or ()))
        theirs = x.__module__.startswith("jax.")
        return x.__code__, tuple(_callback(part, opened=theirs) for part in seen)
    if opened and isinstance(x, (tuple, list, dict)):
        parts = x.items() if isinstance(x, dict) else x
        return type(x), tuple(map(_callback, parts))
    if type(x).__module__.startswith("jax."):
        return type(x), tuple((name, _callback(part)) for name, part in attributes_of(x))
    plain = isinstance(x, (int, float, str, type(None), jax.tree_util.PyTreeDef))
    return (type(x), x) if plain else Identity(x)

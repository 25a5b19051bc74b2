"""`same_program`: a traced function as a program that equals every other of the same equations.

Two traces of one function, or of two fresh lambdas of the same code, are two jaxprs. JAX compares
them by identity, and would compile both. Here a jaxpr is read into a key (primitives, parameters,
literals, how the equations are joined), and of all equal ones the first is used.
"""

import types
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np

from ..autodiff.jax_internals import Jaxpr, Literal
from .reading import HashedKey, Identity, attributes_of, cell_content, reading_key

__all__ = ["constant_key", "key_of_jaxpr", "same_program"]

_KEPT = 4096  # programs that are remembered
_programs: OrderedDict[Hashable, Any] = OrderedDict()


def same_program(key: Hashable, made: Any) -> Any:
    """Of all that was made for this key the first, which is `made` if there is none."""
    found = _programs.setdefault(key, made)
    _programs.move_to_end(key)
    if len(_programs) > _KEPT:
        _programs.popitem(last=False)
    return found


def key_of_jaxpr(jaxpr: Any, constants: Hashable = None) -> HashedKey:
    """The key of a jaxpr. Its constants count by value, arrays of JAX by identity; or they count as
    `constants` says.

    >>> twice = lambda: jax.make_jaxpr(lambda x: 2.0 * x)(1.0)
    >>> twice() == twice(), key_of_jaxpr(twice()) == key_of_jaxpr(twice())
    (False, True)
    """
    return _Equations().key(jaxpr, constants)


# Keys of nested jaxprs, which JAX keeps for functions under `jax.jit`.
_known: "weakref.WeakKeyDictionary[Any, HashedKey]" = weakref.WeakKeyDictionary()


class _Equations:
    """One jaxpr that is being read: its variables are numbered in the order of their appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def key(self, jaxpr: Any, constants: Hashable = None) -> HashedKey:
        inner = jaxpr.jaxpr
        inputs = tuple(self._defined(v) for v in (*inner.constvars, *inner.invars))
        equations = tuple(map(self._equation, inner.eqns))
        outputs = tuple(map(self._atom, inner.outvars))
        held = tuple(map(constant_key, jaxpr.consts)) if constants is None else constants
        return HashedKey((inputs, held, equations, outputs))

    def _defined(self, v: Any) -> Hashable:
        self.numbers[v] = len(self.numbers)
        return _aval(v.aval)

    def _atom(self, v: Any) -> Hashable:
        if isinstance(v, Literal):
            return _aval(v.aval), np.asarray(v.val).tobytes()
        return self.numbers[v]

    def _equation(self, equation: Any) -> Hashable:
        inputs = tuple(map(self._atom, equation.invars))
        params = tuple(
            (name, _parameter(value, equation.primitive.name))
            for name, value in sorted(equation.params.items())
        )
        context = equation.ctx
        where = (context.compute_type, context.xla_metadata, context.threefry_partitionable)
        outputs = tuple(map(self._defined, equation.outvars))
        return equation.primitive, inputs, params, _parameter(where, ""), outputs


def _aval(aval: Any) -> Hashable:
    return getattr(aval, "shape", None), getattr(aval, "dtype", aval), getattr(aval, "weak_type", 0)


def _nested_key(jaxpr: Jaxpr) -> HashedKey:
    found = _known.get(jaxpr)
    if found is None:
        found = _known[jaxpr] = _Equations().key(jaxpr)
    return found


def constant_key(x: Any) -> Hashable:
    """The key of an array: that of JAX by identity, another by value."""
    if isinstance(x, jax.Array):
        return Identity(x)
    value = np.asarray(x)
    return value.dtype.str, value.shape, value.tobytes()


# What these call runs on the host while the program runs, and reads what is there then.
_CALLBACKS = ("debug_callback", "pure_callback", "io_callback", "debug_print")


def _parameter(value: Any, primitive: str) -> Hashable:  # noqa: PLR0911 - a table
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
    if callable(value) or type(value).__name__ == "WrappedFun":  # the rule of a derivative
        return reading_key(value)
    try:
        hash(value)
    except TypeError:
        return Identity(value)
    return type(value), value


def _callback(x: Any, *, opened: bool = True) -> Hashable:
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

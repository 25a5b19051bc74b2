"""`no_writes`: a field that writes to the state of an object is refused.

A field is evaluated many times a step, at states that are no samples and in steps that are thrown
away, and it is traced once: what it writes would be lost, or be a tracer that has no value.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike

from .reading import attributes_of, contents_of

__all__ = ["no_writes", "parts_of"]


@contextmanager
def no_writes(name: str, *roots: object) -> Iterator[None]:
    """Raises a `TypeError` if what runs inside changes an array or a number of an object that can
    be reached from `roots`; the object has its old value again.

    >>> class Net:
    ...     def __init__(self): self.calls = 0
    ...     def __call__(self, t, y, args):
    ...         self.calls += 1
    ...         return -y
    >>> net = Net()
    >>> with no_writes("f", net):
    ...     net(0.0, 1.0, None)
    Traceback (most recent call last):
    TypeError: f wrote to calls of Net while it was evaluated. ...
    >>> net.calls
    0
    """
    places = list(_reached_objects(_ReachedObject(None, "", roots), set()))
    before = [_numbers_of(place.x) for place in places]
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        # Flax has seen the write before us. It names the kind of variable.
        kinds = [place for place in places if type(place.x).__name__ in str(error)]
        raise TypeError(_message(name, kinds, [place.path for place in kinds])) from error
    written = [
        name for place, old in zip(places, before, strict=True) for name in _restored(place, old)
    ]
    if written:
        owner = next(p for p, old in zip(places, before, strict=True) if old)
        raise TypeError(_message(name, [owner], written))


def _restored(place: "_ReachedObject", old: dict[str, ArrayLike]) -> list[str]:
    """The names of what was written to an object, which has its old values again."""
    new = dict(attributes_of(place.x))
    written = [key for key in old if new.get(key) is not old[key]]
    for key in written:
        object.__setattr__(place.x, key, old[key])
    return [place.named(key) for key in written]


_MOST = 10_000  # things that are looked at


class _ReachedObject(NamedTuple):
    """A thing that was reached, and by which attributes of which object."""

    root: Any
    path: str
    x: Any

    def named(self, attribute: str) -> str:
        """One of its attributes, from the root; the box that a variable of a network is counts as
        its value.
        """
        boxed = attribute.strip("_") in ("value", "raw_value") and self.path
        return self.path if boxed else f"{self.path}.{attribute}".strip(".")


def _message(name: str, places: list[_ReachedObject], written: list[str]) -> str:
    shown = ", ".join(written[:4]) + (" …" if len(written) > 4 else "")
    owner = f"{shown} of {type(places[0].root).__name__}" if places else "the state of a module"
    return (
        f"{name} wrote to {owner} while it was evaluated. A solver evaluates {name} many "
        "times a step, and in steps that it throws away, so nothing may change there. Return what "
        "you need from the field instead, or keep it in args. In a network with state call "
        "model.eval() first, or give use_running_average=True (batch statistics) and "
        "deterministic=True (dropout); for dropout in a solve give it one key: "
        "layer(y0, key=key), and self.dropout(x, rngs=key) in the network."
    )


def _numbers_of(x: object) -> dict[str, ArrayLike]:
    """The arrays and numbers of an object."""
    numbers = (jax.Array, np.ndarray, int, float, complex)
    return {
        name: value
        for name, value in attributes_of(x)
        if isinstance(value, numbers) and not isinstance(value, bool)
    }


def _reached_objects(place: _ReachedObject, seen: set[int]) -> Iterator[_ReachedObject]:
    """All objects that keep numbers, reached from one place."""
    x = place.x
    if id(x) in seen or len(seen) > _MOST:
        return
    seen.add(id(x))
    own = _is_object(x)
    if own and _numbers_of(x):
        yield place if place.root is not None else _ReachedObject(x, "", x)
    root = x if own and place.root is None else place.root
    for name, part in parts_of(x):
        path = f"{place.path}.{name}".strip(".") if root is not None else ""
        yield from _reached_objects(_ReachedObject(root, path, part), seen)


_NO_OBJECTS = (type, types.ModuleType, types.FunctionType, types.MethodType, jax.Array, np.ndarray)


def _is_object(x: object) -> bool:
    """True if x is an object of a class that is written in Python, and no function or class."""
    return not isinstance(x, _NO_OBJECTS) and type(x).__module__ != "builtins"


def parts_of(x: Any) -> Iterator[tuple[Any, object]]:
    """Yields the values that a function closes over, the items of a container, or the attributes of
    an object, each with its name there.
    """
    if isinstance(x, types.FunctionType):
        yield from enumerate(contents_of(x))
    elif isinstance(x, types.MethodType):
        yield from (("", x.__self__), ("", x.__func__))
    elif isinstance(x, dict):
        yield from x.items()
    elif isinstance(x, (list, tuple, set, frozenset)):
        yield from enumerate(x)
    elif hasattr(x, "func") and hasattr(x, "keywords"):  # a partial
        yield from (("func", x.func), ("args", x.args), ("keywords", x.keywords))
    elif not isinstance(x, (*_NO_OBJECTS, str, bytes)):
        yield from attributes_of(x)

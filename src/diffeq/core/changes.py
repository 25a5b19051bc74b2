"""What a function changes outside of itself, read off its code.

What a field sees from outside is copied into each trace, so that its numbers can be inputs. A list
that a callback fills must not be copied: what goes into the copy is lost.
"""

import dis
import functools
import types
from collections.abc import Iterator

__all__ = ["changed_names", "changes_itself"]

_LOADS = ("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_NAME")
_STORES = ("STORE_SUBSCR", "STORE_ATTR")
_METHODS = frozenset({"append", "extend", "insert", "update", "setdefault", "pop", "clear", "add"})


@functools.cache
def changed_names(code: types.CodeType) -> frozenset[str]:
    """Names of the lists, dicts and objects that a function changes, or one inside it such as a
    callback: by a method, an item or an attribute.

    >>> def field(t, y, args):
    ...     jax.debug.callback(lambda y: log.append(y), y)
    ...     return -rates["k"] * y
    >>> sorted(changed_names(field.__code__))
    ['log']
    """
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return frozenset(_changed(code)).union(*map(changed_names, inner))


def _changed(code: types.CodeType) -> Iterator[str]:
    """A change begins where the name of what is changed is loaded."""
    steps = list(dis.get_instructions(code))
    starts = {_start(s) for s in steps if s.opname in _STORES or s.argval in _METHODS}
    for step in steps:
        if step.opname in _LOADS and _start(step) in starts:
            yield str(step.argval)


def _start(step: dis.Instruction) -> tuple:
    at = step.positions
    return (step, None) if at is None or at.col_offset is None else (at.lineno, at.col_offset)


@functools.cache
def changes_itself(kind: type) -> bool:
    """Whether the objects of a class change in any of its methods, once they are made.

    >>> class Counter:
    ...     def __init__(self): self.n = 0
    ...     def tick(self): self.n += 1
    >>> changes_itself(Counter), changes_itself(types.SimpleNamespace)
    (True, False)
    """
    methods = {n: f for c in kind.__mro__ for n, f in vars(c).items() if n != "__init__"}
    codes = [f.__code__ for f in methods.values() if isinstance(f, types.FunctionType)]
    steps = (step for code in codes for step in dis.get_instructions(code))
    return any(s.opname == "STORE_ATTR" for s in steps) or any(
        "self" in changed_names(code) for code in codes
    )

"""`no_writes`: a field that writes to the state of a module is told so.

A field is evaluated many times a step, at states that are no samples and in steps that are thrown
away, and it is traced once: what it writes to itself would be lost, in silence.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from .lift import _content, _used_globals
from .lift import _is_nnx as is_nnx

__all__ = ["is_nnx", "is_nnx_module", "no_writes"]


@contextmanager
def no_writes(name: str, *roots: Any) -> Iterator[None]:
    """Raises a `TypeError` if what runs inside changes an array or a number in a module that is
    reached from `roots`.

    >>> class Net:
    ...     calls = 0
    ...     def __init__(self): self.calls = 0
    ...     def __call__(self, t, y, args):
    ...         self.calls += 1
    ...         return -y
    >>> net = Net()
    >>> with no_writes("f", net):
    ...     net(0.0, 1.0, None)
    Traceback (most recent call last):
    TypeError: f wrote to calls of Net while it was evaluated. ...
    """
    modules = list(_modules(roots, set()))
    before = [_state(module) for module in modules]
    yield
    for module, old in zip(modules, before, strict=True):
        new = _state(module)
        changed = [key for key in new if key in old and new[key] is not old[key]]
        changed += [key for key in new if key not in old and is_nnx(module)]
        if changed:
            raise TypeError(_message(name, module, changed))


def is_nnx_module(x: Any) -> bool:
    """Whether x is a Flax NNX module: a graph with state (and no bare variable of one)."""
    return any(c.__module__ in ("flax.nnx.module", "flax.nnx.pytreelib") for c in type(x).__mro__)


def _message(name: str, module: Any, changed: list[str]) -> str:
    shown = ", ".join(changed[:4]) + (" …" if len(changed) > 4 else "")
    sentence = (
        f"{name} wrote to {shown} of {type(module).__name__} while it was evaluated. A solver "
        f"evaluates {name} many times a step, and in steps that it throws away, so nothing may "
        "change there. "
    )
    if not is_nnx(module):
        return sentence + "Return what you need from the field instead, or keep it in args."
    return sentence + (
        "Call model.eval() first, or give use_running_average=True (BatchNorm) and "
        "deterministic=True (Dropout). For dropout in a solve give it one key: "
        "layer(y0, key=key), and self.dropout(x, rngs=key) in the network."
    )


def _modules(x: Any, seen: set[int]) -> Iterator[Any]:
    """Whatever keeps state: NNX modules, and objects that are called."""
    if id(x) in seen:
        return
    seen.add(id(x))
    if is_nnx(x):
        yield x
    elif isinstance(x, types.FunctionType):
        cells = [_content(cell) for cell in x.__closure__ or ()]
        for part in (*cells, x.__defaults__, x.__kwdefaults__, *_used_globals(x).values()):
            yield from _modules(part, seen)
    elif isinstance(x, types.MethodType):
        yield from _modules(x.__self__, seen)
        yield from _modules(x.__func__, seen)
    elif jax.tree_util.all_leaves([x], is_leaf=is_nnx):
        if callable(x) and not isinstance(x, type) and getattr(x, "__dict__", None):
            yield x
            for part in list(x.__dict__.values()):
                yield from _modules(part, seen)
    else:
        for leaf in jax.tree.leaves(x, is_leaf=is_nnx):
            yield from _modules(leaf, seen)


def _state(module: Any) -> dict[str, Any]:
    if not is_nnx(module):
        numbers = (jax.Array, int, float, complex)
        return {k: v for k, v in module.__dict__.items() if isinstance(v, numbers)}
    leaves, _ = jax.tree.flatten_with_path(module)
    return {
        jax.tree_util.keystr(path).strip(".").removesuffix(".value"): leaf for path, leaf in leaves
    }

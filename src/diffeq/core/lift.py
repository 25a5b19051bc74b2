"""Anything a user writes, as arrays and a hashable structure.

A problem holds functions, modules, numbers and arrays. `flatten` separates what is traced (every
array and number, in the cells, defaults, globals and attributes of functions too) from what is
static (code, names, shapes). Two fresh lambdas of the same code have equal structures, so the
second one re-traces nothing; and what a lambda closes over is an input, so it differentiates.
"""

import copy
import types
import warnings
from collections import Counter
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["flatten", "unflatten"]


def flatten(x: Any) -> tuple[list, Hashable]:
    """The arrays and numbers of `x`, and a hashable structure that `unflatten` needs.

    >>> scale = 2.0
    >>> leaves, structure = flatten(lambda t: scale * t)
    >>> leaves
    [2.0]
    >>> structure == flatten(lambda t: scale * t)[1]
    False
    >>> unflatten(structure, [3.0])(1.0)
    3.0
    """
    return jax.tree.flatten(_lift(x, ()))


def unflatten(structure: Hashable, leaves: Any) -> Any:
    """The inverse of `flatten`, with other leaves of the same kinds."""
    return _drop(jax.tree.unflatten(structure, leaves))


class Static:
    """A value without arrays: compared by value where that is possible, else by identity."""

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            hash(value)
            self.by_value = not isinstance(value, _ByIdentity)
        except TypeError:
            self.by_value = False

    def __hash__(self) -> int:
        return hash(self.value) if self.by_value else id(self.value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static):
            return NotImplemented
        if self.value is other.value:
            return True
        return bool(
            self.by_value
            and other.by_value
            and type(self.value) is type(other.value)
            and self.value == other.value
        )

    def __repr__(self) -> str:
        return f"Static({self.value!r})"


_ByIdentity = (types.FunctionType, types.ModuleType, dict)


class _Node:
    """A lifted object: `kind` and `static` say how to rebuild it from `children`."""

    def __init__(self, kind: str, static: Any, children: Any) -> None:
        self.kind, self.static, self.children = kind, static, children


jax.tree_util.register_pytree_node(
    _Node,
    lambda node: ((node.children,), (node.kind, node.static)),
    lambda aux, children: _Node(*aux, children[0]),
)
jax.tree_util.register_pytree_node(Static, lambda s: ((), s), lambda s, _: s)


def _lift(x: Any, path: tuple[int, ...]) -> Any:  # noqa: PLR0911 - one line a kind of thing
    """`x` with every leaf an array or a number, functions opened, the rest static."""
    if _is_number(x) or x is None:
        return x
    if _is_prepared(x):
        return _lift(x.__lifted__(), path)
    if type(x) in (list, dict) and not x:
        return Static(x)  # perhaps a callback fills it: the same one, not a copy
    if type(x) in (tuple, list):
        return type(x)(_lift(v, path) for v in x)
    if type(x) is dict:
        return {k: _lift(v, path) for k, v in x.items()}
    if isinstance(x, types.FunctionType):
        return _lift_function(x, path)
    if isinstance(x, types.MethodType):
        return _Node("method", Static(None), (_lift(x.__func__, path), _lift(x.__self__, path)))
    if _is_nnx(x):
        return _lift_nnx(x)
    if jax.tree_util.all_leaves([x]):
        return _lift_object(x, path)
    leaves, tree = jax.tree.flatten(x, is_leaf=_is_prepared)
    return _Node("tree", Static(tree), [_lift(leaf, path) for leaf in leaves])


def _is_prepared(x: Any) -> bool:
    """Whether x has more to it than its leaves: a table with slopes, found once for a solve."""
    return hasattr(type(x), "__lifted__")


def _is_number(x: Any) -> bool:
    return isinstance(
        x, (jax.Array, np.ndarray, np.generic, float, int, complex, jax.ShapeDtypeStruct)
    ) and (getattr(x, "dtype", None) != np.dtype(object))


def _lift_function(f: types.FunctionType, path: tuple[int, ...]) -> Any:
    if id(f) in path:  # a function that calls itself
        return Static(f)
    path = (*path, id(f))
    cells = tuple(_lift_seen(_content(cell), path) for cell in f.__closure__ or ())
    used = _used_globals(f)
    # A helper's numbers are inputs too, as long as it lives in the same module as its caller; a
    # library's functions are taken as they are.
    outer = {k: _lift_seen(v, path) for k, v in used.items()}
    static = (f.__code__, Static(_Globals(f.__globals__)), f.__name__, f.__qualname__)
    children = (cells, outer, _lift(f.__defaults__, path), _lift(f.__kwdefaults__, path))
    return _Node("function", static, children)


def _lift_seen(x: Any, path: tuple[int, ...]) -> Any:
    """What a function sees from outside. A bare int or bool there is a loop's length or a switch,
    so it is static, by value; in args and everywhere else it is a number like any other.
    """
    return Static(x) if type(x) in (int, bool) else _lift(x, path)


class _Globals:
    """A module's namespace, compared by identity."""

    def __init__(self, namespace: dict) -> None:
        self.namespace = namespace

    def __hash__(self) -> int:
        return id(self.namespace)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Globals) and other.namespace is self.namespace


class _Empty:
    """Stands for a cell that has no content yet."""


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _Empty


_names_of: dict[types.CodeType, tuple[str, ...]] = {}


def _names(code: types.CodeType) -> tuple[str, ...]:
    if code not in _names_of:
        inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
        _names_of[code] = tuple(
            dict.fromkeys([*code.co_names, *(n for names in inner for n in names)])
        )
    return _names_of[code]


def _used_globals(f: types.FunctionType) -> dict[str, Any]:
    """The globals that f reads whose values could change what it computes."""
    found = {}
    for name in _names(f.__code__):
        value = f.__globals__.get(name, _Empty)
        foreign = isinstance(value, types.FunctionType) and value.__globals__ is not f.__globals__
        if value is _Empty or foreign or isinstance(value, (types.ModuleType, type)):
            continue
        if isinstance(value, (types.BuiltinFunctionType, np.ufunc, jnp.ufunc)) or hasattr(
            value, "lower"
        ):
            continue
        found[name] = value
    return found


def _lift_object(x: Any, path: tuple[int, ...]) -> Any:
    """A plain object is its attributes, so that changing one is seen by the next call."""
    attributes: Any = getattr(x, "__dict__", None)
    plain = attributes and not isinstance(x, (type, types.ModuleType)) and not hasattr(x, "lower")
    if plain and id(x) not in path and callable(x) and not hasattr(x, "__wrapped__"):
        path = (*path, id(x))
        return _Node(
            "object", Static(_Shell(x)), {k: _lift(v, path) for k, v in attributes.items()}
        )
    if not _hashable(x):
        _warn_identity(x)
    return Static(x)


class _Shell:
    """What an object is apart from its attributes: its class."""

    def __init__(self, x: Any) -> None:
        self.example = x

    def __hash__(self) -> int:
        return hash(type(self.example))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shell) and type(other.example) is type(self.example)


def _hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True


_seen: Counter = Counter()


def _warn_identity(x: Any) -> None:
    _seen[type(x)] += 1
    if _seen[type(x)] == 3:
        warnings.warn(
            f"A {type(x).__name__} in a field is compared by identity, so each new one compiles "
            "again: pass its numbers through args, or give it a hash.",
            stacklevel=2,
        )


def _drop(x: Any) -> Any:
    """The inverse of `_lift`."""
    is_lifted = lambda v: isinstance(v, (_Node, Static))  # noqa: E731
    return jax.tree.map(lambda v: _rebuild(v) if is_lifted(v) else v, x, is_leaf=is_lifted)


def _rebuild(node: Any) -> Any:
    if isinstance(node, Static):
        return node.value
    parts = _drop(node.children)
    return _REBUILD[node.kind](node.static, parts)


def _rebuild_function(static: Any, parts: Any) -> types.FunctionType:
    code, namespace, name, qualname = static
    cells, outer, defaults, kwdefaults = parts
    scope = {**namespace.value.namespace, **outer} if outer else namespace.value.namespace
    closure = tuple(types.CellType() if c is _Empty else types.CellType(c) for c in cells)
    f = types.FunctionType(code, scope, name, defaults, closure)
    f.__kwdefaults__, f.__qualname__ = kwdefaults, qualname
    return f


def _rebuild_object(static: Static, attributes: dict) -> Any:
    example = static.value.example
    fresh = copy.copy(example)
    fresh.__dict__.update(attributes)
    return fresh


# --- Flax NNX, known by name so that it need not be installed -------------------------------------


def _is_nnx(x: Any) -> bool:
    return any(c.__module__.startswith("flax.nnx") for c in type(x).__mro__)


def _lift_nnx(x: Any) -> Any:
    from flax import nnx

    graph, state = nnx.split(x)
    leaves, tree = jax.tree.flatten(state)
    return _Node("nnx", (Static(graph), tree), leaves)


def _rebuild_nnx(static: Any, leaves: list) -> Any:
    from flax import nnx

    graph, tree = static
    return nnx.merge(graph.value, jax.tree.unflatten(tree, leaves))


_REBUILD = {
    "function": _rebuild_function,
    "method": lambda _, parts: types.MethodType(*parts),
    "object": _rebuild_object,
    "tree": lambda static, leaves: jax.tree.unflatten(static.value, leaves),
    "nnx": _rebuild_nnx,
}

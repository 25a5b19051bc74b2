"""Anything a user writes, as arrays and a hashable structure.

A problem holds functions, modules, numbers and arrays. `flatten` separates what is traced (every
array and number, in the cells, defaults, globals and attributes of functions too) from what is
static (code, names, shapes). Two fresh lambdas of the same code have equal structures, so the
second one re-traces nothing; and what a lambda closes over is an input, so it differentiates.

A Python int or bool that a function sees from outside (in a cell, a global, a default, an
attribute, or in a list of these) is a loop's length, a shape or a switch: it is static, by value.
In args it is a number like any other.
"""

import copy
import dataclasses
import enum
import functools
import types
import warnings
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .changes import changed_names, changes_itself

__all__ = ["INSIDE", "flatten", "unflatten"]


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
    return jax.tree.flatten(_lift(x, _Way()))


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
# Where a warning is not about: it shows the user's line.
INSIDE = tuple(str(Path(p).parent) for p in (jax.__file__, Path(__file__).parent))


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


class _Way(NamedTuple):
    """How `_lift` came to a thing: through which functions and objects (their ids), and whether
    through any.
    """

    through: tuple[int, ...] = ()
    outside: bool = False

    def into(self, x: Any) -> "_Way":
        """The way to what a function or an object holds."""
        return _Way((*self.through, id(x)), True)


def _lift(x: Any, way: _Way) -> Any:  # noqa: PLR0911 - one line a kind of thing
    """`x` with every leaf an array or a number, functions opened, the rest static."""
    if way.outside and type(x) in (int, bool):
        return Static(x)
    if _is_number(x) or x is None:
        return x
    if _is_prepared(x):
        return _lift(x.__lifted__(), way)
    if type(x) in (list, dict) and not x:
        return Static(x)  # the same one, not a copy: perhaps a callback fills it
    if type(x) in (tuple, list):
        return type(x)(_lift(v, way) for v in x)
    if type(x) is dict:
        return {k: _lift(v, way) for k, v in x.items()}
    if type(x) in _FUNCTIONS:
        return _FUNCTIONS[type(x)](x, way)
    if _is_nnx(x):
        return _lift_nnx(x)
    if jax.tree_util.all_leaves([x]):
        return _lift_object(x, way)
    leaves, tree = jax.tree.flatten(x, is_leaf=_is_prepared)
    return _Node("tree", Static(tree), [_lift(leaf, way) for leaf in leaves])


def _is_prepared(x: Any) -> bool:
    """Whether x has more to it than its leaves: a table with slopes, found once for a solve."""
    return hasattr(type(x), "__lifted__")


def _is_number(x: Any) -> bool:
    return isinstance(
        x, (jax.Array, np.ndarray, np.generic, float, int, complex, jax.ShapeDtypeStruct)
    ) and (getattr(x, "dtype", None) != np.dtype(object))


def _lift_function(f: types.FunctionType, way: _Way) -> Any:
    if id(f) in way.through:  # a function that calls itself
        return Static(f)
    way = way.into(f)
    changed = changed_names(f.__code__)

    def seen(name: str, x: Any) -> Any:
        kept = name in changed and (type(x) in (list, dict) or _is_record(x))
        return Static(x) if kept else _lift(x, way)

    contents = map(_content, f.__closure__ or ())
    cells = tuple(map(seen, f.__code__.co_freevars, contents))
    # A helper's numbers are inputs too, as long as it lives in the same module as its caller; a
    # library's functions are taken as they are.
    outer = {name: seen(name, x) for name, x in _used_globals(f).items()}
    static = (f.__code__, Static(_Globals(f.__globals__)), f.__name__, f.__qualname__)
    children = (cells, outer, _lift(f.__defaults__, way), _lift(f.__kwdefaults__, way))
    return _Node("function", static, children)


def _lift_method(x: types.MethodType, way: _Way) -> Any:
    return _Node("method", Static(None), (_lift(x.__func__, way), _lift(x.__self__, way)))


def _lift_partial(x: functools.partial, way: _Way) -> Any:
    given = (x.args, tuple(x.keywords.values()))
    parts = (_lift(x.func, way), _lift(given, way.into(x)))
    return _Node("partial", Static(tuple(x.keywords)), parts)


_FUNCTIONS: dict[type, Any] = {
    types.FunctionType: _lift_function,
    types.MethodType: _lift_method,
    functools.partial: _lift_partial,
}


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


def _lift_object(x: Any, way: _Way) -> Any:
    """A plain object is its attributes, so that changing one is seen by the next call."""
    attributes = _attributes(x)
    if attributes and id(x) not in way.through and (_is_callable(x) or _is_record(x)):
        way = way.into(x)
        held = {k: _lift(v, way) for k, v in attributes.items()}
        return _Node("object", Static(_Shell(x)), held)
    _note_identity(x)
    return Static(x)


def _attributes(x: Any) -> dict[str, Any]:
    """What an object holds; nothing for classes, modules and compiled functions."""
    if isinstance(x, (type, types.ModuleType, enum.Enum)) or hasattr(x, "lower"):
        return {}
    slots = [n for c in type(x).__mro__ for n in vars(c).get("__slots__", ()) if hasattr(x, n)]
    return {n: getattr(x, n) for n in slots if n != "__dict__"} | getattr(x, "__dict__", {})


def _is_callable(x: Any) -> bool:
    return callable(x) and not hasattr(x, "__wrapped__")


def _is_record(x: Any, depth: int = 3) -> bool:
    """Whether an object holds data and nothing else, such as a dataclass of settings."""
    kind = type(x)
    made_plainly = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ in (
        object.__reduce__,
        types.SimpleNamespace.__reduce__,
    )
    if not made_plainly or hasattr(kind, "__del__") or hasattr(kind, "__copy__"):
        return False
    if changes_itself(kind) or (_says_equal(kind) and not dataclasses.is_dataclass(kind)):
        return False
    return all(_is_data(v, depth) for v in _attributes(x).values())


def _is_data(x: Any, depth: int) -> bool:
    if x is None or isinstance(x, (str, types.FunctionType)) or _is_number(x):
        return True
    if not jax.tree_util.all_leaves([x]):
        return all(_is_data(leaf, depth) for leaf in jax.tree.leaves(x))
    return depth > 0 and bool(_attributes(x)) and _is_record(x, depth - 1)


class _Shell:
    """What an object is apart from its attributes: its class."""

    def __init__(self, x: Any) -> None:
        self.example = x

    def __hash__(self) -> int:
        return hash(type(self.example))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shell) and type(other.example) is type(self.example)


def _says_equal(kind: type) -> bool:
    """Whether a class says itself how its objects are compared."""
    return kind.__hash__ not in (None, object.__hash__)


_by_identity: dict[Any, set[int]] = defaultdict(set)


def _note_identity(x: Any) -> None:
    """Counts the different things of one kind that are compared by identity; the third is told."""
    inner = getattr(x, "__wrapped__", x)
    if inner is x and _says_equal(type(x)) and Static(x).by_value:
        return
    if isinstance(x, (type, types.ModuleType, types.BuiltinFunctionType)):
        return
    seen = _by_identity[type(x), getattr(inner, "__code__", None)]
    known = id(x) in seen
    seen.add(id(x))
    if not known and len(seen) == 3:
        warnings.warn(
            f"The third {type(x).__name__} of its kind is in a field. It is compared by identity, "
            "so each new one compiles again: make it once, pass its numbers through args, or give "
            "it a hash and equality by value.",
            skip_file_prefixes=INSIDE,
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


def _rebuild_partial(names: Static, parts: Any) -> functools.partial:
    f, (args, values) = parts
    return functools.partial(f, *args, **dict(zip(names.value, values, strict=True)))


def _rebuild_object(static: Static, attributes: dict) -> Any:
    example = static.value.example
    fresh = copy.copy(example)
    for name, value in attributes.items():
        object.__setattr__(fresh, name, value)  # a frozen dataclass has no other way
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
    "partial": _rebuild_partial,
    "object": _rebuild_object,
    "tree": lambda static, leaves: jax.tree.unflatten(static.value, leaves),
    "nnx": _rebuild_nnx,
}

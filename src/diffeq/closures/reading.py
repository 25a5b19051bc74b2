"""`reading_of`: everything that a trace of a function would read, as one hashable key.

A traced function is constant in whatever it reads except its arguments: closure cells, defaults,
globals, attributes of modules and objects, the methods of classes. Two readings that are equal and
`certain` promise that two traces would be the same, so that the second one can be left out. What
cannot be looked into (the state of a C extension, `eval`) makes a reading uncertain: the function
is then traced again, which is slower and never wrong.

Code that is installed (the standard library, site-packages, this package) is taken to stay as it
is while a program runs.
"""

import builtins
import enum
import functools
import hashlib
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..autodiff.jax_internals import ShapedArray, Tracer, is_trace, parts_of_rule

__all__ = [
    "HashedKey",
    "Identity",
    "Reading",
    "attributes_of",
    "cell_content",
    "contents_of",
    "is_installed",
    "names_in",
    "reading_key",
    "reading_of",
]


class Identity:
    """A value that is compared by identity, and kept alive so that its id is not given again."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.value is self.value

    def __repr__(self) -> str:
        return f"Identity({self.value!r})"


class HashedKey:
    """A nested tuple whose hash is computed once."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: tuple) -> None:
        self.parts, self._hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, HashedKey) and self._hash == other._hash and self.parts == other.parts
        )


class Reading(NamedTuple):
    """The key of all that was read, and whether nothing else can be read."""

    key: Hashable
    certain: bool


def reading_of(*roots: object) -> Reading:
    """Returns all that a trace of these would read.

    >>> law = "growth"
    >>> field = lambda t, y, args: y if law == "growth" else -y
    >>> before = reading_of(field)
    >>> before == reading_of(field), before.certain
    (True, True)
    >>> law = "decay"
    >>> before == reading_of(field)
    False
    """
    reader = Reader()
    key = tuple(reader.read(root) for root in roots)
    return Reading(key, reader.certain)


def reading_key(x: object) -> Hashable:
    """The key of a value: what a trace would read of it, where that is certain, else its identity.

    >>> reading_key([1, "a"]) == reading_key([1, "a"]), reading_key(eval) == reading_key(eval)
    (True, True)
    """
    reading = reading_of(x)
    return HashedKey((reading.key,)) if reading.certain else Identity(x)


_MOST = 10_000  # things that are looked at; beyond, tracing is as fast
# With these a function can read what its code does not name, or what changes by itself.
_OPAQUE = frozenset({"eval", "exec", "globals", "locals", "vars", "getattr", "open", "input"})
_CHANGING = frozenset({"random", "time", "secrets", "datetime", "os", "uuid", "numpy.random"})
_PLAIN = (bool, int, str, bytes, type(None), type(Ellipsis), type(NotImplemented))
_VALUES = (enum.Enum, np.dtype, types.CodeType, jax.tree_util.PyTreeDef, ShapedArray)
_SEQUENCES = (tuple, list, deque)
_C_CALLABLES = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    np.ufunc,
)
# Entries of a class that say nothing of what its objects do.
_BOOKKEEPING = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__module__",
        "__doc__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__abstractmethods__",
        "_abc_impl",
        "__parameters__",
        "__orig_bases__",
        "__static_attributes__",
        "__firstlineno__",
        "__slots__",
        "__slotnames__",
        "__qualname__",
        "__type_params__",
    }
)


class Reader:
    """One reading. Things that hold others are numbered, so that a cycle ends, and so that two
    names of one list differ from two equal lists.
    """

    def __init__(self) -> None:
        self.certain = True
        self.numbers: dict[int, int] = {}
        self.modules: set[tuple] = set()
        self.alive: list[object] = []

    def read(  # noqa: PLR0911 - a table
        self, x: object, names: tuple[str, ...] | None = None
    ) -> Hashable:
        """The key of one thing; `names` are those that the code which sees it uses, if known."""
        kind = type(x)
        if kind in _PLAIN:
            return kind, x
        if kind in (float, complex):
            return kind, repr(x)
        if isinstance(x, jax.Array):
            self.certain &= not isinstance(x, Tracer)
            return Identity(x)
        if isinstance(x, (np.ndarray, np.generic)) and not x.dtype.hasobject:
            return kind, x.dtype.str, x.shape, _digest(x)
        if isinstance(x, _VALUES):
            return kind, x
        if isinstance(x, _C_CALLABLES):
            return self._c_callable(x)
        if isinstance(x, types.ModuleType):
            return self._module(x, names)
        if id(x) in self.numbers:
            return "seen", self.numbers[id(x)]
        self.numbers[id(x)] = len(self.numbers)
        self.alive.append(x)
        if len(self.numbers) > _MOST:
            self.certain = False
        return Identity(x) if not self.certain else self._composite(x, names)

    def _composite(self, x: object, names: tuple[str, ...] | None) -> Hashable:  # noqa: C901, PLR0911 - a table
        if isinstance(x, types.FunctionType):
            return self._function(x)
        if isinstance(x, type):
            return self._class(x)
        if isinstance(x, types.MethodType):
            return "method", self.read(x.__func__), self.read(x.__self__)
        if isinstance(x, functools.partial):
            parts = (x.func, x.args, x.keywords)
            return "partial", *(self.read(part, names) for part in parts), self._attributes(x)
        if isinstance(x, property):
            return "property", *(self.read(f) for f in (x.fget, x.fset))
        if isinstance(x, (staticmethod, classmethod)):
            return type(x), self.read(x.__func__)
        if isinstance(x, (range, slice)):
            return type(x), repr(x)
        if isinstance(x, types.CellType):
            return "cell", self.read(cell_content(x), names)
        if type(x).__module__.startswith("jaxlib"):  # what jit returns: JAX keeps its traces by it
            return Identity(x)
        if (rule := parts_of_rule(x)) is not None:
            return "rule", *map(self.read, rule)
        if is_trace(x):  # that met such a rule
            return type(x)
        return self._object(x)

    # --- functions and modules -------------------------------------------------------------------

    def _function(self, f: types.FunctionType) -> Hashable:
        installed = _is_installed_file(f.__code__.co_filename)
        if installed and not (f.__closure__ or f.__defaults__ or f.__kwdefaults__):
            if "<locals>" not in f.__qualname__:
                return Identity(f)
            return "local", f.__code__, Identity(f.__globals__), self._attributes(f)
        names = names_in(f.__code__)
        cells = tuple(self.read(cell_content(c), names) for c in f.__closure__ or ())
        defaults = (self.read(f.__defaults__), self.read(f.__kwdefaults__))
        outer = () if installed else tuple(self._globals(f, names))
        return "function", f.__code__, cells, defaults, outer, self._attributes(f)

    def _globals(self, f: types.FunctionType, names: tuple[str, ...]) -> Iterator[Hashable]:
        for name in names:
            if name in f.__globals__:
                yield name, self.read(f.__globals__[name], names)
            elif hasattr(builtins, name):
                self.certain &= name not in _OPAQUE
            elif name in sys.modules:  # imported inside the function, perhaps
                yield name, self.read(sys.modules[name], names)

    def _module(self, module: types.ModuleType, names: tuple[str, ...] | None) -> Hashable:
        """A module is what is read of it: its attributes of these names. An installed one stays as
        it is.
        """
        self.certain &= module.__name__ not in _CHANGING
        if (id(module), names) in self.modules:
            return Identity(module)
        self.modules.add((id(module), names))
        space, installed = vars(module), _is_installed_module(module.__name__)
        shown = [n for n in (space if names is None else names) if n in space]
        if installed:
            shown = [n for n in shown if names and isinstance(space[n], types.ModuleType)]
        return Identity(module), tuple((n, self.read(space[n], names)) for n in shown)

    def _c_callable(self, x: Any) -> Hashable:
        """A function in C: as it is, or what it is bound to."""
        owner = getattr(x, "__self__", None)
        if owner is None or isinstance(owner, (types.ModuleType, type)):
            self.certain &= getattr(owner, "__name__", "") not in _CHANGING
            return Identity(x)
        return "bound", x.__name__, self.read(owner)

    # --- classes and objects ---------------------------------------------------------------------

    def _class(self, kind: type) -> Hashable:
        """A class of the user's is the functions and values in it, and those of its bases."""
        written = [c for c in kind.__mro__ if not is_installed(c)]
        entries = tuple(
            (name, self.read(x))
            for c in written
            for name, x in vars(c).items()
            if name not in _BOOKKEEPING and not isinstance(x, _C_CALLABLES)
        )
        return Identity(kind), entries

    def _object(self, x: object) -> Hashable:
        kind = type(x)
        if _hides_state(kind):
            self.certain = False
            return Identity(x)
        items: Hashable = ()
        if isinstance(x, dict):
            items = tuple((self.read(k), self.read(v)) for k, v in x.items())
        elif isinstance(x, _SEQUENCES):
            items = tuple(map(self.read, x))
        elif isinstance(x, (set, frozenset)):
            items = frozenset(map(self.read, x))
        elif isinstance(x, types.MappingProxyType):
            items = tuple((self.read(k), self.read(v)) for k, v in x.items())
        return "object", self.read(kind), items, self._attributes(x)

    def _attributes(self, x: object) -> Hashable:
        return tuple((name, self.read(value)) for name, value in attributes_of(x))


# --- what things hold -----------------------------------------------------------------------------


def attributes_of(x: object) -> Iterator[tuple[str, Any]]:
    """The attributes that an object has of its own: slots, and what is in its `__dict__`."""
    for kind in type(x).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            member = vars(kind).get(name)
            if isinstance(member, types.MemberDescriptorType):
                try:
                    yield name, member.__get__(x, type(x))
                except AttributeError:
                    continue  # never set
    try:
        yield from object.__getattribute__(x, "__dict__").items()
    except AttributeError:
        return


def contents_of(f: types.FunctionType) -> Iterator[Any]:
    """Yields the values that a function has from outside: its cells, its defaults, the globals that
    it names.
    """
    yield from (cell_content(cell) for cell in f.__closure__ or ())
    yield from f.__defaults__ or ()
    yield from (f.__kwdefaults__ or {}).values()
    if not _is_installed_file(f.__code__.co_filename):
        yield from (f.__globals__[name] for name in global_names(f))


def global_names(f: types.FunctionType) -> tuple[str, ...]:
    """The names of the globals that a function, or one inside it, uses."""
    return tuple(name for name in names_in(f.__code__) if name in f.__globals__)


class Unset:
    """Stands for a cell that has no content yet."""


def cell_content(cell: types.CellType) -> Any:
    """The content of a closure cell."""
    try:
        return cell.cell_contents
    except ValueError:
        return Unset


_names: dict[types.CodeType, tuple[str, ...]] = {}


def names_in(code: types.CodeType) -> tuple[str, ...]:
    """All names that code uses for globals and attributes, those of functions inside it too."""
    if code not in _names:
        inner: Iterable = (names_in(c) for c in code.co_consts if isinstance(c, types.CodeType))
        _names[code] = tuple(dict.fromkeys([*code.co_names, *(n for ns in inner for n in ns)]))
    return _names[code]


# --- what stays as it is --------------------------------------------------------------------------

_INSTALLED = tuple(
    f"{Path(p).resolve()}/"
    for p in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *(Path(m.__file__ or "").parent for m in (jax, np)),
        Path(__file__).parents[1],
    )
)


@functools.cache
def _is_installed_file(name: str) -> bool:
    return name.startswith("<frozen") or str(Path(name).resolve()).startswith(_INSTALLED)


@functools.cache
def _is_installed_module(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return name in sys.builtin_module_names if file is None else _is_installed_file(file)


def is_installed(x: object) -> bool:
    """True if x is a function or a class that an installed module defines."""
    if isinstance(x, types.FunctionType):
        return _is_installed_file(x.__code__.co_filename) and x.__closure__ is None
    return isinstance(x, type) and _is_installed_module(x.__module__)


@functools.cache
def _hides_state(kind: type) -> bool:
    """True if objects of a class have memory that neither slots nor a `__dict__` show: that which a
    class written in C adds. Containers of Python are read by their items.
    """
    for c in kind.__mro__[:-1]:
        if c in (dict, list, tuple, set, frozenset, deque, types.MappingProxyType):
            return False
        base = c.__base__ or object
        slots = [x for x in vars(c).values() if isinstance(x, types.MemberDescriptorType)]
        if (
            c.__basicsize__ - base.__basicsize__ > 8 * len(slots)
            or c.__itemsize__ != base.__itemsize__
        ):
            return True
    return False


def _digest(x: np.ndarray | np.generic) -> bytes:
    raw = np.ascontiguousarray(x).tobytes()
    return raw if len(raw) <= 64 else hashlib.blake2b(raw, digest_size=16).digest()

"""`Footprint`: what a reading of a function has looked at, by which a next one can be left out.

A reading (`TorchReader`) walks through all that a function reaches and makes a key of it. In a
training loop the same function comes again, and nothing in it has changed but the numbers of its
tensors. This compares object by object what each one holds now with what it held then, by identity:
it sees at least what the reading sees, and where it sees a change the function is read anew.
"""

import sys
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from operator import is_
from typing import Any

import jax
import numpy as np
import torch

from ..closures.reading import attributes_of, cell_content, is_installed, names_in

__all__ = ["Footprint", "Recent"]

# What never changes, or is part of a key as it is.
_FIXED = (
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Size,
    types.CodeType,
    types.MethodType,
    property,
    staticmethod,
    classmethod,
    range,
    slice,
    complex,
    bytes,
    np.generic,
    jax.Array,
)


class Footprint:
    """The objects of a reading, and what each of them held. It does not keep the `roots` alive,
    unless another object of the reading does.
    """

    def __init__(self, roots: Sequence[object] = ()) -> None:
        self.complete = True  # False: something can change that this does not see
        self._roots = {id(x) for x in roots}
        self._empty: list[dict | list | set] = []
        self._modules: set[tuple] = set()
        self._tensors: list[torch.Tensor] = []
        self._kinds: list[tuple] = []
        self._looks: list[tuple[Callable[[Any], list], Any, list]] = []
        self._looks_at_roots: list[tuple[Callable[[Any], list], weakref.ref, list]] = []

    def add(self, x: object, names: tuple[str, ...] | None) -> None:
        """Notes what one object holds; of a module of Python what these names mean."""
        if isinstance(x, torch.Tensor):
            # What was computed is computed anew in a next step, and would keep its graph alive.
            self.complete &= x.grad_fn is None
            self._tensors.append(x)
            self._kinds.append(_kind(x))
        elif isinstance(x, np.ndarray) or type(x).__module__.startswith("jax"):
            self.complete &= isinstance(x, jax.Array)
        elif isinstance(x, (list, set)) and type(x) in (list, set) and not x:
            self._empty.append(x)
        elif isinstance(x, types.ModuleType):
            if (id(x), names) not in self._modules:
                self._modules.add((id(x), names))
                self._look(partial(_of_names, names), x)
        elif not isinstance(x, _FIXED) and not _is_installed_class(x):
            self._look(_contents_by(x), x)

    def add_module(self, module: torch.nn.Module, counters: Sequence[str]) -> None:
        """Notes what a module of torch holds, but for what counts its calls."""
        self._look(partial(_of_torch_module, frozenset(counters)), module)
        for value in vars(module).values():
            if isinstance(value, dict) and not value:
                self._empty.append(value)
            elif type(value) is dict:
                self._look(_of_dict, value)

    def _look(self, contents: Callable[[Any], list], x: Any) -> None:
        if id(x) in self._roots:
            try:
                self._looks_at_roots.append((contents, weakref.ref(x), contents(x)))
            except TypeError:  # of a class with slots
                self.complete = False
        else:
            self._looks.append((contents, x, contents(x)))

    def unchanged(self) -> bool:
        """True if a reading would find what it found then."""
        if any(self._empty) or list(map(_kind, self._tensors)) != self._kinds:
            return False
        roots = ((contents(ref()), held) for contents, ref, held in self._looks_at_roots)
        others = ((contents(x), held) for contents, x, held in self._looks)
        return all(map(_same, roots)) and all(map(_same, others))


def _same(pair: tuple[list, list]) -> bool:
    now, held = pair
    return len(now) == len(held) and all(map(is_, now, held))


def _kind(x: torch.Tensor) -> tuple:
    return x.dtype, x.shape, x.device


# --- what an object holds -------------------------------------------------------------------------


def _contents_by(x: object) -> Callable[[Any], list]:
    """The function that lists what objects like this one hold."""
    if isinstance(x, types.FunctionType):
        return _of_function
    if isinstance(x, type):
        return _of_class
    if isinstance(x, types.CellType):
        return _of_cell
    return _of_dict if type(x) is dict else _of_object


def _is_installed_class(x: object) -> bool:
    return isinstance(x, type) and all(map(is_installed, x.__mro__))


def _of_names(names: tuple[str, ...] | None, module: types.ModuleType) -> list:
    space = vars(module)
    return _of_dict(space) if names is None else list(map(space.get, names))


def _of_function(f: types.FunctionType) -> list:
    names = names_in(f.__code__)
    return [
        f.__code__,
        f.__defaults__,
        f.__kwdefaults__,
        *map(cell_content, f.__closure__ or ()),
        *map(f.__globals__.get, names),
        *map(sys.modules.get, names),
        *vars(f).values(),
    ]


def _of_class(kind: type) -> list:
    written = (vars(c).values() for c in kind.__mro__ if not is_installed(c))
    return [kind.__mro__, *(x for values in written for x in values)]


def _of_cell(cell: types.CellType) -> list:
    return [cell_content(cell)]


def _of_dict(x: dict) -> list:
    return [*x, *x.values()]


def _of_torch_module(counters: frozenset[str], module: torch.nn.Module) -> list:
    space = vars(module)
    if not counters:
        return [type(module), *space, *space.values()]
    return [type(module), *space, *(x for name, x in space.items() if name not in counters)]


def _of_object(x: Any) -> list:
    items = ()
    if isinstance(x, (dict, types.MappingProxyType)):
        items = (*x.keys(), *x.values())
    elif isinstance(x, (list, tuple, set, frozenset)) or hasattr(type(x), "popleft"):
        items = x
    return [type(x), *items, *(part for pair in attributes_of(x) for part in pair)]


# --- functions that came before -------------------------------------------------------------------


class Recent[Found]:
    """The findings of functions that came before, as long as they live and nothing changes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._entries: OrderedDict[Hashable, tuple[list[weakref.ref], Footprint, Found]]
        self._entries = OrderedDict()

    def get(self, owners: Sequence[object], key: Hashable) -> Found | None:
        """Returns what was found of these objects; None if it is unknown, or something changed."""
        entry = self._entries.get((*map(id, owners), key))
        if entry is None:
            return None
        refs, footprint, found = entry
        same = all(ref() is x for ref, x in zip(refs, owners, strict=True))
        return found if same and footprint.unchanged() else None

    def put(
        self, owners: Sequence[object], key: Hashable, footprint: Footprint, found: Found
    ) -> None:
        """Keeps what was found; does nothing if a change would not be seen."""
        place = (*map(id, owners), key)
        self._entries.pop(place, None)
        if not footprint.complete:
            return
        entries = self._entries

        def forget(ref: weakref.ref) -> None:
            del ref
            entries.pop(place, None)

        try:
            refs = [weakref.ref(x, forget) for x in owners]
        except TypeError:
            return
        entries[place] = refs, footprint, found
        if len(entries) > self.most:
            entries.popitem(last=False)

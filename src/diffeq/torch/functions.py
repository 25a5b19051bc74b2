"""`torch_function`: a function in torch as a program in JAX, and the tensors that it sees.

A function is traced again where it reads something else than before: a Python number, a flag such
as `training`, tensors of other shapes. Tensors count by shape and dtype alone, for their numbers
are inputs. What cannot be read with certainty is traced in each call, and compiled again where its
graph is another one.
"""

import contextlib
import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from jaxtyping import Array

from ..closures.reading import Reader
from .arrays import check_device
from .evaluate import evaluate_graph, has_lowering
from .graph import graph_of
from .unchanged import Footprint, Recent

__all__ = ["TorchFunction", "TorchProgram", "TorchReader", "count_calls", "torch_function"]

_KEPT = 256
_programs: OrderedDict[Hashable, "_ReadProgram"] = OrderedDict()


class TorchProgram:
    """A graph as a function in JAX, of arrays for the tensors that it sees from outside and for its
    arguments. `key` is equal where the graph is. It holds none of these tensors.
    """

    def __init__(self, name: str, graph: torch.fx.GraphModule, places: Sequence[str]) -> None:
        self.name, self.graph, self.places = name, graph, places
        self.key: Hashable = ()
        self.is_long = False  # a solve has needed more attempts than a short program makes

    @cached_property
    def returned(self) -> Any:
        """The tensors that it returns, without numbers: a list, unless it is one."""
        (out,) = self.graph.graph.output_node().args
        return torch.fx.map_arg(out, lambda node: node.meta["val"])

    def __call__(
        self, tensors: Sequence[Array], *arguments: Array, past: Callable | None = None
    ) -> Any:
        captured = dict(zip(self.places, tensors, strict=True))
        return evaluate_graph(self.graph, self.name, captured, arguments, past)


class TorchFunction(NamedTuple):
    """A function in torch in one call: its program, and the tensors that it sees from outside."""

    program: TorchProgram
    tensors: list[torch.Tensor]
    counting: "list[weakref.ref[torch.nn.Module]]"  # the modules that count their calls


class _ReadProgram(NamedTuple):
    """A program, which of the tensors that were read it sees, in its order, and by how much which
    attributes of the modules that were read count their calls.
    """

    program: TorchProgram
    order: list[int]
    counters: list[dict[str, int]]


def torch_function(
    f: Any, examples: Sequence[torch.Tensor], name: str, call: Callable = lambda f, *x: f(*x)
) -> TorchFunction:
    """`f`, a function or several, for arguments like the examples: `call(f, *examples)` calls it.

    Raises:
        TypeError: f does what a solve cannot have (`graph_of`), or writes to its attributes.
    """
    f = _opened(f)
    owners = _owners(f)
    place = (name, call, tuple((x.dtype, x.shape) for x in examples))
    known = _recent.get(owners, place)
    if known is not None:
        return known
    reader = TorchReader(Footprint(owners))
    key = (reader.read(f), *place[1:])
    found = _programs.get(key) if reader.certain else None
    if found is None:
        program, tensors = _new_program(partial(call, f), examples, name, reader)
        order = {id(x): i for i, x in enumerate(reader.tensors)}
        if reader.certain and all(id(x) in order for x in tensors):
            reader = TorchReader(Footprint(owners))  # which leaves out what counts calls
            key = (reader.read(f), *place[1:])
            counters = [dict(_counters.get(m, ())) for m in reader.torch_modules]
            found = _ReadProgram(program, [order[id(x)] for x in tensors], counters)
            _programs[key] = found
            if len(_programs) > _KEPT:
                _programs.popitem(last=False)
    else:
        program, tensors = found.program, [reader.tensors[i] for i in found.order]
        for module, counted in zip(reader.torch_modules, found.counters, strict=True):
            if counted:  # where they are attributes of the class, nothing else tells of them
                _counters.setdefault(module, counted)
    for x in tensors:
        check_device(f"a tensor of {name}", x)
    counting = [weakref.ref(m) for m in reader.torch_modules if m in _counters]
    function = TorchFunction(program, tensors, counting)
    if found is not None and isinstance(call, FunctionType):
        _recent.put(owners, place, reader.footprint, function)
    return function


_recent: Recent[TorchFunction] = Recent(16)


def _opened(f: Any) -> Any:
    """The module or function that `torch.compile` was given, of what it has made."""
    return getattr(f, "_orig_mod", getattr(f, "_torchdynamo_orig_callable", f))


def _owners(f: Any) -> tuple:
    """The objects that a function or several consist of, if they are asked for anew each time."""
    if isinstance(f, MethodType):
        return f.__func__, f.__self__
    return tuple(x for part in f for x in _owners(part)) if type(f) is tuple else (f,)


def _new_program(
    f: Callable, examples: Sequence[torch.Tensor], name: str, reader: "TorchReader"
) -> tuple[TorchProgram, list[torch.Tensor]]:
    """A program, and the tensors that it sees."""
    with _watched_attributes(name, reader.torch_modules):
        graph = graph_of(f, examples, name, has_lowering)
    nodes = [n for n in graph.graph.nodes if n.op == "get_attr"]
    found = {str(n.target): getattr(graph, str(n.target)) for n in nodes}
    # A tensor that the function itself makes of numbers is a constant, and the others are seen.
    fixed = sorted({str(n.target) for n in nodes if _is_fresh(n)})
    seen = {name: x for name, x in found.items() if name not in fixed}
    program = TorchProgram(name, graph, list(seen))
    kinds = tuple((x.dtype, x.shape, x.device) for x in seen.values())
    shapes = tuple((x.dtype, x.shape) for x in examples)
    values = tuple(_constant_digest(found[x]) for x in fixed)
    program.key = (graph.code, shapes, kinds, values)
    for place in seen:
        delattr(graph, place)
    return program, list(seen.values())


def _is_fresh(node: torch.fx.Node) -> bool:
    """True if a tensor was made while the function ran, as `torch.tensor([1.0, 2.0])` makes one."""
    fresh = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)
    return all(user.target in fresh for user in node.users)


def _constant_digest(x: torch.Tensor) -> Hashable:
    raw = x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return x.dtype, x.shape, hashlib.blake2b(raw, digest_size=16).digest()


# --- what a function reads ------------------------------------------------------------------------


_IMMUTABLE = frozenset({type(None), bool, int, float, str})


class TorchReader(Reader):
    """Reads functions and modules of torch: tensors are leaves, numbered as they are found."""

    def __init__(self, footprint: Footprint | None = None) -> None:
        super().__init__()
        self.tensors: list[torch.Tensor] = []
        self.torch_modules: list[torch.nn.Module] = []
        self.footprint = Footprint() if footprint is None else footprint

    def read(self, x: object, names: tuple[str, ...] | None = None) -> Hashable:
        if type(x) in _IMMUTABLE:
            return super().read(x, names)
        if id(x) not in self.numbers and not isinstance(x, torch.nn.Module):
            self.footprint.add(x, names)
        if isinstance(x, torch.Tensor):
            return self._tensor(x)
        if isinstance(x, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
            return type(x), x
        if isinstance(x, torch.Size):
            return "size", tuple(x)
        if isinstance(x, torch.nn.Module) and id(x) not in self.numbers:
            self.numbers[id(x)] = len(self.numbers)
            return self._torch_module(x)
        return super().read(x, names)

    def _tensor(self, x: torch.Tensor) -> Hashable:
        if id(x) not in self.numbers:
            self.numbers[id(x)] = len(self.numbers)
            self.tensors.append(x)
        return "tensor", self.numbers[id(x)], x.dtype, x.shape, x.device

    def _torch_module(self, module: torch.nn.Module) -> Hashable:
        self.torch_modules.append(module)
        counters = _counters.get(module, ())
        self.footprint.add_module(module, tuple(counters))
        entries = tuple(
            (name, self._entry(value))
            for name, value in vars(module).items()
            if name not in counters and not (isinstance(value, dict) and not value)
        )
        return "module", self.read(type(module)), entries

    def _entry(self, value: object) -> Hashable:
        """An attribute of a module: its parameters, buffers and children are dictionaries."""
        if type(value) is not dict:
            return self.read(value)
        return tuple((key, self.read(part)) for key, part in value.items())


# --- what a function writes -----------------------------------------------------------------------

# The attributes of modules that count their calls (`self.nfe += 1`), and by how much.
_counters: "weakref.WeakKeyDictionary[torch.nn.Module, dict[str, int]]"
_counters = weakref.WeakKeyDictionary()


def count_calls(functions: Iterable[TorchFunction], calls: Callable[[], int]) -> None:
    """Adds the evaluations of a solve to what counts the calls of its functions; their number is
    asked for where something does.
    """
    modules = [ref() for f in functions for ref in f.counting]
    for module in filter(None, modules):
        for name, step in _counters[module].items():
            setattr(module, name, getattr(module, name) + calls() * step)


@contextlib.contextmanager
def _watched_attributes(name: str, modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Finds the counters among what one call writes to modules, which have their old attributes
    again afterwards; refuses all else that is written.
    """
    before = [(module, dict(vars(module))) for module in modules]
    try:
        yield
    finally:
        written = [(m, key, old) for m, old in before for key in _changed(m, old)]
        for module, key, old in written:
            value = vars(module).get(key)
            previous = old.get(key, getattr(type(module), key, None))
            if key not in old:
                delattr(module, key)
            else:
                object.__setattr__(module, key, old[key])
            if type(value) is int and type(previous) is int:
                _counters.setdefault(module, {})[key] = value - previous
    refused = [(m, key) for m, key, _ in written if key not in _counters.get(m, ())]
    for module, key in refused:
        raise TypeError(
            f"{name} writes to its attribute {key} ({type(module).__name__}) while it is "
            f"evaluated. A solver evaluates {name} many times a step, and in steps that it throws "
            "away, and it is compiled: nothing may change there but a whole number that counts "
            "calls (self.nfe += 1). Return what you need as a part of the state."
        )


def _changed(module: torch.nn.Module, old: dict[str, Any]) -> list[str]:
    new = vars(module)
    return [k for k in {**old, **new} if k not in new or k not in old or new[k] is not old[k]]

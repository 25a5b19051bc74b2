"""`graph_of`: a function in torch as a graph of its operations.

Torch itself follows the function once, on tensors without numbers, and writes down each operation
of its core: what the function closes over and wherever it lies, `torch.autograd.grad` inside of it,
writes in place to what it has made. What a solve cannot have is refused where it happens, by name:
random numbers, writes to what lives on, Python that looks at the numbers of a tensor.
"""

import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch._decomp import core_aten_decompositions
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import Library, impl
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

__all__ = ["graph_of", "past_by_torch"]

_aten = torch.ops.aten
# What reads numbers: bool(), item(), float(), if; and results whose shape depends on numbers.
_READS = (_aten._local_scalar_dense.default, _aten.is_nonzero.default, _aten.equal.default)
# What torch itself refuses of two dtypes, though not of tensors without numbers.
_PRODUCTS = (
    *(_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default),
    *(_aten.mv.default, _aten.dot.default, _aten.convolution.default),
)
_SHAPED_BY_NUMBERS = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output)


def graph_of(
    f: Callable, examples: Iterable[torch.Tensor], name: str, has_lowering: Callable[[Any], bool]
) -> torch.fx.GraphModule:
    """The graph of `f` for tensors like these. Operations that have no lowering are taken apart
    into others, where torch knows how.

    Raises:
        TypeError: f draws random numbers, writes to what lives on, or looks at numbers.
    """
    examples = [torch.empty_like(x).requires_grad_(x.is_floating_point()) for x in examples]
    table = _decompositions(has_lowering)

    def watched(*args: torch.Tensor) -> Any:
        with torch.enable_grad(), _Operations(name), _Functions():
            try:
                return _without_numpy(name, f(*args))
            except Exception as error:
                error.add_note(
                    f"{name} was being compiled: it is called once, with tensors that have no "
                    "numbers, and all that it does has to be done by functions of torch. An array "
                    "of NumPy becomes a tensor by torch.from_numpy."
                )
                raise

    graph = _make_graph(watched, examples, table)
    if any(_is_write(node.target) for node in graph.graph.nodes):
        graph = _make_graph(functionalize(graph, remove="mutations"), examples, table)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _without_numpy(name: str, returned: Any) -> Any:
    """Returns what a function returned; refuses an array of NumPy."""
    if any(isinstance(x, np.ndarray) for x in tree_flatten(returned)[0]):
        raise TypeError(
            f"{name} returned an array of NumPy; a tensor that is made by functions of torch is "
            "wanted."
        )
    return returned


@functools.cache
def _decompositions(has_lowering: Callable[[Any], bool]) -> dict[Any, Callable]:
    """The rules by which torch takes operations apart that have no lowering."""
    return {op: g for op, g in core_aten_decompositions().items() if not has_lowering(op)}


def _make_graph(
    f: Callable, examples: list[torch.Tensor], table: dict[Any, Callable]
) -> torch.fx.GraphModule:
    make = make_fx(f, table, tracing_mode="fake", _allow_non_fake_inputs=True)
    with _quiet(), _compiled_functions_opened():
        return make(*examples)


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch says nothing inside but by an error that it raises."""
    log = logging.getLogger("torch._subclasses.fake_tensor")  # which prints the stack of an error
    known = lambda record: record.levelno < logging.ERROR  # noqa: E731
    log.addFilter(known)
    try:
        with warnings.catch_warnings():
            # Torch reads the .grad of each tensor that f sees, and hides its own warning about that
            # from those who read warnings, but not where warnings are errors.
            warnings.filterwarnings(
                "ignore", r"The \.grad attribute of a Tensor that is not a leaf"
            )
            yield
    finally:
        log.removeFilter(known)


def _compiled_functions_opened() -> AbstractContextManager:
    """Follows what `torch.compile` has made inside, like the function that it was made of."""
    compiler = sys.modules.get("torch._dynamo")  # nothing has been compiled without it
    return compiler.config.patch(error_on_nested_fx_trace=False) if compiler else nullcontext()


def _is_write(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


_DETACHING = (torch.Tensor.detach, torch.detach, vars(torch._C.TensorBase)["data"].__get__)


class _Functions(TorchFunctionMode):
    """Makes `x.detach()` an operation without gradient: the graph has others, of torch's own, that
    the derivative goes through. And selects where one whole number is the index, of which torch
    would look at the number.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DETACHING:
            with torch.no_grad():
                return args[0].view(args[0].shape)
        if func is torch.Tensor.__getitem__ and _is_one_index(args[1]):
            return torch.index_select(args[0], 0, args[1].reshape(1)).squeeze(0)
        return func(*args, **(kwargs or {}))


def _is_one_index(x: Any) -> bool:
    whole = (torch.int32, torch.int64)
    return isinstance(x, torch.Tensor) and x.ndim == 0 and x.dtype in whole


class _Operations(TorchDispatchMode):
    """Looks at each operation before it is written down; what is computed without gradients is
    marked in the graph by `detach_copy`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._check(func, args, kwargs)
        out = func(*args, **kwargs)
        if torch.is_grad_enabled() or _is_write(func):
            return out
        return tree_map_only(torch.Tensor, _without_gradient, out)

    def _check(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        name, tags = self.name, func.tags
        if torch.Tag.nondeterministic_seeded in tags and _draws(func, args):
            raise TypeError(
                f"{name} draws random numbers ({func}): an equation whose right side is another "
                "one in each evaluation has no solution. In a module with dropout call "
                f"{name}.eval() first; draw a mask or a probe before the solve, and keep it as an "
                "attribute; noise in the equation itself is diffeq.torch.sdeint."
            )
        if func in _READS or any(tag in tags for tag in _SHAPED_BY_NUMBERS):
            raise TypeError(
                f"{name} looks at the numbers of a tensor ({func}), by if, bool(), float(), item() "
                "or a mask as an index: it is compiled, and these are not known there. Write "
                "torch.where(condition, a, b), x.clamp(max=n) for min(x, n); and if it jumps at a "
                "known time, give that time as options={'jump_t': …}."
            )
        dtypes = {x.dtype: None for x in args if isinstance(x, torch.Tensor)}
        if func in _PRODUCTS and len(dtypes) > 1:
            raise TypeError(
                f"{name} multiplies tensors of {' and '.join(map(str, dtypes))} ({func}), which "
                f"torch does not: give the state and all that {name} sees one precision, such as "
                f"{name}.float() or y0.double()."
            )
        for x in _written(func, args, kwargs):
            if type(x) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
                raise TypeError(
                    f"{name} writes in place to a tensor of shape {tuple(x.shape)} that lives on "
                    f"({func}), such as a buffer of a module: a solver evaluates {name} many times "
                    "a step, and in steps that it throws away. For batch normalisation call "
                    f"{name}.eval() first, or take torch.nn.GroupNorm."
                )


def _draws(func: Any, args: tuple) -> bool:
    """True if an operation that can draw numbers does: batch norm and attention may not."""
    return "dropout" not in str(func) or any(isinstance(x, float) and x > 0 for x in args)


def _written(func: Any, args: tuple, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operation writes to; of batch normalisation its statistics, which the
    schema does not name.
    """
    if func is _aten.native_batch_norm.default:
        return [x for x in args[3:5] if x is not None and args[5]]
    if not _is_write(func):
        return []
    given = zip(func._schema.arguments, args, strict=False)
    named = [(a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs]
    written = [x for a, x in [*given, *named] if a.alias_info and a.alias_info.is_write]
    return [x for x in tree_flatten(written)[0] if isinstance(x, torch.Tensor)]


def _without_gradient(x: torch.Tensor) -> torch.Tensor:
    return _aten.detach_copy.default(x)


# --- the past of a delay equation -----------------------------------------------------------------


def _past_shape(t: torch.Tensor, like: torch.Tensor, part: int) -> torch.Tensor:
    """One part of the state at an earlier time: the graph has it as an operation."""
    del t, part
    return torch.empty_like(like)


_library = Library("diffeq", "DEF")
_library.define("past(Tensor t, Tensor like, int part) -> Tensor")
impl("diffeq::past", "CompositeExplicitAutograd", _past_shape, lib=_library)


def past_by_torch(y: Any) -> Callable[[Any], Any]:
    """`past(t)` for a function in torch, while it is traced, with a state like y."""

    def past(t: Any) -> Any:
        t = torch.as_tensor(t)
        if t.ndim:
            raise TypeError(
                f"past was called with {tuple(t.shape)} times; one is wanted: call it for each."
            )
        leaves, tree = tree_flatten(y)
        values = [torch.ops.diffeq.past(t, leaf, i) for i, leaf in enumerate(leaves)]
        return tree_unflatten(values, tree)

    return past

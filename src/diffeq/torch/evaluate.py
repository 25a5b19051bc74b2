"""A graph of torch's operations as a function in JAX, operation by operation, by torchax."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torchax
from jaxtyping import Array, Int, Shaped
from torch.utils._pytree import tree_any, tree_map_only
from torchax.ops import mappings
from torchax.tensor import Tensor
from torchax.view import View

from .convolution import convolution

__all__ = ["evaluate_graph", "has_lowering"]

_aten = torch.ops.aten


def _identity(x: Array) -> Array:
    return x


def _searchsorted(
    rows: Shaped[Array, "*rows n"],
    values: Shaped[Array, "*values"],
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Int[Array, "*rows n"] | None = None,
) -> Int[Array, "*values"]:
    """`aten::searchsorted`: the places of values in sorted numbers, of each row in its own row.

    As long as torchax's takes neither `right` nor rows.
    """
    rows = rows if sorter is None else jnp.take_along_axis(rows, sorter, axis=-1)
    places = partial(jnp.searchsorted, side=side or ("right" if right else "left"))
    for _ in rows.shape[:-1]:
        places = jax.vmap(places)
    return places(rows, values).astype(jnp.int32 if out_int32 else jnp.int64)


# Operations of which torchax has no lowering that serves here.
_OWN: dict[Any, Callable] = {
    _aten.detach.default: _identity,  # autograd's own, which the derivative goes through
    _aten.detach_copy.default: jax.lax.stop_gradient,
    _aten.convolution.default: convolution,
    _aten.searchsorted.Tensor: _searchsorted,
    _aten.searchsorted.Scalar: _searchsorted,
}


def has_lowering(op: Any) -> bool:
    """True if JAX has an operation for one of torch's."""
    known = torchax.default_env()._ops
    return op in _OWN or op in known or getattr(op, "overloadpacket", op) in known


def evaluate_graph(
    graph: torch.fx.GraphModule,
    name: str,
    captured: dict[str, Array],
    arguments: Sequence[Array],
    past: Callable | None = None,
) -> Any:
    """Evaluates the graph of the function `name` in arrays of JAX, inside a trace.

    `captured` are the tensors that the function sees from outside, by their names in the graph;
    `past` is the solution before the time of the call.
    """
    wrap = torchax.default_env().j2t_iso
    tensors = {key: wrap(x) for key, x in captured.items()}
    evaluation = _Evaluation(graph, name, tensors, past)
    out = evaluation.run(*map(wrap, arguments), enable_io_processing=False)
    return _in_arrays(graph.graph.process_outputs(out))


def _in_arrays(x: Any) -> Any:
    """A tree of tensors as one of arrays; a graph has lists and dictionaries of its own."""
    if isinstance(x, torch.Tensor):
        return _unwrapped(x)
    if isinstance(x, dict):
        return {key: _in_arrays(part) for key, part in x.items()}
    if isinstance(x, (list, tuple)):
        parts = [_in_arrays(part) for part in x]
        return parts if isinstance(x, list) else tuple(parts)
    return x


class _Evaluation(torch.fx.Interpreter):
    """Evaluates a graph on tensors of torchax. What depends on none of them is a constant, and is
    computed by torch.
    """

    def __init__(
        self,
        graph: torch.fx.GraphModule,
        name: str,
        captured: dict[str, torch.Tensor],
        past: Callable | None,
    ) -> None:
        super().__init__(graph)
        self.name, self.captured, self.past = name, captured, past

    def get_attr(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        found = self.captured.get(target)
        return super().get_attr(target, args, kwargs) if found is None else found

    def run_node(self, n: torch.fx.Node) -> Any:
        out, wanted = super().run_node(n), n.meta.get("val")
        if n.op == "call_function" and _is_traced(out) and isinstance(wanted, torch.Tensor):
            return self._checked(n, _unwrapped(out), wanted)
        return out

    def _checked(self, node: torch.fx.Node, x: Array, wanted: torch.Tensor) -> torch.Tensor:
        """A result, in the dtype that it has in torch."""
        if x.shape != tuple(wanted.shape):
            raise TypeError(
                f"{self.name} uses {node.target}, of which torchax gives {list(x.shape)} numbers "
                f"where torch gives {list(wanted.shape)}: write it with other operations."
            )
        dtype = jax.dtypes.canonicalize_dtype(mappings.t2j_dtype(wanted.dtype))
        return torchax.default_env().j2t_iso(x.astype(dtype))

    def call_function(self, target: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if not tree_any(_is_traced, (args, kwargs)):
            return super().call_function(target, args, kwargs)
        env = torchax.default_env()
        args, kwargs = tree_map_only(torch.Tensor, _traced, (args, kwargs))
        own = self._value_before if target is torch.ops.diffeq.past.default else _OWN.get(target)
        try:
            if own is not None:
                return env.j2t_iso(own(*env.t2j_iso(args), **env.t2j_iso(kwargs)))
            with env:
                return super().call_function(target, args, kwargs)
        except Exception as error:
            raise TypeError(
                f"{self.name} uses {target}, which torchax {torchax.__version__} cannot turn into "
                f"JAX ({type(error).__name__}: {str(error)[:200]}): write it with other operations."
            ) from error

    def _value_before(self, t: Array, like: Array, part: int) -> Array:
        """One part of the state at an earlier time."""
        del like
        assert self.past is not None
        return jax.tree.leaves(self.past(t))[part]


def _is_traced(x: Any) -> bool:
    return isinstance(x, (Tensor, View))


def _traced(x: torch.Tensor) -> torch.Tensor:
    """A constant as a tensor of torchax."""
    return x if _is_traced(x) else torchax.default_env().j2t_iso(jnp.asarray(x.numpy()))


def _unwrapped(x: torch.Tensor) -> Array:
    return torchax.default_env().t2j_iso(_traced(x))

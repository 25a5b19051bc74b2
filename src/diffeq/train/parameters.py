"""What of a model is trained, as a flat list of arrays; and the way back to the model."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.watch import is_nnx, is_nnx_module
from ..problems import Problem
from .bounds import Bounds

__all__ = ["Parameters"]


class Parameters:
    """A model apart: `theta`, a list of arrays without bounds, is what an optimiser sees; `state`
    is what a Flax module writes while it is evaluated; `model(theta, state)` is the model again.

    Trained by default are the arrays of floats (in a tree without modules Python floats too), of a
    Flax module its `nnx.Param`, of a problem its args.
    """

    def __init__(self, model: Any, trainable: Any, bounds: Any) -> None:
        if trainable is None and isinstance(model, Problem):
            trainable = lambda problem: problem.args  # noqa: E731
        self.pieces, self.tree = jax.tree.flatten(model, is_leaf=is_nnx_module)
        flags = _flags(model, trainable)
        self.parts = [
            _Module(piece, flag) if is_nnx_module(piece) else _Leaf(piece, flag)
            for piece, flag in zip(self.pieces, flags, strict=True)
        ]
        natural = [x for part in self.parts for x in part.values]
        if not natural:
            raise ValueError(
                "Nothing in the model can be trained: it has no arrays of floats (write 1.0 "
                "for 1), or trainable leaves all of them out."
            )
        self.bounds = Bounds(bounds, model, [len(part.values) for part in self.parts], natural)
        self.theta = self.bounds.free(natural)
        self.state = [part.state for part in self.parts]

    def model(self, theta: list, state: list) -> Any:
        """The model with these parameters."""
        return jax.tree.unflatten(self.tree, self._made(theta, state))

    def watched(self, theta: list, state: list) -> tuple[Any, Callable[[], list]]:
        """The model, and a function that gives its state after it was used."""
        made = self._made(theta, state)

        def after() -> list:
            return [
                part.after(piece, old)
                for part, piece, old in zip(self.parts, made, state, strict=True)
            ]

        return jax.tree.unflatten(self.tree, made), after

    def result(self, theta: list, state: list) -> Any:
        """The model with these parameters, with floats where floats were given."""
        made = self._made(theta, state)
        kept = [part.as_given(piece) for part, piece in zip(self.parts, made, strict=True)]
        return jax.tree.unflatten(self.tree, kept)

    def _made(self, theta: list, state: list) -> list:
        rest = iter(self.bounds.natural(theta))
        made = []
        for part, s in zip(self.parts, state, strict=True):
            made.append(part.made([next(rest) for _ in part.values], s))
        return made


class _Leaf:
    """An array, a number, or anything else that a tree has for a leaf."""

    state = ()

    def __init__(self, given: Any, trained: bool) -> None:
        self.given = given
        self.values = [jnp.asarray(given)] if trained else []

    def made(self, values: list, state: Any) -> Any:
        del state
        return values[0] if values else self.given

    def after(self, piece: Any, old: Any) -> Any:
        del piece
        return old

    def as_given(self, piece: Any) -> Any:
        if isinstance(self.given, (float, complex)) and self.values:
            return type(self.given)(piece)
        return np.asarray(piece) if isinstance(self.given, np.ndarray) and self.values else piece


class _Module:
    """A Flax NNX module: a graph, parameters, and other state."""

    def __init__(self, module: Any, wanted: Any) -> None:
        from flax import nnx

        self.wanted = wanted
        self.graph, params, rest = nnx.split(module, wanted, ...)
        self.values, self.params = jax.tree.flatten(params)
        self.state, self.rest = jax.tree.flatten(rest)

    def made(self, values: list, state: list) -> Any:
        from flax import nnx

        params, rest = jax.tree.unflatten(self.params, values), jax.tree.unflatten(self.rest, state)
        return nnx.merge(self.graph, params, rest)

    def after(self, piece: Any, old: list) -> list:
        from flax import nnx

        _, _, rest = nnx.split(piece, self.wanted, ...)
        leaves, tree = jax.tree.flatten(rest)
        return leaves if tree == self.rest else old  # a loss that sows keeps nothing

    def as_given(self, piece: Any) -> Any:
        return piece


# --- what is trained ------------------------------------------------------------------------------


def _flags(model: Any, trainable: Any) -> list:
    """For each piece a bool; for each NNX module a filter."""
    if trainable is None:
        return [_default(piece, flag) for piece, flag in _by_default(model)]
    if isinstance(trainable, type):  # a kind of nnx.Variable
        pieces = jax.tree.leaves(model, is_leaf=is_nnx_module)
        return [trainable if is_nnx_module(piece) else False for piece in pieces]
    if callable(trainable):
        return _chosen(model, trainable)
    wide = jax.tree.map(
        lambda flag, part: jax.tree.map(lambda _: flag, part, is_leaf=is_nnx_module),
        trainable,
        model,
    )
    pairs = zip(jax.tree.leaves(model, is_leaf=is_nnx_module), jax.tree.leaves(wide), strict=True)
    return [
        _default(piece, flag and (is_nnx_module(piece) or _is_float(piece)))
        for piece, flag in pairs
    ]


def _default(piece: Any, flag: bool) -> Any:
    """The flag, or for an NNX module the filter that stands for it."""
    if not is_nnx_module(piece):
        return bool(flag)
    from flax import nnx

    return nnx.Param if flag else nnx.Nothing()


def _by_default(model: Any) -> list[tuple[Any, bool]]:
    """The pieces of a model. Inside an Equinox module, a Python float is a setting."""
    whole = lambda x: is_nnx_module(x) or isinstance(x, eqx.Module)  # noqa: E731
    pairs = []
    for top in jax.tree.leaves(model, is_leaf=whole):
        inside = isinstance(top, eqx.Module)
        test = eqx.is_inexact_array if inside else _is_float
        pieces = jax.tree.leaves(top, is_leaf=is_nnx_module)
        pairs += [(piece, is_nnx_module(piece) or test(piece)) for piece in pieces]
    return pairs


def _is_float(x: Any) -> bool:
    return eqx.is_inexact_array_like(x) and not is_nnx_module(x)


class _Place:
    """Stands for a leaf while `trainable` picks its parts of the model."""

    def __init__(self, index: int) -> None:
        self.index = index


def _chosen(model: Any, where: Callable) -> list:
    """What `where(model)` returns is trained."""
    pieces, tree = jax.tree.flatten(model, is_leaf=is_nnx_module)
    places = [piece if is_nnx_module(piece) else _Place(i) for i, piece in enumerate(pieces)]
    picked = jax.tree.leaves(where(jax.tree.unflatten(tree, places)), is_leaf=is_nnx)
    indices = {x.index for x in picked if isinstance(x, _Place)}
    ids = {id(x) for x in picked}
    return [
        _inside(piece, ids) if is_nnx_module(piece) else (i in indices and _is_float(piece))
        for i, piece in enumerate(pieces)
    ]


def _inside(module: Any, ids: set[int]) -> Any:
    """The filter for the variables of a module that are picked, or inside a picked part of it."""
    from flax import nnx

    roots = [path for path, node in nnx.iter_graph(module) if id(node) in ids]
    found = lambda path, _: any(tuple(path)[: len(root)] == tuple(root) for root in roots)  # noqa: E731
    return nnx.All(nnx.Param, found)

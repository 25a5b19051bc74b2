"""Splits a model into its trained parameters, in the model's own tree, and the rest; and joins
them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..core.flax_nnx import is_nnx, is_nnx_module
from ..problems import Problem
from ..validation.values import shown
from .bounds import Interval, intervals, spread_prefix

__all__ = ["Layout", "Parameters", "UntrainedParts"]


class UntrainedParts(NamedTuple):
    """The part of a model that is neither trained nor the state of its modules.

    Attributes:
        problem: the problem whose args are trained; None if the model is no problem.
        pieces: for each leaf of the model the leaf, or None where it is trained or a Flax module.
        intervals: the bounds of each trained array.
    """

    problem: Problem | None
    pieces: tuple
    intervals: tuple[Interval | None, ...]


class Parameters:
    """A model split into trained parameters, the state of its modules, and the rest.

    Trained by default are the arrays of floats (in a tree without modules Python floats too), of a
    Flax module its `nnx.Param`, of a problem its args.

    Attributes:
        theta: the parameters of the optimiser, free of bounds: the tree of the model (of a problem,
            of its args) with None for what is not trained, as `eqx.partition` has it, and with the
            `nnx.State` of a Flax module in its place.
        state: what Flax modules write while they are evaluated.
        names: the path of each array of theta.
        layout, rest: how the model is made of these again.
    """

    def __init__(self, model: PyTree, trainable: PyTree, bounds: PyTree) -> None:
        problem = None
        if trainable is None and isinstance(model, Problem):
            problem, model = model.replace(args=None), model.args
        self.given, tree = jax.tree.flatten(model, is_leaf=is_nnx_module)
        _check_hashable(tree)
        flags = _flags(model, self.given, trainable)
        parts = [_split_leaf(piece, flag) for piece, flag in zip(self.given, flags, strict=True)]
        natural = tree.unflatten([part.values for part in parts])
        paths, values = _with_paths(natural)
        self.names = _names(paths, ".args" if problem is not None else "")
        counts = [len(jax.tree.leaves(part.values)) for part in parts]
        kinds = intervals(bounds, model, counts, self.names, values)
        self.theta = _map_bounded(lambda kind, x: kind.free(x), kinds, natural)
        self.state = tuple(part.state for part in parts)
        self.layout = Layout(tree, tuple(part.module for part in parts))
        self.rest = UntrainedParts(problem, tuple(part.rest for part in parts), tuple(kinds))

    def result(self, theta: PyTree, state: tuple) -> PyTree:
        """The model with these parameters, with floats where floats were given."""
        made = self.layout.pieces(theta, state, self.rest)
        kept = [_as_given(*pair) for pair in zip(self.given, made, strict=True)]
        return self.layout.whole(kept, self.rest)


@dataclass(frozen=True)
class Layout:
    """Builds a model from its parameters: static, and equal for equal models."""

    tree: Any  # the model's, with a leaf for each Flax module
    modules: tuple["_Module | None", ...]

    def pieces(self, theta: PyTree, state: tuple, rest: UntrainedParts) -> list:
        """The leaves of the model."""
        values = self.tree.flatten_up_to(_map_bounded(Interval.natural, rest.intervals, theta))
        return [
            given if value is None else (value if module is None else module.made(value, written))
            for module, value, given, written in zip(
                self.modules, values, rest.pieces, state, strict=True
            )
        ]

    def path(self, number: int) -> str:
        """The place in the model of one of its leaves: `.layers[0].weight`."""
        numbers = self.tree.unflatten(range(self.tree.num_leaves))
        return jax.tree_util.keystr(jax.tree.leaves_with_path(numbers)[number][0])

    def whole(self, pieces: Sequence, rest: UntrainedParts) -> PyTree:
        """The model of these leaves."""
        model = self.tree.unflatten(pieces)
        return model if rest.problem is None else rest.problem.replace(args=model)

    def written(self, pieces: Sequence, state: tuple) -> tuple:
        """The state of the modules after they were used."""
        return tuple(
            old if module is None else module.written(piece, old)
            for module, piece, old in zip(self.modules, pieces, state, strict=True)
        )


class _SplitLeaf(NamedTuple):
    """A leaf of the model, or a Flax module, apart."""

    values: PyTree  # what is trained, or None
    rest: PyTree = None
    state: tuple = ()
    module: "_Module | None" = None


def _split_leaf(piece: PyTree, wanted: Any) -> _SplitLeaf:
    if not is_nnx_module(piece):
        return _SplitLeaf(jnp.asarray(piece)) if wanted else _SplitLeaf(None, piece)
    from flax import nnx

    graph, params, rest = nnx.split(piece, wanted, ...)
    leaves, tree = jax.tree.flatten(rest)
    module = _Module(graph, jax.tree.structure(params), tree, wanted)
    return _SplitLeaf(nnx.as_pure(params), state=tuple(leaves), module=module)


@dataclass(frozen=True)
class _Module:
    """A Flax NNX module without its arrays."""

    graph: Any
    params: Any
    rest: Any
    wanted: Any = field(compare=False)  # the filter; what it lets through is in `params`

    def made(self, values: PyTree, state: tuple) -> PyTree:
        from flax import nnx

        params = jax.tree.unflatten(self.params, jax.tree.leaves(values))
        return nnx.merge(self.graph, params, jax.tree.unflatten(self.rest, state))

    def written(self, piece: PyTree, old: tuple) -> tuple:
        from flax import nnx

        _, _, rest = nnx.split(piece, self.wanted, ...)
        leaves, tree = jax.tree.flatten(rest)
        return tuple(leaves) if tree == self.rest else old  # a loss that sows keeps nothing


def _as_given(given: PyTree, piece: PyTree) -> PyTree:
    """A trained number as the kind of number that was given."""
    if piece is given or not isinstance(piece, jax.Array):
        return piece
    if isinstance(given, (float, complex)):
        return type(given)(piece)
    return np.asarray(piece) if isinstance(given, np.ndarray) else piece


def _map_bounded(change: Callable, kinds: Sequence[Interval | None], theta: PyTree) -> PyTree:
    """Theta with the arrays that have bounds changed."""
    leaves, tree = jax.tree.flatten(theta)
    pairs = zip(kinds, leaves, strict=True)
    return tree.unflatten([x if kind is None else change(kind, x) for kind, x in pairs])


def _with_paths(theta: PyTree) -> tuple[list, list[Array]]:
    flat = jax.tree.flatten_with_path(theta)[0]
    if not flat:
        raise ValueError(
            "Nothing in the model can be trained: it has no arrays of floats (write 1.0 for 1), "
            "or trainable leaves all of them out."
        )
    return [path for path, _ in flat], [x for _, x in flat]


def _names(paths: Sequence, owner: str) -> list[str]:
    """Arrays as a user would write them: `.layers[0].weight`."""
    return [owner + jax.tree_util.keystr(path) or "the parameter" for path in paths]


def _check_hashable(tree: object) -> None:
    try:
        hash(tree)
    except TypeError as error:
        raise TypeError(
            f"the model has a static field that cannot be hashed ({error}), so no compiled program "
            "can know it: make it a tuple, or an ordinary field."
        ) from error


# --- what is trained ------------------------------------------------------------------------------


def _flags(model: PyTree, pieces: Sequence, trainable: PyTree) -> list:
    """For each piece a bool; for each NNX module a filter."""
    if trainable is None:
        return [_default(piece, flag) for piece, flag in _by_default(model)]
    if isinstance(trainable, type):  # a kind of nnx.Variable
        return [trainable if is_nnx_module(piece) else False for piece in pieces]
    if callable(trainable):
        return _flags_where(model, trainable)
    return [
        _default(piece, flag and (is_nnx_module(piece) or _is_float(piece)))
        for piece, flag in zip(pieces, _flags_of_tree(model, trainable), strict=True)
    ]


def _flags_of_tree(model: PyTree, trainable: PyTree) -> list[bool]:
    """The flag of each piece of a model, from a prefix tree of True and False."""
    wanted = (
        "True, False, a tree of them that is a prefix of the model, a function that returns parts "
        "of the model, such as lambda model: model.net, or a kind of nnx.Variable is wanted."
    )
    try:
        flags = spread_prefix(trainable, model)
    except ValueError as error:
        raise ValueError(
            f"trainable is {shown(trainable)}, which is no prefix of the model; {wanted} {error}"
        ) from error
    if not all(flag is None or isinstance(flag, bool | np.bool_) for flag in flags):
        raise TypeError(f"trainable is {shown(trainable)}; {wanted}")
    return list(map(bool, flags))


def _default(piece: PyTree, flag: bool) -> Any:
    """The flag, or for an NNX module the equivalent filter."""
    if not is_nnx_module(piece):
        return bool(flag)
    from flax import nnx

    return nnx.Param if flag else nnx.Nothing()


def _by_default(model: PyTree) -> list[tuple[PyTree, bool]]:
    """The pieces of a model. Inside an Equinox module, a Python float is a setting."""
    whole = lambda x: is_nnx_module(x) or isinstance(x, eqx.Module)  # noqa: E731
    pairs = []
    for top in jax.tree.leaves(model, is_leaf=whole):
        inside = isinstance(top, eqx.Module)
        test = eqx.is_inexact_array if inside else _is_float
        pieces = jax.tree.leaves(top, is_leaf=is_nnx_module)
        pairs += [(piece, is_nnx_module(piece) or test(piece)) for piece in pieces]
    return pairs


def _is_float(x: PyTree) -> bool:
    return eqx.is_inexact_array_like(x) and not is_nnx_module(x)


class _LeafMarker:
    """Stands for a leaf while `trainable` picks its parts of the model."""

    def __init__(self, index: int) -> None:
        self.index = index


def _flags_where(model: PyTree, where: Callable) -> list:
    """Flags the pieces of a model that `where(model)` returns, to be trained."""
    pieces, tree = jax.tree.flatten(model, is_leaf=is_nnx_module)
    places = [piece if is_nnx_module(piece) else _LeafMarker(i) for i, piece in enumerate(pieces)]
    picked = jax.tree.leaves(where(jax.tree.unflatten(tree, places)), is_leaf=is_nnx)
    indices = {x.index for x in picked if isinstance(x, _LeafMarker)}
    ids = {id(x) for x in picked}
    return [
        _variable_filter(piece, ids)
        if is_nnx_module(piece)
        else (i in indices and _is_float(piece))
        for i, piece in enumerate(pieces)
    ]


def _variable_filter(module: Any, ids: set[int]) -> Any:
    """The filter for the variables of a module that are picked, or inside a picked part of it."""
    from flax import nnx

    roots = [path for path, node in nnx.iter_graph(module) if id(node) in ids]
    found = lambda path, _: any(tuple(path)[: len(root)] == tuple(root) for root in roots)  # noqa: E731
    return nnx.All(nnx.Param, found)

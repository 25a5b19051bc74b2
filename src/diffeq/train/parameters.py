"""Splits a model into its trained parameters, in the model's own tree, and the rest; and joins
them.
"""

import inspect
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
from .opened import (
    Opened,
    args_of,
    closed,
    is_open_problem,
    opened,
    with_args,
    with_args_of,
)

__all__ = ["Layout", "Parameters", "UntrainedParts"]


class UntrainedParts(NamedTuple):
    """The part of a model that is neither trained nor the state of its modules.

    Attributes:
        pieces: for each leaf of the model the leaf, or None where it is trained or a Flax module.
        intervals: the bounds of each trained array.
    """

    pieces: tuple
    intervals: tuple[Interval | None, ...]


class Parameters:
    """A model split into trained parameters, the state of its modules, and the rest.

    Trained by default are the arrays of floats (in a tree without modules Python floats too), of a
    Flax module its `nnx.Param`, of a problem its args, wherever it stands in the model.

    Attributes:
        theta: the parameters of the optimiser, free of bounds: the tree of the model with None for
            what is not trained, as `eqx.partition` has it, with the `nnx.State` of a Flax module in
            its place, and in that of a problem the tree of its args, or an `Opened` where other
            fields of it are trained.
        state: what Flax modules write while they are evaluated.
        names: the path of each array of theta.
        layout, rest: how the model is made of these again.
    """

    def __init__(self, model: PyTree, trainable: PyTree, bounds: PyTree) -> None:
        self.given, tree = jax.tree.flatten(opened(model), is_leaf=is_nnx_module)
        _check_is_model(model)
        _check_hashable(tree)
        flags = _flags(tree, self.given, trainable)
        parts = [_split_leaf(piece, flag) for piece, flag in zip(self.given, flags, strict=True)]
        counts = [len(jax.tree.leaves(part.values)) for part in parts]
        whole = _whole_problems(tree, counts)
        places, shape = jax.tree.flatten(with_args(_numbered(tree), whole))
        natural = shape.unflatten([parts[i].values for i in places])
        values = _trained_arrays(natural)
        self.layout = Layout(tree, tuple(part.module for part in parts), shape, tuple(places))
        self.names = [name for i in places for name in _names(self.layout.path(i), parts[i].values)]
        kinds = intervals(
            _each_side(bounds, whole),
            shape.unflatten([self.given[i] for i in places]),
            [counts[i] for i in places],
            self.names,
            values,
        )
        self.theta = _map_bounded(lambda kind, x: kind.free(x), kinds, natural)
        self.state = tuple(part.state for part in parts)
        self.rest = UntrainedParts(tuple(part.rest for part in parts), tuple(kinds))

    def result(self, theta: PyTree, state: tuple) -> PyTree:
        """The model with these parameters, with floats where floats were given."""
        made = self.layout.pieces(theta, state, self.rest)
        return self.layout.whole([_as_given(*pair) for pair in zip(self.given, made, strict=True)])


@dataclass(frozen=True)
class Layout:
    """Builds a model from its parameters: static, and equal for equal models."""

    tree: Any  # the open model's, with a leaf for each Flax module
    modules: tuple["_Module | None", ...]
    shape: Any  # that of theta, with a leaf for each leaf of the model that it shows
    places: tuple[int, ...]  # the numbers of these leaves in the model

    def pieces(self, theta: PyTree, state: tuple, rest: UntrainedParts) -> list:
        """The leaves of the model."""
        natural = _map_bounded(Interval.natural, rest.intervals, theta)
        pieces = list(rest.pieces)
        for place, value in zip(self.places, self.shape.flatten_up_to(natural), strict=True):
            if value is not None:
                module = self.modules[place]
                pieces[place] = value if module is None else module.made(value, state[place])
        return pieces

    def path(self, number: int) -> str:
        """The place in the model of one of its leaves: `.layers[0].weight`."""
        return jax.tree_util.keystr(jax.tree.leaves_with_path(_numbered(self.tree))[number][0])

    def whole(self, pieces: Sequence) -> PyTree:
        """The model of these leaves."""
        return closed(self.tree.unflatten(pieces))

    def written(self, pieces: Sequence, state: tuple) -> tuple:
        """The state of the modules after they were used."""
        return tuple(
            old if module is None else module.written(piece, old)
            for module, piece, old in zip(self.modules, pieces, state, strict=True)
        )


def _numbered(tree: Any) -> PyTree:
    """A tree with the numbers of its leaves."""
    return tree.unflatten(range(tree.num_leaves))


def _whole_problems(tree: Any, counts: Sequence[int]) -> set:
    """The paths of the problems of which more is trained than args; `counts` are the numbers of
    trained arrays in each leaf of an open model.
    """
    paths = set()
    for path, x in jax.tree.leaves_with_path(_numbered(tree), is_leaf=is_open_problem):
        if is_open_problem(x):
            others = set(jax.tree.leaves(x)) - set(jax.tree.leaves(args_of(x)))
            if any(counts[i] for i in others):
                paths.add(path)
    return paths


def _each_side(bounds: PyTree, whole: set) -> PyTree:
    """Bounds as prefixes of what theta shows."""
    if not isinstance(bounds, (tuple, list)):
        return bounds
    return [with_args_of(side, whole) for side in bounds]


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


def _trained_arrays(theta: PyTree) -> list[Array]:
    found = jax.tree.leaves(theta)
    if not found:
        raise ValueError(
            "Nothing in the model can be trained: it has no arrays of floats (write 1.0 for 1), "
            "or trainable leaves all of them out."
        )
    return found


def _names(owner: str, values: PyTree) -> list[str]:
    """The arrays of a leaf as a user would write them: `.layers[0].weight`."""
    paths = [path for path, _ in jax.tree.leaves_with_path(values)]
    return [owner + jax.tree_util.keystr(path) or "the parameter" for path in paths]


def _check_is_model(model: PyTree) -> None:
    """Refuses a plain function: a loss, perhaps, in the place of the model."""
    if inspect.isroutine(model) or type(model).__name__ == "PjitFunction":
        raise TypeError(
            f"model is the function {getattr(model, '__name__', shown(model))}, which has no "
            "parameters of its own; the model comes first, and then the loss: fit(model, loss, …)."
        )


def _check_hashable(tree: object) -> None:
    try:
        hash(tree)
    except TypeError as error:
        raise TypeError(
            f"the model has a static field that cannot be hashed ({error}), so no compiled program "
            "can know it: make it a tuple, or an ordinary field."
        ) from error


# --- what is trained ------------------------------------------------------------------------------


def _flags(tree: Any, pieces: Sequence, trainable: PyTree) -> list:
    """For each piece of an open model a bool; for each NNX module a filter."""
    if trainable is None:
        flags = _by_default(tree.unflatten(pieces))
    elif isinstance(trainable, type):  # a kind of nnx.Variable
        return [trainable if is_nnx_module(piece) else False for piece in pieces]
    elif callable(trainable) and not isinstance(trainable, eqx.Module):
        return _flags_where(tree, pieces, trainable)
    else:
        flags = _flags_of_tree(tree, pieces, trainable)
    return [_default(*pair) for pair in zip(pieces, flags, strict=True)]


def _flags_of_tree(tree: Any, pieces: Sequence, trainable: PyTree) -> list[bool]:
    """The flag of each piece of a model, from a prefix tree of True and False. Of a problem that
    has one flag it is that of its args.
    """
    wanted = (
        "True, False, a tree of them that is a prefix of the model, a function that returns parts "
        "of the model, such as lambda model: model.net, or a kind of nnx.Variable is wanted."
    )
    flat = jax.tree.leaves_with_path(trainable, is_leaf=lambda x: isinstance(x, Problem))
    whole = {path for path, x in flat if isinstance(x, Problem)}
    places, shape = jax.tree.flatten(with_args(_numbered(tree), whole))
    try:
        given = shape.unflatten([pieces[i] for i in places])
        flags = spread_prefix(with_args_of(trainable, whole), given)
    except ValueError as error:
        raise ValueError(
            f"trainable is {shown(trainable)}, which is no prefix of the model; {wanted} {error}"
        ) from error
    chosen = set()
    for i, flag in zip(places, flags, strict=True):
        is_flag = flag is None or isinstance(flag, bool | np.bool_)
        # The functions of a problem whose other fields are flags stand there themselves.
        if not is_flag and not (callable(flag) and callable(pieces[i])):
            raise TypeError(f"trainable is {shown(trainable)}; {wanted}")
        if is_flag and flag and (is_nnx_module(pieces[i]) or _is_float(pieces[i])):
            chosen.add(i)
    return [i in chosen for i in range(len(pieces))]


def _default(piece: PyTree, flag: bool) -> Any:
    """The flag, or for an NNX module the equivalent filter."""
    if not is_nnx_module(piece):
        return bool(flag)
    from flax import nnx

    return nnx.Param if flag else nnx.Nothing()


def _by_default(model: PyTree, *, inside: bool = False) -> list[bool]:
    """The flags of the pieces of an open model. `inside` an Equinox module, a Python float is a
    setting; of a problem the args are a model of their own.
    """
    if is_nnx_module(model):
        return [True]
    parts, tree = jax.tree.flatten(model, is_leaf=lambda x: x is not model)
    if tree == jax.tree.structure(0):
        return [bool(eqx.is_inexact_array(model)) if inside else _is_float(model)]
    if is_open_problem(model):
        return _by_default_in_problem(model)
    inside = inside or isinstance(model, eqx.Module)
    return [flag for part in parts for flag in _by_default(part, inside=inside)]


def _by_default_in_problem(problem: Opened) -> list[bool]:
    numbers, tree = jax.tree.flatten(problem, is_leaf=is_nnx_module)
    trained = _by_default(args_of(problem))
    places = jax.tree.leaves(args_of(_numbered(tree)))
    flags = dict(zip(places, trained, strict=True))
    return [flags.get(i, False) for i in range(len(numbers))]


def _is_float(x: PyTree) -> bool:
    return eqx.is_inexact_array_like(x) and not is_nnx_module(x)


class _LeafMarker:
    """Stands for a leaf while `trainable` picks its parts of the model."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # a question of Python or JAX, to which there is no answer
            raise AttributeError(name)
        raise self._refused(f".{name}")

    def __getitem__(self, at: Any) -> Any:
        raise self._refused(f"[{at!r}]")

    @staticmethod
    def _refused(part: str) -> TypeError:
        return TypeError(
            f"trainable returns {part} of an array or a number of the model; whole ones are "
            "wanted, such as lambda model: model.net. A part of an array that is to be trained "
            "alone is made an array of its own."
        )


def _flags_where(tree: Any, pieces: Sequence, where: Callable) -> list:
    """Flags the pieces of a model that `where(model)` returns, to be trained."""
    places = [piece if is_nnx_module(piece) else _LeafMarker(i) for i, piece in enumerate(pieces)]
    parts = with_args(opened(where(closed(tree.unflatten(places)))), set())
    picked = jax.tree.leaves(parts, is_leaf=is_nnx)
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

"""Problems as ordinary trees: `opened` shows the fields of problems, jumps and events, and `closed`
makes these again.

The structure of a problem depends on what its leaves are, since functions are part of it: with None
or another mark in the place of a number it is another node, which matches no other. An open one has
its fields as children, whatever they are.
"""

from collections.abc import Hashable, Iterable
from typing import Any

import jax
from jaxtyping import PyTree

from ..core.flax_nnx import is_nnx_module
from ..events import AbstractEvent
from ..problems import Jump, Problem

__all__ = ["Opened", "args_of", "closed", "is_open_problem", "opened", "with_args", "with_args_of"]

type Path = tuple[Hashable, ...]


class Opened:
    """A problem, a jump or an event as a node whose children are its fields, which are attributes
    of it.
    """

    def __init__(self, kind: type, fields: dict[str, Any], static: tuple) -> None:
        self.__dict__.update(fields)
        self._made_of = kind, tuple(fields), static

    def _flatten(self) -> tuple[list, tuple]:
        return [getattr(self, name) for name in self._made_of[1]], self._made_of

    def _flatten_with_keys(self) -> tuple[list, tuple]:
        children, aux = self._flatten()
        keys = map(jax.tree_util.GetAttrKey, aux[1])
        return list(zip(keys, children, strict=True)), aux

    @classmethod
    def _unflatten(cls, aux: Any, children: Iterable) -> "Opened":
        kind, names, static = aux
        return cls(kind, dict(zip(names, children, strict=True)), static)

    def closed(self) -> Any:
        """The object that it was made of, with these fields."""
        kind, names, static = self._made_of
        made = object.__new__(kind)
        made.__dict__.update({name: closed(getattr(self, name)) for name in names})
        made.__dict__.update(zip(getattr(kind, "static", ()), static, strict=True))
        return made


jax.tree_util.register_pytree_with_keys(
    Opened, Opened._flatten_with_keys, Opened._unflatten, Opened._flatten
)


def opened(model: PyTree) -> PyTree:
    """The model with its problems, jumps and events open, at any depth."""
    kinds = (Problem, Jump, AbstractEvent)

    def one(x: PyTree) -> PyTree:
        if not isinstance(x, kinds):
            return x
        fields = {name: opened(getattr(x, name)) for name in x.fields}
        return Opened(type(x), fields, tuple(getattr(x, name) for name in _static_of(x)))

    return jax.tree.map(one, model, is_leaf=lambda x: is_nnx_module(x) or isinstance(x, kinds))


def _static_of(x: Any) -> tuple[str, ...]:
    return getattr(type(x), "static", ())


def closed(model: PyTree) -> PyTree:
    """The inverse of `opened`, whatever the leaves are."""
    return jax.tree.map(
        lambda x: x.closed() if isinstance(x, Opened) else x,
        model,
        is_leaf=lambda x: is_nnx_module(x) or isinstance(x, Opened),
    )


def is_open_problem(x: PyTree) -> bool:
    """True if x is an open problem, and no jump or event."""
    return isinstance(x, Opened) and issubclass(x._made_of[0], Problem)


def args_of(problem: Any) -> PyTree:
    """The args of an open problem; of one that jumps, those of its equation."""
    return problem.args if "args" in problem._made_of[1] else args_of(problem.problem)


def with_args(model: PyTree, whole: set[Path]) -> PyTree:
    """An open model with the args of each problem in its place, but where a problem is `whole`."""
    return jax.tree.map_with_path(
        lambda path, x: args_of(x) if is_open_problem(x) and path not in whole else x,
        model,
        is_leaf=lambda x: is_nnx_module(x) or is_open_problem(x),
    )


def with_args_of(prefix: PyTree, whole: set[Path]) -> PyTree:
    """A prefix of a model as a prefix of what `with_args` makes of the model."""
    found = lambda x: is_nnx_module(x) or x is None or isinstance(x, Problem)  # noqa: E731
    return jax.tree.map_with_path(
        lambda path, x: opened(x.args if isinstance(x, Problem) and path not in whole else x),
        prefix,
        is_leaf=found,
    )

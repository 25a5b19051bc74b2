"""`ProblemRule`: how a problem of one kind becomes an equation over packed states."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...core.packing import Packing
from .traced_function import checked

__all__ = ["ProblemRule", "as_it_is", "check_width", "on_packed", "on_unpacked", "tree_shapes"]


class ProblemRule:
    """The base of all rules: how `canonical` makes an equation of a problem of one kind.

    A rule has besides, as static functions or, where they depend on what a problem declares, as
    methods of `of(problem)`:

    * `state(problem, args)`, the initial state as the user's tree;
    * `functions(problem, tree)`, a list of (name, function, parts): the parts of the state that it
      is called with; and last, where it is no rate, the check of what it returns;
    * `form(at, packing, sign, **constants)`, the equation that these functions make.
    """

    names: tuple[str, ...] = ("y0",)
    delays: Any = None

    @staticmethod
    def constants(problem: Any, packing: Packing) -> dict:
        """Arrays that stay what they are during a solve, by their names in the form."""
        del problem, packing
        return {}

    @staticmethod
    def noise(problem: Any, traced: list, y0: Array) -> tuple[int, ...] | None:
        """The shape of the Brownian motion, if there is one."""
        del problem, traced, y0
        return None


def as_it_is(name: str, value: PyTree, parts: tuple) -> PyTree:
    """Returns the value of a function of this package, which fits."""
    del name, parts
    return value


def on_unpacked(f: Callable, packing: Packing) -> Callable:
    """A function of the user's state as one of packed states."""
    return lambda t, y: f(t, packing.unpack(y))


def on_packed(f: Callable, packing: Packing) -> Callable:
    """The function over packed states; its other inputs stay as they are."""
    return lambda t, y, *seen: packing.pack(f(t, packing.unpack(y), *seen))


def check_width(name: str, value: PyTree, like: PyTree) -> None:
    """Refuses columns of a wider dtype than the state has."""
    number = lambda x: jax.ShapeDtypeStruct((), jnp.result_type(x))  # noqa: E731
    checked(name, jax.tree.map(number, value), jax.tree.map(number, like))


def tree_shapes(tree: PyTree) -> tuple:
    """The structure of a tree and the shapes of its leaves: all that two states have to share."""
    return jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)]

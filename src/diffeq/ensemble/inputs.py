"""The inputs that differ from trajectory to trajectory of an ensemble, and those that all share.

A field that is given with a leading axis (y0, args, tspan) is taken apart into its arrays, the
*rows*; leaves that are no arrays (a network's activation) are shared. `draw` makes the inputs of a
trajectory from its key, where they are used, so that they are never all in memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PyTree, Shaped

from ..autodiff.jax_internals import Tracer
from ..problems import Problem
from ..problems.lowering import names_of
from .sharded import row_at

__all__ = ["Inputs", "check_fits", "filled", "gathered", "key_of", "placed", "trajectory"]

_AXES = "0 for every array, or a dict such as {'args': (0, None)}"


type Places = tuple[tuple[str, tuple[bool, ...]], ...]
"""Of each field its name, and flags of its leaves that are rows."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of an ensemble: the number of trajectories, their rows, and the places of these.

    `given` are the fields of the call, `places` for each field the flags of its leaves that are
    rows.
    """

    size: int
    rows: list
    given: dict[str, PyTree]
    places: Places

    def example(self, i: int, mesh: Mesh | None) -> dict[str, PyTree]:
        """The fields of one trajectory, for checks: no derivative goes through them."""
        rows = [row_at(x, i, mesh) for x in jax.lax.stop_gradient(self.rows)]
        return filled(self.given, self.places, rows)


def gathered(fields: dict[str, PyTree], in_axes: PyTree, n: int | None) -> Inputs:
    """The inputs in these fields.

    Raises:
        ValueError: their leading axes disagree; each is named.
    """
    axes = _axes_of(fields, in_axes)
    rows, places, names = [], [], []
    for field, value in fields.items():
        flags = []
        for path, leaf, axis in _leaves(field, value, axes[field]):
            flags.append(axis is not None)
            if axis is not None:
                rows.append(_axis_first(path, leaf, axis))
                names.append(path)
        places.append((field, tuple(flags)))
    sizes = {name: row.shape[0] for name, row in zip(names, rows, strict=True)}
    if n is not None:
        sizes = {"n": n, **sizes}
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"leading axes disagree: {each}. Each trajectory has one row of each.")
    size = next(iter(sizes.values()), 0)
    if sizes and size < 1:
        raise ValueError(f"{next(iter(sizes))} has a leading axis of length 0; nothing is there.")
    return Inputs(size, rows, fields, tuple(places))


def filled(given: dict[str, PyTree], places: Places, rows: Sequence) -> dict[str, PyTree]:
    """The fields with rows in their places."""
    found, fields = iter(rows), {}
    for name, flags in places:
        leaves, tree = jax.tree.flatten(given[name])
        each = [next(found) if flag else x for x, flag in zip(leaves, flags, strict=True)]
        fields[name] = jax.tree.unflatten(tree, each)
    return fields


def placed(problem: Problem, fields: dict[str, PyTree]) -> Problem:
    """The problem with these fields; y0 of an equation of second order is its pair of states."""
    inner = problem.without_jumps
    names = names_of(inner)
    if len(names) == 2 and "y0" in fields:
        fields = dict(fields)
        state = fields.pop("y0")
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(
                f"y0 of a {type(inner).__name__} is a pair ({', '.join(names)}); "
                f"{type(state).__name__} came."
            )
        fields.update(zip(names, state, strict=True))
    return problem.replace(**fields) if fields else problem


def check_fits(problem: Problem, one: Problem) -> None:
    """Raises an error if the initial state of a trajectory is not shaped as the problem's, unless
    that is a number, in whose place any state may stand.
    """
    for name in ("y0", "x0", "v0", "q0", "p0"):
        own, row = getattr(problem, name, None), getattr(one, name, None)
        same = jax.tree.structure(own) == jax.tree.structure(row)
        if own is row or callable(own) or not same:
            continue
        paths = [path for path, _ in jax.tree.flatten_with_path(own)[0]]
        for path, a, b in zip(paths, jax.tree.leaves(own), jax.tree.leaves(row), strict=True):
            if np.ndim(a) and np.shape(a) != np.shape(b):
                where, wanted = name + jax.tree_util.keystr(path), f"n, {str(np.shape(a))[1:]}"
                raise ValueError(
                    f"{where} has rows of shape {np.shape(b)}, and the problem's own has shape "
                    f"{np.shape(a)}: give {where} the shape ({wanted.replace(',)', ')')}, one row "
                    "for each trajectory."
                )


def key_of(key: Array | None, i: Int[Array, ""] | int) -> Array | None:
    """The key of trajectory i."""
    return None if key is None else jax.random.fold_in(key, i)


def trajectory(
    problem: Problem,
    draw: Callable[[Array], dict] | None,
    key: Array | None,
    fields: dict[str, PyTree],
) -> tuple[Problem, Array | None]:
    """The problem of a trajectory, and the key of its path, if it has one.

    Where both are drawn, inputs and path have keys of their own: the halves of the trajectory's.
    """
    if draw is not None:
        assert key is not None
        own, key = jax.random.split(key) if problem.stochastic else (key, None)
        drawn = _draw_fields(draw, own)
        twice = sorted(fields.keys() & drawn.keys())
        if twice:
            raise TypeError(
                f"{twice[0]} was given twice: as {twice[0]}=, and by draw, which returns "
                f"{sorted(drawn)}. Leave one of them out."
            )
        fields = {**fields, **drawn}
    return placed(problem, fields), key


def _draw_fields(draw: Callable[[Array], dict], key: Array) -> dict[str, PyTree]:
    found = draw(key)
    if not isinstance(found, dict):
        raise TypeError(
            f"draw returned {type(found).__name__}; a dict of the problem's fields is wanted, such "
            "as {'args': jax.random.normal(key)}."
        )
    return found


def _axes_of(fields: dict[str, PyTree], in_axes: PyTree) -> dict[str, PyTree]:
    """The axes of each field, as given."""
    if isinstance(in_axes, dict):
        unknown = [name for name in in_axes if name not in fields]
        if unknown:
            raise ValueError(
                f"in_axes has {unknown[0]!r}, which was not given; given were "
                f"{', '.join(fields) or 'no fields'}."
            )
        return {name: in_axes.get(name, 0) for name in fields}
    if in_axes != 0 or isinstance(in_axes, bool):
        raise ValueError(f"in_axes is {in_axes!r}; {_AXES} is wanted.")
    return dict.fromkeys(fields, 0)


def _leaves(field: str, value: PyTree, axes: PyTree) -> list[tuple[str, PyTree, int | None]]:
    """The leaves of a field: their name, and the axis of the trajectories, if they have one."""
    try:
        spread = jax.tree.map(
            lambda axis, part: jax.tree.map(lambda _: _Axis(axis), part),
            axes,
            value,
            is_leaf=lambda x: x is None,
        )
    except ValueError as error:
        raise ValueError(
            f"in_axes[{field!r}] is {axes!r}, which is no prefix of {field}: {error}"
        ) from error
    named, _ = jax.tree_util.tree_flatten_with_path(value)
    found = []
    for (path, leaf), each in zip(named, jax.tree.leaves(spread), strict=True):
        axis = each.axis if _is_array_or_number(leaf) else None
        # A time that all share is a number, and no axis of it could be meant.
        shared = field == "tspan" and _is_array_or_number(leaf) and np.ndim(leaf) == 0
        found.append((field + jax.tree_util.keystr(path), leaf, None if shared else axis))
    return found


class _Axis:
    """An axis, or None, as a leaf."""

    def __init__(self, axis: Any) -> None:
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise ValueError(f"in_axes has {axis!r}; whole numbers are wanted, or None: {_AXES}.")
        self.axis = axis


def _is_array_or_number(x: PyTree) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic, float, int, complex))


def _axis_first(path: str, leaf: ArrayLike, axis: int) -> Shaped[Array, "n ..."]:
    """The leaf with the axis of the trajectories in front."""
    if np.ndim(leaf) == 0:
        field = path.split("[")[0].split(".")[0]
        raise ValueError(
            f"{path} is {leaf if not isinstance(leaf, Tracer) else 'a number'}, without a leading "
            "axis. What is given here has one row for each trajectory; what all share stays in "
            f"the problem, or is named: in_axes={{{field!r}: …}} with None in its place."
        )
    if not -np.ndim(leaf) <= axis < np.ndim(leaf):
        raise ValueError(f"in_axes has {axis} for {path}, which has shape {np.shape(leaf)}.")
    return jnp.moveaxis(jnp.asarray(leaf), axis, 0) if axis else jnp.asarray(leaf)

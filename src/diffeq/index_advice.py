"""Advice for equations whose index is not the stated one, from an analysis on the host."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from .algebra import AbstractMatrix
from .core.packing import Packing
from .methods.index_check import is_determined
from .methods.nearby_states import nearby
from .methods.newton_based import linearised
from .problems import Problem
from .problems.forms import HigherIndex, Implicit, Mass, with_index
from .problems.lowering import equation_at
from .problems.structural_index import Structure, pencil_index, structure_of

__all__ = ["index_advice"]

_MOST_NAMES, _MOST_NUMBERS = 4, 24
_STABILISED = (
    "put its last derivative in its place (index 1), with Baumgarte's terms against the drift, "
    "g'' + 2a g' + a² g = 0"
)


def index_advice(problem: Problem, t: ArrayLike, y: PyTree) -> str:
    """Names the index at (t, y), the equations that cause it, and a remedy."""
    form, packing, t, y = equation_at(problem, t, y)
    here = _Pencil.of(form, t, y)
    rows = packing.names(form.solved_name)
    index = here.system_index
    if index is None:
        dependent = _first_names(rows, here.dependent_rows())
        return f"The equations depend on each other, {dependent}: they do not determine them all."
    if index > 1:
        return _of_higher_index(index, form, packing, here, rows, t, y)
    if form.has_constant_mass:
        return "The index is 1: leave index= out."
    return _without_slopes(form, here, packing.names("y"))


def _of_higher_index(
    index: int,
    form: Mass | Implicit,
    packing: Packing,
    here: "_Pencil",
    rows: list[str],
    t: Array,
    y: Array,
) -> str:
    """Names the equations that have to be differentiated, the components that they then determine,
    and a method that solves the equations as they stand.
    """
    structure = here.structure
    if structure is None or structure.indices.max() != index:
        return (
            f"The index is {index}: the algebraic equations do not determine the algebraic "
            f"components until they are differentiated {_times_in_words(index - 1)}; {_STABILISED}."
        )
    hidden = np.flatnonzero(here.algebraic_rows & (structure.times > 0))
    unknown = np.flatnonzero(here.algebraic_columns & (structure.indices > 1))
    sentence = (
        f"The index is {index}: there are algebraic components, "
        f"{_first_names(packing.names('y'), unknown)}, and the equations do not determine them "
        f"until {_first_names(rows, hidden)} {'is' if len(hidden) == 1 else 'are'} differentiated "
        f"{_times_in_words(int(structure.times[hidden].max(initial=1)))}."
    )
    way = "Differentiate it, and"
    higher = with_index(form, structure.indices)
    if higher is None:
        way = "Write a DAEProblem, which takes index=; or"
    elif _is_solved(higher, t, y):
        stated = _stated(structure.indices, packing)
        way = f"de.RadauIIA5() solves it as it stands, where the DAEProblem has index={stated}; or"
    return f"{sentence} {way} {_STABILISED}."


class _Pencil(NamedTuple):
    """The linearisation M y' = J y near a point: M and J, and flags of their entries that are not
    zero at one of a few points.
    """

    mass: Float[np.ndarray, "n n"]
    by_y: Float[np.ndarray, "n n"]
    slopes: Bool[np.ndarray, "n n"]
    states: Bool[np.ndarray, "n n"]

    @classmethod
    def of(cls, form: Mass | Implicit, t: Array, y: Array) -> "_Pencil":
        """The pencil near (t, y): from a few points, so that no entry is zero by chance."""
        found = []
        for number in (1.0, 2.0, 0.0):
            there, at, dy = nearby(form, jnp.asarray(number, y.dtype), t, y, jnp.zeros_like(t))
            mass, by_y, *_ = linearised(form, there, at, lambda dy=dy: dy)
            by_y = by_y.dense() if isinstance(by_y, AbstractMatrix) else by_y
            mass, by_y = np.asarray(mass, float), np.asarray(by_y, float)
            mass = np.diag(mass) if mass.ndim == 1 else mass
            if np.isfinite(mass).all() and np.isfinite(by_y).all():
                found.append((mass, by_y))
        masses, jacobians = map(np.array, zip(*found, strict=True))
        return cls(masses[0], jacobians[0], (masses != 0).any(axis=0), (jacobians != 0).any(axis=0))

    @property
    def system_index(self) -> int | None:
        """The index of the pencil; None where it is singular."""
        return pencil_index(self.mass, self.by_y)

    @property
    def structure(self) -> Structure | None:
        """The number of times that each equation has to be differentiated, by the Σ-method."""
        return structure_of(self.slopes, self.states)

    @property
    def algebraic_rows(self) -> Bool[np.ndarray, " n"]:
        """Flags of the equations without a derivative y'."""
        return ~self.slopes.any(axis=1)

    @property
    def algebraic_columns(self) -> Bool[np.ndarray, " n"]:
        """Flags of the components whose derivative y' is in no equation."""
        return ~self.slopes.any(axis=0)

    def dependent_rows(self) -> Int[np.ndarray, " k"]:
        """The equations of which a sum vanishes, where λ M − J is singular for each λ."""
        matrix = 0.7310585786 * self.mass - self.by_y
        size = np.abs(matrix).max(axis=1, keepdims=True)
        weights = np.abs(np.linalg.svd(matrix / np.where(size > 0, size, 1))[0][:, -1])
        return np.flatnonzero(weights > 1e-6)


def _without_slopes(form: Implicit, here: _Pencil, state: list[str]) -> str:
    """Advice for a residual of index 1 whose `differential` components are not all determined."""
    flags = np.asarray(form.differential).ravel()
    missing = _first_names(state, np.flatnonzero(flags & here.algebraic_columns))
    return (
        f"The slopes of {missing} are wanted, which differential says are differential, and the "
        "equations do not determine them: say there that they are algebraic."
        if missing
        else "The equations do not determine them: see differential, or give another dy0."
    )


def _is_solved(form: HigherIndex, t: Array, y: Array) -> bool:
    """True if RadauIIA5 solves the equations as they stand."""
    return form.highest <= 3 and bool(is_determined(form, t, y, jnp.zeros_like(t)))


def _stated(index: Int[np.ndarray, " n"], packing: Packing) -> str:
    """The index as a user writes it, with the structure of y0."""
    parts = np.split(index[: packing.size], packing.cuts)
    found = [
        _short_list(part.reshape(shape)) for part, shape in zip(parts, packing.shapes, strict=True)
    ]
    tree = jax.tree.unflatten(packing.rates, found)
    return str(tree)


class _Unquoted(str):
    """A string whose `repr` has no quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _short_list(part: Int[np.ndarray, "..."]) -> int | list | _Unquoted:
    if part.size > _MOST_NUMBERS and part.ndim == 1:
        starts = np.flatnonzero(np.diff(part, prepend=0))
        counts = np.diff(starts, append=len(part))
        return _Unquoted(f"np.repeat({part[starts].tolist()}, {counts.tolist()})")
    return part.tolist()


def _first_names(names: list[str], places: Int[np.ndarray, " k"]) -> str:
    """A list of the first names, with an ellipsis if there are more."""
    found = [names[i] for i in places]
    return ", ".join(found[:_MOST_NAMES]) + (", …" if len(found) > _MOST_NAMES else "")


def _times_in_words(count: int) -> str:
    return {1: "once", 2: "twice"}.get(int(count), f"{count} times")

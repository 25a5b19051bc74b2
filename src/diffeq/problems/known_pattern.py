"""The pattern of a Jacobian that is to be detected, read from the problem's field."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool

from ..autodiff.jax_internals import Tracer
from ..core.packing import Packing, released
from .base import evaluated
from .dae import DAEProblem, packed_mass
from .lowering import as_rate, initial_tree, time_dtype
from .ode import SplitODEProblem

__all__ = ["with_known_pattern"]

_MOST = 64  # patterns that are kept
_found: dict[Hashable, Any] = {}


def with_known_pattern(problem: Any) -> Any:
    """The problem with the pattern of ∂f/∂y, and of M, in its `jac`, where that is to be detected.

    It is read from the field as a function of floating-point numbers of any value; whole numbers
    that are known, such as indices, are constants of it. It is read once for a field and these.
    """
    if problem.has_jumps:
        return problem.replace(problem=with_known_pattern(problem.problem))
    jac: Any = getattr(problem, "jac", None)
    if jac is None or callable(jac) or jac.is_known:
        return problem
    leaves, structure = jax.tree.flatten(problem)
    mass = _places_of_mass(problem)
    places = None if mass is None else np.packbits(mass).tobytes()
    key = structure, tuple(map(_what_is_read_of, leaves)), places
    if key not in _found:
        if len(_found) >= _MOST:
            _found.clear()
        found = _detected(problem)
        _found[key] = found if mass is None else found.with_places(mass)
    return problem.replace(jac=_found[key])


def _places_of_mass(problem: Any) -> Bool[np.ndarray, "n n"] | None:
    """True where M has an entry, which is everywhere if M is not known; None of a diagonal."""
    if not isinstance(problem, DAEProblem):
        return None
    packing = Packing(initial_tree(problem))
    with jax.ensure_compile_time_eval():
        mass = packed_mass(problem, packing)
    if mass.ndim == 1:
        return None
    return np.ones(mass.shape, bool) if isinstance(mass, Tracer) else np.asarray(mass) != 0


def _detected(problem: Any) -> Any:
    """The structure with the pattern of the problem's field, its implicit part if it has two."""
    name = "implicit" if isinstance(problem, SplitODEProblem) else "f"
    leaves, structure = jax.tree.flatten(problem)
    free = [_is_free(x) for x in leaves]
    tree = released(initial_tree(problem))
    like = Packing(tree)
    ends = [evaluated(t, problem.args) for t in evaluated(problem.tspan, problem.args)]

    def field(y: Array, t: Array, moving: list) -> Array:
        found = iter(moving)
        each = [next(found) if on else x for x, on in zip(leaves, free, strict=True)]
        inside = jax.tree.unflatten(structure, each)
        marked = initial_tree(inside)
        packing = Packing(marked)
        packing = packing.with_held(packing.held_of(released(marked)))
        value = getattr(inside, name)(t, packing.unpack(y), inside.args)
        return packing.pack(as_rate(name, value, (marked,))).ravel()

    moving = [_blank(x) for x, on in zip(leaves, free, strict=True) if on]
    packing = Packing(initial_tree(problem))
    y = np.zeros(packing.shapes[0] if packing.single else packing.size, packing.dtype)
    t = np.zeros((), time_dtype(ends, like.dtype))
    return problem.jac.detected(field, y, t, moving)


def _is_free(x: ArrayLike) -> bool:
    """True if the pattern must not depend on the value."""
    return isinstance(x, Tracer) or jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _blank(x: ArrayLike) -> np.ndarray:
    return np.zeros(jnp.shape(x), jnp.result_type(x))


def _what_is_read_of(x: ArrayLike) -> Hashable:
    """Shape and dtype, and the value of numbers that are constants of the field."""
    seen = jnp.shape(x), jnp.result_type(x)
    return seen if _is_free(x) else (*seen, np.asarray(x).tobytes())

"""Consistent initial values of a differential-algebraic problem."""

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .core.lift import flatten, unflatten
from .core.primitive import Tracer
from .core.status import Status
from .diagnosis import hint
from .door import Door
from .methods.mass import consistent as nearest
from .methods.mass import correction
from .problems import DAEProblem, Problem
from .problems.dae import packed_differential
from .problems.forms import Mass
from .problems.lowering import canonical
from .refuse import checked_problem
from .solution import Last, SolveError

__all__ = ["consistent", "settled"]


def consistent(problem: Problem) -> Problem:
    """The problem with consistent initial values: what `solve` starts from.

    Newton's method finds y with M (y − y0) = 0, or with the `differential` components of y0, that
    satisfies the algebraic equations. It differentiates to every order, by everything that the
    problem holds.

    Raises:
        TypeError: what was given is no `DAEProblem`.
        SolveError: none were found near the guess (inside a trace: they are NaN).

    Reference: hairer1996, VI.1.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> circle = lambda t, y, r: jnp.stack([-y[1], y[0] ** 2 + y[1] ** 2 - r**2])
        >>> problem = de.DAEProblem(circle, [0.6, 0.5], (0.0, 1.0), 1.0, mass_matrix=[1.0, 0.0])
        >>> de.consistent(problem).y0
        Array([0.6, 0.8], dtype=float32)
    """
    if not isinstance(problem, DAEProblem):
        raise TypeError(f"problem is {problem!r}; a DAEProblem is wanted.")
    checked_problem(problem)
    leaves, structure = flatten(problem)
    t0, given, y0, found = _consistent(structure, leaves)
    if not isinstance(found, Tracer) and not found:
        status = Status.inconsistent
        last = Last(t0, given, jnp.zeros_like(t0))
        sentence = f"{status.reason}. {hint(status, problem, None, last)}".strip()
        raise SolveError(sentence, status=status, t=t0, y=given, dt=0.0, index=(), solution=None)
    return problem.replace(y0=y0)


@partial(jax.jit, static_argnums=0)
def _consistent(structure: Any, leaves: list) -> tuple:
    problem = unflatten(structure, leaves)
    entry = canonical(problem, real=True)
    form = entry.form(entry.parameters, 1)
    y0, found = nearest(form, entry.t0, entry.y0, packed_differential(problem, entry.packing))
    unpack = entry.packing.unpack
    return entry.t0, unpack(entry.y0), unpack(jnp.where(found, y0, jnp.nan)), found


def settled(door: Door, init: str) -> tuple[Door, Array]:
    """The door with initial values that obey the algebraic equations, if there are any; and whether
    there are such values.
    """
    form, _, _ = door.system.parts(door.data)
    if init == "given" or not isinstance(form, Mass) or form.mass is None:
        return door, jnp.array(True)
    entry = door.canonical
    if init == "check":
        return door, _obeys(form, door.t0, entry.y0, door.data.tolerance)
    y0, found = nearest(form, door.t0, entry.y0, door.data.kept)
    y0 = jnp.where(found, y0, entry.y0)
    return replace(door, canonical=eqx.tree_at(lambda c: c.y0, entry, y0)), found


def _obeys(form: Mass, t0: Array, y0: Array, tolerance: Any) -> Array:
    """Whether the step of Newton's method from y0 would stay inside the tolerance."""
    step = correction(form, t0, y0)
    error2, _ = tolerance.squared(step.reshape(y0.shape), y0, y0, None)
    return error2 <= 1

"""Consistent initial values of a differential-algebraic problem."""

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .capturing import captured_problem
from .closures import flatten, unflatten
from .core.primitive import Tracer
from .core.status import Status
from .diagnosis import hint
from .door import Door
from .methods.mass import consistent as nearest
from .methods.mass import constrained, correction, slope_of
from .problems import DAEProblem, ImplicitDAEProblem, Problem
from .problems.dae import packed_differential
from .problems.forms import Implicit
from .problems.lowering import canonical
from .refuse import checked_problem
from .solution import Last, SolveError

__all__ = ["consistent", "settled"]


def consistent(problem: Problem) -> Problem:
    """The problem with consistent initial values: what `solve` starts from.

    Newton's method finds y with M (y − y0) = 0, or with the `differential` components of y0, that
    satisfies the algebraic equations; of an `ImplicitDAEProblem` it finds dy with it, of which the
    algebraic components follow from dF/dt = 0. All differentiates to every order, by everything
    that the problem holds.

    Raises:
        TypeError: what was given is neither a `DAEProblem` nor an `ImplicitDAEProblem`.
        SolveError: none were found near the guess (inside a trace: they are NaN).

    Reference: hairer1996, VI.1; brown1998.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> circle = lambda t, y, r: jnp.stack([-y[1], y[0] ** 2 + y[1] ** 2 - r**2])
        >>> problem = de.DAEProblem(circle, [0.6, 0.5], (0.0, 1.0), 1.0, mass_matrix=[1.0, 0.0])
        >>> de.consistent(problem).y0
        Array([0.6, 0.8], dtype=float32)
    """
    if not isinstance(problem, (DAEProblem, ImplicitDAEProblem)):
        raise TypeError(
            f"problem is {problem!r}; a DAEProblem is wanted, or an ImplicitDAEProblem."
        )
    checked_problem(problem)
    leaves, structure = flatten(captured_problem(problem))
    t0, given, values, found = _consistent(structure, leaves)
    if not isinstance(found, Tracer) and not found:
        status = Status.inconsistent
        last = Last(t0, given, jnp.zeros_like(t0))
        sentence = f"{status.reason}. {hint(status, problem, None, last)}".strip()
        raise SolveError(sentence, status=status, t=t0, y=given, dt=0.0, index=(), solution=None)
    return problem.replace(**values)


@partial(jax.jit, static_argnums=0)
def _consistent(structure: Any, leaves: list) -> tuple:
    problem = unflatten(structure, leaves)
    entry = canonical(problem, real=True)
    form = entry.form(entry.parameters, 1, entry.held)
    y0, found = nearest(form, entry.t0, entry.y0, packed_differential(problem, entry.packing))
    packing = entry.packing.beside(entry.held)
    values = {"y0": packing.marked(jnp.where(found, y0, jnp.nan))}
    if isinstance(form, Implicit):
        dy0 = slope_of(form, entry.t0, y0)
        values["dy0"] = packing.rates_of(jnp.where(found, dy0, jnp.nan))
    return entry.t0, packing.unpack(entry.y0), values, found


def settled(door: Door, init: str) -> tuple[Door, Array]:
    """The door with initial values that obey the algebraic equations, if there are any; and whether
    there are such values.
    """
    form, _, _ = door.system.parts(door.data)
    if init == "given" or not constrained(form):
        return door, jnp.array(True)
    entry = door.canonical
    if init == "check":
        return door, _obeys(form, entry.y0, door)
    y0, found = nearest(form, door.t0, entry.y0, door.data.kept)
    y0 = jnp.where(found, y0, entry.y0)
    return replace(door, canonical=eqx.tree_at(lambda c: c.y0, entry, y0)), found


def _obeys(form: Any, y0: Array, door: Door) -> Array:
    """Whether the step of Newton's method from y0 would stay inside the tolerance."""
    step, beside = correction(form, door.t0, y0, door.t1 - door.t0)
    step, beside = step.reshape(y0.shape), beside.reshape(y0.shape)
    error2, _ = door.data.tolerance.squared(step, beside, beside, None)
    return error2 <= 1

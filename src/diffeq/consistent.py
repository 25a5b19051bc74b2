"""Consistent initial values of a differential-algebraic problem."""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .autodiff.jax_internals import Tracer
from .capture_call import captured_problem
from .closures import flatten, unflatten
from .controllers.tolerance import Tolerance
from .core.status import Status
from .diagnosis import hint
from .integrator.build import BuiltSolve
from .methods.index_check import is_determined
from .methods.pattern_check import declared_structure, has_declared_entries
from .problems import DAEProblem, ImplicitDAEProblem, Problem
from .problems.dae import packed_differential
from .problems.forms import DifferentialAlgebraic, Mass, Ode, Split
from .problems.known_pattern import with_known_pattern
from .problems.lowering import canonical
from .solution import Last, SolveError
from .validation import checked_problem

__all__ = ["consistent", "with_consistent_values"]


def consistent[P: Problem](problem: P) -> P:
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
    leaves, structure = flatten(with_known_pattern(captured_problem(problem)))
    t0, given, values, status = _consistent(structure, leaves)
    if not isinstance(status, Tracer) and status != Status.running:
        status = Status(int(status))
        last = Last(t0, given, jnp.zeros_like(t0))
        sentence = f"{status.reason}. {hint(status, problem, None, last)}".strip()
        raise SolveError(sentence, status=status, t=t0, y=given, dt=0.0, index=(), solution=None)
    return problem.replace(**values)


@partial(jax.jit, static_argnums=0)
def _consistent(structure: Hashable, leaves: list) -> tuple:
    problem = unflatten(structure, leaves)
    entry = canonical(problem, real=True)
    form = entry.form(entry.parameters, 1, entry.held)
    t0, span = entry.t0, jnp.abs(entry.t1 - entry.t0)
    kept = packed_differential(problem, entry.packing)
    y0, found = form.consistent_state(t0, entry.y0, kept, _tolerance(entry.y0))
    status = _status(form, t0, jnp.where(found, y0, entry.y0), span, found)
    packing, good = entry.packing.with_held(entry.held), status == Status.running
    values = {"y0": packing.marked(jnp.where(good, y0, jnp.nan))}
    if "dy0" in problem.fields:
        dy0 = form.slope(t0, y0)
        values["dy0"] = packing.rates_of(jnp.where(good, dy0, jnp.nan))
    return t0, packing.unpack(entry.y0), values, status


def _tolerance(y: Array) -> Tolerance:
    """The one that `solve` has by default."""
    rtol, atol = (jnp.asarray(x, jnp.finfo(y.dtype).dtype) for x in (1e-3, 1e-6))
    return Tolerance(rtol, atol)


def with_consistent_values(built: BuiltSolve, init: str) -> tuple[BuiltSolve, Int[Array, ""]]:
    """The solve with initial values that obey the algebraic equations, if there are any; and the
    status of the search: `running`, or what is wrong with the equations or with the values.
    """
    form, _, _ = built.integrator.parts(built.data)
    running = jnp.int32(Status.running)
    entry, span, found = built.canonical, built.t1 - built.t0, jnp.ones((), bool)
    if built.method.real_view and declared_structure(form) is not None:
        running = _pattern_status(form, built.t0, entry.y0, span)
    if not form.has_algebraic_equations:
        return built, running
    if init == "given" and getattr(built.method, "linear", None) is not None:
        return built, running  # a method that solves by products has no room for a matrix
    if init == "check":
        found = _obeys(form, entry.y0, built)
    if init == "consistent":
        data = built.data
        y0, found = form.consistent_state(built.t0, entry.y0, data.kept, data.tolerance)
        y0 = jnp.where(found, y0, entry.y0)
        entry = eqx.tree_at(lambda c: c.y0, entry, y0)
    status = _status(form, built.t0, entry.y0, span, found)
    return replace(built, canonical=entry), jnp.where(running == Status.running, status, running)


def _pattern_status(form: Ode | Split | Mass, t: Array, y: Array, span: Array) -> Int[Array, ""]:
    """The status of a solve whose Jacobian has a declared structure: `running` if that is right."""
    good = has_declared_entries(form, t, y, span)
    return jnp.where(good, Status.running, Status.wrong_pattern).astype(jnp.int32)


def _status(
    form: DifferentialAlgebraic, t: Array, y: Array, span: Array, found: Array
) -> Int[Array, ""]:
    """The status of initial values: `running` if the equations hold, and have the stated index."""
    status = jnp.where(found, Status.running, Status.inconsistent)
    return jnp.where(is_determined(form, t, y, span), status, Status.wrong_index).astype(jnp.int32)


def _obeys(form: DifferentialAlgebraic, y0: Array, built: BuiltSolve) -> Array:
    """True if the Newton step from y0 stays inside the tolerance."""
    span, tolerance = built.t1 - built.t0, built.data.tolerance
    step, reference = form.newton_correction(built.t0, y0, span, tolerance)
    step, reference = step.reshape(y0.shape), reference.reshape(y0.shape)
    error2, _ = tolerance.squared(step, reference, reference, None)
    return error2 <= 1

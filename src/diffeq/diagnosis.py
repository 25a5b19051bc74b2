"""Advice for a solve that failed, from an analysis on the host."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from .algebra import AbstractMatrix, JacobianStructure, Krylov, field_derivatives
from .autodiff.jax_internals import Tracer
from .capture_call import captured_problem
from .core.notices import INSIDE
from .core.packing import Packing
from .core.status import Status
from .index_advice import index_advice
from .methods.base import Method
from .methods.explicit_rk import ExplicitRK
from .methods.nearby_states import nearby
from .methods.newton_based import ImplicitMethod, linearised
from .methods.order import stability_reach
from .methods.pattern_check import TURNS, declared_structure, missed_by_rows
from .methods.rosenbrock import Rosenbrock
from .problems import Problem
from .problems.base import evaluated
from .problems.cde import by_increments
from .problems.forms import HigherIndex, Mass, Ode, Split, lower
from .problems.known_pattern import with_known_pattern
from .problems.lowering import equation_at

__all__ = [
    "Last",
    "advice",
    "dominant_eigenvalue",
    "hint",
    "inconsistency",
    "not_finite",
    "stiffness",
    "warn_of_stiffness",
]


class Last(NamedTuple):
    """The last accepted step of a solve, in the problem's units; always finite."""

    t: Any
    y: PyTree
    dt: Any


_ADVICE: dict[Status, str] = {
    Status.max_steps: "Give more with max_steps=, or loosen the tolerances.",
    Status.step_too_small: "The solution may be singular there, or the field discontinuous "
    "(declare its jumps with stops=).",
    Status.nonfinite: "The solution may blow up there: look at the field at this state, and for an "
    "implicit method at its Jacobian (that of sqrt or of a norm is not finite at 0); or end tspan "
    "before it.",
    Status.dtmin: "Lower dtmin, or loosen the tolerances.",
    Status.bad_times: "Save times are sorted along the direction of time and inside tspan; NaN "
    "only at the end.",
    Status.too_many_saves: "Give more rows with max_saves=, or save at given times.",
    Status.newton_failed: "The field may be discontinuous there (declare its jumps with stops=), "
    "or jac wrong; with a fixed step, give a shorter dt.",
    Status.tape_overflow: "Give a longer tape with adjoint=de.Discrete(rows=…), or one with "
    "checkpoints (checkpoint=True), which holds every solve.",
    Status.inconsistent: "Give another guess of the algebraic parts of y0.",
    Status.wrong_index: "An algebraic equation has to be differentiated before it determines an "
    "algebraic component: put its derivative in its place; or solve index 2 and 3 as they stand, "
    "with de.RadauIIA5() and the index= of a DAEProblem.",
    Status.wrong_pattern: 'Give jac=de.Sparse("detect"), which finds the pattern, or a wider one.',
    Status.not_at_rest: "Give a guess nearer to it; or follow the equation in time to where it "
    "comes to rest, if it does, with a method such as de.Tsit5(); or, where ∂f/∂y is singular "
    "there (something is conserved), add what is conserved to the equations.",
    Status.zeno: "An affect leaves its own or another condition true, or jumps follow each other "
    "ever faster (a ball that comes to rest): end the solve there with a terminal event, or let "
    "the affect move the state clear of the condition.",
    Status.too_many_events: "Give more rows with max_events=.",
    Status.history_overflow: "Keep more steps with max_saves= (more than lie within the largest "
    "lag; 1,024 by default).",
    Status.beyond_present: "A lag is positive: past(t - lag); where time runs backwards the past "
    "lies at past(t + lag).",
    Status.undifferentiable: "Give y0=None, where y0 is the end of the history; or lags that are "
    "numbers or a function of args alone, of which the derivative knows when the jump comes back.",
    Status.bad_lags: "Lags are positive numbers, in the unit of time.",
}

_HELD_DOWN = (Status.max_steps, Status.dtmin)
_HELD_UP = (*_HELD_DOWN, Status.step_too_small, Status.newton_failed)
_NUMERIC = (*_HELD_DOWN, Status.step_too_small, Status.nonfinite, Status.newton_failed)
_UNSOLVED = (Status.step_too_small, Status.nonfinite, Status.newton_failed)

# An explicit method on a stiff problem works at its stability limit: dt · ρ near the interval.
_NEAR = 0.3
_MANY = 1_000  # attempts, from which on the default is looked at
_MANY_STATES = 64  # numbers, from which on it pays to know where a Jacobian is zero
# Eigenvalues within 35 degrees of the imaginary axis swing. A solution is slow where it bends a
# tenth as much as one that moves at their pace; vectors are parallel where a sine is below 1e-3.
_SWINGS, _SLOW, _PARALLEL = 2.18, 0.1, 1e-6


def advice(status: Status) -> str:
    """Returns advice by the status alone."""
    return _ADVICE.get(status, "")


def hint(status: Status, problem: Problem, method: Method | None, last: Last) -> str:
    """Returns advice by the status, the problem, the method and the last state of a failed
    solve.
    """
    if problem.has_jumps:
        rates = "A rate that is negative or NaN does that, too: jnp.maximum(rate, 0)."
        found = hint(status, problem.without_jumps, method, last)
        return f"{found} {rates}" if status in _NUMERIC else found
    if any(isinstance(x, Tracer) for x in jax.tree.leaves((problem, last))):
        return advice(status)
    found = stiffness(problem, method, last) if status in _HELD_DOWN else ""
    found = found or (sliding(problem, last) if status in _HELD_UP else "")
    if status == Status.inconsistent:
        found = inconsistency(problem, last.t, last.y)
    if status == Status.tape_overflow and problem.delayed:
        found = (
            f"{advice(status)} That of a delay equation is its past, too, and never thinned: as "
            "many rows as the solve has attempts are wanted (default 1,024)."
        )
    if status == Status.wrong_index:
        found = index_advice(problem, last.t, last.y)
    if status == Status.wrong_pattern:
        found = missing_entry(problem, last)
    if status == Status.nonfinite:
        found = nonfinite_derivative(problem, method, last)
    why = not_finite(problem.args) if status in _NUMERIC else ""
    if status in _UNSOLVED and (solver := getattr(method, "linear", None)) is not None:
        better = "a better preconditioner, " if isinstance(solver, Krylov) else ""
        named = repr(solver) if better else type(solver).__name__
        found = (
            f"{named} may not have got there: give it more steps, {better}or another solver with "
            f"linear=, or none (LU). {advice(status)}"
        )
    return f"{why} {found or advice(status)}".strip()


def not_finite(args: PyTree) -> str:
    """A sentence if a number in args is NaN or infinite; else nothing.

    Said after a failure and not refused before: masked data and open bounds are such numbers, too.

    >>> not_finite({"k": jnp.array([1.0, jnp.nan])})
    "args['k'] has NaN, which may be why."
    """
    for path, leaf in jax.tree.flatten_with_path(args)[0]:
        dtype = getattr(leaf, "dtype", type(leaf))
        if not jnp.issubdtype(dtype, jnp.inexact) or np.isfinite(leaf).all():
            continue
        found = "NaN" if np.isnan(leaf).any() else "inf"
        return f"args{jax.tree_util.keystr(path)} has {found}, which may be why."
    return ""


def stiffness(problem: Problem, method: Method | None, last: Last) -> str:
    """A sentence if the step was held down by stability and not by accuracy; else nothing.

    The eigenvalue λ of the Jacobian that is largest by modulus is compared with the stability
    region in its direction. A solution that itself moves as fast as λ needs short steps for
    accuracy; that one moves slowly shows in y'' = ∂f/∂t + ∂f/∂y f, which is then small beside λ f.
    """
    method = getattr(method, "nonstiff", method)  # which a pair of methods begins with
    if not isinstance(method, ExplicitRK) or not _has_slope(problem):
        return ""
    table = method.tableau
    rate = dominant_eigenvalue(problem, last.t, last.y)
    if not rate or not math.isfinite(abs(rate)):
        return ""
    angle = abs(math.atan2(rate.imag, rate.real))
    swings = angle < _SWINGS
    if angle < math.pi / 2 - 0.1 or (swings and not _moves_slowly(problem, last, abs(rate))):
        return ""
    towards, growth = (angle, 0.05) if swings else (math.pi, 0.0)
    limit = stability_reach(table.A, table.b, towards, growth)
    reach = abs(float(last.dt)) * abs(rate)
    if not reach > _NEAR * limit:
        return ""
    by = " by fast oscillations that are hardly in the solution" if swings else ""
    return (
        f"The problem is stiff{by}: try Rodas5P or another implicit method (an explicit one cannot "
        f"step past {limit:.2g}/|λ|, here dt·|λ| = {reach:.2g}, however loose the tolerance)."
        f"{_declare_zeros(problem, last.y)}"
    )


def _declare_zeros(problem: Problem, y: PyTree) -> str:
    """A sentence if ∂f/∂y is large, and nothing is known of its zeros."""
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(y))
    takes_jac = "jac" in problem.fields and getattr(problem, "jac", None) is None
    if size <= _MANY_STATES or not takes_jac:
        return ""
    return (
        f' Its Jacobian has {size}² entries: say where it is not zero, jac=de.Sparse("detect") or '
        "de.Banded(lower, upper), and the others cost nothing; or let BDF(linear=…) take products."
    )


def _moves_slowly(problem: Problem, last: Last, rate: float) -> bool:
    """True if y'' is far smaller than that of a solution that moves at this rate."""
    field, t, y = _slope_at(problem, last.t, last.y)
    slope, bend = jax.jvp(field, (t, y), (jnp.ones_like(t), field(t, y)))
    bend_size, slope_size = (float(jnp.linalg.norm(x.ravel())) for x in (bend, slope))
    return bend_size < _SLOW * rate * slope_size


def warn_of_stiffness(
    problem: Problem, method: Method, last: Last, stats: dict[str, Array]
) -> None:
    """Warns of a solve that succeeded in many steps of the explicit default, held down by
    stability: above 64 numbers no stiff method stands by.
    """
    attempts = int(stats["steps"]) + int(stats["rejected"])
    if attempts < _MANY or not problem.is_ode or not hasattr(method, "tableau"):
        return
    known = jax.lax.stop_gradient((last, evaluated(problem.tspan, problem.args)[0]))
    if any(isinstance(x, Tracer) for x in jax.tree.leaves((known, problem))):
        return
    last, t0 = known
    mean = abs(float(last.t) - float(t0)) / int(stats["steps"])
    longer = max(abs(float(last.dt)), mean)  # the last step may be cut short
    if found := stiffness(problem, method, last._replace(dt=longer)):
        warnings.warn(
            f"The default took {attempts} attempts by {method!r}. {found}",
            skip_file_prefixes=INSIDE,
        )


_SLIDING = (
    "The field jumps there and points to that place from both sides (a sliding mode): a solution "
    "can only go to and fro by ever shorter steps. Smooth the jump, jnp.tanh(y / eps) in place of "
    "jnp.sign(y); or end the solve there with an event, and go on with the equation of the motion "
    "that stays in that place (Filippov's)."
)


def sliding(problem: Problem, last: Last) -> str:
    """A sentence if the field jumps where the solve stopped, and points there from both sides; else
    nothing.

    Along f, some steps ahead and back, two states are sought at which a component of f has opposite
    signs, and bisected: at a jump it still has where no number is left between them.
    """
    if not _has_slope(problem) or not hasattr(problem, "f"):
        return ""
    field, y = _field_of(problem, last)
    f = field(y)
    if np.iscomplexobj(f) or not (np.isfinite(f).all() and np.any(f)):
        return ""
    step = abs(float(last.dt)) * f
    for count in (-1e4, -1e2, -4.0, 4.0, 1e2, 1e4):
        ends = sorted((0.0, count))
        fields = [field(y + c * step) for c in ends]
        for i in np.flatnonzero(np.sign(fields[0]) * np.sign(fields[1]) < 0):
            if _meets(lambda c, i=i: field(y + c * step)[i], ends, step[i]):
                return _SLIDING
    return ""


def _meets(component: Callable, ends: list[float], along: float, turns: int = 60) -> bool:
    """True if a component of the field along a line, of opposite signs at its ends, jumps between,
    and points to the jump from both sides.
    """
    (low, high), (before, after) = ends, (component(c) for c in ends)
    size = min(abs(before), abs(after))
    for _ in range(turns):
        middle = (low + high) / 2
        value = component(middle)
        if np.sign(value) == np.sign(before):
            low, before = middle, value
        else:
            high, after = middle, value
    return bool(along * before > 0 > along * after and abs(after - before) > size)


def _field_of(problem: Problem, last: Last) -> tuple[Callable, np.ndarray]:
    """The field at the last time, as a function of the state as a vector, and that."""
    field, t, state = _slope_at(problem, last.t, last.y)
    at = jax.jit(lambda y: field(t, y.reshape(state.shape)))
    return lambda y: np.asarray(at(jnp.asarray(y, state.dtype))).ravel(), np.ravel(state)


def _has_slope(problem: Problem) -> bool:
    """True if y' is a function of t and y, outside of steps as well."""
    other = problem.delayed or problem.stochastic or problem.algebraic
    return not (other or by_increments(problem))


def _slope_at(problem: Problem, t: ArrayLike, y: PyTree) -> tuple[Callable, Array, Array]:
    """The whole field, with a time and a packed state of it, which may be complex."""
    form, _, t, state = equation_at(problem, t, y, real=False)
    return lower(form, "ode", "a diagnosis").field, t, state


def nonfinite_derivative(problem: Problem, method: Method | None, last: Last) -> str:
    """A sentence if the field is finite where the solve ended, and a derivative of it that the
    method uses is not; else nothing.
    """
    method = getattr(method, "stiff", method)  # of a pair of methods
    uses = isinstance(method, (ImplicitMethod, Rosenbrock))
    if not uses or problem.delayed or problem.stochastic:
        return ""
    form, packing, t, y = equation_at(problem, last.t, last.y)
    form = lower(form, ("split", "implicit", "mass"), "a diagnosis")
    if not np.isfinite(form.solved_value(t, y)).all():
        return ""
    name = form.solved_name
    rows, columns = packing.names(name), packing.names("y")
    by_y = linearised(form, t, y).by_y
    if (bad := _first_nonfinite(by_y)) is not None:
        i, j, size = bad
        entry = f"∂{rows[i]}/∂{columns[j]} is {size:g}"
        if callable(form.jac):
            return f"{name} is finite at this state, and jac is not: {entry}."
        finite = f"{name} is finite at this state, and its Jacobian is not"
        return f"{finite}: {entry}. {_INFINITE_SLOPE}"
    solved: Any = form
    by_t = (
        field_derivatives(solved.field, t, y, solved.jac).by_t
        if isinstance(method, Rosenbrock)
        else None
    )
    if by_t is None or np.isfinite(by_t).all():
        return ""
    i = int(np.flatnonzero(~np.isfinite(by_t))[0])
    return (
        f"{name} is finite at this time, and its derivative by t is not: ∂{rows[i]}/∂t is "
        f"{float(by_t[i]):g}. {method!r} has it in its formula; RadauIIA5, KenCarp4 and BDF do "
        "without it."
    )


def _first_nonfinite(matrix: Array | AbstractMatrix) -> tuple[int, int, float] | None:
    """The row, the column and the size of the first entry that is not finite."""
    if isinstance(matrix, AbstractMatrix):
        rows, columns, values = matrix.entries()
    else:
        rows, columns = np.indices(matrix.shape).reshape(2, -1)
        values = np.asarray(matrix).ravel()
    bad = np.flatnonzero(~np.isfinite(values))
    if not bad.size:
        return None
    k = bad[0]
    return int(rows[k]), int(columns[k]), float(abs(values[k]))


_INFINITE_SLOPE = (
    "sqrt, a norm, and powers below 1 have an infinite derivative at 0, of which jnp.where or "
    "jnp.maximum around them make NaN. Keep 0 from them, jnp.where(y > 0, jnp.sqrt(jnp.where(y > "
    "0, y, 1)), 0); or give the problem jac=."
)


def missing_entry(problem: Problem, last: Last) -> str:
    """A sentence on an entry of ∂f/∂y that the declared structure leaves out; else nothing."""
    given = getattr(problem, "jac", None)
    problem = with_known_pattern(captured_problem(problem))
    form, packing, t, y = equation_at(problem, last.t, last.y)
    if (structure := declared_structure(form)) is None:
        return ""
    for turn in TURNS:
        place = nearby(form, jnp.asarray(turn, y.dtype), t, y, jnp.zeros_like(t))[:2]
        if (found := _entry_outside(form, structure, *place)) is not None:
            i, j, size = found
            name = form.solved_name
            entry = f"∂{packing.names(name)[i]}/∂{packing.names('y')[j]}"
            detected = isinstance(given, JacobianStructure) and not given.is_known
            way_out = _NOT_DETECTED if detected else advice(Status.wrong_pattern)
            return (
                f"{entry} is {size:g} at a state near y0, and jac={given!r} has no entry there. "
                f"{way_out}"
            )
    return ""


_NOT_DETECTED = (
    "It should have been found, which is an error of this package: please report f, and give the "
    "pattern, jac=de.Sparse(pattern)."
)


def _entry_outside(
    form: Ode | Split | Mass, structure: JacobianStructure, t: Array, y: Array
) -> tuple[int, int, float] | None:
    """The row, the column and the value of an entry of ∂f/∂y that a structure leaves out."""
    rows = np.flatnonzero(missed_by_rows(form, t, y))
    if not rows.size:
        return None
    i, places, field = int(rows[0]), jnp.arange(y.size), form.solved_field
    _, push = jax.linearize(lambda x: field(t, x.reshape(y.shape)).ravel(), y.ravel())
    entry = lambda j: push((places == j).astype(y.dtype))[i]  # noqa: E731
    row = np.asarray(jax.lax.map(entry, places)).copy()
    known_rows, known_columns = structure.entries(y.size)
    row[known_columns[known_rows == i]] = 0
    j = int(np.argmax(np.abs(row)))
    return i, j, float(row[j])


def inconsistency(problem: Problem, t: ArrayLike, y: PyTree) -> str:
    """A sentence on how far the algebraic equations are from being met at (t, y)."""
    form, packing, t, y = equation_at(problem, t, y)
    if form.has_higher_index:
        return _hidden_inconsistency(form, packing, t, y)
    if (stray := np.flatnonzero(form.undeclared_slopes(t, y))).size:
        return (
            f"The residual depends on dy of component {stray[0]}, which differential says is "
            "algebraic: say there that it is differential, or leave its slope out."
        )
    missed = np.asarray(form.algebraic_residual(t, y))
    worst = int(np.argmax(np.abs(missed)))
    shown = np.array2string(missed, precision=3, threshold=6, separator=", ")
    return (
        f"They miss by {shown}, most in component {worst}. Give a nearer guess of the algebraic "
        "parts of y0, which init='consistent' starts from; or the equations do not determine them."
    )


def _hidden_inconsistency(form: HigherIndex, packing: Packing, t: Array, y: Array) -> str:
    """A sentence on the algebraic equation, or the derivative of one, that is missed by most."""
    rows = np.asarray(form.algebraic_residual(t, y))
    order, row = np.unravel_index(int(np.argmax(np.abs(rows))), rows.shape)
    times = ("", " differentiated once", " differentiated twice")[order]
    return (
        f"{packing.names('f')[row]}{times} is {rows[order, row]:.3g} where 0 is wanted: above "
        "index 1 constraints hold with their derivatives, such as those for velocities. Mend y0, "
        "which init='consistent' moves by no more than the tolerance; or say with differential= "
        "which components are kept, as many as there are degrees of freedom, to find the others."
    )


def dominant_eigenvalue(problem: Problem, t: ArrayLike, y: PyTree, turns: int = 30) -> complex:
    """The eigenvalue of ∂f/∂y at (t, y) that is largest by modulus, or one of a pair.

    Power iteration with forward derivatives. Of the last three vectors the combination
    v₂ − τ v₁ + δ v₀ is least, and λ is a root of z² − τ z + δ; where v₁ is parallel to v₀, it is
    their ratio.
    """
    field, t, state = _slope_at(problem, t, y)
    push = jax.jit(lambda v: jax.jvp(lambda y: field(t, y), (state,), (v,))[1])
    v = jax.random.normal(jax.random.key(0), state.shape, jnp.finfo(state.dtype).dtype)
    first, second = v.astype(state.dtype), push(v.astype(state.dtype))
    for _ in range(turns):
        size = float(jnp.linalg.norm(second.ravel()))
        if not math.isfinite(size) or size == 0.0:
            return 0j
        first, second = second / size, push(second / size)
    vectors = [_real_vector(x) for x in (first, second, push(second))]
    (a, b), (c, d) = [[float(x @ y) for y in vectors[:2]] for x in vectors[:2]]
    e, f = (float(x @ vectors[2]) for x in vectors[:2])
    if a * d - b * c < _PARALLEL * a * d:
        return complex(b / a)
    delta, trace = np.linalg.solve([[-a, b], [-c, d]], [e, f])
    return complex(max(np.roots([1.0, -trace, delta]), key=abs))


def _real_vector(x: Array) -> np.ndarray:
    """A vector of real numbers, of which a complex one has two."""
    flat = np.asarray(x).ravel()
    return np.concatenate([np.real(flat), np.imag(flat)]).astype(float)

"""Diagonally implicit Runge–Kutta methods: one stepper for every such tableau, and for IMEX pairs.

The unknowns of a step are the displacements u_i = Y_i − y of its stages, and nothing else is kept:
the slopes follow from them, linearly, so that all that a tableau says of slopes is said of
displacements here, once and in 60 digits. Hence no stiff field is evaluated at a stage that is off
by Newton's error, only to blow that up; and no mass matrix is ever inverted.
"""

from collections.abc import Callable, Sequence
from decimal import localcontext
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree, Real

from ..algebra import apply_mass
from ..algebra.newton import NewtonResult, simplified_newton
from ..algebra.roots import implicit_root
from ..autodiff.dynamic_scan import walk
from ..autodiff.row_buffers import put_row
from ..problems.forms import Mass, Split
from .base import Step
from .interpolant import Hermite, Interpolant, Polynomial
from .iteration_matrix import MatrixReusingMethod, NewtonOutcome
from .newton_based import Aim, factors_of, linearised, solved_by
from .order import precise
from .tableau import Tableau, table_of
from .weighted_sums import weighted

__all__ = ["DIRK"]


class DIRK(MatrixReusingMethod):
    """M (Y_i − y) = dt Σ_{j≤i} a_ij f(t + c_j dt, Y_j), one stage after the other; y1 = Y_s or
    y + Σ b_i (…).

    Every stage has the same number γ on the diagonal, so that one Jacobian and one LU of M − γ dt J
    serve all the Newton iterations of a step, and from 64 numbers on of several steps. They stop at
    a hundredth of the tolerance, or give up as soon as their rate says that they will not converge:
    the step is then rejected and shortened (a solve that cannot go on ends with the status
    `newton_failed`). With a fixed dt, rtol and atol say nothing else, and are 1e-12 and 1e-14 where
    they are not given.

    An additive pair, such as KenCarp4, takes a `SplitODEProblem` and steps its second part with its
    explicit half: Y_i = y + dt Σ a_ij f(t_j, Y_j) + dt Σ_{j<i} â_ij g(t_j, Y_j). M may be singular
    (a `DAEProblem` of index 1).

    The error is Σ (b_i − b̂_i) k_i. Where the embedded method is not bounded for stiff components
    (ImplicitEuler, TRBDF2), the estimate passes through (M − γ dt J)⁻¹, which damps them. Dense
    output is the tableau's own, or the cubic with the slopes of both ends.

    A step is differentiated by the implicit function theorem, stage by stage, exactly up to
    Newton's error, with the Jacobian at the stage itself.

    Args:
        tableau: a diagonally implicit `Tableau` with one number on the diagonal, but for a first
            stage that may be explicit; the named methods, such as `KenCarp4()`, bring theirs.
        linear: a linear solver of lineax for M − γ dt J, such as `lineax.GMRES(rtol=1e-3,
            atol=1e-3)`, which asks for products with J alone, for states of many numbers. Its
            tolerances are relative to the largest right side, and Newton's method corrects what it
            leaves; derivatives are solved for to ε^(2/3), 4e-11 in double precision, or as
            far as rounding lets them be. Or a `de.Krylov`, such a solver with a preconditioner.
            None: LU.

    Raises:
        TypeError: linear is no solver of lineax, and no `de.Krylov`.
        ValueError: the tableau is explicit, or its stages depend on later ones.

    Reference: hairer1996, IV.8; kennedy2003.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * (y - 1), 0.0, (0.0, 1.0), 1e6)
        >>> sol = de.solve(problem, de.KenCarp4())
        >>> round(float(sol.y1), 3), bool(sol.stats["steps"] < 30)
        (1.0, True)
    """

    tableau: Tableau = eqx.field(static=True)

    def __init__(self, tableau: Tableau, *, linear: Any = None) -> None:
        self.tableau, self.linear = table_of(Tableau)(tableau), linear
        self.aim, self.kept, self.view = Aim(), None, None
        A, name = tableau.A, tableau.name or "this tableau"
        first = int(A[0, 0] == 0)
        if tableau.explicit or not tableau.diagonally_implicit:
            raise ValueError(f"{name}: a diagonally implicit tableau is wanted.")
        if len(set(np.diag(A)[first:])) > 1:
            raise ValueError(f"{name} has more than one number on its diagonal.")

    @property
    def form(self) -> str | tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A split form where the tableau is an additive pair, else one with a mass matrix."""
        return ("split", "mass") if self.tableau.explicit_A is not None else "mass"

    @property
    def order(self) -> int:
        """Order of the solution that the method advances with."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """The estimate y − ŷ is O(dt^(min(p, p̂) + 1))."""
        embedded = self.tableau.embedded_order
        return self.order if embedded is None else min(self.order, embedded) + 1

    @property
    def adaptive(self) -> bool:
        """True if the tableau has an embedded solution."""
        return self.tableau.b_hat is not None

    def init(self, form: Mass | Split, t: Real[Array, ""], y: Array) -> PyTree:
        """f(t, y), where the last stage of the step before has found it already."""
        return form.solved_field(t, y) if self._carries(form) else ()

    def _carries(self, form: Mass | Split) -> bool:
        """True if the slope at the end of a step is known; not where y1 is no stage."""
        return self.tableau.fsal and form.explicit is None

    def step(
        self, form: Mass | Split, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step; its data are the stages, and the slopes at both ends where they are known."""
        table, mass = self.tableau, form.mass
        rows = _step_coefficients(table, mass is None)
        inverse, matrix = self.matrix_of_step(form, lax.stop_gradient((t, y)), dt, rows.gamma)
        start = self._start(form, t, y, dt, memory)
        done, report = self._walk(form, (t, y, dt), inverse, start)
        error = None
        if rows.error is not None:
            still = lax.stop_gradient(done)
            raw = still.of(rows.error, mass) if rows.damped else still.of(rows.error)
            error = (inverse(raw) if rows.damped else raw).reshape(y.shape)
        after = ()
        if self._carries(form):
            slope = done.of(rows.slope, mass) / jnp.where(dt > 0, dt, 1)
            after = jnp.where(dt > 0, slope.reshape(y.shape), memory)
        y1 = y + done.of(rows.end).reshape(y.shape)
        workspace, again = ((), None) if matrix is None else matrix.after(report.outcome)
        return Step(
            y1,
            error,
            after,
            (done, memory, after),
            report.outcome.solved,
            report.evaluations,
            again=again,
            workspace=workspace,
        )

    def _start(
        self, form: Mass | Split, t: Array, y: Array, dt: Array, memory: PyTree
    ) -> "_Stages":
        """Before the first implicit stage."""
        s, explicit = self.tableau.stages, form.explicit
        moves = jnp.zeros((s, y.size), y.dtype)
        first, pushes = jnp.zeros_like(moves[0]), ()
        if self.tableau.A[0, 0] == 0:
            slope = memory if self._carries(form) else form.solved_field(t, y)
            first = dt * slope.ravel()
        if explicit is not None:
            pushes = jnp.zeros_like(moves)
            if self.tableau.A[0, 0] == 0:
                pushes = put_row(pushes, dt * explicit(t, y).ravel(), jnp.int32(0))
        return _Stages(first, moves, pushes)

    def _walk(
        self, form: Mass | Split, at: tuple, inverse: Callable[[Array], Array], start: "_Stages"
    ) -> tuple["_Stages", "_Report"]:
        """The implicit stages, one a turn of a walk, so that they are traced and compiled once."""
        (t, y, dt), table = at, self.tableau
        mass = form.mass
        field, explicit = form.solved_field, form.explicit
        bounds, rows = self.aim.bounds(y), _step_coefficients(table, mass is None)
        first = int(table.A[0, 0] == 0)
        tiny = float(jnp.finfo(y.dtype).eps)

        def stage(
            active: Bool[Array, "..."], row: PyTree, _: PyTree, carry: PyTree, *__: PyTree
        ) -> tuple:
            del active
            (known, guess, c), i = row
            done, factor, report = carry
            time, rest = t + c * dt, done.of(known, mass)

            def residual(u: Array) -> Array:
                slope = field(time, y + u.reshape(y.shape)).ravel()
                return rest + (rows.gamma * dt) * slope - apply_mass(mass, u)

            def exact(u: Array, r: Array) -> Array:
                linear = linearised(form, time, y + u.reshape(y.shape), solver=self.solver)
                return solved_by(factors_of(linear, dt, rows.gamma), r)

            found = simplified_newton(residual, inverse, done.of(guess), bounds, factor)
            u = implicit_root(residual, found.x, exact)
            push = None if explicit is None else dt * explicit(time, y + u.reshape(y.shape)).ravel()
            # The rate of one stage tells of the next one, which has the same matrix.
            factor = jnp.maximum(found.factor, tiny) ** 0.8
            return (done.put(i, u, push), factor, report.after(found)), ()

        numbers = jnp.arange(first, table.stages, dtype=jnp.int32)
        tables = jax.tree.map(lambda x: jnp.asarray(x[first:], y.dtype), rows.stages)
        split = 0 if explicit is None else table.stages
        count = split + (first if not self._carries(form) else 0)
        outcome = NewtonOutcome(jnp.isfinite(dt), jnp.zeros_like(bounds.limit))
        report = _Report(outcome, jnp.asarray(count, jnp.int32))
        carry = (start, jnp.ones_like(bounds.limit), report)
        (done, _, report), _ = walk(
            stage, 0, len(numbers), rows=(tables, numbers), carry=carry, length=len(numbers)
        )
        return done, report

    def interpolant_evaluates(self, form: Mass | Split) -> bool:
        """True if the interpolant takes slopes that are not known from the stages: of a mass
        matrix, or at the end of a split form, where that is no stage.
        """
        plain = form.mass is None
        dense = _step_coefficients(self.tableau, plain).dense
        if dense is None:
            return not (plain and self._carries(form))
        return not plain and bool(np.any(dense.first))

    def interpolant(
        self, form: Mass | Split, t: Array, y: Array, dt: Array, step: Step
    ) -> Interpolant:
        """The tableau's own dense output, or the cubic with the slopes of both ends."""
        done, before, after = step.data
        plain = form.mass is None
        dense = _step_coefficients(self.tableau, plain).dense
        if dense is None:
            if self.interpolant_evaluates(form):
                before, after = form.slope(t, y), form.slope(t + dt, step.y)
            return Hermite(y, step.y, before, after, dt)
        if self.interpolant_evaluates(form):
            done = done._replace(first=dt * form.slope(t, y).ravel())
        degree = len(dense.first)
        parts = (done.of(jax.tree.map(lambda x, d=d: x[d], dense)) for d in range(degree))
        return Polynomial(y, tuple(part.reshape(y.shape) for part in parts), dt)

    def interpolation_error(
        self, y: Array, dt: Array, step: Step, path: Interpolant | None
    ) -> Array | None:
        """Σ of the tableau's row `dense_error`."""
        row = _step_coefficients(self.tableau, plain=True).inside
        if row is None:
            return None
        done = step.data[0]
        if path is not None and row.first != 0:
            # With a mass matrix the slope of the step is M y'; that of the interpolant is y'.
            done = done._replace(first=(dt * path.slope(jnp.zeros_like(dt))).ravel())
        return done.of(row).reshape(y.shape)


# --- stages -------------------------------------------------------------------------------------


class _StageSum(NamedTuple):
    """The coefficients of Σ over the slope of an explicit first stage, the displacements of the
    stages, and the slopes of their explicit parts. Or several of them, along a leading axis.
    """

    first: np.ndarray | Array
    moves: np.ndarray | Array
    pushes: np.ndarray | Array


class _Stages(NamedTuple):
    """dt f(t, y) where the first stage is explicit, the displacements u_i, and where the form is
    split dt g(t_i, Y_i). What has not been found yet is zero.
    """

    first: Array
    moves: Array
    pushes: Array | tuple

    def of(self, row: _StageSum, mass: Array | None = None) -> Array:
        """The sum of a row, times the mass matrix (which `first` and `pushes` have in them)."""
        total = apply_mass(mass, weighted(row.moves, self.moves))
        if isinstance(row.first, jax.Array) or row.first != 0:
            total = total + jnp.asarray(row.first, total.dtype) * self.first
        return (
            total if isinstance(self.pushes, tuple) else total + weighted(row.pushes, self.pushes)
        )

    def put(self, i: Array, u: Array, push: Array | None) -> "_Stages":
        """The stages with the i-th one found."""
        pushes = self.pushes
        if push is not None and not isinstance(pushes, tuple):
            pushes = put_row(pushes, push, i)
        return self._replace(moves=put_row(self.moves, u, i), pushes=pushes)


class _Report(NamedTuple):
    """The outcome of all stages, and the number of evaluations of the field."""

    outcome: NewtonOutcome
    evaluations: Int[Array, ""]

    def after(self, found: NewtonResult) -> "_Report":
        outcome = self.outcome.and_that_of(found)
        return _Report(outcome, self.evaluations + found.turns)


# --- the tableau, said of displacements ----------------------------------------------------------


class _StepCoefficients(NamedTuple):
    """The coefficients of a step: of each stage (what is known of u_i, where Newton starts, c_i);
    of the end; of the error, and whether it has to be damped; of the last slope; of dense output,
    and of its error.
    """

    gamma: float
    stages: tuple[_StageSum, _StageSum, np.ndarray]
    end: _StageSum
    error: _StageSum | None
    damped: bool
    slope: _StageSum
    dense: _StageSum | None
    inside: _StageSum | None


@cache
def _step_coefficients(table: Tableau, plain: bool) -> _StepCoefficients:
    """The rows of a tableau. `plain`: without a mass matrix, whose inverse a guess would want.

    u_i = Σ_{j<i} (a_ij z_j + â_ij h_j) + γ z_i gives the slopes z (times dt) from the u, one after
    the other; h are those of the explicit part, and z_1, where the first stage is explicit, is
    `first` itself.
    """
    with localcontext(prec=60):
        exact = table.exact
        A, b, c = precise(exact.A), precise(exact.b), precise(exact.c)
        s, gamma = len(A), A[-1, -1]
        pairs = 0 * A if exact.explicit_A is None else precise(exact.explicit_A)
        unit = precise(np.eye(2 * s + 1, dtype=int).astype(object))
        first, u, h = unit[0], unit[1 : s + 1], unit[s + 1 :]
        known, z = [], []
        for i in range(s):
            known.append(sum((A[i, j] * z[j] + pairs[i, j] * h[j] for j in range(i)), 0 * first))
            z.append(first if A[i, i] == 0 else (u[i] - known[i]) / gamma)
        k = np.array(z) + h
        end = u[-1] + (b - pairs[-1]) @ h if table.stiffly_accurate else b @ k
        error = None if exact.b_hat is None else (b - precise(exact.b_hat)) @ k
        dense = None if exact.dense is None else precise(exact.dense).T @ k
        inside = None if exact.dense_error is None else precise(exact.dense_error) @ k
        starts = [_guess(A, c, i, (first + h[0], u), plain) for i in range(s)]
    rows = [_rounded_sum(x) for x in (known, starts, end, error, z[-1], dense, inside)]
    damped = rows[3] is not None and bool(rows[3].first != 0)
    return _StepCoefficients(
        float(gamma), (rows[0], rows[1], table.c), rows[2], rows[3], damped, *rows[4:]
    )


def _rounded_sum(decimals: np.ndarray | Sequence | None) -> Any:
    """Rounded once; what is left of coefficients that cancel is zero."""
    if decimals is None:
        return None
    exact = np.array(decimals, dtype=float)
    exact[abs(exact) < 1e-20] = 0.0
    s = exact.shape[-1] // 2
    return _StageSum(exact[..., 0], exact[..., 1 : s + 1], exact[..., s + 1 :])


def _guess(A: np.ndarray, c: np.ndarray, i: int, known: tuple, plain: bool) -> np.ndarray:
    """Where Newton starts in stage i: on the curve with the slope at the start, through the one or
    two stages nearest in time; without that slope, on the one through the start and through them.
    """
    slope, u = known
    nodes: list[int] = []
    for j in sorted(range(i), key=lambda j: (abs(c[j] - c[i]), -j)):
        if A[j, j] != 0 and all(c[j] != c[k] for k in nodes):
            nodes.append(j)
    has_slope = plain and A[0, 0] == 0
    nodes = nodes[:2]
    if A[i, i] == 0:
        return 0 * slope
    line = c[i] * slope if has_slope else 0 * slope
    power = 2 if has_slope else 1

    def through(j: int) -> np.ndarray:
        rest = u[j] - c[j] * slope if has_slope else u[j]
        return line + (c[i] / c[j]) ** power * rest

    if not nodes:
        return line
    if len(nodes) == 1:
        return through(nodes[0])
    near, far = nodes
    weight = (c[i] - c[far]) / (c[near] - c[far])
    return weight * through(near) + (1 - weight) * through(far)

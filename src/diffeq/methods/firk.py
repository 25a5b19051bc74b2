"""Fully implicit Runge–Kutta methods: all stages at once, one system for each eigenvalue of A⁻¹.

As in `dirk.py` the unknowns are the displacements u_i = Y_i − y of the stages, which solve
(A⁻¹ ⊗ M) U = dt F(U). In the eigenvectors of A⁻¹ the matrix of Newton's method falls apart into
λ M − dt J, one n×n matrix for each real eigenvalue and one complex one for each pair, in place of
one of order sn: five times less work for three stages.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree, Real

from ..algebra import (
    AbstractMatrix,
    JacobianStructure,
    apply_mass,
    factored,
    linear_solve,
    plus_mass,
)
from ..algebra.newton import Bounds, simplified_newton, stop_closure_gradient
from ..algebra.roots import implicit_root
from ..algebra.structured_matrix import structured_jacobian
from ..autodiff.while_loop import loop
from ..problems.forms import Implicit, Mass, divide_by_dt
from .base import Step
from .interpolant import Hermite, Interpolant, Polynomial
from .newton_based import Aim, ImplicitMethod, factors_of, inverse_of, linearised
from .pattern_check import declared_structure
from .tableau import Tableau, table_of
from .weighted_sums import weighted

__all__ = ["FIRK"]

# A step that grows more than this is too far from the one before to be extrapolated from it.
_FARTHEST = 4.0


class FIRK(ImplicitMethod):
    """M (Y_i − y) = dt Σ_j a_ij f(t + c_j dt, Y_j), all stages at once; y1 = y + dt Σ b_j f(…).

    One Jacobian and, for three stages, one real and one complex LU serve all the Newton iterations
    of a step, which start from the polynomial of the step before. They stop at a hundredth of the
    tolerance, or give up as soon as their rate says that they will not converge: the step is then
    rejected and shortened (a solve that cannot go on ends with the status `newton_failed`).

    M may be singular (a `DAEProblem`). With its `index=` 2 or 3 updates and errors of a component
    of index k count h^(k−1), h in the problem's unit of time; with steps of one length RadauIIA5
    then has order 5 in components of index 1, 3 in those of index 2, and 2 in those of index 3. And
    what is solved may be a residual, of index 1: then F(t + c_i dt, Y_i, Y_i') = 0 with Y_i = y +
    dt Σ_j a_ij Y_j' (an `ImplicitDAEProblem`).

    The error is that of an embedded method with the slope at the start as a further stage, and
    passes through (M − γ dt J)⁻¹; where it is not accepted, it is looked at once more with
    f(t, y + error) for the slope, which damps what is infinitely stiff. Dense output of RadauIIA5
    is its collocation polynomial.

    A step is differentiated by the implicit function theorem, exactly up to Newton's error, with
    the Jacobians at the stages; that takes an LU of order sn a step. Of a Jacobian whose structure
    is declared no more is written down there, either: the stages of a component are neighbours, so
    that a band stays one, s times as wide.

    Args:
        tableau: an implicit `Tableau` whose A is regular, but for a first stage that may be the
            slope at the start; the named methods, such as `RadauIIA5()`, bring theirs.

    Raises:
        ValueError: A is singular.

    Reference: hairer1996, IV.8, VII.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * (y - 1), 0.0, (0.0, 1.0), 1e6)
        >>> sol = de.solve(problem, de.RadauIIA5())
        >>> round(float(sol.y1), 3), bool(sol.stats["steps"] < 30)
        (1.0, True)
    """

    form = ("implicit", "mass")

    tableau: Tableau = eqx.field(static=True)

    def __init__(self, tableau: Tableau) -> None:
        self.tableau, self.aim = table_of(Tableau)(tableau), Aim()
        first = int(not any(tableau.A[0]))
        A = tableau.A[first:, first:]
        if not len(A) or np.linalg.matrix_rank(A) < len(A):
            raise ValueError(f"{tableau.name or 'this tableau'}: a regular A is wanted.")

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

    @property
    def highest_index(self) -> int:
        """3 where the last of several stages is the end of the step: there the constraints hold."""
        several = len(_stage_coefficients(self.tableau).nodes) > 1
        return 3 if several and self.tableau.stiffly_accurate else 1

    def init(self, form: Mass | Implicit, t: Real[Array, ""], y: Array) -> "_StageMemory":
        """The slope at the start; of the step before nothing is known."""
        slope = self._slope(form, t, y) if self.tableau.fsal else ()
        blank = jnp.zeros((len(_stage_coefficients(self.tableau).nodes), y.size), y.dtype)
        return _StageMemory(slope, blank, jnp.zeros_like(blank[0, 0]), jnp.ones_like(blank[0, 0]))

    def step(
        self,
        form: Mass | Implicit,
        t: Real[Array, ""],
        y: Array,
        dt: Real[Array, ""],
        memory: PyTree,
    ) -> Step:
        """One step; its data are the stages, and the slopes at both ends where they are known."""
        numbers, bounds = _stage_coefficients(self.tableau), _bounds(self.aim, form, dt, y)
        slope = memory.slope if self.tableau.fsal else self._slope(form, t, y)
        linear = linearised(form, *lax.stop_gradient((t, y)), lambda: lax.stop_gradient(slope))
        system = _StageEquations(numbers, form, t, y, dt, dt * slope.ravel(), linear.mass)
        guess, factor = system.guess(memory), memory.factor
        first = inverse_of(factors_of(linear, dt, 1 / numbers.values[0]))
        if system.has_heavy_mass:
            inverse, factor = system.frozen_inverse(guess), 1.0
        else:
            rest = [inverse_of(factors_of(linear, dt, 1 / x)) for x in numbers.values[1:]]
            inverse = partial(_transformed, numbers, [first, *rest])
        found = simplified_newton(system.residual, inverse, guess, bounds, factor)
        moves = implicit_root(system.residual, found.x, system.inverse)
        error, extra = None, 0
        if numbers.error is not None:
            error, extra = system.error(first, moves, bounds)
            error = form.index_weighted(dt, error).reshape(y.shape)
        y1 = y + weighted(numbers.end, moves).reshape(y.shape)
        after = self._after(system, memory, moves, found.factor)
        count = found.turns * len(numbers.nodes) + extra
        data = moves, memory.slope, after.slope, system.jump(memory, moves)
        return Step(y1, error, after, data, found.found, count)

    def _slope(self, form: Mass | Implicit, t: Array, y: Array) -> Array:
        """M y' at the start, or y' where there is no M; zero where it is not asked for."""
        numbers = _stage_coefficients(self.tableau)
        if form.has_constant_mass and not numbers.starts:
            return 0 * y
        slope = form.mass_times_slope(t, y)
        if form.has_constant_mass or numbers.start.any():
            return slope
        # Where that of a residual has no part in the stages, only the error estimate and Newton
        # ask for it.
        return lax.stop_gradient(slope)

    def _after(
        self, system: "_StageEquations", memory: PyTree, moves: Array, factor: Array
    ) -> "_StageMemory":
        slope = ()
        if self.tableau.fsal:
            slope = jnp.where(system.dt > 0, system.last_slope(moves), memory.slope)
        hints = moves, system.dt, jnp.clip(factor, jnp.finfo(moves.dtype).eps, 1.0) ** 0.8
        return _StageMemory(slope, *lax.stop_gradient(hints))

    def interpolant_evaluates(self, form: Mass | Implicit) -> bool:
        """True if the interpolant takes slopes that are not known from the stages."""
        known = not form.has_algebraic_equations and self.tableau.fsal
        return _stage_coefficients(self.tableau).dense is None and not known

    def interpolation_error(
        self, y: Array, dt: Array, step: Step, path: Interpolant | None
    ) -> Array | None:
        """The jump of the slope from one polynomial to the next, by the tableau's row."""
        del dt, path
        jump = step.data[-1]
        return None if jump is None else jump.reshape(y.shape)

    def interpolant(
        self, form: Mass | Implicit, t: Array, y: Array, dt: Array, step: Step
    ) -> Interpolant:
        """The tableau's own dense output, or the cubic with the slopes of both ends."""
        moves, before, after, _ = step.data
        dense = _stage_coefficients(self.tableau).dense
        if dense is None:
            if self.interpolant_evaluates(form):
                before, after = form.slope(t, y), form.slope(t + dt, step.y)
            return Hermite(y, step.y, before, after, dt)
        return Polynomial(y, tuple(weighted(row, moves).reshape(y.shape) for row in dense), dt)


class _StageMemory(NamedTuple):
    """The memory of a step: its last slope, M y', or y' where a residual is solved. The rest are
    guesses for Newton's method, which change no result by more than its error, and which a replay
    does without: the stages, the dt that they belong to, and the rate.
    """

    slope: Array | tuple[()]
    moves: Array
    dt: Array
    factor: Array


def _bounds(aim: Aim, form: Mass | Implicit, dt: Array, y: Array) -> Bounds:
    """The norm of Newton's updates, and the bound at which it stops. Components that count times h
    have errors of velocities along the constraint, too, where nothing corrects them: so the
    iteration goes on to √rtol, as in RADAU5; but not below what rounding leaves of the equations
    for components of index 1, which is a fraction of the largest component, also for a component
    that is 0.
    """
    bounds = aim.bounds(y)
    if not form.has_higher_index:
        return bounds
    size, flat = bounds.size, jnp.abs(lax.stop_gradient(y.ravel()))
    largest = jnp.max(form.index_weighted(dt, flat))
    rounding = 10 * jnp.finfo(y.dtype).eps * size(jnp.full_like(flat, largest))
    limit = bounds.limit
    if aim.tolerance is not None:
        limit = jnp.minimum(limit, jnp.sqrt(jnp.min(lax.stop_gradient(aim.tolerance.rtol))))
    measure = lambda update: size(form.index_weighted(dt, update))  # noqa: E731
    return Bounds(measure, jnp.maximum(limit, rounding), bounds.turns, paired=True)


# --- the equations of a step ---------------------------------------------------------------------


class _StageEquations(NamedTuple):
    """R(U) = dt F(U) + δ first − (A⁻¹ ⊗ M) U = 0 from (t, y), `first` being dt times the slope
    there; a stage is a row of U. Of a residual, whose slopes are (A⁻¹ U − δ first)/dt, it is
    −dt F at the stages. `mass` is M at the start.
    """

    numbers: "_StageCoefficients"
    form: Any
    t: Array
    y: Array
    dt: Array
    first: Array
    mass: Array | None

    @property
    def is_residual(self) -> bool:
        """True if the equation is F(t, y, y') = 0."""
        return not self.form.has_constant_mass

    @property
    def has_heavy_mass(self) -> bool:
        """True if M differs between the stages. Then the system does not separate; and with one M
        for all stages, Newton's method would leave in algebraic components a multiple of its last
        update.
        """
        return self.form.has_state_dependent_mass(self.t, self.y)

    def residual(self, moves: Array) -> Array:
        """R(U)."""
        if self.is_residual:
            at = jax.vmap(self._at)(moves)
            stage = partial(self.form.residual_of_step, self.dt)
            return jax.vmap(stage)(self._times(), at, self._paths(moves))
        numbers, mass = self.numbers, self.form.mass
        coupled = jnp.stack([apply_mass(mass, weighted(row, moves)) for row in numbers.coupling])
        forces = self.dt * jax.vmap(self._force)(self._times(), moves) - coupled
        if not np.any(numbers.start):
            return forces
        return forces + jnp.asarray(numbers.start, forces.dtype)[:, None] * self.first

    def inverse(self, moves: Array, r: Array) -> Array:
        """The δ with −R_U δ = r, at U: one system of all stages."""
        if (structure := declared_structure(self.form)) is not None:
            factors = factored(self._structured_matrix(moves, structure))
            return linear_solve(factors, r.T.ravel()).reshape(r.T.shape).T
        return linear_solve(factored(self._matrix(moves)), r.ravel()).reshape(moves.shape)

    def frozen_inverse(self, moves: Array) -> Callable:
        """Returns the inverse at U, for many r, without a derivative."""
        apply = inverse_of(factored(lax.stop_gradient(self._matrix(moves))))
        return lambda r: apply(r.ravel()).reshape(r.shape)

    def _structured_matrix(self, moves: Array, structure: JacobianStructure) -> AbstractMatrix:
        """−R_U by products, the stages of a component one after the other."""

        def stage_residuals(u: Array) -> Array:
            return self.residual(u.reshape(moves.T.shape).T).T.ravel()

        _, push = jax.linearize(stage_residuals, moves.T.ravel())
        heavy = self.mass is not None and self.mass.ndim == 2
        coupled = structure.interleaved(len(moves), heavy=heavy)
        matrix = structured_jacobian(lambda u: -push(u), coupled, moves.T.ravel())
        return matrix if self.mass is None else matrix.or_identity(self.dt == 0)

    def _matrix(self, moves: Array) -> Array:
        coupling, (m, n) = self.numbers.coupling, moves.shape
        masses, slopes = self._near(moves)
        blocks = [
            [plus_mass(masses[i], 0 * slopes[i]) * float(coupling[i, j]) for j in range(m)]
            for i in range(m)
        ]
        for i in range(m):
            blocks[i][i] = blocks[i][i] - self.dt * slopes[i]
        matrix = jnp.block(blocks)
        if self.mass is not None:
            matrix = jnp.where(self.dt == 0, jnp.eye(m * n, dtype=matrix.dtype), matrix)
        return matrix

    def _near(self, moves: Array) -> tuple[Any, Array]:
        """M and J at each stage."""
        if not self.is_residual:
            at = lambda t, u: linearised(self.form, t, self._at(u)).by_y  # noqa: E731
            return [self.mass] * len(moves), jax.vmap(at)(self._times(), moves)

        def near(t: Array, u: Array, path: Array) -> tuple[Array, Array]:
            linear = linearised(self.form, t, self._at(u), lambda: divide_by_dt(path, self.dt))
            return linear.mass, linear.by_y

        return jax.vmap(near)(self._times(), moves, self._paths(moves))

    def _paths(self, moves: Array) -> Array:
        """The slopes of a residual at the stages, times dt."""
        paths = jnp.stack([weighted(row, moves) for row in self.numbers.coupling])
        if not np.any(self.numbers.start):
            return paths
        return paths - jnp.asarray(self.numbers.start, paths.dtype)[:, None] * self.first

    def guess(self, memory: _StageMemory) -> Array:
        """The polynomial of the step before; or along the slope at the start."""
        numbers, dtype = self.numbers, self.first.dtype
        nodes = jnp.asarray(numbers.nodes, dtype)[:, None]
        known = numbers.starts and self.form.mass is None
        line = nodes * self.first if known else 0 * nodes * self.first
        if numbers.dense is None:
            return line
        growth = self.dt / jnp.where(memory.dt > 0, memory.dt, 1)
        theta = 1 + nodes * growth
        curve = sum(
            weighted(row, memory.moves) * (theta**d - 1) for d, row in enumerate(numbers.dense, 1)
        )
        return jnp.where((memory.dt > 0) & (growth <= _FARTHEST), curve, line)

    def error(self, inverse: Callable, moves: Array, bounds: Bounds) -> tuple[Array, Any]:
        """The filtered error, and the evaluations that it took; it has no derivative."""
        share, row = self.numbers.error
        move = weighted(row, moves)
        rest = apply_mass(self.mass, move)

        def refined(error: Array) -> Array:
            if self.is_residual:
                at = self._at(error)
                return inverse(self.form.residual_of_step(share * self.dt, self.t, at, -move))
            slope = self.dt * self._force(self.t, error)
            return inverse(share * slope + rest)

        first = apply_mass(self.mass, self.first) if self.is_residual else self.first
        estimate = lax.stop_gradient(inverse(share * first + rest))
        if share == 0:
            return estimate, 0

        again = stop_closure_gradient(refined, estimate)
        wanted = (bounds.size(estimate) > 1).astype(jnp.int32)
        # A loop of at most one turn: a step that is accepted pays nothing.
        (error, _), _ = loop(
            lambda _, state, __: state[1] > 0,
            lambda _, __, state, buffers: ((again(state[0]), state[1] - 1), buffers),
            (estimate, wanted),
        )
        return error, wanted

    def jump(self, memory: _StageMemory, moves: Array) -> Array | None:
        """The row `dense_error` of the slope at the start and of the stages, which counts for each
        component as the error of the step does. With a mass matrix, where the slope is M y', y' is
        that at the end of the polynomial before; without one nothing is known.
        """
        numbers = self.numbers
        if numbers.inside is None:
            return None
        share, row = numbers.inside
        first, known = self.first, True
        if not self.is_residual and self.form.mass is not None:
            known = memory.dt > 0
            growth = self.dt / jnp.where(known, memory.dt, 1)
            first = growth * weighted(numbers.coupling[-1], memory.moves)
        jump = self.form.index_weighted(self.dt, share * first + weighted(row, moves))
        return lax.stop_gradient(jnp.where(known, jump, 0))

    def last_slope(self, moves: Array) -> Array:
        """M y' at the end, which the last stage has found."""
        numbers = self.numbers
        slope = apply_mass(self.form.mass, weighted(numbers.coupling[-1], moves))
        if numbers.start[-1] != 0:
            slope = slope - float(numbers.start[-1]) * self.first
        return (slope / jnp.where(self.dt > 0, self.dt, 1)).reshape(self.y.shape)

    def _at(self, u: Array) -> Array:
        return self.y + u.reshape(self.y.shape)

    def _force(self, t: Array, u: Array) -> Array:
        return self.form.field(t, self._at(u)).ravel()

    def _times(self) -> Array:
        return self.t + jnp.asarray(self.numbers.nodes, self.dt.dtype) * self.dt


def _transformed(numbers: "_StageCoefficients", inverses: list, r: Array) -> Array:
    """The solution with the frozen matrix, in the eigenvectors of A⁻¹."""
    total = jnp.zeros_like(r)
    for value, inverse, vector, dual in zip(
        numbers.values, inverses, numbers.vectors, numbers.duals, strict=True
    ):
        wide = jnp.result_type(r.dtype, type(value))
        part = inverse(jnp.sum(jnp.asarray(dual, wide)[:, None] * r, axis=0)) / value
        # A complex eigenvalue stands for its conjugate, too.
        share = (jnp.asarray(vector, wide)[:, None] * part).real
        total = total + (2 * share if isinstance(value, complex) else share)
    return total


# --- the tableau, said of displacements -----------------------------------------------------------


class _StageCoefficients(NamedTuple):
    """The coefficients of a step. `values`, `vectors`, `duals`: A⁻¹ = Σ value · vector dualᵀ, of
    each pair of complex eigenvalues one, the real ones first. `coupling` is A⁻¹, and `start` its
    product with the column of the slope at the start.
    """

    nodes: np.ndarray
    starts: bool
    coupling: np.ndarray
    start: np.ndarray
    values: tuple
    vectors: tuple
    duals: tuple
    end: np.ndarray
    error: Any
    inside: tuple[float, np.ndarray] | None
    dense: np.ndarray | None


@cache
def _stage_coefficients(table: Tableau) -> _StageCoefficients:
    """The numbers of a tableau: the slopes are A⁻¹ U, but for the one at the start."""
    first = int(not any(table.A[0]))
    coupling = np.linalg.inv(table.A[first:, first:])
    start = coupling @ table.A[first:, 0] if first else np.zeros(len(coupling))
    values, vectors, duals = _eigen(coupling)
    end = np.eye(len(coupling))[-1] if table.stiffly_accurate else table.b[first:] @ coupling
    error, inside = (
        None if row is None else (float(row[0]) if first else 0.0, row[first:] @ coupling)
        for row in (table.b_error, table.dense_error)
    )
    dense = None if table.dense is None else table.dense[first:].T @ coupling
    return _StageCoefficients(
        table.c[first:],
        bool(first),
        coupling,
        start,
        values,
        vectors,
        duals,
        end,
        error,
        inside,
        dense,
    )


def _eigen(matrix: np.ndarray) -> tuple[tuple, tuple, tuple]:
    """Eigenvalues with right and left eigenvectors: the real ones, and one of each other pair."""
    values, vectors = np.linalg.eig(matrix.astype(complex))
    duals, size = np.linalg.inv(vectors), np.abs(values).max()
    found = []
    for value, vector, dual in zip(values, vectors.T, duals, strict=True):
        if abs(value.imag) <= 1e-12 * size:
            real = vector / vector[np.argmax(abs(vector))]
            found.append(
                (float(value.real), real.real, (dual * vector[np.argmax(abs(vector))]).real)
            )
        elif value.imag > 0:
            found.append((complex(value), vector, dual))
    found.sort(key=lambda one: isinstance(one[0], complex))
    values, vectors, duals = zip(*found, strict=True)
    return values, vectors, duals

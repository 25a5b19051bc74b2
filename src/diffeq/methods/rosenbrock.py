"""Rosenbrock methods: implicit, yet without an iteration; one stepper for every table."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real, Shaped

from ..algebra import (
    AbstractFactors,
    Factors,
    Slopes,
    apply_mass,
    factored,
    field_derivatives,
    linear_solve,
    system_matrix,
)
from ..problems.forms import Mass
from .base import Step
from .interpolant import Hermite, Interpolant, Polynomial
from .stage_loop import StagedMethod, blank_stages, stages_in_loop
from .tableau import RosenbrockTableau, table_of
from .weighted_sums import combine, combine_columns, weighted

__all__ = ["Rosenbrock", "step_from"]


class Rosenbrock(StagedMethod):
    """(M − dt γ J) u_i = dt γ (f(t + c_i dt, y + Σ a_ij u_j) + dt d_i f_t) + γ M Σ C_ij u_j.

    y1 = y + Σ b_i u_i, with J = ∂f/∂y and f_t = ∂f/∂t at (t, y), M the mass matrix or 1, and sums
    over j < i. The Jacobian stands in the formula itself, so that a step solves s linear systems
    with one and the same matrix and never iterates: one Jacobian, one LU, s solves. J comes from
    forward derivatives or from the problem's `jac`, which then has to be exact for the method to
    have its order (Rosenbrock23 keeps its second order with any).

    M may be singular (a `DAEProblem` of index 1). The error is Σ (b_i − b̂_i) u_i, in units of y.

    Args:
        tableau: a `RosenbrockTableau`; the named methods, such as `Rodas5P()`, bring theirs.
        stages: "loop" or "unrolled"; None: by the size of the field.

    Reference: hairer1996, IV.7.

    Example:
        >>> import diffeq as de
        >>> de.Rosenbrock(de.Rodas5P().tableau).order
        5
    """

    form: ClassVar[str] = "mass"
    real_view: ClassVar[bool] = True

    tableau: RosenbrockTableau = eqx.field(static=True, converter=table_of(RosenbrockTableau))

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
    def evaluations(self) -> int:
        """Evaluations of the field in a step, its derivatives aside."""
        return self.tableau.stages

    def step(
        self, form: Mass, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step."""
        del memory
        found = field_derivatives(form.field, t, y, form.jac)
        return step_from(self.tableau, form, t, y, dt, found, rolled=self.loops(form))

    def interpolant_evaluates(self, form: Mass) -> bool:
        """Only where the tableau has no dense output."""
        del form
        return self.tableau.dense is None

    def interpolation_error(
        self, y: Array, dt: Array, step: Step, path: Interpolant | None
    ) -> Array | None:
        """Σ of the tableau's row `dense_error`, or half the last term of the Chebyshev series, if
        that is smaller: the one tells stiff components from others, the other how far they bend.
        """
        del y, dt, path
        row, dense = self.tableau.dense_error, self.tableau.dense
        if row is None or dense is None:
            return None
        last = dense[:, -1] / 4 ** dense.shape[1]
        terms = combine(row, step.data), combine(last, step.data)
        return jnp.minimum(*map(jnp.abs, terms))

    def interpolant(self, form: Mass, t: Array, y: Array, dt: Array, step: Step) -> Interpolant:
        """The tableau's own dense output, or the cubic through both ends."""
        dense = self.tableau.dense
        if dense is None:
            ends = form.slope(t, y), form.slope(t + dt, step.y)
            return Hermite(y, step.y, *ends, dt)
        return Polynomial(y, combine_columns(dense, step.data), dt)


def step_from(
    table: RosenbrockTableau,
    form: Mass,
    t: Real[Array, ""],
    y: Array,
    dt: Real[Array, ""],
    found: Slopes,
    *,
    rolled: bool,
) -> Step:
    """One step, from the field and its derivatives at (t, y). Its stages are straight code, or
    `rolled`, in a loop: then the field is compiled once, not s times, and small steps take half as
    long again.

    Multiplied by dt γ, as here, nothing is divided by dt: a step of length zero is the
    identity, also in its derivatives.
    """
    factors = factored(system_matrix(form.mass, found.by_y, table.gamma * dt, dt))
    make = _in_a_loop if rolled else _unrolled_stages
    stages = make(table, form, t, y, dt, found, factors)
    y1 = y + combine(table.b, stages)
    error = None if table.b_error is None else combine(table.b_error, stages)
    return Step(y1, error, (), stages)


def _unrolled_stages(
    table: RosenbrockTableau,
    form: Mass,
    t: Array,
    y: Array,
    dt: Array,
    found: Slopes,
    factors: Factors | AbstractFactors,
) -> tuple:
    rate, by_t = found.value, found.by_t
    scale = table.gamma * dt
    stages: list[Array] = []
    for a, coupling, c, d in zip(table.A, table.gamma_C, table.c, table.d, strict=True):
        if stages:
            point = y + combine(a[: len(stages)], stages)
            rate = form.field(t + float(c) * dt, point).ravel()
        right = rate if by_t is None or d == 0 else rate + (float(d) * dt) * by_t
        right = scale * right
        past = combine(coupling[: len(stages)], stages)
        if past is not None:
            right = right + apply_mass(form.mass, past.ravel())
        stages.append(linear_solve(factors, right).reshape(y.shape))
    return tuple(stages)


def _in_a_loop(
    table: RosenbrockTableau,
    form: Mass,
    t: Array,
    y: Array,
    dt: Array,
    found: Slopes,
    factors: Factors | AbstractFactors,
) -> Shaped[Array, "stages ..."]:
    """The stages in a loop over the rows of the table, which has all columns in each."""
    by_t, scale = found.by_t, table.gamma * dt
    rows = tuple(jnp.asarray(x, y.dtype) for x in (table.A, table.gamma_C, table.c, table.d))

    def stage(row: tuple, tables: tuple, carry: PyTree) -> tuple:
        (a, coupling, c, d), (us,) = row, tables
        point = y + weighted(a, us)
        rate = form.field(t + c.astype(t.dtype) * dt.astype(t.dtype), point).ravel()
        right = rate if by_t is None else rate + (d * dt) * by_t
        past = apply_mass(form.mass, weighted(coupling, us).ravel())
        return (linear_solve(factors, scale * right + past).reshape(y.shape),), carry

    (us,), _ = stages_in_loop(stage, rows, (blank_stages(table.stages, y),))
    return us

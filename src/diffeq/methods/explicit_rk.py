"""Explicit Runge–Kutta methods: one stepper for every explicit tableau."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, Real

from ..problems.forms import Mass, Ode
from .base import Step
from .interpolant import ChebyshevInterpolant, Hermite, Interpolant, Polynomial
from .stage_loop import StagedMethod, blank_stages, stages_in_loop
from .tableau import Tableau, table_of
from .weighted_sums import Stages, combine, combine_columns, weighted

__all__ = ["ExplicitRK"]


class ExplicitRK(StagedMethod):
    """y1 = y + dt Σ b_i k_i with k_i = f(t + c_i dt, y + dt Σ_{j<i} a_ij k_j).

    The stages are unrolled, so that a step is one straight piece of code in which zero coefficients
    cost nothing; those of a large field are a loop. First-same-as-last and the lazily computed
    stages of dense output are read off the tableau. The error is dt Σ (b_i − b̂_i) k_i, in the
    units of y.

    Args:
        tableau: an explicit `Tableau`; the named methods, such as `Tsit5()`, bring theirs.
        stages: "loop" or "unrolled"; None: by the size of the field. One or two are unrolled.

    Reference: hairer1993, II.

    Example:
        >>> import diffeq as de
        >>> de.ExplicitRK(de.Tsit5().tableau).order
        5
    """

    tableau: Tableau = eqx.field(static=True, converter=table_of(Tableau))

    def __check_init__(self) -> None:
        if not self.tableau.explicit:
            raise ValueError(
                f"{self.tableau.name or 'this tableau'} is implicit; ExplicitRK takes tableaus "
                "whose A is strictly lower triangular."
            )

    @property
    def order(self) -> int:
        """Order of the solution that the method advances with."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """The estimate y − ŷ is O(dt^(min(p, p̂) + 1)); that of Dopri8, e₅² / |(e₅, 0.1 e₃)| with
        e₅ = O(dt⁶) and e₃ = O(dt⁴), is O(dt⁸).
        """
        embedded = self.tableau.embedded_order
        if self.tableau.b_error3 is not None:
            return 8
        return self.order if embedded is None else min(self.order, embedded) + 1

    @property
    def adaptive(self) -> bool:
        """True if the tableau has an embedded solution."""
        return self.tableau.b_hat is not None

    @property
    def evaluations(self) -> int:
        """Evaluations of the field in a step."""
        return self.tableau.stages - self.tableau.fsal

    def init(self, form: Ode | Mass, t: Real[Array, ""], y: Array) -> PyTree:
        """The first stage, when the last stage of the step before is the same."""
        return form.field(t, y) if self.tableau.fsal else ()

    def step(
        self, form: Ode | Mass, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step; the error is dt Σ (b_i − b̂_i) k_i."""
        table = self.tableau
        first = memory if table.fsal else form.field(t, y)
        find = self._in_a_loop if self.loops(form) and table.stages > 2 else self._unrolled
        stages, point = find(form, t, y, dt, first)
        y1 = point if table.fsal else y + dt * combine(table.b, stages)
        return Step(y1, self._error(dt, stages), stages[-1] if table.fsal else (), stages)

    def _unrolled(self, form: Ode | Mass, t: Array, y: Array, dt: Array, first: Array) -> tuple:
        """All stages, and the state at which the last one is evaluated."""
        stages, point = [first], y
        for row, c in zip(self.tableau.A[1:], self.tableau.c[1:], strict=True):
            point = y + dt * combine(row[: len(stages)], stages)
            stages.append(form.field(t + float(c) * dt, point))
        return tuple(stages), point

    def _in_a_loop(self, form: Ode | Mass, t: Array, y: Array, dt: Array, first: Array) -> tuple:
        table = self.tableau
        known = blank_stages(table.stages, y, first)
        return _stages_from(form, t, y, dt, known, table.A[1:], table.c[1:])

    def _error(self, dt: Array, stages: Stages) -> Array | tuple[Array, Array] | None:
        table = self.tableau
        if table.b_error is None:
            return None
        error = dt * combine(table.b_error, stages)
        if table.b_error3 is None:
            return error
        # Hairer's DOP853 divides the fifth-order estimate by a second one of third order.
        return error, dt * combine(table.b_error3, stages)

    def interpolant_evaluates(self, form: Ode | Mass) -> bool:
        """True if the interpolant has stages of its own, or takes a slope at the end that no stage
        is.
        """
        del form
        table = self.tableau
        return table.extra_stages > 0 if table.dense is not None else not table.fsal

    def interpolation_error(
        self, y: Array, dt: Array, step: Step, path: Interpolant | None
    ) -> Array | None:
        """The last term of its Chebyshev series, if it has stages of its own: these are in no error
        of the step, and at the limit of stability they may be off by far more than its end.
        """
        del y, dt, step
        return path.coefficients[-1] if isinstance(path, ChebyshevInterpolant) else None

    def interpolant(
        self, form: Ode | Mass, t: Array, y: Array, dt: Array, step: Step
    ) -> Interpolant:
        """The tableau's own dense output, or the cubic through both ends."""
        table = self.tableau
        if table.dense is None:
            return self._hermite(form, t, y, dt, step)
        stages = self._with_extra_stages(form, t, y, dt, step.data)
        turned = table.dense_chebyshev
        kind, rows = (Polynomial, table.dense) if turned is None else (ChebyshevInterpolant, turned)
        return kind(y, combine_columns(rows, stages, dt), dt)

    def _hermite(self, form: Ode | Mass, t: Array, y: Array, dt: Array, step: Step) -> Hermite:
        if self.tableau.fsal:
            return Hermite(y, step.y, step.data[0], step.data[-1], dt)
        return Hermite(y, step.y, step.data[0], form.field(t + dt, step.y), dt)

    def _with_extra_stages(
        self, form: Ode | Mass, t: Array, y: Array, dt: Array, stages: Stages
    ) -> Stages:
        """The stages of the step, and those of its dense output."""
        table, found = self.tableau, list(stages)
        if not len(table.extra_c):
            return stages
        if self.loops(form):
            count = table.stages + len(table.extra_c)
            blank = jnp.zeros((len(table.extra_c), *y.shape), y.dtype)
            known = jnp.concatenate([jnp.stack(found), blank])
            rows = np.pad(table.extra_A, ((0, 0), (0, count - table.extra_A.shape[1])))
            return _stages_from(form, t, y, dt, known, rows, table.extra_c)[0]
        for row, c in zip(table.extra_A, table.extra_c, strict=True):
            point = y + dt * combine(row[: len(found)], found)
            found.append(form.field(t + float(c) * dt, point))
        return tuple(found)


def _stages_from(
    form: Ode | Mass,
    t: Array,
    y: Array,
    dt: Array,
    known: Array,
    rows: np.ndarray,
    nodes: np.ndarray,
) -> tuple[Array, Array]:
    """The table of stages, of which the last, one for each of `rows`, are evaluated in a loop; and
    the state at which the last one is.
    """

    def stage(row: tuple, tables: tuple, carry: PyTree) -> tuple:
        del carry
        a, c = row
        point = y + dt * weighted(a, tables[0])
        return (form.field(t + c * dt.astype(t.dtype), point),), point

    coefficients = (jnp.asarray(rows, dt.dtype), jnp.asarray(nodes, t.dtype))
    first = len(known) - len(nodes)
    (stages,), point = stages_in_loop(stage, coefficients, (known,), first=first, carry=y)
    return stages, point

"""Explicit Runge–Kutta methods: one stepper for every explicit tableau."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Real

from .base import Method, Step
from .interpolant import Chebyshev, Hermite, Interpolant, Polynomial, combine
from .tableau import Tableau

__all__ = ["ExplicitRK"]


class ExplicitRK(Method):
    """y1 = y + dt Σ b_i k_i with k_i = f(t + c_i dt, y + dt Σ_{j<i} a_ij k_j).

    The stages are unrolled: a step is one straight piece of code, and zero coefficients cost
    nothing. First-same-as-last and the lazily computed stages of dense output are read off the
    tableau. The error is dt Σ (b_i − b̂_i) k_i, in the units of y.

    Args:
        tableau: an explicit `Tableau`; the named methods, such as `Tsit5()`, bring theirs.

    Reference: hairer1993, II.

    Example:
        >>> import diffeq as de
        >>> de.ExplicitRK(de.Tsit5().tableau).order
        5
    """

    tableau: Tableau = eqx.field(static=True)

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
        """The estimate y − ŷ is O(dt^(min(p, p̂) + 1))."""
        embedded = self.tableau.embedded_order
        return self.order if embedded is None else min(self.order, embedded) + 1

    @property
    def adaptive(self) -> bool:
        """Whether the tableau has an embedded solution."""
        return self.tableau.b_hat is not None

    @property
    def evaluations(self) -> int:
        """Evaluations of the field in a step."""
        return self.tableau.stages - self.tableau.fsal

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> Any:
        """The first stage, when the last stage of the step before is the same."""
        return form.field(t, y) if self.tableau.fsal else ()

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: Any
    ) -> Step:
        """One step; the error is dt Σ (b_i − b̂_i) k_i."""
        table = self.tableau
        stages = [memory if table.fsal else form.field(t, y)]
        point = y
        for row, c in zip(table.A[1:], table.c[1:], strict=True):
            point = y + dt * combine(row[: len(stages)], stages)
            stages.append(form.field(t + float(c) * dt, point))
        y1 = point if table.fsal else y + dt * combine(table.b, stages)
        return Step(y1, self._error(dt, stages), stages[-1] if table.fsal else (), tuple(stages))

    def _error(self, dt: Array, stages: list) -> Any:
        table = self.tableau
        if table.b_hat is None:
            return None
        error = dt * combine(table.b_error, stages)
        if table.b_error3 is None:
            return error
        # Hairer's DOP853 divides the fifth-order estimate by a second one of third order.
        return error, dt * combine(table.b_error3, stages)

    def interpolant_evaluates(self, form: Any) -> bool:
        """Whether it has stages of its own, or needs a slope at the end that no stage is."""
        del form
        table = self.tableau
        return table.extra_stages > 0 if table.dense is not None else not table.fsal

    def interpolation_error(self, y: Array, dt: Array, step: Step, path: Any) -> Any:
        """The last term of its Chebyshev series, if it has stages of its own: these are in no error
        of the step, and at the limit of stability they may be off by far more than its end.
        """
        del y, dt, step
        return path.coefficients[-1] if isinstance(path, Chebyshev) else None

    def interpolant(self, form: Any, t: Array, y: Array, dt: Array, step: Step) -> Interpolant:
        """The tableau's own dense output, or the cubic through both ends."""
        table = self.tableau
        if table.dense is None:
            return self._hermite(form, t, y, dt, step)
        stages = (*step.data, *self._extra_stages(form, t, y, dt, step.data))
        turned = table.dense_chebyshev
        kind, rows = (Polynomial, table.dense) if turned is None else (Chebyshev, turned)
        return kind(y, tuple(dt * combine(column, stages) for column in rows.T), dt)

    def _hermite(self, form: Any, t: Array, y: Array, dt: Array, step: Step) -> Hermite:
        if self.tableau.fsal:
            return Hermite(y, step.y, step.data[0], step.data[-1], dt)
        return Hermite(y, step.y, step.data[0], form.field(t + dt, step.y), dt)

    def _extra_stages(self, form: Any, t: Array, y: Array, dt: Array, stages: tuple) -> tuple:
        table, found = self.tableau, list(stages)
        for row, c in zip(table.extra_A, table.extra_c, strict=True):
            point = y + dt * combine(row[: len(found)], found)
            found.append(form.field(t + float(c) * dt, point))
        return tuple(found[len(stages) :])

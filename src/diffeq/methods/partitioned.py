"""Methods for positions and momenta: splittings, and Runge–Kutta–Nyström for x'' = f(t, x).

Both see q' = drift(t, q, p), p' = kick(t, q, p), and a state that is (q, p) as one vector. Where
`identity` is set, drift is p itself, or −p where time runs backwards; so what is written as p in
the formulas of second-order equations goes through `drift` here, and both directions are right.
"""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real

from ..problems.forms import Partitioned
from .base import Method, Step
from .interpolant import Hermite, Interpolant, Polynomial
from .stage_loop import StagedMethod, blank_stages, stages_in_loop
from .tableau import NystromTableau, Splitting, table_of
from .weighted_sums import Stages, combine, weighted

__all__ = ["Nystrom", "Symplectic"]


class Symplectic(StagedMethod):
    """Kicks and drifts in turn, each the exact flow of one half of a separable equation.

    p ← p + kick_i dt f(t, q) and q ← q + drift_i dt g(t, p), where f is the force −∂V/∂q and g the
    velocity ∂T/∂p. With a fixed dt the map is symplectic: the energy error stays bounded over very
    long times. There is no error estimate: give `dt=`. It takes a `HamiltonianProblem` of a
    `de.Separable`, or a `SecondOrderProblem` whose f does not depend on v.

    McAte5 has order 5 where the kinetic energy is quadratic in p and does not depend on t (every
    `SecondOrderProblem`), and order 3 on other separable Hamiltonians.

    Inside a step the solution is the cubic with the exact slopes of both ends. From order 4 on, and
    where the velocity is p itself, x is the quintic with the accelerations too, and v its slope.

    Reference: yoshida1990.

    Example:
        >>> import diffeq as de
        >>> spring = de.SecondOrderProblem(lambda t, x, v, k: -k * x, 1.0, 0.0, (0.0, 6.0), 1.0)
        >>> leapfrog = de.Symplectic(de.VelocityVerlet().tableau)
        >>> x, v = de.solve(spring, leapfrog, dt=0.05).y1
        >>> bool(abs(x**2 + v**2 - 1) < 1e-3)
        True
    """

    form = "partitioned"
    tableau: Splitting = eqx.field(static=True, converter=table_of(Splitting))

    def __repr__(self) -> str:
        return f"Symplectic({self.tableau.name})"

    @property
    def order(self) -> int:
        """Order of the solution that the method advances with."""
        return self.tableau.order or 1

    @property
    def evaluations(self) -> int:
        """Forces in a step."""
        return int((self.tableau.kick != 0).sum()) - self.tableau.fsal

    def init(self, form: Partitioned, t: Real[Array, ""], y: Array) -> PyTree:
        """The first force, when the last force of the step before is the same."""
        _must_be_separable(self, form)
        return form.kick(t, *form.halves(y)) if self.tableau.fsal else ()

    def step(
        self, form: Partitioned, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step; its data are the forces at both ends, where they came along."""
        fsal = self.tableau.fsal
        find = self._in_a_loop if self.loops(form) else self._unrolled
        q, p = form.halves(y)
        q, p, first, last = find(form, t, q, p, dt, memory if fsal else None)
        return Step(jnp.concatenate([q, p]), None, last if fsal else (), (first, last))

    def _unrolled(
        self, form: Partitioned, t: Array, q: Array, p: Array, dt: Array, force: Array | None
    ) -> tuple:
        """Positions and momenta after all stages; the forces at both ends, if they are known."""
        table, first = self.tableau, force
        for i in range(table.stages):
            if table.kick[i] != 0:
                if i > 0 or force is None:
                    force = form.kick(t + float(table.kick_c[i]) * dt, q, p)
                    first = force if i == 0 else first
                p = p + float(table.kick[i]) * dt * force
            if table.drift[i] != 0:
                q = q + float(table.drift[i]) * dt * form.drift(
                    t + float(table.drift_c[i]) * dt, q, p
                )
        return q, p, first, force if table.fsal else None

    def _in_a_loop(
        self, form: Partitioned, t: Array, q: Array, p: Array, dt: Array, force: Array | None
    ) -> tuple:
        table, step = self.tableau, dt.astype(t.dtype)
        shares = [jnp.asarray(x, dt.dtype) for x in (table.kick, table.drift)]
        nodes = [jnp.asarray(x, t.dtype) for x in (table.kick_c, table.drift_c)]
        first, start = force, int(table.fsal)
        if force is not None:  # of a table whose last force is the next first one
            p = p + shares[0][0] * dt * force
            q = q + shares[1][0] * dt * form.drift(t + nodes[1][0] * step, q, p)

        def stage(row: tuple, tables: tuple, carry: tuple) -> tuple:
            del tables
            (kick, drift, kick_c, drift_c), (q, p, _) = row, carry
            force = form.kick(t + kick_c * step, q, p)
            p = p + kick * dt * force
            q = q + drift * dt * form.drift(t + drift_c * step, q, p)
            return (), (q, p, force)

        rows = tuple(x[start:] for x in (*shares, *nodes))
        _, (q, p, last) = stages_in_loop(stage, rows, (), carry=(q, p, jnp.zeros_like(p)))
        return q, p, first, last if table.fsal else None

    def interpolant(
        self, form: Partitioned, t: Array, y: Array, dt: Array, step: Step
    ) -> Interpolant:
        """The quintic or the cubic with the exact slopes of both ends."""
        return _through_ends(self, form, (t, y, dt, step.y), step.data)


class Nystrom(StagedMethod):
    """k_i = f(t + c_i dt, x + c_i dt v + dt² Σ_j A_ij k_j) for x'' = f(t, x).

    x1 = x + dt v + dt² Σ b_i k_i and v1 = v + dt Σ ḃ_i k_i; an embedded pair estimates the error of
    both. It takes a `SecondOrderProblem` whose f does not depend on v, and there needs about half
    the evaluations of a Runge–Kutta method of its order.

    Reference: dormand1987.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> spring = de.SecondOrderProblem(lambda t, x, v, k: -k * x, 1.0, 0.0, (0.0, 1.0), 1.0)
        >>> x, v = de.solve(spring, de.Nystrom(de.DPRKN6().tableau), rtol=1e-6, atol=1e-6).y1
        >>> bool(abs(x - jnp.cos(1.0)) < 1e-5)
        True
    """

    form = "partitioned"
    tableau: NystromTableau = eqx.field(static=True, converter=table_of(NystromTableau))

    def __repr__(self) -> str:
        return f"Nystrom({self.tableau.name})"

    @property
    def order(self) -> int:
        """Order of the solution that the method advances with."""
        return self.tableau.order or 1

    @property
    def error_order(self) -> int:
        """The estimate is O(dt^(min(p, p̂) + 1))."""
        embedded = self.tableau.embedded_order
        return self.order if embedded is None else min(self.order, embedded) + 1

    @property
    def adaptive(self) -> bool:
        """True if the tableau has an embedded solution, for positions and velocities."""
        return self.tableau.b_hat is not None and self.tableau.b_dot_hat is not None

    @property
    def evaluations(self) -> int:
        """Evaluations of f in a step."""
        return self.tableau.stages - self.tableau.fsal

    def init(self, form: Partitioned, t: Real[Array, ""], y: Array) -> PyTree:
        """The first stage, when the last stage of the step before is the same."""
        _must_be_second_order(self, form)
        return form.kick(t, *form.halves(y)) if self.tableau.fsal else ()

    def step(
        self, form: Partitioned, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step; its data are the stages."""
        table = self.tableau
        x, v = form.halves(y)
        first = memory if table.fsal else form.kick(t, x, v)
        find = self._in_a_loop if self.loops(form) else self._unrolled
        stages, point = find(form, t, (x, v), dt, first)
        if not table.fsal:
            point = x + dt * form.drift(t, x, v + dt * combine(table.b, stages))
        v1 = v + dt * combine(table.b_dot, stages)
        last = stages[-1] if table.fsal else ()
        error = self._error(form, t, x, dt, stages)
        return Step(jnp.concatenate([point, v1]), error, last, stages)

    def _unrolled(self, form: Partitioned, t: Array, y: tuple, dt: Array, first: Array) -> tuple:
        """All stages, and the position at which the last one is evaluated."""
        (x, v), stages, point = y, [first], y[0]
        for row, c in zip(self.tableau.A[1:], self.tableau.c[1:], strict=True):
            bend = _scaled(dt, combine(row[: len(stages)], stages))
            point = x + dt * form.drift(t, x, _add_optional(float(c) * v, bend))
            stages.append(form.kick(t + float(c) * dt, point, v))
        return tuple(stages), point

    def _in_a_loop(self, form: Partitioned, t: Array, y: tuple, dt: Array, first: Array) -> tuple:
        table, (x, v) = self.tableau, y

        def stage(row: tuple, tables: tuple, carry: PyTree) -> tuple:
            del carry
            (a, c), (ks,) = row, tables
            moved = c.astype(dt.dtype) * v + dt * weighted(a, ks)
            point = x + dt * form.drift(t, x, moved)
            return (form.kick(t + c * dt.astype(t.dtype), point, v),), point

        rows = (jnp.asarray(table.A[1:], dt.dtype), jnp.asarray(table.c[1:], t.dtype))
        known = blank_stages(table.stages, x, first)
        (stages,), point = stages_in_loop(stage, rows, (known,), first=1, carry=x)
        return stages, point

    def _error(
        self, form: Partitioned, t: Array, x: Array, dt: Array, stages: Stages
    ) -> Array | None:
        table = self.tableau
        if table.b_error is None or table.b_dot_error is None:
            return None
        of_x = form.drift(t, x, dt * combine(table.b_error, stages))
        return dt * jnp.concatenate([of_x, combine(table.b_dot_error, stages)])

    def interpolant_evaluates(self, form: Partitioned) -> bool:
        """Not where the tableau has dense output."""
        del form
        return self.tableau.dense is None or self.tableau.dense_dot is None

    def interpolant(
        self, form: Partitioned, t: Array, y: Array, dt: Array, step: Step
    ) -> Interpolant:
        """The tableau's own dense output, or the quintic through both ends."""
        table = self.tableau
        if table.dense is None or table.dense_dot is None:
            ends = (step.data[0], step.data[-1] if table.fsal else None)
            return _through_ends(self, form, (t, y, dt, step.y), ends)
        return Polynomial(y, self._coefficients(form, t, y, dt, step.data), dt)

    def _coefficients(
        self, form: Partitioned, t: Array, y: Array, dt: Array, stages: Stages
    ) -> tuple:
        """Those of θ, θ², … in x + θ dt v + dt² Σ b_i(θ) k_i and v + dt Σ ḃ_i(θ) k_i."""
        x, v = form.halves(y)
        table: Any = self.tableau
        of_x, of_v = (
            [combine(column, stages) for column in rows.T]
            for rows in (table.dense, table.dense_dot)
        )
        slopes = [v, *(dt * bend for bend in of_x)]
        return _packed_coefficients(
            [dt * form.drift(t, x, z) for z in slopes], [dt * rise for rise in of_v]
        )


# --- what they ask of a form ---------------------------------------------------------------------


def _must_be_separable(method: Method, form: Partitioned) -> None:
    if form.separable:
        return
    needs = (
        "needs an f that does not depend on v"
        if form.identity
        else "needs kinetic(t, p) + potential(t, q): give de.Separable(kinetic, potential)"
    )
    raise TypeError(f"{method!r} {needs}; or choose a method for any ODE, such as de.Tsit5().")


def _must_be_second_order(method: Method, form: Partitioned) -> None:
    if form.identity and form.separable:
        return
    needs = (
        "needs an f that does not depend on v"
        if form.identity
        else "needs x'' = f(t, x): give a de.SecondOrderProblem"
    )
    raise TypeError(f"{method!r} {needs}; or choose a method for any ODE, such as de.Tsit5().")


def _scaled(dt: Array, x: Array | None) -> Array | None:
    return None if x is None else dt * x


def _add_optional(x: Array, more: Array | None) -> Array:
    return x if more is None else x + more


# --- the step as a polynomial --------------------------------------------------------------------


def _through_ends(method: Method, form: Partitioned, span: tuple, forces: tuple) -> Interpolant:
    """The polynomial through both ends of (t, y, dt, y1); forces that are not known are None."""
    t, y, dt, y1 = span
    (q0, p0), (q1, p1) = form.halves(y), form.halves(y1)
    ends = ((t, q0, p0), (t + dt, q1, p1))

    def kicks() -> list:
        pairs = zip(ends, forces, strict=True)
        return [form.kick(*end) if force is None else force for end, force in pairs]

    def slopes() -> tuple:
        pairs = zip(ends, kicks(), strict=True)
        return tuple(jnp.concatenate([form.drift(*end), force]) for end, force in pairs)

    def quintic() -> tuple:
        return _quintic(lambda z: form.drift(t, q0, z), (q0, q1, p0, p1, *kicks()), dt)

    # The slope of x loses a power of dt to the error of x1: below order 4 that is more than the
    # cubic's own error in v.
    if form.identity and method.order > 3:
        return Polynomial(y, quintic(), dt)
    first, last = slopes()
    return Hermite(y, y1, first, last, dt)


def _quintic(turned: Callable[[Array], Array], ends: tuple, dt: Array) -> tuple:
    """The coefficients of θ, …, θ⁵: in x those of the quintic with the positions, velocities and
    accelerations of both ends, in v those of its slope. Its error is O(dt⁶) in x, O(dt⁵) in v.

    `turned` makes dx/dt of v, and v of dx/dt: it changes the sign where time runs backwards.
    """
    x0, x1, *others = ends
    v0, v1, a0, a1 = map(turned, others)
    # What the parabola of the left end leaves over on the right.
    x = x1 - x0 - dt * v0 - dt**2 * a0 / 2
    v = dt * (v1 - v0 - dt * a0)
    a = dt**2 * (a1 - a0)
    bends = [
        dt * v0,
        dt**2 * a0 / 2,
        10 * x - 4 * v + a / 2,
        7 * v - 15 * x - a,
        6 * x - 3 * v + a / 2,
    ]
    slopes = [turned(d * c / dt) for d, c in enumerate(bends, 1)]
    return _packed_coefficients(bends, slopes[1:])


def _packed_coefficients(of_x: list, of_v: list) -> tuple:
    """Coefficients of both halves as those of the packed state."""
    zero = jnp.zeros_like(of_x[0])
    pairs = itertools.zip_longest(of_x, of_v, fillvalue=zero)
    return tuple(jnp.concatenate(pair) for pair in pairs)

"""Methods for positions and momenta: splittings, and Runge–Kutta–Nyström for x'' = f(t, x).

Both see q' = drift(t, q, p), p' = kick(t, q, p), and a state that is (q, p) as one vector. Where
`identity` is set, drift is p itself, or −p where time runs backwards; so what is written as p in
the formulas of second-order equations goes through `drift` here, and both directions are right.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Real

from .base import Method, Step, lazily
from .interpolant import Hermite, Interpolant, combine, polynomial
from .tableau import NystromTableau, Splitting

__all__ = ["Nystrom", "Symplectic"]


class Symplectic(Method):
    """Kicks and drifts in turn, each the exact flow of one half of a separable equation.

    p ← p + kick_i dt f(t, q) and q ← q + drift_i dt g(t, p), where f is the force −∂V/∂q and g the
    velocity ∂T/∂p. With a fixed dt the map is symplectic: the energy error stays bounded over very
    long times. There is no error estimate: give `dt=`. It takes a `HamiltonianProblem` of a
    `de.Separable`, or a `SecondOrderProblem` whose f does not depend on v.

    McAte5 has order 5 where the kinetic energy is quadratic in p (every `SecondOrderProblem`), and
    order 3 on other separable Hamiltonians.

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
    tableau: Splitting = eqx.field(static=True)

    @property
    def order(self) -> int:
        """Order of the solution that the method advances with."""
        return self.tableau.order or 1

    @property
    def evaluations(self) -> int:
        """Forces in a step."""
        return int((self.tableau.kick != 0).sum()) - self.tableau.fsal

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> Any:
        """The first force, when the last force of the step before is the same."""
        _must_be_separable(self, form)
        return form.kick(t, *form.halves(y)) if self.tableau.fsal else ()

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: Any
    ) -> Step:
        """One step; its data are the forces at both ends, where they came along."""
        table = self.tableau
        q, p = form.halves(y)
        force: Any = memory if table.fsal else None
        first = force
        for i in range(table.stages):
            if table.kick[i] != 0:
                if i > 0 or not table.fsal:
                    force = form.kick(t + float(table.kick_c[i]) * dt, q, p)
                    first = force if i == 0 else first
                p = p + float(table.kick[i]) * dt * force
            if table.drift[i] != 0:
                q = q + float(table.drift[i]) * dt * form.drift(
                    t + float(table.drift_c[i]) * dt, q, p
                )
        last = force if table.fsal else None
        return Step(jnp.concatenate([q, p]), None, last if table.fsal else (), (first, last))

    def interpolant(
        self, form: Any, t: Array, y: Array, dt: Array, step: Step, wanted: Any
    ) -> Interpolant:
        """The quintic or the cubic with the exact slopes of both ends."""
        return _through_ends(self, form, (t, y, dt, step.y), step.data, wanted)


class Nystrom(Method):
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
    tableau: NystromTableau = eqx.field(static=True)

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
        """Whether the tableau has an embedded solution, for positions and velocities."""
        return self.tableau.b_hat is not None and self.tableau.b_dot_hat is not None

    @property
    def evaluations(self) -> int:
        """Evaluations of f in a step."""
        return self.tableau.stages - self.tableau.fsal

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> Any:
        """The first stage, when the last stage of the step before is the same."""
        _must_be_second_order(self, form)
        return form.kick(t, *form.halves(y)) if self.tableau.fsal else ()

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: Any
    ) -> Step:
        """One step; its data are the stages."""
        table = self.tableau
        x, v = form.halves(y)
        stages = [memory if table.fsal else form.kick(t, x, v)]
        point = x
        for row, c in zip(table.A[1:], table.c[1:], strict=True):
            bend = _scaled(dt, combine(row[: len(stages)], stages))
            point = x + dt * form.drift(t, x, _plus(float(c) * v, bend))
            stages.append(form.kick(t + float(c) * dt, point, v))
        if not table.fsal:
            point = x + dt * form.drift(t, x, v + dt * combine(table.b, stages))
        v1 = v + dt * combine(table.b_dot, stages)
        last = stages[-1] if table.fsal else ()
        error = self._error(form, t, x, dt, stages)
        return Step(jnp.concatenate([point, v1]), error, last, tuple(stages))

    def _error(self, form: Any, t: Array, x: Array, dt: Array, stages: list) -> Any:
        table = self.tableau
        if table.b_error is None or table.b_dot_error is None:
            return None
        of_x = form.drift(t, x, dt * combine(table.b_error, stages))
        return dt * jnp.concatenate([of_x, combine(table.b_dot_error, stages)])

    def interpolant(
        self, form: Any, t: Array, y: Array, dt: Array, step: Step, wanted: Any
    ) -> Interpolant:
        """The tableau's own dense output, or the quintic through both ends."""
        table = self.tableau
        if table.dense is None or table.dense_dot is None:
            ends = (step.data[0], step.data[-1] if table.fsal else None)
            return _through_ends(self, form, (t, y, dt, step.y), ends, wanted)
        x, v = form.halves(y)
        return NystromDense(x, v, dt, step.data, _sense(form, t, x), table)


# --- what they ask of a form ---------------------------------------------------------------------


def _must_be_separable(method: Method, form: Any) -> None:
    if form.separable:
        return
    needs = (
        "needs an f that does not depend on v"
        if form.identity
        else "needs kinetic(t, p) + potential(t, q): give de.Separable(kinetic, potential)"
    )
    raise TypeError(f"{method!r} {needs}; or choose a method for any ODE, such as de.Tsit5().")


def _must_be_second_order(method: Method, form: Any) -> None:
    if form.identity and form.separable:
        return
    needs = (
        "needs an f that does not depend on v"
        if form.identity
        else "needs x'' = f(t, x): give a de.SecondOrderProblem"
    )
    raise TypeError(f"{method!r} {needs}; or choose a method for any ODE, such as de.Tsit5().")


def _scaled(dt: Array, x: Any) -> Any:
    return None if x is None else dt * x


def _plus(x: Array, more: Any) -> Array:
    return x if more is None else x + more


# --- the step as a polynomial --------------------------------------------------------------------


def _through_ends(
    method: Method, form: Any, span: tuple, forces: tuple, wanted: Any
) -> Interpolant:
    """The polynomial through both ends of (t, y, dt, y1); forces that are not known yet, lazily."""
    t, y, dt, y1 = span
    (q0, p0), (q1, p1) = form.halves(y), form.halves(y1)
    ends = ((t, q0, p0), (t + dt, q1, p1))
    missing = [end for end, force in zip(ends, forces, strict=True) if force is None]
    found = iter(
        lazily(lambda: tuple(form.kick(*end) for end in missing), len(missing), q0, wanted)
    )
    f0, f1 = (next(found) if force is None else force for force in forces)
    # The slope of x loses a power of dt to the error of x1: below order 4 that is more than the
    # cubic's own error in v.
    if form.identity and method.order > 3:
        v0, v1, a0, a1 = (form.drift(t, q0, z) for z in (p0, p1, f0, f1))
        return Quintic(q0, q1, v0, v1, a0, a1, dt, _sense(form, t, q0))
    v0, v1 = lazily(lambda: tuple(form.drift(*end) for end in ends), 2, q0, wanted)
    return Hermite(y, y1, jnp.concatenate([v0, f0]), jnp.concatenate([v1, f1]), dt)


def _sense(form: Any, t: Array, x: Array) -> Array:
    """dx/dt per unit of v: 1, or −1 where time runs backwards."""
    return form.drift(t, x, jnp.ones((), x.dtype))


class Quintic(Interpolant):
    """x as the quintic with the positions, velocities and accelerations of both ends; v its slope.

    Its error is O(dt⁶) in x and O(dt⁵) in v.
    """

    x0: Array
    x1: Array
    v0: Array
    v1: Array
    a0: Array
    a1: Array
    dt: Array
    sense: Array

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """(x, v) at t0 + θ dt."""
        c3, c4, c5 = self._bends()
        dt, s = self.dt, theta
        x = self.x0 + s * (dt * self.v0 + s * (dt**2 * self.a0 / 2 + s * (c3 + s * (c4 + s * c5))))
        rise = dt * self.a0 + s * (3 * c3 + s * (4 * c4 + s * 5 * c5)) / dt
        return jnp.concatenate([x, self.sense * (self.v0 + s * rise)])

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Its derivative by t."""
        c3, c4, c5 = self._bends()
        dt, s = self.dt, theta
        dx = self.v0 + s * (dt * self.a0 + s * (3 * c3 + s * (4 * c4 + s * 5 * c5)) / dt)
        dv = self.a0 + s * (6 * c3 + s * (12 * c4 + s * 20 * c5)) / dt**2
        return jnp.concatenate([dx, self.sense * dv])

    def _bends(self) -> tuple[Array, Array, Array]:
        """The coefficients of θ³, θ⁴ and θ⁵, from what a parabola from the left leaves over."""
        dt = self.dt
        x = self.x1 - self.x0 - dt * self.v0 - dt**2 * self.a0 / 2
        v = dt * (self.v1 - self.v0 - dt * self.a0)
        a = dt**2 * (self.a1 - self.a0)
        return 10 * x - 4 * v + a / 2, 7 * v - 15 * x - a, 6 * x - 3 * v + a / 2


class NystromDense(Interpolant):
    """x + θ dt v + dt² Σ b_i(θ) k_i and v + dt Σ ḃ_i(θ) k_i, from a table's rows."""

    x: Array
    v: Array
    dt: Array
    stages: tuple
    sense: Array
    table: NystromTableau = eqx.field(static=True)

    def __call__(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """(x, v) at t0 + θ dt."""
        bend = self._sum(self.table.dense, theta, 2)
        rise = self._sum(self.table.dense_dot, theta, 1)
        x = self.x + self.dt * self.sense * (theta * self.v + self.dt * bend)
        return jnp.concatenate([x, self.v + self.dt * rise])

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """Its derivative by t."""
        bend = self._sum(_derived(self.table.dense, 2), theta, 1)
        rise = self._sum(_derived(self.table.dense_dot, 1), theta, 0)
        return jnp.concatenate([self.sense * (self.v + self.dt * bend), rise])

    def _sum(self, rows: Any, theta: Array, power: int) -> Any:
        return combine([polynomial(row, theta, power) for row in rows], self.stages)


def _derived(rows: Any, power: int) -> Any:
    """The rows of θ^power Σ_d row_d θ^d after differentiation: of power − 1."""
    return rows * range(power, power + rows.shape[1])

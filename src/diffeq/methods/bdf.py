"""Backward differentiation of variable order: the past as differences at a step that is kept.

The past is ∇ʲy, j up to the order, of the polynomial through the states before, at the spacing of
the last step. Where dt changes, the polynomial is looked at with another spacing; where it does
not, nothing is recomputed. That is the quasi-constant step of Shampine and Reichelt's `ode15s`,
taken here because its arrays have one shape at every order.
"""

from fractions import Fraction
from functools import cache
from math import comb
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Real

from ..algebra.newton import Bounds, NewtonResult, simplified_newton
from ..algebra.roots import implicit_root
from ..problems.forms import Implicit, Mass, divide_by_dt
from .base import Step
from .interpolant import Interpolant, Polynomial
from .iteration_matrix import MatrixReusingMethod, NewtonOutcome
from .newton_based import factors_of, linearised, solved_by
from .weighted_sums import weighted

__all__ = ["BDF"]

ORDERS = 5
# Shampine and Reichelt's κ: what numerical differentiation formulas take from the last difference,
# for a smaller error at a little less stability. Order 5 would lose too much of it.
KAPPA = np.array([0.0, -37 / 200, -1 / 9, -0.0823, -0.0415, 0.0])
_HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, ORDERS + 1))])
# The new difference's coefficient in the formula, and what it leaves of the error: C_k.
ALPHA = (1 - KAPPA) * _HARMONIC
ERROR = KAPPA * _HARMONIC + 1 / np.arange(1, ORDERS + 2)
_SHRINK, _GROW = 0.2, 10.0


class BDF(MatrixReusingMethod):
    """Σ_{j≤k} (1/j) ∇ʲy1 − κ_k γ_k (y1 − ŷ1) = dt f(t1, y1); the order k, from 1 to 5, varies.

    ŷ1 is the prediction of the polynomial through the states before, γ_k = Σ_{j≤k} 1/j, and κ_k are
    the constants of the numerical differentiation formulas (0 would be the classical formulas). A
    step costs the Newton iterations of *one* equation, whatever the order, and up to 64 numbers one
    Jacobian and one LU; of larger systems these serve several steps. So it is for large systems,
    and fields that cost much. After k + 1 steps of one length, of the orders
    k − 1, k and k + 1 the one is taken whose error allows the longest step, and dt changes with it;
    so a `controller=` says which steps are accepted and within which limits, and not how dt grows.

    M may be singular (a `DAEProblem` of index 1), and what is solved may be a residual,
    F(t1, y1, y1') = 0 with y1' that of the formula (an `ImplicitDAEProblem`). The start, and each
    discontinuity, is at order 1: with many events a one-step method is the better choice. Orders
    above 2 are not A-stable: oscillations that hardly decay are for `RadauIIA5`. With `dt=` the
    first step, of order 1, limits what the later orders can gain; on given times whose distances
    vary (`controller=de.Fixed(ts)`) the order stays near 1.

    The past is part of what is differentiated, so that gradients are those of the numbers returned.

    Args:
        max_order: the highest order to be taken, from 1 to 5.
        linear: a linear solver of lineax, such as `lineax.GMRES(rtol=1e-3, atol=1e-3)`, for states
            of many numbers, or a `de.Krylov`: as in `de.DIRK`. None: LU.

    Raises:
        ValueError: max_order is not one of them.

    Reference: shampine1997.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * (y - 1), 0.0, (0.0, 1.0), 1e6)
        >>> sol = de.solve(problem, de.BDF())
        >>> round(float(sol.y1), 3), bool(sol.stats["steps"] < 60)
        (1.0, True)
    """

    form = ("implicit", "mass")
    reference = "shampine1997"

    max_order: int = eqx.field(static=True, default=ORDERS)

    def __check_init__(self) -> None:
        whole = isinstance(self.max_order, int) and not isinstance(self.max_order, bool)
        if not (whole and 1 <= self.max_order <= ORDERS):
            raise ValueError(f"max_order is {self.max_order!r}; 1, 2, 3, 4 or 5 is wanted.")

    @property
    def order(self) -> int:
        """The highest order that is taken."""
        return self.max_order

    @property
    def error_order(self) -> int:
        """That of the first step, by which its dt is found."""
        return 2

    @property
    def adaptive(self) -> bool:
        """Always."""
        return True

    @property
    def multistep(self) -> bool:
        """The memory is the past."""
        return True

    def init(self, form: Mass | Implicit, t: Real[Array, ""], y: Array) -> "_Differences":
        """No past but the slope: a straight line, which has the first difference at any spacing. An
        infinite slope, that of √t at 0, says nothing of a step: 0 stands for it.
        """
        slope = form.slope(t, y).ravel()
        slope = jnp.where(jnp.isfinite(slope), slope, 0)
        blank = jnp.zeros((ORDERS + 2, y.size), y.dtype)
        clock = jnp.array([1.0, 1.0, 0.0, 1.0], y.dtype)
        return _Differences(blank.at[0].set(slope), clock)

    def step(
        self,
        form: Mass | Implicit,
        t: Real[Array, ""],
        y: Array,
        dt: Real[Array, ""],
        memory: "_Differences",
    ) -> Step:
        """One step; its data are the past at its end."""
        past, bounds = memory.at(dt), self.aim.bounds(y)
        k = past.order
        alpha, error = _entry_or_zero(ALPHA, k, y.dtype), _entry_or_zero(ERROR, k, y.dtype)
        predicted = y.ravel() + jnp.sum(past.known, axis=0)
        rest = weighted(np.append(_HARMONIC[1:], [0.0, 0.0]), past.known) / alpha

        def residual(d: Array) -> Array:
            at = (predicted + d).reshape(y.shape)
            return form.residual_of_step(dt / alpha, t + dt, at, rest + d)

        def exact(d: Array, r: Array) -> Array:
            slope = lambda: divide_by_dt(rest + d, dt / alpha)  # noqa: E731
            at = (predicted + d).reshape(y.shape)
            linear = linearised(form, t + dt, at, slope, self.solver)
            return solved_by(factors_of(linear, dt, 1 / alpha), r)

        guess = lax.stop_gradient((t + dt, predicted.reshape(y.shape)))
        slope = lambda: lax.stop_gradient(divide_by_dt(rest, dt / alpha))  # noqa: E731
        inverse, matrix = self.matrix_of_step(form, guess, dt, 1 / alpha, slope)
        found = simplified_newton(residual, inverse, jnp.zeros_like(predicted), bounds, past.factor)
        d = implicit_root(residual, found.x, exact)
        reached = past.extended(d)
        after, growth = self._next(lax.stop_gradient(reached), d, found, bounds)
        workspace, again = ((), None) if matrix is None else matrix.after(NewtonOutcome.of(found))
        return Step(
            (predicted + d).reshape(y.shape),
            (error * d).reshape(y.shape),
            _Differences(reached.differences, after),
            reached,
            found.found,
            found.turns,
            order=k + 1,
            growth=growth,
            again=again,
            workspace=workspace,
        )

    def _next(
        self, past: "_Differences", d: Array, found: NewtonResult, bounds: Bounds
    ) -> tuple[Array, Array]:
        """The clock of the next step, and how much dt should grow: what the best order allows."""
        k, dtype = past.order, d.dtype
        orders = k + jnp.arange(-1, 2)
        # What the errors would have been: order k − 1 leaves out ∇ᵏy, and so on.
        rows = [
            _difference(past.differences, k),
            lax.stop_gradient(d),
            _difference(past.differences, k + 2),
        ]
        sizes = jnp.stack([bounds.size(row) for row in rows])
        sizes = sizes * jnp.stack([_entry_or_zero(ERROR, k + i, dtype) for i in (-1, 0, 1)])
        allowed = (orders >= 1) & (orders <= self.max_order)
        factors = jnp.where(allowed, jnp.exp(-jnp.log(sizes) / (orders + 1)), 0)
        best = jnp.argmax(factors)
        settled = past.equal >= k + 1
        safety = 0.9 * 21 / (20 + found.turns)
        growth = jnp.where(settled, jnp.clip(safety * jnp.max(factors), _SHRINK, _GROW), 1)
        order = jnp.where(settled, k + best - 1, k)
        rate = jnp.clip(found.factor, jnp.finfo(dtype).eps, 1.0) ** 0.8
        clock = [past.clock[0], order, jnp.where(settled, 0, past.equal), rate]
        return lax.stop_gradient(jnp.stack([jnp.asarray(x, dtype) for x in clock])), growth

    def interpolant_evaluates(self, form: Mass | Implicit) -> bool:
        """Never: it is the past."""
        del form
        return False

    def interpolant(
        self, form: Mass | Implicit, t: Array, y: Array, dt: Array, step: Step
    ) -> Interpolant:
        """The polynomial through the end and the k states before, of order k."""
        del form, t
        known = step.data.known[:ORDERS]
        parts = (weighted(row, known).reshape(y.shape) for row in _newton_form().T)
        return Polynomial(y, tuple(parts), dt)


class _Differences(NamedTuple):
    """∇ʲy, j from 1, one a row; of the rows beyond the order, the next two are what the last steps
    have shown of it. `clock`: dt, the order, steps of this length, the rate of Newton's method.
    """

    differences: Array
    clock: Array

    @property
    def order(self) -> Int[Array, ""]:
        """The order k of the next step; 1 in a row of the tape that nobody has written."""
        return jnp.maximum(lax.stop_gradient(self.clock[1]).astype(jnp.int32), 1)

    @property
    def known(self) -> Array:
        """The differences of the polynomial of degree k, and zeros beyond."""
        return jnp.where(_rows_of_degree(self.order), self.differences, 0)

    @property
    def equal(self) -> Array:
        """The number of steps with this dt and this order."""
        return self.clock[2]

    @property
    def factor(self) -> Array:
        """The factor θ/(1 − θ) of Newton's rate θ, as previous steps have found it."""
        return self.clock[3]

    def at(self, dt: Array) -> "_Differences":
        """Interpolates the previous states at the spacing dt.

        Its values at t, t − dt, t − 2 dt … are summed from the old differences, and differenced.
        """
        spacing = lax.stop_gradient(self.clock[0])
        ratio = dt / jnp.where(spacing > 0, spacing, 1)
        same = jnp.abs(ratio - 1) <= 16 * jnp.finfo(dt.dtype).eps
        values = jnp.stack([_rise(self.known, -m * ratio) for m in range(1, ORDERS + 1)])
        rescaled = [weighted(row, values) for row in _differencing()]
        zeros = jnp.zeros_like(rescaled[0])
        rescaled = jnp.stack([*rescaled, zeros, zeros])
        rescaled = jnp.where(_rows_of_degree(self.order), rescaled, 0)
        clock = jnp.stack([dt, self.clock[1], jnp.where(same, self.clock[2], 0), self.clock[3]])
        return _Differences(jnp.where(same, self.differences, rescaled), clock)

    def extended(self, d: Array) -> "_Differences":
        """The differences at the end of a step that found y1 = ŷ1 + d, and one more step counted.

        ∇ᵏ⁺¹y1 = d, and each lower one is the old one plus the new one above it.
        """
        k = self.order
        sums = jnp.cumsum(self.known[::-1], axis=0)[::-1] + d
        place = jnp.arange(1, ORDERS + 3)[:, None]
        beyond = d - _difference(self.differences, k + 1)
        differences = jnp.where(place <= k, sums, jnp.where(place == k + 1, d, beyond))
        differences = jnp.where(place <= k + 2, differences, 0)
        return _Differences(differences, self.clock + jnp.array([0, 0, 1, 0], self.clock.dtype))


def _rows_of_degree(k: Array) -> Array:
    """Which rows belong to the polynomial of degree k."""
    return jnp.arange(1, ORDERS + 3)[:, None] <= k


def _difference(differences: Array, j: Array) -> Array:
    """∇ʲy, for a j that is known at run time."""
    return jnp.sum(jnp.where(jnp.arange(1, ORDERS + 3)[:, None] == j, differences, 0), axis=0)


def _entry_or_zero(table: np.ndarray, k: Array, dtype: DTypeLike) -> Array:
    """An entry of a table; zero outside of it."""
    return jnp.sum(jnp.where(jnp.arange(len(table)) == k, jnp.asarray(table, dtype), 0))


def _rise(differences: Array, s: Array) -> Array:
    """p(t + s dt) − p(t) = Σ_j ∇ʲy s (s + 1) … (s + j − 1)/j!, by Horner's rule."""
    total = jnp.zeros_like(differences[0])
    for j in range(ORDERS, 0, -1):
        total = (s + j - 1) / j * (differences[j - 1] + total)
    return total


@cache
def _differencing() -> np.ndarray:
    """∇ʲ = Σ_m (−1)ᵐ C(j, m) p_m, from the values p_m = p(t − m dt) − p(t)."""
    some = range(1, ORDERS + 1)
    return np.array([[(-1) ** m * comb(j, m) for m in some] for j in some], float)


@cache
def _newton_form() -> np.ndarray:
    """The coefficients of θ, θ², … in y(θ) − y(0), of each difference at the end, one a row: those
    of s (s + 1) … (s + j − 1)/j! with s = θ − 1, less its value at θ = 0.
    """
    rows = []
    for j in range(1, ORDERS + 1):
        poly = [Fraction(1)]  # in θ, lowest power first
        for m in range(j):  # times (θ − 1 + m)/(m + 1)
            shifted = [Fraction(0), *poly]
            poly = [(a * (m - 1) + b) / (m + 1) for a, b in zip([*poly, 0], shifted, strict=True)]
        rows.append([float(x) for x in poly[1:]] + [0.0] * (ORDERS - j))
    return np.array(rows)

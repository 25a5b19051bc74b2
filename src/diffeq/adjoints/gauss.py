"""`Gauss`: λ alone is solved backwards; dL/dp is a Gauss quadrature on each of its steps."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..autodiff.dynamic_scan import walk
from ..core.norm import in_dtype_of
from ..integrator import Data, step_interpolant
from .backward_solve import AdjointSystem, BackwardSolve
from .base import register_adjoint
from .forward_result import AdjointContext
from .interpolating import AlongTape

__all__ = ["AdjointOnly", "Gauss"]


class AdjointOnly(AlongTape):
    """An adjoint that solves λ' = −(∂f/∂y)ᵀλ alone, and sums dL/dp = ∫ (∂f/∂p)ᵀλ dt over
    its steps.
    """

    carries: ClassVar[bool] = False

    def parts(self, lam: Array, y: Array, moving: list) -> tuple:
        """λ."""
        del y, moving
        return (lam,)

    def slopes(self, setting: AdjointContext, where: Any, t: Array, parts: tuple) -> tuple:
        """(∂f/∂y)ᵀλ."""
        y = self.state(where, t)
        return jax.vjp(lambda y: setting.field(setting.parameters, t, y), y)[1](parts[0])

    def accumulate(self, back: AdjointSystem, data: Data, solve: BackwardSolve, tried: Any) -> list:
        """The integral dL/dp after an attempt: an accepted step adds its own integral."""
        if not solve.total:
            return []

        # A walk of at most one iteration: a rejected step is not integrated.
        def gather(active: Any, _: Any, consts: Any, total: list, *__: Any) -> tuple[list, tuple]:
            del active
            data, t, y, tried = consts
            polynomial = step_interpolant(back.system, data, t, y, tried.t1, tried.step)
            setting = AdjointContext(back.setting.spec, data.parameters[0], back.setting.live)
            integrand = _Integrand(self, setting, data.parameters[1], t, tried.dt, polynomial)
            return self.integrated(back, integrand, total), ()

        consts = data, solve.state.t, solve.state.y, tried
        once = tried.accept.astype(jnp.int32)
        return walk(gather, 0, once, consts=consts, carry=solve.total, length=1)[0]

    def integrated(self, back: AdjointSystem, integrand: "_Integrand", total: list) -> list:
        """The total after the integral over one step of the backward solve is added."""
        raise NotImplementedError


class _Integrand:
    """(∂f/∂p)ᵀλ on a step of the backward solve, as a function of θ."""

    def __init__(
        self,
        adjoint: Any,
        setting: AdjointContext,
        where: Any,
        start: Array,
        dt: Array,
        polynomial: Any,
    ) -> None:
        self.adjoint, self.setting, self.where = adjoint, setting, where
        self.start, self.dt, self.polynomial = start, dt, polynomial

    def pulled(self, thetas: Array) -> Any:
        """The map from weights w to dt Σ w_i (∂f/∂p)ᵀλ(θ_i); the fields are evaluated once."""
        y0 = self.polynomial.y0
        lam = jax.vmap(self.polynomial)(in_dtype_of(thetas, y0))
        times = -(self.start + thetas * self.dt)
        states = jax.vmap(lambda t: self.adjoint.state(self.where, t))(times)

        def fields(moving: list) -> Array:
            return jax.vmap(lambda t, y: self.setting.field(moving, t, y))(times, states)

        pull = jax.vjp(fields, self.setting.parameters)[1]

        def weighted(weights: Array) -> list:
            factor = in_dtype_of(weights * self.dt, y0)
            return pull(lam * factor.reshape(-1, *(1,) * (lam.ndim - 1)))[0]

        return weighted


@register_adjoint
class Gauss(AdjointOnly):
    """Solves λ backwards, with y(t) from the polynomials of the forward solve, and takes dL/dp by a
    Gauss–Legendre rule on each step.

    dL/dp = ∫ (∂f/∂p)ᵀλ dt does not act back on λ: so it need not be solved, and λ is an equation of
    n unknowns however many parameters there are. The continuous adjoint to choose for a network,
    and for an implicit method, whose matrices stay n × n.

    A rule of m points is exact for polynomials of degree 2m − 1 on each step. No step of the
    backward solve is longer than the forward step, so it resolves what the forward solve resolved.

    Args:
        points: the number of points of the rule. None: half the order of the method and one more,
            so that the rule is more accurate than the solution.
        rows: the number of attempts that the tape keeps before it is thinned, as for `Discrete`.
        rtol, atol: tolerances of λ; None: those of the solve. atol is meant in units of y: for λ it
            is relative to the largest adjoint jump.
        method: the method of the backward solve; it must estimate its error. None: the method of
            the solve.

    Reverse mode only; for rows at given times and the end.

    Raises:
        TypeError: forward mode, second derivatives, or rows at the ends of steps were asked for.
        RuntimeError: (outside a trace) λ could not be solved.

    Reference: norcliffe2023.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
        >>> end = lambda k: de.solve(problem.replace(args=k), rtol=1e-5, adjoint=de.Gauss()).y1
        >>> round(float(jax.grad(end)(1.0)), 3)
        -0.368
    """

    points: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        whole = isinstance(self.points, (int, np.integer)) and not isinstance(self.points, bool)
        if self.points is not None and not (whole and self.points > 0):
            raise ValueError(f"points is {self.points!r}; a positive whole number, or None.")

    def integrated(self, back: AdjointSystem, integrand: _Integrand, total: list) -> list:
        """Adds Σ w_i dt (∂f/∂p)ᵀλ to the total."""
        nodes, weights = np.polynomial.legendre.leggauss(self.points or back.order // 2 + 1)
        dtype = integrand.dt.dtype
        found = integrand.pulled(jnp.asarray((nodes + 1) / 2, dtype))(
            jnp.asarray(weights / 2, dtype)
        )
        return [a + b for a, b in zip(total, found, strict=True)]

"""`Gauss`: λ is solved backwards along the interpolated solution, and dL/dp is an integral.

    λ' = −(∂f/∂y)ᵀ λ,   dL/dp = ∫ (∂f/∂p)ᵀ λ dt

The integral does not act back on λ. So it is taken on each step of λ by a quadrature rule
(`quadrature.py`), or solved along with λ as further unknowns. y(t) is in `tape_interpolants.py`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..autodiff.dynamic_scan import walk
from ..integrator import Attempt, Data, Integrator
from .adjoint_equation import ContinuousAdjoint
from .backward_solve import AdjointIntegrator, BackwardSolve, ForwardStates
from .base import register_adjoint
from .discrete import Discrete
from .forward_result import AdjointContext
from .quadrature import Integrand, gauss_kronrod, gauss_legendre
from .tape import Recorder
from .tape_interpolants import solve_along_tape, state_at

__all__ = ["Gauss"]

_INTEGRALS = "gauss", "adaptive", "augmented"


@register_adjoint
class Gauss(ContinuousAdjoint):
    """Solves λ backwards, with y(t) from the polynomials of the forward solve, and takes dL/dp by a
    Gauss–Legendre rule on each step.

    dL/dp = ∫ (∂f/∂p)ᵀλ dt does not act back on λ: so it need not be solved, and λ is an equation of
    n unknowns however many parameters there are. The continuous adjoint to choose for a network,
    and for an implicit method, whose matrices stay n × n.

    A rule of m points is exact for polynomials of degree 2m − 1 on each step. No step of the
    backward solve is longer than the forward step, so it resolves what the forward solve resolved.
    Where ∂f/∂p varies faster than f (the amplitude of a forcing that is zero, say) the integral
    needs an error control of its own, which the other two values of `integral` give.

    Args:
        points: the number of points of the rule. None: half the order of the method and one more,
            so that the rule is more accurate than the solution.
        integral: "gauss": one rule on each step of λ, without an error estimate. "adaptive":
            Gauss–Kronrod rules of 7 and 15 points on panels of each step, halved until their
            difference is within tolerance, at the price of at least 15 evaluations a step.
            "augmented": dL/dp is solved along with λ and is in the error norm, as a part of its own
            (many weights do not hide a few states), at the price of a vector–Jacobian product by
            all parameters at each stage, and of larger matrices of an implicit method. SciML calls
            the three GaussAdjoint, QuadratureAdjoint and InterpolatingAdjoint.
        rows: the number of attempts that the tape keeps before it is thinned, as for `Discrete`:
            the forward solution is stored whole up to there, and beyond in checkpoints, from which
            it is solved again window by window.
        rtol, atol: tolerances of λ and of the integral; None: those of the solve. atol is meant in
            units of y: for λ it is relative to the largest adjoint jump.
        method: the method of the backward solve; it must estimate its error. None: the method of
            the solve.

    Reverse mode only; for rows at given times and the end.

    Raises:
        TypeError: forward mode, second derivatives, or rows at the ends of steps were asked for.
        RuntimeError: (outside a trace) λ could not be solved. Where an adaptive integral cannot be
            taken to its tolerance, dL/dp is NaN.

    Reference: norcliffe2023, kim2021, piessens1983, sapienza2024.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
        >>> end = lambda k: de.solve(problem.replace(args=k), rtol=1e-5, adjoint=de.Gauss()).y1
        >>> round(float(jax.grad(end)(1.0)), 3)
        -0.368
    """

    points: Any = eqx.field(static=True, default=None)  # a number of points, or None
    integral: str = eqx.field(static=True, default="gauss", kw_only=True)
    rows: int | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self) -> None:
        Discrete(self.rows)  # raises an error if rows is no positive whole number
        if self.integral not in _INTEGRALS:
            names = ", ".join(map(repr, _INTEGRALS))
            raise ValueError(f"integral is {self.integral!r}; one of {names} is wanted.")
        if self.points is None:
            return
        if isinstance(self.points, bool) or not (
            isinstance(self.points, (int, np.integer)) and self.points > 0
        ):
            by_name = f" Write integral={self.points!r}." if self.points in _INTEGRALS else ""
            raise ValueError(
                f"points is {self.points!r}; a positive whole number is wanted, or None.{by_name}"
            )
        if self.integral != "gauss":
            raise ValueError(
                f"points is {self.points!r}, and integral is {self.integral!r}, which has an error "
                'control and no number of points; give points= with integral="gauss".'
            )

    @property
    def augmented(self) -> bool:
        """True if dL/dp is part of the state of the backward solve."""
        return self.integral == "augmented"

    def recorder(self, integrator: Integrator, max_steps: int, size: int = 0) -> Recorder:
        """The recorder of the tape, that of `Discrete`."""
        return Discrete(self.rows).recorder(integrator, max_steps, size)

    def parts(self, lam: Array, y: Array, moving: list) -> tuple:
        """λ, or (λ, dL/dp)."""
        del y
        return (lam, [jnp.zeros_like(p) for p in moving]) if self.augmented else (lam,)

    def slopes(
        self, setting: AdjointContext, where: ForwardStates, t: Array, parts: tuple
    ) -> tuple:
        """(∂f/∂y)ᵀλ, or that and (∂f/∂p)ᵀλ."""
        lam, y = parts[0], state_at(where, t)
        if not self.augmented:
            return jax.vjp(lambda y: setting.field(setting.parameters, t, y), y)[1](lam)
        pull = jax.vjp(lambda p, y: setting.field(p, t, y), setting.parameters, y)[1]
        of_parameters, of_y = pull(lam)
        return of_y, of_parameters

    def accumulate(
        self, back: AdjointIntegrator, data: Data, solve: BackwardSolve, tried: Attempt
    ) -> list:
        """The integral dL/dp after an attempt: an accepted step adds its own integral."""
        if not solve.total:
            return []

        # A walk of at most one iteration: a rejected step is not integrated.
        def add(
            active: Bool[Array, ""],
            _: tuple,
            consts: tuple[Data, Array, Array, Attempt],
            total: list,
            *__: tuple,
        ) -> tuple[list, tuple]:
            del active
            integrand = Integrand(back, *consts)
            if self.integral == "adaptive":
                return gauss_kronrod(integrand, total), ()
            return gauss_legendre(integrand, total, self.points or int(back.order) // 2 + 1), ()

        consts = data, solve.state.t, solve.state.y, tried
        once = tried.accept.astype(jnp.int32)
        return walk(add, 0, once, consts=consts, carry=solve.total, length=1)[0]

    def solve_backwards(self, back: AdjointIntegrator) -> BackwardSolve:
        """Solves backwards over the steps of the tape."""
        spec, start = back.setting.spec, back.setting.start
        integrator, _ = back.setting.storing_states()
        return solve_along_tape(back, self.recorder(integrator, spec.max_steps, start.y.nbytes))

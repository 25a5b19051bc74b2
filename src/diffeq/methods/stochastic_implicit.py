"""Methods for stiff equations with noise: implicit in the drift alone.

The noise stays explicit: 1/(1 − g W) would have no mean, for W is normal and no bound keeps the
denominator from zero.
"""

from typing import ClassVar

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree, Real

from ..algebra.newton import simplified_newton
from ..algebra.roots import implicit_root
from ..problems.forms import Sde
from .base import Step
from .newton_based import ImplicitMethod, factors_of, inverse_of, named_solver, of_field, solved_by
from .stochastic_rk import Stochastic

__all__ = ["ImplicitEM"]


class ImplicitEM(Stochastic, ImplicitMethod):
    """y1 = y + f(t + dt, y1) dt + g(t, y) W: Euler–Maruyama with an implicit drift, for stiff ones.

    Itô; any noise; strong order 1/2, 1 if noise is additive. A drift that decays does so at any dt:
    y' = λy is multiplied by 1/(1 − λ dt), and with noise μ y dW the mean square decays whenever it
    does so in the equation. Fast components are damped: where dt is long for them, their variance
    is too small (of dy = −r y dt + s dW it is s²/(2r + r² dt) in place of s²/(2r)).

    y1 is found by a simplified Newton's method to the tolerance (1e-12 and 1e-14 where none is
    given), and differentiated by the implicit function theorem. A step whose equation is not solved
    ends the solve with the status `newton_failed`.

    Args:
        linear: a linear solver of lineax for states of many numbers, or a `de.Krylov`, as in
            `de.DIRK`. None: LU.

    Raises:
        TypeError: y is complex; give its real and imaginary part.

    Reference: kloeden1992, 12.2.

    Example:
        A decay a thousand times faster than the step:

        >>> import jax, diffeq as de
        >>> problem = de.SDEProblem(lambda t, y, a: -1e5 * y, lambda t, y, a: 0.1, 1.0, (0.0, 1.0))
        >>> sol = de.solve(problem, de.ImplicitEM(), dt=0.01, key=jax.random.key(0))
        >>> bool(abs(sol.y1) < 1e-3)
        True
    """

    form: ClassVar[str] = "ito"
    real_view: ClassVar[bool] = False  # each number of y has one W, and two would be another noise
    reference: ClassVar[str] = "kloeden1992"
    description: ClassVar[str] = "Implicit in the drift, for stiff equations with any noise."

    def __repr__(self) -> str:
        return f"ImplicitEM({named_solver(self.linear)})"

    @property
    def order(self) -> float:
        """Strong order."""
        return 0.5

    @property
    def stores_memory(self) -> bool:
        """There is nothing to remember."""
        return False

    def init(self, form: Sde, t: Real[Array, ""], y: Array) -> PyTree:
        """Refuses a complex y; there is no memory."""
        if jnp.iscomplexobj(y):
            raise TypeError(f"{self!r} takes a real y; give the real and the imaginary part.")
        return ()

    def step(
        self, form: Sde, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step; u = y1 − y solves u = W g + dt f(t + dt, y + u)."""
        noise = form.times(form.diffusion(t, y), form.increment).ravel()
        moved = lambda u: y + u.reshape(y.shape)  # noqa: E731

        def residual(u: Array) -> Array:
            return noise + dt * form.drift(t + dt, moved(u)).ravel() - u

        def exact(u: Array, r: Array) -> Array:
            linear = of_field(form.drift, t + dt, moved(u), solver=self.solver)
            return solved_by(factors_of(linear, dt, 1.0), r)

        linear = of_field(form.drift, *lax.stop_gradient((t + dt, y)), solver=self.solver)
        inverse = inverse_of(factors_of(linear, dt, 1.0))
        found = simplified_newton(residual, inverse, noise, self.aim.bounds(y))
        y1 = moved(implicit_root(residual, found.x, exact))
        return Step(y1, None, (), (), found.found, found.turns)

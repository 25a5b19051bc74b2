"""Between the ends of a step of an SDE: a bridge through the Brownian motion there."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PyTree, Real

from ..brownian import StepCell
from ..problems.forms import Sde, apply_diffusion
from .interpolant import Interpolant

__all__ = ["Bridge"]


class Bridge(Interpolant):
    """y(θ) = y0 + θ (y1 − y0 − G(1)) + G(θ), G(θ) = g W(θ) + ½ g ∂g/∂y (W(θ)² − θ dt).

    W(θ) is the Brownian motion of the solve's key, between the values that the step has used. What
    the step has beyond G grows linearly, so that both ends are met. The error of y(θ) given the
    ends is O(dt^3/2), and O(dt) for methods of order below 3/2, which leave out the second term of
    G. The path has no slope.

    Reference: kloeden1992.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.SDEProblem(lambda t, y, a: -y, lambda t, y, a: 0.1, 1.0, (0.0, 1.0))
        >>> sol = de.solve(problem, de.EulerMaruyama(), dt=0.1, key=jax.random.key(0), dense=True)
        >>> sol(0.25).shape
        ()
    """

    y0: Array
    y1: Array
    g: Array
    milstein_term: Array | None
    dt: Array
    source: PyTree
    drawn: PyTree
    noise: Any = eqx.field(static=True)
    rule: type = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    @classmethod
    def of(
        cls, form: Sde, span: tuple[Array, Array], ends: tuple[Array, Array], *, curved: bool
    ) -> "Bridge":
        """The bridge of a step over `span`, (t, dt), between the states at its ends."""
        (t, dt), (y0, y1) = span, ends
        curved = curved and form.kind != "general" and not form.additive
        bend = form.milstein_term(t, y0) if curved else None
        noise, source, drawn, _ = form.bound
        return cls(
            y0,
            y1,
            form.diffusion(t, y0),
            bend,
            dt,
            source,
            drawn,
            noise,
            type(form),
            form.kind,
        )

    def __call__(self, theta: Real[Array, ""], mark: PyTree = None) -> Inexact[Array, "..."]:
        """The state at θ; `mark` is what the noise knows of that time ahead."""
        w = self.noise.within(self.source, self.drawn, theta, self.dt, mark)
        whole = self._part(jnp.sqrt(self.dt) * self.drawn.normal[0], self.dt)
        return self.y0 + theta * (self.y1 - self.y0 - whole) + self._part(w, theta * self.dt)

    def step_cell(self) -> StepCell:
        """A dyadic cell of the Brownian motion that holds the step."""
        return self.noise.step_cell(self.source, self.drawn)

    def _part(self, w: Array, dt: Array) -> Array:
        moved = apply_diffusion(self.kind, self.g, w)
        return (
            moved
            if self.milstein_term is None
            else moved + self.milstein_term * self.rule.square(w, dt) / 2
        )

    def slope(self, theta: Real[Array, ""]) -> Inexact[Array, "..."]:
        """There is none."""
        raise ValueError("The path of an SDE has no derivative by t: take differences of sol(t).")

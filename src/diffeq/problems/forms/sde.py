"""Equations with noise, dy = f dt + g dW."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...core.norm import magnitude
from .base import Form

__all__ = ["DrawnNoise", "Ito", "Sde", "Stratonovich", "apply_diffusion"]


@runtime_checkable
class DrawnNoise(Protocol):
    """The noise of a step (`brownian.StepNoise`): what was drawn, and √dt."""

    @property
    def drawn(self) -> Any:
        """Its `normal` is W/√dt, and where the method has `area` H/√dt."""
        ...

    @property
    def root(self) -> Array:
        """√dt."""
        ...


@dataclass(frozen=True)
class Sde(Form):
    """dy = drift(t, y) dt + diffusion(t, y) dW, as `Ito` or as `Stratonovich` understands it.

    `kind`: "diagonal" (W has the shape of y), "scalar" (one W for all) or "general" (the diffusion
    has a last axis more than y). `own`: each component of a diagonal diffusion depends on its own
    component of y alone. `recalls`: the diffusion looks into the past. `bound` is the noise of a
    step.
    """

    interpretation: ClassVar[str]

    drift: Callable[..., Array]
    diffusion: Callable[..., Array]
    kind: str
    additive: bool
    own: bool
    recalls: bool = False
    bound: Any = None  # a `DrawnNoise`

    def with_noise(self, bound: DrawnNoise) -> "Sde":
        """Returns the form with the noise of a step in place."""
        return replace(self, bound=bound)

    @property
    def normal(self) -> Array:
        """W/√dt, and where the method has `area` H/√dt: an array of shape (1 or 2, …)."""
        return self.bound.drawn.normal

    @property
    def root(self) -> Array:
        """√dt, and 0 in a step that is not made."""
        return self.bound.root

    @property
    def increment(self) -> Array:
        """W over the step."""
        return self.root * self.normal[0]

    def times(self, g: Array, w: Array) -> Array:
        """The diffusion g, a value of it, times increments."""
        return apply_diffusion(self.kind, g, w)

    def square_of(self, g: Array) -> Array:
        """The mean square of the diffusion g, a value of it, times standard normals."""
        square = magnitude(g) ** 2
        return jnp.sum(square, -1) if self.kind == "general" else square

    @staticmethod
    def square(w: Array, dt: Array) -> Array:
        """Twice the iterated integral of W over a step: W² − dt, of Stratonovich's kind W²."""
        return w * w - dt

    def slope(self, t: Array, y: Array) -> Array:
        """0, which stands for the slope that a path with noise does not have."""
        del t
        return jnp.zeros_like(y)

    def initial_step_rates(self) -> tuple[Callable, ...]:
        """The drift, and |g| per component of y."""
        return self.drift, self._diffusion_size

    def _diffusion_size(self, t: Array, y: Array) -> Array:
        g = self.diffusion(t, y)
        return jnp.sqrt(self.square_of(g)) if self.kind == "general" else g

    def drift_correction(self, t: Array, y: Array) -> Array:
        """½ Σ_j (∂g_j/∂y) g_j: what a Stratonovich equation has in its drift that Itô's has not."""
        if self.kind != "general":
            return self.milstein_term(t, y) / 2
        column = lambda y, j: self.diffusion(t, y)[..., j]  # noqa: E731
        g = self.diffusion(t, y)
        along = (
            jax.jvp(lambda y, j=j: column(y, j), (y,), (g[..., j],))[1] for j in range(g.shape[-1])
        )
        return jnp.asarray(sum(along)) / 2

    def must_be(self, method: object, kinds: tuple[str, ...], other: str) -> None:
        """Refuses a method that does not take this kind of noise."""
        if self.kind not in kinds:
            raise TypeError(
                f"{method!r} takes {' and '.join(kinds)} noise, and this is {self.kind}: choose "
                f"{other}."
            )

    def must_be_own(self, method: object) -> None:
        """Refuses diagonal noise whose components see each other.

        Methods of order above 1/2 need the double integrals of each component with itself alone;
        those of two Brownian motions have no closed form.
        """
        if self.kind == "diagonal" and not self.own:
            raise TypeError(
                f"{method!r} takes diagonal noise of which each component depends on its own "
                "component of y, and here one depends on others, as the noise of a price on its "
                "volatility does, or cannot be seen not to. Its order would be 1/2: choose "
                "de.EulerMaruyama() or de.EulerHeun(), which are of that order, with dt=."
            )

    def must_not_recall(self, method: object, other: str) -> None:
        """Refuses a method that wants to know how the diffusion moves along with all it sees."""
        if self.recalls:
            raise TypeError(
                f"{method!r} takes a diffusion of t, y and args, and this one looks into the past, "
                f"whose noise would come in by integrals over both: choose {other}."
            )

    def milstein_term(self, t: Array, y: Array) -> Array:
        """Twice the coefficient of W²: (g ∂g/∂y), for diagonal and for scalar noise.

        Where a component of a diagonal diffusion depends on others, this takes a derivative in
        each direction; else one for all.
        """
        g = lambda y: self.diffusion(t, y)  # noqa: E731
        if self.kind == "scalar" or self.own:
            value = g(y)
            return jax.jvp(g, (y,), (value,))[1]
        flat = y.ravel()
        units = jnp.eye(flat.size, dtype=y.dtype)
        along = lambda e: (jax.jvp(g, (y,), (e.reshape(y.shape),))[1].ravel() * e).sum()  # noqa: E731
        return g(y) * jax.vmap(along)(units).reshape(y.shape)


class Ito(Sde):
    """An `Sde` whose integrals take the diffusion at the start of each step."""

    interpretation: ClassVar[str] = "ito"


class Stratonovich(Sde):
    """An `Sde` whose integrals take the diffusion at the middle, so that the chain rule holds."""

    interpretation: ClassVar[str] = "stratonovich"

    @staticmethod
    def square(w: Array, dt: Array) -> Array:
        del dt
        return w * w


_UNROLLED = 16  # sums of so many products are written out: straight code, also over lanes


def apply_diffusion(kind: str, g: Array, w: Array) -> Any:
    """A diffusion of some kind times increments."""
    if kind != "general":
        return g * w
    if w.shape[-1] > _UNROLLED:
        return g @ w.astype(g.dtype)
    return sum(g[..., j] * w[j] for j in range(w.shape[-1]))

"""Stochastic equations whose solution is known: as a function of W, or by its moments."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float64

from diffeq import problems
from diffeq.zoo.case import vector

__all__ = [
    "NoisyCase",
    "additive_decay",
    "bounded_angle",
    "geometric_brownian",
    "hyperbolic_sine",
    "noisy_cases",
    "ornstein_uhlenbeck",
    "stochastic_lotka_volterra",
    "two_noises",
]


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyCase:
    """A stochastic problem and what is known about its solution.

    Attributes:
        name: its name in the register.
        title: one line for a table.
        drift, diffusion: of the equation, in Itô's sense.
        y0: the start, a vector.
        tspan: the interval.
        args: the parameters, a vector.
        source: a key of `docs/references.bib`.
        noise: the kind of noise.
        additive: whether the diffusion does not depend on y.
        exact: (t, W(t)) ↦ y(t), where y is a function of them; W counts from the start.
        mean, variance: t ↦ those of y(t), where they are known.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> case = de.zoo.geometric_brownian()
        >>> sol = de.solve(case.problem(), key=jax.random.key(0))
        >>> sol.y1.shape, round(float(case.mean(1.0)[0]), 3)
        ((1,), 2.117)

    """

    name: str
    title: str
    drift: Callable[..., Any]
    diffusion: Callable[..., Any]
    y0: Float64[Any, " n"]
    tspan: tuple[float, float]
    args: Float64[Any, " k"]
    source: str
    noise: str = "diagonal"
    additive: bool = False
    exact: Callable[..., Any] | None = None
    mean: Callable[..., Any] | None = None
    variance: Callable[..., Any] | None = None

    def problem(self) -> "problems.SDEProblem":
        """The problem, in the default precision of JAX."""
        return problems.SDEProblem(
            self.drift,
            self.diffusion,
            jnp.asarray(self.y0),
            self.tspan,
            jnp.asarray(self.args),
            noise=self.noise,
            additive=self.additive,
        )


_register: list[Callable[[], NoisyCase]] = []


def _noisy(make: Callable[[], NoisyCase]) -> Callable[[], NoisyCase]:
    _register.append(make)
    return make


def noisy_cases() -> Iterator[NoisyCase]:
    """Every stochastic case there is.

    >>> import diffeq as de
    >>> [case.name for case in de.zoo.noisy_cases() if case.additive]
    ['additive_decay', 'ornstein_uhlenbeck']
    """
    return (make() for make in _register)


@_noisy
def geometric_brownian() -> NoisyCase:
    """The price of a share: dy = a y dt + b y dW, y = y0 exp((a − b²/2) t + b W).

    (a, b) = (0.75, 0.6) from 1 over (0, 1). The mean is y0 exp(a t).

    Reference: kloeden1992, 4.4.

    Example:
        >>> import diffeq as de
        >>> de.zoo.geometric_brownian().tspan
        (0.0, 1.0)
    """
    a, b = 0.75, 0.6
    return NoisyCase(
        name="geometric_brownian",
        title="Geometric Brownian motion",
        drift=lambda t, y, args: args[0] * y,
        diffusion=lambda t, y, args: args[1] * y,
        y0=vector(1.0),
        tspan=(0.0, 1.0),
        args=vector(a, b),
        source="kloeden1992",
        exact=lambda t, w: jnp.exp((a - b**2 / 2) * t + b * w),
        mean=lambda t: jnp.exp(a * t) * jnp.ones(1),
        variance=lambda t: jnp.exp(2 * a * t) * (jnp.exp(b**2 * t) - 1) * jnp.ones(1),
    )


@_noisy
def hyperbolic_sine() -> NoisyCase:
    """Growth with its noise: dy = (y/2 + √(y² + 1)) dt + √(y² + 1) dW, y = sinh(t + W).

    From 0 over (0, 1).

    Reference: rossler2010, kloeden1992.

    Example:
        >>> import diffeq as de
        >>> float(de.zoo.hyperbolic_sine().exact(1.0, -1.0))
        0.0
    """
    return NoisyCase(
        name="hyperbolic_sine",
        title="Growth whose noise grows along: sinh(t + W)",
        drift=lambda t, y, args: y / 2 + jnp.sqrt(y**2 + args[0]),
        diffusion=lambda t, y, args: jnp.sqrt(y**2 + args[0]),
        y0=vector(0.0),
        tspan=(0.0, 1.0),
        args=vector(1.0),
        source="rossler2010",
        exact=lambda t, w: jnp.sinh(t + w),
    )


@_noisy
def bounded_angle() -> NoisyCase:
    """An angle that never leaves ±π/2: dy = −a² sin y cos³y dt + a cos²y dW.

    y = arctan(a W + tan y0) with a = 1, from 1 over (0, 1).

    Reference: rossler2010, kloeden1992.

    Example:
        >>> import diffeq as de
        >>> de.zoo.bounded_angle().y0.tolist()
        [1.0]
    """
    return NoisyCase(
        name="bounded_angle",
        title="An angle that stays between ±π/2",
        drift=lambda t, y, args: -(args[0] ** 2) * jnp.sin(y) * jnp.cos(y) ** 3,
        diffusion=lambda t, y, args: args[0] * jnp.cos(y) ** 2,
        y0=vector(1.0),
        tspan=(0.0, 1.0),
        args=vector(1.0),
        source="rossler2010",
        exact=lambda t, w: jnp.arctan(w + jnp.tan(1.0)),
    )


@_noisy
def additive_decay() -> NoisyCase:
    """Noise that fades: dy = (b/√(1+t) − y/(2(1+t))) dt + a b/√(1+t) dW.

    y = (y0 + b (t + a W))/√(1+t) with (a, b) = (0.5, 1), from 1 over (0, 1).

    Reference: rossler2010, kloeden1992.

    Example:
        >>> import diffeq as de
        >>> de.zoo.additive_decay().additive
        True
    """
    a, b = 0.5, 1.0
    return NoisyCase(
        name="additive_decay",
        title="Additive noise that fades",
        drift=lambda t, y, args: args[1] / jnp.sqrt(1 + t) - y / (2 * (1 + t)),
        diffusion=lambda t, y, args: jnp.full_like(y, args[0] * args[1] / jnp.sqrt(1 + t)),
        y0=vector(1.0),
        tspan=(0.0, 1.0),
        args=vector(a, b),
        source="rossler2010",
        additive=True,
        exact=lambda t, w: (1 + b * (t + a * w)) / jnp.sqrt(1 + t),
        mean=lambda t: (1 + b * t) / jnp.sqrt(1 + t) * jnp.ones(1),
        variance=lambda t: (a * b) ** 2 * t / (1 + t) * jnp.ones(1),
    )


@_noisy
def ornstein_uhlenbeck() -> NoisyCase:
    """Return to a mean: dy = −r (y − m) dt + s dW.

    Normal, of mean m + (y0 − m) exp(−r t) and variance s² (1 − exp(−2 r t))/(2 r), with
    (r, m, s) = (2, 0.5, 0.8) from 2 over (0, 1).

    Reference: kloeden1992, 4.4.

    Example:
        >>> import diffeq as de
        >>> round(float(de.zoo.ornstein_uhlenbeck().variance(1.0)[0]), 4)
        0.1571
    """
    r, m, s = 2.0, 0.5, 0.8
    return NoisyCase(
        name="ornstein_uhlenbeck",
        title="Ornstein–Uhlenbeck process",
        drift=lambda t, y, args: -args[0] * (y - args[1]),
        diffusion=lambda t, y, args: jnp.full_like(y, args[2]),
        y0=vector(2.0),
        tspan=(0.0, 1.0),
        args=vector(r, m, s),
        source="kloeden1992",
        additive=True,
        mean=lambda t: m + (2.0 - m) * jnp.exp(-r * t) * jnp.ones(1),
        variance=lambda t: s**2 * (1 - jnp.exp(-2 * r * t)) / (2 * r) * jnp.ones(1),
    )


@_noisy
def two_noises() -> NoisyCase:
    """General noise that commutes: dy = a y dt + b y dW₁ + c y dW₂.

    y = y0 exp((a − (b² + c²)/2) t + b W₁ + c W₂) with (a, b, c) = (0.5, 0.4, 0.3), from 1 over
    (0, 1).

    Reference: kloeden1992, 4.4.

    Example:
        >>> import diffeq as de
        >>> de.zoo.two_noises().noise
        'general'
    """
    a, b, c = 0.5, 0.4, 0.3
    return NoisyCase(
        name="two_noises",
        title="Geometric Brownian motion with two noises",
        drift=lambda t, y, args: args[0] * y,
        diffusion=lambda t, y, args: y[:, None] * args[1:],
        y0=vector(1.0),
        tspan=(0.0, 1.0),
        args=vector(a, b, c),
        source="kloeden1992",
        noise="general",
        exact=lambda t, w: jnp.exp((a - (b**2 + c**2) / 2) * t + b * w[..., :1] + c * w[..., 1:]),
        mean=lambda t: jnp.exp(a * t) * jnp.ones(1),
    )


@_noisy
def stochastic_lotka_volterra() -> NoisyCase:
    """Prey and predator with noise on both: dx = (a x − b x y) dt + e x dW₁ and
    dy = (−c y + d x y) dt + e y dW₂.

    (a, b, c, d, e) = (1.5, 1, 3, 1, 0.1) from (1, 1) over (0, 10).

    Reference: rackauckas2019.

    Example:
        >>> import diffeq as de
        >>> de.zoo.stochastic_lotka_volterra().y0.tolist()
        [1.0, 1.0]
    """

    def drift(t: Array, y: Array, args: Array) -> Array:
        prey, predator = y
        a, b, c, d, _ = args
        return jnp.stack([a * prey - b * prey * predator, -c * predator + d * prey * predator])

    return NoisyCase(
        name="stochastic_lotka_volterra",
        title="Lotka–Volterra with diagonal noise",
        drift=drift,
        diffusion=lambda t, y, args: args[4] * y,
        y0=vector(1.0, 1.0),
        tspan=(0.0, 10.0),
        args=vector(1.5, 1.0, 3.0, 1.0, 0.1),
        source="rackauckas2019",
    )

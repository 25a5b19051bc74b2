"""Small systems that every text integrates: populations, chemistry, chaos, relaxation."""

import math

import jax.numpy as jnp

from diffeq.zoo.case import Case, register, vector


def _lotka_volterra(t, y, args):
    prey, predator = y
    a, b, c, d = args
    return jnp.stack([a * prey - b * prey * predator, -c * predator + d * prey * predator])


def _lotka_volterra_invariant(t, y, args):
    prey, predator = y
    a, b, c, d = args
    return d * prey - c * jnp.log(prey) + b * predator - a * jnp.log(predator)


@register
def lotka_volterra() -> Case:
    """Prey and predator, on a closed orbit.

    x' = a x − b x y, y' = −c y + d x y, with (a, b, c, d) = (1.5, 1, 3, 1) from (1, 1) over
    (0, 10), two turns. d x − c log x + b y − a log y is constant.

    Reference: rackauckas2019, the first example.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.lotka_volterra()
        >>> case.y0.size, case.tspan
        (2, (0.0, 10.0))
    """
    return Case(
        name="lotka_volterra",
        title="Lotka–Volterra, two turns",
        field=_lotka_volterra,
        y0=vector(1.0, 1.0),
        tspan=(0.0, 10.0),
        args=vector(1.5, 1.0, 3.0, 1.0),
        source="rackauckas2019",
        invariants={"first integral": _lotka_volterra_invariant},
    )


def _spiral(t, y, args):
    decay, turn = args
    u, v = y**3
    return jnp.stack([-decay * u - turn * v, turn * u - decay * v])


@register
def spiral() -> Case:
    """The cubic spiral on which neural ODEs are shown.

    u' = −a u³ − b v³, v' = b u³ − a v³, with (a, b) = (0.1, 2) from (2, 0) over (0, 1.5).

    Reference: rackauckas2019, the neural ODE; after chen2018.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.spiral()
        >>> case.y0.size, case.tspan
        (2, (0.0, 1.5))
    """
    return Case(
        name="spiral",
        title="cubic spiral",
        field=_spiral,
        y0=vector(2.0, 0.0),
        tspan=(0.0, 1.5),
        args=vector(0.1, 2.0),
        source="rackauckas2019",
    )


def _lorenz(t, y, args):
    u, v, w = y
    sigma, rho, beta = args
    return jnp.stack([sigma * (v - u), u * (rho - w) - v, u * v - beta * w])


@register
def lorenz() -> Case:
    """Convection in three modes, chaotic.

    x' = σ (y − x), y' = x (ρ − z) − y, z' = x y − β z, with (σ, ρ, β) = (10, 28, 8/3) from
    (1, 0, 0) over (0, 10): long enough to leave the start far behind, and short enough for sixteen
    digits to mean something at the end.

    Reference: lorenz1963.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.lorenz()
        >>> case.y0.size, case.tspan
        (3, (0.0, 10.0))
    """
    return Case(
        name="lorenz",
        title="Lorenz attractor",
        field=_lorenz,
        y0=vector(1.0, 0.0, 0.0),
        tspan=(0.0, 10.0),
        args=vector(10.0, 28.0, 8 / 3),
        source="lorenz1963",
    )


def _van_der_pol(t, y, args):
    u, v = y
    (mu,) = args
    return jnp.stack([v, mu * (1 - u**2) * v - u])


@register
def van_der_pol() -> Case:
    """A relaxation oscillator, moderately stiff.

    y'' = μ (1 − y²) y' − y with μ = 5, from (2, 0) over (0, 20), nearly two periods. Give it larger
    μ for a stiff problem; the reference is for this one.

    Reference: hairer1993, I.16.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.van_der_pol()
        >>> case.y0.size, case.tspan
        (2, (0.0, 20.0))
    """
    return Case(
        name="van_der_pol",
        title="van der Pol, μ = 5",
        field=_van_der_pol,
        y0=vector(2.0, 0.0),
        tspan=(0.0, 20.0),
        args=vector(5.0),
        source="hairer1993",
    )


def _brusselator(t, y, args):
    u, v = y
    a, b = args
    reaction = u**2 * v
    return jnp.stack([a + reaction - (b + 1) * u, b * u - reaction])


@register
def brusselator() -> Case:
    """A chemical oscillator on its way to the limit cycle.

    u' = A + u² v − (B + 1) u, v' = B u − u² v, with (A, B) = (1, 3) from (1.5, 3) over (0, 20).

    Reference: hairer1993, I.16 for the model, II.4 for these numbers.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.brusselator()
        >>> case.y0.size, case.tspan
        (2, (0.0, 20.0))
    """
    return Case(
        name="brusselator",
        title="Brusselator",
        field=_brusselator,
        y0=vector(1.5, 3.0),
        tspan=(0.0, 20.0),
        args=vector(1.0, 3.0),
        source="hairer1993",
    )


def _brusselator_diffusion(t, y, args):
    a, b, alpha = args
    u, v = jnp.split(y, 2)
    scale = alpha * (u.size + 1) ** 2
    reaction = u**2 * v
    du = a + reaction - (b + 1) * u + scale * _second_difference(u, edge=1.0)
    dv = b * u - reaction + scale * _second_difference(v, edge=3.0)
    return jnp.concatenate([du, dv])


def _second_difference(u, *, edge):
    padded = jnp.pad(u, 1, constant_values=edge)
    return padded[:-2] - 2 * u + padded[2:]


@register
def brusselator_diffusion() -> Case:
    """The Brusselator with diffusion on a line, by the method of lines.

    u_t = A + u² v − (B + 1) u + α u_xx, v_t = B u − u² v + α v_xx on 0 < x < 1, with u = 1 and
    v = 3 at both ends, from u = 1 + sin 2πx and v = 3; (A, B, α) = (1, 3, 1/50); 40 inner points,
    the state (u₁ … u₄₀, v₁ … v₄₀), over (0, 10). Mildly stiff: eigenvalues down to −134. The
    reference solves the 80 equations, not the partial differential equation.

    Reference: hairer1996, IV.1.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.brusselator_diffusion()
        >>> case.y0.size, case.tspan
        (80, (0.0, 10.0))
    """
    n = 40
    u0 = [1 + math.sin(2 * math.pi * i / (n + 1)) for i in range(1, n + 1)]
    return Case(
        name="brusselator_diffusion",
        title="Brusselator with diffusion, 40 points",
        field=_brusselator_diffusion,
        y0=vector(*u0, *[3.0] * n),
        tspan=(0.0, 10.0),
        args=vector(1.0, 3.0, 0.02),
        source="hairer1996",
    )

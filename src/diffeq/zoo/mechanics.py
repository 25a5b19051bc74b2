"""Bodies in motion: stars, satellites, and a star in a galaxy."""

import jax.numpy as jnp
import numpy as np

from diffeq.zoo.case import Case, register, vector

_STARS = 7


def _pleiades(t, y, args):
    x, z, vx, vz = y.reshape(4, _STARS)
    mass = jnp.arange(1, _STARS + 1, dtype=y.dtype)
    dx, dz = x[None, :] - x[:, None], z[None, :] - z[:, None]
    # The diagonal is a star and itself: 1 keeps its inverse finite, and its gradient too.
    square = dx**2 + dz**2 + jnp.eye(_STARS, dtype=y.dtype)
    pull = mass / (square * jnp.sqrt(square))
    ax, az = jnp.sum(pull * dx, axis=1), jnp.sum(pull * dz, axis=1)
    return jnp.concatenate([vx, vz, ax, az])


def _pleiades_energy(t, y, args):
    x, z, vx, vz = y.reshape(4, _STARS)
    mass = np.arange(1.0, _STARS + 1)
    first, second = np.triu_indices(_STARS, k=1)
    gap = jnp.hypot(x[first] - x[second], z[first] - z[second])
    kinetic = jnp.sum(mass * (vx**2 + vz**2)) / 2
    return kinetic - jnp.sum(mass[first] * mass[second] / gap)


def _pleiades_momentum(t, y, args):
    vx, vz = y[2 * _STARS :].reshape(2, _STARS)
    mass = np.arange(1.0, _STARS + 1)
    return jnp.stack([jnp.sum(mass * vx), jnp.sum(mass * vz)])


@register
def pleiades() -> Case:
    """Seven stars in the plane, of masses 1 to 7, with near collisions.

    x_i'' = Σ_{j≠i} m_j (x_j − x_i) / |x_j − x_i|³ with m_i = i over (0, 3); the state is the seven
    x, the seven y, and their velocities in the same order. Energy and momentum are constant.

    Reference: hairer1993, II.10.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.pleiades()
        >>> case.y0.size, case.tspan
        (28, (0.0, 3.0))
    """
    return Case(
        name="pleiades",
        title="Pleiades: seven stars",
        field=_pleiades,
        y0=vector(
            *(3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0),
            *(3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0),
            *(0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5),
            *(0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0),
        ),
        tspan=(0.0, 3.0),
        source="hairer1993",
        invariants={"energy": _pleiades_energy, "momentum": _pleiades_momentum},
    )


def _arenstorf(t, y, args):
    x, z, vx, vz = y
    (mu,) = args
    rest = 1 - mu
    earth = rest / ((x + mu) ** 2 + z**2) ** 1.5
    moon = mu / ((x - rest) ** 2 + z**2) ** 1.5
    ax = x + 2 * vz - earth * (x + mu) - moon * (x - rest)
    az = z - 2 * vx - earth * z - moon * z
    return jnp.stack([vx, vz, ax, az])


def _jacobi_constant(t, y, args):
    x, z, vx, vz = y
    (mu,) = args
    rest = 1 - mu
    earth, moon = jnp.hypot(x + mu, z), jnp.hypot(x - rest, z)
    return x**2 + z**2 + 2 * rest / earth + 2 * mu / moon - vx**2 - vz**2


@register
def arenstorf() -> Case:
    """A satellite between earth and moon, once round its closed orbit of four loops.

    The restricted three-body problem in the rotating frame, μ = 0.012277471, from x = 0.994,
    y' = −2.0015851063790825 over one period, 17.065216560157963. The state is (x, y, x', y'). The
    orbit is closed, and the Jacobi constant is one. It is also unstable, millionfold: from these
    doubles the reference closes to 1e-10 and no better (`reference.amplification`); from all the
    digits that the book prints it closes to 5e-27 (`reference.agreement["closure"]`).

    Reference: hairer1993, II.0; arenstorf1963.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.arenstorf()
        >>> case.y0.size, case.tspan
        (4, (0.0, 17.065216560157964))
    """
    return Case(
        name="arenstorf",
        title="Arenstorf orbit, one period",
        field=_arenstorf,
        y0=vector(0.994, 0.0, 0.0, -2.00158510637908252240537862224),
        tspan=(0.0, 17.0652165601579625588917206249),
        args=vector(0.012277471),
        source="hairer1993",
        invariants={"Jacobi constant": _jacobi_constant},
    )


def _henon_heiles_kinetic(t, p, args):
    return jnp.sum(p**2) / 2


def _henon_heiles_potential(t, q, args):
    a, b = q
    return (a**2 + b**2) / 2 + a**2 * b - b**3 / 3


def _henon_heiles_energy(t, y, args):
    q, p = jnp.split(y, 2)
    return _henon_heiles_kinetic(t, p, args) + _henon_heiles_potential(t, q, args)


def _henon_heiles(t, y, args):
    a, b, pa, pb = y
    return jnp.stack([pa, pb, -a - 2 * a * b, -b - a**2 + b**2])


@register
def henon_heiles() -> Case:
    """A star in the meridian plane of a galaxy, in the chaotic regime.

    H = (p₁² + p₂²)/2 + (q₁² + q₂²)/2 + q₁² q₂ − q₂³/3, from q = (0, 0.1), p = (0.5, 0), of energy
    0.1297, over (0, 50). The state is (q₁, q₂, p₁, p₂); `hamiltonian_problem()` has (q, p).

    Reference: henon1964.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.henon_heiles()
        >>> case.y0.size, case.tspan
        (4, (0.0, 50.0))
    """
    return Case(
        name="henon_heiles",
        title="Hénon–Heiles",
        field=_henon_heiles,
        y0=vector(0.0, 0.1, 0.5, 0.0),
        tspan=(0.0, 50.0),
        source="henon1964",
        invariants={"energy": _henon_heiles_energy},
        hamiltonian=(_henon_heiles_kinetic, _henon_heiles_potential),
    )

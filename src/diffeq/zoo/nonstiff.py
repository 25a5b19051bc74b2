"""The non-stiff DETEST problems, classes A to E, unscaled, all over (0, 20).

Hull, Enright, Fellen and Sedgwick's collection of 1972, in the form that Enright and Pryce gave
it in 1987 (ACM Algorithm 648): A scalar equations, B small systems, C moderate systems, D orbits of
growing eccentricity, E equations of second order. Class F, with discontinuities, is not here: its
problems are tests of events, not of the solution of one smooth equation.

Reference: hull1972, enright1987.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from diffeq.zoo.case import Case, case, register, vector

_SPAN = (0.0, 20.0)


def detest(name: str) -> Case:
    """The DETEST problem of that name, "A1" to "E5".

    >>> import diffeq as de
    >>> de.zoo.detest("D5").title
    'DETEST D5: orbit of eccentricity 0.9'

    Raises:
        KeyError: there is no such problem.

    Reference: hull1972, enright1987.
    """
    return case(f"detest_{name.lower()}")


def _detest_case(name: str, title: str, field: Callable, *y0: float, **known) -> Case:
    """One problem: what is the same for all of them is said here."""
    return Case(
        name=f"detest_{name.lower()}",
        title=f"DETEST {name}: {title}",
        field=field,
        y0=vector(*y0),
        tspan=_SPAN,
        source="enright1987",
        **known,
    )


# Class A: scalar equations. The state is still a vector, of one component.


def _a1(t, y, args):
    return -y


@register
def detest_a1() -> Case:
    """Decay: y' = −y, y(0) = 1, so y = exp(−t). Reference: hull1972, enright1987."""
    return _detest_case("A1", "decay", _a1, 1.0, exact=lambda t: np.array([math.exp(-t)]))


def _a2(t, y, args):
    return -(y**3) / 2


@register
def detest_a2() -> Case:
    """A Riccati equation: y' = −y³/2, y(0) = 1, so y = 1/√(1 + t).

    Reference: hull1972, enright1987.
    """
    return _detest_case("A2", "Riccati", _a2, 1.0, exact=lambda t: np.array([1 / math.sqrt(1 + t)]))


def _a3(t, y, args):
    return y * jnp.cos(t)


@register
def detest_a3() -> Case:
    """An oscillation: y' = y cos t, y(0) = 1, so y = exp(sin t).

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        "A3", "oscillation", _a3, 1.0, exact=lambda t: np.array([math.exp(math.sin(t))])
    )


def _a4(t, y, args):
    return y * (1 - y / 20) / 4


@register
def detest_a4() -> Case:
    """The logistic curve: y' = y (1 − y/20)/4, y(0) = 1, so y = 20/(1 + 19 exp(−t/4)).

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        "A4", "logistic", _a4, 1.0, exact=lambda t: np.array([20 / (1 + 19 * math.exp(-t / 4))])
    )


def _a5(t, y, args):
    return (y - t) / (y + t)


def _a5_invariant(t, y, args):
    return jnp.log(t**2 + y[0] ** 2) / 2 + jnp.arctan2(y[0], t)


@register
def detest_a5() -> Case:
    """A spiral curve: y' = (y − t)/(y + t), y(0) = 4.

    With the polar angle θ of (t, y), log √(t² + y²) + θ is constant.

    Reference: hull1972, enright1987.
    """
    return _detest_case("A5", "spiral curve", _a5, 4.0, invariants={"spiral": _a5_invariant})


# Class B: small systems.


def _b1(t, y, args):
    u, v = y
    return jnp.stack([2 * (u - u * v), -(v - u * v)])


def _b1_invariant(t, y, args):
    u, v = y
    return u - jnp.log(u) + 2 * (v - jnp.log(v))


@register
def detest_b1() -> Case:
    """Two populations in conflict: u' = 2 (u − u v), v' = −(v − u v), from (1, 3).

    u − log u + 2 (v − log v) is constant.

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        "B1", "two populations", _b1, 1.0, 3.0, invariants={"first integral": _b1_invariant}
    )


def _b2(t, y, args):
    u, v, w = y
    return jnp.stack([v - u, u - 2 * v + w, v - w])


def _b2_exact(t):
    slow, fast = math.exp(-t) / 2, math.exp(-3 * t) / 2
    return np.array([1 + slow + fast, 1 - 2 * fast, 1 - slow + fast])


@register
def detest_b2() -> Case:
    """A linear reaction: u' = −u + v, v' = u − 2v + w, w' = v − w, from (2, 0, 1).

    y = (1, 1, 1) + exp(−t)/2 (1, 0, −1) + exp(−3t)/2 (1, −2, 1).

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        *("B2", "linear reaction", _b2, 2.0, 0.0, 1.0),
        exact=_b2_exact,
        invariants={"mass": lambda t, y, args: jnp.sum(y)},
    )


def _b3(t, y, args):
    u, v, _ = y
    return jnp.stack([-u, u - v**2, v**2])


@register
def detest_b3() -> Case:
    """A nonlinear reaction: u' = −u, v' = u − v², w' = v², from (1, 0, 0); u + v + w = 1.

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        *("B3", "nonlinear reaction", _b3, 1.0, 0.0, 0.0),
        invariants={"mass": lambda t, y, args: jnp.sum(y)},
    )


def _b4(t, y, args):
    u, v, w = y
    radius = jnp.sqrt(u**2 + v**2)
    return jnp.stack([-v - u * w / radius, u - v * w / radius, u / radius])


def _b4_exact(t):
    c, s = math.cos(t), math.sin(t)
    return np.array([(2 + c) * c, (2 + c) * s, s])


@register
def detest_b4() -> Case:
    """A curve on a torus: with r = √(u² + v²), u' = −v − u w/r, v' = u − v w/r, w' = u/r.

    From (3, 0, 0), y = ((2 + cos t) cos t, (2 + cos t) sin t, sin t).

    Reference: hull1972, enright1987.
    """
    return _detest_case("B4", "torus", _b4, 3.0, 0.0, 0.0, exact=_b4_exact)


def _b5(t, y, args):
    u, v, w = y
    return jnp.stack([v * w, -u * w, -0.51 * u * v])


@register
def detest_b5() -> Case:
    """Euler's rigid body without forces: u' = v w, v' = −u w, w' = −0.51 u v, from (0, 1, 1).

    y = (sn t, cn t, dn t), Jacobi's elliptic functions of the parameter m = 0.51.

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        *("B5", "rigid body", _b5, 0.0, 1.0, 1.0),
        invariants={
            "sn² + cn²": lambda t, y, args: y[0] ** 2 + y[1] ** 2,
            "m sn² + dn²": lambda t, y, args: 0.51 * y[0] ** 2 + y[2] ** 2,
        },
    )


# Class C: moderate systems.


def _unit_vector(n: int) -> list[float]:
    return [1.0] + [0.0] * (n - 1)


def _c1(t, y, args):
    flow = y.at[-1].set(0.0)
    return jnp.roll(flow, 1) - flow


def _c1_exact(t):
    decay = [math.exp(-t) * t**i / math.factorial(i) for i in range(9)]
    return np.array([*decay, 1 - math.fsum(decay)])


@register
def detest_c1() -> Case:
    """A chain of decays at the rate 1 to a stable end: ten equations, from (1, 0, … 0).

    y_i = exp(−t) t^(i−1)/(i−1)! for i ≤ 9, and y₁₀ is the rest.

    Reference: hull1972, enright1987.
    """
    return _detest_case("C1", "radioactive chain", _c1, *_unit_vector(10), exact=_c1_exact)


def _c2(t, y, args):
    rate = jnp.arange(1, 11, dtype=y.dtype).at[-1].set(0.0)
    flow = rate * y
    return jnp.roll(flow, 1) - flow


def _c2_exact(t):
    e = math.exp(-t)
    return np.array([*(e * (1 - e) ** i for i in range(9)), (1 - e) ** 9])


@register
def detest_c2() -> Case:
    """A chain of decays at the rates 1, 2, … 9: ten equations, from (1, 0, … 0).

    y_i = exp(−t) (1 − exp(−t))^(i−1) for i ≤ 9, and y₁₀ = (1 − exp(−t))⁹.

    Reference: hull1972, enright1987.
    """
    return _detest_case("C2", "another radioactive chain", _c2, *_unit_vector(10), exact=_c2_exact)


def _heat_equation(t, y, args):
    padded = jnp.pad(y, 1)
    return padded[:-2] - 2 * y + padded[2:]


def _heat_exact(n: int) -> Callable:
    """Sine modes; good to rounding of the largest component, so not for the far end of C4."""
    angle = np.arange(1, n + 1) * np.pi / (n + 1)
    modes = np.sin(np.outer(np.arange(1, n + 1), angle))
    return lambda t: modes @ (np.sin(angle) * np.exp(-4 * t * np.sin(angle / 2) ** 2)) * 2 / (n + 1)


@register
def detest_c3() -> Case:
    """Heat in a rod of 10 points: y_i' = y_(i−1) − 2 y_i + y_(i+1), cold ends, from (1, 0, … 0).

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        "C3", "heat, 10 points", _heat_equation, *_unit_vector(10), exact=_heat_exact(10)
    )


@register
def detest_c4() -> Case:
    """Heat in a rod of 51 points: C3, longer. Its far end is 1e-14 of the near one.

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        "C4", "heat, 51 points", _heat_equation, *_unit_vector(51), exact=_heat_exact(51)
    )


_SUN, _GRAVITY = 1.00000597682, 2.95912208286
_PLANETS = vector(
    0.954786104043e-3, 0.285583733151e-3, 0.437273164546e-4, 0.517759138449e-4, 0.277777777778e-5
)


def _c5(t, y, args):
    where, speed = y.reshape(2, 5, 3)
    mass = jnp.asarray(_PLANETS, y.dtype)
    eye = jnp.eye(5, dtype=y.dtype)
    gap = where[None, :, :] - where[:, None, :]
    square, mutual = jnp.sum(where**2, axis=-1), jnp.sum(gap**2, axis=-1) + eye
    sun = where / (square * jnp.sqrt(square))[:, None]
    near = gap / (mutual * jnp.sqrt(mutual))[:, :, None]
    others = mass * (1 - eye)  # of planet j on planet i; a planet is no other to itself
    pull = jnp.einsum("ij,ijk->ik", others, near) - others @ sun
    force = _GRAVITY * (pull - (_SUN + mass)[:, None] * sun)
    return jnp.concatenate([speed.ravel(), force.ravel()])


@register
def detest_c5() -> Case:
    """The five outer planets about the sun, in three dimensions: thirty equations.

    x_j'' = k² (−(m₀ + m_j) x_j/|x_j|³ + Σ_{k≠j} m_k ((x_k − x_j)/|x_k − x_j|³ − x_k/|x_k|³)), in
    astronomical units, solar masses and hundreds of days; the state is the five positions, then the
    five velocities. Jupiter, Saturn, Uranus, Neptune, Pluto.

    Reference: hull1972, enright1987.
    """
    return _detest_case(
        *("C5", "five planets", _c5),
        *(3.42947415189, 3.35386959711, 1.35494901715),
        *(6.64145542550, 5.97156957878, 2.18231499728),
        *(11.2630437207, 14.6952576794, 6.27960525067),
        *(-30.1552268759, 1.65699966404, 1.43785752721),
        *(-21.1238353380, 28.4465098142, 15.3882659679),
        *(-0.557160570446, 0.505696783289, 0.230578543901),
        *(-0.415570776342, 0.365682722812, 0.169143213293),
        *(-0.325325669158, 0.189706021964, 0.0877265322780),
        *(-0.0240476254170, -0.287659532608, -0.117219543175),
        *(-0.176860753121, -0.216393453025, -0.0148647893090),
    )


# Class D: one orbit, at five eccentricities.


def _kepler(t, y, args):
    x, z, vx, vz = y
    cube = (x**2 + z**2) ** 1.5
    return jnp.stack([vx, vz, -x / cube, -z / cube])


def _kepler_energy(t, y, args):
    x, z, vx, vz = y
    return (vx**2 + vz**2) / 2 - 1 / jnp.hypot(x, z)


def _kepler_moment(t, y, args):
    x, z, vx, vz = y
    return x * vz - z * vx


def _kepler_exact(e: float) -> Callable:
    """By Kepler's equation E − e sin E = t, solved by Newton's method from a start that is safe."""

    def exact(t):
        anomaly = t + e * math.sin(t) / (1 - math.sin(t + e) + math.sin(t))
        for _ in range(20):
            slope = 1 - e * math.cos(anomaly)
            anomaly -= (anomaly - e * math.sin(anomaly) - t) / slope
        c, s, root = math.cos(anomaly), math.sin(anomaly), math.sqrt(1 - e**2)
        rate = 1 / (1 - e * c)
        return np.array([c - e, root * s, -s * rate, root * c * rate])

    return exact


def _orbit(name: str, e: float) -> Case:
    return _detest_case(
        *(name, f"orbit of eccentricity {e}", _kepler),
        *(1 - e, 0.0, 0.0, math.sqrt((1 + e) / (1 - e))),
        exact=_kepler_exact(e),
        invariants={"energy": _kepler_energy, "angular momentum": _kepler_moment},
    )


@register
def detest_d1() -> Case:
    """Kepler's orbit x'' = −x/|x|³ of eccentricity e = 0.1, from its pericentre, three turns.

    The state is (x, y, x', y'), from (1 − e, 0, 0, √((1 + e)/(1 − e))).

    Reference: hull1972, enright1987.
    """
    return _orbit("D1", 0.1)


@register
def detest_d2() -> Case:
    """The orbit of D1 with the eccentricity 0.3. Reference: hull1972, enright1987."""
    return _orbit("D2", 0.3)


@register
def detest_d3() -> Case:
    """The orbit of D1 with the eccentricity 0.5. Reference: hull1972, enright1987."""
    return _orbit("D3", 0.5)


@register
def detest_d4() -> Case:
    """The orbit of D1 with the eccentricity 0.7. Reference: hull1972, enright1987."""
    return _orbit("D4", 0.7)


@register
def detest_d5() -> Case:
    """The orbit of D1 with the eccentricity 0.9. Reference: hull1972, enright1987."""
    return _orbit("D5", 0.9)


# Class E: equations of second order, as systems (y, y').


def _e1(t, y, args):
    u, v = y
    s = t + 1
    return jnp.stack([v, -(v / s + (1 - 0.25 / s**2) * u)])


def _e1_exact(t):
    s = t + 1
    size = math.sqrt(2 / (math.pi * s))
    return np.array([size * math.sin(s), size * (math.cos(s) - math.sin(s) / (2 * s))])


@register
def detest_e1() -> Case:
    """Bessel's equation of order ½ in t + 1: y'' = −y'/(t + 1) − (1 − ¼/(t + 1)²) y.

    y = J_½(t + 1) = √(2/π(t + 1)) sin(t + 1).

    Reference: hull1972, enright1987.
    """
    return _detest_case("E1", "Bessel", _e1, *_e1_exact(0.0), exact=_e1_exact)


def _e2(t, y, args):
    u, v = y
    return jnp.stack([v, (1 - u**2) * v - u])


@register
def detest_e2() -> Case:
    """Van der Pol's equation y'' = (1 − y²) y' − y, from (2, 0).

    Reference: hull1972, enright1987.
    """
    return _detest_case("E2", "van der Pol, μ = 1", _e2, 2.0, 0.0)


def _e3(t, y, args):
    u, v = y
    return jnp.stack([v, u**3 / 6 - u + 2 * jnp.sin(2.78535 * t)])


@register
def detest_e3() -> Case:
    """Duffing's equation y'' = y³/6 − y + 2 sin(2.78535 t), from (0, 0).

    Reference: hull1972, enright1987.
    """
    return _detest_case("E3", "Duffing, forced", _e3, 0.0, 0.0)


def _e4(t, y, args):
    v = y[1]
    return jnp.stack([v, 0.032 - 0.4 * v**2])


def _e4_exact(t):
    rate = math.sqrt(0.032 * 0.4)
    speed = math.sqrt(0.032 / 0.4) * math.tanh(rate * t)
    return np.array([30 + math.log(math.cosh(rate * t)) / 0.4, speed])


@register
def detest_e4() -> Case:
    """A fall in a resisting medium: y'' = 0.032 − 0.4 y'², from (30, 0).

    y = 30 + log cosh(ct)/0.4 with c² = 0.032 · 0.4.

    Reference: hull1972, enright1987.
    """
    return _detest_case("E4", "falling body", _e4, 30.0, 0.0, exact=_e4_exact)


def _e5(t, y, args):
    v = y[1]
    return jnp.stack([v, jnp.sqrt(1 + v**2) / (25 - t)])


def _e5_exact(t):
    s = 25 / (25 - t)
    return np.array([(25 * math.log(s) - t + t**2 / 50) / 2, (s - 1 / s) / 2])


@register
def detest_e5() -> Case:
    """A linear pursuit: y'' = √(1 + y'²)/(25 − t), from (0, 0).

    With s = 25/(25 − t): y = (25 log s − t + t²/50)/2, y' = (s − 1/s)/2.

    Reference: hull1972, enright1987.
    """
    return _detest_case("E5", "linear pursuit", _e5, 0.0, 0.0, exact=_e5_exact)

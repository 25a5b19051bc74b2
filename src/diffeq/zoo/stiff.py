"""Stiff problems that every text integrates: reaction kinetics, and a relaxation oscillation.

Their references come from an implicit method in 40 digits (`tools/zoo_stiff_references.py`), and
agree with the states that the IVP test set publishes.
"""

import jax.numpy as jnp

from diffeq.zoo.case import Case, register, vector


def _robertson(t, y, args):
    a, b, c = y
    k1, k2, k3 = args
    slow, back, fast = k1 * a, k3 * b * c, k2 * b * b
    return jnp.stack([back - slow, slow - back - fast, fast])


def _mass(t, y, args):
    return jnp.sum(y)


def _robertson_to(t1, name, title):
    return Case(
        name=name,
        title=title,
        field=_robertson,
        y0=vector(1.0, 0.0, 0.0),
        tspan=(0.0, t1),
        args=vector(0.04, 3e7, 1e4),
        source="robertson1966",
        invariants={"mass": _mass},
        stiff=True,
    )


@register
def robertson() -> Case:
    """An autocatalytic reaction, the smallest problem that is very stiff.

    a' = −k1 a + k3 b c, b' = k1 a − k3 b c − k2 b², c' = k2 b², with (k1, k2, k3) = (0.04, 3·10⁷,
    10⁴) from (1, 0, 0) over (0, 10⁵). a + b + c is constant.

    Reference: robertson1966; hairer1996, IV.1.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.robertson()
        >>> case.y0.size, case.tspan
        (3, (0.0, 100000.0))
    """
    return _robertson_to(1e5, "robertson", "Robertson's reaction, to 10⁵")


@register
def robertson_long() -> Case:
    """`robertson` to 10¹¹, where a step is longer than all that came before.

    Reference: robertson1966; mazzia2008.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.robertson_long()
        >>> case.y0.size, case.tspan
        (3, (0.0, 100000000000.0))
    """
    return _robertson_to(1e11, "robertson_long", "Robertson's reaction, to 10¹¹")


def _van_der_pol_stiff(t, y, args):
    x, v = y
    return jnp.stack([v, args[0] * (v - x**2 * v) - x])


@register
def van_der_pol_stiff() -> Case:
    """Van der Pol's oscillator for μ = 1000: slow along two branches, with jumps between them.

    x'' = μ (1 − x²) x' − x from (2, 0) over (0, 2000), two jumps.

    Reference: hairer1996, IV.10; mazzia2008.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.van_der_pol_stiff()
        >>> case.y0.size, case.tspan
        (2, (0.0, 2000.0))
    """
    return Case(
        name="van_der_pol_stiff",
        title="van der Pol, μ = 1000",
        field=_van_der_pol_stiff,
        y0=vector(2.0, 0.0),
        tspan=(0.0, 2000.0),
        args=vector(1000.0),
        source="hairer1996",
        stiff=True,
    )


def _oregonator(t, y, args):
    a, b, c = y
    s, q, w = args
    return jnp.stack([s * (b + a * (1 - q * a - b)), (c - (1 + a) * b) / s, w * (a - c)])


@register
def oregonator() -> Case:
    """OREGO: the Belousov–Zhabotinskii reaction, a limit cycle over six orders of magnitude.

    a' = s (b + a (1 − q a − b)), b' = (c − (1 + a) b) / s, c' = w (a − c), with (s, q, w) = (77.27,
    8.375·10⁻⁶, 0.161) from (1, 2, 3) over (0, 360).

    Reference: field1974; hairer1996, IV.10.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.oregonator()
        >>> case.y0.size, case.tspan
        (3, (0.0, 360.0))
    """
    return Case(
        name="oregonator",
        title="OREGO, the Oregonator",
        field=_oregonator,
        y0=vector(1.0, 2.0, 3.0),
        tspan=(0.0, 360.0),
        args=vector(77.27, 8.375e-6, 0.161),
        source="field1974",
        stiff=True,
    )


def _hires(t, y, args):
    a, b, c, d, e, f, g, h = y
    pair = 280.0 * f * h
    return jnp.stack([
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * f + 0.43 * g,
        -pair + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
        pair - 1.81 * g,
        -pair + 1.81 * g,
    ])  # fmt: skip


@register
def hires() -> Case:
    """HIRES: how light steers the growth of plants, eight reactants.

    y' = linear terms and one reaction of second order, from (1, 0, …, 0, 0.0057) over (0,
    321.8122).

    Reference: schaefer1975; hairer1996, IV.10.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.hires()
        >>> case.y0.size, case.tspan
        (8, (0.0, 321.8122))
    """
    return Case(
        name="hires",
        title="HIRES, high irradiance responses",
        field=_hires,
        y0=vector(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057),
        tspan=(0.0, 321.8122),
        source="schaefer1975",
        stiff=True,
    )


_RATES = (
    0.35, 26.6, 1.23e4, 8.6e-4, 8.2e-4, 1.5e4, 1.3e-4, 2.4e4, 1.65e4, 9e3, 0.022, 1.2e4, 1.88,
    1.63e4, 4.8e6, 3.5e-4, 0.0175, 1e8, 4.44e11, 1240.0, 2.1, 5.78, 0.0474, 1780.0, 3.12,
)  # fmt: skip


def _pollution(t, y, args):
    k, y = [0.0, *args], [0.0, *y]  # numbered from 1, as in the paper
    r1, r2, r3 = k[1] * y[1], k[2] * y[2] * y[4], k[3] * y[5] * y[2]
    r4, r5, r6 = k[4] * y[7], k[5] * y[7], k[6] * y[7] * y[6]
    r7, r8, r9 = k[7] * y[9], k[8] * y[9] * y[6], k[9] * y[11] * y[2]
    r10, r11, r12 = k[10] * y[11] * y[1], k[11] * y[13], k[12] * y[10] * y[2]
    r13, r14, r15 = k[13] * y[14], k[14] * y[1] * y[6], k[15] * y[3]
    r16, r17, r18, r19 = k[16] * y[4], k[17] * y[4], k[18] * y[16], k[19] * y[16]
    r20, r21, r22 = k[20] * y[17] * y[6], k[21] * y[19], k[22] * y[19]
    r23, r24, r25 = k[23] * y[1] * y[4], k[24] * y[19] * y[1], k[25] * y[20]
    return jnp.stack(
        [
            -r1 - r10 - r14 - r23 - r24 + r2 + r3 + r9 + r11 + r12 + r22 + r25,
            -r2 - r3 - r9 - r12 + r1 + r21,
            -r15 + r1 + r17 + r19 + r22,
            -r2 - r16 - r17 - r23 + r15,
            -r3 + 2 * r4 + r6 + r7 + r13 + r20,
            -r6 - r8 - r14 - r20 + r3 + 2 * r18,
            -r4 - r5 - r6 + r13,
            r4 + r5 + r6 + r7,
            -r7 - r8,
            -r12 + r7 + r9,
            -r9 - r10 + r8 + r11,
            r9,
            -r11 + r10,
            -r13 + r12,
            r14,
            -r18 - r19 + r16,
            -r20,
            r20,
            -r21 - r22 - r24 + r23 + r25,
            -r25 + r24,
        ]
    )


@register
def pollution() -> Case:
    """POLLU: air chemistry, 20 species in 25 reactions with rates from 10⁻⁴ to 10¹¹.

    Reference: verwer1994; mazzia2008.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.pollution()
        >>> case.y0.size, case.tspan
        (20, (0.0, 60.0))
    """
    start = {2: 0.2, 4: 0.04, 7: 0.1, 8: 0.3, 9: 0.01, 17: 0.007}
    return Case(
        name="pollution",
        title="POLLU, air pollution",
        field=_pollution,
        y0=vector(*(start.get(i, 0.0) for i in range(1, 21))),
        tspan=(0.0, 60.0),
        args=vector(*_RATES),
        source="verwer1994",
        stiff=True,
    )

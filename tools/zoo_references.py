"""Compute the reference solutions of `diffeq.zoo` and write them to `references.json`.

    python tools/zoo_references.py

Run by hand, from anywhere; a minute on one core. It needs numpy, scipy and mpmath, and
neither JAX nor diffeq: a reference that shares code with what it checks proves nothing. For the
same reason the right-hand sides are written here a second time, in scalar arithmetic: a slip of
the pen in one of the two shows as a disagreement in `tests/zoo`.

The method is the Taylor series of the solution itself, by recurrence (automatic differentiation
in t), in decimal arithmetic of 45 digits, with the step chosen as by Jorba and Zou (2005) from
the last two coefficients. Three things are compared with it, and their distance is stored:

* a second Taylor run, of another order, tolerance and precision;
* scipy's DOP853 at rtol = 1e-13, in double precision;
* the analytic solution, evaluated by mpmath, for the problems that have one.

Inputs are doubles. y0, args, times and the constants of a field are taken as the exact values of
the doubles that a float64 solver sees: otherwise the rounding of 8/3, amplified by the Lorenz
equations, would look like the solver's error. How much a problem amplifies is stored too, so that
a test can ask for what is possible.
"""

import json
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, getcontext, localcontext
from pathlib import Path

import mpmath
import numpy as np
from scipy.integrate import solve_ivp

OUTPUT = Path(__file__).parents[1] / "src" / "diffeq" / "zoo" / "references.json"
DATE = "2026-11-23"  # by hand, so that two runs write the same file

FINE = {"order": 34, "tol": 1e-30, "digits": 45}
METHOD = "Taylor series, order {order}, tolerance {tol:g}, {digits} decimal digits".format(**FINE)
COARSE = {"order": 27, "tol": 1e-25, "digits": 38}


# --- truncated power series in t, one coefficient at a time ---------------------------------------


class Series:
    """A node of the expression graph: its coefficients up to the order reached so far."""

    tape: list["Series"] = []  # noqa: RUF012  one graph at a time, in order of creation

    def __init__(self, *inputs: "Series", const: Decimal | None = None):
        self.inputs, self.const = inputs, const
        self.c: list[Decimal] = []
        Series.tape.append(self)

    def coefficient(self, k: int) -> Decimal:
        """The coefficient of t^k, when all inputs know theirs."""
        raise NotImplementedError

    def __add__(self, other):
        if isinstance(other, Series):
            return Sum(self, other)
        return self if other == 0 else Shift(self, const=Decimal(other))

    def __mul__(self, other):
        if isinstance(other, Series):
            return Product(self, other)
        return Scale(self, const=Decimal(other))

    def __truediv__(self, other):
        if isinstance(other, Series):
            return Quotient(self, other)
        return Scale(self, const=1 / Decimal(other))

    def __rtruediv__(self, other):
        return Power(self, const=Decimal(-1)) * other

    def __pow__(self, exponent):
        if exponent == 2:
            return Product(self, self)
        if exponent == 3:
            return Product(Product(self, self), self)
        return Power(self, const=Decimal(exponent))

    def __neg__(self):
        return Scale(self, const=Decimal(-1))

    def __sub__(self, other):
        return self + (-other)

    def __rsub__(self, other):
        return (-self) + other

    __radd__ = __add__
    __rmul__ = __mul__


class Free(Series):
    """A state component or time: its coefficients are put there from outside."""


class Sum(Series):
    def coefficient(self, k):
        return self.inputs[0].c[k] + self.inputs[1].c[k]


class Shift(Series):
    def coefficient(self, k):
        return self.inputs[0].c[k] + (self.const if k == 0 else 0)


class Scale(Series):
    def coefficient(self, k):
        return self.inputs[0].c[k] * self.const


class Product(Series):
    def coefficient(self, k):
        a, b = self.inputs[0].c, self.inputs[1].c
        if a is not b:
            return sum(map(operator.mul, a, reversed(b)))
        half = (k + 1) // 2  # a square: every pair twice, and the middle once
        pairs = 2 * sum(map(operator.mul, a[:half], reversed(a)), Decimal(0))
        return pairs + (a[half] * a[half] if k % 2 == 0 else 0)


class Quotient(Series):
    def coefficient(self, k):
        a, b = self.inputs[0].c, self.inputs[1].c
        return (a[k] - sum(map(operator.mul, self.c, reversed(b[1:])))) / b[0]


class Power(Series):
    """u^r: k u0 p_k = sum over j < k of (r (k - j) - j) u_(k-j) p_j, from u p' = r u' p."""

    def coefficient(self, k):
        u, r = self.inputs[0].c, self.const
        if k == 0:
            return u[0].sqrt() if r == Decimal("0.5") else u[0] ** r
        weighted = ((r * (k - j) - j) * p for j, p in enumerate(self.c))
        return sum(map(operator.mul, weighted, reversed(u[1:]))) / (k * u[0])


class Sine(Series):
    """sin u, with its cosine: s' = c u', c' = -s u'."""

    def coefficient(self, k):
        u = self.inputs[0].c
        if k == 0:
            with mpmath.workdps(getcontext().prec + 5):
                sine, cosine = mpmath.sin(_mpf(u[0])), mpmath.cos(_mpf(u[0]))
                self.cos = [Decimal(mpmath.nstr(cosine, getcontext().prec + 3))]
                return Decimal(mpmath.nstr(sine, getcontext().prec + 3))
        slope = [j * u[j] for j in range(1, k + 1)]
        self.cos.append(-sum(map(operator.mul, slope, reversed(self.c))) / k)
        return sum(map(operator.mul, slope, reversed(self.cos[:k]))) / k


class Cosine(Series):
    """The cosine that a `Sine` has computed along the way."""

    def coefficient(self, k):
        return self.inputs[0].cos[k]


def _mpf(x: Decimal) -> mpmath.mpf:
    return mpmath.mpf(str(x))


def sin(x):
    """The sine of a series, a number or an array."""
    return Sine(x) if isinstance(x, Series) else np.sin(x)


def cos(x):
    """The cosine of a series, a number or an array."""
    return Cosine(Sine(x)) if isinstance(x, Series) else np.cos(x)


# --- the integrator -------------------------------------------------------------------------------


class Graph:
    """The expressions of a field, built once, and refilled with numbers at every step."""

    def __init__(self, field: Callable, n: int, args: tuple):
        Series.tape = []
        self.time, self.state = Free(), [Free() for _ in range(n)]
        self.slopes = field(self.time, self.state, args)
        self.inner = [node for node in Series.tape if not isinstance(node, Free)]

    def expand(self, t: Decimal, y: list[Decimal], order: int) -> None:
        """Fill in the coefficients of the solution through (t, y), up to the order."""
        self.time.c = [t, Decimal(1)] + [Decimal(0)] * order
        for component, value in zip(self.state, y, strict=True):
            component.c = [value]
        for node in self.inner:
            node.c = []
        for k in range(order):
            for node in self.inner:
                node.c.append(node.coefficient(k))
            for component, slope in zip(self.state, self.slopes, strict=True):
                component.c.append(slope.c[k] / (k + 1))


def taylor_steps(graph: Graph, t: Decimal, y: list, ts: list, *, order: int, tol: float):
    """Yield the state at each of ts, and at last the number of steps."""
    steps = 0
    for target in ts:
        while t != target:
            graph.expand(t, y, order)
            h = min(Decimal(_step_size(graph.state, order, tol)), target - t)
            y = [_horner(component.c, h) for component in graph.state]
            t = target if h == target - t else t + h
            steps += 1
        yield y
    yield steps


def _step_size(state, order, tol) -> float:
    """Jorba and Zou: the step at which each of the last two terms is tol of the state."""
    terms = [max(abs(float(component.c[m])) for component in state) for m in range(order + 1)]
    size = next(term for term in terms if term > 0)  # of the slope, where the state is zero
    return 0.95 * min((tol * size / terms[m]) ** (1 / m) for m in (order - 1, order))


def _horner(coefficients, h):
    total = Decimal(0)
    for c in reversed(coefficients):
        total = total * h + c
    return total


def taylor(problem: "Problem", ts: list[float], *, order: int, tol: float, digits: int):
    """States at ts, as Decimals, and the number of steps."""
    with localcontext() as context:
        context.prec = digits
        graph = Graph(problem.field, len(problem.y0), problem.args)
        start, y0 = Decimal(problem.t0), [Decimal(v) for v in problem.y0]
        times = [Decimal(t) for t in ts]
        *states, steps = taylor_steps(graph, start, y0, times, order=order, tol=tol)
        return states, steps


# --- the problems, a second time ------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One entry: `field(t, y, args)` works on floats, numpy arrays and `Series` alike."""

    name: str
    field: Callable
    y0: list[float]
    t1: float
    args: tuple[float, ...] = ()
    exact: Callable | None = None  # (t, mpmath number) -> list of mpmath numbers
    t0: float = 0.0
    max_step: float = math.inf  # of DOP853, where stability and not accuracy bounds its step


def lotka_volterra(t, y, args):
    a, b, c, d = args
    return [y[0] * (a - b * y[1]), y[1] * (d * y[0] - c)]


def spiral(t, y, args):
    decay, turn = args
    x, z = y[0] ** 3, y[1] ** 3
    return [-decay * x - turn * z, turn * x - decay * z]


def lorenz(t, y, args):
    sigma, rho, beta = args
    return [sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]]


def van_der_pol(t, y, args):
    return [y[1], args[0] * (y[1] - y[0] ** 2 * y[1]) - y[0]]


def brusselator(t, y, args):
    a, b = args
    reaction = y[0] ** 2 * y[1]
    return [a + reaction - (b + 1) * y[0], b * y[0] - reaction]


def brusselator_diffusion(t, y, args):
    a, b, alpha = args
    n = len(y) // 2
    u, v = [1.0, *y[:n], 1.0], [3.0, *y[n:], 3.0]
    scale = alpha * (n + 1) ** 2
    du, dv = [], []
    for i in range(1, n + 1):
        reaction = u[i] ** 2 * v[i]
        du.append(a + reaction - (b + 1) * u[i] + scale * (u[i - 1] - 2 * u[i] + u[i + 1]))
        dv.append(b * u[i] - reaction + scale * (v[i - 1] - 2 * v[i] + v[i + 1]))
    return du + dv


def pleiades(t, y, args):
    x, z = y[:7], y[7:14]
    ax, az = [0.0] * 7, [0.0] * 7
    for i in range(7):
        for j in range(i):
            dx, dz = x[j] - x[i], z[j] - z[i]
            cube = (dx**2 + dz**2) ** -1.5
            fx, fz = dx * cube, dz * cube
            ax[i], az[i] = ax[i] + (j + 1) * fx, az[i] + (j + 1) * fz
            ax[j], az[j] = ax[j] - (i + 1) * fx, az[j] - (i + 1) * fz
    return [*y[14:], *ax, *az]


def arenstorf(t, y, args):
    mu = args[0]
    x, z, vx, vz = y
    earth = (1 - mu) * ((x + mu) ** 2 + z**2) ** -1.5
    moon = mu * ((x - (1 - mu)) ** 2 + z**2) ** -1.5
    return [
        vx,
        vz,
        x + 2 * vz - earth * (x + mu) - moon * (x - (1 - mu)),
        z - 2 * vx - (earth + moon) * z,
    ]


def henon_heiles(t, y, args):
    a, b, pa, pb = y
    return [pa, pb, -a - 2 * (a * b), -b - a**2 + b**2]


def kepler(t, y, args):
    cube = (y[0] ** 2 + y[1] ** 2) ** -1.5
    return [y[2], y[3], -y[0] * cube, -y[1] * cube]


def a1(t, y, args):
    return [-y[0]]


def a2(t, y, args):
    return [-(y[0] ** 3) / 2]


def a3(t, y, args):
    return [y[0] * cos(t)]


def a4(t, y, args):
    return [y[0] * (1 - y[0] / 20) / 4]


def a5(t, y, args):
    return [(y[0] - t) / (y[0] + t)]


def b1(t, y, args):
    return [2 * (y[0] - y[0] * y[1]), y[0] * y[1] - y[1]]


def b2(t, y, args):
    return [y[1] - y[0], y[0] - 2 * y[1] + y[2], y[1] - y[2]]


def b3(t, y, args):
    return [-y[0], y[0] - y[1] ** 2, y[1] ** 2]


def b4(t, y, args):
    turn = (y[0] ** 2 + y[1] ** 2) ** -0.5
    return [-y[1] - y[0] * y[2] * turn, y[0] - y[1] * y[2] * turn, y[0] * turn]


def b5(t, y, args):
    return [y[1] * y[2], -(y[0] * y[2]), -0.51 * (y[0] * y[1])]


def c1(t, y, args):
    return [-y[0], *(y[i - 1] - y[i] for i in range(1, 9)), y[8]]


def c2(t, y, args):
    return [-y[0], *(i * y[i - 1] - (i + 1) * y[i] for i in range(1, 9)), 9 * y[8]]


def chain(t, y, args):
    padded = [0, *y, 0]
    return [padded[i - 1] - 2 * padded[i] + padded[i + 1] for i in range(1, len(y) + 1)]


# fmt: off
PLANETS = [
    0.954786104043e-3, 0.285583733151e-3, 0.437273164546e-4, 0.517759138449e-4, 0.277777777778e-5,
]
# fmt: on
SUN, GRAVITY = 1.00000597682, 2.95912208286


def c5(t, y, args):
    where = [y[3 * j : 3 * j + 3] for j in range(5)]
    cube = [(p[0] ** 2 + p[1] ** 2 + p[2] ** 2) ** -1.5 for p in where]
    force = [
        [-(SUN + PLANETS[j]) * (p[i] * cube[j]) for i in range(3)] for j, p in enumerate(where)
    ]
    for j in range(5):
        for k in range(5):
            if k == j:
                continue
            gap = [where[k][i] - where[j][i] for i in range(3)]
            near = (gap[0] ** 2 + gap[1] ** 2 + gap[2] ** 2) ** -1.5
            for i in range(3):
                pull = gap[i] * near - where[k][i] * cube[k]
                force[j][i] = force[j][i] + PLANETS[k] * pull
    return [*y[15:], *(GRAVITY * f for planet in force for f in planet)]


def e1(t, y, args):
    s = t + 1
    return [y[1], -(y[1] / s) - y[0] + 0.25 * y[0] / s**2]


def e3(t, y, args):
    return [y[1], y[0] ** 3 / 6 - y[0] + 2 * sin(2.78535 * t)]


def e4(t, y, args):
    return [y[1], 0.032 - 0.4 * y[1] ** 2]


def e5(t, y, args):
    return [y[1], (1 + y[1] ** 2) ** 0.5 / (25 - t)]


# --- analytic solutions, in mpmath ----------------------------------------------------------------


def exact_b2(t):
    one, three = mpmath.exp(-t) / 2, mpmath.exp(-3 * t) / 2
    return [1 + one + three, 1 - 2 * three, 1 - one + three]


def exact_b4(t):
    c, s = mpmath.cos(t), mpmath.sin(t)
    return [(2 + c) * c, (2 + c) * s, s]


def exact_b5(t):
    return [mpmath.ellipfun(kind, t, m=mpmath.mpf(0.51)) for kind in ("sn", "cn", "dn")]


def exact_c1(t):
    decay = [mpmath.exp(-t) * t**i / mpmath.factorial(i) for i in range(9)]
    return [*decay, 1 - sum(decay)]


def exact_c2(t):
    e = mpmath.exp(-t)
    return [*(e * (1 - e) ** i for i in range(9)), (1 - e) ** 9]


def exact_chain(n):
    def exact(t):
        angle = [k * mpmath.pi / (n + 1) for k in range(1, n + 1)]
        weight = [mpmath.sin(a) * mpmath.exp(-2 * t * (1 - mpmath.cos(a))) for a in angle]
        return [
            2 * sum(w * mpmath.sin(j * a) for w, a in zip(weight, angle, strict=True)) / (n + 1)
            for j in range(1, n + 1)
        ]

    return exact


def exact_kepler(e):
    e = mpmath.mpf(e)

    def exact(t):
        anomaly = mpmath.findroot(lambda x: x - e * mpmath.sin(x) - t, t)
        c, s, root = mpmath.cos(anomaly), mpmath.sin(anomaly), mpmath.sqrt(1 - e * e)
        rate = 1 / (1 - e * c)
        return [c - e, root * s, -s * rate, root * c * rate]

    return exact


def exact_e1(t):
    s = t + 1
    y = mpmath.sqrt(2 / (mpmath.pi * s)) * mpmath.sin(s)
    return [y, mpmath.sqrt(2 / (mpmath.pi * s)) * mpmath.cos(s) - y / (2 * s)]


def exact_e4(t):
    root = mpmath.sqrt(mpmath.mpf("0.0128"))
    speed = mpmath.sqrt(mpmath.mpf("0.08"))
    return [
        30 + mpmath.log(mpmath.cosh(root * t)) * mpmath.mpf("2.5"),
        speed * mpmath.tanh(root * t),
    ]


def exact_e5(t):
    s = 25 / (25 - t)
    return [(25 * mpmath.log(s) - t + t * t / 50) / 2, (s - 1 / s) / 2]


# --- the list -------------------------------------------------------------------------------------

ARENSTORF_SPEED = "-2.00158510637908252240537862224"
ARENSTORF_PERIOD = "17.0652165601579625588917206249"

# fmt: off
PLEIADES_Y0 = [
    3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0,
    3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0,
    0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5,
    0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0,
]
C5_Y0 = [
    3.42947415189, 3.35386959711, 1.35494901715,
    6.64145542550, 5.97156957878, 2.18231499728,
    11.2630437207, 14.6952576794, 6.27960525067,
    -30.1552268759, 1.65699966404, 1.43785752721,
    -21.1238353380, 28.4465098142, 15.3882659679,
    -0.557160570446, 0.505696783289, 0.230578543901,
    -0.415570776342, 0.365682722812, 0.169143213293,
    -0.325325669158, 0.189706021964, 0.0877265322780,
    -0.0240476254170, -0.287659532608, -0.117219543175,
    -0.176860753121, -0.216393453025, -0.0148647893090,
]
# fmt: on


def _bump(n: int) -> list[float]:
    """The start of the diffusing Brusselator: u = 1 + sin 2 pi x, v = 3, on n inner points."""
    return [1 + math.sin(2 * math.pi * i / (n + 1)) for i in range(1, n + 1)] + [3.0] * n


def _unit(n: int) -> list[float]:
    return [1.0] + [0.0] * (n - 1)


def _ellipse(e: float) -> list[float]:
    return [1 - e, 0.0, 0.0, math.sqrt((1 + e) / (1 - e))]


def problems() -> Iterator[Problem]:
    """Every problem of the zoo, under the name that it has there."""
    root = math.sqrt(2 / math.pi)
    bessel = [root * math.sin(1.0), root * (math.cos(1.0) - math.sin(1.0) / 2)]
    yield Problem("lotka_volterra", lotka_volterra, [1.0, 1.0], 10.0, (1.5, 1.0, 3.0, 1.0))
    yield Problem("spiral", spiral, [2.0, 0.0], 1.5, (0.1, 2.0))
    yield Problem("lorenz", lorenz, [1.0, 0.0, 0.0], 10.0, (10.0, 28.0, 8 / 3))
    yield Problem("van_der_pol", van_der_pol, [2.0, 0.0], 20.0, (5.0,))
    yield Problem("brusselator", brusselator, [1.5, 3.0], 20.0, (1.0, 3.0))
    heat = (1.0, 3.0, 0.02)
    yield Problem(
        "brusselator_diffusion", brusselator_diffusion, _bump(40), 10.0, heat, max_step=0.01
    )
    yield Problem("pleiades", pleiades, PLEIADES_Y0, 3.0)
    start = [0.994, 0.0, 0.0, float(ARENSTORF_SPEED)]
    yield Problem("arenstorf", arenstorf, start, float(ARENSTORF_PERIOD), (0.012277471,))
    yield Problem("henon_heiles", henon_heiles, [0.0, 0.1, 0.5, 0.0], 50.0)

    yield Problem("detest_a1", a1, [1.0], 20.0, exact=lambda t: [mpmath.exp(-t)])
    yield Problem("detest_a2", a2, [1.0], 20.0, exact=lambda t: [1 / mpmath.sqrt(1 + t)])
    yield Problem("detest_a3", a3, [1.0], 20.0, exact=lambda t: [mpmath.exp(mpmath.sin(t))])
    yield Problem(
        "detest_a4", a4, [1.0], 20.0, exact=lambda t: [20 / (1 + 19 * mpmath.exp(-t / 4))]
    )
    yield Problem("detest_a5", a5, [4.0], 20.0)
    yield Problem("detest_b1", b1, [1.0, 3.0], 20.0)
    yield Problem("detest_b2", b2, [2.0, 0.0, 1.0], 20.0, exact=exact_b2)
    yield Problem("detest_b3", b3, [1.0, 0.0, 0.0], 20.0)
    yield Problem("detest_b4", b4, [3.0, 0.0, 0.0], 20.0, exact=exact_b4)
    yield Problem("detest_b5", b5, [0.0, 1.0, 1.0], 20.0, exact=exact_b5)
    yield Problem("detest_c1", c1, _unit(10), 20.0, exact=exact_c1)
    yield Problem("detest_c2", c2, _unit(10), 20.0, exact=exact_c2)
    yield Problem("detest_c3", chain, _unit(10), 20.0, exact=exact_chain(10))
    yield Problem("detest_c4", chain, _unit(51), 20.0, exact=exact_chain(51))
    yield Problem("detest_c5", c5, C5_Y0, 20.0)
    for number, e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=1):
        yield Problem(f"detest_d{number}", kepler, _ellipse(e), 20.0, exact=exact_kepler(e))
    yield Problem("detest_e1", e1, bessel, 20.0, exact=exact_e1)
    yield Problem("detest_e2", van_der_pol, [2.0, 0.0], 20.0, (1.0,))
    yield Problem("detest_e3", e3, [0.0, 0.0], 20.0)
    yield Problem("detest_e4", e4, [30.0, 0.0], 20.0, exact=exact_e4)
    yield Problem("detest_e5", e5, [0.0, 0.0], 20.0, exact=exact_e5)


# --- comparisons ----------------------------------------------------------------------------------


def distance(ys, others) -> float:
    """The largest difference, relative to the largest component at the same time."""

    def row(y, other):
        gap = max(abs(float(a - Decimal(b))) for a, b in zip(y, other, strict=True))
        return gap / max(abs(float(a)) for a in y)

    with localcontext() as context:
        context.prec = FINE["digits"]
        return max(row(y, other) for y, other in zip(ys, others, strict=True))


def dop853(problem: Problem, ts: list[float]) -> list[list[float]]:
    """The same problem in double precision, with scipy."""
    solution = solve_ivp(
        lambda t, y: np.array(problem.field(t, y, problem.args), dtype=float),
        (problem.t0, problem.t1),
        problem.y0,
        method="DOP853",
        t_eval=ts,
        rtol=1e-13,
        atol=1e-20,
        max_step=problem.max_step,
    )
    return solution.y.T.tolist()


def amplification(problem: Problem) -> float:
    """The maximum norm of d y(t1) / d y0, by central differences, all columns as one system."""
    n, delta = len(problem.y0), 1e-7
    lanes = np.array(problem.y0)[:, None] + delta * np.hstack([np.eye(n), -np.eye(n)])

    def slope(t, flat):
        rows = problem.field(t, list(flat.reshape(n, 2 * n)), problem.args)
        return np.array([np.broadcast_to(row, 2 * n) for row in rows]).ravel()

    span = (problem.t0, problem.t1)
    solution = solve_ivp(slope, span, lanes.ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    end = solution.y[:, -1].reshape(n, 2, n)
    jacobian = (end[:, 0] - end[:, 1]) / (2 * delta)
    return float(np.abs(jacobian).sum(axis=1).max())


def analytic(problem: Problem, ts: list[float]) -> list[list[Decimal]]:
    """The analytic solution to 40 digits."""
    with mpmath.workdps(40):
        rows = [problem.exact(mpmath.mpf(t)) for t in ts]
        return [[Decimal(mpmath.nstr(mpmath.mpf(v), 38)) for v in row] for row in rows]


def closure() -> float:
    """How far the Arenstorf orbit is from closed, with all the digits that the book prints."""
    start = [Decimal("0.994"), Decimal(0), Decimal(0), Decimal(ARENSTORF_SPEED)]
    mu = (Decimal("0.012277471"),)
    printed = Problem("printed", arenstorf, start, ARENSTORF_PERIOD, mu)
    (end,), _ = taylor(printed, [printed.t1], **FINE)
    return max(abs(float(a - b)) for a, b in zip(start, end, strict=True))


def _rounded(x: float) -> float:
    """Two figures: enough for an error, and the same on every machine."""
    return float(f"{x:.1e}")


def entry(problem: Problem) -> dict:
    """All that is stored of one problem."""
    span = problem.t1 - problem.t0
    ts = [problem.t0 + span * k / 4 for k in (1, 2, 3)] + [problem.t1]
    ys, steps = taylor(problem, ts, **FINE)
    second, _ = taylor(problem, ts, **COARSE)
    agreement = {"taylor": distance(ys, second), "dop853": distance(ys, dop853(problem, ts))}
    if problem.exact:
        agreement["exact"] = distance(ys, analytic(problem, ts))
    if problem.name == "arenstorf":
        agreement["closure"] = closure()
    if agreement["taylor"] > 1e-17:
        raise ValueError(f"{problem.name}: the two Taylor runs differ: {agreement}")
    return {
        "y0": problem.y0,
        "tspan": [problem.t0, problem.t1],
        "args": list(problem.args),
        "ts": ts,
        "ys": [[float(v) for v in y] for y in ys],
        "how": f"{METHOD}, {steps} steps",
        "agreement": {key: _rounded(value) for key, value in agreement.items()},
        "amplification": _rounded(amplification(problem)),
    }


def main() -> None:
    """Compute every reference and write the file."""
    cases = {}
    for problem in problems():
        cases[problem.name] = entry(problem)
        print(problem.name, cases[problem.name]["agreement"], cases[problem.name]["amplification"])
    lines = [f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    body = ",\n".join(lines)
    OUTPUT.write_text(
        f'{{"date": "{DATE}", "script": "tools/zoo_references.py", "cases": {{\n{body}\n}}}}\n'
    )
    print(f"wrote {len(cases)} references to {OUTPUT.name}")


if __name__ == "__main__":
    main()

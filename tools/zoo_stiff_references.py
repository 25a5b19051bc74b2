"""Compute the reference solutions of the stiff part of `diffeq.zoo`: `references_stiff.json`.

    python tools/zoo_stiff_references.py

Run by hand, from anywhere; some minutes on one core. It needs numpy, scipy and mpmath, and neither
JAX nor diffeq: a reference that shares code with what it checks proves nothing. For the same
reason the right-hand sides are written here a second time, in scalar arithmetic.

The Taylor series of `zoo_references.py` are explicit, and would take as many steps as the fastest
rate asks for. Here the method is collocation at the Radau points, Radau IIA with 11 stages, which
has order 21, in decimal arithmetic of 40 digits: its stage equations are solved by Newton's method
whose residual has all digits and whose matrix is that of doubles, so that each iteration adds some
ten digits. The step follows the last coefficient of the Legendre series of y' on it.

Two things are compared with it, and their distance is stored: a second run with 8 stages, another
tolerance and precision; and scipy's Radau at rtol = 1e-12, in double precision.

Inputs are doubles, taken as exact, as in `zoo_references.py`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mpmath
import numpy as np
from mpmath import mpf
from scipy.integrate import solve_ivp

OUTPUT = Path(__file__).parents[1] / "src" / "diffeq" / "zoo" / "references_stiff.json"
DATE = "2026-11-24"  # by hand, so that two runs write the same file

FINE = {"stages": 11, "tol": 1e-22, "digits": 40}
METHOD = "Radau IIA, {stages} stages, tolerance {tol:g}, {digits} decimal digits".format(**FINE)
COARSE = {"stages": 8, "tol": 1e-19, "digits": 34}


# --- the problems ---------------------------------------------------------------------------------


@dataclass
class Problem:
    """One entry: `field(t, y, args)` works on numbers of any kind."""

    name: str
    field: Callable
    y0: list[float]
    t1: float
    args: tuple[float, ...] = ()
    published: tuple[float, ...] = ()  # at t1, in the IVP test set


def robertson(t, y, args):
    k1, k2, k3 = args
    slow, back, fast = k1 * y[0], k3 * y[1] * y[2], k2 * y[1] * y[1]
    return [back - slow, slow - back - fast, fast]


def van_der_pol(t, y, args):
    return [y[1], args[0] * (y[1] - y[0] ** 2 * y[1]) - y[0]]


def oregonator(t, y, args):
    s, q, w = args
    return [
        s * (y[1] + y[0] * (1 - q * y[0] - y[1])),
        (y[2] - (1 + y[0]) * y[1]) / s,
        w * (y[0] - y[2]),
    ]


def hires(t, y, args):
    pair = 280.0 * y[5] * y[7]
    return [
        -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
        1.71 * y[0] - 8.75 * y[1],
        -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
        8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
        -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
        -pair + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
        pair - 1.81 * y[6],
        -pair + 1.81 * y[6],
    ]


POLLUTION_RATES = (
    0.35, 26.6, 1.23e4, 8.6e-4, 8.2e-4, 1.5e4, 1.3e-4, 2.4e4, 1.65e4, 9e3, 0.022, 1.2e4, 1.88,
    1.63e4, 4.8e6, 3.5e-4, 0.0175, 1e8, 4.44e11, 1240.0, 2.1, 5.78, 0.0474, 1780.0, 3.12,
)  # fmt: skip


def pollution(t, y, args):
    # One line a reaction: its species are numbered from 1, as in the test set.
    pairs = ((1,), (2, 4), (5, 2), (7,), (7,), (7, 6), (9,), (9, 6), (11, 2), (11, 1), (13,),
             (10, 2), (14,), (1, 6), (3,), (4,), (4,), (16,), (16,), (17, 6), (19,), (19,), (1, 4),
             (19, 1), (20,))  # fmt: skip
    r = [0]
    for k, species in zip(args, pairs, strict=True):
        rate = k
        for i in species:
            rate = rate * y[i - 1]
        r.append(rate)
    return [
        -r[1] - r[10] - r[14] - r[23] - r[24] + r[2] + r[3] + r[9] + r[11] + r[12] + r[22] + r[25],
        -r[2] - r[3] - r[9] - r[12] + r[1] + r[21],
        -r[15] + r[1] + r[17] + r[19] + r[22],
        -r[2] - r[16] - r[17] - r[23] + r[15],
        -r[3] + 2 * r[4] + r[6] + r[7] + r[13] + r[20],
        -r[6] - r[8] - r[14] - r[20] + r[3] + 2 * r[18],
        -r[4] - r[5] - r[6] + r[13],
        r[4] + r[5] + r[6] + r[7],
        -r[7] - r[8],
        -r[12] + r[7] + r[9],
        -r[9] - r[10] + r[8] + r[11],
        r[9],
        -r[11] + r[10],
        -r[13] + r[12],
        r[14],
        -r[18] - r[19] + r[16],
        -r[20],
        r[20],
        -r[21] - r[22] - r[24] + r[23] + r[25],
        -r[25] + r[24],
    ]


def problems():
    rates = (0.04, 3e7, 1e4)
    yield Problem("robertson", robertson, [1.0, 0.0, 0.0], 1e5, rates)
    yield Problem(
        "robertson_long", robertson, [1.0, 0.0, 0.0], 1e11, rates,
        (0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050),
    )  # fmt: skip
    yield Problem(
        "van_der_pol_stiff", van_der_pol, [2.0, 0.0], 2000.0, (1000.0,),
        (0.1706167732170469e1, -0.8928097010248125e-3),
    )  # fmt: skip
    yield Problem(
        "oregonator", oregonator, [1.0, 2.0, 3.0], 360.0, (77.27, 8.375e-6, 0.161),
        (0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3),
    )  # fmt: skip
    yield Problem(
        "hires", hires, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057], 321.8122, (),
        (0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4,
         0.1175651343283149e-2, 0.2386356198831331e-2, 0.6238968252742796e-2,
         0.2849998395185769e-2, 0.2850001604814231e-2),
    )  # fmt: skip
    start = {2: 0.2, 4: 0.04, 7: 0.1, 8: 0.3, 9: 0.01, 17: 0.007}
    yield Problem(
        "pollution", pollution, [start.get(i, 0.0) for i in range(1, 21)], 60.0, POLLUTION_RATES,
        (0.5646255480022769e-01, 0.1342484130422339, 0.4139734331099427e-08, 0.5523140207484359e-02,
         0.2018977262302196e-06, 0.1464541863493966e-06, 0.7784249118997964e-01, 0.3245075353396018,
         0.7494013383880406e-02, 0.1622293157301561e-07, 0.1135863833257075e-07,
         0.2230505975721359e-02, 0.2087162882798630e-03, 0.1396921016840158e-04,
         0.8964884856898295e-02, 0.4352846369330103e-17, 0.6899219696263405e-02,
         0.1007803037365946e-03, 0.1772146513969984e-05, 0.5682943292316392e-04),
    )  # fmt: skip


# --- Radau IIA in many digits ---------------------------------------------------------------------


@cache
def radau(stages: int, digits: int):
    """(A, c): collocation at the zeros of the (s−1)-th derivative of x^(s−1) (x − 1)^s."""
    with mpmath.workdps(digits + 30):
        s = stages
        # The polynomial, highest power first, and its derivatives.
        poly = [mpmath.binomial(s, k) * (-1) ** k for k in range(s + 1)] + [mpf(0)] * (s - 1)
        for _ in range(s - 1):
            degree = len(poly) - 1
            poly = [a * (degree - i) for i, a in enumerate(poly[:-1])]
        c = sorted(mpmath.polyroots(poly, maxsteps=500, extraprec=400), key=lambda x: x.real)
        c = [x.real for x in c]
        powers = mpmath.matrix(s, s)
        right = mpmath.matrix(s, s)
        for i in range(s):
            for k in range(s):
                powers[k, i] = c[i] ** k
                right[k, i] = c[i] ** (k + 1) / (k + 1)
        A = powers**-1 * right  # column i: the weights of stage i
        table = np.array([[A[j, i] for j in range(s)] for i in range(s)], dtype=object)
        lead = np.array([1 / mpmath.fprod(c[i] - c[j] for j in range(s) if j != i)
                         for i in range(s)], dtype=object)  # fmt: skip
        return table, np.array(c, dtype=object), lead / mpmath.binomial(2 * s - 2, s - 1)


def jacobian(problem: Problem, t: float, y: np.ndarray) -> np.ndarray:
    """∂f/∂y in doubles, by the complex step."""
    columns = []
    for i in range(len(y)):
        z = list(y.astype(complex))
        z[i] += 1e-60j
        columns.append([complex(v).imag / 1e-60 for v in problem.field(t, z, problem.args)])
    return np.array(columns).T


def stages_of(problem: Problem, t, y, h, table, guess):
    """The increments of the stages, and the slopes there; None if the iteration fails."""
    A, c, _ = table
    s, n = len(c), len(y)
    Z = guess
    at = lambda Z: np.array(
        [problem.field(t + ci * h, list(y + z), problem.args) for ci, z in zip(c, Z, strict=True)],
        dtype=object,
    )
    inverse, last = None, np.inf
    size = np.array([max(abs(v), mpf("1e-30")) for v in y], dtype=object)
    for turn in range(40):
        F = at(Z)
        gap = h * (A @ F) - Z
        if turn % 4 == 0:
            blocks = [jacobian(problem, float(t), (y + z).astype(float)) for z in Z]
            Af, hf = A.astype(float), float(h)
            big = np.block([[(i == j) * np.eye(n) - hf * Af[i, j] * blocks[j] for j in range(s)]
                            for i in range(s)])  # fmt: skip
            weight = np.tile(size.astype(float), s)
            inverse = np.linalg.inv(big * weight[None, :] / weight[:, None])
        scale = max(abs(v) for v in (gap / size).ravel())
        if scale == 0:
            return Z, F
        step = inverse @ (gap / size / scale).astype(float).ravel()
        Z = Z + scale * step.reshape(s, n) * size
        moved = max(abs(v) for v in (scale * step.reshape(s, n)).ravel())
        if moved < mpf(10) ** (8 - mpmath.mp.dps) or (turn > 6 and moved >= last):
            done = moved < mpf(10) ** (14 - mpmath.mp.dps)
            return (Z, at(Z)) if done else None
        last = moved
    return None


def integrate(problem: Problem, ts: list[float], *, stages: int, tol: float, digits: int):
    """The states at ts, and the number of steps."""
    with mpmath.workdps(digits):
        table = radau(stages, digits)
        lead = table[2]
        t, y, h = mpf(0), np.array([mpf(v) for v in problem.y0], dtype=object), mpf("1e-8")
        rows, steps = [], 0
        for target in map(mpf, ts):
            while t < target:
                cut = min(h, target - t)
                found = stages_of(problem, t, y, cut, table, np.zeros((stages, len(y))) * mpf(0))
                if found is None:
                    h = cut / 4
                    continue
                Z, F = found
                after = y + Z[-1]
                scale = [max(abs(a), abs(b)) for a, b in zip(y, after, strict=True)]
                tail = cut * (lead @ F)
                error = max(abs(e) / s if s else mpf(0) for e, s in zip(tail, scale, strict=True))
                factor = mpf("0.8") * (tol / max(error, mpf("1e-60"))) ** (mpf(1) / stages)
                factor = min(max(factor, mpf("0.2")), mpf(5))
                if error <= tol:
                    t, y, steps = (target if cut == target - t else t + cut), after, steps + 1
                    h = max(h, cut * factor) if cut < h else cut * factor
                else:
                    h = cut * min(factor, mpf("0.8"))
            rows.append(list(y))
        return rows, steps


# --- comparisons ----------------------------------------------------------------------------------


def distance(rows, others) -> float:
    """The largest difference, relative to each component at its time."""
    return max(
        abs(float((a - mpf(b)) / a)) for y, other in zip(rows, others, strict=True)
        for a, b in zip(y, other, strict=True)
    )  # fmt: skip


def by_scipy(problem: Problem, ts: list[float], y0=None, rtol=1e-12):
    field = lambda t, y: np.array([float(v) for v in problem.field(t, y, problem.args)])
    solution = solve_ivp(
        field, (0.0, problem.t1), problem.y0 if y0 is None else y0, method="Radau", t_eval=ts,
        rtol=rtol, atol=1e-30, jac=lambda t, y: jacobian(problem, t, y), first_step=1e-12,
    )  # fmt: skip
    return solution.y.T.tolist()


def amplification(problem: Problem) -> float:
    """The maximum norm of ∂y(t1)/∂y0, by central differences."""
    columns = []
    for i in range(len(problem.y0)):
        ends = []
        for side in (1, -1):
            y0 = np.array(problem.y0)
            y0[i] += side * 1e-5
            ends.append(np.array(by_scipy(problem, [problem.t1], y0, rtol=1e-10)[0]))
        columns.append((ends[0] - ends[1]) / 2e-5)
    return float(np.abs(np.array(columns)).sum(axis=0).max())


def _rounded(x: float) -> float:
    """Two figures: enough for an error, and the same on every machine."""
    return float(f"{x:.1e}")


def entry(problem: Problem) -> dict:
    """All that is stored of one problem."""
    ts = [problem.t1 * k / 4 for k in (1, 2, 3)] + [problem.t1]
    ys, steps = integrate(problem, ts, **FINE)
    second, _ = integrate(problem, ts, **COARSE)
    agreement = {"radau": distance(ys, second), "scipy": distance(ys, by_scipy(problem, ts))}
    if problem.published:
        agreement["published"] = distance(ys[-1:], [problem.published])
    if agreement["radau"] > 1e-15:
        raise ValueError(f"{problem.name}: the two runs differ: {agreement}")
    return {
        "y0": problem.y0,
        "tspan": [0.0, problem.t1],
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
        found = cases[problem.name]
        print(problem.name, found["how"], found["agreement"], found["amplification"], flush=True)
    lines = [f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
    body = ",\n".join(lines)
    head = f'{{"date": "{DATE}", "script": "tools/{Path(__file__).name}", "cases": {{'
    OUTPUT.write_text(f"{head}\n{body}\n}}}}\n")
    print(f"wrote {len(cases)} references to {OUTPUT.name}")


if __name__ == "__main__":
    main()

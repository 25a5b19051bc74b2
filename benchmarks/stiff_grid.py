"""The default on stiff problems, over a grid of tolerances: `python -m benchmarks.stiff_grid`.

At each of 30 pairs of tolerances and on each problem the default (`Switching` of Tsit5, or of Vern7
below rtol = 1e-6, and Rodas5P) is compared with Rodas5P: it has to succeed where that does, with an
error of the same size, and in at most five times its time. Attempts are printed as well: they do
not depend on how busy the machine is, but those of the explicit method are cheaper. Errors are
those of the end state, the largest of |y − reference| / (atol + rtol |reference|); the reference is
Radau IIA's at rtol = 1e-10, or known.

`python -m benchmarks.stiff_grid robertson cusp` runs two of the problems.
"""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from diffeq import zoo

RTOLS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
RATIOS = (1.0, 1e-1, 1e-2, 1e-3, 1e-5)  # atol / rtol
PAIRS = tuple((rtol, rtol * ratio) for rtol in RTOLS for ratio in RATIOS)
SLOWER, ROUNDS = 5.0, 3


class Stiff(NamedTuple):
    """A stiff problem: its field, initial state and end; and its end state, where that is known."""

    field: Callable[..., jax.Array]
    y0: Any
    t1: float
    exact: Any = None

    def problem(self) -> de.ODEProblem:
        """The problem, from t = 0."""
        return de.ODEProblem(self.field, jnp.asarray(self.y0, float), (0.0, self.t1))

    def reference(self) -> np.ndarray:
        """The state at the end."""
        if self.exact is not None:
            return np.asarray(self.exact)
        tight = {"rtol": 1e-10, "atol": 1e-14, "max_steps": 1_000_000}
        return np.asarray(de.solve(self.problem(), de.RadauIIA5(), **tight).y1)


def from_zoo(name: str, t1: float | None = None) -> Stiff:
    """A problem of `de.zoo`, over a shorter time if it is given."""
    case = zoo.case(name)
    field = functools.partial(lambda t, y, args, own: case.field(t, y, own), own=case.args)
    return Stiff(field, case.y0, case.tspan[1] if t1 is None else t1)


def prothero_robinson(rate: float) -> Stiff:
    """Prothero and Robinson: y' = −λ (y − cos t) − sin t, on the slow solution cos t."""
    field = lambda t, y, a: -rate * (y - jnp.cos(t)) - jnp.sin(t)
    return Stiff(field, [1.0], 10.0, [np.cos(10.0)])


def tied_oscillator(w: float) -> Stiff:
    """An oscillator, x'' = −ω² (x − cos t) − cos t, on the slow solution cos t: eigenvalues ±iω."""

    def field(t, y, a):
        x, v = y
        return jnp.stack([v, -(w**2) * (x - jnp.cos(t)) - jnp.cos(t)])

    return Stiff(field, [1.0, 0.0], 10.0, [np.cos(10.0), -np.sin(10.0)])


def damped_oscillations() -> Stiff:
    """Eigenvalues −1 ± 1000i, tied to a slow decay at the rate 0.1."""

    def field(t, y, a):
        p, q, s = y
        forced = jnp.stack([p - s, q])
        turned = jnp.stack([-forced[0] - 1e3 * forced[1], 1e3 * forced[0] - forced[1]])
        return jnp.stack([turned[0] - 0.1 * s, turned[1], -0.1 * s])

    end = np.exp(-2.0)
    return Stiff(field, [1.0, 0.0, 1.0], 20.0, [end, 0.0, end])


def enright_b5() -> Stiff:
    """Problem B5 of STIFF DETEST: eigenvalues −10 ± 100i, −4, −1, −0.5, −0.1."""

    def field(t, y, a):
        a, b, *rest = y
        return jnp.stack(
            [-10 * a + 100 * b, -100 * a - 10 * b]
            + [-k * x for k, x in zip((4, 1, 0.5, 0.1), rest, strict=True)]
        )

    end = [0, 0, *(np.exp(-20 * k) for k in (4, 1, 0.5, 0.1))]
    return Stiff(field, np.ones(6), 20.0, end)


def cusp(cells: int = 20) -> Stiff:
    """CUSP: a cusp catastrophe and van der Pol's equation, on cells (hairer1996, IV.10)."""
    angle = 2 * np.pi * np.arange(1, cells + 1) / cells
    start = np.stack([np.zeros(cells), -2 * np.cos(angle), 2 * np.sin(angle)])

    def field(t, y, args):
        y, a, b = y.reshape(3, cells)
        u = (y - 0.7) * (y - 1.3)
        v = u / (u + 0.1)
        spread = lambda x: (cells**2 / 144) * (jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1))
        return jnp.concatenate([
            -1e4 * (y**3 + a * y + b) + spread(y),
            b + 0.07 * v + spread(a),
            (1 - a**2) * b - a - 0.4 * y + 0.035 * v + spread(b),
        ])  # fmt: skip

    return Stiff(field, start.ravel(), 1.1)


def beam(n: int = 10) -> Stiff:
    """BEAM: an elastic beam, clamped at one end, 2 n numbers (hairer1996, IV.10)."""
    force = lambda t: jnp.where(t < np.pi, 1.5 * jnp.sin(t) ** 2, 0.0)

    def field(t, y, args):
        x, v = y[:n], y[n:]
        ghost = jnp.concatenate([-x[:1], x, x[-1:]])
        up, down = ghost[2:], ghost[:-2]
        stretch = n**4 * (down - 2 * x + up)
        stretch = stretch.at[-1].set(n**4 * (x[-2] - x[-1]))
        rhs = stretch + n**2 * force(t) * (jnp.cos(x) + jnp.sin(x))
        # C is the tridiagonal matrix of cosines of differences, D of sines; (C + D C⁻¹ D) u = ….
        cos, sin = jnp.cos(x[:-1] - x[1:]), jnp.sin(x[:-1] - x[1:])
        main = jnp.full(n, 2.0).at[0].set(1.0).at[-1].set(3.0)
        C = jnp.diag(main) - jnp.diag(cos, 1) - jnp.diag(cos, -1)
        D = jnp.diag(-sin, 1) + jnp.diag(sin, -1)
        w = D @ rhs + v**2
        return jnp.concatenate([v, C @ rhs + D @ jnp.linalg.solve(C, w)])

    return Stiff(field, np.zeros(2 * n), 5.0)


def flame(delta: float = 1e-4) -> Stiff:
    """A ball of flame (Moler): y' = y² − y³ from a small δ over 2/δ."""
    return Stiff(lambda t, y, a: y**2 - y**3, [delta], 2 / delta, [1.0])


def fitzhugh_nagumo(eps: float = 1e-3) -> Stiff:
    """ε v' = v − v³/3 − w + 0.5, w' = v + 0.7 − 0.8 w."""
    field = lambda t, y, a: jnp.stack(
        [(y[0] - y[0] ** 3 / 3 - y[1] + 0.5) / eps, y[0] + 0.7 - 0.8 * y[1]]
    )
    return Stiff(field, [-1.0, 1.0], 5.0)


def heat(n: int = 50) -> Stiff:
    """Heat with a source on n cells: a real spectrum to −4 n²."""
    x = np.arange(1, n + 1) / (n + 1)

    def field(t, y, a):
        full = jnp.concatenate([jnp.zeros(1), y, jnp.zeros(1)])
        return (n + 1) ** 2 * (full[2:] - 2 * y + full[:-2]) + jnp.sin(t) * x

    return Stiff(field, np.sin(np.pi * x), 2.0)


def brusselator(n: int = 30) -> Stiff:
    """The Brusselator with diffusion on n cells, 2 n numbers (hairer1996, IV.1)."""
    x = np.arange(1, n + 1) / (n + 1)

    def field(t, y, a):
        u, v = y.reshape(2, n)

        def spread(z: jax.Array, end: float) -> jax.Array:
            full = jnp.pad(z, 1, constant_values=end)
            return 0.02 * (n + 1) ** 2 * (full[2:] - 2 * z + full[:-2])

        growth = u**2 * v
        return jnp.concatenate([1 + growth - 4 * u + spread(u, 1), 3 * u - growth + spread(v, 3)])

    return Stiff(field, np.concatenate([1 + np.sin(2 * np.pi * x), np.full(n, 3.0)]), 10.0)


def e5() -> Stiff:
    """E5: four species, rates from 10⁻¹¹ to 10¹³ (hairer1996, IV.10), counted in 10⁻³ mol."""
    A, B, C, M = 7.89e-10, 1.1e7, 1.13e3, 1e6

    def field(t, y, a):
        a, b, c, d = y * 1e-3
        r1, r2, r3, r4 = A * a, B * a * c, M * C * b * c, C * d
        return 1e3 * jnp.stack([-r1 - r2, r1 - r3, r1 - r2 - r3 + r4, r2 - r4])

    return Stiff(field, [1.76, 0.0, 0.0, 0.0], 1e5)


def kaps(eps: float = 1e-5) -> Stiff:
    """Kaps' problem: x' = −(2 + 1/ε) x + y²/ε, y' = x − y − y²; x = y² = e^{−2t} for all ε."""
    field = lambda t, y, a: jnp.stack(
        [-(2 + 1 / eps) * y[0] + y[1] ** 2 / eps, y[0] - y[1] - y[1] ** 2]
    )
    return Stiff(field, [1.0, 1.0], 5.0, [np.exp(-10.0), np.exp(-5.0)])


def enright_d2() -> Stiff:
    """Problem D2 of STIFF DETEST, a reaction that is all but Robertson's."""

    def field(t, y, args):
        a, b, c = y
        return jnp.stack([-0.04 * a + 0.01 * b * c, 400 * a - 100 * b * c - 3000 * b**2, 30 * b**2])

    return Stiff(field, [1.0, 0.0, 0.0], 40.0)


PROBLEMS: dict[str, Callable[[], Stiff]] = {
    "robertson_40": lambda: from_zoo("robertson", 40.0),
    "robertson_4e4": lambda: from_zoo("robertson", 4e4),
    "robertson_1e11": lambda: from_zoo("robertson_long"),
    "van_der_pol": lambda: from_zoo("van_der_pol_stiff"),
    "oregonator": lambda: from_zoo("oregonator"),
    "hires": lambda: from_zoo("hires"),
    "pollution": lambda: from_zoo("pollution"),
    "cusp": cusp,
    "prothero_robinson": lambda: prothero_robinson(1e4),
    "prothero_robinson_1e6": lambda: prothero_robinson(1e6),
    "oscillator_1e3": lambda: tied_oscillator(1e3),
    "oscillator_1e5": lambda: tied_oscillator(1e5),
    "damped_oscillations": damped_oscillations,
    "enright_b5": enright_b5,
    "enright_d2": enright_d2,
    "beam": beam,
    "flame": flame,
    "fitzhugh_nagumo": fitzhugh_nagumo,
    "heat": heat,
    "brusselator": brusselator,
    "e5": e5,
    "kaps": kaps,
}


class Outcome(NamedTuple):
    """Of one solve: how it ended, its attempts, its error in units of the tolerances, its time."""

    status: de.Status
    attempts: int
    error: float
    seconds: float


Solver = Callable[[float, float], Outcome]


def solver(stiff: Stiff, method: Any, reference: np.ndarray) -> Solver:
    """`at(rtol, atol)`, compiled once for all tolerances."""
    problem = stiff.problem()

    @jax.jit
    def solve(rtol, atol):
        sol = de.solve(problem, method, rtol=rtol, atol=atol, throw=False)
        return sol.y1, sol.status, sol.stats["steps"] + sol.stats["rejected"]

    def at(rtol: float, atol: float) -> Outcome:
        seconds = []
        jax.block_until_ready(solve(rtol, atol))  # compiled
        for _ in range(ROUNDS):
            start = time.perf_counter()
            y1, status, attempts = jax.block_until_ready(solve(rtol, atol))
            seconds.append(time.perf_counter() - start)
            if seconds[0] > 0.3:
                break
        error = np.max(np.abs(y1 - reference) / (atol + rtol * np.abs(reference)))
        return Outcome(de.Status(int(status)), int(attempts), float(error), min(seconds))

    return at


class Row(NamedTuple):
    """One problem at one pair of tolerances."""

    rtol: float
    atol: float
    default: Outcome
    stiff: Outcome

    @property
    def fails(self) -> bool:
        """Whether the default fails where Rodas5P does not."""
        return self.stiff.status.ok and not self.default.status.ok

    @property
    def slow(self) -> bool:
        """Whether the default takes too much time."""
        return self.stiff.status.ok and self.default.seconds > SLOWER * self.stiff.seconds

    @property
    def wrong(self) -> bool:
        """Whether the default ends in success far from the solution, and Rodas5P does not."""
        return self.default.status.ok and self.default.error > 100 * max(1.0, self.stiff.error)


def compare(name: str, pairs: Sequence[tuple[float, float]] = PAIRS) -> list[Row]:
    """The default and Rodas5P on one problem."""
    stiff = PROBLEMS[name]()
    reference = stiff.reference()
    make = functools.cache(lambda method: solver(stiff, method, reference))
    rows = []
    for rtol, atol in pairs:
        explicit = de.Tsit5() if rtol >= 1e-6 else de.Vern7()
        methods = de.Switching(explicit, de.Rodas5P()), de.Rodas5P()
        rows.append(Row(rtol, atol, *(make(method)(rtol, atol) for method in methods)))
    return rows


def main(names: Sequence[str]) -> None:
    """Prints a line for each problem, and one for each pair at which the default is not as good."""
    jax.config.update("jax_enable_x64", True)
    print(f"{'problem':22} fails slow(time) slow(attempts) wrong   worst time, attempts")
    total = np.zeros(4, int)
    for name in names or PROBLEMS:
        rows = compare(name)
        sound = [r for r in rows if r.stiff.status.ok]
        attempts = [r.default.attempts / r.stiff.attempts for r in sound]
        times = [r.default.seconds / r.stiff.seconds for r in sound]
        many = sum(x > SLOWER for x in attempts)
        counts = [sum(r.fails for r in rows), sum(r.slow for r in rows), many,
                  sum(r.wrong for r in rows)]  # fmt: skip
        total += counts
        worst = max(times, default=0), max(attempts, default=0)
        print(f"{name:22} {counts[0]:5} {counts[1]:10} {counts[2]:14} {counts[3]:5}   "
              f"{worst[0]:10.1f} {worst[1]:9.1f}", flush=True)  # fmt: skip
        for r in rows:
            if r.fails or r.slow or r.wrong:
                both = "  ".join(
                    f"{o.status.name} {o.attempts} err {o.error:.1e} {o.seconds * 1e3:.2f} ms"
                    for o in (r.default, r.stiff)
                )
                print(f"    ({r.rtol:.0e}, {r.atol:.0e})  {both}", flush=True)
    print(f"{'all':22} {total[0]:5} {total[1]:10} {total[2]:14} {total[3]:5}")


if __name__ == "__main__":
    main(sys.argv[1:])

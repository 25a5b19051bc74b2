"""Ensembles against Diffrax under vmap: `python -m benchmarks.ensembles`.

Everybody solves the same trajectories, in one run, interleaved, double precision. `ours` is
`de.solve_ensemble` as a user calls it, on all cores, and the same inside `jax.jit`, where it has
one; `diffrax` is the vmap of its solve, compiled. *Single solves* are the same trajectories one
after the other in one compiled program, on one core: their sum, over the cores, is all that could
be asked of a loop without vector instructions. Errors are the largest difference from our ensemble
at a hundredth of the tolerance, over all trajectories, beside the size of each component.

Compile time is that of tracing, lowering and compiling; of `ours`, which compiles two programs side
by side when it is called, that of the first call less a later one. Diffrax takes minutes for
100,000 stiff trajectories: it gets a fiftieth of them, and its time is multiplied.

Writes `results/ensembles.md`.
"""

import datetime
import functools
import time
from pathlib import Path

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import machine, timing

HERE = Path(__file__).parent
SECONDS, ROUNDS = 30.0, 20
HEAD = ("| | error | compile | time | times ours |", "|---|---|---|---|---|")


def lorenz(t, y, rho):
    """Lorenz' equations by ρ."""
    a, b, c = y
    return jnp.array([10.0 * (b - a), a * (rho - c) - b, a * b - 8.0 / 3.0 * c])


def van_der_pol(t, y, mu):
    """Van der Pol's oscillator by μ."""
    return jnp.array([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


def robertson(t, y, k):
    """Robertson's reactions by their three rates."""
    slow, back, fast = k[0] * y[0], k[2] * y[1] * y[2], k[1] * y[1] ** 2
    return jnp.array([back - slow, slow - back - fast, fast])


def lotka_volterra(t, y, p):
    """Predator and prey by four rates."""
    return jnp.array([p[0] * y[0] - p[1] * y[0] * y[1], p[3] * y[0] * y[1] - p[2] * y[1]])


class Case:
    """An ensemble: a field, where it starts and ends, its parameters, a method of each, tolerances.

    `share`: the part of the trajectories that Diffrax gets.
    """

    def __init__(self, name, field, y0, t1, args, *, methods, tolerances, saveat=None, share=1):
        self.name, self.field, self.y0, self.t1, self.args = name, field, jnp.array(y0), t1, args
        (self.ours, self.theirs), (self.rtol, self.atol) = methods, tolerances
        self.saveat, self.share = saveat, share

    @property
    def problem(self):
        """The problem without its parameters."""
        return de.ODEProblem(self.field, self.y0, (0.0, self.t1))

    def solve(self, args, **options):
        """Our ensemble."""
        options = {"rtol": self.rtol, "atol": self.atol, "saveat": self.saveat} | options
        return de.solve_ensemble(self.problem, self.ours, args=args, **options)

    def single(self, args):
        """One trajectory of ours."""
        return de.solve(
            self.problem.replace(args=args), self.ours, rtol=self.rtol, atol=self.atol,
            saveat=self.saveat, throw=False,
        ).ys  # fmt: skip

    def diffrax(self, args):
        """One trajectory of Diffrax."""
        saveat = dfx.SaveAt(t1=True) if self.saveat is None else dfx.SaveAt(ts=self.saveat)
        sol = dfx.diffeqsolve(
            dfx.ODETerm(self.field), self.theirs, 0.0, self.t1, None, self.y0, args,
            stepsize_controller=dfx.PIDController(rtol=self.rtol, atol=self.atol), saveat=saveat,
            max_steps=4096, throw=False,
        )  # fmt: skip
        return jnp.where(sol.result == dfx.RESULTS.successful, sol.ys, jnp.nan)


def cases():
    """The four ensembles, and the fit."""
    draw = np.random.default_rng(0)
    rho = jnp.linspace(0.0, 21.0, 16_384)
    one = jnp.ones(1024).at[500].set(100.0)
    many = jnp.asarray(10 ** draw.uniform(-1, 2, 1024))
    rates = jnp.array([0.04, 3e7, 1e4]) * jnp.asarray(draw.uniform(0.5, 1.5, (100_000, 3)))
    explicit = {"methods": (de.Tsit5(), dfx.Tsit5())}
    implicit = {"methods": (de.Rodas5P(), dfx.Kvaerno5())}
    return [
        Case("16,384 Lorenz, 1e-8", lorenz, [1.0, 0.0, 0.0], 1.0, rho, **explicit,
             tolerances=(1e-8, 1e-8)),
        Case("1,024 van der Pol, one at μ = 100", van_der_pol, [2.0, 0.0], 20.0, one, **explicit,
             tolerances=(1e-6, 1e-6)),
        Case("1,024 van der Pol, μ from 0.1 to 100", van_der_pol, [2.0, 0.0], 20.0, many,
             **explicit, tolerances=(1e-6, 1e-6)),
        Case("100,000 Robertson, rates ± 50 %, 1e-6", robertson, [1.0, 0.0, 0.0], 1e5, rates,
             **implicit, tolerances=(1e-6, 1e-10), share=50),
    ]  # fmt: skip


def fit():
    """10,000 trajectories, 4 rates of each to be fitted to what was measured of it at 11 times."""
    draw = np.random.default_rng(1)
    rates = jnp.array([1.5, 1.0, 3.0, 1.0]) * jnp.asarray(draw.uniform(0.8, 1.2, (10_000, 4)))
    case = Case(
        "gradient of a fit, 10,000 Lotka–Volterra, 4 rates each, 1e-6", lotka_volterra, [1.0, 1.0],
        10.0, rates, methods=(de.Tsit5(), dfx.Tsit5()), tolerances=(1e-6, 1e-6),
        saveat=jnp.linspace(0.0, 10.0, 11),
    )  # fmt: skip
    data = jnp.asarray(draw.uniform(0.5, 1.5, (10_000, 11, 2)))

    def gradient(solve, rates):
        return jax.grad(lambda rates: jnp.sum((solve(rates) - data) ** 2))(rates)

    ours = functools.partial(gradient, lambda rates: case.solve(rates).ys)
    theirs = functools.partial(gradient, jax.vmap(case.diffrax))
    tight = functools.partial(gradient, lambda rates: case.solve(rates, rtol=1e-9, atol=1e-9).ys)
    racers = {"ours": ours, "ours, in jit": jax.jit(ours), "diffrax": jax.jit(theirs)}
    return case, racers, jax.jit(tight)


def compiled_in(solve, args):
    """Seconds until a solve is compiled."""
    if hasattr(solve, "lower"):
        start = time.perf_counter()
        solve.lower(args).compile()
        return time.perf_counter() - start
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(solve(args))
        seconds.append(time.perf_counter() - start)
    return seconds[0] - min(seconds[1:])


def error_of(found, known):
    """The largest difference, beside the largest of each component."""
    found, known = np.asarray(found), np.asarray(known)
    size = np.max(np.abs(known), axis=tuple(range(known.ndim - 1)))
    return float(np.max(np.abs(found - known) / size))


def measured(case, racers, reference, inputs):
    """Rows of a table: who, error, compile time, contestant."""
    waits = {who: compiled_in(f, inputs.get(who, case.args)) for who, f in racers.items()}
    known, rows = reference(case.args), []
    for who, solve in racers.items():
        args, seconds = inputs.get(who, case.args), waits[who]
        error = error_of(solve(args), known[: len(args)])
        rows.append((who, error, seconds, timing.Contestant(solve, [args])))
        print(f"  {case.name}: {who}", flush=True)
    timing.interleave([racer for *_, racer in rows], SECONDS, ROUNDS)
    return rows


def forward(case):
    """The rows of an ensemble."""
    racers = {
        "ours": lambda args: case.solve(args).ys,
        "ours, in jit": jax.jit(lambda args: case.solve(args).ys),
        "ours, lockstep": jax.jit(lambda args: case.solve(args, strategy="lockstep").ys),
        "single solves": jax.jit(lambda args: jax.lax.map(case.single, args)),
        "diffrax": jax.jit(jax.vmap(case.diffrax)),
    }
    tight = {"rtol": case.rtol / 100, "atol": case.atol / 100}
    reference = jax.jit(lambda args: case.solve(args, **tight).ys)
    part = case.args[: len(case.args) // case.share]
    rows = measured(case, racers, reference, {"diffrax": part})
    return rows, case.solve(case.args, throw=False).failed.count


def table(case, rows, failed=None):
    """Markdown of one case."""
    ours, share = rows[0][-1], case.share
    lines = [f"\n## {case.name}\n", *HEAD]
    for who, error, seconds, racer in rows:
        factor = share if who == "diffrax" else 1
        ratio = factor * timing.ratio(racer, ours)["median"]
        note = f" ({len(case.args) // share:,} of them, times {share})" if factor > 1 else ""
        taken = factor * 1e3 * timing.summary(racer.samples.values())["median"]
        lines.append(
            f"| {who}{note} | {error:.1e} | {seconds:.1f} s | {taken:,.1f} ms | {ratio:.2f} |"
        )
    if failed is not None:
        lines.append(f"\nOf ours {failed or 'none'} failed.")
    return lines


def main():
    """Measure and write."""
    jax.config.update("jax_enable_x64", True)
    here = machine.machine()
    with_what = f"JAX {jax.__version__}, diffrax {dfx.__version__}, float64"
    lines = [
        "# Ensembles\n",
        f"{datetime.date.today()}, {here['processor']}, {here['cores']} cores, {with_what}.",
        "By `python -m benchmarks.ensembles`, which says how.",
    ]
    for case in cases():
        found = table(case, *forward(case))
        lines += found
        print("\n".join(found), flush=True)
    case, racers, reference = fit()
    lines += table(case, measured(case, racers, reference, {}))
    print("\n".join(lines), flush=True)
    (HERE / "results" / "ensembles.md").write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()

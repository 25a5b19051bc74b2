"""Ensembles against Diffrax under vmap, and Gradsolve: `python -m benchmarks.ensembles`.

Everybody solves the same trajectories, in one run, interleaved, in double and in single precision
(`--quick`: a hundredth of them, for a smoke test; nothing is written). `ours` is
`de.solve_ensemble` as a user calls it, on all cores, and the same inside `jax.jit`, where it has
one; `diffrax` is the vmap of its solve, compiled. *Single solves* are the same trajectories one
after the other in one compiled program, on one core: their sum, over the cores, is all that could
be asked of a loop without vector instructions. Errors are the largest difference from our ensemble
in double precision at a hundredth of the tolerance, over all trajectories that arrived, beside the
size of each component; those that did not are counted.

Gradsolve (where it is installed; double precision is all that it has on a CPU) records the steps of
all trajectories, which is done again when parameters have moved, and then differentiates a replay
of them. Both are timed; the compilation of the replay, which each recording needs anew, is not.

Compile time is that of tracing, lowering and compiling, the median of three with nothing known from
before; of `ours`, which compiles two programs side by side when it is called, that of the first
call less a later one, and nothing where an earlier case has compiled them. Diffrax takes minutes
for 100,000 stiff trajectories: it gets a fiftieth of them, and its time is multiplied.

Writes `results/ensembles.md`.
"""

import argparse
import datetime
import functools
import importlib
import time
from pathlib import Path

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import machine, timing

HERE = Path(__file__).parent
ROUNDS = 20
HEAD = ("| | error | failed | compile | time | times ours |", "|---|---|---|---|---|---|")


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

    def diffrax(self, args, y0=None):
        """One trajectory of Diffrax."""
        y0 = self.y0 if y0 is None else y0
        saveat = dfx.SaveAt(t1=True) if self.saveat is None else dfx.SaveAt(ts=self.saveat)
        sol = dfx.diffeqsolve(
            dfx.ODETerm(self.field), self.theirs, 0.0, self.t1, None, y0, args,
            stepsize_controller=dfx.PIDController(rtol=self.rtol, atol=self.atol), saveat=saveat,
            max_steps=4096, throw=False,
        )  # fmt: skip
        return jnp.where(sol.result == dfx.RESULTS.successful, sol.ys, jnp.nan)


def cases(part=1):
    """The four ensembles, or a part of each."""
    draw = np.random.default_rng(0)
    rho = jnp.linspace(0.0, 21.0, 16_384 // part)
    one = jnp.ones(1024 // part).at[5].set(100.0)
    many = jnp.asarray(10 ** draw.uniform(-1, 2, 1024 // part))
    varied = jnp.asarray(draw.uniform(0.5, 1.5, (100_000 // part, 3)))
    rates = jnp.array([0.04, 3e7, 1e4]) * varied
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


def fit(part=1):
    """10,000 trajectories, 4 rates of each to be fitted to what was measured of it at 11 times."""
    draw, count = np.random.default_rng(1), 10_000 // part
    rates = jnp.array([1.5, 1.0, 3.0, 1.0]) * jnp.asarray(draw.uniform(0.8, 1.2, (count, 4)))
    case = Case(
        "gradient of a fit, 10,000 Lotka–Volterra, 4 rates each, 1e-6", lotka_volterra, [1.0, 1.0],
        10.0, rates, methods=(de.Tsit5(), dfx.Tsit5()), tolerances=(1e-6, 1e-6),
        saveat=jnp.linspace(0.0, 10.0, 11),
    )  # fmt: skip
    data = jnp.asarray(draw.uniform(0.5, 1.5, (count, 11, 2)))

    def gradient(solve, rates):
        return jax.grad(lambda rates: jnp.sum((solve(rates) - data) ** 2))(rates)

    ours = functools.partial(gradient, lambda rates: case.solve(rates).ys)
    theirs = functools.partial(gradient, jax.vmap(case.diffrax))
    tight = functools.partial(gradient, lambda rates: case.solve(rates, rtol=1e-9, atol=1e-9).ys)
    racers = {"ours": ours, "ours, in jit": jax.jit(ours), "diffrax": jax.jit(theirs)}
    if rates.dtype == jnp.float64 and (record := gradsolve(case)) is not None:
        replay = functools.partial(gradient, record(rates))
        racers |= {"gradsolve, recording": record, "gradsolve, replay": jax.jit(replay)}
    return case, racers, jax.jit(tight)


def trained(part=1):
    """10,000 starts of one field, a network whose 82 weights, a column, are to be fitted."""
    draw, count, hidden = np.random.default_rng(2), 10_000 // part, 16
    sizes = (2 * hidden, hidden, 2 * hidden, 2)
    weights = jnp.asarray(draw.normal(size=(sum(sizes), 1)) / 4)
    starts, data = (jnp.asarray(draw.normal(size=size)) for size in ((count, 2), (count, 11, 2)))

    def network(t, y, w):
        first, shift, last, end = jnp.split(w[:, 0], np.cumsum(sizes)[:-1])
        return last.reshape(2, hidden) @ jnp.tanh(first.reshape(hidden, 2) @ y + shift) + end

    case = Case(
        "gradient of a fit by 82 weights, a network 2-16-2 from 10,000 starts, 1e-6", network,
        [0.0, 0.0], 1.5, weights, methods=(de.Tsit5(), dfx.Tsit5()), tolerances=(1e-6, 1e-6),
        saveat=jnp.linspace(0.0, 1.5, 11),
    )  # fmt: skip

    def gradient(solve):
        return jax.grad(lambda weights: jnp.mean((solve(weights) - data) ** 2))

    def ensemble(weights, **options):
        asked = {"rtol": case.rtol, "atol": case.atol, "saveat": case.saveat} | options
        problem = case.problem.replace(args=weights)
        return de.solve_ensemble(problem, case.ours, y0=starts, **asked).ys

    tight = functools.partial(ensemble, rtol=1e-9, atol=1e-9)
    theirs = jax.vmap(lambda y0, weights: case.diffrax(weights, y0), (0, None))
    ours = gradient(ensemble)
    racers = {"ours": ours, "ours, in jit": jax.jit(ours),
              "diffrax": jax.jit(gradient(lambda weights: theirs(starts, weights)))}  # fmt: skip
    return case, racers, {}, jax.jit(gradient(tight))


def gradsolve(case):
    """What records the steps of an ensemble, and returns its replay; None if it is not there."""
    try:
        package = importlib.import_module("gradsolve")
    except ImportError:
        print("gradsolve is not installed: pip install gradsolve")
        return None

    class Own:
        name, dim, t0, t1, is_stiff = "own", case.y0.size, 0.0, case.t1, False

        def f_jax(self, t, y, p):
            return case.field(t, y, p)

    def record(args):
        return package.grad_closure(
            Own(), np.tile(case.y0, (len(args), 1)), np.asarray(args), saveat=case.saveat,
            rtol=case.rtol, atol=case.atol, engine="tsit5_replay", device="cpu",
        )  # fmt: skip

    return record


def compiled_in(solve, args):
    """Seconds until a solve is compiled."""
    seconds = []
    if hasattr(solve, "lower"):
        for _ in range(3):
            jax.clear_caches()
            start = time.perf_counter()
            solve.lower(args).compile()
            seconds.append(time.perf_counter() - start)
        return float(np.median(seconds))
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(solve(args))
        seconds.append(time.perf_counter() - start)
    return seconds[0] - min(seconds[1:])


def error_of(found, known):
    """The largest difference, beside the largest of each component; and how many have failed."""
    if callable(found):  # a recording
        return "", ""
    found, known = np.asarray(found), np.asarray(known)
    size = np.max(np.abs(known), axis=tuple(range(known.ndim - 1)))
    there = np.isfinite(found).reshape(len(found), -1).all(1)
    error = np.max(np.abs(found - known)[there] / size, initial=0.0)
    return f"{error:.1e}", f"{(~there).sum()}"


def measured(case, racers, known, inputs, seconds):
    """Rows of a table: who, error, failures, compile time, contestant."""
    waits = {who: compiled_in(f, inputs.get(who, case.args)) for who, f in racers.items()}
    rows = []
    for who, solve in racers.items():
        args = inputs.get(who, case.args)
        error = error_of(solve(args), known[: len(args)])
        rows.append((who, *error, waits[who], timing.Contestant(solve, [args])))
        print(f"  {case.name}: {who}", flush=True)
    timing.interleave([racer for *_, racer in rows], seconds, ROUNDS)
    return rows


def forward(case):
    """The contestants of an ensemble, what Diffrax gets of it, and the reference."""
    racers = {
        "ours": lambda args: case.solve(args).ys,
        "ours, in jit": jax.jit(lambda args: case.solve(args).ys),
        "ours, lockstep": jax.jit(lambda args: case.solve(args, strategy="lockstep").ys),
        "single solves": jax.jit(lambda args: jax.lax.map(case.single, args)),
        "diffrax": jax.jit(jax.vmap(case.diffrax)),
    }
    tight = {"rtol": case.rtol / 100, "atol": case.atol / 100}
    reference = jax.jit(lambda args: case.solve(args, **tight).ys)
    return racers, {"diffrax": case.args[: len(case.args) // case.share]}, reference


def table(case, rows):
    """Markdown of one case in one precision."""
    ours, share = rows[0][-1], case.share
    lines = [f"\n## {case.name}, {case.args.dtype}\n", *HEAD]
    for who, error, failed, seconds, racer in rows:
        factor = share if who == "diffrax" else 1
        ratio = factor * timing.ratio(racer, ours)["median"]
        note = f" ({len(case.args) // share:,} of them, times {share})" if factor > 1 else ""
        taken = factor * 1e3 * timing.summary(racer.samples.values())["median"]
        cells = (who + note, error, failed, f"{seconds:.1f} s", f"{taken:,.1f} ms", f"{ratio:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def in_both_precisions(make, seconds):
    """The tables of a case, which `make` makes anew in each precision; the reference is double."""
    known, lines = None, []
    for double in (True, False):
        jax.config.update("jax_enable_x64", double)
        case, racers, inputs, reference = make()
        known = np.asarray(reference(case.args)) if double else known
        lines += table(case, measured(case, racers, known, inputs, seconds))
    print("\n".join(lines), flush=True)
    return lines


def main():
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small; nothing is written")
    quick = parser.parse_args().quick
    part, seconds = (100, 0.5) if quick else (1, 8.0)
    here = machine.machine()
    where = f"{here['processor']}, {here['cores']} cores"
    lines = [
        "# Ensembles\n",
        f"{datetime.date.today()}, {where}, JAX {jax.__version__}, diffrax {dfx.__version__}.",
        "By `python -m benchmarks.ensembles`, which says how.",
    ]

    def ensemble(number):
        case = cases(part)[number]
        return case, *forward(case)

    def gradient():
        case, racers, reference = fit(part)
        return case, racers, {}, reference

    makes = [functools.partial(ensemble, number) for number in range(len(cases(part)))]
    makes += [gradient, functools.partial(trained, part)]
    for make in makes:
        lines += in_both_precisions(make, seconds)
    if not quick:
        (HERE / "results" / "ensembles.md").write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()

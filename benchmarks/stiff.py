"""Stiff problems at equal achieved error: `python -m benchmarks.stiff`.

The problems are those of `de.zoo`, with its references; the error is that of the end state, the
largest of |y − reference|/(small + |reference|) over the components, where `small` is what their
small components ask for. Every method gets the loosest of its tolerances that reaches the target,
and is timed there, all of them interleaved. LSODA is numbalsoda, a compiled solver with a compiled
right-hand side and no Python in its loop (`pip install numbalsoda`; left out where it is missing).

Writes `results/stiff.md`, and plots of error and time over all tolerances to `plots/`.
"""

import datetime
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import machine, timing

CASES = ("robertson", "hires", "oregonator", "pollution", "van_der_pol_stiff")
SMALL = {"pollution": 1e-5}
TARGET = 1e-6
TOLERANCES = [10.0 ** (-k / 2) for k in range(6, 25)]
OURS = ("Rodas5P", "Rodas4", "RadauIIA5", "KenCarp4", "BDF")
DIFFRAX = ("Kvaerno3", "Kvaerno4", "Kvaerno5")
SECONDS, ROUNDS = 4.0, 60
HERE = Path(__file__).parent
HEAD = ("| | tolerance | error | time | times our quickest |", "|---|---|---|---|---|")


def ours(case, name, small):
    """`at(tolerance) -> solve(y0)`, compiled once for all tolerances."""
    problem, method = case.problem(), getattr(de, name)()

    @jax.jit
    def solve(rtol, y0):
        sol = de.solve(problem.replace(y0=y0), method, rtol=rtol, atol=rtol * small, throw=False)
        return sol.y1

    return lambda rtol: functools.partial(solve, jnp.asarray(rtol))


def diffrax(case, name, small):
    """The same of a solver of Diffrax, with its defaults."""
    import diffrax as dfx

    problem, solver = case.problem(), getattr(dfx, name)()

    @jax.jit
    def solve(rtol, y0):
        sol = dfx.diffeqsolve(
            dfx.ODETerm(case.field), solver, case.tspan[0], case.tspan[1], None, y0, problem.args,
            stepsize_controller=dfx.PIDController(rtol=rtol, atol=rtol * small),
            saveat=dfx.SaveAt(t1=True), max_steps=200_000, throw=False,
        )  # fmt: skip
        return jnp.where(sol.result == dfx.RESULTS.successful, sol.ys[0], jnp.nan)

    return lambda rtol: functools.partial(solve, jnp.asarray(rtol))


def lsoda(case, _, small):
    """LSODA in C, with Robertson's equations compiled by Numba."""
    import numba
    import numbalsoda

    @numba.cfunc(numbalsoda.lsoda_sig)
    def rates(t, y, dy, k):
        slow, back, fast = k[0] * y[0], k[2] * y[1] * y[2], k[1] * y[1] * y[1]
        dy[0] = back - slow
        dy[1] = slow - back - fast
        dy[2] = fast

    ends, args, pointer = np.array(case.tspan), np.asarray(case.args), rates.address

    def at(rtol):
        def solve(y0):
            ys, success = numbalsoda.lsoda(
                pointer, np.asarray(y0), ends, args, rtol=rtol, atol=rtol * small
            )
            return ys[-1] if success else np.full(3, np.nan)

        return solve

    return at


def error_of(case, solve, small):
    """The error of the end state; infinite where there is none."""
    difference = np.abs(np.asarray(solve(case.y0)) - case.reference.y1)
    worst = np.max(difference / (small + np.abs(case.reference.y1)))
    return float(worst) if np.isfinite(worst) else float("inf")


def contestants(name):
    """Everybody's maker, by name."""
    found = {f"ours: {m}": (ours, m) for m in OURS}
    found |= {f"diffrax: {m}": (diffrax, m) for m in DIFFRAX}
    if name == "robertson":
        try:
            import numbalsoda

            del numbalsoda
            found["LSODA, compiled"] = (lsoda, "")
        except ImportError:
            print("numbalsoda is not installed: no row for LSODA")
    return found


def measured(name):
    """The rows of one problem (method, tolerance, error, seconds), and all points for the plot."""
    case, small = getattr(de.zoo, name)(), SMALL.get(name, 1e-6)
    racers, rows, curves = {}, {}, {}
    for who, (make, method) in contestants(name).items():
        at = make(case, method, small)
        errors = {rtol: error_of(case, at(rtol), small) for rtol in TOLERANCES}
        curves[who] = [(errors[rtol], _seconds(at(rtol), case)) for rtol in TOLERANCES[::2]
                       if errors[rtol] < 1]  # fmt: skip
        enough = [rtol for rtol in TOLERANCES if errors[rtol] <= TARGET]
        if enough:
            rows[who] = (enough[0], errors[enough[0]])
            racers[who] = timing.Contestant(at(enough[0]), [case.y0])
        print(f"  {name}: {who}", flush=True)
    timing.interleave(list(racers.values()), SECONDS, ROUNDS)
    return [(who, *rows[who], racers[who]) for who in racers], curves


def _seconds(solve, case):
    racer = timing.Contestant(solve, [case.y0])
    timing.interleave([racer], 0.05, 5)
    return timing.summary(racer.samples.values())["median"]


def gradient():
    """Robertson's gradient by its three constants, in units of the forward solve."""
    case, weights = de.zoo.robertson(), jnp.array([1.0, 1e4, -2.0])

    def loss(args):
        problem = case.problem().replace(args=args)
        return de.solve(problem, de.Rodas5P(), rtol=1e-6, atol=1e-10).y1 @ weights

    both = [timing.Contestant(jax.jit(f), [case.args]) for f in (loss, jax.grad(loss))]
    timing.interleave(both, SECONDS, ROUNDS)
    return timing.ratio(both[1], both[0])["median"]


def plot(name, curves):
    """Error against time."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for who, points in curves.items():
        mine = who.startswith("ours")
        style = "-o" if mine else "--s" if who.startswith("diffrax") else ":^"
        errors, seconds = zip(*points, strict=True)
        axes.loglog(errors, np.array(seconds) * 1e3, style, markersize=4, label=who,
                    alpha=1 if mine else 0.6)  # fmt: skip
    axes.set(xlabel="error of the end state", ylabel="milliseconds", title=name.replace("_", " "))
    axes.invert_xaxis()
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(HERE / "plots" / f"stiff_{name}.png", dpi=130)
    plt.close(figure)


def table(name, rows):
    """Markdown of one problem."""
    quickest = min((racer for who, *_, racer in rows if who.startswith("ours")), key=_median)
    lines = [f"\n## {name.replace('_', ' ')}, error {TARGET:g}\n", *HEAD]
    for who, rtol, error, racer in sorted(rows, key=lambda row: _median(row[-1])):
        ratio = timing.ratio(racer, quickest)["median"]
        lines.append(
            f"| {who} | {rtol:.1e} | {error:.1e} | {_median(racer) * 1e6:,.0f} µs | {ratio:.1f} |"
        )
    return lines


def _median(racer):
    return timing.summary(racer.samples.values())["median"]


def main(names=CASES):
    """Measure and write."""
    jax.config.update("jax_enable_x64", True)
    here = machine.machine()
    where = f"{here['processor']}, {here['cores']} cores, JAX {jax.__version__}, float64"
    lines = [
        "# Stiff problems at equal error\n",
        f"{datetime.date.today()}, {where}. By `python -m benchmarks.stiff`, which says how.",
        f"\nGradient of Robertson by its constants, Rodas5P: {gradient():.2f} times a solve.",
    ]
    for name in names:
        rows, curves = measured(name)
        plot(name, curves)
        lines += table(name, rows)
        print("\n".join(table(name, rows)), flush=True)
    (HERE / "results" / "stiff.md").write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()

"""Mackey–Glass, τ = 17, to t = 1,003: against JiTCDDE (compiled C) and ddeint, at equal error.

    python -m benchmarks.delays [--rounds 5] [--target 1e-8]

The reference is the chain of 59 ordinary equations that the method of steps makes of it (one a
lag), solved by SciPy's DOP853. Each solver runs at the loosest tolerance that reaches the target,
or, if none does, at that of its least error. `DIFFEQ_BENCH_DELAYS_PYTHON` names an interpreter that
has the peers, if this one has not. Rounds are interleaved; each figure is a median. Writes
`results/delays.md`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import diffeq as de
from benchmarks import machine

BETA, GAMMA, POWER, LAG, START = 0.2, 0.1, 10, 17.0, 0.5
LAGS = 59
T1 = LAGS * LAG
LADDER = 10.0 ** -np.arange(6.0, 14.01, 0.5)


def reference():
    """y(T1), from the chain."""

    def field(_, z):
        old = np.concatenate([[START], z[:-1]])
        return BETA * old / (1 + old**POWER) - GAMMA * z

    ends = [START]
    for _ in range(LAGS):
        chain = solve_ivp(field, (0.0, LAG), ends, method="DOP853", rtol=3e-14, atol=1e-16)
        ends.append(chain.y[-1, -1])
    return ends[-1]


def ours(method, rtol):
    """A compiled solve: y1, seconds and steps by the tolerance."""

    def field(t, y, past, args):
        old = past(t - args[3])
        return args[0] * old / (1 + old ** int(POWER)) - args[1] * y

    problem = de.DDEProblem(field, None, (0.0, T1), history=START, lags=lambda args: args[3])

    @jax.jit
    def run(args, rtol):
        sol = de.solve(problem.replace(args=args), method, rtol=rtol, atol=rtol)
        return sol.y1, sol.stats["steps"]

    args = jnp.array([BETA, GAMMA, POWER, LAG])

    def solve(rtol):
        start = time.perf_counter()
        y1, steps = jax.block_until_ready(run(args, rtol))
        return float(y1), time.perf_counter() - start, int(steps)

    solve(rtol)
    return solve


class Peers:
    """The worker with the other libraries."""

    def __init__(self):
        python = os.environ.get("DIFFEQ_BENCH_DELAYS_PYTHON", sys.executable)
        worker = Path(__file__).parent / "peers" / "delays_worker.py"
        self.process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=tempfile.gettempdir(),  # a compiler of extensions reads the project that it is in
        )  # fmt: skip

    def ask(self, peer, rtol, repeat=1, t1=T1):
        """Its answer."""
        question = {"peer": peer, "rtol": rtol, "repeat": repeat, "t1": t1}
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def loosest(error, target, ladder=LADDER):
    """The loosest tolerance that is enough; the best there is, if none is."""
    best = (np.inf, ladder[0])
    for rtol in ladder:
        found = error(rtol)
        if found <= target:
            return rtol, found
        best = min(best, (found, rtol))
    return best[1], best[0]


def entrants(true, target):
    """Runs by name, each at its own tolerance, and what is known of them."""
    peers, runs, known = Peers(), {}, {}
    for method in (de.Tsit5(), de.Vern7(), de.Dopri8()):
        solve, name = ours(method, 1e-6), f"diffeq, {method!r}"
        rtol, error = loosest(lambda r, solve=solve: abs(solve(r)[0] - true), target)
        runs[name] = lambda solve=solve, rtol=rtol: solve(rtol)[1]
        known[name] = f"{rtol:.1e}", f"{error:.1e}", str(solve(rtol)[2])
    ladders = {"jitcdde": 10.0 ** -np.arange(6.0, 13.01, 1.0), "ddeint": (1.0, 0.5, 0.25)}
    for peer, ladder in ladders.items():
        off = lambda x, peer=peer: abs(peers.ask(peer, x).get("y1", np.inf) - true)
        rtol, error = loosest(off, target, ladder)
        if not np.isfinite(error):
            known[peer] = "–", str(peers.ask(peer, ladder[0]).get("lacking")), "–"
            continue
        runs[peer] = lambda peer=peer, rtol=rtol: peers.ask(peer, rtol)["seconds"][0]
        known[peer] = f"{rtol:.1e}", f"{error:.1e}", "–"
    return runs, known


def main():
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", type=float, default=1e-8)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    here, true = machine.machine(), reference()
    runs, known = entrants(true, options.target)
    times = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            times[name].append(run())
    median = {name: statistics.median(each) for name, each in times.items()}
    best = min(median[name] for name in runs if name.startswith("diffeq"))
    spent = lambda name: median.get(name, np.nan)
    timed = lambda name: (f"{1e3 * spent(name):.3g}", f"{spent(name) / best:.3g}")
    lines = [
        "Written by `python -m benchmarks.delays`.", "",
        f"{here['processor']}, {here['cores']} cores, load {here['load'][0]:.1f} at the start.", "",
        (f"Mackey–Glass, τ = 17, to t = {T1:g}, float64, error at the end at most "
        f"{options.target:g} (y = {true:.12f}):"), "",
        "| solver | tolerance (ddeint: spacing) | error | steps | ms | × our best |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join((name, *row, *timed(name)))} |" for name, row in known.items()), "",
    ]  # fmt: skip
    text = "\n".join(lines)
    Path(__file__).with_name("results").joinpath("delays.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

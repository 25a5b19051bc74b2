"""Mackey–Glass, τ = 17, to t = 1,003: against JiTCDDE (compiled C) and ddeint, at equal error.

    python -m benchmarks.delays [--rounds 5] [--target 1e-8]

The reference is the chain of 59 ordinary equations that the method of steps makes of it (one a
lag), solved by SciPy's DOP853.
`DIFFEQ_BENCH_DELAYS_PYTHON` names an interpreter that has the peers, if this one
has not. Rounds are interleaved; each figure is a median.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

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
    """(y1, seconds) of a compiled solve."""
    import diffeq as de

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
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

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


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", type=float, default=1e-8)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    import diffeq as de

    true, peers = reference(), Peers()
    runs, rows = {}, []
    for method in (de.Tsit5(), de.Vern7(), de.Dopri8()):
        solve = ours(method, 1e-6)
        rtol, error = loosest(lambda r, solve=solve: abs(solve(r)[0] - true), options.target)
        runs[repr(method)] = lambda solve=solve, rtol=rtol: solve(rtol)[1]
        rows.append([repr(method), rtol, error, solve(rtol)[2]])
    rtol, error = loosest(
        lambda r: abs(peers.ask("jitcdde", r).get("y1", np.inf) - true), options.target,
        ladder=10.0 ** -np.arange(6.0, 13.01, 1.0),
    )  # fmt: skip
    runs["jitcdde"] = lambda: peers.ask("jitcdde", rtol)["seconds"][0]
    rows.append(["jitcdde", rtol, error, ""])
    spacing, error = loosest(
        lambda dt: abs(peers.ask("ddeint", dt).get("y1", np.inf) - true), options.target,
        ladder=[1.0, 0.5, 0.25],
    )  # fmt: skip
    runs["ddeint"] = lambda: peers.ask("ddeint", spacing)["seconds"][0]
    rows.append(["ddeint", spacing, error, ""])
    times = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            times[name].append(run())
    print(
        "| solver | tolerance | error | steps | seconds |\n|---|---|---|---|---|  "
        f"(y1 = {true:.12f})"
    )
    for (name, rtol, error, steps), each in zip(rows, times.values(), strict=True):
        print(f"| {name} | {rtol:.1e} | {error:.1e} | {steps} | {statistics.median(each):.2e} |")


if __name__ == "__main__":
    main()

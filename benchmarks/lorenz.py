"""The published Lorenz protocol: `python -m benchmarks.lorenz` (`--quick` for a smoke test).

σ = 10, β = 8/3, ρ from 0 to 21 over 8 to 8,388,608 trajectories, from (1, 0, 0), t to 1, single
precision, end states: with 1,000 steps of Tsit5 (torchdiffeq: of RK4), and adaptive, relative and
absolute tolerance 1e-8, first step 1e-3. What is written is the least time of a call, as the
authors did. Their own figures, of an NVIDIA V100 (Utkarsh et al., Computer Methods in Applied
Mechanics and Engineering 419, 2024, 116591), are the grey lines of the plots.

Every contestant (`lorenz_racers.py`) runs alone in a process of its own: what is not installed, or
needs a GPU where there is none, is said to be so. A size whose call would take longer than
`--seconds` is left out. PyTorch may live in another environment (`DIFFEQ_BENCH_TORCH_PYTHON`).

Writes `results/lorenz.json`, `results/lorenz.md` and `plots/lorenz_fixed.png`, `…_adaptive.png`.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

import diffeq as de
from benchmarks import machine
from benchmarks.lorenz_racers import RACERS, RHO, T1, lorenz

HERE = Path(__file__).parent
MODES = ("fixed", "adaptive")
SIZES = [8 * 4**i for i in range(7)] + [131_072 * 4**i for i in range(4)]  # 8 to 8,388,608
SIZES.remove(32_768)
# Milliseconds on a V100, by number of trajectories.
PUBLISHED = {
    "fixed": {
        "Julia, kernel": {8: 0.232, 8_192: 0.239, 131_072: 3.44, 524_288: 9.74, 8_388_608: 145},
        "MPGOS (CUDA C++)": {8: 2.12, 8_192: 2.02, 131_072: 3.03, 524_288: 6.42, 8_388_608: 94.2},
        "Diffrax": {8: 60.9, 8_192: 70.8, 131_072: 198, 524_288: 730, 8_388_608: 10_038},
        "torchdiffeq": {8: 775, 8_192: 782, 131_072: 791, 524_288: 1_087, 8_388_608: 14_353},
    },
    "adaptive": {
        "Julia, kernel": {524_288: 4.66, 8_388_608: 69.5},
        "MPGOS (CUDA C++)": {8_388_608: 48.8},
        "Diffrax": {8_388_608: 2_611},
    },
}


def raced(who, mode, sizes, seconds):
    """The lines of a contestant."""
    other = os.environ.get("DIFFEQ_BENCH_TORCH_PYTHON", sys.executable)
    python = other if who == "torchdiffeq" else sys.executable
    racer = [python, str(HERE / "lorenz_racers.py"), who, mode]
    done = subprocess.run(
        [*racer, ",".join(map(str, sizes)), str(seconds)], text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        lines.append({"error": done.stderr.strip().splitlines()[-1][:200]})
    return lines


def reference(n):
    """End states of the first, the middle and the last trajectory."""
    with jax.enable_x64(True):
        problem = de.ODEProblem(lorenz, np.array([1.0, 0.0, 0.0]), (0.0, T1))
        rho = np.linspace(0.0, RHO, n, dtype=np.float32)[[0, n // 2, n - 1]].astype(float)
        sol = de.solve_ensemble(problem, de.Vern9(), args=rho, rtol=1e-12, atol=1e-12)
        return np.asarray(sol.y1)


def with_errors(lines):
    """The largest error of three end states, beside 10, which is the size of the solution."""
    for line in lines:
        if "ends" in line:
            found = np.array(line.pop("ends"))
            line["error of y"] = float(np.max(np.abs(found - reference(line["n"]))) / 10)
    return lines


def about(lines):
    """What is said of a contestant beside its times."""
    for line in lines:
        for key in ("lacks", "error"):
            if key in line:
                return line[key]
    return ""


def table(mode, found):
    """Markdown of one mode: times by contestant and size."""
    points = {who: {x["n"]: x for x in lines if "ms" in x} for who, lines in found.items()}
    ran = [who for who in points if points[who]]
    head = [f"{who} {found[who][0]['version']}" for who in ran]
    title = {"fixed": "1,000 steps", "adaptive": "adaptive, 1e-8"}[mode]
    lines = [f"\n## {title}: milliseconds\n", "| trajectories | " + " | ".join(head) + " |",
             "|---" * (len(ran) + 1) + "|"]  # fmt: skip
    for n in sorted({n for who in ran for n in points[who]}):
        row = [f"{points[who][n]['ms']:,.3g}" if n in points[who] else "" for who in ran]
        lines.append(f"| {n:,} | " + " | ".join(row) + " |")
    worst = [max(x["error of y"] for x in points[who].values()) for who in ran]
    first = [next(iter(points[who].values()))["first"] for who in ran]
    lines.append("| error | " + " | ".join(f"{x:.0e}" for x in worst) + " |")
    lines.append("| first call | " + " | ".join(f"{x:.1f} s" for x in first) + " |")
    notes = [f"{who}: {about(lines_of)}." for who, lines_of in found.items() if about(lines_of)]
    return [*lines, "", *(f"* {note}" for note in notes)]


def plot(mode, found, path):
    """Times over sizes, with the published ones in grey."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.4, 4.6), layout="constrained")
    for style, (who, known) in zip("sD^v", PUBLISHED[mode].items(), strict=False):
        label = f"{who}, V100, published"
        ax.plot(known.keys(), known.values(), f"{style}--", color="0.6", ms=4, lw=1, label=label)
    for who, lines in found.items():
        known = {x["n"]: x["ms"] for x in lines if "ms" in x}
        if known:
            own = who.startswith("ours")
            ax.plot(known.keys(), known.values(), "o-", ms=4, lw=2 if own else 1.2, label=who)
    title = {"fixed": "1,000 steps of given length", "adaptive": "adaptive, tolerance 1e-8"}[mode]
    ax.set(xscale="log", yscale="log", xlabel="trajectories", ylabel="milliseconds", title=title)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, lw=0.5)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=140)
    plt.close(figure)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each point")
    parser.add_argument("--only", nargs="+", choices=RACERS, default=list(RACERS))
    parser.add_argument("--quick", action="store_true", help="two sizes; nothing is written")
    return parser.parse_args()


def main():
    """Measure and write."""
    asked = arguments()
    sizes, seconds = ([8, 512], 0.2) if asked.quick else (SIZES, asked.seconds)
    here, found = machine.machine(), {}
    for mode in MODES:
        found[mode] = {}
        for who in asked.only:
            found[mode][who] = with_errors(raced(who, mode, sizes, seconds))
            print(mode, who, json.dumps(found[mode][who][-1]), flush=True)
    where = f"{here['processor']}, {here['cores']} cores, device {here['jax_device']}"
    text = [
        "# The Lorenz protocol\n",
        f"{datetime.date.today()}, {where}, JAX {jax.__version__}, float32 unless said otherwise.",
        f"By `python -m benchmarks.lorenz --seconds {seconds:g}`, which says how; what",
        f"a contestant would take longer than {seconds:g} s for is left out.",
    ]
    for mode in MODES:
        text += table(mode, found[mode])
    print("\n".join(text))
    if asked.quick:
        return
    kept = {"machine": here, "date": str(datetime.date.today()), "found": found}
    (HERE / "results" / "lorenz.json").write_text(json.dumps(kept, indent=1), encoding="utf8")
    (HERE / "results" / "lorenz.md").write_text("\n".join(text) + "\n", encoding="utf8")
    for mode in MODES:
        plot(mode, found[mode], HERE / "plots" / f"lorenz_{mode}.png")


if __name__ == "__main__":
    main()

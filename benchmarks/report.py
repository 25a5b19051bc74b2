"""The report of one run: `python -m benchmarks.report [results.json]` writes REPORT.md, plots."""

import argparse
import json
from pathlib import Path

from benchmarks.targets import TARGETS

HERE = Path(__file__).parent
METHOD = """\
How it is measured: each call is compiled, warmed up and waited for; its inputs change a little from
call to call. The peers of a case take turns in one process (torchdiffeq in a process of its own,
which times itself), round after round; times are medians, and a ratio is the median over the rounds
of the ratio within a round, with the least and the most. Every peer runs at the loosest tolerance,
out of eight a decade, whose achieved error is at most the target error of the case; where the case
fixes the tolerance or the step, the error is given beside it. The error is the largest difference
from a reference (many small Runge–Kutta steps in float64), relative to the largest entry, over all
variants of the inputs (of a slow solve, over those that fit in three seconds); for a gradient it is
the larger one of the loss and its gradient. What is Tsit5 here is Dopri5 where a peer has no other
(SciPy, torchdiffeq, `jax.experimental.ode`). JAX peers are under `jax.jit`, with their default
adjoint and their default way to fail. In `ode_demo`, `lax_scan` is a bound rather than a peer: the
three Dopri5 steps that the solve takes, of lengths known before, without error, controller or
search; no JAX solver can be faster than its dot products."""


def metrics(results):
    """Every measured figure by name: `{"case/mode/speedup/peer": {"median", "min", "max"}}`."""
    found = {}
    for case in results["cases"]:
        for entry in case["entries"]:
            prefix = f"{case['name']}/{entry['mode']}"
            for kind in ("speedup", "slowdown", "memory"):
                if kind in entry:
                    found[f"{prefix}/{kind}/{entry['peer']}"] = _figure(entry[kind])
        for name, figure in case["gradient_over_forward"].items():
            found[f"{case['name']}/gradient_over_forward/{name}"] = figure
    return found | _probe_metrics(results["probes"])


def _probe_metrics(probes):
    found = {}
    for mode, report in probes.get("first_call", {}).items():
        for name, figure in report["speedup"].items():
            found[f"first_call/{mode}/speedup/{name}"] = figure
    for mode, counts in _second_calls(probes, "ours"):
        for kind in ("compiles", "traces"):
            found[f"second_call/{mode}/{kind}"] = _figure(counts[kind])
    for name, figure in probes.get("import", {}).get("seconds", {}).items():
        found[f"import/{name}"] = figure
    return found


def _second_calls(probes, name):
    """The modes that were measured, with their counts."""
    report = probes.get("second_call", {}).get(name, {})
    return [(mode, counts) for mode, counts in report.items() if "compiles" in counts]


def _figure(value):
    return value if isinstance(value, dict) else {"median": value, "min": value, "max": value}


def table(results):
    """Target, measured, met: the Markdown table."""
    found = metrics(results)
    rows = [_target_row(target, found.get(target.metric)) for target in TARGETS]
    return _markdown(("case", "target", "reach", "measured", "min – max", "met?"), rows)


def _target_row(target, figure):
    sign = {">=": "≥", "<=": "≤"}[target.sense]
    bound = f"{sign} {target.bound:g} {target.unit}".strip()
    reach = "" if target.reach is None else f"{target.reach:g} {target.unit}"
    if figure is None:
        return target.title, bound, reach, "not measured", "", "–"
    met = "yes" if target.met(figure["median"], target.bound) else "no"
    if met == "yes" and target.reach is not None and target.met(figure["median"], target.reach):
        met = "yes, and reached"
    measured = f"{figure['median']:.3g} {target.unit}".strip()
    return target.title, bound, reach, measured, f"{figure['min']:.3g} – {figure['max']:.3g}", met


def _markdown(head, rows):
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def seconds(value):
    """A time with three digits and its unit."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"


def _case_section(case):
    target = case["target_error"]
    said = "as the case fixes it" if target is None else f"target error {target:g}"
    rows = [_entry_row(entry) for entry in case["entries"]]
    head = ("peer", "mode", "tolerance", "error", "median", "min – max", "against ours")
    lines = [f"### {case['title']}", "", f"`{case['name']}`, {case['dtype']}, {said}.", ""]
    lines.append(_markdown(head, rows))
    ratios = case["gradient_over_forward"]
    if ratios:
        each = (f"{name} {figure['median']:.3g}" for name, figure in ratios.items())
        lines += ["", f"Gradient over forward: {', '.join(each)}."]
    return lines + _memory_line(case) + [""]


def _memory_line(case):
    each = [f"{e['peer']} {e['memory']:.3g}" for e in case["entries"] if "memory" in e]
    if not each:
        return []
    return ["", f"Temporary memory of the gradient, in √N states: {', '.join(each)}."]


def _entry_row(entry):
    if "seconds" not in entry:
        return entry["peer"], entry["mode"], "", "", entry.get("lacking", "not run"), "", ""
    spent = entry["seconds"]
    tolerance = f"{entry['tolerance']:.1e}" if entry["tolerance"] else "fixed step"
    against = f"{entry['speedup']['median']:.3g}" if "speedup" in entry else ""
    return (
        entry["peer"],
        entry["mode"],
        tolerance,
        f"{entry['error']:.1e}",
        seconds(spent["median"]),
        f"{seconds(spent['min'])} – {seconds(spent['max'])}",
        against,
    )


def _probe_sections(probes):
    lines = []
    for mode, report in probes.get("first_call", {}).items():
        lines += [f"### First call: trace, compile and run, {mode}", ""]
        lines += [*_seconds_table(report), ""]
    second = [_second_row(name, mode, probes) for name, mode in _second_names(probes)]
    if second:
        head = ("peer", "mode", "compiles", "traces of the field", "time")
        lines += ["### Second call, with a fresh lambda of the same code", ""]
        lines += [_markdown(head, second), ""]
    if "import" in probes:
        lines += ["### Import, beyond `import jax, equinox`", "", *_seconds_table(probes["import"])]
    return lines


def _second_names(probes):
    for name, modes in probes.get("second_call", {}).items():
        for mode in modes:
            yield name, mode


def _second_row(name, mode, probes):
    counts = probes["second_call"][name][mode]
    if isinstance(counts, str):
        return name, "", counts, "", ""
    if "lacking" in counts:
        return name, mode, counts["lacking"], "", ""
    return name, mode, counts["compiles"], counts["traces"], seconds(counts["seconds"])


def _seconds_table(report):
    rows = [
        (name, seconds(figure["median"]), f"{seconds(figure['min'])} – {seconds(figure['max'])}")
        for name, figure in report["seconds"].items()
    ]
    rows += [(name, reason, "") for name, reason in report["lacking"].items()]
    return [_markdown(("peer", "median", "min – max"), rows)]


def _machine_lines(results):
    place = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    versions = ", ".join(f"{key} {value}" for key, value in results["versions"].items())
    return [f"Started {results['started']}. Machine: {place}.", "", f"Versions: {versions}."]


def markdown(results, plots):
    """The whole report."""
    lines = ["# Benchmarks", "", "Written by `python -m benchmarks.run`; do not edit.", ""]
    if results["settings"]["quick"]:
        lines += ["**A quick run: smaller cases, few rounds; these figures mean nothing.**", ""]
    lines += [*_machine_lines(results), "", "## Targets", "", table(results), "", METHOD, ""]
    lines += [f"![{name}]({name})\n" for name in plots]
    lines += ["## Cases", ""]
    for case in results["cases"]:
        lines += _case_section(case)
    lines += ["## Calls and imports", "", *_probe_sections(results["probes"])]
    return "\n".join(lines).rstrip() + "\n"


def write(results, folder):
    """REPORT.md and its plots."""
    plots = _plots(results, folder)
    (folder / "REPORT.md").write_text(markdown(results, plots))


def _plots(results, folder):
    import matplotlib as mpl

    mpl.use("Agg")
    drawn = [_targets_plot(results, folder)]
    drawn += [_curve_plot(case, mode, folder) for case in results["cases"] for mode in _modes(case)]
    return [name for name in drawn if name]


def _modes(case):
    return sorted({point["mode"] for point in case["curves"]})


def _targets_plot(results, folder):
    """How far each measured figure is beyond its target, as a factor."""
    from matplotlib import pyplot as plt

    found = metrics(results)
    bars = [
        (target.title, _margin(target, found[target.metric]["median"]))
        for target in TARGETS
        if target.bound and target.metric in found
    ]
    if not bars:
        return None
    figure, ax = plt.subplots(figsize=(9, 0.4 * len(bars) + 1), layout="constrained")
    titles, margins = zip(*reversed(bars), strict=True)
    colours = ["tab:green" if margin >= 1 else "tab:red" for margin in margins]
    ax.barh(titles, [margin - 1 for margin in margins], left=1, color=colours)
    ax.axvline(1, color="black", linewidth=1)
    ax.set_xscale("log")
    ax.set_xlabel("measured over target (right of 1: met)")
    return _saved(figure, folder, "targets.png")


def _margin(target, value):
    return value / target.bound if target.sense == ">=" else target.bound / max(value, 1e-12)


def _curve_plot(case, mode, folder):
    """Time against achieved error."""
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(point["peer"] for point in case["curves"]):
        points = [p for p in case["curves"] if p["peer"] == name and p["mode"] == mode]
        errors, spent = [p["error"] for p in points], [p["seconds"] for p in points]
        ax.loglog(errors, spent, marker="o", markersize=3, label=name)
    ax.invert_xaxis()
    ax.set(xlabel="achieved error", ylabel="seconds", title=f"{case['title']}, {mode}")
    ax.legend()
    return _saved(figure, folder, f"{case['name']}_{mode}.png")


def _saved(figure, folder, name):
    from matplotlib import pyplot as plt

    (folder / "plots").mkdir(exist_ok=True)
    figure.savefig(folder / "plots" / name, dpi=110)
    plt.close(figure)
    return f"plots/{name}"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=HERE / "results" / "results.json")
    options = parser.parse_args()
    write(json.loads(options.results.read_text()), HERE)


if __name__ == "__main__":
    main()

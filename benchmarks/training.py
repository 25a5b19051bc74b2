"""What training costs beside Diffrax and a bare program: `python -m benchmarks.training`.

The cases are those of `training_cases.py`, in single precision, by Tsit5; the contestants this
library, Diffrax as its documentation recommends, and the bare program of `bare.py`, with its stages
in straight code and in a loop. Each contestant of a case has a process of its own, in which its
first gradient is the first program of size that is compiled. The figures:

* *forward*, *gradient*, *step*: milliseconds of the loss, of its value and gradient, and of these
  with an update by Adam, each in one compiled program; medians of interleaved rounds.
* *first gradient*: processor seconds of trace, lowering, compilation and one run.
* *lines* of the compiled gradient; *copies* of the field in the loss and in the gradient, before
  the compiler makes more of them (`field_copies.py` says how they are counted).
* Memory of a gradient, for large states: what the compiled program allocates besides its inputs and
  outputs, what the process takes at its peak beyond what it has before the call; beside it the time
  of the gradient over that of the forward solve.

Losses and gradients have to agree, within what the tolerances allow; the report says where they do
not. `--quick` is a smoke test: few cases, small, and nothing is written. Otherwise the report is
`results/training.md`, with plots of the first gradient against the size of the field; for some
cases alone (`--only`), it is printed and not written.
"""

import argparse
import datetime
from dataclasses import dataclass, field
from pathlib import Path

import diffrax
import jax
import numpy as np

from benchmarks import field_copies, machine, timing, training_plots
from benchmarks.training_cases import CASES, CONTESTANTS, GROWING, QUICK, Case, case_of
from benchmarks.training_worker import Contestant, FirstCall, Worker

HERE = Path(__file__).parent
OURS, DIFFRAX, *BARE = CONTESTANTS
SECONDS, ROUNDS = 4.0, 100
LEAST = 1e-4
"""The relative difference of losses and gradients that is allowed besides that by the tolerance."""


@dataclass
class Entry:
    """What is known of a contestant of a case; `lacks` says why nothing is."""

    first: FirstCall | None = None
    copies: tuple[int, int] | None = None
    resident: int | None = None
    lacks: str = ""
    racers: dict[str, Contestant] = field(default_factory=dict)

    def median(self, mode: str) -> float:
        """Milliseconds of a mode that was timed."""
        return 1e3 * timing.summary(self.racers[mode].samples.values())["median"]

    def milliseconds(self, mode: str) -> str:
        """The same for a table, empty if the mode was not timed."""
        if mode not in self.racers:
            return ""
        median = self.median(mode)
        return f"{median:,.3f}" if median < 10 else f"{median:,.1f}"


# --- measurement ----------------------------------------------------------------------------------


def contestants(case: Case) -> list[str]:
    """Those of a case."""
    return [who for who in CONTESTANTS if not (case.written_out and who == "bare, unrolled")]


def enter(case: Case, worker: Worker) -> Entry:
    """Compile all modes of a contestant, the gradient first, and count what is in them."""
    modes = ("gradient", "forward", *(["step"] if case.trained else []))
    entry = Entry()
    try:
        calls = {mode: worker.ask("first", mode) for mode in modes}
        entry.first, entry.copies = calls["gradient"], worker.ask("copies")
        entry.resident = worker.ask("resident", "gradient") if case.large else None
        entry.racers = {mode: Contestant(worker, mode) for mode in modes}
    except RuntimeError as error:
        entry.lacks = str(error).splitlines()[0][:80]
    return entry


def measured(name: str, *, quick: bool) -> dict[str, Entry]:
    """The entries of a case, by contestant."""
    case, entries, workers = case_of(name, quick=quick), {}, []
    seconds, rounds = (0.2, 3) if quick else (SECONDS, ROUNDS)
    try:
        for who in contestants(case):
            workers.append(Worker(name, who, quick=quick))
            entries[who] = enter(case, workers[-1])
            said = entries[who].lacks or f"first gradient {entries[who].first.seconds:.1f} s"
            print(f"  {case.title}: {who}: {said}", flush=True)
        for mode in ("forward", "gradient", "step"):
            racers = [e.racers[mode] for e in entries.values() if mode in e.racers]
            if racers:
                timing.interleave(racers, seconds, rounds)
    finally:
        for worker in workers:
            worker.end()
    return entries


def first_gradient(name: str, who: str) -> float:
    """Processor seconds of the first gradient alone; NaN where there is none."""
    worker = Worker(name, who)
    try:
        return worker.ask("first", "gradient").seconds
    except RuntimeError as error:
        print(f"  {name}: {who}: {error}", flush=True)
        return float("nan")
    finally:
        worker.end()


def growing(found: dict[str, dict[str, Entry]]) -> training_plots.Curves:
    """First gradients by the size of the field; of the cases that were measured, those."""
    curves: training_plots.Curves = {}
    for prefix, sizes in GROWING.items():
        for who in contestants(case_of(f"{prefix}{sizes[0]}")):
            points = []
            for size in sizes:
                name = f"{prefix}{size}"
                known = found[name][who].first if name in found else None
                points.append((size, known.seconds if known else first_gradient(name, who)))
            curves.setdefault(prefix, {})[who] = points
            print(f"  {prefix}: {who}: {points}", flush=True)
    return curves


# --- agreement ------------------------------------------------------------------------------------


def disagreements(case: Case, entries: dict[str, Entry]) -> list[str]:
    """Sentences about losses and gradients that are not those of this library.

    A loss may differ by 10 rtol, a gradient by 30 rtol in its norm: no contestant chooses the
    steps of another.
    """
    firsts = {who: entry.first for who, entry in entries.items() if entry.first is not None}
    if OURS not in firsts:
        return [f"{case.title}: {OURS} has no gradient, with which to compare."]
    known, found = firsts[OURS], []
    for who, first in firsts.items():
        by_loss = abs(first.loss - known.loss) / abs(known.loss)
        difference = np.linalg.norm(first.gradient - known.gradient)
        by_gradient = difference / np.linalg.norm(known.gradient)
        for what, off, share in (("loss", by_loss, 10), ("gradient", by_gradient, 30)):
            if not off <= share * case.problem.rtol + LEAST:
                found.append(f"{case.title}: the {what} of {who} is off by {off:.1e} of its size.")
    return found


# --- the report -----------------------------------------------------------------------------------


def markdown(rows: list[list[str]]) -> list[str]:
    """The lines of a table whose first row is its header."""
    head, *rest = rows
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)]


def figures(found: dict[str, tuple[Case, dict[str, Entry]]]) -> list[list[str]]:
    """A row for each contestant of each case."""
    rows = [["case", "", "forward, ms", "gradient, ms", "step, ms", "first gradient, CPU s",
             "lines", "copies"]]  # fmt: skip
    for case, entries in found.values():
        for who, entry in entries.items():
            title = case.title if who == OURS else ""
            if entry.first is None or entry.copies is None:
                rows.append([title, who, entry.lacks, "", "", "", "", ""])
                continue
            times = [entry.milliseconds(mode) for mode in ("forward", "gradient", "step")]
            counts = [f"{entry.first.lines:,}", " / ".join(map(str, entry.copies))]
            rows.append([title, who, *times, f"{entry.first.seconds:.1f}", *counts])
    return rows


def memory(found: dict[str, tuple[Case, dict[str, Entry]]]) -> list[list[str]]:
    """A row for each contestant of each case with a large state."""
    rows = [["case", "", "program, MB", "at the peak, MB", "program, states", "√steps of them",
             "time, of the forward solve"]]  # fmt: skip
    for case, entries in found.values():
        state = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(case.problem.y0))
        for who, entry in entries.items():
            if not case.large or not entry.racers:
                continue
            states, steps = entry.first.bytes / state, case.problem.steps
            rows.append([
                case.title if who == OURS else "", who, f"{entry.first.bytes / 1e6:,.1f}",
                "" if entry.resident is None else f"{entry.resident / 1e6:,.1f}",
                f"{states:,.1f}", "" if steps is None else f"{states / np.sqrt(steps):,.1f}",
                f"{entry.median('gradient') / entry.median('forward'):.1f}",
            ])  # fmt: skip
    return rows


def advantages(found: dict[str, tuple[Case, dict[str, Entry]]]) -> list[list[str]]:
    """What Diffrax's figures are in units of ours; and ours in units of the bare program's best."""
    rows = [["case", "forward", "gradient", "step", "first gradient",
             "our gradient, of the bare", "our first gradient, of the bare"]]  # fmt: skip
    columns: list[list[float]] = [[] for _ in rows[0][1:]]
    for case, entries in found.values():
        ratios = _ratios(entries)
        for i, ratio in enumerate(ratios):
            columns[i] += [] if ratio is None else [ratio]
        rows.append([case.title, *("" if r is None else f"{r:.2f}" for r in ratios)])
    means = [f"{np.exp(np.mean(np.log(column))):.2f}" if column else "" for column in columns]
    return [*rows, ["geometric mean", *means]]


def _ratios(entries: dict[str, Entry]) -> list[float | None]:
    """Those of one case, None where one of the two is missing."""

    def times(over: str, under: str, mode: str) -> float | None:
        both = [entries.get(who, Entry()).racers.get(mode) for who in (over, under)]
        return None if None in both else timing.ratio(*both)["median"]

    def firsts(over: str, under: str) -> float | None:
        both = [entries.get(who, Entry()).first for who in (over, under)]
        return None if None in both else both[0].seconds / both[1].seconds

    def worst(ratios) -> float | None:
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    return [
        *(times(DIFFRAX, OURS, mode) for mode in ("forward", "gradient", "step")),
        firsts(DIFFRAX, OURS),
        worst(times(OURS, who, "gradient") for who in BARE),
        worst(firsts(OURS, who) for who in BARE),
    ]


def report(found: dict[str, tuple[Case, dict[str, Entry]]], families, plots: list[str]) -> str:
    """The whole text."""
    here = machine.machine()
    where = f"{here['processor']}, {here['cores']} cores, JAX {jax.__version__}"
    wrong = [line for case, entries in found.values() for line in disagreements(case, entries)]
    lines = [
        "# Training\n",
        f"{datetime.date.today()}, {where}, Diffrax {diffrax.__version__}, float32, Tsit5.",
        "By `python -m benchmarks.training`, which says how.\n",
        *(["**Not all agree:**\n", *(f"* {line}" for line in wrong)] if wrong else
          ["All losses and gradients agree."]),
        "\n## Beside Diffrax and the bare program\n",
        "Diffrax's figure in units of ours: above 1, ours is better. The last two columns are ours",
        "in units of the better of the two bare programs.\n",
        *markdown(advantages(found)),
        "\n## Figures\n", *markdown(figures(found)),
        "\n## Memory and time of a gradient by large states\n", *markdown(memory(found)),
        "\n## Copies of the field\n",
        "In a solve / in its gradient, each with three saved rows.\n", *markdown(families),
        *(f"\n![The first gradient by the size of the field](../{name})" for name in plots),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few small cases; nothing is written")
    parser.add_argument("--only", nargs="+", metavar="case", help=", ".join(CASES))
    options = parser.parse_args()
    names = options.only or list(QUICK if options.quick else CASES)
    found = {}
    for name in names:
        found[name] = case_of(name, quick=options.quick), measured(name, quick=options.quick)
        print("\n".join(markdown(figures({name: found[name]}))), flush=True)
    whole = not (options.quick or options.only)
    families = field_copies.table(field_copies.FAMILIES[: None if whole else 1])
    plots = []
    if whole:
        curves = growing({name: entries for name, (_, entries) in found.items()})
        plots = [training_plots.compile_time(curves, HERE / "plots")]
    text = report(found, families, plots)
    print(text)
    if whole:
        (HERE / "results" / "training.md").write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()

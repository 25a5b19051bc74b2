"""Runs the examples and writes what they reach into `examples/README.md`.

    python tools/gallery.py               runs all of them, one after the other
    python tools/gallery.py spiral heat   runs these
    python tools/gallery.py --page        runs none: only writes the page anew

What an example prints is kept in `examples/output/`, and the page is made of that alone: its rows
are the lines `| what | published | ours | seconds |` that the examples end with.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
OUTPUT = EXAMPLES / "output"
PAGE = EXAMPLES / "README.md"

_HEAD = """<!-- Written by tools/gallery.py from what the examples print. Do not edit. -->

# Examples

Each is one file in percent format: a program, and a notebook in editors that know the format.
`make gallery` runs all of them, draws their figures, and writes this page from what they print.
`python examples/NAME.py --short` runs one in a few seconds, for a first look.

*Published* is what the paper of DiffEqFlux, its documentation or its tests print, as the text of
each example says; — is where they print no number. *Ours* and *seconds*, compilation included, are
of {machine}.
"""


def names() -> list[str]:
    """All examples."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run(name: str) -> None:
    """Runs an example and keeps what it prints."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True, text=True, check=False, env={**os.environ, "MPLBACKEND": "agg"},
    )  # fmt: skip
    print(f"{name}: {time.perf_counter() - began:.0f} s")
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / f"{name}.txt").write_text(done.stdout.strip() + "\n", encoding="utf8")


def title(name: str) -> str:
    """The heading of an example."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf8")
    found = re.search(r"^# # (.*)$", text, re.MULTILINE)
    return found.group(1) if found else name


def rows(name: str) -> list[list[str]]:
    """(what, published, ours, seconds) of each row that an example printed."""
    path = OUTPUT / f"{name}.txt"
    text = path.read_text(encoding="utf8") if path.exists() else ""
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [(row + [""] * 4)[:4] for row in cells if row[0] != "what" and set(row[0]) != {"-"}]


def page() -> str:
    """The page, from what is kept."""
    machine = OUTPUT / "machine.txt"
    where = machine.read_text(encoding="utf8").strip() if machine.exists() else "one machine"
    lines = [_HEAD.format(machine=where)]
    lines += ["| example | what | published | ours | seconds |", "|---|---|---|---|---|"]
    for name in names():
        link = f"**[{title(name)}]({name}.py)**<br>[figure](figures/{name}.png)"
        for row in rows(name) or [["not run yet", "", "", ""]]:
            lines.append("| " + " | ".join([link, *row]) + " |")
            link = ""
    return "\n".join(lines) + "\n"


def _machine() -> str:
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shared = os.getloadavg()[0] > cores + 0.5 if hasattr(os, "getloadavg") else False
    return (
        f"{cores} cores of a {jax.devices()[0].device_kind.lower()} machine, JAX {jax.__version__}"
        + (", which other programs shared" if shared else "")
    )


def main(arguments: list[str]) -> None:
    """Runs what is asked for and writes the page."""
    wanted = [name for name in arguments if not name.startswith("--")]
    unknown = set(wanted) - set(names())
    if unknown:
        raise SystemExit(f"there is no example {sorted(unknown)}; there are {names()}.")
    if "--page" not in arguments:
        for name in wanted or names():
            run(name)
        (OUTPUT / "machine.txt").write_text(_machine() + "\n", encoding="utf8")
    PAGE.write_text(page(), encoding="utf8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])

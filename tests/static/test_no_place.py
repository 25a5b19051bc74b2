"""Nothing committed names one machine's folders or a package registry."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Written in pieces, so that this file does not find itself.
PLACES = re.compile(
    r"(?<![\w.~}-])/(?:"
    + "|".join(("work", "root", "home"))
    + r")/|pypi\.(?:org|python)|files\.pythonhosted"
)
SKIP = {".git", ".venv", "build", "dist", "site", "__pycache__"}


def committed() -> list[Path]:
    """What git tracks or would track; in a source archive, without git, every file."""
    asked = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", *asked],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not SKIP & {*path.relative_to(ROOT).parts}]
    else:
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def lines_with_a_place(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf8")
    except UnicodeDecodeError:  # a picture
        return []
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for number, line in enumerate(text.splitlines(), 1)
        if PLACES.search(line)
    ]


def test_nothing_committed_names_a_place() -> None:
    found = [line for path in committed() for line in lines_with_a_place(path)]
    assert not found, "\n".join(found)


def test_a_place_would_be_found() -> None:
    assert PLACES.search("see " + "/".join(("", "root", "notes.md")))
    assert PLACES.search("https://" + ".".join(("pypi", "org")))
    assert not PLACES.search("docs/work/flow.md and ../home/x")

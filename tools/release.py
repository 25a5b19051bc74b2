"""Tells whether a release is whole: `python tools/release.py v1.2.3`.

The tag, the version of the package, `CITATION.cff` and the topmost version of `CHANGELOG.md` agree,
and nothing is left under its heading [Unreleased].
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The file that has a version, and the pattern that it is found by.
VERSIONS = {
    "src/diffeq/__init__.py": r'^__version__ = "([^"]+)"$',
    "CITATION.cff": r"^version: (\S+)$",
    "CHANGELOG.md": r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$",
}


def versions(root: Path = ROOT) -> dict[str, str]:
    """The version in each file; the first one of the changelog."""
    found = {}
    for name, pattern in VERSIONS.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf8"), re.MULTILINE)
        found[name] = match[1] if match else "none"
    return found


def unreleased(root: Path = ROOT) -> str:
    """The text below the heading [Unreleased] of the changelog."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf8")
    _, _, after = text.partition("## [Unreleased]\n")
    return after.partition("\n## [")[0].strip()


def faults(tag: str, root: Path = ROOT) -> list[str]:
    """What stands against a release of this tag."""
    wanted = tag.removeprefix("v")
    found = versions(root).items()
    wrong = [f"{name} has version {version}, and the tag is {tag}" for name, version in found
             if version != wanted]  # fmt: skip
    if unreleased(root):
        wrong.append("CHANGELOG.md has entries under [Unreleased]: move them to the version")
    return wrong


if __name__ == "__main__":
    here = "v" + versions()["src/diffeq/__init__.py"]
    said = faults(sys.argv[1] if len(sys.argv) > 1 else here)
    print("\n".join(said) or "This is a release.")
    sys.exit(bool(said))

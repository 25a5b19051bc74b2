"""Prints the lowest versions that `pyproject.toml` admits, as constraints of pip:
`python tools/lowest.py > constraints.txt`. `make test JAX=lowest` runs the tests with these.
"""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"([\w.-]+)>=([\w.]+)(,!=[\w.]+)*")


def lowest() -> list[str]:
    """`name==version` for each dependency."""
    pins = []
    for needed in tomllib.loads(PROJECT.read_text(encoding="utf8"))["project"]["dependencies"]:
        found = BOUND.fullmatch(needed)
        if found is None:
            raise ValueError(f"pyproject.toml: {needed!r} has another form than name>=version,!=…")
        pins.append(f"{found[1]}=={found[2]}")
    return pins


if __name__ == "__main__":
    print("\n".join(lowest()))

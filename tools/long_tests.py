"""Writes tests/long_tests.txt: the tests that `make check` leaves to `make thorough`, by time.

    pytest -m "not thorough and not long" --durations=0 > times.txt    # on a quiet machine
    python tools/long_tests.py times.txt

Tests that took more than 1.2 seconds are added to those that are listed; but of each file
the quickest one stays, so that every subject has a test in `make check`.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

LISTED = Path(__file__).parents[1] / "tests" / "long_tests.txt"
SECONDS = 1.2
TIME = re.compile(r"^([\d.]+)s (?:setup|call|teardown) +(\S+::.+)$")


def times_of(report: str) -> dict[str, float]:
    """The seconds of each test in what pytest says with `--durations=0`."""
    found: dict[str, float] = defaultdict(float)
    for line in report.splitlines():
        if match := TIME.match(line):
            found[match[2]] += float(match[1])
    return found


def long_tests(times: dict[str, float]) -> set[str]:
    """The tests beyond the limit, but for the quickest of a file of which all are."""
    by_file: dict[str, dict[str, float]] = defaultdict(dict)
    for name, seconds in times.items():
        by_file[name.partition("::")[0]][name] = seconds
    quickest = {min(own, key=lambda name: own[name]) for own in by_file.values()}
    return {name for name, seconds in times.items() if seconds > SECONDS} - quickest


def main() -> None:
    """The command line."""
    times = times_of(Path(sys.argv[1]).read_text())
    listed = set(LISTED.read_text().splitlines()) if LISTED.exists() else set()
    listed |= long_tests(times)
    LISTED.write_text("\n".join([*sorted(listed), ""]))
    left = sum(seconds for name, seconds in times.items() if name not in listed)
    print(f"{len(listed)} long tests; those that stay took {left:.0f} s")


if __name__ == "__main__":
    main()

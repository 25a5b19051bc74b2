"""The tests that `make check` leaves to `make thorough`: cases that are marked, and long tests."""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

LONG_TESTS = Path(__file__).with_name("long_tests.txt")
"""The tests that take more than a second, one a line; `tools/long_tests.py` writes it."""


def mark_long_tests(items: list[pytest.Item]) -> None:
    """Marks the tests that are listed as long."""
    listed = set(LONG_TESTS.read_text().splitlines())
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.long)


def thorough_of_part(items: list[pytest.Item], part: str) -> tuple[list, list]:
    """The tests that are run, and those that are left out: with part "1/3" two of three that are
    thorough, by their names, are left to parts "0/3" and "2/3". A part "" is all.
    """
    if not part:
        return items, []
    which, count = map(int, part.split("/"))
    assert 0 <= which < count, f"the part {part} of the thorough tests: 0/3 is the first of three"
    runs, leaves = [], []
    for item in items:
        left = zlib.crc32(item.nodeid.encode()) % count != which
        (leaves if left and item.get_closest_marker("thorough") else runs).append(item)
    return runs, leaves


def shortly(cases: Iterable, *short: Any) -> list:
    """The cases of a parametrised test: those named are its short form, the others are thorough."""
    cases = list(cases)
    names = [case.stem if isinstance(case, Path) else str(case) for case in cases]
    kept = {str(name) for name in short}
    assert kept <= set(names), f"no such case: {kept - set(names)}"
    return [
        case if name in kept else pytest.param(case, marks=pytest.mark.thorough)
        for case, name in zip(cases, names, strict=True)
    ]

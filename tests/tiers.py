"""Which cases of a test stay with it in `make check`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest


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

"""The list of long tests names tests that there are."""

import ast
from pathlib import Path

from tests.tiers import LONG_TESTS

ROOT = Path(__file__).parents[2]


def test_every_long_test_is_one():
    """By file and function: a test that was renamed would silently be a quick one."""
    listed: dict[str, set[str]] = {}
    for line in LONG_TESTS.read_text().splitlines():
        file, _, name = line.partition("::")
        listed.setdefault(file, set()).add(name.partition("[")[0])
    assert len(listed) > 50
    for file, names in listed.items():
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert names <= functions, file

"""The list of long tests names tests that there are; parts of the thorough ones are all of them."""

import ast
from pathlib import Path

from tests.tiers import LONG_TESTS, thorough_of_part

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


def test_the_parts_of_the_thorough_tests_are_all_of_them():
    class Item:
        def __init__(self, number: int):
            self.nodeid, self.thorough = f"tests/test_x.py::test_y[{number}]", number % 4 > 0

        def get_closest_marker(self, name: str) -> bool:
            return name == "thorough" and self.thorough

    items = [Item(i) for i in range(400)]
    parts = [thorough_of_part(items, f"{i}/3") for i in range(3)]
    for runs, leaves in parts:
        assert sorted(runs + leaves, key=items.index) == items
        assert all(item.thorough for item in leaves)
        assert 60 < sum(item.thorough for item in runs) < 140
    assert all(sum(item in runs for runs, _ in parts) == 1 for item in items if item.thorough)
    assert thorough_of_part(items, "") == (items, [])

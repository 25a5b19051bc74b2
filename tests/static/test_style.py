"""Every module says what it is; no function is longer than a screen or deeply nested."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "diffeq"
PATHS = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf8")) for name, path in PATHS.items()}
MODULES = pytest.mark.parametrize("module", TREES)

MOST_LINES = 60
DEEPEST_NEST = 4
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(module: str) -> Iterator[Function]:
    return (node for node in ast.walk(TREES[module]) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """The lines of a body, from its first statement after the docstring to its last line."""
    first = function.body[0]
    if ast.get_docstring(function) is not None and len(function.body) > 1:
        first = function.body[1]
    return (function.end_lineno or first.lineno) - first.lineno + 1


def nest(node: ast.AST) -> int:
    """How deep the blocks inside a node stand in each other; an `elif` stands beside its `if`."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        is_elif = (
            isinstance(node, ast.If)
            and node.orelse == [child]
            and isinstance(child, ast.If)
            and child.col_offset == node.col_offset
        )
        deepest = max(deepest, nest(child) + (isinstance(child, BLOCKS) and not is_elif))
    return deepest


@MODULES
def test_module_has_a_docstring(module: str) -> None:
    assert ast.get_docstring(TREES[module]), f"{module} does not say what it is"


@MODULES
def test_bodies_fit_on_a_screen(module: str) -> None:
    long = {f.name: n for f in functions(module) if (n := body_lines(f)) > MOST_LINES}
    assert not long, f"{module} has bodies of more than {MOST_LINES} lines: {long}"


@MODULES
def test_nests_are_shallow(module: str) -> None:
    deep = {f.name: n for f in functions(module) if (n := nest(f)) > DEEPEST_NEST}
    assert not deep, f"{module} has nests of more than {DEEPEST_NEST}: {deep}"


def test_an_elif_is_no_nest() -> None:
    source = "def f(x):\n if x:\n  pass\n elif x:\n  pass\n elif x:\n  for i in x: pass\n"
    assert nest(ast.parse(source).body[0]) == 2

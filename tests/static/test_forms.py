"""The behaviour of an equation is in its class: no code outside of `problems` asks which class a
form or a problem is of, so that one of one's own is solved by what it says of itself.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffeq.problems import Problem
from diffeq.problems.forms import Form

ROOT = Path(__file__).parents[2] / "src" / "diffeq"
OUTSIDE = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf8"))
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0] != "problems"
}


def subclasses(kind: type) -> Iterator[type]:
    """All subclasses that the package itself defines."""
    for each in kind.__subclasses__():
        if each.__module__.startswith("diffeq."):
            yield each
            yield from subclasses(each)


FORMS = {kind.__name__ for kind in (Form, *subclasses(Form))}
# Whether something is a problem at all is no question of its class.
PROBLEMS = {kind.__name__ for kind in subclasses(Problem)}

# What looks at the arguments of a user's call: whether they are of the kind that is wanted, and
# whether what belongs to a kind fits.
CHECKS = {
    "consistent.py": {"DAEProblem", "ImplicitDAEProblem"},
    "validation/call.py": {"CDEProblem"},
    "validation/problem_checks.py": {"DAEProblem", "ImplicitDAEProblem", "JumpProblem"},
}


def classes_asked_for(tree: ast.AST, local: dict[str, str]) -> Iterator[str]:
    """The classes that a module compares the class of an object with: by `isinstance` and
    `issubclass`, by `type(x) is C`, by a pattern of `match`, by a table, and by the name of a
    class.
    """
    for node in ast.walk(tree):
        within: list[ast.AST] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            within = node.args[1:] if node.func.id in ("isinstance", "issubclass") else []
        elif isinstance(node, ast.Compare) and any(
            map(_is_class_of, (node.left, *node.comparators))
        ):
            within = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchClass):
            within = [node.cls]
        elif isinstance(node, ast.Dict):  # a table by class
            within = [key for key in node.keys if isinstance(key, ast.Name | ast.Attribute)]
        for part in (inner for x in within for inner in ast.walk(x)):
            if isinstance(part, ast.Name):
                yield local.get(part.id, part.id)
            elif isinstance(part, ast.Attribute):
                yield part.attr
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def _is_class_of(node: ast.AST) -> bool:
    """True of `type(x)`, `x.__class__`, and their names."""
    if isinstance(node, ast.Attribute):
        return node.attr == "__class__" or (node.attr == "__name__" and _is_class_of(node.value))
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"


def local_names(tree: ast.AST) -> dict[str, str]:
    """The names under which a module imports others: `from x import A as B` is {"B": "A"}."""
    return {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }


@pytest.mark.parametrize("module", OUTSIDE)
def test_no_code_asks_for_the_class_of_a_form(module: str) -> None:
    tree = OUTSIDE[module]
    found = FORMS & set(classes_asked_for(tree, local_names(tree)))
    assert not found, f"{module} asks for {sorted(found)}: make what it does a method of the form"


@pytest.mark.parametrize("module", OUTSIDE)
def test_no_code_asks_for_the_class_of_a_problem(module: str) -> None:
    tree = OUTSIDE[module]
    found = PROBLEMS & set(classes_asked_for(tree, local_names(tree)))
    strange, gone = found - CHECKS.get(module, set()), CHECKS.get(module, set()) - found
    assert not strange, f"{module} asks for {sorted(strange)}: make it a property of the problem"
    assert not gone, f"{module} no longer asks for {sorted(gone)}: take them off the list"


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(form, Implicit)",
        "isinstance(form, Ode | forms.Mass)",
        "issubclass(type(form), (Ode, Split))",
        "type(form) is Mass",
        "form.__class__ == Split",
        "type(form).__name__ == 'Partitioned'",
        "match form:\n case Sde(): pass",
        "{Split: 1, Mass: 2}[type(form)]",
        "from a import Implicit as Residual\nisinstance(form, Residual)",
    ],
)
def test_each_way_of_asking_is_seen(line: str) -> None:
    tree = ast.parse(line)
    assert FORMS & set(classes_asked_for(tree, local_names(tree)))


def test_the_classes_were_found() -> None:
    assert {"Ode", "Mass", "HigherIndex", "Implicit", "Ito", "Delayed"} <= FORMS
    assert {"ODEProblem", "DAEProblem", "SDDEProblem", "JumpProblem"} <= PROBLEMS
    assert not CHECKS.keys() - OUTSIDE.keys()

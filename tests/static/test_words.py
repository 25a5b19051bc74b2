"""The field's words: names that say one thing, and sentences that begin with their subject."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "diffeq"
PATHS = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf8")) for name, path in PATHS.items()}
MODULES = pytest.mark.parametrize("module", TREES)

# Metaphors and private words that the package had. `docs/extend/words.md` has those in their place.
NOT_OURS = {
    "alarm", "anew", "arrivals", "asked", "beside", "door", "echo", "echoes", "graft",
    "harmless", "heard", "kick", "lean", "march", "onward", "poison", "scout", "stand",
    "strays", "strip", "taking", "tired", "told", "whence",
}  # fmt: skip
THEIRS = {
    "kick": {"methods/", "problems/"},  # of a splitting method: drift and kick
}

# Files of one name, each the part of its folder that the name says.
OF_THEIR_FOLDER = {"__init__", "base"}
SAME_SUBJECT = {
    "call", "cde", "dae", "dde", "dirk", "firk", "linear", "ode", "partitioned", "progress",
    "rosenbrock",
    "sde", "second_order", "solution", "solve", "spline", "steady_state",
}  # fmt: skip

# Names that several modules define in one meaning: rules of a primitive or of an interpreter, and
# the same quantity of different methods.
RULES = {
    "_abstract", "_batch", "_branches", "_broadcast", "_called", "_concatenate", "_dot",
    "_dynamic_slice", "_elementwise", "_equation", "_implementation", "_jvp", "_loop", "_reshape",
    "_rule", "_scan", "_slice", "_split", "_squeeze", "_transpose", "_walk", "_while", "_widened",
}  # fmt: skip
ONE_MEANING = {
    "State",  # of the loop, and the public one around it
    "Hermite",  # an interpolant of a step, and one of a table
    "Polynomial",  # an interpolant, and a basis of functions of `nn`
    "Layer", "NeuralODE", "Solution", "solve",  # of JAX, and of torch
    "check_method",  # that it is one (validation), and that it keeps its contract (testing)
    "_answer", "_check_count", "_compiled",
    "_horner", "_is_array", "_list_as_array", "_lower_inverse", "_message", "_real_dtype", "_same",
    "_scaled", "_solve_nonstiff_first", "_status", "_tolerance",
}  # fmt: skip


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                yield text


def identifiers(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives: to functions, classes, arguments and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@MODULES
def test_docstrings_begin_with_their_subject(module: str) -> None:
    vague = ("What ", "Whether ", "How ", "Nothing", "The same")
    found = [text.split("\n")[0] for text in docstrings(TREES[module]) if text.startswith(vague)]
    assert not found, f"say what it is or does, the subject first: {found}"


@MODULES
def test_names_are_of_the_field(module: str) -> None:
    allowed = {w for w, homes in THEIRS.items() if module.startswith(tuple(homes))}
    private = NOT_OURS - allowed
    found = {x for x in identifiers(TREES[module]) if private & set(x.lower().split("_"))}
    assert not found, f"docs/extend/words.md has the field's words for {sorted(found)}"


def test_a_file_name_has_one_meaning() -> None:
    homes = defaultdict(list)
    for name, path in PATHS.items():
        homes[path.stem].append(name)
    twice = {stem: where for stem, where in homes.items() if len(where) > 1}
    known = OF_THEIR_FOLDER | SAME_SUBJECT
    assert not twice.keys() - known, {stem: twice[stem] for stem in twice.keys() - known}


def test_a_name_has_one_meaning() -> None:
    homes = defaultdict(set)
    for module, tree in TREES.items():
        if not module.startswith(("zoo/", "methods/tableaus/")):
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    homes[node.name].add(module)
    twice = {name: sorted(where) for name, where in homes.items() if len(where) > 1}
    strange = {name: where for name, where in twice.items() if name not in RULES | ONE_MEANING}
    assert not strange, f"defined in several modules; say what each is: {strange}"
    gone = (RULES | ONE_MEANING) - twice.keys()
    assert not gone, f"these have one home by now; take them off the list: {sorted(gone)}"

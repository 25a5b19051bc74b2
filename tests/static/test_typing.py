"""Type checkers and editors know every public name from `import diffeq as de` alone."""

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from tests.static.test_public import NAMES

import diffeq as de

ROOT = Path(__file__).parents[2]


def tool(name: str) -> types.ModuleType:
    """A module of `tools/`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", ["", "methods"])
def test_a_stub_is_what_its_tool_writes(package: str) -> None:
    stubs = tool("stubs")
    path = stubs.PACKAGE / package / "__init__.pyi"
    assert stubs.STUBS[path]() == path.read_text(encoding="utf8"), "run: python tools/stubs.py"


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src" / "diffeq" / "py.typed").exists()


def test_dir_is_what_is_public() -> None:
    assert [name for name in dir(de) if not name.startswith("__")] == sorted(de.__all__)
    assert all(hasattr(de, name) for name in dir(de))


@pytest.mark.parametrize(
    "name", [n for n, k in de.METHODS.items() if k.__module__ == "diffeq.methods"]
)
def test_the_help_of_a_method_says_its_order_and_what_it_is_for(name: str) -> None:
    table = de.METHODS[name]().tableau
    text = de.METHODS[name].__doc__
    assert text.startswith(table.description)
    assert f"Order {table.order:g}" in text
    assert f"{table.stages} stage" in text


def complaints(*paths: str | Path) -> list[dict]:
    """What pyright finds wrong in these files, with the settings of the repository."""
    command = [sys.executable, "-m", "pyright", "--outputjson", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] > 0
    return found["generalDiagnostics"]


@pytest.mark.thorough
def test_pyright_knows_every_name_that_is_used() -> None:
    # diffeq.torch is there after an import of its own.
    names = [name if name.startswith("torch.") else f"de.{name}" for name in NAMES]
    lines = ["import diffeq as de", "from diffeq import torch", *names, "de.Tsit6"]
    with NamedTemporaryFile("w", suffix=".py", dir=ROOT / "tests", encoding="utf8") as program:
        program.write("\n".join([*lines, "de.nn.NeuralXDE\n"]))
        program.flush()
        found = complaints(program.name, "examples", "tests/users")
    strange = " is not a known attribute of module "
    unknown = [c["message"].split(strange)[0] for c in found if strange in c["message"]]
    assert sorted(unknown) == ['"NeuralXDE"', '"Tsit6"']  # and nothing that is there
    # The examples call everything as its signature says.
    named = ("No parameter named", "Arguments missing", "Argument missing")
    calls = [f"{c['file']}: {c['message']}" for c in found if c["message"].startswith(named)]
    assert not [call for call in calls if "examples" in call]

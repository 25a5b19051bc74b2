"""Writes what type checkers and editors read of the package: `python tools/stubs.py`.

The methods are made at run time, one class for each table, so `src/diffeq/methods/__init__.pyi`
declares them; `src/diffeq/__init__.pyi` says where each public name is from. Both are made of the
names that the package exports and are committed; `tests/static/test_typing.py` holds that they are
current.
"""

import inspect
import subprocess
import sys
import types
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from textwrap import indent

import diffeq as de
from diffeq import methods

PACKAGE = Path(__file__).parents[1] / "src" / "diffeq"

WRITTEN = "# Written by tools/stubs.py. Do not edit: run it again."
# The types of the options that a named method may have.
OPTIONS = {
    "stages": 'Literal["loop", "unrolled"] | None',
    "linear": "lineax.AbstractLinearSolver | Krylov | None",
}
CLASS = '''
class {name}({family}):
    """{doc}
    """

    def __init__(self{options}) -> None: ...
'''


def homes(names: Iterable[str], package: types.ModuleType) -> dict[str, list[str]]:
    """The module that each of the names is defined in, below the package: that of a class or of a
    function, and for other values the package's own attribute of that name.
    """
    found = defaultdict(list)
    for name in names:
        value = getattr(package, name)
        home = package.__name__ if inspect.ismodule(value) else value.__module__
        found[home.removeprefix(package.__name__)].append(name)
    return found


def imports(names: Iterable[str], package: types.ModuleType) -> list[str]:
    """The import statements of these names, one for each module."""
    found = homes(names, package).items()
    return [f"from {module or '.'} import {', '.join(here)}" for module, here in found]


def listed(names: Iterable[str]) -> str:
    """The statement that says which names are public."""
    return f"__all__ = [{', '.join(map(repr, names))}]\n"


def in_house_format(text: str) -> str:
    """The text of a stub as the linter and the formatter leave it."""
    for command in (["check", "--fix-only", "--quiet"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(PACKAGE / "x.pyi")]
        done = subprocess.run([*ruff, "-"], input=text, capture_output=True, text=True, check=True)
        text = done.stdout
    return text


def made(name: str, kind: type) -> str:
    """The declaration of a method that is made of a table."""
    given = list(inspect.signature(kind).parameters)
    options = ", *" if given else ""
    options += "".join(f", {option}: {OPTIONS[option]} = None" for option in given)
    doc = inspect.cleandoc(kind.__doc__ or "")
    doc = doc.partition("\n")[0] + "\n" + indent(doc.partition("\n")[2], "    ")
    family = kind.__bases__[0].__name__
    return CLASS.format(name=name, family=family, doc=doc.rstrip(), options=options)


def methods_stub() -> str:
    """`src/diffeq/methods/__init__.pyi`."""
    tables = {n: k for n, k in de.METHODS.items() if k.__module__ == methods.__name__}
    others = [n for n in methods.__all__ if n not in tables and n != "METHODS"]
    head = [
        WRITTEN,
        f'"""{methods.__doc__}"""\n',
        "from typing import Literal\n",
        "import lineax\n",
        "from ..algebra.preconditioner import Krylov",
        *imports(others, methods),
        "",
        "METHODS: dict[str, type[Method]]\n",
        listed(methods.__all__),
    ]
    return in_house_format("\n".join(head) + "".join(made(*pair) for pair in tables.items()))


def package_stub() -> str:
    """`src/diffeq/__init__.pyi`."""
    names = [name for name in de.__all__ if name not in methods.__all__]
    head = [
        WRITTEN,
        f'"""{de.__doc__}"""\n',
        *imports(names, de),
        f"from .methods import {', '.join(methods.__all__)}",
        "",
        "__version__: str\n",
        listed(de.__all__),
    ]
    return in_house_format("\n".join(head))


STUBS = {
    PACKAGE / "__init__.pyi": package_stub,
    PACKAGE / "methods" / "__init__.pyi": methods_stub,
}

if __name__ == "__main__":
    for path, stub in STUBS.items():
        path.write_text(stub(), encoding="utf8")
        print(f"wrote {path.relative_to(PACKAGE.parents[1])}")

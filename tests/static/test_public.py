"""Every public name is documented with an example, and the public API is what public_api.txt says.

`make api` (or: python tests/static/test_public.py) writes that file anew; its difference is then
part of the change that is reviewed.
"""

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffeq
import diffeq.torch

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def public(module: types.ModuleType = diffeq, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Each public name, those of public submodules (`nn.NeuralODE`) included."""
    for name in sorted(module.__all__):
        value = getattr(module, name)
        yield prefix + name, value
        if isinstance(value, types.ModuleType) and hasattr(value, "__all__"):
            yield from public(value, f"{prefix}{name}.")


def parameters(function: object) -> str:
    """A signature without annotations: `(problem, method=None, *, dense=False)`."""
    try:
        signature = inspect.signature(function)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return "(...)"
    plain = []
    for one in signature.parameters.values():
        default = one.default
        if default is not one.empty and not isinstance(default, bool | int | float | str | None):
            default = Ellipsis  # not everything has a repr that is the same on every machine
        plain.append(one.replace(annotation=one.empty, default=default))
    bare = signature.replace(parameters=plain, return_annotation=signature.empty)
    return str(bare).replace("Ellipsis", "...")


def members(cls: type) -> Iterator[str]:
    """The public methods and properties that a class itself defines; its fields are parameters."""
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_") or name in inspect.get_annotations(cls):
            continue
        if isinstance(value, property):
            yield f".{name}"
        elif isinstance(value, classmethod | staticmethod) or callable(value):
            yield f".{name}{parameters(getattr(cls, name))}"


def describe(name: str, value: object) -> Iterator[str]:
    if isinstance(value, type):
        yield f"class {name}{parameters(value)}"
        yield from (f"    {member}" for member in members(value))
    elif isinstance(value, types.ModuleType):
        yield f"module {name}"
    elif callable(value):
        yield f"{name}{parameters(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


# `import diffeq` leaves out its part for PyTorch.
NAMES = dict([*public(), *public(diffeq.torch, "torch.")])


def snapshot() -> str:
    return "".join(f"{line}\n" for pair in NAMES.items() for line in describe(*pair))


EXAMPLES = [name for name, value in NAMES.items() if callable(value) and not name.startswith("__")]


def test_all_lists_names_once_and_hides_the_private() -> None:
    assert len(set(diffeq.__all__)) == len(diffeq.__all__)
    assert not [n for n in diffeq.__all__ if n.startswith("_") and n != "__version__"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_public_name_has_a_docstring_with_an_example(name: str) -> None:
    text = NAMES[name].__doc__ or ""
    assert text.strip(), f"diffeq.{name} has no docstring"
    assert ">>> " in text, f"the docstring of diffeq.{name} has no example"


@pytest.mark.parametrize("name", [n for n in NAMES if isinstance(NAMES[n], types.ModuleType)])
def test_public_module_has_a_docstring(name: str) -> None:
    assert (NAMES[name].__doc__ or "").strip(), f"diffeq.{name} has no docstring"


def test_public_api_is_the_one_written_down() -> None:
    written = SNAPSHOT.read_text(encoding="utf8").splitlines()
    assert snapshot().splitlines() == written, "if this change of the API is meant: make api"


@pytest.mark.parametrize(("name", "instead"), diffeq._REPLACED.items())
def test_a_name_that_was_public_says_what_stands_in_its_place(name: str, instead: str) -> None:
    with pytest.raises(AttributeError, match=f"{re.escape(instead)} stands in its place"):
        getattr(diffeq, name)
    assert not hasattr(diffeq, name)
    assert name not in dir(diffeq)
    assert name not in NAMES
    made = eval(instead, {"de": diffeq})
    assert isinstance(made, diffeq.Gauss)


def test_an_unknown_name_is_the_error_of_a_module() -> None:
    with pytest.raises(
        AttributeError, match=r"^module 'diffeq' has no attribute 'Tsit6'$"
    ) as found:
        diffeq.Tsit6  # noqa: B018
    assert (found.value.name, found.value.obj) == ("Tsit6", diffeq)


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf8")
    print(f"wrote {len(NAMES)} names to {SNAPSHOT.name}")

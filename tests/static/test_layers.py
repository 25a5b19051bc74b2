"""Imports go strictly down, in no cycle; few hide in functions; what JAX does not document is used
in one file.

The layers are those of the design. A part of the package (a folder, or a module at the top) has one
level, and imports only parts of a lower level; inside a part, modules import each other freely, but
in no cycle. The modules of the level `solve` are one part.
"""

import ast
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from inspect import Signature
from pathlib import Path

import pytest
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Primitive, Var

ROOT = Path(__file__).parents[2] / "src" / "diffeq"

SOLVE = (
    "solve",
    "solution",
    "stepping",
    "capture_call",
    "diagnosis",
    "index_advice",
    "validation",
    "output_plan",
    "consistent",
    "steady_state",
)
LAYERS = (
    ("core",),
    ("autodiff",),
    ("closures",),
    ("algebra",),
    ("problems", "brownian", "interp", "stats"),
    ("methods",),
    ("controllers", "output", "events"),
    ("integrator",),
    ("adjoints",),
    SOLVE,
    ("nn", "train", "ensemble", "plot", "zoo", "datasets", "testing", "torch", "selftest"),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
ONE_PART = dict.fromkeys(SOLVE, "solve")

HEAVY = {"lineax", "matplotlib", "optax", "optimistix", "scipy", "tqdm", "torch", "torchax", "flax"}
# A part that `import diffeq` leaves out, and which its own import brings in with these.
ITS_OWN_IMPORT = {"torch": {"torch", "torchax"}}
LAZY_INSIDE = {("diffeq.solution", "plot"): "diffeq.plot"}  # Solution.plot

# What JAX does not document, used in one file, and by the kernels of a GPU for themselves.
PRIVATE = (
    "jax._src",
    "jax.api_util",
    "jax.core",
    "jax.extend",
    "jax.interpreters",
    "jax.linear_util",
)
PRIVATE_HOME = "diffeq.autodiff.jax_internals"
KERNELS = "diffeq.ensemble.gpu_kernel"
# The attributes of a jaxpr and of its parts, but for names that objects of Python have as well.
JAXPR_ATTRIBUTES = {
    name
    for kind in (Jaxpr, JaxprEqn, Literal, Primitive, Var)
    for name in dir(kind)
    if not name.startswith("_")
} - {*dir(str), *dir(Signature)}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf8")) for name, path in PATHS.items()}
MODULES = pytest.mark.parametrize("module", TREES)


def imports(node: ast.AST, module: str) -> list[str]:
    """The full names that an import statement names: `a.b` and, of `from a import b`, `a.b`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    source = node.module or ""
    if node.level:
        package = (
            module.split(".") if PATHS[module].name == "__init__.py" else module.split(".")[:-1]
        )
        package = package[: len(package) - node.level + 1]
        source = ".".join([*package, source]) if source else ".".join(package)
    return [f"{source}.{alias.name}" for alias in node.names]


def all_imports(module: str) -> Iterator[str]:
    for node in ast.walk(TREES[module]):
        yield from imports(node, module)


def imports_in_functions(module: str) -> Iterator[tuple[str, str]]:
    """Pairs (function, imported name), for each import that runs only when a function does."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                yield from ((node.name, name) for name in imports(inner, module))


def part(name: str) -> str:
    """The part of the package that holds a name; "" is the package's own `__init__`."""
    _, _, below = name.partition(".")
    return below.split(".")[0]


def own(name: str) -> bool:
    return name.split(".")[0] == "diffeq"


def resolve(name: str) -> str:
    """The module that an imported name comes from."""
    is_part = name.count(".") == 1 and part(name) in LEVEL
    return name if name in TREES or is_part else name.rpartition(".")[0]


def lazy(module: str) -> set[str]:
    return {
        name
        for function, name in imports_in_functions(module)
        if (home := LAZY_INSIDE.get((module, function))) and f"{name}.".startswith(f"{home}.")
    }


def test_the_package_was_found() -> None:
    assert len(TREES) > 5


def test_every_part_has_a_level() -> None:
    strange = {part(module) for module in TREES} - LEVEL.keys() - {""}
    assert not strange, f"give these parts of the package a layer in LAYERS: {sorted(strange)}"


@MODULES
def test_imports_go_strictly_down(module: str) -> None:
    here = part(module)
    climbs = []
    for name in filter(own, set(all_imports(module)) - lazy(module)):
        there = part(resolve(name))
        same = ONE_PART.get(here, here) == ONE_PART.get(there, there)
        if here and not same and LEVEL.get(there, len(LAYERS)) >= LEVEL[here]:
            climbs.append(name)
    assert not climbs, f"{module} may not import {climbs}"


def test_no_cycles() -> None:
    graph = {
        module: {resolve(name) for name in set(all_imports(module)) - lazy(module) if own(name)}
        - {module}
        for module in TREES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a cycle of imports: " + " -> ".join(error.args[1]))


@MODULES
def test_imports_inside_functions_are_of_heavy_packages(module: str) -> None:
    allowed = lazy(module)
    hidden = [
        f"{function}: {name}"
        for function, name in imports_in_functions(module)
        if name not in allowed and name.split(".")[0] not in HEAVY
    ]
    assert not hidden, f"{module} hides imports in functions: {hidden}"


@MODULES
def test_heavy_packages_are_imported_only_inside_functions(module: str) -> None:
    inside = {name for _, name in imports_in_functions(module)}
    heavy = HEAVY - ITS_OWN_IMPORT.get(part(module), set())
    eager = [name for name in all_imports(module) if name.split(".")[0] in heavy]
    assert set(eager) <= inside, f"{module} imports {set(eager) - inside} when diffeq is imported"


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain that starts at a name, or ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def aliases(module: str) -> dict[str, str]:
    """What each imported local name stands for."""
    found = {}
    for node in ast.walk(TREES[module]):
        for full, alias in zip(imports(node, module), getattr(node, "names", ()), strict=False):
            found[alias.asname or alias.name.split(".")[0]] = (
                full if alias.asname or isinstance(node, ast.ImportFrom) else full.split(".")[0]
            )
    return found


def used_names(module: str) -> Iterator[str]:
    yield from all_imports(module)
    known = aliases(module)
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and (chain := dotted(node)):
            first, _, rest = chain.partition(".")
            yield f"{known.get(first, first)}.{rest}"


def homes_aside(test: Callable) -> Callable:
    """For each module that knows JAX by its documentation alone."""
    others = [m for m in TREES if m != PRIVATE_HOME and not f"{m}.".startswith(f"{KERNELS}.")]
    return pytest.mark.parametrize("module", others)(test)


@homes_aside
def test_what_jax_does_not_document_is_imported_in_one_file(module: str) -> None:
    private = tuple(f"{p}." for p in (*PRIVATE, "equinox.internal"))
    used = {name for name in used_names(module) if f"{name}.".startswith(private)}
    assert not used, f"{module} uses {sorted(used)}; {PRIVATE_HOME} is the place for it"


def declared(module: str) -> set[str]:
    """The attributes that the classes of a module declare."""
    classes = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.ClassDef)]
    fields = [f for node in classes for f in node.body if isinstance(f, ast.AnnAssign)]
    return {f.target.id for f in fields if isinstance(f.target, ast.Name)}


def jaxpr_attributes(module: str) -> list[str]:
    """Where a module reads an attribute of a jaxpr or of an equation: one of that name which is
    neither of `self` nor of a class that declares it in this module.
    """
    ours = declared(module)
    return [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Attribute)
        and node.attr in JAXPR_ATTRIBUTES - ours
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    ]


@homes_aside
def test_a_jaxpr_and_its_equations_are_read_in_one_file(module: str) -> None:
    used = jaxpr_attributes(module)
    assert not used, f"{module} looks into a jaxpr: {used}; {PRIVATE_HOME} has functions for it"


def test_attributes_of_a_jaxpr_are_seen() -> None:
    assert {"eqns", "invars", "outvars", "constvars", "jaxpr", "consts"} <= JAXPR_ATTRIBUTES
    assert {"primitive", "params", "aval", "val", "in_avals", "impl"} <= JAXPR_ATTRIBUTES
    assert len(jaxpr_attributes(PRIVATE_HOME)) > 50

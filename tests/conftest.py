"""What tests share: double precision, checked annotations, kept compilations, fixed examples."""

import ast
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from hypothesis import settings
from jaxtyping import _import_hook, install_import_hook
from jaxtyping._import_hook import JaxtypingTransformer
from tests.tiers import mark_long_tests, thorough_of_part

jax.config.update("jax_enable_x64", True)

# XLA's own passes are those of a user, and LLVM optimises nothing: a test compiles a program for
# seconds and runs it for milliseconds. It halves the time of the suite.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

# Programs are large graphs that live to the end. Python's collector, which looks through all of
# them again and again, takes an eighth of the time at its own thresholds.
gc.set_threshold(50_000, 20, 100)


class Outer(JaxtypingTransformer):
    """Decorates functions of modules and classes. One inside another is made at each call of that,
    and decorated each time would take longer than all that is checked.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        inside = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
        return node if inside else super().visit_FunctionDef(node)


# Every annotation of the package is checked at run time, shapes included. The hook has to come
# before the first import of diffeq. DIFFEQ_CHECK_TYPES=0 leaves it out, to debug without
# beartype's frames.
if os.environ.get("DIFFEQ_CHECK_TYPES", "1") != "0":
    _import_hook.JaxtypingTransformer = Outer
    install_import_hook("diffeq", "beartype.beartype")

# The same few examples on every machine: a failure is never a matter of luck.
settings.register_profile(
    "diffeq", derandomize=True, max_examples=10, deadline=None, database=None, print_blob=False
)
settings.load_profile("diffeq")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs between runs and share them between workers, in pytest's own cache."""
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the long tests, and leave out what is not of the part of the thorough ones."""
    mark_long_tests(items)
    items[:], left_out = thorough_of_part(items, os.environ.get("DIFFEQ_PART", ""))
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Compiled programs are forgotten after a module where they are many.

    Each is mapped into memory in pieces, of which Linux allows a process 65,530. Beyond them XLA
    "failed to materialize symbols" of the next program, or the process ends.
    """
    yield
    if _mapped_pieces() > 20_000:
        jax.clear_caches()
        gc.collect()


def _mapped_pieces() -> int:
    """The pieces of memory that this process has mapped; 0 where the system does not tell."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0

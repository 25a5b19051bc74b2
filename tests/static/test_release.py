"""The version is one number, and a release is refused where something does not agree."""

import importlib.util
import types
from pathlib import Path

import pytest

import diffeq as de

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def release() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version_is_in_every_file(release: types.ModuleType) -> None:
    assert set(release.versions().values()) == {de.__version__}


def written(root: Path, changelog: str, cited: str = "1.2.0") -> Path:
    (root / "src" / "diffeq").mkdir(parents=True)
    (root / "src" / "diffeq" / "__init__.py").write_text('"""D."""\n\n__version__ = "1.2.0"\n')
    (root / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {cited}\n")
    (root / "CHANGELOG.md").write_text(changelog)
    return root


def test_a_whole_release_has_no_faults(release: types.ModuleType, tmp_path: Path) -> None:
    root = written(tmp_path, "## [Unreleased]\n\n## [1.2.0] - 2026-01-02\n\n- New.\n")
    assert release.faults("v1.2.0", root) == []
    assert len(release.faults("v1.2.1", root)) == 3


def test_a_release_that_is_not_whole_is_told_why(release: types.ModuleType, tmp_path: Path) -> None:
    root = written(tmp_path, "## [Unreleased]\n\n- New.\n\n## [1.1.0] - 2026-01-02\n", "1.1.0")
    cited, changed, left = release.faults("v1.2.0", root)
    assert "CITATION.cff has version 1.1.0" in cited
    assert "CHANGELOG.md has version 1.1.0" in changed
    assert "[Unreleased]" in left

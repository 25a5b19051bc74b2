"""The examples run, in a short form, and draw their figures."""

import re
import runpy
import warnings
from pathlib import Path

import jax
import matplotlib as mpl
import pytest
from tests.tiers import shortly

import diffeq as de

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", shortly(EXAMPLES, "lotka_volterra"), ids=lambda path: path.stem)
def test_example_runs(path, monkeypatch, tmp_path, capsys):
    mpl.use("agg")
    monkeypatch.setenv("DIFFEQ_SHORT", "1")
    monkeypatch.setenv("DIFFEQ_FIGURES", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(path)])
    with mpl.rc_context(), warnings.catch_warnings(), jax.enable_x64(False):  # as for a user
        warnings.simplefilter("ignore")
        names = runpy.run_path(str(path), run_name="__main__")
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 10_000
    assert "figure" in capsys.readouterr().out
    for fit in (value for value in names.values() if isinstance(value, de.Fit)):
        assert fit.loss < 0.9 * fit.history[0]


def test_every_example_has_the_style_of_the_library():
    for path in EXAMPLES:
        text = path.read_text(encoding="utf8")
        assert "\nde.plot.style()\n" in text, f"{path.stem}: de.plot.style() before its figure"
        own = re.findall(r"[\"'](?:#[0-9a-fA-F]{6}|tab:\w+)[\"']", text)
        assert not own, f"{path.stem} has colours of its own, {own}: 'C0' to 'C6' are the style's"

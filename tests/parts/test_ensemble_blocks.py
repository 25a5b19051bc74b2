"""An ensemble in blocks is that of one run, wherever it was cut off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de
from diffeq.ensemble import resume

AT = jnp.array([0.5, 1.0])
PROBLEM = de.ODEProblem(lambda t, y, k: k * y**2, 1.0, (0.0, 1.0), 0.5)  # explodes at 1/k
REDUCE = {"mean": de.stats.Mean(), "ends": (de.stats.Extremes(), de.stats.Quantile(0.5))}
RATES = jnp.linspace(-1.0, 1.04, 301)
PLAIN = {"method": de.Tsit5(), "chunk": 8, "saveat": AT}
ASKED = PLAIN | {"args": RATES, "throw": False, "reduce": REDUCE}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(resume, "_MOST", 64)


def equal(sol, whole):
    jax.tree.map(np.testing.assert_array_equal, sol.status, whole.status)
    jax.tree.map(np.testing.assert_array_equal, sol.stats, whole.stats)
    np.testing.assert_array_equal(sol.ts, whole.ts)
    np.testing.assert_array_equal(
        sol.reduced["ends"][0].greatest, whole.reduced["ends"][0].greatest
    )
    np.testing.assert_allclose(sol.reduced["mean"], whole.reduced["mean"], rtol=1e-12)
    np.testing.assert_allclose(sol.reduced["ends"][1], whole.reduced["ends"][1], rtol=0.02)


@pytest.mark.parametrize("strategy", shortly(["lanes", "lockstep"], "lanes"))
def test_a_run_that_is_cut_off_goes_on(strategy, monkeypatch, tmp_path):
    asked = {**ASKED, "strategy": strategy}
    again = lambda: de.solve_ensemble(PROBLEM, resume=tmp_path, **asked)
    plain, done = resume.Ensemble.part, []

    def part(self, index):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(index)
        return plain(self, index)

    monkeypatch.setattr(resume.Ensemble, "part", part)
    with pytest.raises(KeyboardInterrupt):
        again()
    done.clear()
    sol = again()
    assert [int(index[0]) for index in done] == [192, 256]
    assert (done[1] >= 0).sum() == 301 - 256
    equal(sol, de.solve_ensemble(PROBLEM, **asked))
    done.clear()
    jax.tree.map(np.testing.assert_array_equal, again(), sol)
    assert not done


def test_a_folder_of_another_ensemble_is_refused(tmp_path):
    asked = {**ASKED, "args": RATES[:10]}
    de.solve_ensemble(PROBLEM, resume=tmp_path, **asked)
    with pytest.raises(ValueError, match=r"inputs was \w+, and is"):
        de.solve_ensemble(PROBLEM, resume=tmp_path, **asked | {"args": RATES[1:11]})
    other = PROBLEM.replace(f=lambda t, y, k: k * y)
    with pytest.raises(ValueError, match=r"program was \w+, and is"):
        de.solve_ensemble(other, resume=tmp_path, **asked)


def test_drawn_trajectories_are_those_of_their_numbers():
    draw = lambda key: {"args": -jax.random.uniform(key)}
    given = PLAIN | {"draw": draw, "key": jax.random.key(1), "n": 150}
    sol = de.solve_ensemble(PROBLEM, reduce=de.stats.Variance(), progress=True, **given)
    kept = de.solve_ensemble(PROBLEM, **given)
    np.testing.assert_allclose(sol.reduced, np.var(kept.ys, 0), rtol=1e-12)


def test_refused():
    with pytest.raises(TypeError, match="resume was given without reduce"):
        de.solve_ensemble(PROBLEM, args=RATES, resume="folder")
    with pytest.raises(TypeError, match="progress was given without reduce"):
        de.solve_ensemble(PROBLEM, args=RATES, progress=True)
    mean = lambda k: de.solve_ensemble(PROBLEM, **ASKED | {"args": k}, progress=True).reduced
    with pytest.raises(TypeError, match="inside jit"):
        jax.jit(mean)(RATES)


def test_a_file_that_was_cut_off_is_named(tmp_path):
    again = lambda: de.solve_ensemble(PROBLEM, resume=tmp_path, **ASKED)
    sol = again()
    block, settings = tmp_path / "block-000001.npz", tmp_path / "settings.json"
    for cut in (block.read_bytes()[:500], b"no archive"):
        block.write_bytes(cut)
        with pytest.raises(ValueError, match=r"block-000001\.npz cannot be read .* remove it"):
            again()
    block.unlink()
    equal(again(), sol)
    for cut in (settings.read_bytes()[:50], b"[1, 2]", b"\xff"):
        settings.write_bytes(cut)
        with pytest.raises(ValueError, match=r"settings\.json cannot be read .* another folder"):
            again()
    assert not list(tmp_path.glob("*.part.*"))

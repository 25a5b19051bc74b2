"""`chunk="tuned"`: layouts are tried on a sample, the fastest is taken, and remembered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.ensemble import tuning
from diffeq.ensemble.gpu_kernel import NoKernel
from diffeq.ensemble.gpu_kernel.launch import Tuning
from diffeq.ensemble.strategies import Ensemble

DECAY = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0))
KS = jnp.linspace(0.1, 3.0, 11)


def solve(ks=KS, strategy="lanes", chunk="tuned"):
    return de.solve_ensemble(DECAY, de.Tsit5(), args=ks, strategy=strategy, chunk=chunk)


@pytest.fixture
def tried(monkeypatch):
    """Layouts that were tried; the third is the fastest."""
    seen = []
    monkeypatch.setattr(tuning, "_known", type(tuning._known)())
    monkeypatch.setattr(tuning, "_time_layout", lambda _, layout: seen.append(layout) or
                        abs(len(seen) - 3.0))  # fmt: skip
    return seen


def test_the_fastest_is_taken_and_remembered_also_inside_jit(tried):
    found, known = solve(), solve(chunk=64)
    np.testing.assert_allclose(found.y1, known.y1, rtol=1e-12)
    assert tried == list(tuning._CHUNKS)
    assert list(tuning._known.values()) == [tried[2]]
    np.testing.assert_allclose(jax.jit(lambda ks: solve(ks).y1)(KS), known.y1, rtol=1e-12)
    assert len(tried) == len(tuning._CHUNKS)
    assert solve(strategy="lockstep").success.all()  # which has no chunks
    assert len(tried) == len(tuning._CHUNKS)


def test_a_kernel_is_tried_in_blocks_with_all_the_warps_that_they_fill(tried):
    found = solve(strategy="kernel")
    np.testing.assert_allclose(found.y1, solve(chunk=64).y1, rtol=1e-12)
    pairs = [(x.block, x.warps) for x in tried]
    assert pairs == [(32, None), (64, 1), (64, None), (128, 1), (128, 2), (128, None)]
    assert all(isinstance(x, Tuning) for x in tuning._known.values())


def test_a_sample_is_measured(monkeypatch):
    monkeypatch.setattr(tuning, "_known", type(tuning._known)())
    monkeypatch.setattr(tuning, "_CHUNKS", (2, 4))
    monkeypatch.setattr(tuning, "_SAMPLE", {"lanes": 6})
    seen, part = [], Ensemble.part

    def looked(self, index):
        seen.append((self.plan.chunk, index.tolist()))
        if self.plan.chunk == 4:
            raise NoKernel("it does not fit")
        return part(self, index)

    monkeypatch.setattr(Ensemble, "part", looked)
    assert solve().success.all()
    assert seen == 4 * [(2, [0, 2, 4, 6, 8, 10])] + [(4, [0, 2, 4, 6, 8, 10])]
    assert list(tuning._known.values()) == [2]  # the other is no layout of it


def test_nothing_is_measured_where_nothing_can_be(tried):
    with pytest.raises(TypeError, match="inside jit, vmap or a derivative"):
        jax.jit(lambda ks: solve(ks).y1)(KS)
    assert not tried
    with pytest.raises(TypeError, match="beside resume="):
        de.solve_ensemble(DECAY, args=KS, chunk="tuned", reduce=de.stats.Mean(), resume="there")
    with pytest.raises(TypeError, match="chunk is 'fast'; a positive whole number, or 'tuned'"):
        solve(chunk="fast")

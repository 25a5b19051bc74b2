"""The benchmarks of ensembles start, measure what they say, and say what they cannot measure."""

import sys

import jax
import numpy as np
import pytest
from benchmarks import ensembles, gpu, lorenz, lorenz_racers

pytestmark = pytest.mark.thorough


@pytest.mark.filterwarnings("ignore:rtol is 1e-08, and float32")
def test_a_contestant_of_the_lorenz_protocol():
    lines = list(lorenz_racers.told("ours, lanes", "adaptive", [8, 32, 10**9], 0.5))
    assert "version" in lines[0], lines
    assert [line.get("n") for line in lines[1:3]] == [8, 32], lines
    assert lines[3] == {"beyond": 10**9}
    lorenz.with_errors(lines)
    assert lines[2]["ms"] > 0
    assert max(line["error of y"] for line in lines[1:3]) < 1e-5
    assert "MPGOS (CUDA C++)" in lorenz.PUBLISHED["fixed"]
    assert lorenz.SIZES[0] == 8
    assert lorenz.SIZES[-1] == 8_388_608
    text = "\n".join(lorenz.table("adaptive", {"ours": lines, "other": [{"lacks": "a GPU"}]}))
    assert "| 32 |" in text
    assert "* other: a GPU." in text


def test_a_size_is_not_tried_for_times_that_did_not_grow():
    known = [{"n": 8, "ms": 2.0}, {"n": 32, "ms": 1.0}]
    assert lorenz_racers.expected(known, 10**9) > 1
    assert lorenz_racers.expected(known, 128) == 2e-3


def test_what_is_missing_is_said(capsys, monkeypatch):
    if jax.default_backend() != "gpu":
        (line,) = lorenz_racers.told("modax", "adaptive", [8], 0.01)
        assert "GPU" in line["lacks"]
        monkeypatch.setattr(sys, "argv", ["gpu"])
        gpu.main()
        assert "no GPU here, but cpu: nothing was measured" in capsys.readouterr().out


def test_errors_are_of_those_that_arrived():
    known = np.array([[1.0, 4.0], [2.0, 2.0]])
    found = np.array([[1.0, 4.2], [np.nan, 2.0]])
    assert ensembles.error_of(found, known) == ("5.0e-02", "1")

"""Ensembles on several devices and in several processes, each in processes of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de
from diffeq.core.addressable import here, row_places

HERE = Path(__file__).parent


def started(devices, *command):
    """A process with so many CPU devices; it finds kept compilations where this one does."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    kept = jax.config.jax_compilation_cache_dir
    more = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}", "JAX_PLATFORMS": "cpu"}
    if kept:
        more["JAX_COMPILATION_CACHE_DIR"] = kept
    return subprocess.Popen(
        [sys.executable, *map(str, command)], env={**os.environ, **more}, cwd=HERE.parents[1],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(*processes):
    """What they wrote, when all have ended well."""
    texts = []
    try:
        texts += [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == 0, text
    return texts


@pytest.mark.parametrize("which", shortly(["thorough", "not thorough"], "not thorough"))
def test_on_four_devices(which):
    alone = ("-m", "pytest", "-q", "-n", "0", "-m", which)
    (said,) = ended(started(4, *alone, HERE / "several_devices.py"))
    assert "passed" in said


@pytest.mark.thorough
def test_in_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = ended(*(started(2, HERE / "several_processes.py", port, i, tmp_path) for i in (0, 1)))
    assert all(f"process {i} is done" in text for i, text in enumerate(said))


def test_a_mesh_of_one_device_and_no_mesh():
    decay = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0))
    ks = np.linspace(0.0, 1.0, 3)
    sol = de.solve_ensemble(decay, args=ks, mesh=jax.make_mesh((1,), ("i",)))
    np.testing.assert_array_equal(sol.y1, de.solve_ensemble(decay, args=ks).y1)
    with pytest.raises(TypeError, match=r"mesh is 'gpu'; a jax\.sharding\.Mesh is wanted"):
        de.solve_ensemble(decay, args=ks, mesh="gpu")


def test_all_of_an_array_is_here_in_one_process():
    x = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(here(jax.numpy.asarray(x)), x)
    np.testing.assert_array_equal(row_places(x), [0, 1, 2])

"""`fit(checkpoint=)`: a fit that was cut off goes on to the numbers of one that was not."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffeq as de
from diffeq.train.checkpoint import checked_checkpoint

KEY = jax.random.key(3)
DATA = jax.random.normal(jax.random.key(0), (20, 2))


def noisy(m, batch, key):
    """A loss over batches, with a draw of its own."""
    draw = jax.random.normal(key, (2,))
    return jnp.mean((batch @ m["net"] + m["shift"] - draw[0]) ** 2) + 0.1 * jnp.sum(m["rate"] ** 2)


def steep(m):
    """A loss by which a line search has something to do."""
    x, y = m["net"][0], m["net"][1]
    return 100.0 * (y - x**2) ** 2 + (1.0 - x) ** 2 + (m["shift"] - 1.0) ** 2 + m["rate"][0] ** 2


def model():
    rate = jnp.full(1, 0.5, jnp.bfloat16)
    return {"net": jnp.array([-1.2, 1.0]), "shift": 0.3, "rate": rate}


FITS = {
    "batches and keys": {
        "loss": noisy, "data": DATA, "batch_size": 8, "key": KEY,
        "optimizer": optax.adam(optax.cosine_decay_schedule(0.1, 20)), "steps": 11,
    },
    "phases, bounds, a line search": {
        "loss": steep, "optimizer": [(optax.adam(0.02), 4), (optax.lbfgs(), 6)],
        "bounds": ({"net": None, "shift": 0.0, "rate": None}, None),
    },
}  # fmt: skip


def fit(name, **options):
    return de.fit(model(), **(FITS[name] | {"progress": False} | options))


def stopped_at(step):
    """A callback by which a fit is cut off before a step."""

    def callback(i, loss, model):
        if i == step:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_is_cut_off_goes_on_to_the_same_numbers(name, tmp_path):
    whole = fit(name)
    for step in (3, 7):  # the second within the second phase, where there are two
        cut = fit(name, checkpoint=tmp_path, callback=stopped_at(step))
        assert cut.status == "interrupted"
        np.testing.assert_array_equal(cut.history, whole.history[: step + 1])
    for _ in range(2):  # the second time there is nothing left to do
        found = fit(name, checkpoint=tmp_path)
        np.testing.assert_array_equal(found.history, whole.history)
        assert (found.status, found.phases) == (whole.status, whole.phases)
        jax.tree.map(np.testing.assert_array_equal, found.model, whole.model)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.npz"]


def test_a_finished_fit_takes_more_steps_and_phases(tmp_path):
    options = {"loss": steep, "progress": False}
    phases = [(optax.adam(0.02), 5), (optax.sgd(1e-4), 3)]
    whole = de.fit(model(), optimizer=phases, **options)
    de.fit(model(), optimizer=optax.adam(0.02), steps=2, checkpoint=tmp_path, **options)
    found = de.fit(model(), optimizer=phases, checkpoint=tmp_path, **options)
    np.testing.assert_array_equal(found.history, whole.history)


SCRIPT = """
    import os, signal, sys, jax, jax.numpy as jnp, optax, diffeq as de

    folder, last = sys.argv[1], int(sys.argv[2])
    problem = de.ODEProblem(lambda t, y, k: -k * y, jnp.ones(2), (0.0, 1.0), jnp.array([0.5, 1.0]))
    data = jnp.exp(-jnp.array([2.0, 3.0]))

    def callback(step, loss, model):
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    loss = lambda p: de.mse(de.solve(p, de.RK4(), dt=0.25).y1, data)
    found = de.fit(problem, loss, optimizer=optax.adam(0.1), steps=12, callback=callback,
                   checkpoint=folder, every=2, progress=False)
    print(found.history.tobytes().hex())
"""


@pytest.mark.thorough
def test_a_process_that_is_killed_goes_on(tmp_path):
    def run(folder, last):
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / folder), str(last)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = run("whole", -1)
    for last in (1, 5, 9):  # before there is a checkpoint, and after
        assert run("cut", last).returncode == -signal.SIGKILL
    again = run("cut", -1)
    assert again.returncode == 0, again.stderr
    assert again.stdout == whole.stdout


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"loss": lambda m, batch, key: 2.0 * noisy(m, batch, key)}, "the loss, or what it closes"),
        ({"data": 1.5 * DATA}, "data"),
        ({"key": jax.random.key(4)}, "key"),
        ({"batch_size": 9}, "batch_size"),
        ({"optimizer": optax.adam(0.2)}, "the optimiser of phase 0"),
        ({"optimizer": [optax.sgd(0.1)] * 2, "steps": [2, 9]}, "the optimiser of phase 0"),
        ({"model": {**model(), "shift": 0.4}}, "the model that it starts from"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(changes, what, tmp_path):
    given = {"model": model(), "progress": False, "checkpoint": tmp_path}
    given |= FITS["batches and keys"] | {"steps": 1}
    de.fit(**given)
    with pytest.raises(ValueError, match=rf"holds a fit .* differs in.* {what}.*another folder"):
        de.fit(**(given | changes))


def test_earlier_phases_have_the_steps_that_they_had(tmp_path):
    phases = lambda steps: [(optax.sgd(1e-4), steps), (optax.sgd(1e-3), 2)]
    options = {"loss": steep, "progress": False, "checkpoint": tmp_path}
    de.fit(model(), optimizer=phases(2), **options)
    with pytest.raises(ValueError, match=r"differs in the steps of phase 0 \(2\)"):
        de.fit(model(), optimizer=phases(3), **options)


def test_fewer_steps_than_were_made_are_refused(tmp_path):
    options = {"loss": steep, "optimizer": optax.sgd(1e-4), "progress": False}
    options["checkpoint"] = tmp_path
    made = de.fit(model(), steps=6, **options)
    with pytest.raises(
        ValueError, match=r"6 steps of phase 0 were made, and 4 are asked for.*folder"
    ):
        de.fit(model(), steps=4, **options)
    again = de.fit(model(), steps=6, **options)
    np.testing.assert_array_equal(made.history, again.history)


def test_a_file_in_the_home_directory_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "kept").touch()
    with pytest.raises(ValueError, match="checkpoint='~/kept' is a file; a folder is wanted"):
        checked_checkpoint("~/kept", None)


def test_a_file_that_is_cut_short_is_named_and_a_draft_is_none(tmp_path):
    options = {"loss": steep, "optimizer": optax.sgd(1e-4), "steps": 2, "progress": False}
    first = de.fit(model(), checkpoint=tmp_path, **options)
    file = tmp_path / "fit.npz"
    (tmp_path / "fit.npz.part").write_bytes(file.read_bytes()[:100])  # killed while it was written
    again = de.fit(model(), checkpoint=tmp_path, **options)
    np.testing.assert_array_equal(first.history, again.history)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"fit\.npz cannot be read .*remove it"):
        de.fit(model(), checkpoint=tmp_path, **options)


def test_checkpoints_are_as_many_steps_apart_as_is_asked_for(tmp_path, monkeypatch):
    written = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (written.append(names), replace(*names)))
    options = {"loss": steep, "optimizer": optax.sgd(1e-4), "progress": False}
    de.fit(model(), steps=7, checkpoint=tmp_path / "often", every=2, **options)
    assert len(written) == 4  # after 2, 4 and 6 steps, and at the end
    del written[:]
    de.fit(model(), steps=7, checkpoint=tmp_path / "now and then", **options)
    assert len(written) == 1


def test_a_folder_may_be_in_the_home_directory_and_is_made_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"loss": steep, "optimizer": optax.sgd(1e-4), "steps": 1, "progress": False}
    de.fit(model(), checkpoint="~/kept", **options)
    assert (tmp_path / "kept" / "fit.npz").exists()
    (tmp_path / "file").touch()
    called = []
    with pytest.raises(OSError, match="file"):
        de.fit(
            model(), checkpoint=tmp_path / "file" / "in it", callback=lambda *_: called.append(1),
            **options,
        )  # fmt: skip
    assert not called, "not after hours of training"


def test_horizons_have_folders_of_their_own(tmp_path):
    ts = jnp.linspace(0.0, 2.0, 9)
    loss = lambda k, data, *, ts: de.mse(jnp.exp(-k * ts), data)
    given = (0.5, loss, jnp.exp(-ts), ts)
    options = {"ends": (1.0, 2.0), "optimizer": optax.sgd(0.5), "steps": 3, "progress": False}
    first, again = (de.fit_growing(*given, checkpoint=tmp_path, **options) for _ in range(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["horizon-0", "horizon-1"]
    np.testing.assert_array_equal(first.history, again.history)
    np.testing.assert_array_equal(first.history, de.fit_growing(*given, **options).history)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 5}, ValueError, "every is 5, and there is no checkpoint"),
        ({"checkpoint": 3}, TypeError, "checkpoint is 3; a folder is wanted"),
        ({"checkpoint": "here", "every": 0.5}, TypeError, "every is 0.5; a whole number"),
        ({"checkpoint": "here", "every": 0}, ValueError, "every is 0; at least one step"),
        ({"checkpoint": __file__}, ValueError, "is a file; a folder is wanted"),
    ],
)
def test_what_is_no_checkpoint(options, error, message):
    with pytest.raises(error, match=message):
        de.fit(model(), steep, optimizer=optax.sgd(0.1), steps=1, progress=False, **options)


STEADY = """
    import sys, jax, jax.numpy as jnp, optax, diffeq as de

    data = jax.random.normal(jax.random.key(0), (40, 3))

    def loss(model, batch, key):
        draw = 0.01 * jax.random.normal(key, (3,))
        return jnp.mean((jnp.tanh(batch @ model["net"]) - batch + draw) ** 2)

    found = de.fit(
        {"net": jnp.eye(3)}, loss, data, batch_size=8, key=jax.random.key(1), steps=400,
        optimizer=optax.adam(0.01), checkpoint=sys.argv[1], every=1, progress=False,
        callback=lambda step, loss, model: print(step, flush=True),
    )
    print(found.history.tobytes().hex(), flush=True)
"""


@pytest.mark.thorough
def test_ten_kills_at_random_instants_lose_no_more_than_a_step(tmp_path):
    """Each process is killed from outside, wherever it is, also while it writes a checkpoint."""

    def process(folder):
        command = [sys.executable, "-c", textwrap.dedent(STEADY), str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def steps_until_a_kill(seconds):
        """The first and the last step that a process tells of, killed so long after its second."""
        with process("cut") as running:
            first = int(running.stdout.readline())
            running.stdout.readline()  # by now everything is compiled
            time.sleep(seconds)
            running.kill()
            rest = running.stdout.read().split("\n")[:-1]
            assert running.wait() == -signal.SIGKILL
        return first, int(rest[-1]) if rest else first + 1

    whole = process("whole").communicate()[0].split()
    waits = np.random.default_rng(0).uniform(0.0, 0.03, 10)
    reached = 0
    for wait in waits:
        first, last = steps_until_a_kill(wait)
        assert reached <= first <= reached + 1
        reached = last
    assert 10 <= reached < 400
    rest = process("cut").communicate()[0].split()
    assert rest[-1] == whole[-1]
    assert int(rest[0]) >= reached

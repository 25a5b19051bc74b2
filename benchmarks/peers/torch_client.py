"""This side of the process that runs PyTorch: one JSON object a line, each way."""

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

FIELDS = ("lotka_volterra", "mlp", "mlp_of_cube")


def lacks(case):
    """Why torchdiffeq cannot do a case, or None."""
    if case.vmap == "args":
        return "no batches of trajectories with their own steps"
    if case.steps is not None:
        return "fixed steps are not compared"
    if case.field.__name__ not in FIELDS:
        return f"no PyTorch copy of the field {case.field.__name__}"
    return None


class Worker:
    """A process that holds solves and inputs by number."""

    def __init__(self, python):
        """Start it with this interpreter."""
        script = Path(__file__).with_name("torch_worker.py")
        # -P: the adapters beside the script have the names of the libraries that it imports.
        self._process = subprocess.Popen(
            [python, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        atexit.register(self._process.stdin.close)
        hello = self._process.stdout.readline()
        if not hello:
            raise ImportError(
                "torchdiffeq is not installed here; DIFFEQ_BENCH_TORCH_PYTHON may name "
                "another interpreter that has it"
            )
        self.version = json.loads(hello)["version"]
        self._kept = {}

    def ask(self, **message):
        """The answer to one message."""
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def send(self, inputs):
        """The number under which the process keeps these inputs."""
        if id(inputs) not in self._kept:
            number = self.ask(op="inputs", **_lists(inputs._asdict()))["number"]
            self._kept[id(inputs)] = (number, inputs)
        return self._kept[id(inputs)][0]


@functools.cache
def worker():
    """The one process, started at the first use."""
    return Worker(os.environ.get("DIFFEQ_BENCH_TORCH_PYTHON", sys.executable))


class RemoteSolve:
    """`solve(inputs)` in the other process."""

    def __init__(self, case, mode, adjoint, tolerance):
        """Describe the solve to the other process."""
        self._number = worker().ask(
            op="build",
            field=case.field.__name__,
            mode=mode,
            adjoint=adjoint,
            loss=case.loss_name,
            dtype=case.dtype,
            ts=[case.t0, case.t1] if case.ts is None else case.ts.tolist(),
            end=case.ts is None,
            rtol=tolerance,
            atol=tolerance * case.atol_ratio,
        )["number"]

    def _call(self, inputs, outputs):
        number = worker().send(inputs)
        return worker().ask(op="call", solve=self._number, inputs=number, outputs=outputs)

    def __call__(self, inputs):
        """The outputs, as NumPy arrays."""
        return _arrays(self._call(inputs, outputs=True)["outputs"])

    def seconds(self, inputs):
        """The time of one call, as the process measures it."""
        return self._call(inputs, outputs=False)["seconds"]


def _lists(tree):
    if isinstance(tree, dict):
        return {key: _lists(value) for key, value in tree.items()}
    return None if tree is None else np.asarray(tree).tolist()


def _arrays(tree):
    """A dict stays, a pair of loss and gradient is marked by the worker, the rest is an array."""
    if isinstance(tree, dict) and "loss" in tree:
        return _arrays(tree["loss"]), _arrays(tree["gradient"])
    if isinstance(tree, dict):
        return {key: _arrays(value) for key, value in tree.items()}
    return np.asarray(tree)

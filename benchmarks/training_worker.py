"""A process of its own for a contestant and a case of `benchmarks.training`.

It compiles the case when it is asked to, so that its processor seconds are those of a user's first
call, and then stays to be timed in turn with others. (In one process for all, with
`jax.clear_caches()` between them, the first gradient of this library takes a fifth less, as what it
imports at the first use is there already; that of the others the same.) A contestant that takes too
long for its first call is ended.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from benchmarks import field_copies, timing, training_cases

MODES = ("gradient", "forward", "step")
PATIENCE = 120.0
"""Seconds that a first call may take."""


class FirstCall(NamedTuple):
    """Trace, lowering, compilation and one run: processor seconds; the lines of the compiled
    program, and the bytes that it allocates besides inputs and outputs; loss and gradient.
    """

    seconds: float
    lines: int
    bytes: int
    loss: float
    gradient: np.ndarray


# --- in the process -------------------------------------------------------------------------------


class Solver:
    """The programs of one contestant and one case."""

    def __init__(self, name: str, who: str, *, quick: bool):
        """Make the case and start the backend."""
        jax.config.update("jax_enable_compilation_cache", False)
        self.solve = training_cases.CONTESTANTS[who]
        self.case = training_cases.case_of(name, quick=quick)
        self.loss = self.case.loss_by(self.solve)
        self.adam = optax.adam(1e-3)
        self.inputs = self.case.variants()
        self.programs: dict[str, Callable] = {}
        jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(3)))

    def first(self, mode: str) -> FirstCall:
        """Compile a mode."""
        function, inputs = self._function(mode), self._inputs(mode, 0)
        start = time.process_time()
        program = jax.jit(function).lower(*inputs).compile()
        loss, result = jax.block_until_ready(program(*inputs))
        seconds = time.process_time() - start
        self.programs[mode] = program
        lines = program.as_text().count("\n")
        memory = program.memory_analysis().temp_size_in_bytes
        gradient = np.asarray(ravel_pytree(result)[0]) if mode == "gradient" else np.empty(0)
        return FirstCall(seconds, lines, memory, float(loss), gradient)

    def _function(self, mode: str) -> Callable:
        if mode == "forward":
            return lambda params: (self.loss(params), ())
        if mode == "gradient":
            return jax.value_and_grad(self.loss)

        def step(params, moments):
            loss, gradient = jax.value_and_grad(self.loss)(params)
            changes, moments = self.adam.update(gradient, moments)
            return loss, (optax.apply_updates(params, changes), moments)

        return step

    def _inputs(self, mode: str, variant: int) -> tuple:
        params = self.inputs[variant % len(self.inputs)]
        return (params, self.adam.init(params)) if mode == "step" else (params,)

    def mean(self, mode: str, variant: int, calls: int) -> float:
        """Mean seconds of so many calls with a variant of the parameters."""
        inputs, program = self._inputs(mode, variant), self.programs[mode]
        start = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(program(*inputs))
        return (time.perf_counter() - start) / calls

    def resident(self, mode: str) -> int | None:
        """The bytes of memory that a call takes at its peak; None where the system does not say."""
        reset = Path("/proc/self/clear_refs")
        if not os.access(reset, os.W_OK):
            return None
        reset.write_text("5", encoding="ascii")
        before = _status("VmRSS")
        self.mean(mode, 0, 1)
        return _status("VmHWM") - before

    def copies(self) -> tuple[int, int]:
        """How often the field is in the programs, forward and gradient."""
        problem = self.case.problem
        problem = problem._replace(field=field_copies.marked(problem.field))
        loss = self.case._replace(problem=problem).loss_by(self.solve)
        return field_copies.copies(loss, self.inputs[0])


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def serve(pipe, name: str, who: str, quick: bool) -> None:
    """Answer until the pipe is closed: the name of a method of `Solver` and its arguments."""
    solver = Solver(name, who, quick=quick)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(solver, method)(*arguments))
        except Exception as error:
            pipe.send(error if isinstance(error, RuntimeError) else RuntimeError(str(error)))


# --- in the process that asks ---------------------------------------------------------------------


class Worker:
    """A contestant of a case, in its process."""

    def __init__(self, name: str, who: str, *, quick: bool = False):
        """Start it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, who, quick), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments):
        """What a method of the `Solver` returns.

        Raises:
            RuntimeError: it failed, took longer than `PATIENCE`, or its process is gone (a compiler
                that takes all of the memory is ended by the system).
        """
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(PATIENCE):
                raise RuntimeError(f"over {PATIENCE:.0f} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("its process has ended") from error
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()


class Contestant(timing.Contestant):
    """A mode of a worker, timed by it; the parameters are another variant with each sample."""

    def __init__(self, worker: Worker, mode: str):
        """`worker` has compiled the mode."""
        super().__init__(worker, [mode])

    def once(self):
        """Seconds of one call."""
        return self.mean(1)

    def mean(self, number):
        """Mean seconds of so many calls."""
        self.calls += 1
        return self.solve.ask("mean", self.inputs[0], self.calls, number)

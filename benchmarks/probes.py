"""What is not the time of a compiled call: first calls, second calls, imports, memory.

First calls and imports are measured in fresh processes; for a first call it runs this module.
"""

import argparse
import collections
import functools
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, fields, peers
from benchmarks.timing import summary

ROOT = Path(__file__).parents[1]
FIRST_CALL_CASE = "lv_saves"
FIRST_CALL_PEERS = ("ours", "diffrax", "jax_odeint")
MODULES = {"ours": "diffeq", "diffrax": "diffrax", "tinydiffeq": "tinydiffeq"}


class _Traces:
    """Counts the traces of a field, which calls it; hashable, so that a field is not new by it.

    Ours refuses a field that writes to an object; what an iterator has given is no such thing.
    """

    def __init__(self):
        self._numbers = itertools.count()

    def __call__(self):
        next(self._numbers)

    def mark(self):
        """The number of calls so far, this one among them."""
        return next(self._numbers)


TRACES = _Traces()
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


def _child(*arguments):
    """What a fresh process of this module prints, as JSON; no compilation cache on disk."""
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-m", "benchmarks.probes", *arguments]
    options = {"capture_output": True, "text": True, "cwd": ROOT, "env": environment}
    done = subprocess.run(command, check=False, **options)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def _rounds(names, count, measure):
    """Interleaved samples `{name: [seconds]}`, and `{name: reason}` for those that cannot."""
    samples, lacking = collections.defaultdict(list), {}
    for _ in range(count):
        for name in names:
            if name in lacking:
                continue
            try:
                seconds = measure(name)
            except RuntimeError as error:
                lacking[name] = str(error)
            else:
                samples[name].append(seconds)
    return dict(samples), lacking


def _first_call_of(mode, name):
    return _child(name, mode)


def first_calls(count, modes=cases.BOTH):
    """Trace, compile and run, in a fresh process each; by mode and peer."""
    report = {}
    for mode in modes:
        samples, lacking = _rounds(FIRST_CALL_PEERS, count, functools.partial(_first_call_of, mode))
        report[mode] = {
            "seconds": {name: summary(values) for name, values in samples.items()},
            "speedup": _against_ours(samples),
            "lacking": lacking,
        }
    return report


def _against_ours(samples):
    if "ours" not in samples:
        return {}
    ours = samples["ours"]
    return {
        name: summary(theirs / mine for theirs, mine in zip(values, ours, strict=True))
        for name, values in samples.items()
        if name != "ours"
    }


def first_call(name, mode):
    """Seconds of the first call of one peer in this process."""
    jax.config.update("jax_enable_x64", True)
    case = next(case for case in cases.all_cases() if case.name == FIRST_CALL_CASE)
    inputs = jax.tree.map(jnp.asarray, case.inputs()[0])
    peer = peers.load(name)
    peer.version()
    jax.block_until_ready(jax.jit(lambda x: x + 1)(inputs.y0))
    start = time.perf_counter()
    jax.block_until_ready(peer.build(case, mode)(1e-6)(inputs))
    return time.perf_counter() - start


def imports(count):
    """Seconds to import a package when jax and equinox are there already; by peer."""
    samples, lacking = _rounds(MODULES, count, import_seconds)
    return {
        "seconds": {name: summary(values) for name, values in samples.items()},
        "lacking": lacking,
    }


def import_seconds(name):
    """Seconds to import one package in a fresh process, with its bytecode kept as for a user."""
    code = (
        "import jax, equinox, time; start = time.perf_counter(); "
        f"import {MODULES[name]}; print(time.perf_counter() - start)"
    )
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    options = {"capture_output": True, "text": True, "cwd": ROOT, "env": kept}
    done = subprocess.run([sys.executable, "-c", code], check=False, **options)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def temporary_states(case, solve, inputs):
    """Temporary memory of a compiled solve, in states times the root of the number of steps."""
    memory = solve.func.lower(*solve.args, inputs).compile().memory_analysis()
    state = np.asarray(inputs.y0).nbytes
    steps = case.steps if case.steps is not None else round(case.t1 / case.dt0)
    return memory.temp_size_in_bytes / state / np.sqrt(steps)


def _fresh_field():
    """A new function object of the same code, that counts how often it is traced."""
    return lambda t, y, args: TRACES() or fields.lotka_volterra(t, y, args)


def _ours(field, args, ts):
    import diffeq as de

    problem = de.ODEProblem(field, y0=jnp.ones(2), tspan=(0.0, 10.0), args=args)
    return de.solve(problem, de.Tsit5(), saveat=ts, rtol=1e-6, atol=1e-8).ys


def _diffrax(field, args, ts):
    import diffrax

    options = {"saveat": diffrax.SaveAt(ts=ts), "max_steps": 4096}
    controller = diffrax.PIDController(rtol=1e-6, atol=1e-8)
    term = diffrax.ODETerm(field)
    span = {"t0": 0.0, "t1": 10.0, "dt0": None, "y0": jnp.ones(2), "args": args}
    return diffrax.diffeqsolve(
        term, diffrax.Tsit5(), stepsize_controller=controller, **span, **options
    ).ys


def _modes(solve, ts, lanes):
    """One call of each mode, each with functions that did not exist before."""

    def fresh_loss():
        field = _fresh_field()
        return lambda args: jnp.sum(solve(field, args, ts) ** 2)

    def transformed(transform):
        def call(args):
            return transform(fresh_loss())(args)

        return call

    def forward(args):
        return solve(_fresh_field(), args, ts)

    return {
        "forward": forward,
        "grad": transformed(jax.grad),
        "jvp": lambda args: jax.jvp(fresh_loss(), (args,), (args,)),
        "vmap": lambda args: jax.vmap(fresh_loss())(args * lanes),
        "hessian": transformed(jax.hessian),
    }


def _jit_of_grad(ts):
    """One compiled step that takes the problem, with its fresh field, as an argument."""
    import diffeq as de

    def loss(args, problem):
        problem = problem.replace(args=args)
        return jnp.sum(de.solve(problem, de.Tsit5(), saveat=ts, rtol=1e-6, atol=1e-8).ys ** 2)

    step = jax.jit(jax.grad(loss))

    def call(args):
        span = {"y0": jnp.ones(2), "tspan": (0.0, 10.0)}
        return step(args, de.ODEProblem(_fresh_field(), args=args, **span))

    return call


class _Compiles:
    """Counts what XLA compiles while `counting`."""

    def __init__(self):
        self.count, self.counting = 0, False
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event, duration, **ignored):
        if self.counting and event == COMPILE_EVENT:
            self.count += 1


def second_calls(wanted=None):
    """Compiles, traces of the field and seconds of a second call, by peer and mode.

    `wanted`: the modes of ours alone, or None for all of them and of diffrax.
    """
    compiles = _Compiles()
    report = {}
    with jax.enable_x64(True):
        ts = jnp.linspace(0.0, 10.0, 101)
        args = [jnp.array([1.5, 1.0, 3.0, 1.0]) * (1 + 1e-3 * i) for i in range(2)]
        both = (("ours", _our_modes), ("diffrax", _diffrax_modes))
        for name, modes in both if wanted is None else both[:1]:
            try:
                calls = modes(ts)
            except ImportError as error:
                report[name] = {"lacking": str(error)}
                continue
            chosen = calls if wanted is None else wanted
            report[name] = {mode: _second(calls[mode], args, compiles) for mode in chosen}
    return report


def _our_modes(ts):
    lanes = jnp.linspace(0.9, 1.1, 8)[:, None]
    return _modes(_ours, ts, lanes) | {"jit of grad": _jit_of_grad(ts)}


def _diffrax_modes(ts):
    """Two modes, for comparison: a fresh function is another function to it, by design."""
    modes = _modes(_diffrax, ts, None)
    return {mode: modes[mode] for mode in ("forward", "grad")}


def _second(call, args, compiles):
    try:
        jax.block_until_ready(call(args[0]))
        before = TRACES.mark()
        compiles.count, compiles.counting = 0, True
        start = time.perf_counter()
        jax.block_until_ready(call(args[1]))
        seconds = time.perf_counter() - start
    except Exception as error:
        return {"lacking": f"{type(error).__name__}: {error}".splitlines()[0]}
    finally:
        compiles.counting = False
    traces = TRACES.mark() - before - 1
    return {"compiles": compiles.count, "traces": traces, "seconds": seconds}


def main():
    """The first call of one peer in this process, printed as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=FIRST_CALL_PEERS)
    parser.add_argument("mode", choices=cases.BOTH)
    options = parser.parse_args()
    print(json.dumps(first_call(options.peer, options.mode)))


if __name__ == "__main__":
    main()

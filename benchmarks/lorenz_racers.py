"""One contestant of the Lorenz protocol, in a process of its own: `lorenz.py` starts it.

    python benchmarks/lorenz_racers.py diffrax adaptive 8,32,128 5.0

Answers with one JSON object a line: `{"version": …}` or `{"lacks": …}`, then for each size the
least time of a call in milliseconds, whether it was compiled first in how many seconds, and the end
states of the first, the middle and the last trajectory. It stops before a size whose call would
take longer than the seconds it was given. Needs the package that it runs, and NumPy.
"""

import importlib.metadata
import json
import os
import sys
import time

import numpy as np

RHO, T1, DT, TOLERANCE = 21.0, 1.0, 1e-3, 1e-8
MOST_CALLS = 50


class Lacking(Exception):
    """Why a contestant is not there."""


def rhos(n):
    """The parameter that is swept."""
    return np.linspace(0.0, RHO, n, dtype=np.float32)


def lorenz(t, y, rho):
    """The field, for all that runs on JAX."""
    import jax.numpy as jnp

    a, b, c = y
    return jnp.array([10.0 * (b - a), a * (rho - c) - b, a * b - (8.0 / 3.0) * c])


def has_gpu():
    """Whether JAX sees one."""
    import jax

    return jax.default_backend() == "gpu"


def compiled(solve):
    """A function of n: makes the inputs, and returns a call on them that waits for its end."""
    import jax

    def at(n):
        rho = jax.device_put(rhos(n))
        return lambda: jax.block_until_ready(solve(rho))

    return at


def one_start():
    """y0, in single precision."""
    import jax.numpy as jnp

    return jnp.array([1.0, 0.0, 0.0], jnp.float32)


def ours(strategy, mode):
    """`de.solve_ensemble`: in lanes called as it is, which is how it uses all cores, else compiled
    as the others are.
    """
    import jax

    import diffeq as de
    from diffeq.ensemble.ensemble import STRATEGIES

    if strategy not in STRATEGIES:
        raise Lacking(f"this version has no strategy {strategy!r}")
    if strategy == "kernel" and not has_gpu():
        raise Lacking("a kernel needs a GPU")
    problem = de.ODEProblem(lorenz, one_start(), (0.0, T1))
    steps = {"dt": DT} if mode == "fixed" else {"dt0": DT, "rtol": TOLERANCE, "atol": TOLERANCE}

    def solve(rho):
        return de.solve_ensemble(problem, de.Tsit5(), args=rho, strategy=strategy, **steps).y1

    return de.__version__, compiled(solve if strategy == "lanes" else jax.jit(solve))


def diffrax(mode):
    """Its solve, under `vmap` and `jit`."""
    import diffrax as dfx
    import jax

    adaptive = dfx.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
    control = dfx.ConstantStepSize() if mode == "fixed" else adaptive

    def one(rho):
        return dfx.diffeqsolve(
            dfx.ODETerm(lorenz), dfx.Tsit5(), 0.0, T1, DT, one_start(), rho,
            stepsize_controller=control, saveat=dfx.SaveAt(t1=True), max_steps=4096,
        ).ys[0]  # fmt: skip

    return dfx.__version__, compiled(jax.jit(jax.vmap(one)))


def tinydiffeq(mode):
    """Its solve, under `vmap` and `jit`."""
    import jax
    import tinydiffeq as td

    fixed = mode == "fixed"
    number = np.float32

    def one(rho):
        return td.solve_ode(
            lambda y, t, args, p: lorenz(t, y, p), td.Tsit5(), number(0.0), number(T1),
            one_start(), p=rho, dt_0=number(DT), save_at=td.SaveAt(t_1=True),
            controller=None if fixed else td.PIController(rtol=TOLERANCE, atol=TOLERANCE),
            max_steps=round(T1 / DT) if fixed else 4096,
            adaptive_loop="bounded" if fixed else "forward",
        ).xs  # fmt: skip

    return importlib.metadata.version("tinydiffeq"), compiled(jax.jit(jax.vmap(one)))


def torchdiffeq(mode):
    """All trajectories as one state; with fixed steps that is what each would do alone."""
    import torch
    from torchdiffeq import odeint

    if mode == "adaptive":
        raise Lacking("its trajectories have no steps of their own")
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def at(n):
        rho = torch.tensor(rhos(n), device=device)
        y0 = torch.tensor([1.0, 0.0, 0.0], device=device).repeat(n, 1)
        ends = torch.tensor([0.0, T1], device=device)

        def field(t, y):
            a, b, c = y.unbind(-1)
            return torch.stack([10 * (b - a), a * (rho - c) - b, a * b - 8 / 3 * c], -1)

        def call():
            with torch.no_grad():
                y1 = odeint(field, y0, ends, method="rk4", options={"step_size": DT})[-1]
            if device == "cuda":
                torch.cuda.synchronize()
            return y1.cpu() if n < 2 else y1

        return call

    return f"{importlib.metadata.version('torchdiffeq')}, torch {torch.__version__}", at


class GradsolveLorenz:
    """The problem as gradsolve wants it."""

    name, dim, t0, t1, is_stiff = "protocol", 3, 0.0, T1, False

    def f_jax(self, t, y, p):
        """The field of one trajectory."""
        return lorenz(t, y, p[0])


def gradsolve(mode):
    """Its solve: on a GPU the fused kernel that it chooses, host to host; on a CPU what records the
    steps for its gradients, which has double precision alone.
    """
    import gradsolve

    if mode == "fixed":
        raise Lacking("its fixed steps are 10,000, whatever is asked")
    # (Without Warp, version 0.2.1 finds no engine by itself.)
    here = {"device": "cuda", "fused": True} if has_gpu() else {"engine": "tsit5_replay"}
    asked = {"rtol": TOLERANCE, "atol": TOLERANCE, **here}

    def at(n):
        y0, rho = np.tile([1.0, 0.0, 0.0], (n, 1)), rhos(n).astype(float)[:, None]
        return lambda: gradsolve.solve(GradsolveLorenz(), y0, rho, **asked).y_final

    return f"{importlib.metadata.version('gradsolve')}, float64", at


def modax(mode):
    """One CUDA thread a trajectory; in double precision, which is all it has."""
    import jax.numpy as jnp

    if mode == "fixed":
        raise Lacking("it has no fixed steps")
    if not has_gpu():
        raise Lacking("it needs an NVIDIA GPU")
    from modax.tsit5 import solve

    def field(y, t, p):
        return (10.0 * (y[1] - y[0]), y[0] * (p[0] - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2])

    y0, ends = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, T1])

    def run(rho):
        return solve(field, y0, ends, rho[:, None], rtol=TOLERANCE, atol=TOLERANCE)[:, -1]

    return f"{importlib.metadata.version('modax-solvers')}, float64", compiled(run)


RACERS = {
    **{f"ours, {s}": lambda mode, s=s: ours(s, mode) for s in ("lockstep", "lanes", "kernel")},
    "diffrax": diffrax,
    "tinydiffeq": tinydiffeq,
    "torchdiffeq": torchdiffeq,
    "gradsolve": gradsolve,
    "modax": modax,
}


def timed(call, seconds):
    """The least time of a call, in seconds, of as many as there is time for; and how many."""
    times, until = [], time.perf_counter() + seconds
    while not times or (time.perf_counter() < until and len(times) < MOST_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times), len(times)


def expected(known, n):
    """Seconds of a call of n trajectories, as times have grown so far, and a bit more steeply."""
    (*_, last), power = known, 0.3
    if len(known) > 1:
        before = known[-2]
        power += np.log(last["ms"] / before["ms"]) / np.log(last["n"] / before["n"])
    return last["ms"] / 1e3 * (n / last["n"]) ** np.clip(power, 0.5, 1)


def point(at, n, seconds):
    """What is written of one size."""
    call = at(n)
    start = time.perf_counter()
    ends = call()
    first = time.perf_counter() - start
    least, calls = timed(call, seconds)
    some = [np.asarray(ends[i]).tolist() for i in (0, n // 2, n - 1)]
    return {"n": n, "ms": 1e3 * least, "calls": calls, "first": first, "ends": some}


def told(who, mode, sizes, seconds):
    """What is written of one contestant, line by line."""
    try:
        version, at = RACERS[who](mode)
    except (ImportError, Lacking) as reason:
        missing = isinstance(reason, ImportError)
        yield {"lacks": f"not installed ({reason.name})" if missing else str(reason)}
        return
    yield {"version": version}
    known = []
    for n in sizes:
        if known and expected(known, n) > seconds:
            yield {"beyond": n}
            return
        try:
            known.append(point(at, n, seconds))
        except Exception as error:
            yield {"n": n, "error": f"{type(error).__name__}: {str(error)[:200]}"}
            return
        yield known[-1]


def main():
    """Answer for one contestant."""
    who, mode, sizes, seconds = sys.argv[1:]
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    for line in told(who, mode, list(map(int, sizes.split(","))), float(seconds)):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

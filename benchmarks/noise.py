"""Stochastic equations against a loop by hand and against Diffrax: `python -m benchmarks.noise`.

Given steps: Euler–Maruyama on geometric Brownian motion, 1,000 steps of 1,000 paths, to the end and
the gradient of a mean by both parameters. `scan` is a `lax.scan` by hand that draws from the same
generator in the loop, `scan, drawn ahead` one over `jax.random.normal` of all steps at once.

Controlled steps: Lotka–Volterra with noise to t = 10, at an equal strong error: each contestant
runs at the loosest tolerance, of four a decade, at which the root mean square of its error at the
end, over paths, is at most the target; the error is that against many small steps of its own along
the same paths. Writes `results/noise.md`.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import machine, timing
from diffeq.brownian import counter_rng

STEPS, PATHS = 1_000, 1_000
DT = 1 / STEPS
TARGET, AT_ONCE, SAMPLES = 1e-2, 100, 100
PATIENCE = 60.0  # seconds in which a contestant's tolerance has to be found
RUNGS = np.logspace(-0.5, -4.5, 17)
GROWTH = (lambda t, y, a: a[0] * y), (lambda t, y, a: a[1] * y)
RATES = jnp.array([0.5, 0.2])


def by_us(args, key):
    """The library."""
    problem = de.SDEProblem(*GROWTH, 1.0, (0.0, 1.0), args)
    return de.solve(problem, de.EulerMaruyama(), dt=DT, key=key).y1


def by_scan(args, key):
    """A loop by hand, with the library's generator in it."""
    words = counter_rng.key_words(key)

    def step(y, i):
        w = counter_rng.normals(words, i, (), jnp.float64) * np.sqrt(DT)
        return _moved(y, i * DT, w, args), None

    return jax.lax.scan(step, 1.0, jnp.arange(STEPS))[0]


def by_scan_ahead(args, key):
    """A loop by hand over numbers that were drawn before."""
    w = jax.random.normal(key, (STEPS,)) * np.sqrt(DT)
    step = lambda y, x: (_moved(y, x[0] * DT, x[1], args), None)
    return jax.lax.scan(step, 1.0, (jnp.arange(STEPS), w))[0]


def _moved(y, t, w, args):
    drift, diffusion = GROWTH
    return y + DT * drift(t, y, args) + diffusion(t, y, args) * w


def by_diffrax(args, key):
    """Diffrax with the Brownian motion that its documentation advises."""
    import diffrax

    motion = diffrax.VirtualBrownianTree(0.0, 1.0, tol=DT / 2, shape=(), key=key)
    drift, diffusion = GROWTH
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, motion))
    solver = diffrax.Euler()
    return diffrax.diffeqsolve(
        terms, solver, 0.0, 1.0, DT, 1.0, args=args, max_steps=STEPS + 24
    ).ys[-1]


GIVEN = {
    "diffeq": by_us,
    "scan": by_scan,
    "scan, drawn ahead": by_scan_ahead,
    "Diffrax, VirtualBrownianTree": by_diffrax,
}


def given(budget):
    """Seconds of each contestant, forward and gradient; rows of a table."""
    keys = jax.random.split(jax.random.key(0), PATHS)
    inputs = [RATES * (1 + 1e-3 * i) for i in range(3)]
    rows = []
    for mode in ("forward", "gradient"):
        entrants = {}
        for name, path in GIVEN.items():
            paths = jax.vmap(path, (None, 0))
            mean = lambda args, paths=paths: jnp.mean(paths(args, keys) ** 2)
            run = (lambda args, paths=paths: paths(args, keys)) if mode == "forward" else mean
            solve = jax.jit(run if mode == "forward" else jax.value_and_grad(run))
            entrants[name] = timing.Contestant(solve, inputs)
        rows += _timed(entrants, budget, lambda name, mode=mode: [f"{name}, {mode}"])
    return rows


def _timed(entrants, budget, head):
    timing.interleave(list(entrants.values()), budget, 200)
    base = next(iter(entrants.values()))
    rows = []
    for name, each in entrants.items():
        spent, over = timing.summary(each.samples.values()), timing.ratio(each, base)
        figures = f"{1e3 * spent['median']:.3g}", f"{1e3 * spent['min']:.3g}"
        rows.append([*head(name), *figures, f"{over['median']:.3g}"])
    return rows


# --- controlled steps ---------------------------------------------------------------------------


def ours(problem, key, tolerance):
    """SOSRI with the default controller: the end, and the attempts."""
    sol = de.solve(problem, de.SOSRI(), key=key, rtol=tolerance, atol=tolerance)
    return sol.y1, sol.stats["steps"] + sol.stats["rejected"]


def _peers():
    """Diffrax's methods for such noise that control their steps, and what they solve."""
    import diffrax as dfx

    return {
        "SPaRK": (dfx.SPaRK(), True),
        "GeneralShARK, halved steps": (dfx.HalfSolver(dfx.GeneralShARK()), True),
        "SlowRK, halved steps": (dfx.HalfSolver(dfx.SlowRK()), True),
        "ItoMilstein, halved steps": (dfx.HalfSolver(dfx.ItoMilstein()), False),
        "EulerHeun, halved steps": (dfx.HalfSolver(dfx.EulerHeun()), True),
    }


def theirs(problem, solver, stratonovich, key, tolerance, steps=None):
    """A method of Diffrax: the end, and the attempts; with `steps`, that many equal ones."""
    import diffrax as dfx
    import lineax

    (t0, t1), noise = problem.tspan, problem.args[4]
    half = noise**2 / 2 if stratonovich else 0.0
    drift = lambda t, y, args: problem.drift(t, y, args) - half * y
    diffusion = lambda t, y, args: lineax.DiagonalLinearOperator(problem.diffusion(t, y, args))
    motion = dfx.VirtualBrownianTree(
        t0, t1, tol=(t1 - t0) * 2.0**-15, shape=(2,), key=key, levy_area=dfx.SpaceTimeLevyArea
    )
    controller = dfx.PIDController(
        rtol=tolerance, atol=tolerance, pcoeff=0.1, icoeff=0.3, dtmin=(t1 - t0) * 2.0**-14
    )
    found = dfx.diffeqsolve(
        dfx.MultiTerm(dfx.ODETerm(drift), dfx.ControlTerm(diffusion, motion)), solver, t0, t1,
        (t1 - t0) / steps if steps else 0.05, problem.y0, args=problem.args, max_steps=20_000,
        stepsize_controller=dfx.ConstantStepSize() if steps else controller, throw=False,
    )  # fmt: skip
    return found.ys[-1], found.stats["num_steps"]


def controlled(budget):
    """Tolerance, error, attempts and seconds of each contestant; rows of a table."""
    import diffrax as dfx

    problem = de.zoo.stochastic_lotka_volterra().problem()
    keys = jax.random.split(jax.random.key(0), SAMPLES)
    fine = lambda key: theirs(problem, dfx.SlowRK(), True, key, 1.0, steps=8192)[0]
    truths = {
        "ours": jax.jit(jax.vmap(lambda key: ours(problem, key, 1e-6)[0]))(keys),
        "theirs": jax.jit(jax.vmap(fine))(keys),
    }
    runs = {"diffeq, SOSRI": (lambda key, tol: ours(problem, key, tol), "ours")} | {
        f"Diffrax, {name}": (
            lambda key, tol, s=solver, kind=kind: theirs(problem, s, kind, key, tol), "theirs"
        )
        for name, (solver, kind) in _peers().items()
    }  # fmt: skip
    entrants, known = {}, {}
    for name, (path, whose) in runs.items():
        run = jax.jit(jax.vmap(path, (0, None)))
        found = _loosest(run, keys, truths[whose])
        if found is None:
            known[name] = ["–", f"not reached in {PATIENCE:g} s of searching", "–"]
            continue
        tolerance, error, attempts = found
        known[name] = [f"{tolerance:.1e}", f"{error:.1e}", f"{attempts:.0f}"]
        solve = lambda keys, run=run, tolerance=tolerance: run(keys, tolerance)
        entrants[name] = timing.Contestant(solve, [keys[:AT_ONCE]])
    rows = _timed(entrants, budget, lambda name: [name, *known[name]])
    return rows + [[name, *known[name], "–", "–", "–"] for name in known if name not in entrants]


def _loosest(run, keys, truth):
    begin = time.perf_counter()
    for tolerance in RUNGS:
        if time.perf_counter() - begin > PATIENCE:
            return None
        end, attempts = run(keys, tolerance)
        error = float(jnp.sqrt(jnp.mean((end - truth) ** 2)))
        if error <= TARGET:
            return tolerance, error, float(jnp.mean(attempts))
    return None


def _table(head, rows):
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main():
    """Runs both and writes their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each group of contestants")
    seconds = parser.parse_args().seconds
    jax.config.update("jax_enable_x64", True)
    here = machine.machine()
    times = ["ms, median", "ms, least", "× diffeq"]
    title = (
        f"Lotka–Volterra with noise 0.1 y to t = 10, {AT_ONCE} paths by `vmap`, strong error at "
        f"most {TARGET:g} (root mean square over {SAMPLES} paths):"
    )
    lines = [
        "Written by `python -m benchmarks.noise`.", "",
        f"{here['processor']}, {here['cores']} cores, load {here['load'][0]:.1f} at the start.", "",
        f"Euler–Maruyama, {STEPS:,} steps of {PATHS:,} paths, float64:", "",
        *_table(["contestant", *times], given(seconds)), "",
        title, "",
        *_table(["contestant", "tolerance", "error", "attempts", *times], controlled(seconds)), "",
    ]  # fmt: skip
    text = "\n".join(lines)
    Path(__file__).with_name("results").joinpath("noise.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""What a gradient costs if the residuals of a step are kept, and if the step is made again:
`python -m benchmarks.kept_residuals`.

A bare program: given steps of Tsit5 in `lax.scan`, whose reverse derivative keeps what each stage's
needs (the activations of its network), or, with `jax.checkpoint` around a step, evaluates the step
again from its start. There is no error control, no tape and no output, so that the difference is
that of keeping alone. The cases are those of `benchmarks.training`; all are measured in turns.

Writes `results/kept_residuals.md`; `--quick` is a smoke test, and writes nothing.
"""

import argparse
import datetime
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from benchmarks import machine, timing
from benchmarks.bare import BareTsit5
from benchmarks.training_cases import Case, case_of

HERE = Path(__file__).parent
NAMES = ("spiral", "ode_demo", "tutorial", "ude", "ffjord", "wide", "layers16")
STEPS = 16


def loss_of(case: Case, *, kept: bool) -> Callable:
    """The mean square of the state after the steps, as a function of the parameters."""
    problem = case.problem
    start, restore = ravel_pytree(problem.y0)
    field = lambda t, y, args: ravel_pytree(problem.field(t, restore(y), args))[0]
    solver, dt = BareTsit5(field, rolled=False, rows=STEPS), problem.span[1] / STEPS

    def loss(params):
        def step(y, i):
            return solver.stages(i * dt, y, dt, params)[0], None

        times = jnp.arange(STEPS, dtype=start.dtype)
        end, _ = lax.scan(step if kept else jax.checkpoint(step), start, times)
        return jnp.mean(end**2)

    return loss


def measured(case: Case, seconds: float, rounds: int) -> str:
    """The row of a case: made again, kept, and the forward pass alone."""
    again, kept = (jax.jit(jax.grad(loss_of(case, kept=kept))) for kept in (False, True))
    forward = jax.jit(loss_of(case, kept=False))
    racers = [timing.Contestant(run, case.variants()) for run in (again, kept, forward)]
    timing.interleave(racers, seconds, rounds)
    medians = [timing.summary(racer.samples.values())["median"] for racer in racers]
    ratio = timing.ratio(racers[0], racers[1])
    memory = kept.lower(case.params).compile().memory_analysis().temp_size_in_bytes
    times = " | ".join(f"{1e3 * x:.3f}" for x in medians)
    return f"| {case.title} | {times} | {ratio['median']:.2f} | {memory / 2**20:.1f} |"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test; nothing is written")
    quick = parser.parse_args().quick
    here = machine.machine()
    where = f"{here['processor']}, {here['cores']} cores, JAX {jax.__version__}, float32."
    lines = [
        "# Residuals kept, or steps made again\n",
        f"{datetime.date.today()}, {where}",
        "By `python -m benchmarks.kept_residuals`, which says how.\n",
        f"{STEPS} given steps of Tsit5, ms; the ratio is above 1 where keeping is faster.\n",
        "| case | gradient, made again | gradient, kept | forward | ratio | kept, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in NAMES:
        row = measured(case_of(name, quick=quick), *((0.1, 3) if quick else (6.0, 200)))
        print(row, flush=True)
        lines.append(row)
    if not quick:
        text = "\n".join(lines) + "\n"
        (HERE / "results" / "kept_residuals.md").write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()

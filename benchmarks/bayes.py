"""Samples of a posterior per second, beside Diffrax: `python -m benchmarks.bayes`.

The posterior is that of the four rates of Lotka–Volterra, of twenty noisy observations of both
species (log-normal noise of 10 %), sampled by the No-U-Turn sampler of BlackJAX, in double
precision, each contestant by Tsit5 at the same tolerances and as its documentation recommends. Both
start where one adaptation ended, with its step size and its mass matrix, and with the same keys. A
trajectory of the sampler amplifies rounding, so that their numbers of leapfrog steps differ a
little; the time of one of them, a gradient of the density, is given, too. `--quick` is a smoke
test. The report is `results/bayes.md`.
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import blackjax
import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import machine

HERE = Path(__file__).parent
RATES = np.array([0.55, 0.028, 0.84, 0.026])
Y0, SPAN, TS = np.array([30.0, 4.0]), (0.0, 20.0), np.linspace(1.0, 20.0, 20)
RTOL, ATOL, NOISE, SPREAD = 1e-6, 1e-6, 0.1, 0.5

COLUMNS = (
    "chains",
    "contestant",
    "samples per second",
    "of Diffrax's",
    "µs a leapfrog step",
    "first call, CPU s",
    "mean of log rates",
)


def field(t: jax.Array, y: jax.Array, p: jax.Array) -> jax.Array:
    """Lotka–Volterra."""
    prey, predator = y
    return jnp.stack(
        [p[0] * prey - p[1] * prey * predator, p[3] * prey * predator - p[2] * predator]
    )


PROBLEM = de.ODEProblem(field, Y0, SPAN, RATES)


def ours(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rows by this library, and whether the solve ended well."""
    sol = de.solve(
        PROBLEM.replace(args=p), de.Tsit5(), saveat=TS, rtol=RTOL, atol=ATOL, throw=False
    )
    return sol.filled(1.0), sol.success


def by_diffrax(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same by Diffrax."""
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), *SPAN, None, Y0, p,
        saveat=diffrax.SaveAt(ts=TS), stepsize_controller=diffrax.PIDController(RTOL, ATOL),
        throw=False,
    )  # fmt: skip
    good = sol.result == diffrax.RESULTS.successful
    return jnp.where(good, sol.ys, 1.0), good


CONTESTANTS: dict[str, Callable] = {"diffeq": ours, "Diffrax": by_diffrax}


def density(rows: Callable, data: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The logarithm of the posterior's density by the logarithms of the rates."""

    def log_density(logs: jax.Array) -> jax.Array:
        ys, good = rows(jnp.exp(logs))
        misfit = jnp.sum((jnp.log(ys) - jnp.log(data)) ** 2) / NOISE**2
        prior = jnp.sum((logs - jnp.log(RATES)) ** 2) / SPREAD**2
        return jnp.where(good, -(misfit + prior) / 2, -jnp.inf)

    return log_density


class Chains(NamedTuple):
    """A compiled program of several chains, which takes a seed and returns positions and the number
    of leapfrog steps to each; and the processor seconds that its compilation took.
    """

    run: Callable
    first: float


def chains(
    log_density: Callable, start: jax.Array, parameters: dict, samples: int, many: int
) -> Chains:
    """Compile the sampler for `many` chains, side by side under `vmap`."""
    kernel = blackjax.nuts(log_density, **parameters).step
    begin = blackjax.nuts(log_density, **parameters).init

    def chain(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def move(state, key):
            state, info = kernel(key, state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(move, begin(start), jax.random.split(key, samples))[1]

    def run(seed: int) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(jax.random.key(seed), many)
        return jax.block_until_ready(compiled(keys))

    clock = time.process_time()
    keys = jax.random.split(jax.random.key(0), many)
    compiled = jax.jit(jax.vmap(chain) if many > 1 else lambda keys: chain(keys[0]))
    compiled = compiled.lower(keys).compile()
    return Chains(run, time.process_time() - clock)


def adapted(log_density: Callable, steps: int) -> tuple[jax.Array, dict]:
    """Where an adaptation ends, and the parameters that it finds."""
    warmup = blackjax.window_adaptation(blackjax.nuts, log_density)
    (state, parameters), _ = jax.jit(lambda key: warmup.run(key, jnp.log(RATES), num_steps=steps))(
        jax.random.key(1)
    )
    return state.position, parameters


def raced(racers: dict[str, Chains], rounds: int) -> dict[str, tuple[float, float, jax.Array]]:
    """Of each the median seconds of a run, the leapfrog steps of one, and the mean position."""
    seconds: dict[str, list[float]] = {name: [] for name in racers}
    leaps: dict[str, list[float]] = {name: [] for name in racers}
    means: dict[str, list[jax.Array]] = {name: [] for name in racers}
    for seed in range(rounds):
        for name, racer in racers.items():
            clock = time.perf_counter()
            positions, steps = racer.run(seed)
            seconds[name].append(time.perf_counter() - clock)
            leaps[name].append(float(jnp.sum(steps)))
            means[name].append(positions.reshape(-1, 4).mean(0))
    return {
        name: (
            statistics.median(seconds[name]),
            statistics.mean(leaps[name]),
            jnp.stack(means[name]).mean(0),
        )
        for name in racers
    }


def main() -> None:
    """Race both with one chain and with several, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    samples, rounds, warmup = (20, 1, 50) if quick else (500, 5, 500)
    rows, _ = ours(RATES)
    data = rows * jnp.exp(NOISE * jax.random.normal(jax.random.key(0), rows.shape))
    start, parameters = adapted(density(ours, data), warmup)
    here = machine.machine()
    where = f"{here['processor']}, {here['cores']} cores, JAX {jax.__version__}"
    lines = [
        "# Samples of a posterior",
        "",
        f"{datetime.date.today()}, {where}, Diffrax {diffrax.__version__}, float64, BlackJAX.",
        "By `python -m benchmarks.bayes`, which says how.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    ]
    for many in (1, 8):
        racers = {
            name: chains(density(solve, data), start, parameters, samples, many)
            for name, solve in CONTESTANTS.items()
        }
        found = raced(racers, rounds)
        for name, (seconds, leaps, mean) in found.items():
            rate, ratio = many * samples / seconds, found["Diffrax"][0] / seconds
            lines.append(
                f"| {many} | {name} | {rate:,.0f} | {ratio:.2f} | {1e6 * seconds / leaps:.0f} | "
                f"{racers[name].first:.1f} | {', '.join(f'{x:.3f}' for x in mean)} |"
            )
    report = "\n".join(lines) + "\n"
    print(report)
    if not quick:
        (HERE / "results" / "bayes.md").write_text(report, encoding="utf8")


if __name__ == "__main__":
    main()

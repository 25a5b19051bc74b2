"""Irregular time series against Diffrax's examples: `python -m benchmarks.time_series [--quick]`.

The neural CDE of Diffrax's example tells clockwise spirals from those that go the other way: hidden
state 8, width 128, Tsit5 to rtol 1e-3 and atol 1e-6, float32, along cubic Hermite curves with
backward differences. Here each series has its own 100 times, drawn at random, and a batch is 64.

Both start from the same weights on the same data: ours is `de.nn.NeuralCDE` given the networks of
the example, which is written here as it stands in Diffrax's documentation, with the coefficients of
its curves computed beforehand, as there. Losses and gradients have to agree.

* a training step (value, gradient, Adam), both in turn in one process;
* beside them the bare program of the networks alone: as many evaluations and reverse derivatives,
  in a compiled loop with no solver and no curve;
* the first call of such a step, in processor seconds, each in a process of its own;
* the loss and the accuracy on series that were not seen, after as many steps on the same batches.

Without `--quick` the table is written to `results/time_series.md`.
"""

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import diffeq as de
from benchmarks import machine, timing

HERE = Path(__file__).parent
OURS, DIFFRAX = "diffeq", "diffrax"
HIDDEN, WIDTH, TIMES, BATCH = 8, 128, 100, 64
TRAINED, TESTED, STEPS = 256, 512, 60
SECONDS, ROUNDS = 90.0, 60
RATE = 1e-2


class Series(NamedTuple):
    """Times (n, times), values (n, times, 2), and labels: 1 for those that are mirrored."""

    ts: jax.Array
    xs: jax.Array
    labels: jax.Array


def spirals(count: int, seed: int) -> Series:
    """The spirals of Diffrax's example, each at times of its own; every second one is mirrored."""
    draw = np.random.default_rng(seed)
    gaps = np.cumsum(draw.uniform(0.1, 1.9, (count, TIMES)), axis=1)
    ts = 4 * np.pi * (gaps - gaps[:, :1]) / (gaps[:, -1:] - gaps[:, :1])
    angle = draw.uniform(0.0, 2 * np.pi, (count, 1)) - 2 * ts
    mirrored = np.arange(count) % 2 == 0
    x = np.where(mirrored[:, None], -1, 1) * np.cos(angle)
    xs = np.exp(-0.3 * ts)[..., None] * np.stack([x, np.sin(angle)], -1)
    single = lambda v: jnp.asarray(v, jnp.float32)
    return Series(single(ts), single(xs), single(mirrored))


# --- the two models -------------------------------------------------------------------------------


class Networks(NamedTuple):
    """The networks of the example: of the first value, of the field, and of the output."""

    initial: eqx.nn.MLP
    field: eqx.nn.MLP
    readout: eqx.nn.Linear


def networks(seed: int) -> Networks:
    """New weights."""
    keys = jax.random.split(jax.random.key(seed), 3)
    field = eqx.nn.MLP(
        HIDDEN, HIDDEN * 3, WIDTH, 1, jax.nn.softplus, final_activation=jnp.tanh, key=keys[1]
    )
    initial = eqx.nn.MLP(3, HIDDEN, WIDTH, 1, key=keys[0])
    return Networks(initial, field, eqx.nn.Linear(HIDDEN, 1, key=keys[2]))


def our_logits(model: de.nn.NeuralCDE, batch: tuple) -> jax.Array:
    """The layer as anyone would call it."""
    return jax.vmap(lambda t, x: model(t, x).ys[0, 0])(*batch)


def our_model(nets: Networks) -> de.nn.NeuralCDE:
    """The layer with the networks of the example, at its tolerances."""
    return de.nn.NeuralCDE(nets.field, nets.initial, nets.readout, rtol=1e-3, atol=1e-6)


def their_logits(nets: Networks, batch: tuple) -> jax.Array:
    """The model of Diffrax's example."""

    def one(ts, coefficients):
        control = diffrax.CubicInterpolation(ts, coefficients)
        field = lambda t, y, args: nets.field(y).reshape(HIDDEN, 3)
        solution = diffrax.diffeqsolve(
            diffrax.ControlTerm(field, control).to_ode(), diffrax.Tsit5(), ts[0], ts[-1], None,
            nets.initial(control.evaluate(ts[0])), saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        )  # fmt: skip
        return nets.readout(solution.ys[-1])[0]

    return jax.vmap(one)(*batch)


def their_data(series: Series) -> tuple:
    """Times and the coefficients of the curves, made beforehand."""
    channels = jnp.concatenate([series.ts[..., None], series.xs], axis=-1)
    return series.ts, jax.vmap(diffrax.backward_hermite_coefficients)(series.ts, channels)


class Contest(NamedTuple):
    """A contestant: its model, its data, and its outputs."""

    model: object
    logits: Callable
    data: Callable


def contestant(who: str, seed: int = 0) -> Contest:
    """One of the two, with new weights."""
    nets = networks(seed)
    if who == OURS:
        return Contest(our_model(nets), our_logits, lambda s: (s.ts, s.xs))
    return Contest(nets, their_logits, their_data)


# --- a training step ------------------------------------------------------------------------------


def trainer(contest: Contest) -> tuple[Callable, object]:
    """A compiled step, (model, state), (batch, labels) ↦ loss, gradient, (model, state)."""
    optimizer = optax.adam(RATE)

    def loss(model, batch, labels):
        logits = contest.logits(model, batch)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))

    @eqx.filter_jit
    def step(carried, batch, labels):
        model, state = carried
        value, gradient = eqx.filter_value_and_grad(loss)(model, batch, labels)
        updates, state = optimizer.update(gradient, state)
        return value, gradient, (eqx.apply_updates(model, updates), state)

    start = optimizer.init(eqx.filter(contest.model, eqx.is_inexact_array))
    return step, (contest.model, start)


def first_call(who: str) -> None:
    """Prints the processor seconds of the first step of this process."""
    contest = contestant(who)
    series = spirals(BATCH, 0)
    batch = contest.data(series)
    step, carried = trainer(contest)
    jax.block_until_ready((batch, carried[1]))
    began = time.process_time()
    value, _, _ = jax.block_until_ready(step(carried, batch, series.labels))
    print(json.dumps({"seconds": time.process_time() - began, "loss": float(value)}))


def first_calls(repeats: int) -> dict[str, float]:
    """Processor seconds of the first step, the median of some processes each, one after another."""
    found: dict[str, list[float]] = {OURS: [], DIFFRAX: []}
    for _ in range(repeats):
        for who, seconds in found.items():
            command = [sys.executable, "-m", "benchmarks.time_series", "--first", who]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(json.loads(done.stdout.splitlines()[-1])["seconds"])
    return {who: float(np.median(seconds)) for who, seconds in found.items()}


def raced(seconds: float, rounds: int) -> tuple[dict, str]:
    """Both, with their times a step; and by how much their losses and gradients differ."""
    racers, values = {}, {}
    for who in (OURS, DIFFRAX):
        contest = contestant(who)
        batches = [spirals(BATCH, seed) for seed in range(4)]
        inputs = [(contest.data(s), s.labels) for s in batches]
        step, carried = trainer(contest)
        value, gradient, _ = step(carried, *inputs[0])
        values[who] = float(value), gradient
        solve = lambda given, step=step, carried=carried: step(carried, *given)
        racers[who] = timing.Contestant(solve, inputs)
    timing.interleave(list(racers.values()), seconds, rounds)
    ours, theirs = values[OURS], values[DIFFRAX]
    flat = lambda tree: jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
    mine = flat((ours[1].initial, ours[1].net, ours[1].readout))
    other = flat((theirs[1].initial, theirs[1].field, theirs[1].readout))
    by_gradient = float(jnp.linalg.norm(mine - other) / jnp.linalg.norm(other))
    by_loss = abs(ours[0] - theirs[0]) / theirs[0]
    agree = f"losses differ by {by_loss:.1e} of their size, gradients by {by_gradient:.1e}"
    if not (by_loss < 1e-2 and by_gradient < 3e-2):
        agree = f"**not the same: {agree}**"
    return racers, agree


def networks_alone(seconds: float, rounds: int) -> timing.Contestant:
    """The bare program: a training step's evaluations of the networks, with no solver and no curve.
    Lanes step together, so each attempt counts that any of them makes: the attempts are evaluated
    once, and the steps among them once more, with their reverse derivative.
    """
    nets, series = networks(0), spirals(BATCH, 0)
    stats = jax.vmap(lambda t, x: our_model(nets)(t, x).stats)(series.ts, series.xs)
    steps = int(jnp.max(stats["steps"]))
    attempts = int(jnp.max(stats["steps"] + stats["rejected"]))

    def end(nets: Networks, count: int) -> jax.Array:
        y = jax.vmap(nets.initial)(jnp.ones((BATCH, 3)))
        field = lambda y: jax.vmap(nets.field)(y).reshape(BATCH, HIDDEN, 3)
        turn = lambda y, _: (y + 1e-3 * jnp.sum(field(y), axis=-1), None)
        y, _ = jax.lax.scan(turn, y, None, length=6 * count)
        return jnp.mean(jax.vmap(nets.readout)(y) ** 2)

    @eqx.filter_jit
    def step(nets: Networks, scale: jax.Array) -> tuple:
        nets = jax.tree.map(lambda x: scale * x if eqx.is_inexact_array(x) else x, nets)
        return end(nets, attempts), eqx.filter_grad(end)(nets, steps)

    scales = [jnp.float32(1 + 1e-3 * i) for i in range(4)]
    racer = timing.Contestant(lambda scale: step(nets, scale), scales)
    timing.interleave([racer], seconds, rounds)
    return racer


def trained(who: str, steps: int, seed: int) -> tuple[float, float]:
    """The loss and the accuracy on series that were not seen."""
    contest = contestant(who, seed)
    series, unseen = spirals(TRAINED, 100 + seed), spirals(TESTED, 200 + seed)
    data = contest.data(series)
    step, carried = trainer(contest)
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        rows = draw.choice(TRAINED, BATCH, replace=False)
        batch = jax.tree.map(lambda x, rows=rows: x[rows], data)
        _, _, carried = step(carried, batch, series.labels[rows])
    logits = eqx.filter_jit(contest.logits)(carried[0], contest.data(unseen))
    loss = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, unseen.labels))
    return float(loss), float(jnp.mean((logits > 0) == (unseen.labels > 0.5)))


# --- the report -----------------------------------------------------------------------------------


def neural_cde(*, quick: bool) -> list[str]:
    """The section of the neural CDE."""
    racers, agree = raced(*((3.0, 5) if quick else (SECONDS, ROUNDS)))
    print(f"  a step was raced: {agree}", flush=True)
    bare = networks_alone(*((1.0, 2) if quick else (20.0, 40)))
    firsts = first_calls(1 if quick else 3)
    print(f"  first steps, CPU s: {firsts}", flush=True)
    seeds = range(1 if quick else 3)
    quality = {
        who: [trained(who, 5 if quick else STEPS, seed) for seed in seeds]
        for who in (OURS, DIFFRAX)
    }
    ratio = timing.ratio(racers[DIFFRAX], racers[OURS])
    lines = [
        "## Neural CDE\n",
        f"Batch {BATCH}, {TIMES} irregular times, hidden state {HIDDEN}, width {WIDTH}.",
        f"Of the same weights {agree}.\n",
        "| | a training step, ms | first step, CPU s | loss, not seen | accuracy, not seen |",
        "|---|---|---|---|---|",
    ]
    for who, racer in racers.items():
        losses, right = (np.array(x) for x in zip(*quality[who], strict=True))
        step = timing.summary(racer.samples.values())["median"]
        lines.append(
            f"| {who} | {1e3 * step:.1f} | {firsts[who]:.1f} | "
            f"{' '.join(f'{x:.3f}' for x in losses)} | {' '.join(f'{x:.1%}' for x in right)} |"
        )
    median = timing.summary(bare.samples.values())["median"]
    lines.append(f"| its networks alone | {1e3 * median:.1f} | | | |")
    first = firsts[DIFFRAX] / firsts[OURS]
    lines.append(
        f"\nDiffrax's in units of ours: a step {ratio['median']:.2f} (from {ratio['min']:.2f} to "
        f"{ratio['max']:.2f} over {ratio['rounds']} rounds), the first {first:.2f}. Losses and "
        f"accuracies are after {STEPS} steps of Adam({RATE:g}), of three draws of data and weights."
    )
    return lines


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test; nothing is written")
    parser.add_argument("--first", metavar="who", help="the first step alone, in this process")
    options = parser.parse_args()
    if options.first:
        first_call(options.first)
        return
    here = machine.machine()
    where = f"{here['processor']}, {here['cores']} cores, JAX {jax.__version__}"
    lines = [
        "# Time series\n",
        f"{datetime.date.today()}, {where}, Diffrax {diffrax.__version__}, float32. By",
        "`python -m benchmarks.time_series`, which says how.\n",
        *neural_cde(quick=options.quick),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not options.quick:
        (HERE / "results" / "time_series.md").write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()

"""What is solved: each `Case` is a problem, its inputs, the error that counts, and the peers asked.

Inputs come in variants that differ slightly, so that no compiler can fold a result into a constant
and no lucky tolerance decides: the error of a tolerance is the largest over the variants.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks import fields

QUICK = ("lv_saves", "ode_demo", "euler_mlp", "long_fixed")
FORWARD = ("forward",)
GRADIENT = ("gradient",)
BOTH = ("forward", "gradient")
JAX_PEERS = ("ours", "diffrax", "tinydiffeq", "jax_odeint")


class Inputs(NamedTuple):
    """What a compiled solve takes: arrays or trees of arrays."""

    y0: Any
    args: Any
    data: Any = None


def sum_of_squares(ys, data):
    """A loss without data."""
    return (ys**2).sum()


def mean_absolute_error(ys, data):
    """The loss of torchdiffeq's `ode_demo`."""
    return abs(ys - data).mean()


@dataclass(frozen=True)
class Case:
    """One problem to time.

    `saves` evenly spaced rows from t0 to t1, or the end state (None); `steps` of fixed size, or
    adaptive (None), then the tolerance is the loosest that reaches `target_error`, or `tolerance`
    where that is given. `vmap` says what is mapped over: "args" (each lane has its own gradient),
    "y0" (a batch with shared parameters), or nothing.
    """

    name: str
    title: str
    field: Callable
    draw: Callable[[np.random.Generator], Inputs]
    t1: float
    peers: tuple[str, ...]
    t0: float = 0.0
    saves: int | None = None
    method: str = "tsit5"
    steps: int | None = None
    modes: tuple[str, ...] = BOTH
    vmap: str | None = None
    loss: Callable = sum_of_squares
    loss_name: str = "sum_of_squares"
    dtype: str = "float64"
    target_error: float | None = None
    tolerance: float | None = None
    atol_ratio: float = 1e-2
    dt0: float | None = None
    max_steps: int = 4096
    variants: int = 8
    reference_steps: int = 10_000
    reference_gradient: str = "reverse"
    curve: bool = False
    memory: bool = False
    most_rounds: int = 200

    @property
    def ts(self):
        """The save times, or None for the end state alone."""
        return None if self.saves is None else np.linspace(self.t0, self.t1, self.saves)

    @property
    def dt(self):
        """The fixed step, or None."""
        return None if self.steps is None else (self.t1 - self.t0) / self.steps

    def inputs(self):
        """All variants of the inputs, as NumPy arrays."""
        rng = np.random.default_rng(0)
        base = self.draw(rng)
        return [perturb(base, np.random.default_rng(i)) for i in range(self.variants)]


def perturb(inputs, rng):
    """The same inputs with every float of y0 and args moved by about one part in a thousand."""

    def moved(x):
        return (x * (1 + 1e-3 * rng.uniform(-1, 1, np.shape(x)))).astype(x.dtype)

    def walk(tree):
        if isinstance(tree, dict):
            return {key: walk(value) for key, value in tree.items()}
        return moved(tree)

    return Inputs(walk(inputs.y0), walk(inputs.args), inputs.data)


def _lotka_volterra(lanes=None):
    args = np.array([1.5, 1.0, 3.0, 1.0])

    def draw(rng):
        spread = 1.0 if lanes is None else rng.uniform(0.9, 1.1, (lanes, 4))
        return Inputs(np.ones(2), args * spread)

    return draw


DEMO_SAVES = 10
DEMO_T1 = 25.0 * (DEMO_SAVES - 1) / 999


def _demo_rows(y0):
    """The true spiral of torchdiffeq's `ode_demo`, (y**3) A, by many small steps."""
    matrix = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    substeps = 200
    dt = DEMO_T1 / (DEMO_SAVES - 1) / substeps
    rows, y = [y0], y0
    for _ in range(DEMO_SAVES - 1):
        for _ in range(substeps):
            middle = y + 0.5 * dt * (y**3 @ matrix)
            y = y + dt * (middle**3 @ matrix)
        rows.append(y)
    return np.stack(rows)


def _demo(rng):
    y0 = rng.uniform(-2, 2, (20, 2))
    args = fields.mlp_parameters(rng, (2, 50, 2), scale=0.1)
    return Inputs(y0.astype(np.float32), args, _demo_rows(y0).astype(np.float32))


def _network(batch, sizes):
    def draw(rng):
        y0 = rng.standard_normal((*batch, sizes[0])).astype(np.float32)
        return Inputs(y0, fields.mlp_parameters(rng, sizes))

    return draw


def _oscillators(states):
    def draw(rng):
        return Inputs(rng.uniform(0.5, 1.5, states), np.array([1.0, 1e-5]))

    return draw


def _lotka_volterra_cases(lanes):
    shared = {"field": fields.lotka_volterra, "dt0": 1e-2, "reference_gradient": "forward"}
    saved = shared | {"t1": 10.0, "saves": 101, "target_error": 1e-6}
    return [
        Case(
            name="lv_end",
            title="Lotka–Volterra to t = 100, end state",
            draw=_lotka_volterra(),
            t1=100.0,
            peers=(*JAX_PEERS, "scipy"),
            modes=FORWARD,
            target_error=1e-4,
            reference_steps=100_000,
            max_steps=16_384,
            curve=True,
            **shared,
        ),
        Case(
            name="lv_saves",
            title="Lotka–Volterra to t = 10, 101 saves",
            draw=_lotka_volterra(),
            peers=(*JAX_PEERS, "scipy"),
            curve=True,
            **saved,
        ),
        Case(
            name="lv_vmap",
            title=f"the same, vmap over {lanes:,} parameter sets",
            draw=_lotka_volterra(lanes),
            peers=("ours", "diffrax", "tinydiffeq"),
            vmap="args",
            variants=2,
            most_rounds=15,
            **saved,
        ),
    ]


def _network_cases():
    demo = {
        "field": fields.mlp_of_cube,
        "draw": _demo,
        "t1": DEMO_T1,
        "saves": DEMO_SAVES,
        "method": "dopri5",
        "modes": GRADIENT,
        "loss": mean_absolute_error,
        "loss_name": "mean_absolute_error",
        "dtype": "float32",
        "tolerance": 1e-7,
        "dt0": 1e-2,
        "reference_steps": 900,
        "peers": (*JAX_PEERS, "lax_scan", "torchdiffeq", "torchdiffeq_direct"),
    }
    return [
        Case(name="ode_demo", title="ode_demo training step, batch as one state", **demo),
        Case(name="ode_demo_vmap", title="ode_demo training step, by vmap", vmap="y0", **demo),
        Case(
            name="field64",
            title="field 64→128→64, batch 64 as one state",
            field=fields.mlp,
            draw=_network((64,), (64, 128, 64)),
            t1=5.0,
            peers=(*JAX_PEERS, "torchdiffeq"),
            modes=GRADIENT,
            dtype="float32",
            target_error=1e-5,
            dt0=1e-2,
            variants=4,
            reference_steps=1_000,
            curve=True,
        ),
        Case(
            name="euler_mlp",
            title="1,000 Euler steps, network 4→32→4",
            field=fields.mlp,
            draw=_network((), (4, 32, 4)),
            t1=1.0,
            peers=("ours", "lax_scan", "diffrax", "tinydiffeq"),
            method="euler",
            steps=1_000,
            dtype="float32",
        ),
    ]


def _long_cases(steps, states):
    shared = {
        "field": fields.oscillators,
        "draw": _oscillators(states),
        "dt0": 1e-1,
        "variants": 2,
        "memory": True,
        "most_rounds": 5,
    }
    return [
        Case(
            name="long_fixed",
            title=f"{steps:,} fixed steps, {states:,} states",
            t1=steps * 0.1,
            peers=("ours", "diffrax"),
            steps=steps,
            max_steps=steps + 16,
            **shared,
        ),
        Case(
            name="long_adaptive",
            title=f"about {steps:,} adaptive steps, {states:,} states",
            t1=steps * 0.1,
            peers=("ours",),
            tolerance=4e-8,
            max_steps=2 * steps,
            **shared,
        ),
    ]


def all_cases(quick=False):
    """The cases; a few of them, some smaller, when `quick`."""
    lanes, steps, states = (50, 2_000, 100) if quick else (1_000, 100_000, 1_000)
    every = [*_lotka_volterra_cases(lanes), *_network_cases(), *_long_cases(steps, states)]
    return [case for case in every if case.name in QUICK] if quick else every

"""What is trained: problems, losses and parameters in single precision, and who solves them.

A `Case` is a problem whose args are what the gradient is taken by, and a loss of the saved rows.
`quick` cases are the same programs at sizes that compile and run in a moment.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import diffeq as de
from benchmarks import fields, first_gradients
from benchmarks.bare import BareTsit5

MOST_STEPS = 4096


class Problem(NamedTuple):
    """y' = field(t, y, args) from `ts[0]` or 0 on, with rows at `ts`, the last of which is the end.

    `steps`: that many of one size; None controls the error. `rows`: the length of the tape that the
    bare program gets, which has to be given one.
    """

    field: Callable
    y0: Any
    ts: np.ndarray
    rtol: float = 1e-3
    atol: float = 1e-6
    steps: int | None = None
    rows: int = 64

    @property
    def span(self):
        """Start and end, as Python numbers."""
        return 0.0, float(self.ts[-1])

    @property
    def dt(self):
        """The given step size, or None."""
        return None if self.steps is None else self.span[1] / self.steps


class Case(NamedTuple):
    """A problem, its parameters, and a loss of its rows.

    `lanes`: y0 has a leading axis of trajectories, which are solved under `jax.vmap`. `trained`: a
    training step with Adam is timed, too. `large`: memory is measured. `written_out`: the field is
    many scalar expressions, of which the bare program is compiled with its stages in a loop alone.
    """

    title: str
    problem: Problem
    params: Any
    loss: Callable
    lanes: bool = False
    trained: bool = False
    large: bool = False
    written_out: bool = False

    def loss_by(self, solve: Callable) -> Callable:
        """The loss as a function of the parameters, with one of `CONTESTANTS`."""

        def rows(params):
            if not self.lanes:
                return solve(self.problem, params)
            each = lambda y0: solve(self.problem._replace(y0=y0), params)
            return jax.vmap(each)(self.problem.y0)

        return lambda params: self.loss(rows(params))

    def variants(self, count: int = 3) -> list:
        """The parameters, moved by about one part in a thousand."""
        draw = np.random.default_rng(1)
        moved = lambda x: jnp.asarray(x * draw.uniform(0.999, 1.001, np.shape(x)), jnp.float32)
        return [jax.tree.map(moved, self.params) for _ in range(count)]


# --- contestants ----------------------------------------------------------------------------------


def by_diffeq(problem: Problem, args):
    """This library."""
    posed = de.ODEProblem(problem.field, problem.y0, problem.span, args)
    if problem.steps is not None:
        most = {"max_steps": problem.steps} if problem.steps > 65_536 else {}
        return de.solve(posed, de.Tsit5(), saveat=problem.ts, dt=problem.dt, **most).ys
    return de.solve(posed, de.Tsit5(), saveat=problem.ts, rtol=problem.rtol, atol=problem.atol).ys


def by_diffrax(problem: Problem, args):
    """Diffrax as its documentation recommends."""
    controller = diffrax.PIDController(rtol=problem.rtol, atol=problem.atol)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(problem.field), diffrax.Tsit5(), *problem.span, problem.dt, problem.y0,
        args, saveat=diffrax.SaveAt(ts=problem.ts), max_steps=(problem.steps or MOST_STEPS) + 16,
        stepsize_controller=controller if problem.steps is None else diffrax.ConstantStepSize(),
    )  # fmt: skip
    return solution.ys


def by_hand(problem: Problem, args, *, rolled: bool):
    """The bare program, on the leaves of the state as one array."""
    field, y0, restore = problem.field, problem.y0, lambda ys: ys
    if not isinstance(y0, jax.Array | np.ndarray):
        y0, unravel = ravel_pytree(y0)
        field = lambda t, y, args: ravel_pytree(problem.field(t, unravel(y), args))[0]
        restore = jax.vmap(unravel)
    solver = BareTsit5(field, rolled, problem.rows, problem.dt)
    ys = solver.solve(
        args, jnp.asarray(y0), jnp.asarray(problem.ts), problem.span, problem.rtol, problem.atol
    )
    return restore(ys)


CONTESTANTS = {
    "diffeq": by_diffeq,
    "Diffrax": by_diffrax,
    "bare, unrolled": partial(by_hand, rolled=False),
    "bare, rolled": partial(by_hand, rolled=True),
}


# --- networks -------------------------------------------------------------------------------------


def _single(x) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def _grid(end: float, count: int) -> np.ndarray:
    return np.linspace(0.0, end, count, dtype=np.float32)


def _distance(data: jax.Array) -> Callable:
    """The mean square distance from data."""
    return lambda ys: jnp.mean((ys - data) ** 2)


def _normal(draw: np.random.Generator, *shape: int) -> jax.Array:
    return _single(draw.standard_normal(shape))


def _network(draw: np.random.Generator, *sizes: int):
    return jax.tree.map(_single, fields.layers(draw, sizes))


def spiral() -> Case:
    """The neural ODE of the DiffEqFlux paper."""
    draw = np.random.default_rng(0)
    params = _network(draw, 2, 50, 2)
    field = lambda t, y, args: fields.network(y**3, args)
    problem = Problem(field, _single([2.0, 0.0]), _grid(1.5, 30))
    loss = _distance(_normal(draw, 30, 2))
    return Case("spiral, 2-50-2, 30 saves", problem, params, loss, trained=True)


def ode_demo(*, lanes: bool = False) -> Case:
    """A training step of torchdiffeq's `ode_demo`: 20 starts, 10 saves, the mean absolute error."""
    draw = np.random.default_rng(0)
    params = _network(draw, 2, 50, 2)
    field = lambda t, y, args: fields.network(y**3, args)
    problem = Problem(field, _normal(draw, 20, 2), _grid(0.225, 10), 1e-6, 1e-8)
    data = _normal(draw, *((20, 10, 2) if lanes else (10, 20, 2)))
    loss = lambda ys: jnp.mean(jnp.abs(ys - data))
    how = "the same by vmap" if lanes else "ode_demo, batch of 20 as one state"
    return Case(how, problem, params, loss, lanes=lanes, trained=True)


def tutorial(batch: int = 32, saves: int = 100) -> Case:
    """The neural ODE of Diffrax's documentation."""
    draw = np.random.default_rng(0)
    params = _network(draw, 2, 64, 64, 2)
    field = lambda t, y, args: jnp.tanh(fields.network(y, args, jax.nn.softplus))
    problem = Problem(field, _single(draw.uniform(0, 1, (batch, 2))), _grid(10.0, saves))
    title = f"Diffrax's tutorial, 2-64-64-2, batch {batch}, {saves} saves"
    loss = _distance(_normal(draw, batch, saves, 2))
    return Case(title, problem, params, loss, lanes=True, trained=True)


def ude() -> Case:
    """Lotka–Volterra's equations of which a network has to find the interaction."""
    draw = np.random.default_rng(0)
    params = _network(draw, 2, 16, 16, 2)

    def field(t, y, args):
        prey, predator = y
        u = fields.network(y, args)
        return jnp.stack([1.3 * prey - u[0] ** 2, -1.8 * predator + u[1] ** 2])

    problem = Problem(field, _single([1.0, 1.0]), _grid(3.0, 31), 1e-5, 1e-5)
    title = "UDE: Lotka–Volterra, network 2-16-16-2"
    return Case(title, problem, params, _distance(_normal(draw, 31, 2)), trained=True)


def ffjord(samples: int = 256) -> Case:
    """A continuous normalizing flow: samples, and their log-density by Hutchinson's estimate."""
    draw = np.random.default_rng(0)
    params = _network(draw, 3, 64, 64, 2)
    x, noise = _normal(draw, samples, 2), _normal(draw, samples, 2)

    def field(t, y, args):
        z, _ = y
        times = jnp.full((samples, 1), t, z.dtype)
        velocity = lambda z: fields.network(jnp.concatenate([z, times], 1), args)
        dz, pull = jax.vjp(velocity, z)
        return dz, -jnp.sum(pull(noise)[0] * noise, 1)

    def loss(ys):
        z, log_density = ys
        return jnp.mean(z[-1] ** 2) - jnp.mean(log_density[-1])

    problem = Problem(field, (x, jnp.zeros(samples, jnp.float32)), _grid(1.0, 2), 1e-4, 1e-4)
    return Case(f"FFJORD, {samples} samples", problem, params, loss, trained=True)


def wide(batch: int = 64, size: int = 256) -> Case:
    """A state that is large, and a network with as many units."""
    draw = np.random.default_rng(0)
    params = _network(draw, size, size, size)
    field = lambda t, y, args: fields.network(y, args)
    problem = Problem(field, _normal(draw, batch, size), _grid(1.0, 2))
    loss = lambda ys: jnp.mean(ys[-1] ** 2)
    return Case(f"a wide network, state {batch} × {size}", problem, params, loss,
                trained=True, large=True)  # fmt: skip


def layers(count: int = 16, width: int = 32) -> Case:
    """A deep network."""
    draw = np.random.default_rng(0)
    params = _network(draw, 4, *[width] * count, 4)
    field = lambda t, y, args: fields.network(y, args)
    problem = Problem(field, _single([0.3] * 4), _grid(1.0, 11))
    loss = lambda ys: jnp.mean(ys**2)
    return Case(f"a network of {count} layers", problem, params, loss, trained=True)


# --- fields that are written out ------------------------------------------------------------------


def reactions(count: int) -> Case:
    """A network of reactions, an expression each."""
    case = first_gradients.reactions(count)
    problem = Problem(case.field, case.y0, np.asarray(case.ts), case.rtol, case.atol)
    loss = lambda ys: jnp.mean(ys**2)
    return Case(f"{count} reactions", problem, case.args, loss, written_out=True)


def scalar_code(lines: int, states: int = 8) -> Case:
    """A program of `lines` assignments of scalars, each of which reads three of the numbers before
    it: states, which many lines share, or results of other lines. All lines end in the slopes.
    """
    draw = np.random.default_rng(0)
    reads = [draw.integers(0, states + i, 3) for i in range(lines)]

    def field(t, y, rates):
        known = list(y)
        for rate, (a, b, c) in zip(rates, reads, strict=True):
            u, v, w = known[a], known[b], known[c]
            known.append(rate * (u - v * w) / (1.0 + u * u + v * v + w * w))
        sums = [sum(known[states + i :: states]) for i in range(states)]
        return jnp.stack(sums) - y

    y0, rates = draw.uniform(0.2, 1.0, states), _single(draw.uniform(0.5, 1.5, lines))
    problem = Problem(field, _single(y0), _grid(1.0, 11))
    title = f"a field of {lines} lines of scalar code"
    return Case(title, problem, rates, lambda ys: jnp.mean(ys**2), written_out=True)


def lotka_volterra() -> Case:
    """The gradient by four rates."""
    rates = _single([1.5, 1.0, 3.0, 1.0])
    problem = Problem(
        fields.lotka_volterra, _single([1.0, 1.0]), _grid(10.0, 101), 1e-5, 1e-6, rows=256
    )
    return Case("Lotka–Volterra, 4 rates, 101 saves", problem, rates, lambda ys: jnp.mean(ys**2))


# --- large states ---------------------------------------------------------------------------------


def gray_scott(size: int = 256) -> Case:
    """Gray and Scott's reaction and diffusion on a periodic square, with a patch in the middle."""

    def laplacian(u):
        return sum(jnp.roll(u, s, axis) for axis in (0, 1) for s in (1, -1)) - 4 * u

    def field(t, y, args):
        feed, kill, along, across = args
        u, v = y
        uvv = u * v * v
        return jnp.stack([
            along * laplacian(u) - uvv + feed * (1.0 - u),
            across * laplacian(v) + uvv - (feed + kill) * v,
        ])  # fmt: skip

    middle = slice(3 * size // 8, 5 * size // 8)
    y0 = np.stack([np.ones((size, size)), np.zeros((size, size))])
    y0[0, middle, middle], y0[1, middle, middle] = 0.5, 0.25
    y0 = y0 + 0.01 * np.random.default_rng(0).standard_normal(y0.shape)
    args = _single([0.035, 0.065, 0.16, 0.08])
    problem = Problem(field, _single(y0), _grid(50.0, 2))
    loss = lambda ys: jnp.mean(ys[-1, 1] ** 2)
    return Case(f"Gray–Scott {size}²", problem, args, loss, large=True)


def line(cells: int = 10**6) -> Case:
    """Fisher's equation on many cells, for a few steps."""

    def field(t, y, args):
        bend = jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)
        return args[0] * bend + args[1] * y * (1.0 - y)

    y0 = _single(np.sin(np.linspace(0, 6, cells)) ** 2)
    problem = Problem(field, y0, _grid(1.0, 2), rows=8)
    loss = lambda ys: jnp.mean(ys[-1] ** 2)
    title = f"{cells:,} numbers, few steps"
    return Case(title, problem, _single([1.0, 0.5]), loss, large=True)


def long(steps: int = 100_000, states: int = 1_000) -> Case:
    """Very many steps of one size; the bare program keeps the states of all of them."""
    draw = np.random.default_rng(0)
    y0, end = _single(draw.uniform(0.5, 1.5, states)), steps * 0.1
    problem = Problem(fields.oscillators, y0, _grid(end, 2), steps=steps, rows=steps + 8)
    loss = lambda ys: jnp.mean(ys[-1] ** 2)
    title = f"{steps:,} given steps, {states:,} states"
    return Case(title, problem, _single([1.0, 1e-5]), loss, large=True)


CASES: dict[str, Callable[[], Case]] = {
    "spiral": spiral,
    "ode_demo": ode_demo,
    "ode_demo_vmap": partial(ode_demo, lanes=True),
    "tutorial": tutorial,
    "ude": ude,
    "ffjord": ffjord,
    "wide": wide,
    "layers16": partial(layers, 16),
    "reactions20": partial(reactions, 20),
    "reactions50": partial(reactions, 50),
    "reactions200": partial(reactions, 200),
    "scalar30": partial(scalar_code, 30),
    "scalar300": partial(scalar_code, 300),
    "lotka_volterra": lotka_volterra,
    "gray_scott": gray_scott,
    "line": line,
    "long": long,
}
"""The cases of the report."""

QUICK: dict[str, Callable[[], Case]] = {
    "ode_demo_vmap": partial(ode_demo, lanes=True),
    "ffjord": partial(ffjord, 8),
    "reactions20": partial(reactions, 6),
    "gray_scott": partial(gray_scott, 16),
    "long": partial(long, 200, 10),
}
"""Those of a smoke test."""

BY_SIZE: dict[str, Callable[[int], Case]] = {
    "reactions": reactions,
    "layers": layers,
    "scalar": scalar_code,
}
"""Cases of any size of their field."""

GROWING = {"reactions": (10, 20, 50, 100, 200), "layers": (2, 4, 8, 16, 32)}
"""The sizes in the plot of compile time."""


def case_of(name: str, *, quick: bool = False) -> Case:
    """A case by its name, which may be one of `BY_SIZE` with its size, as `reactions100`."""
    known = QUICK if quick and name in QUICK else CASES
    if name in known:
        return known[name]()
    for prefix, make in BY_SIZE.items():
        if name.removeprefix(prefix).isdecimal():
            return make(int(name.removeprefix(prefix)))
    raise ValueError(f"unknown case {name!r}; there are {', '.join(CASES)}")

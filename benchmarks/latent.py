"""Latent models: a training step beside Diffrax's latent ODE and torchsde's latent SDE.

    python -m benchmarks.latent [--rounds 20] [--steps 100] [--quick] [--only "latent ODE"]

* latent ODE: the model of Diffrax's example (decaying oscillators, batches of 256 series of 20
  irregular times, hidden size 16, Tsit5 with steps of 0.4, Adam), by Diffrax and by
  `de.nn.LatentODE`; the time of a step, that of the first call, and the loss after as many steps.
* latent SDE of one series: that of torchsde's `latent_sde.py` (an Ornstein–Uhlenbeck prior, a
  posterior of 200 × 200, Euler–Maruyama with 200 steps, Laplace noise), by torchsde and by
  `de.nn.LatentSDE`, with its 512 paths, and with 32.
* latent SDE of many series: that of torchsde's `latent_sde_lorenz.py` (100 times, 4 latent numbers,
  a context of 64, networks of 128), with 128 series for its 1,024, and with 8.
* Beside each the bare program of its networks alone, in a compiled loop with no solver and no
  noise: of the latent ODE a training step with as many evaluations of the slope, of latent SDEs as
  many evaluations of each network as there are steps, and one reverse derivative of each. No
  program that JAX compiles takes a training step in less. (That of the latent ODE has losses of its
  own.)

Contestants take turns; figures are medians of wall-clock time. Losses and bounds are of equal
numbers of steps from weights of the same distribution. Writes `results/latent.md`.
"""

import argparse
import itertools
import math
import statistics
import time
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torchsde
from torch import nn

import diffeq as de
from benchmarks import machine

# --- latent ODE -----------------------------------------------------------------------------------


def oscillators(count):
    """Times and values of decaying oscillators: (count, 20) and (count, 20, 2)."""
    rng = np.random.default_rng(0)
    starts, ends = rng.normal(size=(count, 2)), 2 + rng.random((count, 1))
    ts = np.sort(rng.random((count, 20)) * ends)
    values, vectors = np.linalg.eig(np.array([[-0.1, 1.3], [-1.0, -0.1]]))
    modes = np.exp(values * ts[:, :, None]) * (np.linalg.inv(vectors) @ starts.T).T[:, None]
    first = np.exp(-values * ts[:, :1, None])  # each starts at its first time
    return np.float32(ts), np.float32((modes * first @ vectors.T).real)


class Slope(eqx.Module):
    """A perceptron times a number, as in Diffrax's example."""

    scale: jax.Array
    net: eqx.nn.MLP

    def __init__(self, key):
        self.scale = jnp.ones(())
        self.net = eqx.nn.MLP(16, 16, 16, 2, jax.nn.softplus, jnp.tanh, key=key)

    def __call__(self, z):
        return self.scale * self.net(z)


class ByDiffrax(eqx.Module):
    """The model of the example, of the same size."""

    slope: Slope
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear
    widen: eqx.nn.MLP
    decoder: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 5)
        self.slope = Slope(keys[0])
        self.cell = eqx.nn.GRUCell(3, 16, key=keys[1])
        self.head = eqx.nn.Linear(16, 32, key=keys[2])
        self.widen = eqx.nn.MLP(16, 16, 16, 2, key=keys[3])
        self.decoder = eqx.nn.Linear(16, 2, key=keys[4])

    def cost(self, ts, xs, key):
        """−log p(x | z) + KL of one series, but for constants."""
        state = jnp.zeros(16)
        for row in reversed(jnp.concatenate([ts[:, None], xs], axis=1)):
            state = self.cell(row, state)
        mean, log_std = jnp.split(self.head(state), 2)
        std = jnp.exp(log_std)
        start = self.widen(mean + std * jax.random.normal(key, (16,)))
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, z, args: self.slope(z)),
            diffrax.Tsit5(), ts[0], ts[-1], 0.4, start, saveat=diffrax.SaveAt(ts=ts),
        )  # fmt: skip
        error = jnp.sum((xs - jax.vmap(self.decoder)(sol.ys)) ** 2)
        return 0.5 * (error + jnp.sum(mean**2 + std**2 - 2 * log_std - 1))


def of_diffrax(model, batch, key):
    """The mean of the costs of a batch."""
    return jnp.mean(jax.vmap(model.cost)(*batch, jax.random.split(key, len(batch[0]))))


def by_diffeq(key):
    """The same model by `LatentODE`, whose latent state is the state that is solved."""
    of_slope, of_decoder, rest = jax.random.split(key, 3)
    return de.nn.LatentODE(
        2, 16, hidden=16, net=Slope(of_slope), decoder=eqx.nn.Linear(16, 2, key=of_decoder),
        noise=1.0, key=rest, method=de.Tsit5(), dt=0.4,
    )  # fmt: skip


def of_diffeq(model, batch, key):
    """The loss without the constants of its normals."""
    return model.loss(batch, key) - batch[1].shape[1] * math.log(2 * math.pi)


def jax_step(model, loss, batches):
    """A function of no arguments: one training step, which returns its loss."""
    optimizer = optax.adam(1e-2)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    key = jax.random.key(1)

    @eqx.filter_jit
    def update(model, state, batch, key):
        value, slopes = eqx.filter_value_and_grad(loss)(model, batch, key)
        changes, state = optimizer.update(slopes, state)
        return eqx.apply_updates(model, changes), state, value

    count = 0

    def step():
        nonlocal model, state, count
        batch = batches[count % len(batches)]
        model, state, value = update(model, state, batch, jax.random.fold_in(key, count))
        count += 1
        return float(value)

    return step


EVALUATIONS = 8 * 6  # of the slope, in the eight steps of the longest series


def of_networks(model, batch, key):
    """The cost of a batch with nothing solved: the encoder, the slope as often as a solve evaluates
    it, and the decoder at as many rows, of all series together.
    """
    ts, xs = batch
    rows = jnp.moveaxis(jnp.concatenate([ts[..., None], xs], axis=-1), 1, 0)
    cell = lambda state, row: (jax.vmap(model.cell)(row, state), None)
    state, _ = jax.lax.scan(cell, jnp.zeros((len(ts), 16)), rows[::-1])
    mean, log_std = jnp.split(jax.vmap(model.head)(state), 2, axis=1)
    z = jax.vmap(model.widen)(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape))
    turn = lambda z, _: (z + 0.05 * jax.vmap(model.slope)(z), None)
    z, _ = jax.lax.scan(turn, z, None, length=EVALUATIONS)
    found = jax.vmap(jax.vmap(model.decoder))(ts[..., None] * z[:, None])
    return jnp.mean((found - xs) ** 2) + jnp.mean(mean**2 + jnp.exp(log_std) - log_std)


def latent_ode(quick):
    """Contestants of the latent ODE."""
    size = 32 if quick else 256
    ts, xs = oscillators(8 * size)
    batches = [(ts[i : i + size], xs[i : i + size]) for i in range(0, len(ts), size)]
    batches = jax.device_put(batches)
    key = jax.random.key(0)
    return {
        "diffeq": jax_step(by_diffeq(key), of_diffeq, batches),
        "Diffrax": jax_step(ByDiffrax(key), of_diffrax, batches),
        "its networks alone": jax_step(ByDiffrax(key), of_networks, batches),
    }


# --- latent SDE of one series ---------------------------------------------------------------------

SIGMA, NOISE = 0.5, 0.05


def sine():
    """The irregular sine of torchsde's example."""
    ts = np.sort(np.random.default_rng(0).uniform(0.4, 1.6, 16)).astype(np.float32)
    return ts, 0.8 * np.sin(2 * np.pi * ts)[:, None].astype(np.float32)


def perceptron(*sizes, activation=nn.Tanh):
    """A perceptron of torch."""
    layers = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class OneSeries(nn.Module):
    """torchsde's posterior of one series."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = perceptron(3, 200, 200, 1)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)
        self.start = nn.Parameter(torch.tensor([0.0, math.log(SIGMA / math.sqrt(2))]))

    def f(self, t, y):
        clock = torch.stack([torch.sin(t), torch.cos(t)]).expand(len(y), 2)
        return self.net(torch.cat([clock, y], 1))

    def g(self, t, y):
        return torch.full_like(y, SIGMA)

    def h(self, t, y):
        return -y


def torchsde_of_one(paths):
    """One training step by torchsde."""
    sde, (ts, xs) = OneSeries(), sine()
    times = torch.tensor([0.0, *ts, 2.0])
    target = torch.tensor(xs)[:, None]
    optimizer = torch.optim.Adam(sde.parameters(), 1e-2)
    prior = torch.distributions.Normal(0.0, SIGMA / math.sqrt(2))

    def step():
        optimizer.zero_grad()
        initial = torch.distributions.Normal(sde.start[0], sde.start[1].exp())
        y0 = initial.rsample((paths, 1))
        rows, lost = torchsde.sdeint(sde, y0, times, dt=1e-2, method="euler", logqp=True)
        seen = torch.distributions.Laplace(rows[1:-1], NOISE).log_prob(target).sum(0).mean()
        kl = torch.distributions.kl_divergence(initial, prior) + lost.sum(0).mean()
        loss = kl - seen
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class Posterior(eqx.Module):
    """A drift of the time and the state, zero at first."""

    net: eqx.nn.MLP

    def __init__(self, key):
        net = eqx.nn.MLP(3, 1, 200, 2, jnp.tanh, key=key)
        last = lambda net: [net.layers[-1].weight, net.layers[-1].bias]
        self.net = eqx.tree_at(last, net, [jnp.zeros((1, 200)), jnp.zeros(1)])

    def __call__(self, t, z, context):
        return self.net(jnp.concatenate([jnp.stack([jnp.sin(t), jnp.cos(t)]), z]))


def diffeq_of_one(paths):
    """One training step by `LatentSDE`."""
    ts, xs = sine()
    model = de.nn.LatentSDE(
        1, 1, encoder=None, decoder=lambda z: z, noise=NOISE, likelihood="laplace",
        tspan=(0.0, 2.0), prior=lambda t, z: -z, diffusion=lambda t, z: jnp.full_like(z, SIGMA),
        initial=([0.0], [SIGMA / math.sqrt(2)]), posterior=Posterior(jax.random.key(0)),
        method=de.EulerMaruyama(), dt=1e-2, key=jax.random.key(0),
    )  # fmt: skip
    start = jnp.array([0.0, math.log(SIGMA / math.sqrt(2))])
    model = eqx.tree_at(lambda m: m.head, model, start)

    def loss(model, batch, key):
        keys = jax.random.split(key, paths)
        return -jnp.mean(jax.vmap(lambda key: model.elbo(*batch, key=key).value)(keys))

    return jax_step(model, loss, [jax.device_put((ts, xs))])


# --- latent SDE of many series --------------------------------------------------------------------


def lorenz(count):
    """Noisy, scaled series of the stochastic attractor: (100,) and (count, 100, 3)."""
    rng = np.random.default_rng(0)
    x, rows, dt = rng.normal(size=(count, 3)), [], 1e-3
    for i in range(1981):
        if i % 20 == 0:
            rows.append(x)
        slope = np.stack(
            [10 * (x[:, 1] - x[:, 0]), 28 * x[:, 0] - x[:, 1] - x[:, 0] * x[:, 2],
             x[:, 0] * x[:, 1] - 8 / 3 * x[:, 2]], axis=1,
        )  # fmt: skip
        x = x + dt * slope + math.sqrt(dt) * x * [0.1, 0.28, 0.3] * rng.normal(size=x.shape)
    xs = np.stack(rows, axis=1)
    xs = (xs - xs.mean((0, 1))) / xs.std((0, 1)) + 0.01 * rng.normal(size=xs.shape)
    return np.linspace(0.0, 2.0, 100, dtype=np.float32), np.float32(xs)


class ManySeries(nn.Module):
    """torchsde's model of many series."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.linear = nn.GRU(3, 128), nn.Linear(128, 64)
        self.head = nn.Linear(64, 8)
        self.posterior = perceptron(4 + 64, 128, 128, 4, activation=nn.Softplus)
        self.prior = perceptron(4, 128, 128, 4, activation=nn.Softplus)
        self.diffusion = nn.ModuleList(
            nn.Sequential(perceptron(1, 128, 1, activation=nn.Softplus), nn.Sigmoid())
            for _ in range(4)
        )
        self.decoder = nn.Linear(4, 3)
        self.initial = nn.Parameter(torch.zeros(2, 4))

    def read(self, ts, xs):
        """The contexts of all rows."""
        states, _ = self.gru(xs.flip(0))
        self.times, self.context = ts, self.linear(states).flip(0)

    def f(self, t, y):
        row = min(int(torch.searchsorted(self.times, t, right=True)), len(self.times) - 1)
        return self.posterior(torch.cat([y, self.context[row]], 1))

    def g(self, t, y):
        parts = zip(self.diffusion, y.split(1, 1), strict=True)
        return torch.cat([net(part) for net, part in parts], 1)

    def h(self, t, y):
        return self.prior(y)


def torchsde_of_many(count):
    """One training step by torchsde."""
    ts, xs = (torch.tensor(x) for x in lorenz(count))
    xs = xs.transpose(0, 1).contiguous()
    model = ManySeries()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def step():
        optimizer.zero_grad()
        model.read(ts, xs)
        mean, log_std = model.head(model.context[0]).chunk(2, 1)
        start = torch.distributions.Normal(mean, log_std.exp())
        rows, lost = torchsde.sdeint(
            model, start.rsample(), ts, dt=1e-2, method="euler", logqp=True
        )
        seen = torch.distributions.Normal(model.decoder(rows), 0.01).log_prob(xs)
        prior = torch.distributions.Normal(model.initial[0], model.initial[1].exp())
        kl = torch.distributions.kl_divergence(start, prior).sum(1).mean() + lost.sum(0).mean()
        loss = kl - seen.sum((0, 2)).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class LinearGRU(eqx.Module):
    """The contexts of torchsde's encoder: a linear map of a GRU's states."""

    gru: de.nn.GRUEncoder
    linear: eqx.nn.Linear

    def __init__(self, key):
        of_gru, of_linear = jax.random.split(key)
        self.gru = de.nn.GRUEncoder(3, 128, key=of_gru)
        self.linear = eqx.nn.Linear(128, 64, key=of_linear)

    def __call__(self, ts, xs, mask):
        return jax.vmap(self.linear)(self.gru.states(ts, xs, mask))


def diffeq_model_of_many():
    """The model of many series."""
    return de.nn.LatentSDE(
        3, 4, encoder=LinearGRU(jax.random.key(1)), context=64, width=128, noise=0.01,
        method=de.EulerMaruyama(), dt=1e-2, key=jax.random.key(0),
    )  # fmt: skip


def diffeq_of_many(count):
    """One training step by `LatentSDE`."""
    ts, xs = lorenz(count)
    model = diffeq_model_of_many()
    batch = jax.device_put((np.tile(ts, (count, 1)), xs))
    return jax_step(model, lambda model, batch, key: model.loss(batch, key), [batch])


# --- the networks alone ---------------------------------------------------------------------------

STEPS = 200  # of Euler–Maruyama, in both models


def networks_alone(nets, count):
    """A function of no arguments: each network (with the size of its input) evaluated for `count`
    states, and its reverse derivative, as often as a solve has steps.
    """
    nets, sizes = zip(*nets, strict=True)
    draws = jax.random.split(jax.random.key(2), len(sizes))
    inputs = [jax.random.normal(key, (count, n)) for key, n in zip(draws, sizes, strict=True)]

    def moved(net, slopes, x):
        out, pull = eqx.filter_vjp(lambda net, x: jax.vmap(net)(x), net, x)
        by_net, by_x = pull(out)
        return jax.tree.map(jnp.add, slopes, by_net), x + 1e-3 * by_x

    @eqx.filter_jit
    def slopes_of(nets, inputs):
        def turn(_, carry):
            return [moved(net, *pair) for net, pair in zip(nets, carry, strict=True)]

        blank = [jax.tree.map(jnp.zeros_like, eqx.filter(net, eqx.is_array)) for net in nets]
        last = jax.lax.fori_loop(0, STEPS, turn, list(zip(blank, inputs, strict=True)))
        return [slopes for slopes, _ in last]

    def step():
        jax.block_until_ready(slopes_of(nets, inputs))
        return math.nan  # no loss

    return step


def networks_of_one(paths):
    """The posterior of one series."""
    return networks_alone([(Posterior(jax.random.key(0)).net, 3)], paths)


def networks_of_many(count):
    """Posterior, prior and diffusion of many series."""
    model = diffeq_model_of_many()
    diffusion = eqx.Partial(model.diffusion, 0.0)
    nets = [(model.posterior.net, 4 + 64), (model.prior.net, 4), (diffusion, 4)]
    return networks_alone(nets, count)


# --- the report -----------------------------------------------------------------------------------


def measured(steps, rounds, more):
    """(first call, median of a step, loss after `more` steps and these) of contestants in turn."""
    first, times, losses = {}, {name: [] for name in steps}, {name: [] for name in steps}

    def once(name):
        start = time.perf_counter()
        losses[name].append(steps[name]())
        return time.perf_counter() - start

    for name in steps:
        first[name] = once(name)
    for _ in range(rounds):
        for name in steps:
            times[name].append(once(name))
    for name in steps:
        for _ in range(more):
            once(name)
    tail = lambda x: statistics.fmean(x[-max(1, len(x) // 10) :])
    return {
        name: (first[name], 1e3 * statistics.median(times[name]), tail(losses[name]))
        for name in steps
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="small batches, to see that it runs")
    parser.add_argument("--only", default="", help="cases with this in their names")
    options = parser.parse_args()
    here = machine.machine()
    versions = f"JAX {jax.__version__}, Diffrax {diffrax.__version__}, torch {torch.__version__}"
    place = f"{here['processor']}, {here['cores']} cores, load {here['load'][0]:.1f}; {versions}."
    lines = ["# Latent models: a training step", "", place, ""]
    lines += ["| | ms a step | times ours | first call, s | loss, mean of the last tenth |"]
    lines += ["|---|---|---|---|---|"]
    quick = options.quick
    # Each with its rounds, and steps after them.
    cases = {"latent ODE": (lambda: latent_ode(quick), options.rounds, options.steps)}
    for paths, rounds, more in ((4, 1, 1),) if quick else ((32, 4, 400), (512, 2, 0)):
        cases[f"latent SDE, one series, {paths} paths"] = (
            lambda paths=paths: {
                "diffeq": diffeq_of_one(paths),
                "torchsde": torchsde_of_one(paths),
                "its networks alone": networks_of_one(paths),
            },
            rounds,
            more,
        )
    for count, rounds, more in ((2, 1, 0),) if quick else ((8, 3, 300), (128, 1, 0)):
        cases[f"latent SDE, {count} series"] = (
            lambda count=count: {
                "diffeq": diffeq_of_many(count),
                "torchsde": torchsde_of_many(count),
                "its networks alone": networks_of_many(count),
            },
            rounds,
            more,
        )
    for case, (made, rounds, more) in cases.items():
        if options.only not in case:
            continue
        found = measured(made(), rounds, more)
        ours = found["diffeq"][1]
        for name, (first, step, last) in found.items():
            loss = "" if math.isnan(last) else f"{last:.4g}"
            lines.append(
                f"| {case}: {name} | {step:.3g} | {step / ours:.3g} | {first:.1f} | {loss} |"
            )
            print(lines[-1], flush=True)
    if not quick and not options.only:
        text = "\n".join([*lines, ""])
        Path(__file__).with_name("results").joinpath("latent.md").write_text(text)


if __name__ == "__main__":
    main()

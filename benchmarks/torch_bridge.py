"""`diffeq.torch` by one changed import: training steps against torchdiffeq's and torchsde's.

    python -m benchmarks.torch_bridge [--rounds 20] [--epochs 10]

* `ode_demo`: torchdiffeq's example, a spiral learnt from batches of 20 pieces of 10 rows; one step
  of an optimiser, conversion included, against `odeint` and `odeint_adjoint`. The bare bridge is
  the least that serves this one example: the same solve, with nothing checked or read.
* `digits`: an ODE-Net of convolutions on scikit-learn's 8 × 8 digits; an epoch, and the accuracy on
  360 that were not seen. Its field alone: the mean of evaluations one after another, with and
  without the reverse derivative, by torch and by XLA in a loop.
* `latent_sde`: torchsde's example in small, a posterior SDE that is fitted to one series with the
  log-ratio penalty; one step of an optimiser.

Each contestant is in a process of its own, as a user has one of them in a script: the threads of
torch wait for work for a while after their last one, and would take a core from the next
contestant. They take turns, with the same data and the same first weights; figures are medians, in
milliseconds, and losses have to agree. Writes `results/torch_bridge.md`.
"""

import argparse
import contextlib
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import torch
import torchax
import torchdiffeq
import torchsde
from sklearn.datasets import load_digits
from torch import nn

import diffeq as de
import diffeq.torch
from benchmarks import machine
from diffeq.torch.functions import torch_function


class Spiral(nn.Module):
    """The network of the spiral."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
        for layer in (self.net[0], self.net[2]):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, t, y):
        return self.net(y**3)


def ode_demo(odeint):
    """A function of no arguments: one training step, which returns its loss."""
    matrix, times = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]), torch.linspace(0.0, 25.0, 1000)
    with torch.no_grad():
        rows = torchdiffeq.odeint(lambda t, y: y**3 @ matrix, torch.tensor([[2.0, 0.0]]), times)
    field, draws = Spiral(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.RMSprop(field.parameters(), 1e-3)

    def step():
        starts = torch.randperm(990, generator=draws)[:20]
        target = torch.stack([rows[starts + i] for i in range(10)])
        optimizer.zero_grad()
        loss = (odeint(field, rows[starts], times[:10]) - target).abs().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class TimedConvolution(nn.Module):
    """A convolution of the state with t as one more channel."""

    def __init__(self, channels):
        super().__init__()
        self.convolution = nn.Conv2d(channels + 1, channels, 3, padding=1)

    def forward(self, t, y):
        return self.convolution(torch.cat([t * torch.ones_like(y[:, :1]), y], 1))


class Residual(nn.Module):
    """The field of the ODE-Net."""

    def __init__(self, channels):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(channels, channels) for _ in range(3))
        self.first, self.second = TimedConvolution(channels), TimedConvolution(channels)

    def forward(self, t, y):
        y = self.first(t, torch.relu(self.norms[0](y)))
        return self.norms[2](self.second(t, torch.relu(self.norms[1](y))))


class Block(nn.Module):
    """The state at t = 1."""

    def __init__(self, field, odeint):
        super().__init__()
        self.field, self.odeint = field, odeint
        self.register_buffer("times", torch.tensor([0.0, 1.0]))

    def forward(self, y):
        return self.odeint(self.field, y, self.times, rtol=1e-3, atol=1e-3)[1]


def digits(odeint, channels=16):
    """Functions of no arguments: an epoch, which returns its last loss, and the accuracy."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
    labels, draws = torch.tensor(labels), torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=draws)
    unseen, seen = order[:360], order[360:]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, channels, 3),
        nn.GroupNorm(channels, channels),
        nn.ReLU(),
        Block(Residual(channels), odeint),
        nn.GroupNorm(channels, channels),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36 * channels, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    data = torch.utils.data.TensorDataset(images[seen], labels[seen])
    batches = torch.utils.data.DataLoader(data, 128, True, generator=draws, drop_last=True)

    def epoch():
        for x, y in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
        return loss.item()

    def accuracy():
        with torch.no_grad():
            return float((net(images[unseen]).argmax(1) == labels[unseen]).float().mean())

    return epoch, accuracy


class Posterior(nn.Module):
    """A drift that is learnt, that of an Ornstein–Uhlenbeck prior, and the diffusion of both."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
        self.net = nn.Sequential(*layers)

    def f(self, t, y):
        clock = torch.stack([torch.sin(t), torch.cos(t)]).expand(len(y), 2)
        return self.net(torch.cat([clock, y], 1))

    def g(self, t, y):
        return torch.full_like(y, 0.5)

    def h(self, t, y):
        return -y


def latent_sde(sdeint):
    """A function of no arguments: one training step, which returns its loss."""
    sde, times = Posterior(), torch.linspace(0.0, 2.0, 20)
    target = torch.sin(3.0 * times)[:, None, None]
    optimizer = torch.optim.Adam(sde.parameters(), 1e-2)

    def step():
        optimizer.zero_grad()
        rows, penalty = sdeint(sde, torch.zeros(128, 1), times, dt=1e-2, method="euler", logqp=True)
        loss = ((rows - target) ** 2).mean() / 0.02 + penalty.sum(0).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def bare_odeint():
    """`odeint` for one module and one shape: torchax, `solve`, and an operation of torch."""
    known = {}

    def program(func):
        weights, call = torchax.extract_jax(func)
        names = list(weights)

        def rows(times, y0, leaves):
            field = lambda t, y, args: call(args, (t, y))
            args = dict(zip(names, leaves, strict=True))
            problem = de.ODEProblem(field, y0, (times[0], times[-1]), args)
            options = {"saveat": times, "rtol": 1e-7, "atol": 1e-9, "throw": False}
            return de.solve(problem, de.Dopri5(), **options).ys

        def with_pullback(times, y0, leaves):
            return jax.vjp(partial(rows, times, y0), leaves)

        return jax.jit(with_pullback), jax.jit(lambda pull, g: pull(g)[0]), names

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, functions, *tensors):
            times, y0, *leaves = (x.detach().numpy() for x in tensors)
            rows, ctx.pull = functions[0](times, y0, leaves)
            ctx.pulled = functions[1]
            return torch.from_dlpack(rows)

        @staticmethod
        def backward(ctx, g):
            gradients = ctx.pulled(ctx.pull, g.numpy())
            return None, None, None, *map(torch.from_dlpack, gradients)

    def odeint(func, y0, times):
        if func not in known:
            known[func] = program(func)
        *functions, names = known[func]
        weights = dict(func.named_parameters())
        return Solve.apply(functions, times, y0, *(weights[name] for name in names))

    return odeint


EVALUATIONS = 20


def field_by_torch(*, gradient):
    """Evaluations of the field of `digits` on a batch of 128, by torch."""
    field, y, t = Residual(16), torch.randn(128, 16, 6, 6), torch.tensor(0.5)
    y.requires_grad_(gradient)

    def evaluations():
        with contextlib.nullcontext() if gradient else torch.no_grad():
            for _ in range(EVALUATIONS):
                out = field(t, y)
                if gradient:
                    torch.autograd.grad(out.sum(), [y, *field.parameters()])
        return 0.0

    return evaluations


def field_by_xla(*, gradient):
    """The same as `diffeq.torch` evaluates it, in one loop that is compiled."""
    field, y, t = Residual(16), torch.randn(128, 16, 6, 6), torch.tensor(0.5)
    found = torch_function(field, [t, y], "field")
    weights = [jnp.asarray(x.detach().numpy()) for x in found.tensors]
    y, t = jnp.asarray(y.numpy()), jnp.float32(0.5)

    def evaluation(_, carry):
        y, weights = carry
        out, pull = jax.vjp(lambda y, w: found.program(w, t, y), y, weights)
        if not gradient:
            return out, weights
        by_y, by_weights = pull(out)
        moved = jax.tree.map(lambda w, g: w + 1e-9 * g, weights, by_weights)
        return out + 1e-9 * by_y, moved

    loop = jax.jit(lambda *carry: jax.lax.fori_loop(0, EVALUATIONS, evaluation, carry))

    def evaluations():
        jax.block_until_ready(loop(y, weights))
        return 0.0

    return evaluations


# --- contestants, each in its process -------------------------------------------------------------

OURS = "diffeq.torch"
CASES = {
    "ode_demo step": {
        OURS: lambda: ode_demo(diffeq.torch.odeint),
        "bare bridge": lambda: ode_demo(bare_odeint()),
        "torchdiffeq": lambda: ode_demo(torchdiffeq.odeint),
        "torchdiffeq, adjoint": lambda: ode_demo(torchdiffeq.odeint_adjoint),
    },
    "latent_sde step": {
        OURS: lambda: latent_sde(diffeq.torch.sdeint),
        "torchsde": lambda: latent_sde(torchsde.sdeint),
        "torchsde, adjoint": lambda: latent_sde(torchsde.sdeint_adjoint),
    },
    "digits epoch": {
        OURS: lambda: digits(diffeq.torch.odeint),
        "torchdiffeq": lambda: digits(torchdiffeq.odeint),
    },
    f"digits, {EVALUATIONS} evaluations of the field": {
        OURS: lambda: field_by_xla(gradient=False),
        "torch": lambda: field_by_torch(gradient=False),
    },
    f"digits, {EVALUATIONS} evaluations and reverse derivatives": {
        OURS: lambda: field_by_xla(gradient=True),
        "torch": lambda: field_by_torch(gradient=True),
    },
}
# By how much losses may differ: of the first steps, relatively; paths of noise are others.
CLOSE = {"ode_demo step": 1e-4, "latent_sde step": 0.3, "digits epoch": 0.5}


class Contestant:
    """One contestant of a case, in a process that it alone has."""

    def __init__(self, case, name):
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, _start, (case, name))
        self.times, self.losses = [], []

    def run(self, burst, *, counted):
        """Makes so many steps, whose times are `counted` but for the first, unless it is alone."""
        times, losses = self.pool.submit(_steps, burst).result()
        self.losses += losses
        if counted:
            self.times += times[1:] or times

    def figures(self):
        """Medians of time and of processor time, in milliseconds."""
        return [1e3 * statistics.median(x) for x in zip(*self.times, strict=True)]

    def accuracy(self):
        """That of the digits."""
        return self.pool.submit(_accuracy).result()


_made = {}


def _start(case, name):
    made = CASES[case][name]()
    _made["step"], _made["accuracy"] = made if isinstance(made, tuple) else (made, None)


def _steps(count):
    times, losses = [], []
    for _ in range(count):
        start = time.perf_counter(), time.process_time()
        losses.append(_made["step"]())
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return times, losses


def _accuracy():
    return _made["accuracy"]()


def measured(case, rounds, burst):
    """The contestants of a case, after so many rounds of steps, in turn."""
    found = {name: Contestant(case, name) for name in CASES[case]}
    for i in range(rounds + 1):
        for contestant in found.values():
            contestant.run(burst, counted=i > 0)
    first = found[OURS].losses[0]
    for name, contestant in found.items():
        other = contestant.losses[0]
        if abs(other - first) > CLOSE.get(case, 0.0) * abs(first):
            raise RuntimeError(f"{case}: {name} has the loss {other}, and {OURS} has {first}.")
    return found


def rows_of(case, found):
    """The lines of a table on the contestants of a case."""
    ours, _ = found[OURS].figures()
    for name, contestant in found.items():
        x, work = contestant.figures()
        loss = f"{contestant.losses[-1]:.5g}" if case in CLOSE else ""
        yield f"| {case}: {name} | {x:.3g} | {x / ours:.3g} | {work:.3g} | {loss} |"
        if case == "digits epoch":
            yield f"| digits, accuracy: {name} | | | | {contestant.accuracy():.4f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    lengths = {"digits epoch": (options.epochs, 1), "latent_sde step": (options.rounds // 4, 5)}
    here = machine.machine()
    versions = f"torch {torch.__version__}, JAX {jax.__version__}"
    place = f"{here['processor']}, {here['cores']} cores; {versions}."
    lines = ["# `diffeq.torch` by one changed import", "", place, ""]
    lines += ["| | ms | times ours | ms of processor time | last loss |", "|---|---|---|---|---|"]
    loads = [f"{here['load'][0]:.1f}"]
    for case in CASES:
        found = measured(case, *lengths.get(case, (options.rounds, 10)))
        rows = list(rows_of(case, found))
        print(*rows, sep="\n", flush=True)
        for contestant in found.values():
            contestant.pool.shutdown()
        lines += rows
        loads.append(f"{machine.machine()['load'][0]:.1f}")
        load = f"Load of the machine before the first case and after each: {', '.join(loads)}."
        text = "\n".join([*lines, "", load, ""])
        Path(__file__).with_name("results").joinpath("torch_bridge.md").write_text(text)


if __name__ == "__main__":
    main()

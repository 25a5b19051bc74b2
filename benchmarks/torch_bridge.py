"""`diffeq.torch` by one changed import: training steps against torchdiffeq's and torchsde's.

    python -m benchmarks.torch_bridge [--rounds 20] [--epochs 10]

* `ode_demo`: torchdiffeq's example, a spiral learnt from batches of 20 pieces of 10 rows; one step
  of an optimiser, conversion included, against `odeint` and `odeint_adjoint`.
* `digits`: an ODE-Net of convolutions on scikit-learn's 8 × 8 digits; an epoch, and the accuracy on
  360 that were not seen.
* `latent_sde`: torchsde's example in small, a posterior SDE that is fitted to one series with the
  log-ratio penalty; one step of an optimiser.

Contestants take turns, with the same data and the same first weights; figures are medians, in
milliseconds, and losses have to agree. Writes `results/torch_bridge.md`.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import torch
import torchdiffeq
import torchsde
from sklearn.datasets import load_digits
from torch import nn

import diffeq.torch
from benchmarks import machine


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


def measured(steps, rounds, burst):
    """Medians of time and of processor time in milliseconds, and all losses, in turn.

    In a round each makes `burst` steps, of which the first is not counted: the threads of torch
    wait for work for a while after their last one, and would take a core from the next contestant.
    """
    times, losses = {name: [] for name in steps}, {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            for _ in range(burst):
                start = time.perf_counter(), time.process_time()
                losses[name].append(step())
                times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    figures = {}
    for name, pairs in times.items():
        counted = [x for i, x in enumerate(pairs) if i >= burst and (i % burst or burst == 1)]
        figures[name] = [1e3 * statistics.median(x) for x in zip(*counted, strict=True)]
    return figures, losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    here = machine.machine()
    versions = f"torch {torch.__version__}, JAX {jax.__version__}"
    place = f"{here['processor']}, {here['cores']} cores, load {here['load'][0]:.1f}; {versions}."
    lines = ["# `diffeq.torch` by one changed import", "", place, ""]
    lines += ["| | ms | times ours | ms of processor time | last loss |", "|---|---|---|---|---|"]

    def write(case, figures, losses):
        ours, _ = figures["diffeq.torch"]
        for name, (x, work) in figures.items():
            last = f"{x / ours:.3g} | {work:.3g} | {losses[name][-1]:.5g} |"
            lines.append(f"| {case}: {name} | {x:.3g} | {last}")
            print(lines[-1], flush=True)

    theirs, ours = torchdiffeq, diffeq.torch
    demo = {"diffeq.torch": ours.odeint, "torchdiffeq": theirs.odeint}
    demo["torchdiffeq, adjoint"] = theirs.odeint_adjoint
    demos = {name: ode_demo(f) for name, f in demo.items()}
    write("ode_demo step", *measured(demos, options.rounds // 4, 10))
    paths = {"diffeq.torch": ours.sdeint, "torchsde": torchsde.sdeint}
    paths["torchsde, adjoint"] = torchsde.sdeint_adjoint
    series = {name: latent_sde(f) for name, f in paths.items()}
    write("latent_sde step", *measured(series, options.rounds // 4, 5))
    nets = {name: digits(f) for name, f in list(demo.items())[:2]}
    epochs = {name: epoch for name, (epoch, _) in nets.items()}
    write("digits epoch", *measured(epochs, options.epochs, 1))
    for name, (_, accuracy) in nets.items():
        lines.append(f"| digits, accuracy: {name} | | | | {accuracy():.4f} |")
        print(lines[-1], flush=True)
    text = "\n".join([*lines, ""])
    Path(__file__).with_name("results").joinpath("torch_bridge.md").write_text(text)


if __name__ == "__main__":
    main()

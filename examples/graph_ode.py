# %% [markdown]
# # Oscillators on a graph, and the same oscillators on another
#
# Kuramoto's model: oscillator i turns at its own frequency, and is pulled by its neighbours,
#
#     θ_i' = ω_i + Σ_j sin(θ_j − θ_i).
#
# A graph ODE has one network for all edges, so what it learns from a few trajectories on a graph of
# 12 nodes is a law of pairs: it can be drawn beside the sine that it stands for, and it holds on a
# graph that it has never seen, with four times as many nodes. No such example is published; the
# figures beside ours are those of the true law.

# %%
import os
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
STEPS = 30 if SHORT else 600
TS = jnp.linspace(0.0, 2.0, 21)

# %% [markdown]
# ## Graphs and data
#
# A node's state is its angle and its frequency, which does not change. An edge between two nodes is
# one in each direction.


# %%
def graph(nodes, extra, seed):
    """A ring with some chords: (senders, receivers)."""
    rng = np.random.default_rng(seed)
    ring = {tuple(sorted((i, (i + 1) % nodes))) for i in range(nodes)}
    while len(ring) < nodes + extra:
        i, j = map(int, rng.choice(nodes, 2, replace=False))
        ring.add((min(i, j), max(i, j)))
    one_way = np.array(sorted(ring))
    return np.concatenate([one_way[:, 0], one_way[:, 1]]), np.concatenate(
        [one_way[:, 1], one_way[:, 0]]
    )


def turning(net, t, y, messages, args):
    """The slope of (angle, frequency) of all nodes, from the sums of their messages."""
    return jnp.stack([y[:, 1] + messages[:, 0], jnp.zeros(len(y))], axis=1)


def layer(message, ends, **options):
    return de.nn.GraphODE(
        {}, message=message, senders=ends[0], receivers=ends[1], field=turning, method=de.Tsit5(),
        saveat=TS, tspan=(0.0, 2.0), **options,
    )  # fmt: skip


def starts(nodes, count, seed):
    angle, frequency = jax.random.split(jax.random.key(seed))
    return jnp.stack(
        [
            jax.random.uniform(angle, (count, nodes), minval=-np.pi, maxval=np.pi),
            jax.random.normal(frequency, (count, nodes)),
        ],
        axis=2,
    )


small, large = graph(12, 6, 0), graph(48, 40, 1)
pull = lambda both: jnp.sin(both[2:3] - both[0:1])
truth = layer(pull, small, rtol=1e-5, atol=1e-5)
y0 = starts(12, 20, 0)
noise = 0.02 * jax.random.normal(jax.random.key(1), (20, len(TS), 12))
data = jax.vmap(lambda y0: truth(y0).ys[:, :, 0])(y0) + noise

# %% [markdown]
# ## Training
#
# A message is a network of the sines and cosines of both angles: that a turn by 2π changes nothing
# is known, what pulls is not.


# %%
class Message(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, both):
        angles = both[jnp.array([0, 2])]
        return self.net(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]))


def loss(model, batch):
    y0, angles = batch
    return de.mse(jax.vmap(lambda y0: model(y0).ys[:, :, 0])(y0), angles)


model = layer(Message(eqx.nn.MLP(4, 1, 32, 2, jnp.tanh, key=jax.random.key(2))), small)
began = time.perf_counter()
fit = de.fit(
    model, loss, (y0, data), optimizer=optax.adam(optax.cosine_decay_schedule(0.01, STEPS)),
    steps=STEPS, progress=False,
)  # fmt: skip
seconds = time.perf_counter() - began


def error(ends, y0):
    """The root mean square error of the angles without noise."""
    ours, known = fit.model.on(*ends), layer(pull, ends, rtol=1e-5, atol=1e-5)
    angles = lambda model: jax.vmap(lambda y0: model(y0).ys[:, :, 0])(y0)
    return float(jnp.sqrt(jnp.mean((angles(ours) - angles(known)) ** 2)))


print("| what | true law | ours | seconds |")
print(f"| mean square error of the data | {float(jnp.mean(noise**2)):.1e} | {fit.loss:.1e} "
      f"| {seconds:.0f} |")  # fmt: skip
print(f"| rms error of angles, new starts | 0 | {error(small, starts(12, 20, 5)):.3f} | |")
print(f"| rms error of angles, a graph of 48 nodes | 0 | {error(large, starts(48, 20, 6)):.3f} | |")

# %% [markdown]
# ## The figure

# %%
BLUE, RED = "C0", "C1"
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.4))
place = 2 * np.pi * np.arange(48) / 48
points = np.stack([np.cos(place), np.sin(place)], axis=1)
for i, j in zip(*large, strict=True):
    axes[0].plot(*points[[i, j]].T, color="0.75", linewidth=0.6, zorder=0)
end = layer(pull, large)(starts(48, 1, 6)[0]).ys[-1, :, 0]
axes[0].scatter(*points.T, c=np.asarray(end) % (2 * np.pi), cmap="twilight", s=26, edgecolor="0.3",
                linewidth=0.4)  # fmt: skip
axes[0].set(title="the unseen graph, coloured by angle", aspect="equal")
axes[0].axis("off")
gaps = np.linspace(-np.pi, np.pi, 100)
offsets = np.random.default_rng(0).uniform(-np.pi, np.pi, 40)
curves = jax.vmap(
    lambda start: jax.vmap(
        lambda gap: fit.model.message(jnp.stack([start, 0.0, start + gap, 0.0]))[0]
    )(jnp.asarray(gaps))
)(jnp.asarray(offsets))
axes[1].plot(gaps, np.asarray(curves).T, color=BLUE, linewidth=0.5, alpha=0.4)
axes[1].plot(gaps, np.sin(gaps), "--", color="0.2", linewidth=1.2, label="sin")
axes[1].plot([], [], color=BLUE, label="message, at 40 angles")
axes[1].set(xlabel=r"$\theta_j - \theta_i$", ylabel="pull on $i$", title="the law of a pair")
axes[1].legend()
one = starts(48, 1, 6)[0]
ours, known = fit.model.on(*large)(one).ys, layer(pull, large)(one).ys
for k in range(0, 48, 6):
    axes[2].plot(TS, known[:, k, 0], color="0.4", linewidth=3, alpha=0.3)
    axes[2].plot(TS, ours[:, k, 0], color=RED, linewidth=1.0)
axes[2].plot([], [], color="0.4", linewidth=3, alpha=0.3, label="truth")
axes[2].plot([], [], color=RED, label="learnt on 12 nodes")
axes[2].set(xlabel="t", ylabel=r"$\theta$", title="angles of 8 of the 48 nodes")
axes[2].legend()
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "graph_ode.png")
print(f"\nfigure: {FIGURES.name}/graph_ode.png")

# %% [markdown]
# # A reaction in space, with a network for what is not known of it
#
# The Brusselator on a square, with diffusion and periodic borders,
#
#     ∂u/∂t = 1 + r(u, v) − 4.4 u + α Δu + f(x, y, t),    ∂v/∂t = 3.4 u − r(u, v) + α Δv,
#
# where f = 5 inside a circle from t = 1.1 on, and the truth is r = u²v. SciMLSensitivity's
# documentation puts a network of 2–16–1 in the place of r, on 16 × 16 cells to t = 11.5,
# and trains it by Adam(0.01) for 100 steps on 24 snapshots. It prints no number.
#
# Diffusion makes the equations stiff: its fastest rate is 18,000. Here it is the implicit part of a
# `SplitODEProblem`, whose linear systems are solved by GMRES, without a matrix of 512 × 512; the
# reaction with its network is stepped explicitly. The jump of f is a stop of the solve.

# %%
import os
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import matplotlib.pyplot as plt
import numpy as np
import optax

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
N, END, STEPS, MORE = (6, 2.0, 8, 8) if SHORT else (16, 11.5, 100, 60)
ALPHA, ON = 10.0, 1.1

# %% [markdown]
# ## The square

# %%
SIDE = jnp.linspace(0.0, 1.0, N)
X, Y = jnp.meshgrid(SIDE, SIDE, indexing="ij")
CIRCLE = 5.0 * ((X - 0.3) ** 2 + (Y - 0.6) ** 2 <= 0.1**2)
TS = jnp.arange(0.5, END + 0.01, 0.5)
START = jnp.stack([22.0 * (Y * (1 - Y)) ** 1.5, 27.0 * (X * (1 - X)) ** 1.5])


def diffusion(t, state, rate):
    around = sum(jnp.roll(state, step, axis) for axis in (1, 2) for step in (-1, 1))
    return ALPHA * (N - 1) ** 2 * (around - 4 * state)


def reaction(t, state, rate):
    u, v = state
    r = rate(u, v)
    source = jnp.where(t > ON, CIRCLE, 0.0)
    return jnp.stack([1.0 + r - 4.4 * u + source, 3.4 * u - r])


def solve(rate, y0=START, tspan=(0.0, END), **options):
    problem = de.SplitODEProblem(diffusion, reaction, y0, tspan, rate)
    method = de.KenCarp4(linear=lx.GMRES(rtol=1e-2, atol=1e-2))
    return de.solve(problem, method, stops=[ON], rtol=1e-4, atol=1e-5, **options)


def known(u, v):
    return u**2 * v


data = solve(known, saveat=TS).ys

# %% [markdown]
# ## The network, and its training
#
# It starts at r = 0, where nothing reacts: a reaction at random may well explode, and of a solve
# that fails there is nothing to learn.

# %%
net = eqx.nn.MLP(2, "scalar", 16, 1, jnp.tanh, key=jax.random.key(0))
last = lambda net: (net.layers[-1].weight, net.layers[-1].bias)
net = eqx.tree_at(last, net, jax.tree.map(jnp.zeros_like, last(net)))


class Unknown(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, u, v):
        inputs = jnp.stack([u - 1.0, v - 3.0], axis=-1).reshape(-1, 2)
        return 10.0 * jax.vmap(self.net)(inputs).reshape(u.shape)


def loss(rate):
    return de.mse(solve(rate, saveat=TS).ys, data)


began = time.perf_counter()
fit = de.fit(Unknown(net), loss, optimizer=optax.adam(0.01), steps=STEPS)

# %% [markdown]
# The truth oscillates, and a model that is out of step with it finds no way back: the published
# steps end far from the truth. From each snapshot to the next there is nothing to be out of step
# with; sixty steps on these pieces, side by side, and it is the whole again that counts.

# %%
times = jnp.concatenate([jnp.zeros(1), TS])
starts = jnp.concatenate([START[None], data[:-1]])


def ahead(rate):
    piece = lambda y0, t0, t1: solve(rate, y0, (t0, t1)).y1
    return de.mse(jax.vmap(piece)(starts, times[:-1], times[1:]), data)


adam = optax.adam(optax.cosine_decay_schedule(0.03, MORE))
better = de.fit(fit.model, ahead, optimizer=adam, steps=MORE)
seconds = time.perf_counter() - began
print("\n| what | published | ours | seconds |")
print(f"| {2 * N * N} states, mean square error, first | — | {fit.history[0]:.2g} | |")
print(f"| after {STEPS} steps of Adam(0.01) | — | {fit.loss:.2g} | |")
print(f"| after {MORE} more on pieces | — | {loss(better.model):.2g} | {seconds:.0f} |")

# %% [markdown]
# ## The figure

# %%
found = solve(better.model, saveat=TS).ys
figure, axes = plt.subplots(1, 4, figsize=(12.0, 3.0), layout="constrained")
last = {"u at the end": data[-1, 0], "the same with the network": found[-1, 0]}
low, high = float(data[-1, 0].min()), float(data[-1, 0].max())
for ax, (title, field) in zip(axes, last.items(), strict=False):
    image = ax.imshow(
        field.T, origin="lower", extent=(0, 1, 0, 1), vmin=low, vmax=high, cmap="viridis"
    )
    ax.set(title=title, xlabel="x", ylabel="y")
figure.colorbar(image, ax=axes[1])
for i, (name, colour) in enumerate((("u", "#3b6ea5"), ("v", "#c8553d"))):
    axes[2].plot(TS, data[:, i].mean((1, 2)), "o", color=colour, markersize=3.5, label=name)
    axes[2].plot(TS, found[:, i].mean((1, 2)), color=colour, linewidth=1.2)
axes[2].set(title="means (points: data)", xlabel="t", ylim=(0, None))
axes[2].legend(frameon=False)
axes[3].semilogy(fit.history, color="#3b6ea5", linewidth=1.2, label="the whole")
after = len(fit.history) + np.arange(len(better.history))
axes[3].semilogy(after, better.history, color="#c8553d", linewidth=1.2, label="pieces")
axes[3].set(title="training", xlabel="step", ylabel="mean square error")
axes[3].legend(frameon=False)
for ax in axes[2:]:
    ax.spines[["top", "right"]].set_visible(False)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "brusselator.png", dpi=160)
print(f"figure: {FIGURES.name}/brusselator.png")

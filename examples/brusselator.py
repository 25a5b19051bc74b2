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
from jax import lax

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
N, END, STEPS = (6, 2.0, 8) if SHORT else (16, 11.5, 100)
ALPHA, ON = 10.0, 1.1
STAGES = (  # windows of so many snapshots, one every so many, and how they are trained
    (1, 1, optax.adam(0.03), 8 if SHORT else 80),
    *(() if SHORT else ((6, 3, optax.lbfgs(), 50), (23, 23, optax.lbfgs(), 40))),
)

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
# ## The network, and the published training
#
# It starts at r = 0, where nothing reacts: a reaction at random may well explode, and of a solve
# that fails there is nothing to learn. Its inputs and its output are scaled to the size that they
# have in the data.

# %%
net = eqx.nn.MLP(2, "scalar", 16, 1, jnp.tanh, key=jax.random.key(0))
last = lambda net: (net.layers[-1].weight, net.layers[-1].bias)
net = eqx.tree_at(last, net, jax.tree.map(jnp.zeros_like, last(net)))


class Unknown(eqx.Module):
    net: eqx.nn.MLP

    def __call__(self, u, v):
        inputs = jnp.stack([(u - 1.3) / 1.3, (v - 3.0) / 1.3], axis=-1).reshape(-1, 2)
        return 10.0 * jax.vmap(self.net)(inputs).reshape(u.shape)


def whole(rate):
    return de.mse(solve(rate, saveat=TS).ys, data)


began = time.perf_counter()
published = de.fit(Unknown(net), whole, optimizer=optax.adam(0.01), steps=STEPS)
rows = [(f"after {STEPS} steps of Adam(0.01)", published.loss, time.perf_counter() - began)]

# %% [markdown]
# ## From short windows to the whole
#
# The truth ignites once a period, and a model that ignites at another time finds no way back: the
# published steps end far from the truth. From one snapshot to the next there is nothing to be out
# of step with. So the network learns first on windows of one snapshot, then on longer ones that
# overlap, each from the data at its start, and at last on the whole.


# %%
times = jnp.concatenate([jnp.zeros(1), TS])
starts = jnp.concatenate([START[None], data[:-1]])


def windows(length, stride):
    first = jnp.arange(0, len(TS) - length + 1, stride)

    def misfit(rate, i):
        at = lax.dynamic_slice_in_dim(TS, i, length)
        span = (times[i], at[-1])
        return de.mse(
            solve(rate, starts[i], span, saveat=at).ys, lax.dynamic_slice_in_dim(data, i, length)
        )

    return lambda rate: lax.map(lambda i: misfit(rate, i), first).mean()


began, fits = time.perf_counter(), {}
model = Unknown(net)
for length, stride, optimizer, steps in STAGES:
    loss = windows(length, stride)
    fits[length] = de.fit(model, loss, optimizer=optimizer, steps=steps)
    model = fits[length].model
rows.append(("windows of " + ", ".join(map(str, fits)), whole(model), time.perf_counter() - began))
print("\n| what | published | ours | seconds |")
print(f"| {2 * N * N} states, mean square error, first | — | {published.history[0]:.2g} | |")
for what, error, seconds in rows:
    print(f"| {what} | — | {error:.2g} | {seconds:.0f} |")

# %% [markdown]
# ## The figure

# %%
fine = jnp.linspace(0.0, END, 231)
found, stuck = (solve(m, saveat=fine).ys for m in (model, published.model))
de.plot.style()
figure, axes = plt.subplots(1, 4, figsize=(13.0, 3.1))
ends = {"truth": data[-1, 0], "network": found[-1, 0]}
high = 1e3 * float(jnp.abs(data[-1, 0] - data[-1, 0].mean()).max())
for ax, (name, u) in zip(axes, ends.items(), strict=False):
    image = ax.imshow(
        1e3 * (u - u.mean()).T, origin="lower", extent=(0, 1, 0, 1), vmin=-high, vmax=high,
        cmap="RdBu_r",
    )  # fmt: skip
    ax.set(title=f"{name}: u around {u.mean():.2f}", xlabel="x", ylabel="y")
figure.colorbar(image, ax=axes[1], label="u − its mean, 10⁻³")
for i, (name, colour) in enumerate((("u", "C0"), ("v", "C1"))):
    axes[2].plot(TS, data[:, i].mean((1, 2)), "o", color=colour, markersize=3.5, label=name)
    axes[2].plot(fine, stuck[:, i].mean((1, 2)), ":", color=colour, linewidth=1.0)
    axes[2].plot(fine, found[:, i].mean((1, 2)), color=colour, linewidth=1.2)
axes[2].set(
    title="means (points: data; dotted: as published)", xlabel="t", ylabel="u, v", ylim=(0, None)
)
axes[2].legend(loc="center right")
axes[3].semilogy(published.history, color="0.45", linewidth=1.2, label="as published")
start = 0
for length, fit in fits.items():
    axes[3].semilogy(
        start + np.arange(len(fit.history)),
        fit.history,
        linewidth=1.2,
        label=f"windows of {length}",
    )
    start += len(fit.history)
axes[3].set(title="training", xlabel="step", ylabel="mean square error")
axes[3].legend()
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "brusselator.png")
print(f"figure: {FIGURES.name}/brusselator.png")

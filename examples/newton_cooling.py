# %% [markdown]
# # Newton's law of cooling, in batches of times
#
# A body of 200 degrees in a room of 100 cools as T' = −k (T − 100), k = log(2)/8. A network makes
# the rate, T' = T · net(T), 1–8–1 with tanh at both layers, and sees thirty points of 0 ≤ t ≤ 3,
# ten at a time: 300 epochs of Adam(0.05), as in DiffEqFlux's documentation, which shows curves and
# no number. A batch of points of one series is a batch of save times: sorted, and given to
# `saveat`.

# %%
import os
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
BLUE, RED, GREY = "#3b6ea5", "#c8553d", "0.45"

# %% [markdown]
# ## The data
#
# Temperatures are in hundreds of degrees, so that the network sees numbers near one.


# %%
def cooling(t, T, args):
    return -jnp.log(2.0) / 8.0 * (T - 1.0)


ts = jnp.linspace(0.0, 3.0, 30, dtype=jnp.float32)
data = de.solve(de.ODEProblem(cooling, 2.0, (0.0, 3.0)), saveat=ts, rtol=1e-6, atol=1e-6).ys

# %% [markdown]
# ## The model, and a loss of a batch

# %%
net = eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, jnp.tanh, key=jax.random.key(0), dtype=jnp.float32)
layer = de.nn.NeuralODE(
    net, field=lambda net, t, T, args: T * net(T[None])[0], tspan=(0.0, 3.0), rtol=1e-5, atol=1e-5
)
hot = jnp.float32(2.0)


def loss(layer, batch):
    times, values = batch
    order = jnp.argsort(times)
    return jnp.sum((layer(hot, saveat=times[order]).ys - values[order]) ** 2)


began = time.perf_counter()
epochs = 30 if SHORT else 300
fit = de.fit(
    layer, loss, (ts, data), optimizer=optax.adam(0.05), steps=3 * epochs, batch_size=10,
    key=jax.random.key(1),
)  # fmt: skip
seconds = time.perf_counter() - began
far = jnp.linspace(0.0, 10.0, 101, dtype=jnp.float32)
warm = jnp.arange(0.1, 2.6, 0.3, dtype=jnp.float32)
follow = jax.jit(jax.vmap(lambda T: fit.model(T, tspan=(0.0, 10.0), saveat=far).ys))
exact = 1.0 + (warm[:, None] - 1.0) * jnp.exp2(-far / 8.0)
curves, whole = follow(warm), float(jnp.sqrt(de.mse(fit.model(hot, saveat=ts).ys, data)))
seen = (warm >= 1.75) & (warm <= 2.05)
near = float(100 * jnp.max(jnp.abs(curves - exact)[seen][:, :31]))

print("\n| what | published | ours | seconds |")
print(f"| root mean square error, degrees | — | {100 * whole:.3f} | {seconds:.1f} |")
print(f"| largest error, starts within the data, t ≤ 3 | — | {near:.3f} | |")

# %% [markdown]
# ## The figure
#
# What was never seen, temperatures below 177 degrees, the network cannot know.

# %%
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
axes[0].plot(
    ts, 100 * data, "o", color="0.1", markersize=3.5, markerfacecolor="white", label="data"
)
axes[0].plot(ts, 100 * fit.model(hot, saveat=ts).ys, color=RED, label="neural ODE")
axes[0].set(title="the series", xlabel="t", ylabel="temperature, degrees")
axes[0].legend(frameon=False)
axis = jnp.linspace(0.0, 2.5, 126, dtype=jnp.float32)
axes[1].axvspan(100 * float(data.min()), 200.0, color="0.92", zorder=0, label="seen")
axes[1].plot(100 * axis, 100 * cooling(0.0, axis, None), color=GREY, linewidth=3.0, alpha=0.4,
             label="truth")  # fmt: skip
rate = jax.vmap(lambda T: T * fit.model.net(T[None])[0])(axis)
axes[1].plot(100 * axis, 100 * rate, color=RED, label="learnt")
axes[1].set(title="rate of cooling", xlabel="temperature, degrees", ylabel="degrees per unit of t")
axes[1].legend(frameon=False, fontsize=8)
for row, wanted in zip(curves, exact, strict=True):
    axes[2].plot(far, 100 * wanted, color=GREY, linewidth=3.0, alpha=0.3)
    axes[2].plot(far, 100 * row, color=RED, linewidth=1.0)
axes[2].set(title="from other temperatures", xlabel="t", ylabel="temperature, degrees")
axes[2].legend(["truth", "neural ODE"], frameon=False, fontsize=8, loc="upper right")
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "newton_cooling.png", dpi=160)
print(f"figure: {FIGURES.name}/newton_cooling.png")

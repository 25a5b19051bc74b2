# %% [markdown]
# # A force in a basis: the tensor layer
#
# An oscillator with a force that is not known, x'' = −p₁ x − p₂ x' + min(30, net(x, x')), where net
# is linear in the products of ten Legendre polynomials of x and ten of x'. The data are those of
# x'' = −k x − α x³ − β x' − γ x'³ with (1, 0.1, 0.2, 0.3), 101 points up to t = 10. Setting and
# training are those of DiffEqFlux's documentation: all 102 numbers start at zero, Adam(0.05) for
# 150 steps and Adam(0.001) for 150, the sum of |errors|; its result is "a fairly accurate learned
# model".

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
jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The data


# %%
def force(x, v):
    return -x - 0.1 * x**3 - 0.2 * v - 0.3 * v**3


ts = jnp.linspace(0.0, 10.0, 101)
truth = de.SecondOrderProblem(lambda t, x, v, args: force(x, v), 1.0, 0.0, (0.0, 10.0))
data = de.solve(truth, saveat=ts, rtol=1e-8, atol=1e-8).ys

# %% [markdown]
# ## The model

# %%
net = de.nn.TensorLayer([de.nn.Legendre(10), de.nn.Legendre(10)], 1, key=jax.random.key(0))
net = eqx.tree_at(lambda net: net.weight, net, jnp.zeros_like(net.weight))
model = {"known": jnp.zeros(2), "net": net}


def learnt(model, x, v):
    inner = model["net"](jnp.stack([x, v]))[0]
    return -model["known"][0] * x - model["known"][1] * v + jnp.minimum(30.0, inner)


layer = de.nn.SecondOrder(
    model, field=lambda model, t, x, v, args: learnt(model, x, v), tspan=(0.0, 10.0), saveat=ts,
    rtol=1e-6, atol=1e-6,
)  # fmt: skip


def loss(layer):
    x, v = layer((1.0, 0.0)).ys
    return jnp.sum(jnp.abs(x - data[0]) + jnp.abs(v - data[1]))


began = time.perf_counter()
counts = (30, 10) if SHORT else (150, 150)
phases = [(optax.adam(0.05), counts[0]), (optax.adam(0.001), counts[1])]
fit = de.fit(layer, loss, optimizer=phases)
seconds = time.perf_counter() - began
x, v = fit.model((1.0, 0.0)).ys
worst = max(float(jnp.max(jnp.abs(x - data[0]))), float(jnp.max(jnp.abs(v - data[1]))))
print("\n| what | published | ours | seconds |")
print(f"| Σ of absolute errors, 202 numbers | — | {fit.loss:.3f} | {seconds:.1f} |")
print(f"| largest error | fairly accurate | {worst:.4f} | |")

# %% [markdown]
# ## The figure
#
# One orbit says what the force is along it, and nothing beyond.

# %%
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
for values, given, colour, name in ((x, data[0], BLUE, "x"), (v, data[1], RED, "x'")):
    axes[0].plot(ts, values, color=colour, label=name)
    axes[0].plot(ts[::4], given[::4], "o", color=colour, markersize=3.5, markerfacecolor="white")
axes[0].set(title="data and model", xlabel="t", ylabel="x, x'")
axes[0].legend(frameon=False)
axes[1].plot(ts, force(*data), color=GREY, linewidth=3.5, alpha=0.4, label="truth")
along = jax.vmap(lambda x, v: learnt(fit.model.net, x, v))(*data)
axes[1].plot(ts, along, color=RED, label="learnt")
axes[1].set(title="the force along the orbit", xlabel="t", ylabel="x''")
axes[1].legend(frameon=False)
axes[2].semilogy(fit.history, color=RED)
axes[2].axvline(fit.phases[1], color="0.6", linewidth=0.8, linestyle=":")
axes[2].set(title="Adam(0.05), then Adam(0.001)", xlabel="step", ylabel="Σ of absolute errors")
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "tensor_layer.png", dpi=160)
print(f"figure: {FIGURES.name}/tensor_layer.png")

# %% [markdown]
# # A reaction with its mass balance: a neural DAE
#
# DiffEqFlux's documentation ("physical constraints") learns Robertson's reaction from eleven rows
# on 0 ≤ t ≤ 1: a network 3-64-2 gives two rates, and y₁ + y₂ + y₃ = 1 the third concentration, as
# M y' = [net(y); y₁ + y₂ + y₃ − 1] with a singular M. It minimises a sum of squares by 100 steps
# of BFGS, and prints no number.
#
# That sum cannot see y₂, which never exceeds 3.7e-5, and the rows come after it has risen, which
# takes 1e-3. So here the training is done twice: as published; and with concentrations in units of
# their sizes, for the network and for the loss, rates in units of those at the start, and rows that
# see y₂ rise. The balance holds in both, from wherever training starts.

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
BLUE, RED, GREEN, GREY = "C0", "C1", "C2", "0.45"
STEPS, OPTIMIZER = (4, optax.adam(0.01)) if SHORT else (100, optax.lbfgs())
METHOD = de.Rosenbrock23() if SHORT else de.Rodas5P()
jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The reaction
#
# The truth is itself a differential-algebraic equation, written as what is to vanish.


# %%
def robertson(t, y, dy, k):
    a, b, c = y
    slow, fast, back = k[0] * a, k[1] * b**2, k[2] * b * c
    return [dy[0] - back + slow, dy[1] - slow + back + fast, a + b + c - 1]


y0 = jnp.array([1.0, 0.0, 0.0])
truth = de.ImplicitDAEProblem(
    robertson, y0, (0.0, 1.0), jnp.array([0.04, 3e7, 1e4]),
    dy0=jnp.zeros(3), differential=[True, True, False],
)  # fmt: skip
late, early = np.linspace(0.0, 1.0, 11), np.logspace(-5, 0, 41)
ts = np.unique(np.concatenate([late, early]).round(12))
published, seen = np.isin(ts, late.round(12)), np.isin(ts, np.append(early.round(12), 0.0))
two = jnp.array([1.0, 1e-4, jnp.inf])  # y₃ is what is left: its error is that of the others
data = de.solve(truth, de.RadauIIA5(), saveat=ts, rtol=1e-7, atol=1e-7 * two).ys
size = jnp.max(jnp.abs(data), axis=0)
speed = truth.args[0]  # of y₁ and y₂, at the start

# %% [markdown]
# ## The layer
#
# Two rows are the network's, the third is the constraint's. With units of 1 nothing is scaled.


# %%
def layer(unit, rate):
    net = eqx.nn.MLP(3, 2, 64, 1, jnp.tanh, key=jax.random.key(0), dtype=jnp.float64)
    return de.nn.NeuralODE(
        net,
        field=lambda net, t, y, args: rate * net(y / unit),
        constraints=lambda t, y, args: [jnp.sum(y) - 1],
        tspan=(0.0, 1.0), method=METHOD, saveat=ts, rtol=1e-6, atol=1e-6 * unit.at[2].set(jnp.inf),
    )  # fmt: skip


def fitted(unit, rate, rows):
    began = time.perf_counter()
    loss = lambda model: jnp.sum(((model(y0).ys - data)[rows] / unit) ** 2)
    fit = de.fit(layer(unit, rate), loss, optimizer=OPTIMIZER, steps=STEPS, progress=False)
    return fit, time.perf_counter() - began


scaled, scaled_seconds = fitted(size, speed, seen)
plain, plain_seconds = scaled, scaled_seconds
if not SHORT:
    plain, plain_seconds = fitted(jnp.ones(3), 1.0, published)

# %% [markdown]
# ## What was learnt
#
# Errors are those at all times, in units of each concentration's largest. The trained network
# is also solved as a fully implicit equation, by another method: a `NeuralDAE`.

# %%
learnt = [fit.model(y0).ys for fit in (plain, scaled)]
errors = [np.max(np.abs(np.asarray((ys - data) / size)), axis=0) for ys in learnt]
balance = max(float(jnp.max(jnp.abs(jnp.sum(ys, 1) - 1))) for ys in learnt)


def by_residual():
    layer = de.nn.NeuralDAE(
        scaled.model.net,
        lambda t, y, args: [jnp.sum(y) - 1],
        field=lambda net, t, y, dy, args: dy[:2] - speed * net(y / size),
        differential=[True, True, False],
        tspan=(0.0, 1.0), method=de.BDF(), saveat=ts,
        rtol=1e-6, atol=1e-6 * size.at[2].set(jnp.inf),
    )  # fmt: skip
    return layer(jnp.array([1.0, 0.0, 0.5])).ys


shown = [", ".join(f"{x:.1g}" for x in e) for e in errors]
print("\n| what | published | ours | seconds |")
print(f"| Σ of squares, L-BFGS × 100, as published | — | {plain.loss:.1e} | {plain_seconds:.1f} |")
print(f"| errors of y₁, y₂, y₃ then, of their size | — | {shown[0]} | |")
print(f"| and in units of their size | — | {shown[1]} | {scaled_seconds:.1f} |")
print(f"| y₁ + y₂ + y₃ − 1, in all rows | — | {balance:.0e} | |")
if not SHORT:
    apart = float(jnp.max(jnp.abs((by_residual() - learnt[1]) / size)))
    print(f"| as a residual, by BDF: largest difference | — | {apart:.0e} | |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(11, 3.3))
names = ("$y_1$", "$y_2$", "$y_3$")
titles = ("Σ of squares, as published", "in units of their sizes")
for ax, ys, rows, title in zip(axes, learnt, (published, seen), titles, strict=False):
    for i, (colour, name) in enumerate(zip((BLUE, RED, GREEN), names, strict=True)):
        ax.semilogx(ts[1:], np.clip(ys[1:, i] / size[i], -0.2, 1.5), color=colour, label=name)
        shown = np.flatnonzero(rows)[1:]
        ax.semilogx(
            ts[shown], data[shown, i] / size[i], "o", color=colour, markersize=3, mfc="white"
        )
    ax.set(title=title, xlabel="t", ylabel="concentration / its largest", ylim=(-0.1, 1.4))
axes[0].legend(ncols=3)
for fit, colour, name in ((plain, GREY, "as published"), (scaled, RED, "in units of their sizes")):
    axes[2].semilogy(fit.history, color=colour, label=name)
axes[2].set(title="loss", xlabel="step of L-BFGS")
axes[2].legend()
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "robertson_dae.png")
print(f"figure: {FIGURES.name}/robertson_dae.png")

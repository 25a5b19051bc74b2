# %% [markdown]
# # Multiple shooting
#
# Thirty points of the spiral u' = Aᵀu³ on 0 ≤ t ≤ 5: more than one turn, on which a long solve of
# an untrained network says little. DiffEqFlux's documentation fits them in groups of three points
# (2–16–2 on u³, a price of 200 on the gaps) and shows that one group of thirty, which is single
# shooting, fails. Here three ways are given the same number of steps of the same optimiser: single
# shooting, multiple shooting, and horizons that grow; two seeds each.

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
BLUE, RED, GREY = "C0", "C1", "0.45"

# %% [markdown]
# ## The data and the model

# %%
A = jnp.array([[-0.1, 2.0], [-2.0, -0.1]], jnp.float32)
y0 = jnp.array([2.0, 0.0], jnp.float32)
ts = jnp.linspace(0.0, 5.0, 30, dtype=jnp.float32)
truth = de.ODEProblem(lambda t, y, A: A.T @ y**3, y0, (0.0, 5.0), A)
data = de.solve(truth, saveat=ts, rtol=1e-6, atol=1e-8).ys


def make(seed):
    net = eqx.nn.MLP(2, 2, 16, 1, jnp.tanh, key=jax.random.key(seed), dtype=jnp.float32)
    return de.nn.NeuralODE(
        net, field=lambda net, t, y, args: net(y**3), tspan=(0.0, 5.0), saveat=ts, rtol=1e-4,
        atol=1e-5,
    )  # fmt: skip


# %% [markdown]
# ## Three losses
#
# `de.multiple_shooting` makes one for `de.fit`; with `group_size=30` it is single shooting.

# %%
single = de.multiple_shooting(data, ts, group_size=30)
several = de.multiple_shooting(data, ts, group_size=3, continuity=200.0)


def up_to(layer, data, *, ts):
    return de.mse(layer(y0, tspan=(ts[0], ts[-1]), saveat=ts).ys, data)


def whole(layer):
    """What counts in the end: the mean square error of one solve over all of the data."""
    return float(de.mse(layer(y0).ys, data))


PUBLISHED = {"multiple shooting": "fits", "single shooting": "fails", "growing horizons": "fits"}
STEPS = 60 if SHORT else 1500
adam = lambda steps: optax.adam(optax.cosine_decay_schedule(0.03, steps))
runs, spent = {}, {}
for seed in range(1 if SHORT else 2):
    for name in list(PUBLISHED)[: 1 if SHORT else 3]:
        began = time.perf_counter()
        if name == "growing horizons":
            third = STEPS // 3
            fit = de.fit_growing(
                make(seed),
                up_to,
                data,
                ts,
                ends=(1.5, 3.0, 5.0),
                optimizer=adam(third),
                steps=third,
            )
        else:
            loss = single if name.startswith("single") else several
            fit = de.fit(make(seed), loss, optimizer=adam(STEPS), steps=STEPS)
        runs[name, seed], spent[name, seed] = fit, time.perf_counter() - began

print("\n| what | published | ours | seconds |")
for name in dict.fromkeys(name for name, _ in runs):
    errors = [whole(fit.model) for (which, _), fit in runs.items() if which == name]
    ours = ", ".join(f"{error:.2g}" for error in errors)
    print(f"| mean square error, {name} | {PUBLISHED[name]} | {ours} | {spent[name, 0]:.1f} |")

# %% [markdown]
# ## The figure: the best of the seeds for each

# %%
de.plot.style()
figure, axes = plt.subplots(1, 4, figsize=(12.0, 3.2))
fine = jnp.linspace(0.0, 5.0, 401, dtype=jnp.float32)
one = several.solve(runs["multiple shooting", 0].model)
started = several.solve(make(0))
for ax, sol, title in ((axes[0], started, "groups before"), (axes[1], one, "groups after")):
    for group in range(len(several.groups)):
        ax.plot(sol.ts[group], sol.ys[group, :, 0], color=RED, linewidth=1.5)
    ax.plot(ts, data[:, 0], "o", color="0.1", markersize=3.5, markerfacecolor="white")
    ax.set(title=title, xlabel="t", ylabel="$u_1$", ylim=(-2.6, 2.6))
styles = {"single shooting": (BLUE, "--"), "multiple shooting": (RED, "-"),
          "growing horizons": ("C2", "-.")}  # fmt: skip
for name, (colour, line) in styles.items():
    fits = [fit for (which, _), fit in runs.items() if which == name]
    if not fits:
        continue
    best = min(fits, key=lambda fit: whole(fit.model))
    axes[2].plot(fine, best.model(y0, saveat=fine).ys[:, 0], line, color=colour, label=name)
    axes[3].semilogy(best.history, color=colour, linewidth=1.0, label=name)
axes[2].plot(ts, data[:, 0], "o", color="0.1", markersize=3.5, markerfacecolor="white")
axes[2].set(title="one solve of each", xlabel="t", ylabel="$u_1$", ylim=(-2.6, 3.9))
axes[2].legend(loc="upper right")
axes[3].set(title="training", xlabel="step", ylabel="its own loss")
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "multiple_shooting.png")
print(f"figure: {FIGURES.name}/multiple_shooting.png")

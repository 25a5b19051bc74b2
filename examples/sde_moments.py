# %% [markdown]
# # Rates and noise of a stochastic equation, from its moments
#
# Rabbits and wolves with noise on both (the tutorial of SciMLSensitivity on fitting a stochastic
# equation by the method of moments):
#
#     d rabbits = (a · rabbits − b · rabbits · wolves) dt + e · rabbits dW₁
#     d wolves  = (−c · wolves + d · rabbits · wolves) dt + f · wolves dW₂
#
# No path is compared with a path: what is known are the mean and the variance of 10,000 of them,
# and the six parameters are fitted so that the mean and the variance of 1,000 others, drawn anew
# for each step, come near. The derivative of a mean over paths is that of the paths, in the mean.

# %%
import os
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
KNOWN, PREDICTED, STEPS = (30, 30, 6) if SHORT else (10_000, 1_000, 100)
PUBLISHED_SECONDS = 250.65  # of the whole tutorial

# %% [markdown]
# ## The equations
#
# The noise of each component is its own, so it is diagonal: the diffusion has the shape of y.


# %%
def drift(t, y, rates):
    rabbits, wolves = y
    a, b, c, d, _, _ = rates
    return jnp.array([a * rabbits - b * rabbits * wolves, -c * wolves + d * rabbits * wolves])


def diffusion(t, y, rates):
    return rates[4:] * y


truth = jnp.array([1.5, 1.0, 3.0, 1.0, 0.3, 0.3])
ts = jnp.linspace(0.0, 10.0, 101)
problem = de.SDEProblem(drift, diffusion, [1.0, 1.0], (0.0, 10.0), truth)


def paths(rates, key, count):
    """Paths by SOSRI, the default, whose steps are controlled: one for each key."""
    path = lambda key: de.solve(problem.replace(args=rates), key=key, saveat=ts).ys
    return jax.vmap(path)(jax.random.split(key, count))


@partial(jax.jit, static_argnames="count")
def moments(rates, key, count):
    found = paths(rates, key, count)
    return found.mean(0), found.var(0)


began = time.perf_counter()
mean, variance = moments(truth, jax.random.key(0), KNOWN)
print(f"{KNOWN:,} paths: {time.perf_counter() - began:.1f} s, compilation included")

# %% [markdown]
# ## The fit
#
# Adam(0.05) for 100 steps, as published. A fresh key in each step keeps the fit from learning the
# noise of one set of paths.


# %%
def loss(rates, key):
    predicted_mean, predicted_variance = moments(rates, key, PREDICTED)
    of_means = jnp.sum((predicted_mean - mean) ** 2)
    return of_means + 0.1 * jnp.sum((predicted_variance - variance) ** 2)


start = jnp.array([1.2, 0.8, 2.5, 0.8, 0.1, 0.1])
trail = []
began = time.perf_counter()
fit = de.fit(
    start, loss, optimizer=optax.adam(0.05), steps=STEPS, key=jax.random.key(1),
    callback=lambda step, loss, rates: trail.append(np.asarray(rates)) and False,
)  # fmt: skip
seconds = time.perf_counter() - began
trail = np.array([*trail, np.asarray(fit.model)])

noise_floor = float(loss(truth, jax.random.key(2)))
print("\n| what | published | ours |\n|---|---|---|")
for name, true, found in zip("abcdef", truth, trail[-1], strict=True):
    print(f"| {name} (true value under published) | {true:.2f} | {found:.3f} |")
print(f"| loss, at first | – | {fit.history[0]:.4g} |")
print(f"| loss, at last ({noise_floor:.3g} at the true values) | – | {fit.history[-1]:.3g} |")
print(f"| seconds | {PUBLISHED_SECONDS} | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
BLUE, RED = "C0", "C1"
before, after = (moments(rates, jax.random.key(3), PREDICTED) for rates in (start, fit.model))
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2))
for i, (colour, name) in enumerate([(BLUE, "rabbits"), (RED, "wolves")]):
    axes[0].plot(ts[::4], mean[::4, i], "o", color=colour, markersize=3, markerfacecolor="white")
    axes[0].plot(ts, after[0][:, i], color=colour, label=name)
    axes[0].plot(ts, before[0][:, i], "--", color=colour, linewidth=0.9, alpha=0.6)
    axes[1].plot(
        ts[::4], variance[::4, i], "o", color=colour, markersize=3, markerfacecolor="white"
    )
    axes[1].plot(ts, after[1][:, i], color=colour)
    axes[1].plot(ts, before[1][:, i], "--", color=colour, linewidth=0.9, alpha=0.6)
axes[0].set(title="mean (points: data)", xlabel="t", ylabel="population", ylim=(0, None))
axes[0].legend(ncols=2)
axes[1].set(title="before (dashed) and after", xlabel="t", ylabel="variance", ylim=(0, None))
for i, name in enumerate("abcdef"):
    (line,) = axes[2].plot(trail[:, i], linewidth=1.2, label=name)
    axes[2].axhline(float(truth[i]), color=line.get_color(), linewidth=0.7, linestyle=":")
axes[2].set(title="training (dotted: true)", xlabel="step", ylabel="parameters")
axes[2].legend(ncols=3, loc="center right", bbox_to_anchor=(1, 0.72))
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "sde_moments.png")
print(f"\nfigure: {FIGURES.name}/sde_moments.png")

# %% [markdown]
# # How sure are we of four rates? Two hundred chains, side by side
#
# Prey and predators are counted twenty-one times, each with an error of 15 %:
#
#     x' = a x − b x y,    y' = −c y + d x y.
#
# The posterior of log a, …, log d is explored by the sampler of Goodman and Weare (Communications
# in Applied Mathematics and Computational Science 5, 2010): each of many walkers is stretched along
# the line to another one, and goes there if it is likely enough. Half of the walkers move at once,
# and all of their solves are one ensemble. A solve that fails has no likelihood, and disturbs none.

# %%
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import lax

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
WALKERS, STEPS, SPREAD = (16, 40, 0.15) if SHORT else (200, 1500, 0.15)
NAMES, TRUTH = "abcd", jnp.log(jnp.array([1.5, 1.0, 3.0, 1.0]))
TS = jnp.linspace(0.0, 8.0, 21)


def lotka_volterra(t, y, logs):
    a, b, c, d = jnp.exp(logs)
    return jnp.stack([a * y[0] - b * y[0] * y[1], -c * y[1] + d * y[0] * y[1]])


problem = de.ODEProblem(lotka_volterra, jnp.ones(2), (0.0, 8.0), TRUTH)
options = {"method": de.Tsit5(), "saveat": TS, "rtol": 1e-6, "atol": 1e-8}
clean = jnp.log(de.solve(problem, **options).ys)
data = clean + SPREAD * jax.random.normal(jax.random.key(1), clean.shape, clean.dtype)


def likelihood(logs):
    """Log p(data | rates) + log p(rates), the prior being N(0, 1) for each logarithm."""
    sol = de.solve_ensemble(problem, args=logs, strategy="lanes", throw=False, **options)
    misfit = jnp.sum((jnp.log(sol.ys) - data) ** 2, (1, 2)) / SPREAD**2
    value = -(misfit + jnp.sum(logs**2, 1)) / 2
    return jnp.where(sol.success & jnp.isfinite(value), value, -jnp.inf)


# %% [markdown]
# ## The sampler


# %%
def moved(key, walkers, others):
    """Each walker stretched along the line to one of the others, or as it was."""
    places, values = walkers
    who, far, luck = jax.random.split(key, 3)
    other = others[0][jax.random.randint(who, (len(places),), 0, len(others[0]))]
    stretch = (1 + jax.random.uniform(far, (len(places),), places.dtype)) ** 2 / 2  # from ½ to 2
    there = other + stretch[:, None] * (places - other)
    value = likelihood(there)
    gain = (places.shape[1] - 1) * jnp.log(stretch) + value - values
    goes = jnp.log(jax.random.uniform(luck, gain.shape, gain.dtype)) < gain
    return jnp.where(goes[:, None], there, places), jnp.where(goes, value, values)


def turn(halves, key):
    first, second = jax.random.split(key)
    one = moved(first, halves[0], halves[1])
    two = moved(second, halves[1], one)
    return (one, two), jnp.concatenate([one[0], two[0]])


@jax.jit
def chains(key, places):
    halves = tuple((half, likelihood(half)) for half in jnp.split(places, 2))
    return lax.scan(turn, halves, jax.random.split(key, STEPS))[1]


began = time.perf_counter()
noise = jax.random.normal(jax.random.key(2), (WALKERS, 4), jnp.float64)
places = chains(jax.random.key(3), TRUTH + 0.05 * noise)
kept = np.asarray(places[STEPS // 3 :]).reshape(-1, 4)
seconds = time.perf_counter() - began

# %% [markdown]
# ## Beside the normal approximation
#
# For so many data the posterior is nearly normal, with the covariance (Jᵀ J / 0.15² + 1)⁻¹, where J
# is the derivative of the logarithms of the solution: one forward-mode derivative of one solve.

# %%
jacobian = jax.jacfwd(lambda logs: jnp.log(de.solve(problem.replace(args=logs), **options).ys))
slopes = jacobian(TRUTH).reshape(-1, 4)
laplace = jnp.sqrt(jnp.diag(jnp.linalg.inv(slopes.T @ slopes / SPREAD**2 + jnp.eye(4))))
print("\n| what | published | ours | seconds |")
for i, name in enumerate(NAMES):
    took, off = f"{seconds:.1f}" if i == 0 else "", kept[:, i].mean() - TRUTH[i]
    ours = f"{kept[:, i].std():.3f}, mean off by {off:+.3f}"
    print(f"| {name}: deviation of its logarithm | {laplace[i]:.3f} (normal) | {ours} | {took} |")

# %% [markdown]
# ## The figure: rates, and what they foretell

# %%
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.5))
axes[0].hist2d(*np.exp(kept[:, :2]).T, bins=20 if SHORT else 60, cmap="Blues")
axes[0].plot(*np.exp(TRUTH[:2]), "+", color="C1", markersize=10)
axes[0].set(title="posterior of a and b (+: truth)", xlabel="a", ylabel="b")
axes[1].plot(np.exp(np.asarray(places[:, :5, 0])), linewidth=0.5)
axes[1].axhline(np.exp(TRUTH[0]), color="black", linewidth=0.8)
axes[1].set(title="five of the chains", xlabel="step", ylabel="a")
fine = jnp.linspace(0.0, 12.0, 121)
ahead = de.solve_ensemble(
    problem.replace(tspan=(0.0, 12.0)), args=jnp.asarray(kept[:: len(kept) // 300]), saveat=fine
)
bands = de.stats.Quantile([0.05, 0.5, 0.95])
counts = jnp.asarray(ahead.success)
found = bands.result(bands.update(bands.init(ahead.ys[0]), ahead.ys, counts))
for i, (name, colour) in enumerate((("prey", "C0"), ("predators", "C1"))):
    axes[2].fill_between(fine, found[0, :, i], found[2, :, i], color=colour, alpha=0.3, linewidth=0)
    axes[2].plot(fine, found[1, :, i], color=colour, label=name)
    axes[2].plot(TS, jnp.exp(data[:, i]), "o", color=colour, markersize=3)
axes[2].set(title="5–95 % of the solutions", xlabel="t", ylim=(0, 10.5))
axes[2].legend(ncols=2, loc="upper center")
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "bayes.png")
print(f"figure: {FIGURES.name}/bayes.png")

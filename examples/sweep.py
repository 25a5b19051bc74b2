# %% [markdown]
# # Where Lorenz's equations are chaotic: a sweep over two parameters
#
#     x' = σ (y − x),    y' = x (ρ − z) − y,    z' = x y − 8/3 z
#
# Two solutions that start close together drift apart like e^{λ₁ t}, with λ₁ the largest Lyapunov
# exponent: positive where the motion is chaotic. It is the mean of a growth g along a solution,
# with v the direction that grows fastest (dividing by v·v keeps an error of its length small):
#
#     v' = J v − g v,    s' = g = v·J v / v·v,    λ₁ = s(T)/T.
#
# That is one problem of seven equations. `solve_ensemble` solves it on a grid of σ and ρ; each
# point takes steps of its own, and a hundred times more of them where the motion is quick.

# %%
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
POINTS, T = (6, 5.0) if SHORT else (80, 60.0)


def lorenz(position, sigma, rho):
    x, y, z = position
    return jnp.stack([sigma * (y - x), x * (rho - z) - y, x * y - 8.0 / 3.0 * z])


def with_growth(t, state, args):
    position, direction, _ = state
    rate = lambda position: lorenz(position, *args)
    velocity, turned = jax.jvp(rate, (position,), (direction,))
    growth = direction @ turned / (direction @ direction)
    return velocity, turned - growth * direction, growth


start = (jnp.array([1.0, 1.0, 20.0]), jnp.array([1.0, 0.0, 0.0]), 0.0)
problem = de.ODEProblem(with_growth, start, (0.0, T), (10.0, 28.0))

# %% [markdown]
# ## The grid
#
# What is given to `solve_ensemble` has one row for each trajectory. `save=` keeps of each only what
# is wanted, and `sol.failed` would list those that came to nothing.

# %%
sigmas, rhos = jnp.linspace(1.0, 30.0, POINTS), jnp.linspace(0.5, 120.0, POINTS)
sigma, rho = (x.ravel() for x in jnp.meshgrid(sigmas, rhos, indexing="ij"))


def growth(t, state, args):
    return state[2]


began = time.perf_counter()
sol = de.solve_ensemble(problem, args=(sigma, rho), save=growth, rtol=1e-6, atol=1e-6)
exponents = sol.ys[:, 0] / T
seconds = time.perf_counter() - began
assert sol.failed.count == 0

# %% [markdown]
# ## The known value
#
# At σ = 10, ρ = 28 the exponent is 0.9056 (Sprott, Chaos and Time-Series Analysis, 2003). One long
# solve comes near it as 1/√T; an ensemble of starts gets there as well, side by side.

# %%
seeds = 4 if SHORT else 64
around = 1.0 + 0.1 * jax.random.normal(jax.random.key(0), (seeds, 3), jnp.float64)
starts = (start[0] * around, jnp.tile(start[1], (seeds, 1)), jnp.zeros(seeds))
many = de.solve_ensemble(problem, y0=starts, save=growth, rtol=1e-6, atol=1e-6, saveat=[T / 3, T])
found = (many.ys[:, 1] - many.ys[:, 0]) / (2 * T / 3)
mean, error = jnp.mean(found), jnp.std(found) / jnp.sqrt(seeds)

print("\n| what | published | ours | seconds |")
print(f"| λ₁ at σ = 10, ρ = 28 | 0.9056 | {mean:.3f} ± {error:.3f} | |")
chaotic = float(jnp.mean(exponents > 0.05))
print(f"| {POINTS**2} solves to t = {T:g}, chaotic of them | — | {chaotic:.0%} | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 2, figsize=(10.0, 3.8))
names = {"xlabel": "ρ", "ylabel": "σ"}
de.plot.heat(
    rho, sigma, exponents, centre=0.0, label="largest Lyapunov exponent", ax=axes[0], **names
)
axes[0].plot(28.0, 10.0, "o", color="black", markersize=5, fillstyle="none")
de.plot.heat(rho, sigma, sol.stats["steps"], label="steps of each solve", ax=axes[1], **names)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "sweep.png")
print(f"figure: {FIGURES.name}/sweep.png")

# %% [markdown]
# # Rabbits and wolves, held at one
#
# The first two examples of the DiffEqFlux paper (Rackauckas et al., 2019): the Lotka–Volterra
# equations
#
#     rabbits' = a · rabbits − b · rabbits · wolves
#     wolves'  = −c · wolves + d · rabbits · wolves
#
# are solved, and then their four rates are trained so that both populations stay at 1: a
# differential equation as a layer with four parameters. (The paper's formula prints + b; its code
# has the minus.) The loss is Σ (y − 1)² over 101 times, of the rabbits alone as in the paper, and
# of both, as in the later documentation.

# %%
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))

# %% [markdown]
# ## The equations


# %%
def lotka_volterra(t, y, rates):
    rabbits, wolves = y
    a, b, c, d = rates
    return jnp.array([a * rabbits - b * rabbits * wolves, -c * wolves + d * rabbits * wolves])


ts = jnp.linspace(0.0, 10.0, 101)
problem = de.ODEProblem(lotka_volterra, [1.0, 1.0], (0.0, 10.0), jnp.array([1.5, 1.0, 3.0, 1.0]))
solution = de.solve(problem, de.Tsit5(), saveat=ts)

# %% [markdown]
# ## Adam, as published
#
# From the rates (2.2, 1, 2, 0.4), 100 steps of Adam(0.1). DiffEqFlux shows an animation of this;
# "published" below is the same run computed anew with SciPy and PyTorch. The tolerance is tighter
# than the paper's default of 1e-3, at which the error of the solver is part of the loss.


# %%
def predict(rates):
    return de.solve(problem.replace(args=rates), de.Vern7(), saveat=ts, rtol=1e-8, atol=1e-12).ys


def of_rabbits(rates):
    return jnp.sum((predict(rates)[:, 0] - 1.0) ** 2)


def of_both(rates):
    return jnp.sum((predict(rates) - 1.0) ** 2)


start = jnp.array([2.2, 1.0, 2.0, 0.4])
rows = []
fits = {}
for name, loss, published in (("rabbits", of_rabbits, 0.271), ("both", of_both, 0.0485)):
    began = time.perf_counter()
    fits[name] = de.fit(start, loss, optimizer=optax.adam(0.1), steps=15 if SHORT else 100)
    seconds = time.perf_counter() - began
    rows.append((f"loss of {name}, Adam(0.1) × 100", published, fits[name].history[-1], seconds))

# %% [markdown]
# ## A quasi-Newton method
#
# From (1.5, 1, 3, 1), as the documentation does with BFGS after Adam. The optimum is a = b, c = d:
# there the solution is 1 for ever, and the loss zero.

# %%
began = time.perf_counter()
phases = [(optax.adam(0.1), 10 if SHORT else 50), (optax.lbfgs(), 10 if SHORT else 50)]
fits["newton"] = de.fit(problem.args, of_both, optimizer=phases[: 1 if SHORT else 2])
seconds = time.perf_counter() - began
rows.append(("loss of both, Adam then L-BFGS", 1e-16, fits["newton"].loss, seconds))

print("\n| what | published | ours | seconds |")
for what, published, ours, seconds in rows:
    print(f"| {what} | {published:.3g} | {ours:.3g} | {seconds:.1f} |")
print(f"\nrates: {np.round(np.asarray(fits['newton'].model), 4)}")

# %% [markdown]
# ## The figure

# %%
BLUE, RED = "C0", "C1"
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2))
for i, (colour, name) in enumerate([(BLUE, "rabbits"), (RED, "wolves")]):
    axes[0].plot(ts, solution.ys[:, i], color=colour, label=name)
    axes[1].plot(ts, predict(start)[:, i], "--", color=colour, linewidth=1.0, alpha=0.6)
    axes[1].plot(ts, predict(fits["both"].model)[:, i], color=colour)
axes[0].set(title="the equations", xlabel="t", ylabel="population", ylim=(0, None))
axes[0].legend(loc="upper center", ncols=2)
axes[0].set_ylim(0, 8.3)
axes[1].set(title="before (dashed) and after Adam", xlabel="t", ylabel="population", yscale="log")
losses = np.maximum(fits["newton"].history, 1e-25)
axes[2].semilogy(fits["both"].history, color=BLUE, label="Adam(0.1)")
axes[2].semilogy(losses, color=RED, label="then L-BFGS")
axes[2].axhline(1e-16, color="0.4", linewidth=0.9, linestyle="--", label="published")
axes[2].set(title="loss of both", xlabel="step", ylabel="loss")
axes[2].legend(loc="center left", bbox_to_anchor=(0, 0.45))
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "lotka_volterra.png")
print(f"figure: {FIGURES.name}/lotka_volterra.png")

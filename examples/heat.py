# %% [markdown]
# # Two constants of a heat equation
#
# u_t = 2 a₀ u + a₁ u_xx on 1001 points of 0 ≤ x ≤ 10, from a bump, for 1000 steps of dt = 0.4 dx²
# (method of lines, central differences, ends fixed in their rate). From the start (0.1, 0.2) the
# constants (1, 1) are to be found again. SciMLSensitivity's documentation does so with Adam and
# BFGS and prints (0.9999999996, 0.9999999991).
#
# The unknowns are two and the residuals 100,000, so this is a case for forward derivatives and
# least squares: Levenberg–Marquardt, whose Jacobian is two tangents of one solve.

# %%
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optimistix as optx

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
BLUE, RED, GREY = "C0", "C1", "0.45"

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The equation

# %%
POINTS = 201 if SHORT else 1001
x = jnp.linspace(0.0, 10.0, POINTS)
dx = float(x[1] - x[0])
dt = 0.4 * dx**2
STEPS = 200 if SHORT else 1000
ts = jnp.linspace(0.0, STEPS * dt, 101)


def heat(t, u, constants):
    growth, diffusion = constants
    inner = (u[2:] - 2.0 * u[1:-1] + u[:-2]) / dx**2
    return 2.0 * growth * u + diffusion * jnp.pad(inner, 1)


bump = jnp.exp(-((x - 3.0) ** 2))
problem = de.ODEProblem(heat, bump, (0.0, STEPS * dt), jnp.array([1.0, 1.0]))


def rows(constants):
    return de.solve(problem.replace(args=constants), de.Tsit5(), dt=dt, saveat=ts).ys


data = rows(problem.args)
start = jnp.array([0.1, 0.2])

# %% [markdown]
# ## Least squares

# %%
began = time.perf_counter()
solver = optx.LevenbergMarquardt(rtol=1e-12, atol=1e-12)
found = optx.least_squares(lambda c, _: rows(c) - data, solver, start, max_steps=100)
seconds = time.perf_counter() - began
a = np.asarray(found.value)
print("\n| what | published | ours | seconds |")
print(f"| growth a₀ (1) | 0.9999999996 | {a[0]:.13f} | {seconds:.1f} |")
print(f"| diffusion a₁ (1) | 0.9999999991 | {a[1]:.13f} | |")
print(f"| steps of Levenberg–Marquardt | — | {int(found.stats['num_steps'])} | |")

# %% [markdown]
# ## The figure
#
# Over so short a time the solution is nearly linear in its constants, and the error a cone.

# %%
de.plot.style()
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4))
guess = rows(start)
axes[0].plot(x, 0.0 * bump, color=GREY, linewidth=0.8)
axes[0].plot(x, data[-1] - bump, color=RED, label=f"t = {STEPS * dt:.3g}, (1, 1)")
axes[0].plot(x, guess[-1] - bump, "--", color=BLUE, label="(0.1, 0.2)")
axes[0].plot(
    x[::25], (rows(jnp.asarray(a))[-1] - bump)[::25], ".", color="0.1", markersize=4, label="found"
)
axes[0].set(title="what changed since t = 0", xlabel="x", ylabel="u − u(0)", xlim=(0, 7))
axes[0].legend()
grid = jnp.linspace(0.0, 2.0, 7 if SHORT else 21)
squares = jax.jit(jax.vmap(lambda c: jnp.mean((rows(c)[::10] - data[::10]) ** 2)))
pairs = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(-1, 2)
surface = np.sqrt(np.asarray(squares(pairs)).reshape(len(grid), -1))
shown = axes[1].contourf(grid, grid, surface, 12, cmap="Blues_r")
axes[1].plot(*start, "o", color=BLUE, label="start")
axes[1].plot(*a, "*", color=RED, markersize=12, label="found")
axes[1].set(title="root mean square error", xlabel="growth a₀", ylabel="diffusion a₁")
axes[1].legend(frameon=True, framealpha=0.8, edgecolor="none", loc="lower right")
figure.colorbar(shown, ax=axes[1], format="%.3f")
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "heat.png")
print(f"figure: {FIGURES.name}/heat.png")

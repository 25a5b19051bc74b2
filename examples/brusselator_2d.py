# %% [markdown]
# # A stiff reaction on a square of 20,000 equations
#
# The Brusselator with diffusion on 100 × 100 cells with periodic borders, after Hairer and Wanner
# (IV.10):
#
#     ∂u/∂t = a + u²v − (b + 1) u + α Δu + f(x, y, t),    ∂v/∂t = b u − u²v + α Δv,
#
# where f = 5 inside a small circle from t = 1.1 on. Diffusion makes it stiff: its fastest rate is
# 8,000. The Jacobian has 400 million entries, of which 120,000 are not zero: that is said with
# `jac=`, and Rodas5P finds it in eight tangents of the field and factors it by SuperLU.
#
# The same solve by SciPy's BDF, with the same pattern, stands beside it; and the gradient of the
# mean of u at the end by a and b, beside differences.

# %%
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp
from scipy.sparse import csc_matrix

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
CELLS, END = (10, 2.0) if SHORT else (100, 11.5)
RTOL, ATOL = 1e-4, 1e-6

# %% [markdown]
# ## The square, and where its Jacobian is not zero

# %%
case = de.zoo.brusselator_2d(CELLS)
problem = case.problem().replace(tspan=(0.0, END))
n = case.y0.size
TIMES = jnp.linspace(0.0, END, 5)[1:]


def solve(args, saveat=None):
    return de.solve(problem.replace(args=args), saveat=saveat, stops=[1.1], rtol=RTOL, atol=ATOL)


compiled = jax.jit(lambda args: solve(args, TIMES))
jax.block_until_ready(compiled(problem.args))
began = time.perf_counter()
sol = jax.block_until_ready(compiled(problem.args))
seconds = time.perf_counter() - began

# %% [markdown]
# ## SciPy's BDF with the same pattern

# %%
field = jax.jit(lambda t, y: case.field(t, y.reshape(case.y0.shape), problem.args).ravel())
rows, columns = case.jac.entries(n)
pattern = csc_matrix((np.ones(len(rows)), (rows, columns)), (n, n))
began, state = time.perf_counter(), case.y0.ravel()
for t0, t1 in ((0.0, 1.1), (np.nextafter(1.1, 2.0), END)):
    state = solve_ivp(
        lambda t, y: np.asarray(field(t, y)), (t0, t1), state, method="BDF", rtol=RTOL, atol=ATOL,
        jac_sparsity=pattern,
    ).y[:, -1]  # fmt: skip
by_scipy = time.perf_counter() - began
distance = float(jnp.abs(sol.ys[-1].ravel() - state).max() / jnp.abs(state).max())

# %% [markdown]
# ## The gradient by two parameters


# %%
def mean(few):
    return solve(jnp.concatenate([few, problem.args[2:]])).y1[..., 0].mean()


slope = jax.jit(jax.grad(mean))
few = problem.args[:2]
jax.block_until_ready(slope(few))
began = time.perf_counter()
found = jax.block_until_ready(slope(few))
of_gradient = time.perf_counter() - began
value = jax.jit(mean)
step = 1e-3
differences = [
    (value(few.at[i].add(step)) - value(few.at[i].add(-step))) / (2 * step) for i in range(2)
]
error = float(np.abs(np.asarray(found) - np.array(differences)).max())

print("| what | published | ours | seconds |")
print(f"| Rodas5P, {n:,} equations, {int(sol.stats['steps'])} steps | — | | {seconds:.1f} |")
print(f"| SciPy's BDF with the same pattern; distance | — | {distance:.1e} | {by_scipy:.1f} |")
print(f"| gradient by a and b; distance from differences | — | {error:.1e} | {of_gradient:.1f} |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 5, figsize=(13.0, 2.9))
first = pattern[:600, :600].toarray()
axes[0].imshow(first, cmap="Greys")
axes[0].set(title="where ∂f/∂y is not zero", xlabel=f"column, of {n:,}", ylabel="row")
shown = np.asarray(sol.ys[..., 0])
shades = {"vmin": shown.min(), "vmax": shown.max(), "cmap": "viridis"}
for ax, t, u in zip(axes[1:], TIMES, shown, strict=True):
    image = ax.imshow(u.T, origin="lower", extent=(0, 1, 0, 1), **shades)
    ax.set(title=f"t = {t:.3g}", xticks=[0, 1], yticks=[0, 1], xlabel="x")
axes[1].set_ylabel("y")
figure.colorbar(image, ax=axes[1:], label="u", shrink=0.8)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "brusselator_2d.png")
print(f"figure: {FIGURES.name}/brusselator_2d.png")

# %% [markdown]
# # Solving backwards
#
# The adjoint of the first neural ODEs (Chen et al., 2018) keeps nothing of the forward solve: it
# solves y backwards again from its end. The DiffEqFlux paper (Rackauckas et al., 2019) warns of it
# with Lorenz' equations, solved to t = 100 and back with tolerances of 1e-12, and prints
# (−17.5445, −14.7706, 39.7985) as the error of the start.
#
# Its listing builds the reversed problem and then solves the forward one once more, so that these
# are the coordinates of the *end*, minus the start. Done right, there is no error to print: the way
# back leaves the attractor after three and a half units of time, and goes to infinity.

# %%
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
ENDS = (1.0, 2.0, 5.0) if SHORT else (1.0, 2.0, 5.0, 20.0, 100.0)
OPTIONS = {"rtol": 1e-12, "atol": 1e-12, "max_steps": 1_000_000}
METHOD = de.Vern9()

# %% [markdown]
# ## There and back
#
# The flow contracts volumes at the rate σ + 1 + β = 13.67; of its three exponents, 0.91, 0 and
# −14.57, the last is the one that grows on the way back.


# %%
def lorenz(t, y, rates):
    u, v, w = y
    sigma, rho, beta = rates
    return jnp.stack([sigma * (v - u), u * (rho - w) - v, u * v - beta * w])


RATES = jnp.array([10.0, 28.0, 8 / 3])
START = jnp.array([1.0, 0.0, 0.0])
BACK = np.linspace(0.0, 5.0, 501)  # times on the way back


@jax.jit
def there(end):
    problem = de.ODEProblem(lorenz, START, (0.0, end), RATES)
    ts = jnp.maximum(end - BACK, 0.0)[::-1]
    sol = de.solve(problem, METHOD, saveat=ts, **OPTIONS, throw=False)
    return sol.ys[::-1], sol.y1


@jax.jit
def back(end, y1):
    problem = de.ODEProblem(lorenz, y1, (end, 0.0), RATES)
    ts = jnp.maximum(end - BACK, 0.0)
    sol = de.solve(problem, METHOD, saveat=ts, **OPTIONS, throw=False)
    return sol.ys, sol.last, sol.success


begin = time.perf_counter()
runs = {}
for end in ENDS:
    rows, y1 = there(end)
    again, last, success = back(end, y1)
    distance = np.linalg.norm(np.asarray(again - rows), axis=1)
    runs[end] = (np.asarray(rows), np.asarray(again), distance, y1, last, bool(success))
seconds = time.perf_counter() - begin

print("to t =    the start, solved backwards, is off by")
for end, (_, _, distance, _, last, success) in runs.items():
    if success:
        print(f"{end:6g}    {np.linalg.norm(np.asarray(last.y - START)):.1e}")
        continue
    gone = float(end) - float(BACK[np.nanargmax(distance > 1e3)])
    print(f"{end:6g}    infinity: 1,000 away {end - gone:.2f} before the end, at t = {gone:.2f}")

# %% [markdown]
# ## What becomes of gradients
#
# The derivative of u(T) by ρ. `Backsolve(checkpoints=0)` is the published adjoint, but it is
# watched: it compares y with the forward solve where that is known, at last at the start, and says
# NaN (outside a trace, an error) rather than a number that means nothing. With checkpoints it goes
# as far as these reach; the others keep what they need.

# %%
TIMES = (1.0, 2.0) if SHORT else (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0)
ADJOINTS = {
    "Gauss": de.Gauss(),
    "Backsolve, none": de.Backsolve(checkpoints=0),
    "Backsolve, 64 checkpoints": de.Backsolve(),
    "Discrete": de.Discrete(),
}


def gradient_of(adjoint):
    def final(rho, end):
        problem = de.ODEProblem(lorenz, START, (0.0, end), RATES.at[1].set(rho))
        options = {"rtol": 1e-10, "atol": 1e-10, "adjoint": adjoint}
        return de.solve(problem, de.Vern7(), **options).y1[0]

    return jax.jit(jax.vmap(jax.grad(final), (None, 0)))


gradients = {
    name: np.asarray(gradient_of(adjoint)(28.0, jnp.array(TIMES)))
    for name, adjoint in list(ADJOINTS.items())[: 2 if SHORT else None]
}
exact = gradients["Gauss"]
print("\ndu(T)/dρ" + "".join(f"{name:>27}" for name in gradients))
for i, end in enumerate(TIMES):
    print(f"T = {end:<4g}" + "".join(f"{values[i]:27.8g}" for values in gradients.values()))

# %% [markdown]
# ## Published and ours

# %%
last_end = ENDS[-1]
end_minus_start = np.asarray(runs[last_end][3] - START)
print("\n| what | published | ours | seconds |")
print(
    "| end minus start, printed as the error of the way back | (−17.5445, −14.7706, 39.7985) "
    f"| {np.round(end_minus_start, 4)}, another point of the attractor | |"
)
gone = [
    end - float(BACK[np.nanargmax(d > 1e3)]) for end, (_, _, d, _, _, ok) in runs.items() if not ok
]
said = f"infinite; lost after {max(ENDS) - gone[-1]:.2f} units" if gone else "below"
print(f"| the error of the way back | — | {said} | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
BLUE, RED, GREY = "C0", "C1", "0.55"
de.plot.style()
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11.0, 3.5))

rows, again, distance, *_ = runs[last_end]
fine = de.solve(
    de.ODEProblem(lorenz, START, (0.0, last_end), RATES), rtol=1e-9, atol=1e-9,
    saveat=jnp.linspace(0, last_end, 200 * int(min(last_end, 40)) + 1), max_steps=1_000_000,
)  # fmt: skip
left.plot(fine.ys[:, 0], fine.ys[:, 2], color=GREY, linewidth=0.25)
inside = np.abs(again).max(axis=1) < 120
way = again[inside]
left.plot(way[:, 0], way[:, 2], color=RED, linewidth=1.4, label="the way back")
left.plot(*np.asarray(runs[last_end][3])[[0, 2]], "o", color=BLUE, markersize=5, label="the end")
left.set(
    xlim=(-60, 60), ylim=(-40, 90), xlabel="u", ylabel="w", title=f"back from t = {last_end:g}"
)
left.legend(loc="upper left")

shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(ENDS)))
for shade, (end, run) in zip(shades, runs.items(), strict=True):
    known = (end - BACK) > 0
    middle.semilogy(
        BACK[known], np.maximum(run[2][known], 1e-16), color=shade, label=f"T = {end:g}"
    )
line = np.array([0.3, 2.1])
middle.semilogy(line, 1e-13 * np.exp(14.57 * line), "--", color="0.3", linewidth=1.0)
middle.text(0.75, 1e-3, "$e^{14.57\\,s}$", color="0.3")
middle.set(
    xlabel="time s on the way back", ylabel="distance from the way there", ylim=(1e-15, 1e6),
    xlim=(0, 4.2), title="what contracts forwards grows",
)  # fmt: skip
middle.legend(loc="lower right")

styles = {
    "Discrete": ("o", GREY),
    "Backsolve, 64 checkpoints": ("s", BLUE),
    "Backsolve, none": ("x", RED),
}
for name in [name for name in gradients if name != "Gauss"]:
    marker, colour = styles[name]
    off = np.abs(gradients[name] / exact - 1)
    lost = np.isnan(off)
    right.semilogy(np.array(TIMES)[~lost], np.maximum(off[~lost], 1e-12), marker, color=colour,
                   label=name, markersize=5)  # fmt: skip
    right.plot(np.array(TIMES)[lost], np.full(lost.sum(), 1.0), marker, color=colour, markersize=5,
               markerfacecolor="none", alpha=0.6)  # fmt: skip
right.text(0.03, 0.88, "above: refused (NaN)", transform=right.transAxes, fontsize=8, va="top")
right.set(
    xlabel="T",
    ylabel="relative difference from Gauss",
    ylim=(1e-13, 10.0),
    title="du(T)/dρ by adjoint",
)
right.legend(loc="center")

FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "reverse_instability.png")
print(f"\nfigure: {FIGURES.name}/reverse_instability.png")

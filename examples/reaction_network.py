# %% [markdown]
# # 356 species in 3,749 reactions: early events at the EGF receptor
#
# The network of Blinov, Faeder, Goldstein and Hlavacek (BioSystems 83, 2006): EGF binds to its
# receptor, two receptors make a dimer, and each phosphorylates two tyrosines of the other. Y1068
# binds Grb2, and that Sos; Y1148 binds Shc, which is phosphorylated there, and then binds Grb2 and
# Sos as well. Twenty rules make all of that; their combinations are what is many. `de.zoo` writes
# the reactions out, from the rules, as arrays of 356 numbers of molecules in a cell.
#
# Published are the observables that BioNetGen's solver finds after 120 s: the file
# `bng2/Validate/DAT_validate/egfr_net.gdat` of its repository, with rtol = atol = 1e-8.
#
# One reverse gradient tells what each of the 37 rate constants does to an observable, and three of
# them are then found again from noisy observables.

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
RTOL, ATOL = 1e-6, 1e-2  # a hundredth of a molecule
METHOD = de.Rodas5P()  # the Jacobian is that of a pattern: 7 % of its entries
STEPS = 2 if SHORT else 15

# %% [markdown]
# ## The solution
#
# Observables are sums over species: `case.observables` holds their weights.

# %%
case = de.zoo.egfr_network()
problem = case.problem()
END = 10.0 if SHORT else case.tspan[1]
TIMES = END * jnp.linspace(0.0, 1.0, 121) ** 2  # what is fast is at the beginning
LABELS = {
    "Dimers": "receptors in dimers", "RP": "phosphorylated sites", "ShcP": "phosphorylated Shc",
    "R_ShcP": "Shc-P at receptors", "R_Grb2": "Grb2 at Y1068", "Sos_act": "Sos at receptors",
}  # fmt: skip
PUBLISHED = {  # at 120 s
    "Dimers": 1.299365620574e05, "RP": 3.725429285459e04, "ShcP": 2.665894577560e05,
    "R_ShcP": 5.170437958638e03, "R_Grb2": 6.665337326287e03, "Sos_act": 2.234188200048e03,
}  # fmt: skip
weights = jnp.asarray(np.stack([case.observables[name] for name in LABELS]))


def observed(args, times, **options):
    """The observables at some times, a row each."""
    options = {"rtol": RTOL, "atol": ATOL} | options
    solved = problem.replace(args=args, tspan=(0.0, times[-1]))
    return de.solve(solved, METHOD, saveat=times, **options).ys @ weights.T


compiled = jax.jit(lambda args: observed(args, TIMES))
began = time.perf_counter()
curves = jax.block_until_ready(compiled(problem.args))
seconds = time.perf_counter() - began
print("| what | published | ours | seconds |")
print("|---|---|---|---|")
for i, (name, label) in enumerate(LABELS.items()):
    known = f"{PUBLISHED[name]:.7g}"
    print(f"| {label} after {END:.0f} s | {'—' if SHORT else known} | {curves[-1, i]:.7g} "
          f"| {f'{seconds:.1f}' if i == 0 else ''} |")  # fmt: skip

# %% [markdown]
# ## What each rate constant does
#
# The derivative of log(Sos at receptors) at the end by the logarithms of all rate constants: by how
# many percent it grows where a constant grows by one.


# %%
def log_sos(logs):
    return jnp.log(observed(jnp.exp(logs), jnp.array([0.0, END]), rtol=1e-8)[-1, -1])


logs = jnp.log(problem.args)
slope = jax.jit(jax.grad(log_sos))
began = time.perf_counter()
sensitivity = np.asarray(jax.block_until_ready(slope(logs)))
seconds = time.perf_counter() - began
order = np.argsort(-np.abs(sensitivity))
value = jax.jit(log_sos)
shift, worst = 1e-2, 0.0
for i in order[: 1 if SHORT else 8]:
    by = shift * jnp.eye(logs.size)[i]
    difference = (8 * (value(logs + by) - value(logs - by))
                  - (value(logs + 2 * by) - value(logs - 2 * by))) / (12 * shift)  # fmt: skip
    worst = max(worst, abs(float(difference) - sensitivity[i]))
largest = case.parameters[order[0]]
print(f"| sensitivities of Sos to 37 constants: distance from differences | — | {worst:.1e} "
      f"| {seconds:.1f} |")  # fmt: skip
print(f"| the largest of them, of {largest} | — | {sensitivity[order[0]]:.3f} | |")

# %% [markdown]
# ## Three constants from noisy observables
#
# The six observables at 12 times with an error of 3 %, and a start that is off by a factor of two
# or three.

# %%
FREE = [case.parameters.index(name) for name in ("kp3", "kp9", "km16")]
MEASURED = jnp.linspace(END / 12, END, 12)
truth = logs[jnp.array(FREE)]
noise = 1 + 0.03 * jax.random.normal(jax.random.key(0), (12, len(LABELS)))
data = observed(problem.args, jnp.append(0.0, MEASURED))[1:] * noise


def loss(found, data):
    args = jnp.exp(logs.at[jnp.array(FREE)].set(found))
    values = observed(args, jnp.append(0.0, MEASURED), rtol=1e-4, atol=1.0)[1:]
    return de.mse(jnp.log(values), jnp.log(data))


began = time.perf_counter()
fit = de.fit(
    truth + jnp.log(jnp.array([2.0, 0.5, 3.0])), loss, data, steps=STEPS, progress=False,
    optimizer=optax.lbfgs(),
)  # fmt: skip
seconds = time.perf_counter() - began
found = np.exp(np.asarray(fit.model))
for name, constant, at in zip(("k₊₃", "k₊₉", "k₋₁₆"), found, FREE, strict=True):
    print(f"| {name} from noisy observables (data: {float(problem.args[at]):.3g}) | — "
          f"| {constant:.3g} | {f'{seconds:.0f}' if name == 'k₊₃' else ''} |")  # fmt: skip

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(12.0, 3.9))
GROUPS = (("Dimers", "RP", "ShcP"), ("R_ShcP", "R_Grb2", "Sos_act"))
for axis, group, size in zip(axes, GROUPS, ("10⁵", "10³"), strict=False):
    unit = {"10⁵": 1e5, "10³": 1e3}[size]
    for i, name in enumerate(group):
        row, colour = list(LABELS).index(name), f"C{i + 3 * (size == '10³')}"
        axis.plot(TIMES, curves[:, row] / unit, color=colour, label=LABELS[name])
        axis.plot(MEASURED, data[:, row] / unit, "o", color=colour, markersize=3.5)
        if not SHORT:
            axis.plot(END, PUBLISHED[name] / unit, "D", color="0.2", markersize=5, zorder=0)
    axis.plot([], [], "o", color="0.5", markersize=3.5, label="noisy data")
    axis.plot([], [], "D", color="0.2", markersize=5, label="BioNetGen's solver, 120 s")
    axis.set(xlabel="time after EGF (s)", ylabel=f"molecules per cell ({size})")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
most = order[:12][::-1]
signs = {"p": "+", "m": "-"}  # forth and back
axes[2].barh(
    [f"$k_{{{signs[name[1]]}{name[2:]}}}$" for name in (case.parameters[i] for i in most)],
    sensitivity[most], color=["C0" if sensitivity[i] > 0 else "C1" for i in most],
)  # fmt: skip
axes[2].axvline(0.0, color="0.3", linewidth=0.8)
reach = 1.25 * np.abs(sensitivity).max()
axes[2].set(
    xlabel=f"d log(Sos at receptors) / d log k, {END:.0f} s", title="the 12 largest of 37",
    xlim=(-reach, reach),
)  # fmt: skip
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "reaction_network.png")
print(f"\nfigure: {FIGURES.name}/reaction_network.png")

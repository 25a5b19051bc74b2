# %% [markdown]
# # Prey that take a while to grow: a delay equation is fitted
#
# The delay example of the DiffEqFlux paper (Rackauckas et al., 2019): Lotka–Volterra, where the
# prey of a tenth of a unit of time ago breed,
#
#     x'(t) = (α − β y(t)) x(t − 0.1),    y'(t) = (δ x(t) − γ) y(t),    x = y = 1 before 0,
#
# is trained until the prey stay at 1: ADAM(0.1) for 100 steps from (α, β, δ, γ) = (2.2, 1, 2, 0.4),
# on the sum of (x − 1)² over 101 points. A run of the published code goes from 72.94 to 1.2e-3.

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

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
PUBLISHED = {"first": 72.94, "last": 1.2e-3}
TS = jnp.linspace(0.0, 10.0, 101)

# %% [markdown]
# ## The equation
#
# `past(s)` is the state at an earlier time. The lag is a parameter like the four rates; here
# it stays.


# %%
def field(t, state, past, p):
    (rates, lag), (x, y) = p, state
    alpha, beta, delta, gamma = rates
    return jnp.stack([(alpha - beta * y) * past(t - lag)[0], (delta * x - gamma) * y])


problem = de.DDEProblem(
    field, None, (0.0, 10.0), history=jnp.array([1.0, 1.0]), lags=lambda p: p[1]
)


def solved(rates, lag=0.1):
    return de.solve(problem.replace(args=(rates, lag)), de.Tsit5(), saveat=TS, rtol=1e-4)


def loss(rates):
    return jnp.sum((solved(rates).ys[:, 0] - 1.0) ** 2)


# %% [markdown]
# ## Training

# %%
start = jnp.array([2.2, 1.0, 2.0, 0.4])
clock = time.perf_counter()
fit = de.fit(start, loss, optimizer=optax.adam(0.1), steps=15 if SHORT else 100)
seconds = time.perf_counter() - clock

print(f"rates    {start} → {np.round(np.asarray(fit.model), 3)}")
print("| what | published | ours | seconds |")
print(f"| loss at the start | {PUBLISHED['first']} | {fit.history[0]:.2f} | |")
print(f"| after 100 steps | {PUBLISHED['last']:.1e} | {fit.history[-1]:.1e} | {seconds:.1f} |")

# %% [markdown]
# ## What the published suite cannot give: the derivative by the lag

# %%
lags = jnp.linspace(0.02, 0.15, 14)
off = lambda lag: jnp.sum((solved(start, lag).ys[:, 0] - 1.0) ** 2)
losses, slopes = jax.jit(jax.vmap(jax.value_and_grad(off)))(lags)
here = int(jnp.argmin(jnp.abs(lags - 0.1)))
print(f"∂loss/∂lag at the start, by a lag of {lags[here]:.2f}: {slopes[here]:.2f}")

# %%
de.plot.style()
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.3))
for rates, style, name in [(start, {"alpha": 0.45}, "before"), (fit.model, {}, "after")]:
    for i, colour in enumerate(["C0", "C1"]):
        label = f"{'prey' if i == 0 else 'predators'}, {name}"
        left.plot(TS, solved(rates).ys[:, i], color=colour, label=label, **style)
left.axhline(1.0, color="0.6", linewidth=0.8, linestyle=":")
left.set(xlabel="t", ylabel="population", title="prey are trained to stay at 1")
left.legend()

middle.semilogy(fit.history, color="C0", linewidth=1.2)
middle.axhline(PUBLISHED["last"], color="0.3", linewidth=0.9, linestyle="--")
middle.text(0, PUBLISHED["last"] * 1.2, "published", fontsize=7, color="0.3")
middle.set(xlabel="step", ylabel="loss", title="training by Adam(0.1)")

right.plot(lags, losses, color="0.3", linewidth=1.2)
half = 0.5 * float(lags[1] - lags[0])
for lag, value, slope in zip(lags[::4], losses[::4], slopes[::4], strict=True):
    right.plot([lag - half, lag + half], [value - half * slope, value + half * slope],
               color="C1", linewidth=2.5)  # fmt: skip
right.set(xlabel="lag", ylabel="loss at the start", title="its derivative by the lag (red)")

FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "delay_lv.png")
print(f"figure: {FIGURES.name}/delay_lv.png")

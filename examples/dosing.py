# %% [markdown]
# # A network learns between doses
#
# The hybrid example of the documentation of SciMLSensitivity.jl: u' = −u, and at t = 1, 2, 4, 8
# both components get 1 more. The model knows u' = −u, but not the dose: beside u it has a second
# state z with z' = NN(u), and at those times u becomes z. The network has to learn what z must be
# by then.
#
# The tutorial trains it with Adam(0.05) for 1,000 steps on 100 points up to t = 10.5, and shows a
# figure; it prints no number.

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

# %% [markdown]
# ## The data

# %%
times = jnp.array([1.0, 2.0, 4.0, 8.0], jnp.float32)
ts = jnp.linspace(0.0, 10.5, 100, dtype=jnp.float32)
u0 = jnp.array([2.0, 0.0], jnp.float32)

truth = de.ODEProblem(lambda t, u, args: -u, u0, (0.0, 10.5))
data = de.solve(truth, events=de.doses(times, jnp.float32(1.0), ()), saveat=ts).ys

# %% [markdown]
# ## The model

# %%
net = eqx.nn.MLP(2, 2, 50, 1, jnp.tanh, key=jax.random.key(0), dtype=jnp.float32)
jump = de.PresetTimes(times, lambda t, y, net: {**y, "u": y["z"]})
model = de.ODEProblem(
    lambda t, y, net: {"u": -y["u"], "z": net(y["u"])}, {"u": u0, "z": u0}, (0.0, 10.5), net
)


def predict(net, ts=ts):
    return de.solve(model.replace(args=net), de.Tsit5(), events=jump, saveat=ts)


def loss(net):
    return jnp.sum((predict(net).ys["u"] - data) ** 2)


# %% [markdown]
# ## Training

# %%
began = time.perf_counter()
fit = de.fit(net, loss, optimizer=optax.adam(0.05), steps=30 if SHORT else 1000, progress=False)
seconds = time.perf_counter() - began
print(
    f"loss before {fit.history[0]:.4g}, after {len(fit.history) - 1} steps of Adam {fit.loss:.3g}"
)
print("| what | published | ours | seconds |")
print(f"| loss after Adam | a figure | {fit.loss:.3g} | {seconds:.1f} |")

after = predict(fit.model).events[0].after["u"]
want = de.solve(truth, events=de.doses(times, jnp.float32(1.0), ()), rtol=1e-6).events[0].after
print(f"| largest error after a dose | — | {float(jnp.abs(after - want).max()):.2g} | |")

# %%
fine = jnp.linspace(0.0, 10.5, 1051, dtype=jnp.float32)
path = predict(fit.model, fine)
de.plot.style()
figure, axes = plt.subplots(2, 1, figsize=(7.2, 4.4), sharex=True, sharey=True)
for i, axis in enumerate(axes):
    for t in times:
        axis.axvline(float(t), color="0.85", linewidth=0.8, zorder=0)
    axis.plot(fine, path.ys["u"][:, i], color="C0", label="model, $u$")
    axis.plot(fine, path.ys["z"][:, i], "--", color="C1", linewidth=1.0, label="network, $z$")
    axis.plot(ts, data[:, i], "o", color="0.1", markersize=3, markerfacecolor="white", label="data")
    axis.set(ylabel=f"$u_{i + 1}$, $z_{i + 1}$", xlim=(0, 10.5))
axes[1].set_xlabel("t (grey: doses)")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
FIGURES.mkdir(parents=True, exist_ok=True)
path = FIGURES / "dosing.png"
figure.savefig(path)
print(f"figure: {path.name}")

# %% [markdown]
# # A neural ODE of second order
#
# x'' = net(x): what is learnt is an acceleration, and that x' is the velocity is known. The first
# part is the example of SciMLSensitivity's documentation, twenty points on two straight lines,
# which a start at rest can only follow after a kick; it is trained with Adam(0.01) until the loss
# is below 0.01, or for 1000 steps. No loss is printed there, and here it stays above. The second
# part shows what the form is good for: a pendulum, learnt by a neural ODE of second order and by a
# plain one of the same size, from the same positions and velocities, and
# followed for six times as long; and the Nyström method DPRKN6, which serves the first alone.

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
BLUE, RED, GREY = "C0", "C1", "0.45"


def mlp(inputs, outputs, seed=0):
    key = jax.random.key(seed)
    return eqx.nn.MLP(inputs, outputs, 50, 1, jnp.tanh, key=key, dtype=jnp.float32)


# %% [markdown]
# ## Two lines, from rest

# %%
ts = jnp.linspace(0.0, 1.0, 20, dtype=jnp.float32)
lines = jnp.stack([jnp.linspace(0.05, 1.0, 20), jnp.linspace(1.95, 1.0, 20)], axis=1)
start = (jnp.array([0.0, 2.0], jnp.float32), jnp.zeros(2, jnp.float32))
layer = de.nn.SecondOrder(mlp(2, 2), tspan=(0.0, 1.0), saveat=ts, method=de.DPRKN6())


def off_the_lines(layer):
    x, _ = layer(start).ys
    return jnp.sum((x - lines) ** 2)


began = time.perf_counter()
first = de.fit(
    layer,
    off_the_lines,
    optimizer=optax.adam(0.01),
    steps=60 if SHORT else 1000,
    callback=lambda step, loss, model: loss < 0.01,
)
seconds = time.perf_counter() - began
needed = len(first.history) - 1
print("\n| what | published | ours | seconds |")
print(f"| two lines, loss after {needed} steps of Adam(0.01) | stop at 0.01 | {first.loss:.3f} "
      f"| {seconds:.1f} |")  # fmt: skip

# %% [markdown]
# ## A pendulum, learnt in two ways

# %%
pendulum = de.SecondOrderProblem(lambda t, x, v, g: -g * jnp.sin(x), 2.0, 0.0, (0.0, 60.0), 1.0)
at = jnp.linspace(0.0, 10.0, 101, dtype=jnp.float32)
far = jnp.linspace(0.0, 60.0, 601, dtype=jnp.float32)
truth = de.solve(pendulum, de.DPRKN6(), saveat=far, rtol=1e-7, atol=1e-7).ys
data = jax.tree.map(lambda y: y[:101, None], truth)
options = {"tspan": (0.0, 10.0), "saveat": at, "rtol": 1e-5, "atol": 1e-5}
second_order = de.nn.SecondOrder(mlp(1, 1), method=de.DPRKN6(), **options)
plain = de.nn.NeuralODE(
    mlp(2, 2), field=lambda net, t, y, args: tuple(net(jnp.concatenate(y))[:, None]), **options
)
groups = de.multiple_shooting(data, at, group_size=6, continuity=10.0)
fits, errors = {}, {}
models = {"second order": second_order, "plain": plain}
for name, model in list(models.items())[: 1 if SHORT else 2]:
    steps = 50 if SHORT else 600
    began = time.perf_counter()
    adam = optax.adam(optax.cosine_decay_schedule(0.01, steps))
    fits[name] = de.fit(model, groups, optimizer=adam, steps=steps)
    seconds = time.perf_counter() - began
    begin = jax.tree.map(lambda x: x[0], data)
    fits[name, "far"] = fits[name].model(begin, tspan=(0.0, 60.0), saveat=far).ys[0][:, 0]
    errors[name] = float(jnp.sqrt(jnp.mean((fits[name, "far"] - truth[0]) ** 2)))
    print(f"| pendulum, error to t = 60, {name} | — | {errors[name]:.2g} | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), gridspec_kw={"width_ratios": [1, 2, 1]})
x, _ = first.model(start, saveat=jnp.linspace(0.0, 1.0, 101)).ys
for i, colour in enumerate((BLUE, RED)):
    axes[0].plot(jnp.linspace(0.0, 1.0, 101), x[:, i], color=colour, label=f"$x_{i + 1}$")
    axes[0].plot(ts, lines[:, i], "o", color=colour, markersize=3.5, markerfacecolor="white")
axes[0].set(title="two lines, from rest", xlabel="t", ylabel="x")
axes[0].legend()
axes[1].axvspan(0.0, 10.0, color="0.94", zorder=0)
axes[1].plot(far, truth[0], color=GREY, linewidth=3.0, alpha=0.4, label="truth")
axes[1].plot(far, fits["second order", "far"], color=RED, linewidth=1.2, label="x'' = net(x)")
if "plain" in fits:
    axes[1].plot(far, fits["plain", "far"], "--", color=BLUE, linewidth=1.0, label="y' = net(y)")
axes[1].set(title="a pendulum; seen: the grey part", xlabel="t", ylabel="angle", ylim=(-2.6, 3.9))
axes[1].legend(ncols=3, loc="upper center")
angles = jnp.linspace(-2.0, 2.0, 81, dtype=jnp.float32)[:, None]
axes[2].plot(angles, -jnp.sin(angles), color=GREY, linewidth=3.5, alpha=0.4, label="−sin x")
axes[2].plot(angles, jax.vmap(fits["second order"].model.net)(angles), color=RED, label="net(x)")
axes[2].set(title="acceleration", xlabel="angle", ylabel="x''")
axes[2].legend()
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "second_order.png")
print(f"figure: {FIGURES.name}/second_order.png")

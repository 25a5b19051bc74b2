# %% [markdown]
# # Half an equation, half a network
#
# Two systems of DiffEqFlux's documentation, in which one equation is known and the other is a
# network: what it learns is a controller.
#
# 1. *Partial neural* (README of v0.5 to v1.x): x' = net(x, y), y' = p₁ y + p₂ x. The network, both
#    rates and the initial state are trained, so that x and y are 1 all along 0 ≤ t ≤ 25.
# 2. *Feedback control* (its successor): the control u and the output y follow
#
#        u' = net(u, y)      y' = α y + β u      (α, β) = (0.5, −0.5)
#
#    from u = 0, y = 1.1. Without control y would grow like exp(t/2). The loss is Σ (y − 1)² at
#    t = 0, 1, …, 25; the network, the rates and the start are trained. Its documentation prints
#    6.6e-13 after 23 iterations of BFGS in 8 s.
#
# With the rates and the start among what is trained, the second has an easy way out, and takes it:
# α = 0 and y = 1 from the beginning, with no control at all. So there is a third: the plant is as
# it is, the network alone is trained, from several starts, over growing horizons.

# %%
import os
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import optimistix as optx

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
BLUE, RED = "C0", "C1"
KEY = jax.random.key(0)

# %% [markdown]
# ## Partial neural
#
# All that is trained is one tree: a network, the rates, and the initial state. It is the `args` of
# the problem, whose y0 is a function of them.


# %%
def partial_neural(t, y, model):
    control, output = y
    rate = model["net"](y)[0]
    return jnp.array([rate, model["rates"][0] * output + model["rates"][1] * control])


first = {
    "net": eqx.nn.MLP(2, 1, 10, 1, jnp.tanh, key=KEY),
    "rates": jnp.array([-2.0, 1.1]),
    "y0": jnp.array([0.8, 0.8]),
}
one = de.ODEProblem(partial_neural, lambda model: model["y0"], (0.0, 25.0), first)
fine = jnp.linspace(0.0, 25.0, 251)


def series(model):
    return de.solve(one.replace(args=model), de.Tsit5(), saveat=fine, rtol=1e-6, atol=1e-8).ys


def distance(model):
    return jnp.sum((series(model) - 1.0) ** 2)


began = time.perf_counter()
partial = de.fit(first, distance, optimizer=optax.adam(0.1), steps=20 if SHORT else 100)
print("\n| what | published | ours | seconds |")
print(
    f"| partial neural, Adam(0.1) × 100: the loss falls | 10-fold or more "
    f"| {partial.history[0] / partial.loss:.2g}-fold | {time.perf_counter() - began:.1f} |"
)

# %% [markdown]
# ## Feedback control


# %%
def feedback(t, y, model):
    control, output = y
    alpha, beta = model["rates"]
    return jnp.array([model["net"](y)[0], alpha * output + beta * control])


second = {
    "net": eqx.nn.MLP(2, 1, 16, 2, jnp.tanh, key=KEY),
    "rates": jnp.array([0.5, -0.5]),
    "y0": jnp.array(1.1),
}
two = de.ODEProblem(feedback, lambda model: jnp.stack([0.0, model["y0"]]), (0.0, 25.0), second)
whole = jnp.arange(26.0)


def output(model, ts=whole):
    return de.solve(two.replace(args=model), de.Vern7(), saveat=ts, rtol=1e-8, atol=1e-10).ys


def off_target(model):
    return jnp.sum((output(model)[:, 1] - 1.0) ** 2)


# %% [markdown]
# Adam, then BFGS as published, here that of Optimistix: a solve is a function like any other.

# %%
began = time.perf_counter()
if not SHORT:
    adam = de.fit(second, off_target, optimizer=optax.adam(0.01), steps=100)
    arrays, rest = eqx.partition(adam.model, eqx.is_inexact_array)
    bfgs = optx.minimise(
        lambda arrays, _: off_target(eqx.combine(arrays, rest)),
        optx.BFGS(rtol=1e-9, atol=1e-13), arrays, max_steps=300, throw=False,
    )  # fmt: skip
    control = float(off_target(eqx.combine(bfgs.value, rest)))
    seconds = time.perf_counter() - began
    print(f"| feedback control, loss | 6.6e-13 | {control:.2g} | {seconds:.1f} |")

# %% [markdown]
# ## Feedback control of a plant that is as it is
#
# Four starts under one `vmap`; a start is an argument beside the model. The price is the distance
# from the target after t = 2: what the controller had no time to mend before is not its fault.

# %%
starts = jnp.array([0.7, 0.9, 1.1, 1.3])
plant = two.replace(
    y0=lambda both: jnp.stack([0.0, both[1]]), f=lambda t, y, both: feedback(t, y, both[0])
)


def controlled(model, start, ts):
    one = plant.replace(args=(model, start), tspan=(0.0, ts[-1]))
    return de.solve(one, de.Tsit5(), saveat=ts, rtol=1e-6, atol=1e-8).ys


def price(model, target, *, ts):
    ys = jax.vmap(lambda start: controlled(model, start, ts))(starts)
    return de.mse(ys[..., 1], target, mask=jnp.broadcast_to(ts > 2.0, target.shape))


began = time.perf_counter()
grown = de.fit_growing(
    second, price, jnp.ones((4, 26)), whole, ends=(5.0,) if SHORT else (5.0, 10.0, 25.0),
    axis=1, optimizer=optax.adam(0.01), steps=30 if SHORT else 200,
    trainable=lambda model: model["net"],
)  # fmt: skip
seconds = time.perf_counter() - began
print(f"| the network alone, mean square from t = 3 | — | {grown.loss:.2g} | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2))
before, after = series(first), series(partial.model)
for i, (colour, name) in enumerate([(BLUE, "x, from the network"), (RED, "y, known equation")]):
    axes[0].plot(fine, before[:, i], "--", color=colour, linewidth=1.0, alpha=0.6)
    axes[0].plot(fine, after[:, i], color=colour, label=name)
axes[0].set(title="partial neural (dashed: before)", xlabel="t", ylabel="state")
axes[0].legend()
for start in (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3):
    seen = np.any(np.isclose(start, starts))
    states = controlled(grown.model, start, fine[:101])
    style = {"linewidth": 1.4 if seen else 0.8, "linestyle": "-" if seen else ":"}
    axes[1].plot(fine[:101], states[:, 0], color=BLUE, **style)
    axes[1].plot(fine[:101], states[:, 1], color=RED, **style)
for colour, line, name in (
    (RED, "-", "output y"),
    (BLUE, "-", "control u"),
    ("0.3", ":", "starts not seen"),
):
    axes[1].plot([], [], line, color=colour, label=name)
axes[1].set(title="feedback control, network alone", xlabel="t", ylabel="state")
axes[1].legend()
axes[2].semilogy(grown.history, color=BLUE, linewidth=1.0)
for step, end in zip(grown.phases, ("5", "10", "25"), strict=False):
    axes[2].axvline(step, color="0.7", linewidth=0.8, linestyle=":")
    axes[2].annotate(f" to t = {end}", (step, 1.0), color="0.4", fontsize=8, va="top",
                     xycoords=("data", "axes fraction"))  # fmt: skip
axes[2].set(title="its training, growing horizons", xlabel="step", ylabel="mean square")
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "partial_neural.png")
print(f"figure: {FIGURES.name}/partial_neural.png")

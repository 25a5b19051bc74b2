# %% [markdown]
# # A network with an input from outside
#
# A Hammerstein system: an input u goes through a static nonlinearity f, and what comes out through
# a linear filter, y(k) = 0.2 f(u(k − 1)) + 0.8 y(k − 1). The neural ODE y' = net(y, u(t)) is to
# learn it from one record of 100 points. (In the example of SciMLSensitivity's documentation the
# input is 1 throughout, so what is learnt there is one step response; here it changes.)
#
# The input is held between samples. It is data, not a parameter: a `de.interp.Hold` in the args of
# the problem, whose times `solve` finds there, so that no step crosses a jump.

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

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
BLUE, RED, GREY = "C0", "C1", "0.45"

# %% [markdown]
# ## The data


# %%
def nonlinearity(u):
    return (np.arctan(8.0 * u - 4.0) + np.arctan(4.0)) / (2.0 * np.arctan(4.0))


def record(seed):
    """An input of random levels, each held for a random time, and what the system makes of it."""
    rng = np.random.default_rng(seed)
    u = np.repeat(rng.uniform(0.0, 1.0, 100), rng.integers(4, 12, 100))[:100]
    y = np.zeros(100)
    for k in range(1, 100):
        y[k] = 0.2 * nonlinearity(u[k - 1]) + 0.8 * y[k - 1]
    return jnp.asarray(u, jnp.float32), jnp.asarray(y, jnp.float32)


ts = jnp.linspace(0.1, 10.0, 100, dtype=jnp.float32)
(u, y), (other_u, other_y) = record(0), record(1)

# %% [markdown]
# ## The model, as published: 2–8–1, tanh

# %%
net = eqx.nn.MLP(2, 1, 8, 1, jnp.tanh, key=jax.random.key(0), dtype=jnp.float32)


def field(net, t, y, held):
    return net(jnp.stack([y, held(t)]))[0]


layer = de.nn.Layer(net, field=field, tspan=(0.1, 10.0), saveat=ts, rtol=1e-5, atol=1e-7)


def answer(layer, u):
    return layer(jnp.float32(0.0), de.interp.Hold(ts, u)).ys


began = time.perf_counter()
steps = 40 if SHORT else 500
fit = de.fit(
    layer,
    lambda layer: de.mse(answer(layer, u), y),
    optimizer=[(optax.adam(0.03), steps), (optax.lbfgs(), 10 if SHORT else 200)][
        : 1 if SHORT else 2
    ],
)
seconds = time.perf_counter() - began
told = jax.jit(lambda u: answer(fit.model, u))
unseen = float(de.mse(told(other_u), other_y))

print("\n| what | published | ours | seconds |")
print(f"| mean square error, the record | — | {fit.loss:.1e} | {seconds:.1f} |")
print(f"| mean square error, an input not seen | — | {unseen:.1e} | |")

# %% [markdown]
# ## The figure
#
# Where the learnt field is zero, y rests: that curve is the static nonlinearity.

# %%
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), gridspec_kw={"width_ratios": [1.4, 1.4, 1]})
for ax, inputs, data, title in (
    (axes[0], u, y, "the record"),
    (axes[1], other_u, other_y, "an input not seen"),
):
    ax.step(ts, inputs, where="post", color=GREY, linewidth=0.9, label="input u")
    ax.plot(ts, data, "o", color="0.1", markersize=3, markerfacecolor="white", label="output, data")
    ax.plot(ts, told(inputs), color=RED, label="neural ODE")
    ax.set(title=title, xlabel="t", ylabel="u, y", ylim=(-0.05, 1.25))
axes[0].legend(ncols=3, loc="upper center", columnspacing=1.0)
levels, rests = jnp.linspace(0.0, 1.0, 41), jnp.linspace(-0.2, 1.2, 281)
slopes = jax.vmap(lambda u: jax.vmap(lambda y: fit.model.net(jnp.stack([y, u]))[0])(rests))(levels)
axes[2].plot(levels, nonlinearity(np.asarray(levels)), color=GREY, linewidth=3.5, alpha=0.4)
axes[2].plot(levels, rests[jnp.argmin(jnp.abs(slopes), axis=1)], color=RED)
axes[2].legend(["truth", "learnt"])
axes[2].set(title="where y rests", xlabel="u, held", ylabel="y")
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "exogenous_input.png")
print(f"figure: {FIGURES.name}/exogenous_input.png")

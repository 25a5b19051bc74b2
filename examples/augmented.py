# %% [markdown]
# # A disk inside a ring: augmented neural ODEs
#
# Points of the plane with |x| < 2 are labelled 1, those with 3 < |x| < 4 are labelled −1; a neural
# ODE carries them for one unit of time, and a plane is to part them. No flow of the plane can do
# so: the ring stays around the disk. With one more dimension, zero at the start, it can (Dupont et
# al., 2019). The setting is that of DiffEqFlux's documentation: 2000 + 2000 points, 2–64–64–2 with
# relu, Adam(0.005), batches of 256; 20 epochs, as in its earlier versions. It prints no number.

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
def points(count, low, high, rng):
    radius = (high - low) * np.sqrt(rng.uniform(size=(count, 1))) + low
    angle = rng.uniform(0.0, 2 * np.pi, (count, 1))
    return (radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)


rng = np.random.default_rng(0)
COUNT = 400 if SHORT else 2000
x = np.concatenate([points(COUNT, 0.0, 2.0, rng), points(COUNT, 3.0, 4.0, rng)])
labels = np.repeat(np.array([1.0, -1.0], np.float32), COUNT)

# %% [markdown]
# ## The model: a layer, with `extra` dimensions or none, and a plane


# %%
class Classifier(eqx.Module):
    layer: eqx.Module
    plane: eqx.nn.Linear

    def __init__(self, extra, key):
        keys = jax.random.split(key)
        net = eqx.nn.MLP(2 + extra, 2 + extra, 64, 2, key=keys[0], dtype=jnp.float32)
        node = de.nn.NeuralODE(net, tspan=(0.0, 1.0), rtol=1e-3, atol=1e-3)
        self.layer = de.nn.Augmented(node, extra) if extra else node
        self.plane = eqx.nn.Linear(2 + extra, "scalar", key=keys[1], dtype=jnp.float32)

    def __call__(self, x):
        return self.plane(self.layer(x).y1)


def loss(model, batch):
    x, labels = batch
    return de.mse(jax.vmap(model)(x), labels)


fits, rows = {}, []
epochs = 2 if SHORT else 20
for extra in (1,) if SHORT else (0, 1):
    began = time.perf_counter()
    fits[extra] = de.fit(
        Classifier(extra, jax.random.key(0)), loss, (x, labels), optimizer=optax.adam(0.005),
        steps=epochs * (2 * COUNT // 256), batch_size=256, key=jax.random.key(1),
    )  # fmt: skip
    scores = jax.jit(jax.vmap(fits[extra].model))(x)
    wrong = np.mean(np.sign(scores) != labels)
    rows.append((extra, float(de.mse(scores, labels)), wrong, time.perf_counter() - began))

print("\n| what | published | ours | seconds |")
for extra, error, wrong, seconds in rows:
    ours = f"{error:.2g}, {100 * wrong:.2f} % wrong"
    print(f"| mean square error, {extra} extra dimensions | — | {ours} | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
axis = np.linspace(-4.3, 4.3, 90, dtype=np.float32)
grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
shown = np.random.default_rng(1).permutation(2 * COUNT)[:400]
de.plot.style()
figure = plt.figure(figsize=(11.5, 3.1))
levels, letters = np.linspace(-1.2, 1.2, 13), iter("abcd")
for column, extra in enumerate(fits):
    ax = figure.add_subplot(1, 4, 1 + 2 * column)
    score = np.asarray(jax.jit(jax.vmap(fits[extra].model))(grid)).reshape(len(axis), -1)
    shades = ax.contourf(axis, axis, score, levels, cmap="RdBu_r", alpha=0.6, extend="both")
    ax.contour(axis, axis, score, [0.0], colors="0.2", linewidths=1.0)
    for sign, colour in ((1.0, RED), (-1.0, BLUE)):
        inside = shown[labels[shown] == sign]
        ax.plot(*x[inside].T, ".", color=colour, markersize=2.5)
    said = f"({next(letters)}) {extra or 'no'} extra dimension: score"
    ax.set(title=said, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    figure.colorbar(shades, ax=ax, ticks=[-1, 0, 1], shrink=0.8)
    ends = jax.jit(jax.vmap(lambda y, layer=fits[extra].model.layer: layer(y).y1))(x[shown])
    ax = figure.add_subplot(1, 4, 2 + 2 * column)
    ends = np.asarray(ends)[:, [0, -1]]  # the first component, and the last
    for sign, colour, name in ((1.0, RED, "disk"), (-1.0, BLUE, "ring")):
        ax.plot(*ends[labels[shown] == sign].T, ".", color=colour, markersize=3, label=name)
    ended = f"({next(letters)}) where points end"
    ax.set(title=ended, xlabel="$y_1$", ylabel=f"$y_{2 + extra}$")
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=3)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "augmented.png")
print(f"figure: {FIGURES.name}/augmented.png")

# %% [markdown]
# # A differential equation inside a network
#
# The DiffEqFlux paper (Rackauckas et al., 2019) shows two classifiers of images with an equation
# for a layer, and trains neither: as printed, their shapes do not close, since a solve returns its
# whole series. Here the layers return the state at the end, and both learn digits that are drawn
# here.
#
# 1. Dense(784 → 32, relu) makes the 32 *parameters* of an equation; its end goes to Dense(32 → 10).
# 2. Two convolutions with pooling make 6 · 6 · 8 = 288 numbers, which are the *initial state*, and
#    Dense(288 → 10) reads the end.
#
# The first equation is a ring of species, each fed at its own rate and eaten by the next; the
# second a ring of neurons with three rates, which are trained as well.

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
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from scipy import ndimage

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
BLUE, RED = "C0", "C1"

# %% [markdown]
# ## The data: digits, turned, moved, of many sizes, and noisy


# %%
def drawn(digit, size=56):
    """A digit in the middle of a picture: its outlines, filled, with the holes left out."""
    path = TextPath((0, 0), str(digit), size=size)
    box = path.get_extents()
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size)[::-1] + 0.5)
    middle = np.array([box.x0 + box.width / 2, box.y0 + box.height / 2]) - size / 2
    points = np.stack([x, y], -1).reshape(-1, 2) + middle
    outlines = [Outline(polygon).contains_points(points) for polygon in path.to_polygons()]
    return np.logical_xor.reduce(outlines).reshape(size, size).astype(float)


def digits(count, rng):
    """`count` pictures of 28 × 28 numbers, and which digits they are."""
    glyphs, labels = [drawn(d) for d in range(10)], rng.integers(0, 10, count)
    images = np.empty((count, 28, 28), np.float32)
    for i, label in enumerate(labels):
        angle, zoom = rng.normal(0.0, 0.2), 2.2 * np.exp(rng.normal(0.0, 0.12))
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset = 28.0 - turn @ (14.0 + rng.normal(0.0, 1.5, 2))
        images[i] = ndimage.affine_transform(glyphs[label], turn, offset, (28, 28), order=1)
    return np.clip(images + rng.normal(0.0, 0.25, images.shape), 0, 1).astype(np.float32), labels


rng = np.random.default_rng(0)
train, test = digits(128 if SHORT else 2000, rng), digits(64 if SHORT else 500, rng)

# %% [markdown]
# ## The two models


# %%
def ring(t, y, feed):
    """Species in a ring: fed, dying, and eaten by the next one."""
    return feed - y - y * jnp.roll(y, 1)


class Parameters(eqx.Module):
    first: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first = eqx.nn.Linear(784, 32, key=keys[0], dtype=jnp.float32)
        self.last = eqx.nn.Linear(32, 10, key=keys[1], dtype=jnp.float32)

    def __call__(self, image):
        feed = jax.nn.relu(self.first(image.ravel()))
        problem = de.ODEProblem(ring, jnp.ones(32, jnp.float32), (0.0, 1.0), feed)
        return self.last(de.solve(problem, de.Tsit5()).y1)


def neurons(rates, t, y, args):
    decay, gain, bias = rates
    return -decay * y + gain * jnp.tanh(jnp.roll(y, 1) + bias)


class State(eqx.Module):
    convolutions: list[eqx.nn.Conv2d]
    pool: eqx.nn.MaxPool2d
    layer: de.nn.Layer
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.convolutions = [
            eqx.nn.Conv2d(1, 16, 2, key=keys[0], dtype=jnp.float32),
            eqx.nn.Conv2d(16, 8, 2, key=keys[1], dtype=jnp.float32),
        ]
        self.pool = eqx.nn.MaxPool2d(2, 2)
        rates = jnp.array([0.5, 1.0, 0.1], jnp.float32)
        self.layer = de.nn.Layer(rates, tspan=(0.0, 1.0), field=neurons)
        self.last = eqx.nn.Linear(288, 10, key=keys[2], dtype=jnp.float32)

    def __call__(self, image):
        features = image[None]
        for convolution in self.convolutions:
            features = self.pool(jax.nn.relu(convolution(features)))
        return self.last(self.layer(features.ravel()).y1)


# %% [markdown]
# ## Training: Adam, batches of 64


# %%
def loss(model, batch):
    images, labels = batch
    scores = jax.vmap(model)(images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, labels))


def accuracy(model, data):
    guesses = np.asarray(jnp.argmax(jax.jit(jax.vmap(model))(data[0]), axis=1))
    return np.mean(guesses == data[1]), guesses


fits, rows = {}, []
for name, kind in (("parameters from Dense", Parameters), ("initial state from Conv", State)):
    began = time.perf_counter()
    fits[name] = de.fit(
        kind(jax.random.key(0)), loss, train, optimizer=optax.adam(3e-3),
        steps=60 if SHORT else 400, batch_size=64, key=jax.random.key(1),
    )  # fmt: skip
    right, guesses = accuracy(fits[name].model, test)
    rows.append((name, right, time.perf_counter() - began))

print("\n| what | published | ours | seconds |")
for name, right, seconds in rows:
    print(f"| digits not seen, right: {name} | not trained | {100 * right:.1f} % | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure = plt.figure(figsize=(10.5, 3.4))
left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1.0])
tiles = left.subplots(3, 8)
for tile, image, label, guess in zip(tiles.flat, *test, guesses, strict=False):
    tile.imshow(image, cmap="gray_r", vmin=0, vmax=1)
    tile.set_title(
        str(guess), loc="center", fontsize=9, color=BLUE if guess == label else RED, pad=2
    )
    tile.axis("off")
left.suptitle("digits not seen, with what the convolutions say", fontsize=11)
ax = right.subplots()
for (name, fit), colour in zip(fits.items(), (BLUE, RED), strict=True):
    width = min(25, len(fit.history) // 3)
    smooth = np.convolve(fit.history, np.ones(width) / width, "valid")
    ax.semilogy(fit.history, color=colour, linewidth=0.4, alpha=0.4)
    ax.semilogy(np.arange(len(smooth)) + width // 2, smooth, color=colour, label=name)
ax.set(xlabel="step", ylabel="cross-entropy of a batch", title="training")
ax.legend()
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "in_networks.png")
print(f"figure: {FIGURES.name}/in_networks.png")

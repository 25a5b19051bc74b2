# %% [markdown]
# # A path through sixteen points: a latent SDE
#
# The example of torchsde (`examples/latent_sde.py`, Li et al., 2020): an Ornstein–Uhlenbeck process
# is the prior of a path, a sine is seen at 16 irregular times, and a network (of 64 × 64)
# learns the drift of the posterior, which shares the noise of the prior. What is trained is a lower
# bound of log p(x), from 32 paths at each step; the divergence is integrated along with each path.
#
# With normal noise all of this is known: the prior is a Gaussian process, whose log p(x) is the
# most that the bound can reach, and whose posterior is what the paths should be draws of. The
# example of torchsde prints no number, and its noise is Laplace's, for which there is no formula.
# The figures beside ours are those of the formula.

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
PATHS, STEPS = (16, 30) if SHORT else (32, 2000)
SIGMA, NOISE = 0.5, 0.05

# %% [markdown]
# ## The data

# %%
ts = jnp.sort(jax.random.uniform(jax.random.key(0), (16,), minval=0.4, maxval=1.6))
xs = 0.8 * jnp.sin(2 * jnp.pi * ts)[:, None]

# %% [markdown]
# ## The model
#
# One series is learnt, so there is no encoder: the posterior sees the time, as sines and cosines of
# eight frequencies (torchsde's has sin t and cos t, which are too slow for the bends of the exact
# posterior at each point). It starts as a drift of zero.


# %%
WAVES = np.pi * np.arange(1, 9, dtype=np.float32)


class Posterior(eqx.Module):
    net: eqx.nn.MLP

    def __init__(self, key):
        net = eqx.nn.MLP(1 + 2 * len(WAVES), 1, 64, 2, jnp.tanh, key=key)
        last = lambda net: [net.layers[-1].weight, net.layers[-1].bias]
        self.net = eqx.tree_at(last, net, [jnp.zeros((1, 64)), jnp.zeros(1)])

    def __call__(self, t, z, context):
        return self.net(jnp.concatenate([jnp.sin(WAVES * t), jnp.cos(WAVES * t), z]))


model = de.nn.LatentSDE(
    1, 1, encoder=None, decoder=lambda z: z, noise=NOISE, tspan=(0.0, 2.0),
    prior=lambda t, z: -z,
    diffusion=lambda t, z: jnp.full_like(z, SIGMA),
    initial=([0.0], [SIGMA / np.sqrt(2.0)]),
    posterior=Posterior(jax.random.key(1)),
    dt=0.01, key=jax.random.key(2),
)  # fmt: skip
model = eqx.tree_at(lambda m: m.head, model, jnp.array([0.0, np.log(SIGMA / np.sqrt(2.0))]))


def bounds(model, key, paths=PATHS):
    return jax.vmap(lambda key: model.elbo(ts, xs, key=key))(jax.random.split(key, paths))


def loss(model, key):
    return -jnp.mean(bounds(model, key).value)


began = time.perf_counter()
fit = de.fit(
    model, loss, key=jax.random.key(3), steps=STEPS, progress=False,
    optimizer=optax.adam(optax.exponential_decay(0.01, 1, 0.9985)),
)  # fmt: skip
seconds = time.perf_counter() - began

# %% [markdown]
# ## What is known


# %%
def covariance(a, b):
    return SIGMA**2 / 2 * np.exp(-np.abs(np.subtract.outer(a, b)))


def regression(at):
    """Mean and deviation of the posterior of the path at times, and log p(x)."""
    seen, x = np.asarray(ts, float), np.asarray(xs, float)[:, 0]
    of_data = covariance(seen, seen) + NOISE**2 * np.eye(len(seen))
    across = covariance(at, seen)
    mean = across @ np.linalg.solve(of_data, x)
    variance = SIGMA**2 / 2 - np.sum(across * np.linalg.solve(of_data, across.T).T, axis=1)
    evidence = -(x @ np.linalg.solve(of_data, x) + np.linalg.slogdet(2 * np.pi * of_data)[1]) / 2
    return mean, np.sqrt(variance), evidence


fine = np.linspace(0.0, 2.0, 201)
mean, deviation, evidence = regression(fine)
final = bounds(fit.model, jax.random.key(4), 2000)
paths = jax.vmap(lambda key: fit.model.predict(fine, ts, xs, key=key)[:, 0])(
    jax.random.split(jax.random.key(5), 2000)
)
prior = jax.vmap(lambda key: fit.model.sample(key, fine)[:, 0])(
    jax.random.split(jax.random.key(6), 500)
)
found = np.asarray(paths.mean(axis=0)), np.asarray(paths.std(axis=0))
print("| what | formula | ours | seconds |")
print(f"| lower bound of log p(x) | ≤ {evidence:.2f} | {float(final.value.mean()):.2f} "
      f"| {seconds:.0f} |")  # fmt: skip
print(f"| largest error of the posterior mean | 0 | {np.abs(found[0] - mean).max():.3f} | |")
print(f"| largest error of its deviation, {deviation.max():.2f} at most | 0 "
      f"| {np.abs(found[1] - deviation).max():.3f} | |")  # fmt: skip

# %% [markdown]
# ## The figure

# %%
BLUE, RED = "C0", "C1"
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.2))
for ax, sample, title in ((axes[0], prior, "prior"), (axes[1], paths, "posterior")):
    for level in (0.02, 0.1, 0.25):
        low, high = np.quantile(np.asarray(sample), [level, 1 - level], axis=0)
        ax.fill_between(fine, low, high, color=BLUE, alpha=0.18, linewidth=0)
    ax.plot(fine, np.asarray(sample[:3]).T, color=BLUE, linewidth=0.7, alpha=0.8)
    ax.plot(ts, xs[:, 0], "x", color="0.15", markersize=5)
    ax.set(xlabel="t", title=f"{title}: 50, 80, 96 % and three paths", ylim=(-1.4, 1.4))
axes[1].plot(fine, mean, "--", color=RED, linewidth=1.1, label="exact mean ± 2 σ")
for sign in (-2, 2):
    axes[1].plot(fine, mean + sign * deviation, "--", color=RED, linewidth=0.7)
axes[1].legend(loc="lower left")
axes[2].plot(-np.asarray(fit.history), color=BLUE, linewidth=0.8, label="bound")
axes[2].axhline(evidence, color=RED, linestyle="--", linewidth=1.0, label="log p(x)")
axes[2].set(xlabel="step", title="the bound and its limit", ylim=(-60, evidence + 8))
axes[2].legend(loc="lower right")
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "latent_sde.png")
print(f"\nfigure: {FIGURES.name}/latent_sde.png")

# %% [markdown]
# # Forecasts between sporadic observations: a GRU-ODE
#
# The toy of De Brouwer et al. (2019, section 5.1): two Ornstein–Uhlenbeck processes with correlated
# noise, of which now and then one or the other is seen. A GRU-ODE follows its state between
# observations and updates it at each of them, at the series' own times.
#
# The process is linear and its noise normal, so the best forecast is known: Kalman's filter. What
# is compared is the mean of −log p of each number, given the rows before its own. The paper shows a
# figure of this toy, and no number.

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
SERIES, STEPS = (48, 40) if SHORT else (2000, 1500)
ROWS, END = 20, 10.0

# %% [markdown]
# ## The data
#
# dx = −(x − level) dt + L dW. At each of 20 uniform times one of the two is seen, or both. Over any
# time x moves by a known normal, so series are drawn without an error.

# %%
LEVEL, RHO, SIGMA, NOISE = np.array([1.0, -1.0]), 0.9, 1.0, 0.05
STATIONARY = SIGMA**2 / 2 * np.array([[1.0, RHO], [RHO, 1.0]])


def move(mean, covariance, dt):
    """The normal of x after a time dt, from that before it."""
    decay = np.exp(-dt)
    return LEVEL + decay * (mean - LEVEL), decay**2 * covariance + (1 - decay**2) * STATIONARY


def draw(rng):
    """One series: times, values, and what is seen."""
    ts = np.sort(rng.uniform(0.0, END, ROWS))
    x, t, xs = rng.multivariate_normal(LEVEL, STATIONARY), 0.0, []
    for time_now in ts:
        x, t = rng.multivariate_normal(*move(x, 0 * STATIONARY, time_now - t)), time_now
        xs.append(x + NOISE * rng.normal(size=2))
    kind = rng.integers(3, size=ROWS)
    return ts, np.array(xs), np.stack([kind != 1, kind != 2], axis=1)


def kalman(ts, xs, mask, at=()):
    """Σ −log p of each number given the rows before it, and mean and deviation at times `at`."""
    mean, covariance, t, total, forecasts = LEVEL, STATIONARY, 0.0, 0.0, []
    order = sorted([(s, 0, i) for i, s in enumerate(ts)] + [(s, 1, i) for i, s in enumerate(at)])
    for s, kind, i in order:
        mean, covariance = move(mean, covariance, s - t)
        t = s
        if kind == 1:
            forecasts.append((mean, np.sqrt(np.diag(covariance))))
            continue
        rows = np.eye(2)[mask[i]]
        innovation = rows @ covariance @ rows.T + NOISE**2 * np.eye(len(rows))
        error = rows @ (xs[i] - mean)
        variance = np.diag(innovation)
        total += np.sum(error**2 / variance + np.log(2 * np.pi * variance)) / 2
        gain = covariance @ rows.T @ np.linalg.inv(innovation)
        mean, covariance = mean + gain @ error, covariance - gain @ rows @ covariance
    return total, forecasts


def batch(seed, count):
    rng = np.random.default_rng(seed)
    return tuple(map(np.stack, zip(*(draw(rng) for _ in range(count)), strict=True)))


ts, xs, mask = batch(0, SERIES)
data = (np.float32(ts), np.float32(xs), mask)
unseen = batch(1, 40 if SHORT else 500)
count = unseen[2].sum()
known = sum(kalman(*one)[0] for one in zip(*unseen, strict=True)) / count

# %% [markdown]
# ## Training

# %%
model = de.nn.GRUODE(
    2, 24, width=32, mixing=1e-3, noise=NOISE, t0=0.0, key=jax.random.key(0),
    method=de.Tsit5(), rtol=1e-2, atol=1e-2,
)  # fmt: skip
began = time.perf_counter()
fit = de.fit(
    model, de.nn.GRUODE.loss, data, batch_size=min(100, SERIES), key=jax.random.key(1),
    optimizer=optax.chain(
        optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(0.01, STEPS))
    ),
    steps=STEPS, progress=False,
)  # fmt: skip
seconds = time.perf_counter() - began


@eqx.filter_jit
def mean_surprise(model, ts, xs, mask):
    """The mean of −log p of each number given the rows before it."""
    return -jnp.sum(jax.vmap(model.log_likelihood)(ts, xs, mask)) / jnp.sum(mask)


wanted = (np.float32(unseen[0]), np.float32(unseen[1]), unseen[2])
alone = np.log(2 * np.pi * (SIGMA**2 / 2 + NOISE**2)) / 2 + 1 / 2
print("| what | Kalman's filter | ours | seconds |")
print(f"| −log p of a number, {len(unseen[0])} new series | {known:.3f} "
      f"| {float(mean_surprise(fit.model, *wanted)):.3f} | {seconds:.0f} |")  # fmt: skip
print(f"| the same without any memory | {alone:.3f} | | |")

# %% [markdown]
# ## The figure

# %%
BLUE, RED = "C0", "C1"
de.plot.style()
one = tuple(part[2] for part in unseen)
fine = np.linspace(0.0, END, 400)
found = fit.model.predict(jnp.asarray(fine, jnp.float32), *(part[2] for part in wanted))
best = kalman(*one, at=fine)[1]
means, deviations = np.array([m for m, _ in best]), np.array([s for _, s in best])
figure, axes = plt.subplots(1, 3, figsize=(12.0, 3.2), width_ratios=[2, 2, 1.2])
for k, colour in enumerate((BLUE, RED)):
    ax, mean, std = axes[k], np.asarray(found.mean[:, k]), np.asarray(found.std[:, k])
    ax.fill_between(fine, mean - 2 * std, mean + 2 * std, color=colour, alpha=0.2, linewidth=0)
    ax.plot(fine, mean, color=colour, linewidth=1.3, label="GRU-ODE ± 2 σ")
    for sign in (-2, 0, 2):
        label = "Kalman's filter" if sign == 0 else None
        ax.plot(fine, means[:, k] + sign * deviations[:, k], "--", color="0.25", linewidth=0.8,
                label=label)  # fmt: skip
    seen = one[2][:, k]
    ax.plot(one[0][seen], one[1][seen, k], "o", color="0.15", markersize=4)
    ax.vlines(one[0][~seen], *ax.get_ylim(), color="0.8", linewidth=0.6, zorder=0)
    ax.set(xlabel="t", title=f"$x_{k + 1}$ (lines: the other one is seen)")
    ax.legend()
smooth = np.convolve(fit.history, np.ones(20) / 20, "valid") / mask.sum() * len(mask)
axes[2].plot(smooth, color=BLUE, linewidth=1.0)
axes[2].axhline(known, color="0.25", linestyle="--", linewidth=0.8)
axes[2].set(xlabel="step", title="−log p of a number", ylim=(known - 0.1, alone + 0.3))
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "gru_ode.png")
print(f"\nfigure: {FIGURES.name}/gru_ode.png")

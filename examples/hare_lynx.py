# %% [markdown]
# # The hare and the lynx: a network inside the Lotka–Volterra equations
#
# From 1900 to 1920 the Hudson's Bay Company counted the pelts of the snowshoe hare and of its
# predator, the Canada lynx: two cycles of ten years. Lotka and Volterra explain them with four rates:
#
#     hare' = a · hare − b · hare · lynx        lynx' = −c · lynx + d · hare · lynx
#
# That the two meet in proportion to both is an assumption. Here a small network replaces it: both
# interaction terms are multiplied by the exponential of what the network says of the state, so they
# stay positive, vanish with either species, and are those of Lotka and Volterra where the network
# is zero. Both models are fitted to the first cycle, 1900–1910, and asked for the second one.
#
# How much the network may bend the equation is one number, chosen by leaving out three years at a
# time; the forecast is the mean of the networks so trained, and their spread says how sure it is.
# The years after 1910 choose nothing. For comparison everything is repeated with three years more
# of data, 1900–1913, and the result is printed, whatever it is.

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
START = time.perf_counter()

# %% [markdown]
# ## The data
#
# Populations are positive and errors of counts are relative, so states and losses are logarithms.
# Years that a model may not see are NaN: `de.mse` leaves them out.

# %%
series = de.datasets.hare_lynx()
pelts = np.stack([series.hare, series.lynx], axis=1)
logs = jnp.asarray(np.log(pelts), jnp.float32)
ts = jnp.asarray(series.years - 1900.0, jnp.float32)

ENDS = (1910, 1913)  # the last year that a model sees
seen = {end: jnp.where(ts[:, None] <= end - 1900, logs, jnp.nan) for end in ENDS}
WINDOWS = {end: np.arange(1, end - 1901)[:, None] + np.arange(3) for end in ENDS}  # 1901–1903, …
CENTRE, SPREAD = jnp.nanmean(seen[1910], axis=0), jnp.nanstd(seen[1910], axis=0)

# %% [markdown]
# ## The two models, in one class


# %%
class Populations(eqx.Module):
    """Lotka–Volterra in logarithms, with a network in its interactions if there is one."""

    log_rates: jax.Array
    log_y0: jax.Array
    net: eqx.nn.MLP | None = None

    def bend(self, y):
        """The logarithms by which the two interaction terms differ from Lotka and Volterra's."""
        return jnp.zeros(2) if self.net is None else self.net((y - CENTRE) / SPREAD)

    def __call__(self, ts):
        problem = de.ODEProblem(log_field, self.log_y0, (0.0, 20.0), self)
        return de.solve(problem, saveat=ts, rtol=1e-5, atol=1e-6).ys


def log_field(t, y, model):
    a, b, c, d = jnp.exp(model.log_rates)
    hare, lynx = y
    eaten, fed = model.bend(y)
    return jnp.array([a - b * jnp.exp(lynx + eaten), -c + d * jnp.exp(hare + fed)])


def misfit(model, data):
    return de.mse(model(ts), data)


# %% [markdown]
# ## Lotka–Volterra at its best
#
# Many starts, fitted side by side under one `jax.vmap`; the best of them for each set of data. All
# starts that do not get lost agree to three digits, so this is its best fit.


# %%
def starts(count, rng):
    """Rates that cycle in seven to fourteen years, with equilibria near the means of the data."""
    means = np.exp(np.asarray(CENTRE)) * np.exp(rng.normal(0.0, 0.3, (count, 2)))
    a = np.exp(rng.uniform(np.log(0.2), np.log(1.5), count))
    c = (2 * np.pi / rng.uniform(7, 14, count)) ** 2 / a
    rates = np.log(np.stack([a, a / means[:, 1], c, c / means[:, 0]], axis=1))
    y0 = np.asarray(logs[0]) + rng.normal(0.0, 0.1, (count, 2))
    return Populations(jnp.asarray(rates, jnp.float32), jnp.asarray(y0, jnp.float32))


@jax.jit
@jax.vmap
def each_misfit(model, data):
    return misfit(model, data)


def side_by_side(models, data):
    """The sum of independent losses: one fit trains them all. A solve that fails counts nothing."""
    losses = each_misfit(models, data)
    return jnp.sum(jnp.where(jnp.isfinite(losses), losses, 0.0))


COUNT = 4 if SHORT else 16
both = jnp.concatenate([jnp.broadcast_to(seen[end], (COUNT, *logs.shape)) for end in ENDS])
many = starts(COUNT, np.random.default_rng(0))
many = jax.tree.map(lambda x: jnp.concatenate([x, x]), many)
steps = 40 if SHORT else 400
adam = optax.adam(optax.cosine_decay_schedule(0.04, steps))
lotka = de.fit(many, lambda models: side_by_side(models, both), optimizer=adam, steps=steps)
reached = np.asarray(each_misfit(lotka.model, both)).reshape(len(ENDS), COUNT)
plain = {}
for row, end in enumerate(ENDS):
    index = row * COUNT + int(np.nanargmin(reached[row]))
    plain[end] = jax.tree.map(lambda x, i=index: x[i], lotka.model)

# %% [markdown]
# ## The network
#
# One hidden layer of eight; its last layer starts at zero, so training starts at the best
# Lotka–Volterra fit. The penalty is the mean square of what the network says over the range of the
# data, times a weight. All weights and all windows that are left out are one training, too.

# %%
WEIGHTS = jnp.array([10.0, 3.0, 1.0, 0.3, 0.1, 0.03])[: 2 if SHORT else None]
axis = jnp.linspace(-2.0, 2.0, 7)
RANGE = CENTRE + SPREAD * jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def with_network(model, seed=0):
    net = eqx.nn.MLP(2, 2, 8, 1, jnp.tanh, key=jax.random.key(seed), dtype=jnp.float32)
    last = net.layers[-1]
    silent = jax.tree.map(jnp.zeros_like, (last.weight, last.bias))
    net = eqx.tree_at(lambda n: (n.layers[-1].weight, n.layers[-1].bias), net, silent)
    return Populations(model.log_rates, model.log_y0, net)


cases = [
    (with_network(plain[end]), seen[end].at[window].set(jnp.nan), weight)
    for end in ENDS
    for weight in WEIGHTS
    for window in WINDOWS[end]
]
models, case_data, case_weights = zip(*cases, strict=True)
arrays, others = zip(*(eqx.partition(model, eqx.is_array) for model in models), strict=True)
stacked = jax.tree.map(lambda *x: jnp.stack(x), *arrays)
case_data, case_weights = jnp.stack(case_data), jnp.stack(case_weights)


def penalised(arrays, data, weight):
    model = eqx.combine(arrays, others[0])
    return misfit(model, data) + weight * jnp.mean(jax.vmap(model.bend)(RANGE) ** 2)


def all_cases(stacked):
    return jnp.sum(jax.vmap(penalised)(stacked, case_data, case_weights))


steps = 20 if SHORT else 500
adam = optax.adam(optax.cosine_decay_schedule(0.02, steps))
hybrid = de.fit(stacked, all_cases, optimizer=adam, steps=steps)
print(f"summed loss of {len(cases)} networks: {hybrid.history[0]:.3f} → {hybrid.loss:.3f}")

# %% [markdown]
# The weight is the one that predicts best what was left out.

# %%
fine = jnp.linspace(0.0, 20.0, 401, dtype=jnp.float32)
every20 = slice(None, None, 20)  # the years among the fine times


@jax.jit
@jax.vmap
def paths(arrays):
    return eqx.combine(arrays, others[0])(fine)


bent, first = {}, 0
print("\nweight of the penalty          ", *(f"{w:7.3g}" for w in WEIGHTS))
for end in ENDS:
    count = len(WINDOWS[end])
    shape = (len(WEIGHTS), count)
    group = jax.tree.map(lambda x, i=first, n=shape: x[i : i + n[0] * n[1]], hybrid.model)
    first += shape[0] * shape[1]
    predicted = np.asarray(paths(group)).reshape(*shape, *fine.shape, 2)
    rows = np.arange(count)[:, None]
    unseen = predicted[:, :, every20][:, rows, WINDOWS[end]] - np.asarray(logs)[WINDOWS[end]]
    scores = np.sqrt(np.mean(unseen**2, axis=(1, 2, 3)))
    best = int(np.argmin(scores))
    print(
        f"error in left-out years, –{end} ",
        *(f"{e:7.3f}" for e in scores),
        f"  → {WEIGHTS[best]:.3g}",
    )
    networks = jax.tree.map(lambda x, b=best, n=count: x[b * n : (b + 1) * n], group)
    bent[end] = predicted[best], networks

# %% [markdown]
# ## The forecast


# %%
def errors(y, end):
    """Root mean square errors, of logarithms and of thousands of pelts, before and after `end`."""
    known = series.years <= end
    rms = lambda e: float(np.sqrt(np.mean(e**2)))
    log_error, error = y - np.asarray(logs), np.exp(y) - pelts
    return rms(log_error[known]), rms(log_error[~known]), rms(error[~known])


print("\nroot mean square error           fit, logarithms   forecast, logarithms   forecast, pelts")
for end in ENDS:
    mean = bent[end][0].mean(axis=0)[every20]
    for name, y in (("Lotka–Volterra", np.asarray(plain[end](ts))), ("with networks", mean)):
        fitted, ahead, ahead_pelts = errors(y, end)
        print(f"1900–{end}, {name:16s} {fitted:16.3f} {ahead:19.3f} {ahead_pelts:15.1f} thousand")
print(f"\nseconds: {time.perf_counter() - START:.0f}, compilation included")

# %% [markdown]
# ## The figure

# %%
BLUE, RED, GREY = "#3b6ea5", "#c8553d", "0.45"
END = 1910
bundle, networks = bent[END]
curves = {"lv": np.exp(plain[END](fine)), "net": np.exp(bundle.mean(axis=0))}
grid = {"height_ratios": [1, 1], "width_ratios": [1.9, 1.15, 1.15]}
figure, axes = plt.subplot_mosaic(
    [["hare", "phase", "law"], ["lynx", "phase", "law"]],
    figsize=(12.0, 4.0), gridspec_kw=grid, layout="constrained",
)  # fmt: skip
known = series.years <= END
for i, name in enumerate(("hare", "lynx")):
    ax = axes[name]
    ax.axvspan(END + 0.5, 1920.5, color="0.95", zorder=0)
    ax.plot(
        1900 + fine, curves["lv"][:, i], "--", color=GREY, linewidth=1.3, label="Lotka–Volterra"
    )
    ax.plot(1900 + fine, np.exp(bundle[:, :, i]).T, color=RED, linewidth=0.5, alpha=0.35)
    ax.plot(1900 + fine, curves["net"][:, i], color=RED, linewidth=1.8, label="with networks")
    ax.plot(series.years[known], pelts[known, i], "o", color="0.1", markersize=4.5, label="data")
    ax.plot(
        series.years[~known], pelts[~known, i], "o", color="0.1", markersize=4.5, markerfacecolor="white",
        label="data, not seen",
    )  # fmt: skip
    ax.set(ylabel=f"{name}, thousands", xlim=(1899.5, 1920.5), ylim=(0, None))
axes["hare"].tick_params(labelbottom=False)
axes["hare"].set_title("fitted to 1900–1910, forecast to 1920")
axes["lynx"].set(xlabel="year", xticks=range(1900, 1921, 5))
axes["lynx"].legend(frameon=False, fontsize=8, ncols=2, loc="upper center")

ax = axes["phase"]
ax.plot(*curves["lv"].T, "--", color=GREY, linewidth=1.3)
ax.plot(*curves["net"].T, color=RED, linewidth=1.8)
ax.plot(*pelts[known].T, "o", color="0.1", markersize=4.5)
ax.plot(*pelts[~known].T, "o", color="0.1", markersize=4.5, markerfacecolor="white")
ax.set(xscale="log", yscale="log", xlabel="hare, thousands", ylabel="lynx, thousands")
ax.set_title("phase plane")
for which in (ax.xaxis, ax.yaxis):
    which.set_major_locator(plt.FixedLocator([5, 10, 20, 50, 100]))
    which.set_major_formatter("{x:g}")
    which.set_minor_locator(plt.NullLocator())

ax = axes["law"]
hares = jnp.linspace(pelts[known, 0].min(), pelts[known, 0].max(), 100, dtype=jnp.float32)


@jax.vmap
def caught(arrays, lynx):
    """Hares (in thousands) that a thousand lynxes catch in a year."""
    model = eqx.combine(arrays, others[0])
    states = jnp.log(jnp.stack([hares, jnp.full_like(hares, lynx)], axis=1))
    return jnp.exp(model.log_rates[1]) * hares * jnp.exp(jax.vmap(model.bend)(states)[:, 0])


for lynx, shade in ((8.0, 0.4), (20.0, 0.7), (50.0, 1.0)):
    mean = np.exp(np.log(caught(networks, jnp.full(len(bundle), lynx))).mean(axis=0))
    ax.plot(hares, mean, color=RED, alpha=shade, linewidth=1.8, label=f"{lynx:.0f} thousand lynxes")
straight = np.exp(plain[END].log_rates[1]) * hares
ax.plot(hares, straight, "--", color=GREY, linewidth=1.3, label="Lotka–Volterra: any number")
ax.set(xlabel="hare, thousands", ylabel="hares caught for one lynx, a year", ylim=(0, None))
ax.set_title("the law that was learnt")
ax.legend(frameon=False, fontsize=8, loc="upper left")
for ax in axes.values():
    ax.spines[["top", "right"]].set_visible(False)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "hare_lynx.png", dpi=160)
print(f"figure: {FIGURES.name}/hare_lynx.png")

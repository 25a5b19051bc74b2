# %% [markdown]
# # Growth of the world's product
#
# u' = α u^β for the gross domestic product of the world, 1960–2018, in dollars of 2010 (World Bank,
# as in the tests of DiffEqFlux). The parameters and the first value are trained on the sum of
# squared *relative* errors. DiffEqFlux's test starts at (474.85…, 0.70364…), which had been found
# before, takes 100 steps of Adam(0.01), and asks for a loss below 0.2.
#
# Its numbers are of very different size: a step of 0.01 moves neither α nor a value of 1e13
# dollars. With bounds at zero, `de.fit` works on their logarithms, and the fit that is reached from
# a poor start is far better.

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
BLUE, RED, GREY = "C0", "C1", "0.45"
jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The data, in dollars

# %%
GDP = np.array([
    11394358246872.6, 11886411296037.9, 12547852149499.6, 13201781525927.0, 14081902622923.3,
    14866223429278.3, 15728198883149.2, 16421593575529.9, 17437921118338.0, 18504710349537.1,
    19191754995907.1, 20025063402734.2, 21171619915190.4, 22549236163304.4, 22999815176366.2,
    23138798276196.2, 24359046058098.6, 25317009721600.9, 26301669369287.8, 27386035164588.8,
    27907493159394.4, 28445139283067.1, 28565588996657.6, 29255060755937.6, 30574152048605.8,
    31710451102539.4, 32786657119472.8, 34001004119223.5, 35570841010027.7, 36878317437617.5,
    37952345258555.4, 38490918890678.7, 39171116855465.5, 39772082901255.8, 40969517920094.4,
    42210614326789.4, 43638265675924.6, 45254805649669.6, 46411399944618.2, 47929948653387.3,
    50036361141742.2, 51009550274808.6, 52127765360545.5, 53644090247696.9, 55995239099025.6,
    58161311618934.2, 60681422072544.7, 63240595965946.1, 64413060738139.7, 63326658023605.9,
    66036918504601.7, 68100669928597.9, 69811348331640.1, 71662400667935.7, 73698404958519.1,
    75802901433146.0, 77752106717302.4, 80209237761564.8, 82643194654568.3,
])  # fmt: skip
years = np.arange(1960, 2019)
ts = jnp.arange(1.0, 60.0)

# %% [markdown]
# ## As published


# %%
def growth(t, u, model):
    return model["alpha"] * u ** model["beta"]


problem = de.ODEProblem(growth, lambda model: model["first"], (1.0, 59.0))


def relative(model):
    ys = de.solve(problem.replace(args=model), de.Tsit5(), saveat=ts, rtol=1e-6, atol=1e-6).ys
    return jnp.sum((ys / GDP - 1.0) ** 2)


given = {"alpha": 474.8501513113645, "beta": 0.7036417845990167, "first": float(GDP[0])}
began = time.perf_counter()
published = de.fit(given, relative, optimizer=optax.adam(0.01), steps=20 if SHORT else 100)
seconds = [time.perf_counter() - began]

# %% [markdown]
# ## On logarithms, in trillions, from a poor start

# %%
poor = {"alpha": 0.1, "beta": 0.5, "first": 8.0}


def in_trillions(model):
    ys = de.solve(problem.replace(args=model), de.Vern7(), saveat=ts, rtol=1e-7, atol=1e-7).ys
    return jnp.sum((ys / (GDP * 1e-12) - 1.0) ** 2)


began = time.perf_counter()
counts = (30, 8) if SHORT else (150, 60)
phases = [(optax.adam(0.05), counts[0]), (optax.lbfgs(), counts[1])]
better = de.fit(poor, in_trillions, optimizer=phases[: 1 if SHORT else 2], bounds=(0.0, None))
seconds.append(time.perf_counter() - began)
print("\n| what | published | ours | seconds |")
print(f"| Σ of squared relative errors, so | < 0.2 | {published.loss:.4f} | {seconds[0]:.1f} |")
print(f"| on logarithms, from a poor start | — | {better.loss:.4f} | {seconds[1]:.1f} |")
print({name: round(float(value), 4) for name, value in better.model.items()})

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.3))
one = de.solve(problem.replace(args=published.model), saveat=ts).ys * 1e-12
two = de.solve(problem.replace(args=better.model), saveat=ts).ys
start = de.solve(problem.replace(args=poor), saveat=ts).ys
axes[0].plot(
    years, GDP * 1e-12, "o", color="0.1", markersize=3, markerfacecolor="white", label="data"
)
axes[0].plot(years, start, ":", color=GREY, label="poor start")
axes[0].plot(years, one, "--", color=BLUE, label="as published")
axes[0].plot(years, two, color=RED, label="on logarithms")
axes[0].set(xlabel="year", ylabel="10¹² dollars of 2010", title="product of the world")
axes[0].legend()
axes[1].axhline(0.0, color="0.6", linewidth=0.8)
axes[1].plot(years, 100 * (one / (GDP * 1e-12) - 1), "--", color=BLUE)
axes[1].plot(years, 100 * (two / (GDP * 1e-12) - 1), color=RED)
axes[1].set(xlabel="year", ylabel="error, %", title="relative error")
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "gdp.png")
print(f"figure: {FIGURES.name}/gdp.png")

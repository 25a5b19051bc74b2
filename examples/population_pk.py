# %% [markdown]
# # Ten thousand patients take a pill every twelve hours
#
# One compartment with absorption: a dose goes into the gut, from there into the blood at the rate
# k_a, and leaves it with the clearance CL from the volume V:
#
#     g' = −k_a g,    c' = (k_a g − CL c) / V.
#
# k_a, CL and V differ from patient to patient (log-normal, 30 %). The typical ones are those of
# theophylline: 1.5 per hour, 2.8 litres per hour, 32 litres (after Boeckmann, Sheiner and Beal,
# NONMEM users guide, 1994). What dose keeps nearly everybody between 5 and 20 mg per litre?

# %%
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import diffeq as de

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
PATIENTS, EVERY, DOSES, DOSE, SPREAD = (200 if SHORT else 10_000), 12.0, 10, 400.0, 0.3
TYPICAL = {"absorption": 1.5, "clearance": 2.8, "volume": 32.0}
END = EVERY * DOSES

# %% [markdown]
# ## One patient, and all of them
#
# The doses are events at known times. `draw(key)` makes a patient: `solve_ensemble` calls it for
# each trajectory, where it is solved, with a key of its own. The last state is the area under c.


# %%
def kinetics(t, y, patient):
    into_blood = patient["absorption"] * y["gut"]
    loss = patient["clearance"] * y["blood"]
    return {
        "gut": -into_blood,
        "blood": (into_blood - loss) / patient["volume"],
        "area": y["blood"],
    }


def draw(key):
    normal = jax.random.normal(key, (3,), jnp.float64)
    patient = {
        name: x * jnp.exp(SPREAD * z) for (name, x), z in zip(TYPICAL.items(), normal, strict=True)
    }
    return {"args": patient}


doses = de.doses(EVERY * jnp.arange(DOSES), DOSE, into="gut")
y0 = {"gut": 0.0, "blood": 0.0, "area": 0.0}
problem = de.ODEProblem(kinetics, y0, (0.0, END), TYPICAL)
ts = jnp.linspace(0.0, END, 241)
began = time.perf_counter()
sol = de.solve_ensemble(
    problem, n=PATIENTS, draw=draw, key=jax.random.key(0), saveat=ts, events=[doses],
    rtol=1e-6, atol=1e-8,
)  # fmt: skip
seconds = time.perf_counter() - began
assert sol.failed.count == 0

# %% [markdown]
# ## Bands, and a formula
#
# In the long run a patient's mean concentration is dose / (CL · 12 h), whatever k_a and V are. Over
# patients it is log-normal: its mean is dose e^{ω²/2} / (CL · 12 h), with ω = 0.3.

# %%
blood, area = sol.ys["blood"], sol.ys["area"]
bands = de.stats.Quantile([0.05, 0.25, 0.5, 0.75, 0.95])
everybody = jnp.ones(PATIENTS, bool)
low, lower, middle, upper, high = bands.result(
    bands.update(bands.init(blood[0]), blood, everybody)
)  # fmt: skip
last = jnp.searchsorted(ts, END - EVERY)
means = (area[:, -1] - area[:, last]) / (ts[-1] - ts[last])
formula = DOSE / (TYPICAL["clearance"] * EVERY)
expected = formula * jnp.exp(SPREAD**2 / 2)
error = jnp.std(means) / jnp.sqrt(PATIENTS)
inside = jnp.mean((means > 5.0) & (means < 20.0))
print("\n| what | published | ours | seconds |")
print(f"| mean concentration of {PATIENTS} patients | {expected:.3f} (formula) "
      f"| {means.mean():.3f} ± {error:.3f} | {seconds:.1f} |")  # fmt: skip
print(f"| patients whose mean is between 5 and 20 mg/l | — | {inside:.0%} | |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 2, figsize=(10.0, 3.6),
                            gridspec_kw={"width_ratios": [1.7, 1]})  # fmt: skip
axes[0].fill_between(ts, low, high, color="C0", alpha=0.2, linewidth=0, label="5–95 %")
axes[0].fill_between(ts, lower, upper, color="C0", alpha=0.35, linewidth=0, label="25–75 %")
axes[0].plot(ts, blood[:12].T, color="0.45", linewidth=0.4)
axes[0].plot(ts, middle, color="0.1", label="median")
axes[0].axhspan(5.0, 20.0, color="C2", alpha=0.12, linewidth=0)
axes[0].set(title="concentration (grey: twelve patients)", xlabel="hours", ylabel="mg per litre",
            xlim=(0, END), ylim=(0, None))  # fmt: skip
axes[0].legend(loc="upper left")
clearance = jax.vmap(lambda i: draw(jax.random.fold_in(jax.random.key(0), i))["args"]["clearance"])
own = clearance(jnp.arange(PATIENTS))[:1500]
axes[1].plot(own, means[:1500], ".", color="C0", markersize=2)
curve = jnp.linspace(own.min(), own.max(), 100)
axes[1].plot(curve, DOSE / (curve * EVERY), color="C1", linewidth=1.2, label="dose / (CL · 12 h)")
axes[1].set(
    title="mean over the last 12 hours", xlabel="clearance, litres per hour", ylabel="mg per litre"
)
axes[1].legend()
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "population_pk.png")
print(f"figure: {FIGURES.name}/population_pk.png")

# %% [markdown]
# # A bouncing ball, fitted
#
# A ball falls from 50 m and keeps a fraction e of its speed at each impact. Which e puts it at 20 m
# after 15 s? This is an example of the documentation of SciMLSensitivity.jl, which starts at 0.8
# and prints e = 0.866554105436901 as the optimum.
#
# That is a stationary point: there the height is 19.3679 m and no higher one is near. The height of
# 20 m is reached at e = 0.98801, which any good start finds. Both need the derivative of a solve
# through the times of its events; the stationary point, to twelve digits, needs the second one.

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

jax.config.update("jax_enable_x64", True)
SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
PUBLISHED = 0.866554105436901

# %% [markdown]
# ## The problem
#
# The condition is the height; where it crosses zero the velocity turns round.

# %%
GRAVITY, START, TARGET, END = 9.8, 50.0, 20.0, 15.0

fall = de.ODEProblem(
    lambda t, y, e: jnp.stack([y[1], jnp.full_like(y[1], -GRAVITY)]), [START, 0.0], (0.0, END), 0.8
)
bounce = de.Event(lambda t, y, e: y[0], lambda t, y, e: jnp.stack([y[0], -e * y[1]]), direction=-1)


def solve(e, **options):
    limits = {"max_events": 64, "max_steps": 256}
    return de.solve(fall.replace(args=e), de.Tsit5(), events=bounce, **limits, **options)


def height(e):
    return solve(e).y1[0]


height_and_slope = jax.jit(jax.value_and_grad(height))
curvature = jax.jit(jax.jacfwd(jax.grad(height)))


# %% [markdown]
# ## From 0.8 to the stationary point
#
# Adam goes uphill until the height does not grow any more; Newton steps on dh/de = 0 finish.

# %%
began = time.perf_counter()
fit = de.fit(
    0.8, lambda e: (height(e) - TARGET) ** 2, optimizer=optax.adam(0.01),
    steps=25 if SHORT else 60, progress=False,
)  # fmt: skip
stationary = jnp.asarray(fit.model)
for _ in range(4):
    stationary = stationary - height_and_slope(stationary)[1] / curvature(stationary)
top, flat = height_and_slope(stationary)
seconds = time.perf_counter() - began

print(f"loss from 0.8: {fit.history[0]:.4g} → {fit.loss:.4g}, in {len(fit.history) - 1} steps")
print("| what | published | ours | seconds |")
print(f"| stationary point | {PUBLISHED:.15f} | {float(stationary):.15f} | {seconds:.1f} |")
print(f"there the height is {float(top):.4f} m, and dh/de {float(flat):.1e}")

# %% [markdown]
# ## The root, from several starts
#
# Newton's method on h(e) = 20, with the step halved until it brings the height nearer.

# %%


def root(e, steps=30):
    now, slope = height_and_slope(e)
    for _ in range(steps):
        step = (now - TARGET) / slope
        then, slope = height_and_slope(e - step)
        while abs(then - TARGET) > abs(now - TARGET) and abs(step) > 1e-14:
            step = step / 2
            then, slope = height_and_slope(e - step)
        e, now = e - step, then
    return e


began = time.perf_counter()
starts = (0.975, 0.985, 0.99, 0.995)
roots = [float(root(jnp.asarray(e), 4 if SHORT else 30)) for e in starts]
seconds = time.perf_counter() - began
print(
    f"| root of h = 20, from {', '.join(map(str, starts))} | 0.98801 | "
    + ", ".join(f"{e:.8f}" for e in roots)
    + f" | {seconds:.1f} |"
)

# %% [markdown]
# ## The picture
#
# On the left the height at 15 s for every e: between two kinks the ball bounces equally often. On
# the right the two flights.

# %%
es = jnp.linspace(0.75, 1.0, 101 if SHORT else 1001)
heights = jax.jit(jax.vmap(height))(es)

de.plot.style()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
left.plot(es, heights, color="C0", linewidth=1.5)
left.axhline(TARGET, color="0.6", linewidth=0.8)
for e, name, colour in (
    (float(stationary), "stationary", "C1"),
    (roots[0], "root", "C2"),
):
    left.plot(
        e, height_and_slope(jnp.asarray(e))[0], "o", color=colour, label=f"{name}, e = {e:.6f}"
    )
    flight = solve(jnp.asarray(e), saveat=jnp.linspace(0.0, END, 601))
    right.plot(flight.ts, flight.ys[:, 0], color=colour, linewidth=1.2)
    hits = flight.events[0].ts
    right.plot(hits, np.zeros(len(hits)), "^", color=colour, markersize=4, clip_on=False)
right.axhline(TARGET, color="0.6", linewidth=0.8)
left.set(xlabel="restitution e", ylabel=f"height at {END:g} s (m)", ylim=(0, None))
left.legend()
right.set(xlabel="t (s)", ylabel="height (m)", xlim=(0, END), ylim=(0, None))
FIGURES.mkdir(parents=True, exist_ok=True)
path = FIGURES / "bouncing_ball.png"
figure.savefig(path)
print(f"figure: {path.name}")

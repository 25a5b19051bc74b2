# %% [markdown]
# # Training of second order
#
# The spiral again (2–50–2 on u³, thirty points): Adam(0.01) for 100 steps, and then a method that
# knows curvature, until the loss is 0.01. SciMLSensitivity's documentation does this with Newton's
# method and a trust region, at most 200 steps, and says that a Krylov method, which needs products
# with the Hessian alone, is usually the fastest.
#
# Two such methods here. *Newton–Krylov*: conjugate gradients in a trust region (Steihaug, 1983), on
# products with the exact Hessian of the solve, forward over reverse: `jax.jvp` of `jax.grad`.
# *Levenberg–Marquardt* of Optimistix, on the 60 residuals and their Jacobian.

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
from jax.flatten_util import ravel_pytree

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
BLUE, RED, GREY = "C0", "C1", "0.45"

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The problem, as a function of one vector

# %%
A = jnp.array([[-0.1, 2.0], [-2.0, -0.1]])
y0, ts = jnp.array([2.0, 0.0]), jnp.linspace(0.0, 1.5, 30)
truth = de.ODEProblem(lambda t, y, A: A.T @ y**3, y0, (0.0, 1.5), A)
data = de.solve(truth, saveat=ts, rtol=1e-8, atol=1e-8).ys
net = eqx.nn.MLP(2, 2, 50, 1, jnp.tanh, key=jax.random.key(0))
layer = de.nn.NeuralODE(
    net, field=lambda net, t, y, args: net(y**3), tspan=(0.0, 1.5), saveat=ts, rtol=1e-5, atol=1e-6
)
began = time.perf_counter()
adam = de.fit(
    layer, lambda layer: jnp.sum((layer(y0).ys - data) ** 2), optimizer=optax.adam(0.01),
    steps=40 if SHORT else 100,
)  # fmt: skip
seconds = {"Adam": time.perf_counter() - began}
arrays, rest = eqx.partition(adam.model, eqx.is_inexact_array)
start, unravel = ravel_pytree(arrays)


def residuals(theta):
    return eqx.combine(unravel(theta), rest)(y0).ys - data


def loss(theta):
    return jnp.sum(residuals(theta) ** 2)


# %% [markdown]
# ## Newton–Krylov in a trust region


# %%
def steihaug(product, gradient, radius, most=40):
    """The minimum of the quadratic model inside the radius, by conjugate gradients, and the
    gradient of the model there.
    """

    def to_the_edge(step, direction):
        a, b, c = direction @ direction, step @ direction, step @ step - radius**2
        return (-b + jnp.sqrt(jnp.maximum(b**2 - a * c, 0.0))) / a

    def turn(carry):
        step, residual, direction, _, count = carry
        bent = product(direction)
        curvature, size = direction @ bent, residual @ residual
        outside = jnp.linalg.norm(step + size / curvature * direction) >= radius
        leaves = (curvature <= 0) | outside
        length = jnp.where(leaves, to_the_edge(step, direction), size / curvature)
        step, after = step + length * direction, residual + length * bent
        direction = -after + (after @ after) / size * direction
        small = jnp.linalg.norm(after) < 0.1 * jnp.linalg.norm(gradient)
        return step, after, direction, leaves | small, count + 1

    first = (jnp.zeros_like(gradient), gradient, -gradient, jnp.array(False), 0)
    return jax.lax.while_loop(lambda c: ~c[3] & (c[4] < most), turn, first)[:2]


@jax.jit
def newton(theta, radius):
    value, gradient = jax.value_and_grad(loss)(theta)
    product = lambda v: jax.jvp(jax.grad(loss), (theta,), (v,))[1]
    step, after = steihaug(product, gradient, radius)
    wanted = -step @ (gradient + after) / 2  # what the quadratic model says
    ratio = (value - loss(theta + step)) / wanted
    theta = jnp.where(ratio > 0.1, theta + step, theta)
    radius = jnp.where(ratio > 0.75, 2.0 * radius, jnp.where(ratio > 0.25, radius, radius / 4))
    return theta, radius, value


began = time.perf_counter()
theta, radius, krylov = start, jnp.array(1.0), []
for _ in range(4 if SHORT else 60):
    theta, radius, value = newton(theta, radius)
    krylov.append(float(value))
    if value < 0.01:
        break
seconds["Krylov"] = time.perf_counter() - began

# %% [markdown]
# ## Levenberg–Marquardt

# %%
if not SHORT:
    began = time.perf_counter()
    solver = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    step = eqx.filter_jit(
        lambda theta: optx.least_squares(
            lambda theta, _: residuals(theta), solver, theta, max_steps=60, throw=False
        )
    )
    found = step(start)
    least = float(loss(found.value))
    seconds["Levenberg"] = time.perf_counter() - began

print("\n| what | published | ours | seconds |")
print(f"| loss after Adam(0.01) × 100 | — | {adam.history[-1]:.2f} | {seconds['Adam']:.1f} |")
print(f"| Newton–Krylov: steps to 0.01 | ≤ 200 | {len(krylov) - 1}, loss {krylov[-1]:.2g} "
      f"| {seconds['Krylov']:.1f} |")  # fmt: skip
if not SHORT:
    print(f"| Levenberg–Marquardt, {int(found.stats['num_steps'])} steps: loss | — | {least:.2g} "
          f"| {seconds['Levenberg']:.1f} |")  # fmt: skip

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.3))
fine = jnp.linspace(0.0, 1.5, 201)
final = eqx.combine(unravel(theta), rest)(y0, saveat=fine).ys
begun = adam.model(y0, saveat=fine).ys
axes[0].plot(*begun.T, "--", color=BLUE, label="after Adam")
axes[0].plot(*final.T, color=RED, label="after Newton–Krylov")
axes[0].plot(*data.T, "o", color="0.1", markersize=3.5, markerfacecolor="white", label="data")
axes[0].set(title="the spiral", xlabel="$u_1$", ylabel="$u_2$", aspect="equal")
axes[0].legend(fontsize=8, loc="center", bbox_to_anchor=(0.42, 0.5), handlelength=1.2)
axes[1].semilogy(adam.history, color=BLUE, label="Adam(0.01)")
axes[1].semilogy(len(adam.history) - 1 + np.arange(len(krylov)), krylov, ".-", color=RED,
                 label="Newton–Krylov")  # fmt: skip
axes[1].axhline(0.01, color="0.4", linewidth=0.9, linestyle="--", label="goal")
axes[1].set(title="training", xlabel="step", ylabel="loss")
axes[1].legend()
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "second_order_training.png")
print(f"figure: {FIGURES.name}/second_order_training.png")

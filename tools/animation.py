"""Draws the training of a neural ODE as it goes: `python tools/animation.py` writes
`docs/assets/training.gif`, the picture of the front page.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.animation import FuncAnimation, PillowWriter

import diffeq as de

TARGET = Path(__file__).parents[1] / "docs" / "assets" / "training.gif"
START, END, STEPS, SHOWN = jnp.array([2.0, 0.0]), 1.5, 400, 60
SPIRAL = jnp.array([[-0.1, 2.0], [-2.0, -0.1]])
TS, FINE = jnp.linspace(0.0, END, 20), jnp.linspace(0.0, END, 120)


def trained() -> tuple[list, jax.Array, np.ndarray, np.ndarray]:
    """Some of the models on the way of a fit, the data, the losses, and the step of each model."""
    truth = de.ODEProblem(lambda t, y, A: A @ y**3, START, (0.0, END), SPIRAL)
    data = de.solve(truth, de.Tsit5(), saveat=TS, rtol=1e-5).ys
    net = eqx.nn.MLP(2, 2, 50, 1, jnp.tanh, key=jax.random.key(1), dtype=jnp.float32)
    node = de.nn.NeuralODE(
        net, tspan=(0.0, END), field=lambda net, t, y, args: net(y**3), method=de.Tsit5()
    )
    loss = lambda node: de.mse(node(START, saveat=TS).ys, data)
    models, losses = [node], [float(loss(node))]
    steps = np.diff(np.unique(np.geomspace(1, STEPS, SHOWN).round().astype(int)), prepend=0)
    optimizer = optax.adam(0.03)
    state = optimizer.init(eqx.filter(node, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(node, state):
        value, gradient = eqx.filter_value_and_grad(loss)(node)
        change, state = optimizer.update(gradient, state)
        return eqx.apply_updates(node, change), state, value

    for count in steps:
        for _ in range(count):
            node, state, value = step(node, state)
            losses.append(float(value))
        models.append(node)
    return models, data, np.array(losses), np.concatenate([[0], np.cumsum(steps)])


def main() -> None:
    """Trains, draws, writes."""
    mpl.use("agg")
    models, data, losses, counts = trained()
    side = jnp.linspace(-2.4, 2.4, 17)
    places = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    path = eqx.filter_jit(lambda node: node(START, saveat=FINE).ys)
    arrows = eqx.filter_jit(lambda node: jax.vmap(lambda y: node.net(y**3))(places))
    de.plot.style()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.2, 3.4), gridspec_kw={"width_ratios": [1, 1]}
    )
    left.plot(*data.T, "o", color="0.1", markersize=3.5, markerfacecolor="white", label="data")
    (curve,) = left.plot([], [], color="C1", label="neural ODE")
    field = left.quiver(*places.T, *places.T, color="0.75", scale=30, width=0.005)
    left.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal", xlabel="$y_1$", ylabel="$y_2$")
    (falls,) = right.semilogy([], [], color="C0")
    right.set(
        xlim=(0, counts[-1]), ylim=(losses.min() / 2, losses.max() * 2),
        xlabel="step of Adam", ylabel="mean square error",
    )  # fmt: skip
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)

    def draw(i: int) -> list:
        curve.set_data(*np.asarray(path(models[i])).T)
        slopes = np.asarray(arrows(models[i]))
        field.set_UVC(*(slopes / (1e-3 + np.linalg.norm(slopes, axis=1, keepdims=True))).T)
        falls.set_data(np.arange(counts[i] + 1), losses[: counts[i] + 1])
        return [curve, field, falls]

    frames = [*range(len(models)), *[len(models) - 1] * 15]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    film = FuncAnimation(figure, draw, frames=frames)
    film.save(TARGET, writer=PillowWriter(fps=10), dpi=100)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

# %% [markdown]
# # A Hamiltonian network keeps its energy
#
# A mass on a spring, q' = 2π p, p' = −2π q: 1024 points of one turn, with their rates of change.
# DiffEqFlux's documentation fits the derivatives of a network H(q, p) to them (2–32–32–1, gelu,
# Adam (0.003), batches of 256, 125 epochs) and draws one turn. Here the same network is followed
# for 200 turns, beside a plain network of the same size for the field; and a separable H = T(p) +
# V(q), for which a symplectic method with a fixed step keeps the energy as well as the exact
# solution would.

# %%
import os
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import diffeq as de

SHORT = "--short" in sys.argv or bool(os.environ.get("DIFFEQ_SHORT"))
FIGURES = Path(os.environ.get("DIFFEQ_FIGURES", Path(__file__).parent / "figures"))
BLUE, RED, GREY = "C0", "C1", "0.45"
jax.config.update("jax_enable_x64", True)  # single precision drifts over so many steps

# %% [markdown]
# ## The data

# %%
turn = jnp.linspace(0.0, 1.0, 1024, dtype=jnp.float64)
q, p = jnp.sin(2 * jnp.pi * turn)[:, None], jnp.cos(2 * jnp.pi * turn)[:, None]
data = (q, p, 2 * jnp.pi * p, -2 * jnp.pi * q)

# %% [markdown]
# ## Three models, fitted to rates of change: no solve is needed for that


# %%
def mlp(inputs, outputs, width=32, seed=0):
    key = jax.random.key(seed)
    return eqx.nn.MLP(inputs, outputs, width, 2, jax.nn.gelu, key=key, dtype=jnp.float64)


TURNS = 20.0 if SHORT else 200.0
options = {"tspan": (0.0, TURNS), "rtol": 1e-6, "atol": 1e-6, "max_steps": 200_000}
energy = de.nn.HamiltonianNN(mlp(2, "scalar"), **options)
separable = de.nn.HamiltonianNN(
    (mlp(1, "scalar", 22), mlp(1, "scalar", 22, seed=1)), tspan=(0.0, TURNS),
    method=de.KahanLi8(), dt=0.05,  # the quarters of a turn are ends of steps
)  # fmt: skip
plain = de.nn.NeuralODE(
    mlp(2, 2), field=lambda net, t, y, args: tuple(net(jnp.concatenate(y))[:, None]), **options
)


def rates(model, q, p):
    if isinstance(model, de.nn.HamiltonianNN):
        return model.derivative((q, p))
    return model.problem((q, p)).f(0.0, (q, p), None)


def misfit(model, batch):
    q, p, dq, dp = batch
    return de.mse(jax.vmap(lambda q, p: rates(model, q, p))(q, p), (dq, dp))


at = jnp.arange(0.0, TURNS + 0.01, 0.25, dtype=jnp.float64)
exact = jnp.sin(2 * jnp.pi * at), jnp.cos(2 * jnp.pi * at)
models = {"energy H(q, p)": energy, "separable energy": separable, "plain field": plain}
models = dict(list(models.items())[: 1 if SHORT else 3])
fits, paths, rows = {}, {}, []
for name, model in models.items():
    began = time.perf_counter()
    fits[name] = de.fit(
        model, misfit, data, optimizer=optax.adam(0.003), steps=60 if SHORT else 500,
        batch_size=256, key=jax.random.key(2),
    )  # fmt: skip
    paths[name] = fits[name].model((q[0], p[0]), saveat=at).ys
    radius2 = sum(x[:, 0] ** 2 for x in paths[name])
    rows.append((name, misfit(fits[name].model, data), radius2, time.perf_counter() - began))

print("\n| what | published | ours | seconds |")
for name, error, radius2, seconds in rows:
    drift = float(jnp.max(jnp.abs(radius2 - 1.0)))
    ours = f"{float(error):.1e}; true energy off by {drift:.1%}"
    print(f"| {name}: mean square of rates; after {TURNS:g} turns | — | {ours} | {seconds:.1f} |")

# %% [markdown]
# ## The figure

# %%
de.plot.style()
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), gridspec_kw={"width_ratios": [1, 1.4, 1.4]})
colours = dict(zip(models, (RED, "C2", BLUE), strict=False))
most = lambda error: error[1:].reshape(-1, 4).max(axis=1)  # of each turn
axes[0].plot(q[:, 0], p[:, 0], color=GREY, linewidth=4.0, alpha=0.35, label="data")
for name, (x, v) in paths.items():
    axes[0].plot(x[:, 0], v[:, 0], ".", color=colours[name], markersize=2)
    radius2 = x[:, 0] ** 2 + v[:, 0] ** 2
    axes[1].semilogy(at[4::4], most(jnp.abs(radius2 - 1.0)), color=colours[name])
    if name != "plain field":
        each = jax.vmap(lambda *y, model=fits[name].model: model.energy(y))(x, v)
        axes[2].semilogy(at[4::4], most(jnp.abs(each - each[0])), color=colours[name])
axes[0].set(title=f"{TURNS:g} turns, points at quarters", xlabel="q", ylabel="p", aspect="equal")
axes[1].set(title="true energy: largest error in a turn", xlabel="turns", ylabel="|q² + p² − 1|")
axes[2].set(title="energy of the network: largest change", xlabel="turns", ylabel="|H − H(0)|")
handles = [plt.Line2D([], [], color=colours[name], label=name) for name in models]
figure.legend(handles=handles, loc="outside lower center", ncols=3)
FIGURES.mkdir(exist_ok=True)
figure.savefig(FIGURES / "hamiltonian.png")
print(f"figure: {FIGURES.name}/hamiltonian.png")

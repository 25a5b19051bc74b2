"""What a gradient by each adjoint costs, and whether it is right: `python -m benchmarks.adjoints`.

* The spiral: the gradient of the loss of the neural ODE of the DiffEqFlux paper by its 252 weights
  (two states to the third power, 50 tanh units, 30 rows up to t = 1.5; Tsit5, rtol 1e-7, atol
  1e-9), in double precision and in single.
* Van der Pol, μ = 5, to t = 5, from (2, 0): d(y₁ + y₂)/dμ, tolerances of 1e-6.
* Robertson, to t = 1e5, Rodas5P, rtol 1e-6 and atol 1e-10: the gradient of a sum over 6 rows by the
  logarithms of three constants; its largest relative difference from differences of the loss.
* Memory: what a compiled gradient of a line of 4,096 cells allocates besides inputs and outputs.

Seconds are medians of interleaved rounds. Writes `results/adjoints.md`.
"""

import datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import fields, machine, timing

ADJOINTS = {
    "Discrete": de.Discrete(),
    "Forward": de.Forward(),
    "Gauss": de.Gauss(),
    "Gauss, adaptive": de.Gauss(integral="adaptive"),
    "Gauss, augmented": de.Gauss(integral="augmented"),
    "Backsolve": de.Backsolve(),
    "Backsolve, no checkpoints": de.Backsolve(checkpoints=0),
}
SECONDS, ROUNDS = 6.0, 100


def mode_of(adjoint):
    """Forward mode or reverse mode, whichever an adjoint serves."""
    return jax.jacfwd if isinstance(adjoint, de.Forward) else jax.grad


def spiral(dtype):
    """The loss of the neural ODE, and its weights."""
    ts = jnp.linspace(0, 1.5, 30, dtype=dtype)
    y0 = jnp.array([2.0, 0.0], dtype)
    turn = jnp.array([[-0.1, 2.0], [-2.0, -0.1]], dtype)
    options = {"saveat": ts, "rtol": 1e-7, "atol": 1e-9}
    truth = de.ODEProblem(lambda t, y, a: (y**3) @ a, y0, (0.0, 1.5), turn)
    data = de.solve(truth, de.Tsit5(), **options).ys
    rng = np.random.default_rng(0)
    weights = fields.mlp_parameters(rng, (2, 50, 2), dtype=dtype)
    problem = de.ODEProblem(fields.mlp_of_cube, y0, (0.0, 1.5), jax.tree.map(jnp.asarray, weights))

    def loss(weights, adjoint):
        sol = de.solve(problem.replace(args=weights), de.Tsit5(), adjoint=adjoint, **options)
        return jnp.sum((sol.ys - data) ** 2)

    return loss, problem.args


def van_der_pol():
    """The sum of the state at t = 5, and μ."""

    def rates(t, y, mu):
        return jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    def end(mu, adjoint):
        problem = de.ODEProblem(rates, jnp.array([2.0, 0.0]), (0.0, 5.0), mu)
        return de.solve(problem, de.Tsit5(), rtol=1e-6, atol=1e-6, adjoint=adjoint).y1.sum()

    return end, jnp.asarray(5.0)


def robertson():
    """A sum over rows, and the logarithms of the constants."""

    def rates(t, y, k):
        slow, fast, back = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        return jnp.stack([back - slow, slow - back - fast, fast])

    def total(logs, adjoint):
        problem = de.ODEProblem(rates, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e5), jnp.exp(logs))
        sol = de.solve(
            problem, de.Rodas5P(), saveat=jnp.logspace(0, 5, 6), rtol=1e-6, atol=1e-10,
            adjoint=adjoint,
        )  # fmt: skip
        return jnp.sum(sol.ys @ jnp.array([1.0, 1e4, -0.5]))

    return total, jnp.log(jnp.array([0.04, 3e7, 1e4]))


def line(cells=4096):
    """A field on a line, and its two constants."""

    def rates(t, y, a):
        return a[0] * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)) + a[1] * y * (1 - y)

    def end(a, adjoint):
        y0 = jnp.sin(jnp.linspace(0, 6, cells)) ** 2
        problem = de.ODEProblem(rates, y0, (0.0, 10.0), a)
        return de.solve(problem, de.Tsit5(), adjoint=adjoint).y1.sum()

    return end, jnp.array([1.0, 0.5])


def compiled(loss, x):
    """The gradient by each adjoint, compiled; and the loss alone."""
    found = {"the solve alone": jax.jit(lambda x: loss(x, None))}
    for name, adjoint in ADJOINTS.items():
        found[name] = jax.jit(mode_of(adjoint)(lambda x, a=adjoint: loss(x, a)))
    return {name: function.lower(x).compile() for name, function in found.items()}


def milliseconds(functions, x):
    """The median of each."""
    entrants = {name: timing.Contestant(f, [x]) for name, f in functions.items()}
    timing.interleave(list(entrants.values()), SECONDS, ROUNDS)
    return {n: 1e3 * timing.summary(e.samples.values())["median"] for n, e in entrants.items()}


def differences(loss, x, h=1e-4):
    """Extrapolated central differences of a loss by each component of x."""
    run = jax.jit(jax.vmap(lambda x: loss(x, None)))
    each = jnp.eye(len(x))

    def central(h):
        return (run(x + h * each) - run(x - h * each)) / (2 * h)

    return (4 * central(h) - central(2 * h)) / 3


def columns():
    """Each column of the table, by name of the row."""
    found = {}
    for name, dtype in (("double", np.float64), ("single", np.float32)):
        with jax.enable_x64(dtype is np.float64):
            loss, x = spiral(dtype)
            ms = milliseconds(compiled(loss, x), x)
            found[f"spiral, {name}: ms"] = {n: f"{v:.3g}" for n, v in ms.items()}
    loss, x = van_der_pol()
    functions = compiled(loss, x)
    found["van der Pol: d/dμ"] = {
        n: "" if n == "the solve alone" else f"{float(f(x)):.5f}" for n, f in functions.items()
    }
    found["ms"] = {n: f"{v:.3g}" for n, v in milliseconds(functions, x).items()}
    loss, x = robertson()
    functions, wanted = compiled(loss, x), differences(loss, x)
    found["Robertson: off by"] = {
        n: "" if n == "the solve alone" else f"{float(jnp.max(jnp.abs(f(x) / wanted - 1))):.1e}"
        for n, f in functions.items()
    }
    found["ms "] = {n: f"{v:.3g}" for n, v in milliseconds(functions, x).items()}
    sizes = {n: f.memory_analysis().temp_size_in_bytes for n, f in compiled(*line()).items()}
    found["4,096 cells: MB"] = {n: f"{size / 1e6:.2f}" for n, size in sizes.items()}
    return found


def main():
    """Measures, and writes the table."""
    jax.config.update("jax_enable_x64", True)
    found, here = columns(), machine.machine()
    rows = [["", *(name.strip() for name in found)], ["---"] * (len(found) + 1)]
    for name in ("the solve alone", *ADJOINTS):
        rows.append([name, *(column[name] for column in found.values())])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    where = f"{here['processor']}, {here['cores']} cores, JAX {jax.__version__}"
    head = f"Written by `python -m benchmarks.adjoints`, {datetime.date.today()}; {where}."
    text = "\n".join([head, "", *lines, ""])
    Path(__file__).with_name("results").joinpath("adjoints.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

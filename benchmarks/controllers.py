"""Which exponents and which set point a controller should have: `python -m benchmarks.controllers`.

Each setting solves the zoo's non-stiff problems over six decades of tolerance. What counts is the
number of attempts, accepted or rejected, at an equal achieved error (the largest over 101 saved
rows), relative to the I controller with a safety of 0.9; the mean over problems is geometric. Then
van der Pol's equation with μ = 100, on which stability and not accuracy limits the step, counts
rejections. Writes `results/controllers.md`.
"""

import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de

# Exponents β₁, β₂, β₃; the safety; and whether it is the set point (1) or a factor of dt (0).
SETTINGS = {
    "I, factor 0.9": (1.0, 0.0, 0.0, 0.9, 0),
    "I, factor 0.8": (1.0, 0.0, 0.0, 0.8, 0),
    "PI 0.7, 0.4, factor 0.9": (0.7, 0.4, 0.0, 0.9, 0),
    "PI 0.7, 0.4, set point 0.9": (0.7, 0.4, 0.0, 0.9, 1),
    "PI 0.7, 0.4, set point 0.8": (0.7, 0.4, 0.0, 0.8, 1),
    "PI 0.6, 0.2, set point 0.8": (0.6, 0.2, 0.0, 0.8, 1),
    "PI 0.8, 0.2, set point 0.8": (0.8, 0.2, 0.0, 0.8, 1),
    "PI 0.9, 0.1, set point 0.8": (0.9, 0.1, 0.0, 0.8, 1),
    "PI 0.9, 0.1, set point 0.9": (0.9, 0.1, 0.0, 0.9, 1),
    "H211 0.25, −0.25, set point 0.8": (0.25, -0.25, 0.0, 0.8, 1),
    "PID 0.49, 0.34, 0.10, set point 0.8": (0.49, 0.34, 0.10, 0.8, 1),
}
BASE = "I, factor 0.9"
OTHERS = ("lotka_volterra", "spiral", "lorenz", "van_der_pol", "pleiades", "arenstorf",
          "brusselator", "henon_heiles")  # fmt: skip
DETEST = ("A1", "A2", "A3", "A4", "A5", "B1", "B2", "B3", "B4", "B5", "D1", "D3", "D5", "E2", "E4")
METHODS = (de.Tsit5(), de.Vern7())
TOLERANCES = np.logspace(-3, -9, 13)
SAVES = 101


class Trial(de.Controller):
    """A PID controller whose numbers are arrays, so that one compilation serves all settings."""

    beta: jax.Array = eqx.field(default=None)
    safety: jax.Array = eqx.field(default=None)
    set_point: jax.Array = eqx.field(default=None)

    def init(self, dtype):
        """Errors of the last two accepted steps, relative to the set point; and a flag."""
        return jnp.zeros(2, dtype), jnp.zeros((), bool)

    def judge(self, error2, dt, state, order):
        """The verdict in either form."""
        past, was_rejected = state
        accept = error2 <= 1.0
        target = order * jnp.log(self.safety)
        log_error = 0.5 * jnp.log(error2) - target
        shift = jnp.where(self.set_point > 0, 0.0, target)
        change = -self.beta[0] * (log_error + shift) + self.beta[1] * (past[0] + shift)
        change = (change - self.beta[2] * (past[1] + shift)) / order
        change += jnp.where(self.set_point > 0, 0.0, jnp.log(self.safety))
        change = jnp.where(accept, change, -log_error / order)
        factor = jnp.clip(jnp.exp(change), 0.2, jnp.where(accept & ~was_rejected, 10.0, 1.0))
        factor = jnp.where(jnp.isfinite(error2), factor, 0.2)
        kept = jnp.stack([jnp.maximum(log_error, math.log(1e-4)), past[0]])
        return de.Verdict(accept, dt * factor, (jnp.where(accept, kept, past), ~accept))


def trial(setting):
    """The controller of one row of numbers."""
    return Trial(beta=setting[:3], safety=setting[3], set_point=setting[4])


def attempts(problem, method, settings):
    """Achieved errors and attempts, by setting and tolerance."""
    ts = jnp.linspace(*problem.tspan, SAVES)
    exact = de.solve(problem, de.Vern9(), rtol=1e-13, atol=1e-15, saveat=ts, throw=False).ys

    def one(setting, tolerance):
        sol = de.solve(problem, method, rtol=tolerance, atol=1e-2 * tolerance, saveat=ts,
                       controller=trial(setting), throw=False)  # fmt: skip
        errors = jax.tree.map(
            lambda a, b: jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)), sol.ys, exact
        )
        error = jnp.max(jnp.stack(jax.tree.leaves(errors)))
        return error, sol.stats["steps"] + sol.stats["rejected"]

    both = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    return both(settings, jnp.asarray(TOLERANCES))


def relative_cost(errors, counts, base):
    """Each setting's attempts over the base's, on the errors that both reach."""
    log_error, log_count = np.log(errors), np.log(counts)
    fits = [np.polyfit(e, n, 2) for e, n in zip(log_error, log_count, strict=True)]

    def against(i):
        low = max(log_error[i].min(), log_error[base].min())
        high = min(log_error[i].max(), log_error[base].max())
        grid = np.linspace(low, high, 50)
        return np.exp(np.mean(np.polyval(fits[i], grid) - np.polyval(fits[base], grid)))

    return [against(i) for i in range(len(fits))]


def stiff_rejections(setting):
    """Rejected steps of Tsit5 where stability limits the step."""
    sol = de.solve(de.ODEProblem(
        lambda t, y, mu: jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]),
        jnp.array([2.0, 0.0]), (0.0, 100.0), 100.0,
    ), de.Tsit5(), controller=trial(setting))  # fmt: skip
    return int(sol.stats["rejected"])


def main():
    """Runs the study and writes its table."""
    jax.config.update("jax_enable_x64", True)
    settings = jnp.asarray(list(SETTINGS.values()), float)
    base = list(SETTINGS).index(BASE)
    problems = [de.zoo.case(name).problem() for name in OTHERS]
    problems += [de.zoo.detest(name).problem() for name in DETEST]
    columns = []
    for method in METHODS:
        costs = [relative_cost(*attempts(p, method, settings), base) for p in problems]
        columns.append(np.exp(np.mean(np.log(costs), axis=0)))
    stiff = [stiff_rejections(setting) for setting in settings]
    head = ["controller", *(f"attempts, {type(m).__name__}" for m in METHODS), "rejected, stiff"]
    rows = [
        [name, *(f"{column[i]:.3f}" for column in columns), str(stiff[i])]
        for i, name in enumerate(SETTINGS)
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    text = "\n".join(["Written by `python -m benchmarks.controllers`.", "", *lines, ""])
    Path(__file__).with_name("results").joinpath("controllers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""Processor time of a first gradient: `python -m benchmarks.first_gradients [--emep FILE] [case]`.

A user waits for the first call: trace, lowering, compilation and one run. Each contestant makes its
first call in a process of its own, whose processor seconds are printed, beside the median of later
calls and the loss, which all have to agree on. The fields are written out, a Python expression for
each reaction or current, as people write them and as code generators do:

* `reactions20`, `reactions50`: a network of reactions A + B → C with saturated rates, float32.
* `nand`: the NAND gate of the test set for IVP solvers, 14 node voltages, as y' = C(y)⁻¹ f(t, y).
* `emep`: the ozone chemistry of that set, 66 species, read from its Fortran file `emep.f`, whose
  path is given: the file is not part of this project.

Gradients are by all rates or conductances. Of Diffrax the methods are those that solve the problem.
`--solve` measures the solve alone.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de

REPEATS = 20


class Case(NamedTuple):
    """A field and what it is solved with, and the names of methods of ours and of Diffrax."""

    field: Callable
    y0: jax.Array
    ts: jax.Array
    args: jax.Array
    rtol: float
    atol: float
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


# --- reactions ------------------------------------------------------------------------------------


def reactions(count: int) -> Case:
    """Reactions A + B → C among a third as many species, with rates p_i y_a y_b / (1 + y_c)."""
    draw = np.random.default_rng(0)
    species = max(6, count // 3)
    triples = [tuple(map(int, draw.integers(0, species, 3))) for _ in range(count)]

    def field(t, y, p):
        change = [jnp.zeros((), y.dtype)] * species
        for i, (a, b, c) in enumerate(triples):
            rate = p[i] * y[a] * y[b] / (1.0 + y[c])
            change[a] = change[a] - rate
            change[b] = change[b] - rate
            change[c] = change[c] + rate
        return jnp.stack(change)

    p, y0 = draw.uniform(0.1, 1.0, count), draw.uniform(0.2, 1.0, species)
    single = partial(jnp.asarray, dtype=jnp.float32)
    ts = single(np.linspace(0.0, 1.0, 11))
    return Case(field, single(y0), ts, single(p), 1e-3, 1e-6, ("Tsit5",), ("Tsit5",))


# --- the NAND gate --------------------------------------------------------------------------------

# Conductances of source, drain and bulk; capacities; threshold voltage, body effect, surface
# potential and gain of a transistor of each kind (Shichman and Hodges 1968; the test set, problem
# "NAND gate"). Times in nanoseconds, voltages in volts.
CAPACITY, JUNCTION, NODE = 6e-5, 2.4e-5, 5e-5
SUPPLY, BULK = 5.0, -2.5
DEPLETION, ENHANCEMENT = (-2.43, 0.2, 1.28, 5.35e-4), (0.2, 0.035, 1.01, 1.748e-3)


def _pulse(t, rise, high, fall, period):
    """A trapezoidal signal of 5 V that rises from t = 5 on, and its derivative."""
    s = jnp.mod(t, period) - 5.0
    up = (s > 0) & (s <= rise)
    down = (s > rise + high) & (s <= rise + high + fall)
    full = (s > rise) & (s <= rise + high)
    left = rise + high + fall - s
    value = jnp.where(up, 5.0 * s / rise, jnp.where(down, 5.0 * left / fall, 5.0 * full))
    return value, jnp.where(up, 5.0 / rise, jnp.where(down, -5.0 / fall, 0.0))


def _channel(kind, drain, gate, bulk):
    """The current of a channel whose drain is at a positive voltage; zero below the threshold."""
    threshold, body, surface, gain = kind
    open_by = gate - threshold - body * (jnp.sqrt(jnp.maximum(surface - bulk, 1e-6)) - surface**0.5)
    saturated = open_by**2
    linear = drain * (2.0 * open_by - drain)
    current = gain * (1.0 + 0.02 * drain) * jnp.where(open_by <= drain, saturated, linear)
    return jnp.where(open_by > 0, current, 0.0)


def _transistor(kind, drain_source, gate_source, bulk_source, gate_drain, bulk_drain):
    """The current from drain to source, whichever of them is higher."""
    forward = -_channel(kind, drain_source, gate_source, bulk_source)
    backward = _channel(kind, -drain_source, gate_drain, bulk_drain)
    return jnp.where(drain_source > 0, forward, backward)


def _diode(v):
    return jnp.where(v <= 0, -1e-14 * jnp.expm1(jnp.minimum(v, 0.0) / 25.85), 0.0)


def _junction(v):
    """The capacity between bulk and source or drain."""
    below = JUNCTION / jnp.sqrt(1.0 - jnp.minimum(v, 0.0) / 0.87)
    return jnp.where(v <= 0, below, JUNCTION * (1.0 + v / 1.74))


def _nand(t, y, conductances):
    (a, da), (b, db) = _pulse(t, 5.0, 5.0, 5.0, 20.0), _pulse(t, 15.0, 5.0, 15.0, 40.0)
    source, drain, bulk = conductances
    y1, y2, y3, y4, y5, y6, y7, y8, y9, y10, y11, y12, y13, y14 = y
    top = _transistor(DEPLETION, y2 - y1, y5 - y1, y3 - y5, y5 - y2, y4 - SUPPLY)
    middle = _transistor(ENHANCEMENT, y7 - y6, a - y6, y8 - y10, a - y7, y9 - y5)
    low = _transistor(ENHANCEMENT, y12 - y11, b - y11, y13, b - y12, y14 - y10)
    currents = jnp.stack([
        -(y1 - y5) * source - top,
        -(y2 - SUPPLY) * drain + top,
        -(y3 - BULK) * bulk + _diode(y3 - y5),
        -(y4 - BULK) * bulk + _diode(y4 - SUPPLY),
        -(y5 - y1) * source - _diode(y3 - y5) - (y5 - y7) * drain - _diode(y9 - y5),
        CAPACITY * da - (y6 - y10) * source - middle,
        CAPACITY * da - (y7 - y5) * drain + middle,
        -(y8 - BULK) * bulk + _diode(y8 - y10),
        -(y9 - BULK) * bulk + _diode(y9 - y5),
        -(y10 - y6) * source - _diode(y8 - y10) - (y10 - y12) * drain - _diode(y14 - y10),
        CAPACITY * db - y11 * source - low,
        CAPACITY * db - (y12 - y10) * drain + low,
        -(y13 - BULK) * bulk + _diode(y13),
        -(y14 - BULK) * bulk + _diode(y14 - y10),
    ])  # fmt: skip
    return jnp.linalg.solve(_capacities(y), currents)


def _capacities(y):
    """The matrix C(y): capacities between two nodes, and of a node to the ground or the supply."""
    between = {
        (0, 4): CAPACITY, (1, 4): CAPACITY, (2, 4): _junction(y[2] - y[4]),
        (8, 4): _junction(y[8] - y[4]), (7, 9): _junction(y[7] - y[9]),
        (13, 9): _junction(y[13] - y[9]),
    }  # fmt: skip
    own = {
        3: _junction(y[3] - SUPPLY), 4: NODE, 5: CAPACITY, 6: CAPACITY, 9: NODE, 10: CAPACITY,
        11: CAPACITY, 12: _junction(y[12]),
    }  # fmt: skip
    matrix = jnp.zeros((14, 14))
    for (i, j), c in between.items():
        matrix = matrix.at[i, i].add(c).at[j, j].add(c).at[i, j].add(-c).at[j, i].add(-c)
    for i, c in own.items():
        matrix = matrix.at[i, i].add(c)
    return matrix


def nand() -> Case:
    """The first rise of the first input."""
    y0 = [5.0, 5.0, BULK, BULK, 5.0, 3.62385, 5.0, BULK, BULK, 3.62385, 0.0, 3.62385, BULK, BULK]
    conductances = jnp.array([1 / 4, 1 / 4, 1 / 10])
    ts = jnp.linspace(0.0, 15.0, 16)
    return Case(
        _nand, jnp.array(y0), ts, conductances, 1e-4, 1e-6, ("Rodas5P", "Kvaerno5", "KenCarp4"),
        ("Kvaerno5", "Kvaerno3"),
    )  # fmt: skip


# --- EMEP -----------------------------------------------------------------------------------------

# Photolysis A exp(−B / cos θ) of 16 reactions; shares of the emissions and molar masses of species.
PHOTOLYSIS = [1.23e-3, 2e-4, 1.45e-2, 2.2e-5, 3e-6, 5.4e-5, 6.65e-5, 1.35e-5, 2.43e-5, 5.4e-4,
              2.16e-4, 5.4e-5, 3.53e-2, 8.94e-2, 3.32e-5, 2.27e-5]  # fmt: skip
ABSORPTION = np.array([0.60, 1.40, 0.40, 0.75, 1.25, 0.79, 0.60, 0.94, 0.88, 0.79, 0.79, 0.79,
                       0.081, 0.059, 0.57, 0.62])  # fmt: skip
SHARES = {6: (0.07689, 30.0), 7: (0.41444, 58.0), 8: (0.03642, 28.0), 9: (0.03827, 42.0),
          10: (0.24537, 106.0), 13: (0.13957, 46.0)}  # fmt: skip
EMITTED = 2.5e11  # molecules of nitrogen oxides, and of hydrocarbons, per cm² and second
ASSIGNMENT = re.compile(r"(dy\[\d+\]|rc\[\d+\]|s\d+|delta)=")


def emissions() -> dict[str, float]:
    """Those of each species by the names that the file gives them."""
    moles = sum(share / mass for share, mass in SHARES.values())
    found = {f"emis{k}": EMITTED * share / mass / moles for k, (share, mass) in SHARES.items()}
    others = {1: 1.0, 2: 0.0, 3: 1.0, 4: 10.0, 5: 0.0, 11: 0.5, 12: 0.0}
    return found | {f"emis{k}": EMITTED * factor for k, factor in others.items()}


def statements(lines: list[str]) -> list[str]:
    """The assignments of a Fortran routine, in Python: y[i], rc[i] and dj[i] for its arrays."""
    whole: list[str] = []
    for line in lines:
        if not line.strip() or line[0] in "cC*!":
            continue
        if line[:5].isspace() and line[5:6] not in {" ", "0", ""}:
            whole[-1] += line.rstrip()[6:]
        else:
            whole.append(line.strip())
    found = []
    for text in whole:
        said = text.replace(" ", "").lower()
        said = re.sub(r"(\d*\.?\d+|\d+\.)d([+-]?\d+)", r"\1e\2", said)
        said = re.sub(r"\b(dy|y|rc|dj)\((\d+)\)", r"\1[\2]", said)
        if said.startswith("if(rh.gt."):
            found.append("rc[43]=1e-4")  # the humidity is above its bound all day
        elif said.startswith("if(timeod.ge.20") and "delta" in said:
            found.append("delta=where((timeod>=20.0)|(timeod<4.0),0.25,1.0)")
        elif ASSIGNMENT.match(said):
            found.append(said)
    return found


def emep(path: str) -> Case:
    """The first two hours of daylight of the simulation, from 4 in the morning on."""
    lines = Path(path).read_text(encoding="latin1").splitlines()
    start = lambda name: next(i for i, x in enumerate(lines) if f"subroutine {name}" in x.lower())
    rates, changes = lines[start("emepcf") :], lines[start("emepfunc") : start("emepjacres")]
    code = compile("\n".join([*statements(rates), *statements(changes)]), path, "exec")

    def chemistry(t, y, photolysis):
        hour = jnp.mod(t / 3600, 24.0)
        latitude, tilt = np.deg2rad(50.0), np.deg2rad(23.5)
        level, sway = np.sin(latitude) * np.sin(tilt), np.cos(latitude) * np.cos(tilt)
        height = level + sway * jnp.cos((1 + hour / 12) * np.pi)  # of the sun, its sine
        dark = (hour < 4) | (hour >= 20)
        light = jnp.where(dark, 1e-40, photolysis * jnp.exp(-ABSORPTION / height))
        humidity = 23 * jnp.sin(-7.93e-5 * hour * 3600 + 2.43) + 66.5
        heat = (597.3 - 0.57 * (298 - 273.16)) * 18 / 1.986 * (1 / 298 - 1 / 273.16)
        names = {
            "y": {i + 1: y[i] for i in range(66)}, "dj": {i + 1: light[i] for i in range(16)},
            "dy": {}, "rc": dict.fromkeys(range(1, 267), 0.0), "t": 298.0, "exp": np.exp,
            "h2o": 6.1078 * np.exp(-heat) * 10 / (1.38e-16 * 298) * humidity, "timeod": hour,
            "where": jnp.where, "rpath3": 0.65, "rpath4": 0.35, "m": 2.55e19, "o2": 5.2e18,
            "hmix": 1.2e5, **emissions(),
        }  # fmt: skip
        exec(code, names)
        return jnp.stack([jnp.asarray(names["dy"][i], y.dtype) for i in range(1, 67)])

    y0 = [1e9, 5e9, 5e9, 3.8e12, 3.5e13, *[1e7] * 8, 5e11, *[1e2] * 23, 1e-3, *[1e2] * 28]
    ts, args = jnp.linspace(14400.0, 21600.0, 11), jnp.array(PHOTOLYSIS)
    return Case(
        chemistry, jnp.array(y0), ts, args, 1e-4, 1.0, ("Rodas5P", "Kvaerno5", "BDF"),
        ("Kvaerno5", "Kvaerno3"),
    )  # fmt: skip


# --- the contest ----------------------------------------------------------------------------------


def _ys_of_ours(case: Case, method: str, args: jax.Array) -> jax.Array:
    problem = de.ODEProblem(case.field, case.y0, (case.ts[0], case.ts[-1]), args)
    solver = getattr(de, method)()
    return de.solve(problem, solver, saveat=case.ts, rtol=case.rtol, atol=case.atol).ys


def _ys_of_theirs(case: Case, method: str, args: jax.Array) -> jax.Array:
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(case.field), getattr(diffrax, method)(), case.ts[0], case.ts[-1], None,
        case.y0, args, saveat=diffrax.SaveAt(ts=case.ts), max_steps=4096,
        stepsize_controller=diffrax.PIDController(rtol=case.rtol, atol=case.atol),
    )  # fmt: skip
    return jnp.asarray(solution.ys)


def measure(case: Case, who: str, method: str, *, differentiate: bool) -> str:
    """One line of the table, from the first call of a gradient (or solve) in this process on."""
    ys = _ys_of_ours if who == "diffeq" else _ys_of_theirs

    def loss(scale):
        return jnp.mean(jnp.log1p(ys(case, method, scale * case.args) ** 2))

    run = jax.jit(jax.value_and_grad(loss) if differentiate else lambda k: (loss(k), 0.0 * k))
    scale = jnp.ones_like(case.args)
    start = time.process_time()
    value, slope = jax.block_until_ready(run(scale))
    first = time.process_time() - start
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        jax.block_until_ready(run(scale))
        seconds.append(time.perf_counter() - begin)
    median = 1e3 * statistics.median(seconds)
    return f"{first:.1f} | {median:.2f} | {value:.6g} | {jnp.linalg.norm(slope):.4g}"


def case_of(name: str, path: str | None) -> Case:
    """A case by its name."""
    if name == "emep":
        if path is None:
            raise SystemExit("emep is read from the Fortran file of the test set: give --emep FILE")
        return emep(path)
    return nand() if name == "nand" else reactions(int(name.removeprefix("reactions")))


def main() -> None:
    """The table; or a contestant's line, in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--emep")
    parser.add_argument("--only", nargs=2)
    parser.add_argument("--solve", action="store_true", help="the loss, and not its gradient")
    options = parser.parse_args()
    names = options.cases or ["reactions20", "reactions50", "nand"] + ["emep"] * bool(options.emep)
    if options.only:
        jax.config.update("jax_enable_x64", not names[0].startswith("reactions"))
        case = case_of(names[0], options.emep)
        print(measure(case, *options.only, differentiate=not options.solve))
        return
    print("| case | contestant | first call, CPU s | later calls, ms | loss | ‖gradient‖ |")
    print("|---|---|---|---|---|---|")
    for name in names:
        jax.config.update("jax_enable_x64", not name.startswith("reactions"))
        case = case_of(name, options.emep)
        contest = [("diffeq", m) for m in case.ours] + [("diffrax", m) for m in case.theirs]
        for who, method in contest:
            command = [
                sys.executable,
                "-m",
                "benchmarks.first_gradients",
                name,
                "--only",
                who,
                method,
            ]
            command += ["--emep", options.emep] if options.emep else []
            command += ["--solve"] if options.solve else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            line = done.stdout.strip() or "failed: " + done.stderr.strip().splitlines()[-1][:80]
            print(f"| {name} | {who} {method} | {line} |", flush=True)


if __name__ == "__main__":
    main()

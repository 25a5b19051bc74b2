"""Large stiff systems against SciPy's BDF with a sparsity pattern: `python -m benchmarks.sparse`.

Four problems of `de.zoo`, which both solve at the same tolerances: a line that reacts and diffuses
(n = 300, 1,000, 3,000; a band), medical Akzo Nobel (n = 400; a band) and the network of the EGF
receptor (n = 356; a pattern), which are also solved with all entries of the Jacobian, and the
Brusselator on 100 × 100 cells (n = 20,000; a pattern), with its gradient by two parameters. The
network is stiff by little, and an explicit method is among ours. The Brusselator is also solved by
products with its Jacobian, with preconditioners and without. The error is the largest distance
from the stored reference, or from a solve at a hundredth of the tolerance, relative to the largest
component. Our times are of a compiled solve; SciPy's field is NumPy code.

Writes `results/sparse.md`. `--short` leaves out the Brusselator; the names of problems as arguments
(`python -m benchmarks.sparse network`) solve these alone, print their table and write nothing.
"""

import datetime
import itertools
import sys
import time
import timeit
from pathlib import Path

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import lu_factor
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse.linalg import splu

import diffeq as de
from benchmarks import machine
from diffeq.zoo import networks

SHORT = "--short" in sys.argv
HERE = Path(__file__).parent
LINES, CELLS = (300, 1000, 3000), 100
SECONDS, FEWEST = 4.0, 3
HEAD = (
    "| problem | who | steps | error | first call (s) | seconds | times ours |\n"
    "|---|---|---|---|---|---|---|"
)


# --- the fields, in NumPy ---------------------------------------------------------------------


def line_in_numpy(t, y, args):
    wide = np.concatenate([y[:1], y, y[-1:]])
    return args[0] * y.size**2 * (wide[2:] - 2 * y + wide[:-2]) + args[1] * y * (1 - y)


def akzo_in_numpy(t, y, args):
    speed, start = args
    u, v = y.reshape(-1, 2).T
    n = u.size
    place = np.arange(1, n + 1) / n - 1
    left = np.concatenate([[start if t <= 5 else 0.0], u[:-1]])
    right = np.concatenate([u[1:], u[-1:]])
    moved = place**3 / 8 * (right - left) * n / 2 + place**4 / 16 * (left - 2 * u + right) * n**2
    return np.stack([moved - speed * u * v, -speed * u * v], axis=1).ravel()


def square_in_numpy(t, y, args):
    a, b, diffusion = args
    y = y.reshape(CELLS, CELLS, 2)
    u, v = y[..., 0], y[..., 1]
    around = sum(np.roll(y, step, axis) for axis in (0, 1) for step in (-1, 1)) - 4 * y
    place = np.arange(CELLS) / CELLS
    circle = (place[:, None] - 0.3) ** 2 + (place - 0.6) ** 2 <= 0.1**2
    source = np.where(circle, 5.0, 0.0) if t >= 1.1 else 0.0
    both = u**2 * v
    reaction = np.stack([a + both - (b + 1) * u + source, b * u - both], axis=-1)
    return (diffusion * CELLS**2 * around + reaction).ravel()


def network_in_numpy():
    """A + B ⇌ C as two products with sparse matrices, from the arrays of the network."""
    case = de.zoo.egfr_network()
    n, network = case.y0.size, networks.egfr_reactions()
    species, reactions, signs = network.changes(n)
    change = csr_matrix((signs, (species, reactions)), (n, len(network.species)))
    first, second, product = network.species.T

    def field(t, y, args):
        forth, back = (network.ways * np.append(args, 0.0)[network.rates]).T
        return change @ (forth * y[first] * np.append(y, 1.0)[second] - back * y[product])

    return field


# --- who solves -------------------------------------------------------------------------------


def scipy_bdf(case, field, rtol, atol):
    """The end and the number of steps by SciPy's BDF, from one jump of the field to the next."""
    rows, columns = case.jac.entries(case.y0.size)
    inside = rows >= 0
    ones = np.ones(int(inside.sum()))
    pattern = csc_matrix((ones, (rows[inside], columns[inside])), (case.y0.size,) * 2)
    y, steps = case.y0.ravel(), 0
    ends = [case.tspan[0], *case.stops, case.tspan[1]]
    for t0, t1 in itertools.pairwise(ends):
        start = np.nextafter(t0, t1) if t0 in case.stops else t0
        sol = solve_ivp(
            field, (start, t1), y, method="BDF", args=(case.args,), rtol=rtol, atol=atol,
            jac_sparsity=pattern,
        )  # fmt: skip
        y, steps = sol.y[:, -1], steps + sol.t.size - 1
    return y, steps


def ours(case, method, rtol, atol, *, structured=True):
    """A compiled solve, args ↦ (end, steps)."""
    problem = case.problem(structured=structured)

    @jax.jit
    def solve(args):
        sol = de.solve(
            problem.replace(args=args), method, rtol=rtol, atol=atol, stops=list(case.stops)
        )
        return sol.y1.ravel(), sol.stats["steps"]

    return solve


def gradient(case, method, rtol, atol):
    """The gradient of the mean of the end by the parameters a and b, compiled."""
    problem, rest = case.problem(), jnp.asarray(case.args[2:])

    @jax.jit
    def slope(few):
        def mean(few):
            args = jnp.concatenate([few, rest])
            sol = de.solve(
                problem.replace(args=args), method, rtol=rtol, atol=atol, stops=list(case.stops)
            )
            return sol.y1.mean()

        return jax.grad(mean)(few)

    return slope


def timed(call):
    """The result of a call, the seconds of the first one, and the least of some later ones."""
    began = time.perf_counter()
    found = jax.block_until_ready(call())
    first, least, spent, count = time.perf_counter() - began, np.inf, 0.0, 0
    while count < FEWEST and (count == 0 or spent < SECONDS):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds = time.perf_counter() - began
        least, spent, count = min(least, seconds), spent + seconds, count + 1
    return found, first, least


# --- the tables -------------------------------------------------------------------------------


def raced(case, field, rtol, atol, methods, *, dense=(), exact=None):
    """The rows of one problem, and the seconds of our quickest method."""
    args = jnp.asarray(case.args)
    if exact is None:
        exact = np.asarray(ours(case, de.Rodas5P(), rtol / 100, atol / 100)(args)[0])
    scale = np.abs(exact).max()
    named = methods if isinstance(methods, dict) else {x: getattr(de, x)() for x in methods}
    full = {f"{name}, all entries": named[name] for name in dense}
    rows = []
    for name, method in (named | full).items():
        solve = ours(case, method, rtol, atol, structured=name not in full)
        (end, steps), first, seconds = timed(lambda solve=solve: solve(args))
        error = np.abs(np.asarray(end) - exact).max() / scale
        rows.append([f"ours: {name}", int(steps), error, first, seconds])
        print(f"  {case.name}: {rows[-1]}", flush=True)
    (end, steps), first, seconds = timed(lambda: scipy_bdf(case, field, rtol, atol))
    error = np.abs(end - exact).max() / scale
    rows.append(["SciPy: BDF, sparsity", steps, error, first, seconds])
    print(f"  {case.name}: {rows[-1]}", flush=True)
    least = min(row[-1] for row in rows if row[0].startswith("ours"))
    return rows, least


def table(case, rows, least):
    return "\n".join(
        f"| {case.title} | {who} | {steps:,} | {error:.1e} | {first:.1f} | {seconds:.4f} | "
        f"{seconds / least:.2f} |"
        for who, steps, error, first, seconds in rows
    )


def lines():
    text, growth = [], []
    for n in LINES:
        case = de.zoo.reaction_diffusion(n)
        rows, least = raced(case, line_in_numpy, 1e-6, 1e-8, ("Rodas5P", "KenCarp4", "BDF"))
        text.append(table(case, rows, least))
        growth.append(least)
    told = (f"n = {n:,} {x * 1e3:.1f} ms" for n, x in zip(LINES, growth, strict=True))
    return text, ["The line: " + ", ".join(told) + "."]


def akzo():
    case = de.zoo.medical_akzo()
    rows, least = raced(case, akzo_in_numpy, 1e-6, 1e-9, ("Rodas5P", "BDF"), dense=("Rodas5P",))
    return [table(case, rows, least)], []


def network():
    case = de.zoo.egfr_network()
    names = ("Rodas5P", "KenCarp4", "BDF")
    rows, least = raced(
        case, network_in_numpy(), 1e-6, 1e-2, (*names, "Tsit5"), dense=names,
        exact=case.reference.y1,
    )  # fmt: skip
    return [table(case, rows, least)], [lu_alone(case)]


def lu_alone(case):
    """How long the bare factorisation of M − γ dt J takes, with all entries and without zeros: no
    sparse solver of this system gains more than that, once its Jacobian costs nothing.
    """
    problem = case.problem(structured=False)
    jacobian = jax.jit(jax.jacfwd(lambda y: case.field(1.0, y, jnp.asarray(case.args))))
    matrix = np.eye(case.y0.size) - np.asarray(jacobian(de.solve(problem, de.Rodas5P()).y1))
    full, sparse = np.asfortranarray(matrix), csc_matrix(matrix)
    seconds = {}
    for name, factor in {
        "LAPACK": lambda: lu_factor(full),
        "SuperLU": lambda: splu(sparse, "MMD_AT_PLUS_A", options={"SymmetricMode": True}),
    }.items():
        seconds[name] = min(timeit.repeat(factor, number=10, repeat=5)) / 10
    told = " and ".join(f"{1e3 * x:.2f} ms by {name}" for name, x in seconds.items())
    return f"The factorisation of the network's matrix alone: {told}."


def fourier(t, y, args, c):
    """The conduction of the Brusselator, without its reactions, by Fourier's transform."""
    cells = len(y)
    waves = 2 - 2 * jnp.cos(2 * jnp.pi * jnp.arange(cells) / cells)
    around = waves[:, None] + waves[: cells // 2 + 1]
    symbol = (1 + c * args[2] * cells**2 * around)[..., None]

    def solve(r):
        spectrum = jnp.fft.rfft2(r.reshape(y.shape), axes=(0, 1)) / symbol
        return jnp.fft.irfft2(spectrum, (cells, cells), axes=(0, 1)).ravel()

    return solve


def by_products():
    """Methods that take products with the Jacobian, by their names in the table."""
    stabilised = lx.BiCGStab(rtol=1e-3, atol=1e-3)
    short = lx.GMRES(rtol=1e-3, atol=1e-3, restart=5)  # it looks at its residual once a restart
    linear = {
        "GMRES": lx.GMRES(rtol=1e-3, atol=1e-3),
        "GMRES, ILU(0)": de.Krylov(short, de.ILU0()),
        "GMRES, Fourier": de.Krylov(short, fourier),
        "BiCGStab": stabilised,
        "BiCGStab, ILU(0)": de.Krylov(stabilised, de.ILU0()),
        "BiCGStab, Fourier": de.Krylov(stabilised, fourier),
    }
    return {
        f"{kind.__name__}, {name}": kind(linear=solver)
        for kind in (de.KenCarp4, de.BDF)
        for name, solver in linear.items()
    }


def square():
    case = de.zoo.brusselator_2d(CELLS)
    methods = {name: getattr(de, name)() for name in ("Rodas5P", "KenCarp4", "BDF")}
    rows, least = raced(case, square_in_numpy, 1e-4, 1e-6, methods | by_products())
    slope = gradient(case, de.Rodas5P(), 1e-4, 1e-6)
    found, first, seconds = timed(lambda: slope(jnp.asarray(case.args[:2])))
    note = (
        f"The gradient of the Brusselator's mean by (a, b) is {np.asarray(found)}; it takes "
        f"{seconds:.2f} s, {seconds / rows[0][-1]:.2f} times the solve by Rodas5P "
        f"(first call {first:.1f} s)."
    )
    return [table(case, rows, least)], [note]


PROBLEMS = {"line": lines, "akzo": akzo, "network": network, "square": square}


def report(names):
    text, notes = [HEAD], []
    for name in names:
        rows, more = PROBLEMS[name]()
        text += rows
        notes += more
    return "\n".join(text), notes


def main():
    jax.config.update("jax_enable_x64", True)
    alone = [name for name in sys.argv[1:] if name in PROBLEMS]
    found, notes = report(alone or [name for name in PROBLEMS if not (SHORT and name == "square")])
    told = machine.machine()
    load = (told["load"] or [0.0])[0]
    about = (
        f"{datetime.date.today()}, {told['processor']}, {told['cores']} cores, load {load:.1f}, "
        f"JAX {jax.__version__}. Written by `python -m benchmarks.sparse`."
    )
    page = [
        "# Large stiff systems against SciPy's BDF with sparsity",
        "",
        about,
        "",
        found,
        "",
        *notes,
        "",
    ]
    if not alone:
        (HERE / "results" / "sparse.md").write_text("\n".join(page), encoding="utf8")
    print("\n".join(page))


if __name__ == "__main__":
    main()

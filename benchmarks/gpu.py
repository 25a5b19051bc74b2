"""The table of ensembles on a GPU: `python -m benchmarks.gpu`, where JAX sees one.

`--quick` solves a thousandth of the trajectories, on whatever device there is: whether the script
works, and nothing else. Every solve is `de.solve_ensemble` inside `jax.jit`, from arrays of the
device to arrays of the device; what is written is the least time of a call. Diffrax and Gradsolve
run where they are installed; Gradsolve's solve is from host to host, its gradient a replay of steps
that were recorded before. Targets are those of an H100.

Writes `results/gpu.md`.
"""

import argparse
import copy
import datetime
import functools
import importlib
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import ensembles, machine

HERE = Path(__file__).parent
SECONDS, MOST_CALLS = 2.0, 50
MILLION = 2**20
HEAD = "| | trajectories | ours | target | Diffrax | Gradsolve | |\n|---|---|---|---|---|---|---|"


def lorenz(t, y, p):
    """Lorenz' equations by the first three of their parameters; what is behind them is not used."""
    a, b, c = y
    return jnp.array([p[0] * (b - a), a * (p[1] - c) - b, a * b - p[2] * c])


def network(hidden):
    """A field with one hidden layer of this width; how many numbers it has."""
    sizes = (2 * hidden, hidden, 2 * hidden, 2)

    def field(t, y, p):
        w1, b1, w2, b2 = jnp.split(p, np.cumsum(sizes)[:-1])
        return w2.reshape(2, hidden) @ jnp.tanh(w1.reshape(hidden, 2) @ y + b1) + b2

    return field, sum(sizes)


class Case:
    """A solve of n trajectories: rows of inputs, tolerances or a step, a method; `rows` says of
    which field of the problem they are.
    """

    def __init__(self, field, y0, t1, rows, args=None, *, method=None, of="args", **options):
        self.problem = de.ODEProblem(field, jnp.asarray(y0), (0.0, t1), args)
        self.rows, self.of, self.options = rows, of, options
        self.method = method or de.Tsit5()

    def solution(self, rows):
        """Ours."""
        return de.solve_ensemble(
            self.problem, self.method, throw=False, **{self.of: rows}, **self.options
        )

    def ours(self, rows):
        """What it saved, or its end states."""
        sol = self.solution(rows)
        return sol.y1 if self.options.get("saveat") is None else sol.ys

    def diffrax(self):
        """The same by Diffrax under `vmap`, or None."""
        try:
            dfx = importlib.import_module("diffrax")
        except ImportError:
            return None
        dt, saveat = self.options.get("dt"), self.options.get("saveat")
        control = dfx.ConstantStepSize() if dt else dfx.PIDController(
            rtol=self.options["rtol"], atol=self.options["atol"])  # fmt: skip
        solver = dfx.Tsit5() if isinstance(self.method, type(de.Tsit5())) else dfx.Kvaerno5()

        def one(row):
            problem = self.problem.replace(**{self.of: row})
            saved = dfx.SaveAt(t1=True) if saveat is None else dfx.SaveAt(ts=saveat)
            ys = dfx.diffeqsolve(
                dfx.ODETerm(problem.f), solver, *problem.tspan, dt, problem.y0, problem.args,
                stepsize_controller=control, saveat=saved, max_steps=4096, throw=False,
            ).ys  # fmt: skip
            return ys[0] if saveat is None else ys

        return jax.vmap(one)

    def gradsolve(self):
        """Gradsolve's problem with its inputs, or None."""
        try:
            package = importlib.import_module("gradsolve")
        except ImportError:
            return None
        given = self.problem

        class Own:
            name, dim, is_stiff = "own", given.y0.size, False
            t0, t1 = given.tspan

            def f_jax(self, t, y, p):
                return given.f(t, y, p)

        y0 = np.tile(np.asarray(given.y0, float), (len(self.rows), 1))
        asked = {"rtol": self.options["rtol"], "atol": self.options["atol"]}
        here = {"device": "cuda", "fused": True} if _gpu() else {"engine": "tsit5_replay"}
        return package, (Own(), y0, np.asarray(self.rows, float)), asked | here


def _gpu():
    return jax.default_backend() == "gpu"


# --- what is measured -----------------------------------------------------------------------------


def least(call, *args):
    """Milliseconds of the quickest of some calls."""
    jax.block_until_ready(call(*args))
    times, until = [], time.perf_counter() + SECONDS
    while not times or (time.perf_counter() < until and len(times) < MOST_CALLS):
        start = time.perf_counter()
        jax.block_until_ready(call(*args))
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def gradient(solve):
    """The gradient of a sum of squares by the rows."""
    return jax.grad(lambda rows: jnp.sum(solve(rows) ** 2))


def forward(case):
    """Times of a solve: ours, Diffrax's, Gradsolve's in double precision."""
    theirs, found = case.diffrax(), {"ours": least(jax.jit(case.ours), case.rows)}
    if theirs is not None:
        found["diffrax"] = least(jax.jit(theirs), case.rows)
    if case.rows.dtype == jnp.float64 and (known := case.gradsolve()) is not None:
        package, args, asked = known
        found["gradsolve"] = least(lambda: package.solve(*args, **asked).y_final)
    return found


def backward(case):
    """Times of a gradient, and in how many kernels it is.

    One finds Jacobians; or one has the solves, and another goes back.
    """
    theirs, ours = case.diffrax(), jax.jit(gradient(case.ours))
    kernels = ours.lower(case.rows).as_text().count("__gpu$xla.gpu.triton")
    found = {"ours": least(ours, case.rows), "note": f"{kernels} in the gradient"}
    if theirs is not None:
        found["diffrax"] = least(jax.jit(gradient(theirs)), case.rows)
    if case.rows.dtype == jnp.float64 and (known := case.gradsolve()) is not None:
        package, args, asked = known
        replay = package.grad_closure(*args, **asked)
        found["gradsolve"] = least(jax.jit(gradient(replay)), jnp.asarray(args[2]))
    return found


def backward_shared(case):
    """Times of a gradient by what all share, and in how many kernels it is."""

    def by_args(run):
        def loss(args):
            own = copy.copy(case)
            own.problem = case.problem.replace(args=args)
            return jnp.sum(run(own) ** 2)

        return jax.jit(jax.grad(loss))

    weights, ours = case.problem.args, by_args(lambda own: own.ours(own.rows))
    kernels = ours.lower(weights).as_text().count("__gpu$xla.gpu.triton")
    found = {"ours": least(ours, weights), "note": f"{kernels} in the gradient"}
    if case.diffrax() is not None:
        found["diffrax"] = least(by_args(lambda own: own.diffrax()(own.rows)), weights)
    return found


def multiply_rate():
    """What the device makes of a product of single-precision matrices, in operations a second."""
    size = 8192 if _gpu() else 512
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(functools.partial(jnp.matmul, precision="highest"))
    return 2 * size**3 / (least(product, a, a) / 1e3)


def copy_rate(like):
    """Bytes a second that a copy of such an array writes."""
    return like.nbytes / (least(jax.jit(lambda x: x + 0), like) / 1e3)


def of_the_rate(case, hidden):
    """Which part of the device's single-precision rate a network's products are."""
    found = forward(case)
    sol = jax.jit(case.solution)(case.rows)
    operations = float(jnp.sum(sol.stats["evaluations"].astype(jnp.float32))) * 8 * hidden
    rate = operations / (found["ours"] / 1e3) / multiply_rate()
    return found | {"note": f"{rate:.2f} of the rate of a product of matrices"}


def of_the_copy(case):
    """Which part of the rate of a copy the saved values are written at."""
    found = forward(case)
    ys = jax.jit(case.ours)(case.rows)
    rate = ys.nbytes / (found["ours"] / 1e3) / copy_rate(ys)
    return found | {"note": f"{rate:.2f} of the rate of a copy"}


# --- the table ------------------------------------------------------------------------------------


def table(part):
    """(name, target, double precision, case, what is measured of it), of a part of all."""
    draw = np.random.default_rng(0)
    millions = lambda n: n * MILLION // part
    start = [1.0, 0.0, 0.0]

    def by_rho(n, others=0):
        rows = np.zeros((n, 3 + others))
        rows[:, 0], rows[:, 1], rows[:, 2] = 10.0, np.linspace(0.0, 21.0, n), 8.0 / 3.0
        return jnp.asarray(rows, float)

    def one_rho(t, y, p):
        return lorenz(t, y, jnp.array([10.0, p[0], 8.0 / 3.0]))

    def alone(n):
        return jnp.linspace(0.0, 21.0, n)[:, None]

    def nets(hidden, n):
        field, size = network(hidden)
        weights = jnp.asarray(draw.normal(size=size) / np.sqrt(hidden), float)
        starts = jnp.asarray(draw.normal(size=(n, 2)), float)
        return Case(field, [1.0, 0.0], 1.0, starts, weights, of="y0", rtol=1e-5, atol=1e-5)

    def own_nets(n):  # 30 numbers and a bit: five hidden units
        field, size = network(6)
        rows = jnp.asarray(draw.normal(size=(n, size)), float)
        return Case(field, [1.0, 0.0], 1.0, rows, rtol=1e-6, atol=1e-6)

    def robertson(n):
        rates = jnp.array([0.04, 3e7, 1e4]) * jnp.asarray(draw.uniform(0.5, 1.5, (n, 3)), float)
        return Case(
            ensembles.robertson, start, 1e3, rates, method=de.Rodas5P(), rtol=1e-4, atol=1e-8
        )

    tight, loose = {"rtol": 1e-8, "atol": 1e-8}, {"rtol": 1e-6, "atol": 1e-6}
    saved = {"saveat": jnp.linspace(0.01, 1.0, 100)}
    return [
        ("Lorenz, adaptive 1e-8", "12 ms", False,
         lambda: Case(lorenz, start, 1.0, by_rho(millions(8)), **tight), forward),
        ("Lorenz, 1,000 steps", "60 ms", False,
         lambda: Case(lorenz, start, 1.0, by_rho(millions(8)), dt=1e-3), forward),
        ("Robertson to 1e3, Rodas5P 1e-4", "2 ms", False, lambda: robertson(millions(1)), forward),
        ("network 2-16-2, 1e-5", "1 ms", False, lambda: nets(16, millions(1)), forward),
        ("network 2-50-2, 1e-5", "a third of the rate", False, lambda: nets(50, millions(1)),
         functools.partial(of_the_rate, hidden=50)),
        ("gradient, Lorenz 1e-6, 3 numbers", "2 ms", False,
         lambda: Case(lorenz, start, 1.0, by_rho(millions(1)), **loose), backward),
        ("the same by 8, of which 3 matter: backwards", "Diffrax / 50", False,
         lambda: Case(lorenz, start, 1.0, by_rho(millions(1), 5), **loose), backward),
        ("gradient, Lorenz 1e-6, 1 number", "2 ms", True,
         lambda: Case(one_rho, start, 1.0, alone(millions(1)), **loose), backward),
        ("gradient, Lorenz 1e-8, 1 number", "4 ms", True,
         lambda: Case(one_rho, start, 1.0, alone(millions(1)), **tight), backward),
        ("gradient, network of 32 numbers, 1e-6", "Gradsolve / 20", True,
         lambda: own_nets(millions(1)), backward),
        ("gradient by 82 weights that all share, network 2-16-2", "Diffrax / 50", False,
         lambda: nets(16, millions(1)), backward_shared),
        ("forward, Lorenz 1e-8", "Gradsolve", True,
         lambda: Case(one_rho, start, 1.0, alone(millions(1)), **tight), forward),
        ("Lorenz 1e-6, 100 saved times", "half the rate of a copy", False,
         lambda: Case(lorenz, start, 1.0, by_rho(millions(1)), **loose, **saved), of_the_copy),
    ]  # fmt: skip


def line(name, target, double, make, measure):
    """A line of the table; what goes wrong stands in it."""
    jax.config.update("jax_enable_x64", double)
    bits = "float64" if double else "float32"
    try:
        case = make()
        found = measure(case)
    except Exception as error:
        return f"| {name}, {bits} | | | {target} | | | {type(error).__name__}: {str(error)[:90]} |"
    times = [f"{found[who]:,.2f} ms" if who in found else "" for who in
             ("ours", "diffrax", "gradsolve")]  # fmt: skip
    strategy = jax.eval_shape(case.solution, case.rows).strategy
    note = ", ".join(filter(None, [strategy, found.get("note")]))
    count = f"{len(case.rows):,}"
    return (
        f"| {name}, {bits} | {count} | {times[0]} | {target} | {times[1]} | {times[2]} | {note} |"
    )


def main():
    """Measure and write, if there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, on any device; not written")
    quick = parser.parse_args().quick
    if not (quick or _gpu()):
        device = jax.devices()[0].device_kind
        print(
            f"JAX sees no GPU here, but {device}: nothing was measured. --quick tries the script."
        )
        return
    here = machine.machine()
    lines = [
        "# Ensembles on a GPU\n",
        f"{datetime.date.today()}, {here['jax_device']}, JAX {jax.__version__}.",
        "By `python -m benchmarks.gpu`, which says how.\n",
        HEAD,
    ]
    print(HEAD)
    # (Rows are made in the precision that they are solved in.)
    for number in range(len(table(MILLION))):
        jax.config.update("jax_enable_x64", table(MILLION)[number][2])
        lines.append(line(*table(1000 if quick else 1)[number]))
        print(lines[-1], flush=True)
    if not quick:
        (HERE / "results" / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()

"""Writes the tables that are made from the code: `python tools/docs_tables.py`.

`docs/choose/methods.md` lists every method there is, with what follows from its coefficients,
`docs/choose/adjoints.md` every adjoint with what it serves, `docs/reference/all_methods.md` the
classes of methods, and a table in `docs/choose/what-it-does.md` which methods and adjoints serve
which problem. All are committed; `tests/static/test_docs.py` holds that they are current.
"""

import re
from itertools import takewhile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from diffeq import adjoints
from diffeq.methods import bdf
from diffeq.methods.order import (
    damping_at_infinity,
    precise,
    real_stability_interval,
    rosenbrock_index1_residuals,
    stability_function,
    stage_order_of,
)

DOCS = Path(__file__).parents[1] / "docs"
OVERVIEW_PAGE = DOCS / "choose" / "what-it-does.md"
METHODS_PAGE = DOCS / "choose" / "methods.md"
ADJOINTS_PAGE = DOCS / "choose" / "adjoints.md"
CLASSES_PAGE = DOCS / "reference" / "all_methods.md"

INTRO = """\
<!-- Written by tools/docs_tables.py from the coefficients. Do not edit: run it again. -->

# Which method?

| You have | Take |
|---|---|
| an ODE | the default: `Tsit5` (below rtol = 1e-6 `Vern7`), and `Rodas5P` while it is stiff |
| one that is not stiff, in a program | `Tsit5`, `Vern7` by name: half the time to compile |
| loose tolerances, a field that is not smooth | `Bosh3` |
| tolerances of 1e-6 to 1e-9 | `Vern7`, `Dopri8` |
| tolerances below that (in double precision) | `Vern9` |
| x'' = f(t, x) without velocity, to a tolerance | `DPRKN6` |
| a separable Hamiltonian over long times | `VelocityVerlet`, `Yoshida6`, `KahanLi8` with `dt=` |
| a hyperbolic equation, discretised in space | `SSPRK33`, `SSPRK43`, `SSPRK104` |
| a fixed step and no reason for another | `RK4` |
| a stiff problem | `Rodas5P`; `RadauIIA5` at tight tolerances |
| a large one | `Rodas5P`, `BDF`, with [the zeros of its Jacobian](../learn/sparse.md), `jac=` |
| a stiff problem at loose tolerances, or not smooth | `Rosenbrock23`, `TRBDF2` |
| stiff in one part and not in the other (`SplitODEProblem`) | `KenCarp3`, `KenCarp4`, `KenCarp5` |
| a mass matrix, algebraic equations | `Rodas5P`, the default there; `RadauIIA5`, `BDF` |
| algebraic equations of index 2 or 3 (`DAEProblem(index=)`) | `RadauIIA5`, the default there |
| a residual F(t, y, y') = 0 (`ImplicitDAEProblem`) | `BDF`, the default there; `RadauIIA5` |
| a stochastic equation, diagonal or scalar noise | the default: `SOSRI`; else `SRIW1` |
| one with additive noise | the default: `SOSRA` |
| one with any other noise | `EulerMaruyama` (Itô), `EulerHeun` (Stratonovich) with `dt=` |
| one with a stiff drift | `ImplicitEM` with `dt=` |
| one with delays (`SDDEProblem`) | `EulerMaruyama` (Itô), `EulerHeun` (Stratonovich) with `dt=` |

An explicit method's step times the fastest rate of decay has to stay inside its *interval* below. A
solve that runs out of steps because of that says so, and what to take.
"""

COLUMNS = """\

**order**: p(p̂), with p̂ that of the embedded solution which estimates the error; without p̂ give
`dt=`. **stages**: evaluations of the field in a step; *FSAL* methods share one with the next
step. **dense**: order of the interpolant that `saveat=` and `dense=True` read
([what that means for rows](../theory/dense.md)); all the others use the cubic (order 3) through
both ends{quintic}. **interval**: {interval}.
"""


def oscillation_interval(table: de.Splitting) -> float:
    """The largest ω dt up to which x'' = −ω²x does not grow: |trace| ≤ 2, as areas are kept."""
    z = np.linspace(0.0, 10.0, 10_001)
    zero, one = np.zeros_like(z), np.ones_like(z)
    x, v = np.array([one, zero]), np.array([zero, one])  # ωx and v, from both unit vectors
    for kick, drift in zip(table.kick, table.drift, strict=True):
        v = v - kick * z * x
        x = x + drift * z * v
    outside = np.flatnonzero(np.abs(x[0] + v[1]) > 2 + 1e-9)
    return float(z[outside[0] - 1])


def citations() -> dict[str, str]:
    """Author and year of each key of references.bib, with a link where there is a DOI."""
    found = {}
    text = (DOCS / "references.bib").read_text(encoding="utf8")
    for key, entry in re.findall(r"^@\w+\{(\w+),(.*?)^\}", text, re.S | re.M):
        names = re.search(r"(?:author|editor)\s*=\s*\{(.*?)\},\n", entry, re.S)
        year = re.search(r"year\s*=\s*\{(\d+)\}", entry)
        doi = re.search(r"doi\s*=\s*\{(.*?)\}", entry)
        people = [one.split(",")[0] for one in re.split(r"\s+and\s+", names[1])] if names else [key]
        who = f"{people[0]} et al." if len(people) > 2 else " & ".join(people)
        label = f"{plain(who)} {year[1] if year else ''}"
        found[key] = f"[{label}](https://doi.org/{doi[1]})" if doi else label
    return found


def plain(text: str) -> str:
    """A name without TeX."""
    accents = {
        r"{\o}": "ø", r"{\ae}": "æ", r"{\"o}": "ö", r"{\"u}": "ü", r"{\ss}": "ß", r"\'e": "é",
    }  # fmt: skip
    for tex, letter in accents.items():
        text = text.replace(tex, letter)
    return re.sub(r"[{}\\]", "", text)


def row(name: str, interval: float | None, cited: dict[str, str]) -> str:
    """The line of one method."""
    table = getattr(de, name)().tableau
    pair = f"({table.embedded_order})" if table.embedded_order else ""
    cells = [
        f"`{name}`",
        f"{table.order}{pair}",
        f"{table.stages}{', FSAL' if table.fsal else ''}",
        str(table.dense_order or "–"),
        "–" if interval is None else f"{interval:.2f}",
        table.description,
        cited[table.reference],
    ]
    return f"| {' | '.join(cells)} |"


ROSENBROCK = """
## Rosenbrock methods

For stiff problems and mass matrices, on every problem that has a field: one Jacobian, one LU and
as many linear solves as stages in a step, and no iteration. `de.Rosenbrock(tableau)` makes another
of a `de.RosenbrockTableau`.

**order**: p(p̂) as above. **dense**: order of the method's own interpolant, whose error limits the
steps where rows are read inside them ([why](../theory/dense.md)). **index 1**: orders of
the differential and of the algebraic components where the mass matrix is singular. **decay**:
|R(z)| at z = −1, −10, −∞, what a step makes of y' = λy with z = λ dt.
"""

ROSENBROCK_HEAD = (
    "| method | order | stages | dense | index 1 | decay | what for | reference |\n"
    + "|---" * 8
    + "|"
)


def rosenbrock_row(name: str, table: de.RosenbrockTableau, cited: dict[str, str]) -> str:
    """The line of a Rosenbrock method."""
    alpha, beta, b, _ = (precise(x) for x in table.classical)
    pairs = rosenbrock_index1_residuals(alpha, beta, b, table.order + 1)
    columns = list(zip(*pairs, strict=True))
    orders = [sum(1 for _ in takewhile(lambda gap: gap < 1e-11, gaps)) for gaps in columns]
    numerator, denominator = (np.asarray(x, float)[::-1] for x in stability_function(beta, b))
    decay = [abs(np.polyval(numerator, z) / np.polyval(denominator, z)) for z in (-1, -10, -1e9)]
    cells = [
        f"`{name}`",
        f"{table.order}({table.embedded_order})",
        str(table.stages),
        str(table.dense_order),
        f"{orders[0]}, {orders[1]}",
        ", ".join(f"{x:.2g}" if x > 1e-6 else "0" for x in decay),
        table.description,
        cited[table.reference],
    ]
    return f"| {' | '.join(cells)} |"


MULTISTEP = """
## Multistep methods

`BDF(max_order=5)`, of order 1 to 5 chosen on the way, with a step of quasi-constant length: for
stiff problems and for a `DAEProblem` whose field costs much, since a step solves one equation
whatever its order. It is the formulas of MATLAB's `ode15s` and of SciPy's `BDF`, {cited}.

| order | dense | κ | what the last difference leaves of the error |
|---|---|---|---|
"""


def multistep_rows() -> list[str]:
    """One line an order."""
    return [
        f"| {k} | {k} | {bdf.KAPPA[k]:.4g} | {bdf.ERROR[k]:.4f} |"
        for k in range(1, de.BDF().max_order + 1)
    ]


NOISY_INTRO = """
## Methods for stochastic equations

For an `SDEProblem`. `de.SRI(tableau)` and `de.SRA(tableau)` make others of a
`de.StochasticTableau`.

**strong**: order of the mean error of paths. **weak**: order of the error of means. **steps**:
*controlled* ones have an estimate; the others want `dt=`. A method for Itô equations solves those
of Stratonovich with their drift converted, and the other way round. See
[The path of a key](../theory/noise.md).

| method | strong | weak | equation | noise | steps | drifts | what for | reference |
|---|---|---|---|---|---|---|---|---|
"""

EQUATIONS = {"ito": "Itô", "stratonovich": "Stratonovich", "sde": "either"}
NOISES = {"SRI": "diagonal, scalar", "SRA": "additive", "Milstein": "diagonal, scalar"}


def what(kind: type) -> tuple[str, str]:
    """What a method is for, and a key of the bibliography."""
    table = getattr(kind(), "tableau", kind)
    return table.description, table.reference


def noisy_row(name: str, kind: type, cited: dict[str, str]) -> str:
    """The line of a method for stochastic equations."""
    method, (description, reference) = kind(), what(kind)
    family = kind.__bases__[0].__name__
    cells = [
        f"`{name}`",
        f"{method.order:g}",
        f"{method.weak_order:g}",
        EQUATIONS[method.form],
        NOISES.get(family, NOISES.get(name, "any")),
        "controlled" if method.adaptive else "given",
        "by Newton" if method.evaluations is None else str(method.evaluations),
        description,
        cited[reference],
    ]
    return f"| {' | '.join(cells)} |"


HEAD = "| method | order | stages | dense | interval | what for | reference |\n" + "|---" * 7 + "|"


def section(title: str, takes: str, interval: str, rows: list[str], *, quintic: bool) -> str:
    """A family and its table."""
    other = ", or, from order 4 on, the quintic with the accelerations" if quintic else ""
    text = COLUMNS.format(interval=interval, quintic=other)
    return "\n".join([f"\n## {title}\n\n{takes}", text, HEAD, *rows]) + "\n"


IMPLICIT = """
## Implicit Runge–Kutta methods

For stiff problems, and for a `DAEProblem` with a mass matrix that may be singular. They solve their
stages by Newton's method ([how](../theory/newton.md)). Those with an *IMEX* half take a
`SplitODEProblem`, and step its second part with that. `de.DIRK(tableau)` and `de.FIRK(tableau)`
make others of a `de.Tableau`.

**order**: p(p̂), with p̂ that of the embedded solution which estimates the error; without p̂ give
`dt=`. **stages**: those that are solved, one after the other or all at once. **stage order**: what
is left of the order where a problem is infinitely stiff. **dense**: order of the interpolant that
`saveat=` and `dense=True` read, in brackets where it is less on a `SplitODEProblem`; all the others
use the cubic (order 3) through both ends. Its error limits the steps where rows are read inside
them ([why](../theory/dense.md)). **at ∞**: the factor by which one step damps an infinitely fast
decay; 0 is L-stable. All are A-stable.

| method | order | stages | stage order | dense | at ∞ | what for | reference |
|---|---|---|---|---|---|---|---|
"""


def dense_of(table: de.Tableau) -> str:
    """The order of the dense output, with that of a split problem where it is smaller."""
    if table.dense_order is None:
        return "–"
    split = table.split_dense_order
    return f"{table.dense_order}{'' if split == table.dense_order else f'({split})'}"


def implicit_row(name: str, cited: dict[str, str]) -> str:
    """The line of one implicit Runge–Kutta method."""
    table = getattr(de, name)().tableau
    pair = f"({table.embedded_order})" if table.embedded_order else ""
    solved = sum(1 for row in table.A if any(row))
    together = "" if table.diagonally_implicit else " at once"
    half = ", IMEX" if table.explicit_A is not None else ""
    first = 0 if table.diagonally_implicit else table.stages - solved
    cells = [
        f"`{name}`",
        f"{table.order}{pair}",
        f"{solved}{together}{half}",
        str(stage_order_of(table.A[first:, first:], table.c[first:])),
        dense_of(table),
        f"{damping_at_infinity(table.A, table.b):.0f}",
        table.description,
        cited[table.reference],
    ]
    return f"| {' | '.join(cells)} |"


def methods_page() -> str:
    """`docs/choose/methods.md`."""
    cited = citations()
    made = {name: kind() for name, kind in de.METHODS.items()}
    explicit = [
        row(name, real_stability_interval(method.tableau.A, method.tableau.b), cited)
        for name, method in made.items()
        if isinstance(method, de.ExplicitRK)
    ]
    implicit = [
        implicit_row(name, cited)
        for name, method in made.items()
        if isinstance(method, (de.DIRK, de.FIRK))
    ]
    rosenbrock = [
        rosenbrock_row(name, method.tableau, cited)
        for name, method in made.items()
        if isinstance(method, de.Rosenbrock)
    ]
    moving = []
    for name, method in made.items():
        if isinstance(method, de.Symplectic):
            moving.append(row(name, oscillation_interval(method.tableau), cited))
        elif isinstance(method, de.Nystrom):
            moving.append(row(name, None, cited))
    noisy = [
        noisy_row(name, kind, cited)
        for name, kind in de.METHODS.items()
        if issubclass(kind, de.Stochastic)
    ]
    left_over = (
        len(made) - len(explicit) - len(implicit) - len(rosenbrock) - len(moving) - len(noisy)
    )
    if left_over:
        raise NotImplementedError(f"{left_over} methods are of a family that has no table here")
    return (
        INTRO
        + section(
            "Explicit Runge–Kutta methods",
            "For every problem. `de.ExplicitRK(tableau)` makes another of a `de.Tableau`.",
            "|λ dt| up to which y' = λy with λ < 0 does not grow",
            explicit,
            quintic=False,
        )
        + "\n".join([ROSENBROCK, ROSENBROCK_HEAD, *rosenbrock])
        + "\n"
        + IMPLICIT
        + "\n".join(implicit)
        + "\n"
        + MULTISTEP.format(cited=cited[de.BDF.reference])
        + "\n".join(multistep_rows())
        + "\n"
        + section(
            "Methods for equations of motion",
            "The splittings take a `SecondOrderProblem` whose f does not depend on v, or a "
            "`HamiltonianProblem` of a\n`de.Separable`; Nyström methods take the first. "
            "`de.Symplectic(splitting)` and `de.Nystrom(tableau)` make others.",
            "ω dt up to which x'' = −ω²x does not grow, of splittings",
            moving,
            quintic=True,
        )
        + NOISY_INTRO
        + "\n".join(noisy)
        + "\n"
    )


CLASSES = """\
<!-- Written by tools/docs_tables.py. Do not edit: run it again. -->

# All methods

`de.METHODS` maps names to these classes. None takes an argument; numbers and references are in
[Which method?](../choose/methods.md).
"""


def classes_page() -> str:
    """`docs/reference/all_methods.md`, since the classes are made at run time."""
    lines = [CLASSES]
    for name, kind in de.METHODS.items():
        family, (description, _) = kind.__bases__[0].__name__, what(kind)
        lines.append(f"* `{name}()` – {description} A [`{family}`](methods.md).")
    return "\n".join(lines) + "\n"


ADJOINTS = """\
<!-- Written by tools/docs_tables.py from the table in the code. Do not edit: run it again. -->

# Which adjoint?

**`Discrete`, the default, unless there is a reason.** It differentiates the numbers that the solve
returns, so gradients fit the losses that an optimiser sees to the last digit; it serves every
problem, every output, both modes and every order; it has no tolerance of its own to choose; its
memory is O(√steps); and in reverse mode it is the fastest: a step is evaluated once more, and not
solved for. Nor does the number of parameters matter: for few of them, `jax.jacfwd` goes forwards
through the same tape. Where a solve is known to fit in its `rows`, `Discrete(checkpoint=False)`
compiles in two thirds of the time.

| Reason for another | Take |
|---|---|
| `de.check_gradient` finds the norm trap, and parameters are few | `Forward`, `jax.jacfwd` |
| the same, and they are many | `Gauss(integral="adaptive")` |
| a gradient to tolerances of its own (`rtol=`, `atol=`, `method=`) | `Gauss` |
| the same with an error control of dL/dp, or to check `Gauss` | `Gauss(integral=…)`, below |
| memory that no number of steps increases | `Backsolve`; it says when it is lost |
| a steady state | `SteadyState`, which a `SteadyStateProblem` takes by itself |

The continuous adjoints (`Gauss`, `Backsolve`) differentiate the solution and not the numbers: their
gradients differ from `Discrete`'s by the error of both, and one that cannot be had is NaN, and an
error outside a trace. At loose tolerances that is no small thing: on the cubic spiral of the
DiffEqFlux paper, at rtol = 1e-3, y is 3 % off at the end, the gradient of its sum by `Discrete`
0.5 %, by `Gauss` 10 %, however tight λ is. Give them tight tolerances.

All adjoints differentiate by y0, args (any pytree, networks included), both ends of tspan, save
times and stops, whatever of these the method and the problem have; complex states are served, too.

## What each costs

Milliseconds of a compiled gradient on two shared cores, and megabytes besides inputs and outputs
(`python -m benchmarks.adjoints` measures again; its table is `benchmarks/results/adjoints.md`):

| | spiral, 252 weights | van der Pol, by μ | Robertson, 3 constants | 4,096 cells: MB |
|---|---|---|---|---|
| the solve alone | 0.06 | 0.012 | 0.07 | 0.4 |
| `Discrete` | 0.35 | 0.07 | 0.16 | 18 |
| `Forward` | 2,700 | 0.05 | 0.67 | 1.8 |
| `Gauss` | 0.98 | 0.10 | 0.28 | 18 |
| `Gauss(integral="adaptive")` | 1.7 | 0.11 | 0.29 | 21 |
| `Gauss(integral="augmented")` | 0.97 | 0.10 | 0.40 | 18 |
| `Backsolve` | 1.2 | 0.09 | NaN | 6.7 |

So `Forward` is for a handful of parameters: its steps suit the most demanding of all tangents.

**The integral of `Gauss`.** dL/dp = ∫ (∂f/∂p)ᵀλ dt does not act back on λ, and a Gauss–Legendre
rule on each step resolves what the solve has resolved. That fails where ∂f/∂p varies faster than f
does: dy(3)/da of y' = −y + a sin 60t at a = 0 is 0.0106, and `Gauss()` gives 0.12, with as little
notice as `Discrete` (−0.014): λ and y are smooth, and no step sees the sine. `de.check_gradient`
shows it, and two values of `integral` have an error control of it:

* `"adaptive"`, by Gauss–Kronrod rules on panels of each step. λ stays an equation of n unknowns:
  take it for an implicit method.
* `"augmented"`, by solving dL/dp along with λ. It is cheaper for an explicit method with many
  parameters; the matrices of an implicit method become as large as states and parameters together.

## What each serves

What is not served is refused before anything is traced, with those that do; forward or reverse
mode, which a solve cannot know, when it is asked for.

"""


def adjoints_page() -> str:
    """`docs/choose/adjoints.md`."""
    table, features = adjoints.known_adjoints(), adjoints.FEATURES
    kinds = {"ODEs": de.ODEProblem, "steady states": de.SteadyStateProblem}
    head = ["", *(f"`{name}`" for name in table)]
    rows = [head, ["---", *[":-:"] * len(table)]]
    mark = lambda yes: "✓" if yes else "–"
    for title, kind in kinds.items():
        rows.append([title, *(mark(cls.solves(kind)) for cls in table.values())])
    for feature, title in features.items():
        rows.append([title, *(mark(feature in cls.serves) for cls in table.values())])
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    odes = (x for x in vars(de).values() if isinstance(x, type) and issubclass(x, de.Problem))
    names = ", ".join(f"`{name}`" for name in sorted(x.__name__ for x in odes if x.is_ode))
    return ADJOINTS + lines + f"\nODEs are {names}. `Discrete` serves all other kinds, too.\n"


# --- what serves what: problems × methods × adjoints ----------------------------------------------

FIRST, LAST = "<!-- written by tools/docs_tables.py -->", "<!-- end of what it writes -->"

FAMILIES = {
    "explicit Runge–Kutta": de.Tsit5(),
    "Rosenbrock": de.Rodas5P(),
    "DIRK": de.Kvaerno3(),
    "IMEX": de.KenCarp3(),
    "Radau": de.RadauIIA5(),
    "BDF": de.BDF(),
    "symplectic": de.VelocityVerlet(),
    "Nyström": de.DPRKN6(),
    "stochastic": de.EulerMaruyama(),
}


BY_HAND = (
    de.ODEProblem, de.SplitODEProblem, de.SecondOrderProblem, de.HamiltonianProblem, de.DAEProblem,
    de.CDEProblem, de.SDEProblem,
)  # fmt: skip


def specimens() -> dict[str, de.Problem]:
    """One problem of each kind."""
    falls, span = (lambda t, y, a: -y), (0.0, 1.0)
    energy = de.Separable(lambda t, p, a: p**2 / 2, lambda t, q, a: q**2 / 2)
    ode = de.ODEProblem(falls, 1.0, span)
    return {
        "`ODEProblem`": ode,
        "`SplitODEProblem`": de.SplitODEProblem(falls, falls, 1.0, span),
        "`SecondOrderProblem`": de.SecondOrderProblem(lambda t, x, v, a: -x, 1.0, 0.0, span),
        "`HamiltonianProblem`": de.HamiltonianProblem(energy, 1.0, 0.0, span),
        "`DAEProblem`": de.DAEProblem(falls, [1.0, 0.0], span, mass_matrix=[1.0, 0.0]),
        "`ImplicitDAEProblem`": de.ImplicitDAEProblem(
            lambda t, y, dy, a: dy + y, 1.0, span, dy0=0.0, differential=True
        ),
        "`CDEProblem`": de.CDEProblem(
            lambda t, y, a: -y[..., None], lambda t: jnp.stack([t]), 1.0, span
        ),
        "`SDEProblem`": de.SDEProblem(falls, falls, 1.0, span),
        "`DDEProblem`": de.DDEProblem(
            lambda t, y, past, a: -past(t - 1.0), 1.0, span, history=1.0, lags=1.0
        ),
        "`SDDEProblem`": de.SDDEProblem(
            lambda t, y, past, a: -y, lambda t, y, past, a: y, 1.0, span, history=1.0, lags=1.0
        ),
        "`JumpProblem`": de.JumpProblem(ode, de.Jump(lambda t, y, a: 1 + y, lambda t, y, a: 2 * y)),
        "`SteadyStateProblem`": de.SteadyStateProblem(falls, 1.0),
    }


def serves(problem: de.Problem, method: de.Method) -> bool:
    """Whether a solve by the method begins, or is refused."""
    noisy = isinstance(problem, (de.SDEProblem, de.SDDEProblem, de.JumpProblem))
    key = jax.random.key(0) if noisy else None
    if isinstance(problem, de.SteadyStateProblem) and not method.adaptive:
        return False
    try:
        if isinstance(problem, de.SteadyStateProblem):
            jax.eval_shape(lambda: de.solve(problem, method).y1)
        elif not isinstance(problem, BY_HAND):
            jax.eval_shape(lambda: de.solve(problem, method, dt=0.1, key=key).y1)
        else:
            jax.eval_shape(lambda: de.init(problem, method, dt=0.1, key=key).y)
    except TypeError:
        return False
    return True


def overview_page() -> str:
    """`what-it-does.md` with its table."""
    mark = lambda yes: "✓" if yes else "–"
    rows = [["", *FAMILIES, "adjoints"], ["---", *[":-:"] * len(FAMILIES), "---"]]
    for name, problem in specimens().items():
        each = adjoints.known_adjoints().items()
        other = [name for name, cls in each if cls.solves(type(problem))]
        shown = "all" if len(other) > 2 else ", ".join(f"`{name}`" for name in other)
        rows.append([name, *(mark(serves(problem, m)) for m in FAMILIES.values()), shown])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    before, _, after = OVERVIEW_PAGE.read_text(encoding="utf8").partition(FIRST)
    return f"{before}{FIRST}\n\n{table}\n{LAST}{after.partition(LAST)[2]}"


PAGES = {
    OVERVIEW_PAGE: overview_page,
    METHODS_PAGE: methods_page,
    ADJOINTS_PAGE: adjoints_page,
    CLASSES_PAGE: classes_page,
}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(), encoding="utf8")
        print(f"wrote {path.relative_to(DOCS.parent)}")

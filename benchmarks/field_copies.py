"""How often a compiled solve holds its field, counted by an operation that stands in it once.

A field is marked with one cube root, which no solver uses. The count is that of the lowered program
after its functions are put in the place of their calls, as XLA does before all else; a loop holds
its body once. The derivative of a cube root is computed from its value, so that in a gradient each
mark is an evaluation of the field; its transposes, which go without one, are not counted.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from benchmarks import fields

MARK = "stablehlo.cbrt"
FUNCTION = re.compile(r"func\.func \w+ @([\w.]+)\(")
CALL = re.compile(r"\bcall @([\w.]+)\(")
TS = np.array([0.06, 0.31, 0.5], np.float32)


def marked(field: Callable) -> Callable:
    """The same field with a mark, which is added to the first leaf of the derivative."""

    def with_mark(t, y, *rest):
        first, *others = jax.tree.leaves(y)
        del others
        slopes, structure = jax.tree.flatten(field(t, y, *rest))
        slopes[0] = slopes[0] + jnp.cbrt(jnp.sum(first))
        return jax.tree.unflatten(structure, slopes)

    return with_mark


def marks(program: str) -> int:
    """The marks of a lowered program, with each function counted as often as it is called."""
    names = FUNCTION.findall(program)
    bodies = dict(zip(names, FUNCTION.split(program)[2::2], strict=True))

    @cache
    def inside(name: str) -> int:
        body = bodies[name]
        return body.count(MARK) + sum(inside(callee) for callee in CALL.findall(body))

    return inside("main")


def copies(loss: Callable, params) -> tuple[int, int]:
    """Those of a marked field in a loss, and in its value and gradient."""
    programs = (loss, jax.value_and_grad(loss))
    forward, gradient = (marks(jax.jit(f).lower(params).as_text()) for f in programs)
    return forward, gradient


# --- families of methods --------------------------------------------------------------------------


class Family(NamedTuple):
    """A method of ours and its peer of Diffrax, if that is in the table; the kind of its problem;
    and a step size where it has no error control.
    """

    title: str
    method: de.Method | None
    kind: str = "ordinary"
    dt: float | None = None
    peer: diffrax.AbstractSolver | None = None


FAMILIES = (
    Family("Tsit5", de.Tsit5(), peer=diffrax.Tsit5()),
    Family("Dopri8", de.Dopri8(), peer=diffrax.Dopri8()),
    Family("Rodas5P", de.Rodas5P()),
    Family("Kvaerno5", de.Kvaerno5(), peer=diffrax.Kvaerno5()),
    Family("KenCarp4", de.KenCarp4()),
    Family("RadauIIA5", de.RadauIIA5()),
    Family("BDF", de.BDF()),
    Family("the default, `method=None`", None),
    Family("SOSRI", de.SOSRI(), "noisy", 0.125),
    Family("DPRKN6", de.DPRKN6(), "mechanical"),
    Family("McAte5", de.McAte5(), "mechanical", 0.125),
)


def _network(t, y, args):
    return fields.network(y, args)


def _arithmetic(t, y, args):
    rates = args[0][0][0]
    return jnp.stack([rates[0] * y[0] - rates[1] * y[0] * y[1], rates[1] * y[0] * y[1] - y[1]])


FIELDS = {"a network 2-16-2": _network, "four products of numbers": _arithmetic}


def problem_of(kind: str, field: Callable, args) -> de.Problem:
    """Two states, or two positions and velocities, to t = 0.5. The field of a stochastic problem is
    its drift; that of a mechanical one is the force.
    """
    y0, span = jnp.array([1.0, 0.5], jnp.float32), (0.0, 0.5)
    if kind == "noisy":
        return de.SDEProblem(field, lambda t, y, args: 0.1 * y, y0, span, args)
    if kind == "mechanical":
        force = lambda t, x, v, args: field(t, x, args)
        return de.SecondOrderProblem(force, y0, -y0, span, args)
    return de.ODEProblem(field, y0, span, args)


def _loss_of_ours(family: Family, field: Callable, args):
    noise = {"key": jax.random.key(0)} if family.kind == "noisy" else {}
    step = {} if family.dt is None else {"dt": family.dt}
    problem = problem_of(family.kind, field, args)
    sol = de.solve(problem, family.method, saveat=TS, **noise, **step)
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(sol.ys))


def _loss_of_peer(family: Family, field: Callable, args):
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(field), family.peer, 0.0, 0.5, None, jnp.array([1.0, 0.5], jnp.float32),
        args, saveat=diffrax.SaveAt(ts=TS),
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
    )  # fmt: skip
    return jnp.sum(sol.ys**2)


def family_copies(family: Family) -> list[str]:
    """`forward / gradient` with each field, of ours and of the peer."""
    args = jax.tree.map(jnp.asarray, fields.layers(np.random.default_rng(0), (2, 16, 2)))
    cells = []
    for field in map(marked, FIELDS.values()):
        for loss, there in ((_loss_of_ours, True), (_loss_of_peer, family.peer is not None)):
            found = copies(lambda x, f=field, loss=loss: loss(family, f, x), args) if there else ()
            cells.append(" / ".join(map(str, found)))
    return cells


def table(families=FAMILIES) -> list[list[str]]:
    """The header and the rows."""
    head = ["method", *(f"{name}, {who}" for name in FIELDS for who in ("diffeq", "Diffrax"))]
    return [head, *([family.title, *family_copies(family)] for family in families)]

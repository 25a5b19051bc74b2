"""`canonical`: the canonical form of a problem, and what is known of a problem by its kind."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from ...autodiff.discontinuity_times import Jumps, join_jumps
from ...closures import flatten, unflatten
from ...core.dispatch import entry_for
from ...core.packing import Packing, as_state, moving_leaves, released
from ...core.user_functions import check_arguments, check_numbers, described
from ..base import Problem, evaluated
from ..cde import CDEProblem, covered
from ..dae import DAEProblem, ImplicitDAEProblem
from ..dde import DDEProblem
from ..forms import Form
from ..input_discontinuities import jumps_of_traced
from ..ode import ODEProblem, SplitODEProblem
from ..sdde import SDDEProblem
from ..sde import SDEProblem
from ..second_order import HamiltonianProblem, SecondOrderProblem, Separable
from ..steady_state import SteadyStateProblem
from .dae_rules import DaeRule, ImplicitRule
from .delay_rules import DelayRule, NoisyDelayRule
from .motion_rules import HamiltonianRule, MotionRule
from .noise_rules import SdeRule
from .ode_rules import CdeRule, OdeRule, SplitRule
from .time_interval import time_interval
from .traced_function import Traced

__all__ = [
    "Canonical",
    "canonical",
    "equation_at",
    "functions_of",
    "initial_tree",
    "named_leaves",
    "names_of",
]


class Canonical(eqx.Module):
    """A problem in the canonical form that the loop integrates.

    `form(parameters, sign, held)` gives the canonical equation in the loop's time τ = sign · t,
    which always runs forwards, with the leaves that are `held`; `packing` has the user's tree, and
    `args(parameters)` the user's args. `noise` is the shape of the Brownian motion, None where
    there is none; `delays` is None, but for an equation that looks into its past. `is_network()`
    reads from the field's equations whether it is a neural network and no more.
    """

    y0: Array
    held: tuple
    t0: Array
    t1: Array
    parameters: PyTree
    packing: Packing = eqx.field(static=True)
    form: Callable = eqx.field(static=True)
    args: Callable = eqx.field(static=True)
    noise: tuple[int, ...] | None = eqx.field(static=True, default=None)
    delays: Any = None
    jumps: Jumps = Jumps([], [], [], [])
    is_network: Callable[[], bool] = eqx.field(static=True, default=lambda: False)


def canonical(
    problem: Problem,
    polynomial: Callable | None = None,
    direction: int | None = 1,
    *,
    real: bool = False,
) -> Canonical:
    """The problem's canonical form, initial state and interval, checked.

    `real`: a complex state is seen as its real view. An equation with delays has to know its steps:
    `polynomial(t0, y0)` has the shapes of one.
    """
    rule: Any = _rule_of(problem)
    args = problem.args
    leaves, structure = flatten(args)
    leaves = [jnp.asarray(x) for x in leaves]
    tree = initial_tree(problem)
    packing = Packing(tree, real=real)
    plain = released(tree)
    y0, held = packing.pack(plain), packing.held_of(plain)
    t0, t1 = covered(problem, *time_interval(evaluated(problem.tspan, args), args, y0.dtype))
    t = jax.ShapeDtypeStruct((), t0.dtype)
    if problem.delayed:
        rule = rule.ready(problem, tree, packing, t0, y0, polynomial, direction)
    for name, f, arguments in functions_of(problem):
        check_arguments(f, name, arguments)
    traced = [
        Traced(
            f,
            name,
            problem.functions.get(name, "t, y, args"),
            t,
            parts,
            leaves,
            structure,
            fits=own[0] if own else None,
        )
        for name, f, parts, *own in rule.functions(problem, tree)
    ]
    seen = rule.seen_from(t0, t1) if problem.delayed else ()
    jumps = join_jumps(jumps_of_traced(g, leaves, seen) for g in traced)
    jac = _traced_jacobian(problem, t, tree, leaves, structure)
    zeros, large = _declared_zeros(problem), any(f.large for f in traced)
    traced = traced if jac is None else [*traced, jac]

    def form(parameters: Any, sign: Array | int, held: Sequence = ()) -> Form:
        *own, constants = parameters
        bound = [
            g.bind(leaves, hoisted, sign) for g, (leaves, hoisted) in zip(traced, own, strict=True)
        ]
        known = dict(zeros)
        if jac is not None:
            *bound, by_y = bound
            known["jac"] = lambda t, y: packing.matrix(by_y(t, packing.unpack(y)))
        made = rule.form(bound, packing.with_held(held), sign, **known, **constants)
        return made.sized(large=large or bool(zeros))

    parameters = (*((leaves, g.hoisted) for g in traced), rule.constants(problem, packing))
    return Canonical(
        y0,
        held,
        t0,
        t1,
        parameters,
        packing,
        form,
        lambda parameters: unflatten(structure, parameters[0][0]),
        rule.noise(problem, traced, y0),
        rule.delays,
        jumps,
        lambda: any(f.is_network() for f in traced),
    )


def _traced_jacobian(
    problem: Problem, t: jax.ShapeDtypeStruct, tree: PyTree, leaves: list, structure: Hashable
) -> Traced | None:
    """The user's ∂f/∂y, if there is one, traced like a field."""
    jac = getattr(problem, "jac", None)
    if not callable(jac):
        return None
    check_arguments(jac, "jac", "t, y, args")
    if any(Packing(tree).held):
        raise TypeError("jac was given and y0 has leaves that are held: leave out one of the two.")
    return Traced(jac, "jac", "t, y, args", t, (tree,), leaves, structure, fits=_checked_jacobian)


def _declared_zeros(problem: Problem) -> dict[str, Any]:
    """The structure that jac declares of ∂f/∂y, once it is known, as a part of the equation. Its
    linear systems are many operations: they are compiled once, in a loop over the stages.
    """
    jac = getattr(problem, "jac", None)
    return {} if jac is None or callable(jac) or not jac.is_known else {"jac": jac}


def _checked_jacobian(name: str, value: PyTree, parts: tuple) -> PyTree:
    """Returns the value of jac, if it has the tree of `jax.jacfwd` of the field by y."""
    value, like = as_state(value), parts[0]
    check_numbers(name, value)
    if isinstance(value, (list, tuple)) and isinstance(like, jax.Array):
        value = jnp.asarray(value)  # rows, as lists
    wanted = jax.tree.map(
        lambda f: jax.tree.map(lambda y: (*jnp.shape(f), *jnp.shape(y)), like), like
    )
    found = jax.tree.map(jnp.shape, value)
    if found != wanted:
        raise TypeError(
            f"{name} returned {described(value)}; y is {described(like)}, and ∂f/∂y has for each "
            f"leaf of f the tree of y, with the shapes {str(wanted).replace("'", '')}."
        )
    return value


def equation_at(
    problem: Problem, t: ArrayLike, y: PyTree, *, real: bool = True
) -> tuple[Any, Packing, Array, Array]:
    """The equation with a time and a state of it, to look into on the host; `real`: as implicit
    methods see them.
    """
    entry = canonical(problem, real=real)
    y = released(y)
    form = entry.form(entry.parameters, 1, entry.packing.held_of(y))
    return form, entry.packing, jnp.asarray(t, entry.t0.dtype), entry.packing.pack(y)


def initial_tree(problem: Problem) -> PyTree:
    """The initial state as the user's tree: real or complex numbers, and at least one; and leaves
    that are marked as held, of any kind.
    """
    rule = _rule_of(problem)
    tree = rule.state(problem, problem.args)
    if not jax.tree.leaves(moving_leaves(tree)):
        found = "only leaves that are held" if jax.tree.leaves(tree) else "no arrays"
        raise ValueError(f"{rule.names[0]} has {found} in it; give at least one number to solve.")
    if all(np.size(leaf) == 0 for leaf in jax.tree.leaves(moving_leaves(tree))):
        raise ValueError(f"{rule.names[0]} is {described(tree)}, empty; give at least one number.")
    for name, leaf in named_leaves(problem, moving_leaves(tree)):
        dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if jnp.issubdtype(dtype, jnp.inexact):
            continue
        if jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool):
            raise TypeError(
                f"{name} has dtype {dtype}; a state is real or complex: write 1.0 for 1."
            )
        raise TypeError(
            f"{name} is {leaf!r}; a number or an array is wanted, or a tree of these, or a "
            "function of args."
        )
    for name, leaf in named_leaves(problem, released(tree)):
        if not hasattr(leaf, "dtype") and np.asarray(leaf).dtype.kind not in "biufc":
            raise TypeError(f"{name} is held and is {leaf!r}; a number or an array is wanted.")
    return tree


def named_leaves(problem: Problem, state: PyTree) -> Iterator[tuple[str, Any]]:
    """The leaves of a problem's state with their names: y0['x'], or x0 and v0."""
    names = _rule_of(problem).names
    parts = [state] if len(names) == 1 else state
    for name, part in zip(names, parts, strict=True):
        for path, leaf in jax.tree.flatten_with_path(part)[0]:
            yield name + jax.tree_util.keystr(path), leaf


def functions_of(problem: Problem | Separable) -> Iterator[tuple[str, Any, str]]:
    """(name, function, what it is called with), for each function of a problem."""
    for name, arguments in problem.functions.items():
        f = getattr(problem, name)
        yield name, f, arguments
        if isinstance(f, Separable):
            yield from functions_of(f)


def names_of(problem: Problem) -> tuple[str, ...]:
    """The fields that make up the initial state: y0; or positions, and velocities or momenta."""
    return _rule_of(problem).names


def _rule_of(problem: Any) -> Any:
    rule = entry_for(_RULES, type(problem))
    if rule is None:
        raise TypeError(
            f"problem is a {type(problem).__name__}; solve takes one of "
            f"{', '.join(kind.__name__ for kind in _RULES)}."
        )
    return rule.of(problem) if hasattr(rule, "of") else rule


_RULES: dict[type, Any] = {
    ODEProblem: OdeRule,
    CDEProblem: CdeRule,
    DAEProblem: DaeRule,
    ImplicitDAEProblem: ImplicitRule,
    SplitODEProblem: SplitRule,
    SecondOrderProblem: MotionRule,
    HamiltonianProblem: HamiltonianRule,
    SteadyStateProblem: OdeRule,
    SDEProblem: SdeRule,
    DDEProblem: DelayRule,
    SDDEProblem: NoisyDelayRule,
}

"""The canonical form of a user's problem, over packed arrays.

`Canonical.of(problem)` evaluates what depends on args, packs the state, checks what the field
returns, and reverses time where it runs backwards. Methods never see a problem.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, PyTree

from ..autodiff.component_dependence import own_components
from ..autodiff.discontinuity_times import Jumps, concatenate_times, join_jumps, jumping, turns_of
from ..autodiff.jax_internals import (
    Jaxpr,
    constants_of,
    count_equations,
    evaluate,
    influences,
    input_types,
    shape_of,
    with_constants,
)
from ..autodiff.loop_invariant import split_invariant
from ..autodiff.network_layers import is_network
from ..closures import check_indices, flatten, no_writes, unflatten
from ..core.dispatch import entry_for
from ..core.packing import Packing, as_state, moving_leaves, released, without_held
from ..core.promotion import user_promotion
from .base import Problem, evaluated
from .cde import CDEProblem, Path, covered
from .dae import (
    DAEProblem,
    ImplicitDAEProblem,
    algebraic_rows,
    free_projector,
    packed_differential,
    packed_index,
    packed_mass,
    packed_slope,
)
from .dde import DDEProblem, SinceStart, depends_on_state
from .forms import (
    Delayed,
    Form,
    Implicit,
    Increments,
    Ito,
    Mass,
    Ode,
    Partitioned,
    Split,
    Stratonovich,
    apply_diffusion,
)
from .history import History, HistoryView, Past, StepLayout
from .input_discontinuities import jumps_of_traced
from .log_ode import driven_by_brackets
from .ode import ODEProblem, SplitODEProblem
from .sdde import SDDEProblem
from .sde import SDEProblem
from .second_order import HamiltonianProblem, SecondOrderProblem, Separable
from .steady_state import SteadyStateProblem
from .user_functions import (
    annotate_errors,
    check_arguments,
    check_numbers,
    described,
    paired_leaves,
)

__all__ = [
    "Canonical",
    "as_rate",
    "canonical",
    "equation_at",
    "functions_of",
    "initial_tree",
    "named_leaves",
    "names_of",
    "time_dtype",
    "time_interval",
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


class Delays(eqx.Module):
    """The delays as they are known at the start.

    `lags` are the declared ones, in the loop's unit; `constant` says whether they stay so, and
    `jumps` whether y0 is another state than the end of the history.
    """

    lags: Array
    shape: StepLayout = eqx.field(static=True)
    constant: bool = eqx.field(static=True)
    jumps: bool = eqx.field(static=True)


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


# A field of more equations is evaluated in a loop over the stages. Measured: 4 reactions written
# out (65 equations) and networks of 4 layers run faster as straight code, by a half; 12 reactions
# and 8 layers compile in half the time in a loop. A matrix product is worth several equations: its
# derivative is two more of them. One small network (2-50-2, 2-16-16-2) compiles in two thirds of
# the time in a loop, and its gradient runs as fast or a tenth slower; of a batch of them it
# compiles in as long, and is slower by a tenth to a half. A batch may come later, by `vmap`.
_FEW = 80
_WORTH = {"dot_general": 8, "conv_general_dilated": 8}


def _apart(tree: PyTree) -> PyTree:
    """Arrays behind barriers, each behind its own: in a derivative only some of them may move."""
    return jax.tree.map(lax.optimization_barrier, tree)


class Traced:
    """A user's function of (t, *parts, args, *extra), traced once: in a step it is used many times,
    and in its derivatives many times more, at the price of one Python call.

    What it closes over is `hoisted`, an input like any other. `fits(name, value, parts)` returns
    the value, if it is one that the function may return.
    """

    def __init__(
        self,
        f: Callable,
        name: str,
        arguments: str,
        t: jax.ShapeDtypeStruct,
        parts: tuple,
        leaves: list,
        structure: Hashable,
        *,
        extra: tuple = (),
        fits: Callable | None = None,
    ) -> None:
        fits = as_rate if fits is None else fits
        self.name = name
        self.count = [len(jax.tree.leaves(p)) for p in parts]
        arrays = [jax.tree.map(lambda x: shape_of(jnp.asarray(x)), released(p)) for p in parts]

        marked = parts

        def call(t: Array, parts: tuple, leaves: list, extra: tuple) -> PyTree:
            args = unflatten(structure, leaves)
            given = (t, *parts, args)
            with no_writes(name, f, args), annotate_errors(name, arguments, *given):
                with user_promotion():
                    value = f(t, *parts, args, *extra)
                return fits(name, value, marked)

        shaped = jax.make_jaxpr(call, return_shape=True)
        self.equations, shape = shaped(t, tuple(arrays), leaves, extra)
        # A past is longer in a solve than here, and may be looked at within a loop of the user's.
        looks = any(isinstance(p, HistoryView) for p in parts)
        if looks:  # any other was a program before, and looked at then
            check_indices(name, self.equations, [])
        inputs = jax.tree.structure((t, tuple(arrays), leaves, extra))
        self.again = partial(_traced_again, call, inputs, {}) if looks else None
        self.tree = jax.tree.structure(shape)
        self.shapes = [x.shape for x in jax.tree.leaves(shape)]
        self.is_network = partial(self._is_network, self.equations, len(leaves))
        self.hoisted = constants_of(self.equations)
        self._hoist(sum(self.count) + 1, leaves)

    def _is_network(self, equations: Jaxpr, parameters: int) -> bool:
        """True if it is a neural network of the state, whose weights are in args or closed over:
        read when it is asked, from the equations before any of them is hoisted.
        """
        count, state = len(input_types(equations)), 1 + sum(self.count)
        inputs = [1 <= i < state for i in range(count)]
        given = [state <= i < state + parameters for i in range(count)]
        return is_network(equations, inputs, given)

    def _hoist(self, first: int, leaves: list) -> None:
        """Computes now what depends on parameters alone: those are the inputs from the `first`."""
        count = len(input_types(self.equations))
        fixed = [first <= i < first + len(leaves) for i in range(count)]
        found = None if self.again is not None else split_invariant(self.equations, fixed)
        if found is not None:
            before, rest = found
            self.hoisted += evaluate(before, [*self.hoisted, *leaves])
            self.equations = with_constants(rest, self.hoisted)

    def bind(self, leaves: list, hoisted: list, sign: Array | int) -> Callable:
        """The function of (τ, *parts) with its parameters in place."""

        def bound(tau: Array, *parts: PyTree) -> PyTree:
            value = self.at(leaves, hoisted, flip_time(sign, tau), *parts)
            return jax.tree.map(lambda x: flip_time(sign, x), value)

        bound.uses = self.uses  # pyright: ignore[reportFunctionMemberAccess]
        bound.pointwise = self.pointwise  # pyright: ignore[reportFunctionMemberAccess]
        bound.parts = self.parts  # pyright: ignore[reportFunctionMemberAccess]
        bound.shapes = self.shapes  # pyright: ignore[reportFunctionMemberAccess]
        return bound

    def at(
        self, leaves: list, hoisted: list, t: Array, *parts: PyTree, extra: tuple = ()
    ) -> PyTree:
        """The value at the problem's own time t, as it was returned."""
        # Barriers around it, or XLA puts a stage together with what makes its state, and computes
        # it again in each of the places that use it: a gradient is compiled in two thirds of the
        # time, and runs in as much (of 20 reactions, in a fifth of the time and a quarter).
        t, parts = _apart((t, parts))
        flat = [t, *jax.tree.leaves(parts), *leaves, *jax.tree.leaves(extra)]
        wanted = input_types(self.equations)
        flat = [jnp.asarray(x, a.dtype) for x, a in zip(flat, wanted, strict=True)]
        equations = self.equations if self.again is None else self.again(flat)
        out = evaluate(with_constants(equations, hoisted), flat)
        return jax.tree.unflatten(self.tree, _apart(out))

    @property
    def large(self) -> bool:
        """True if it has so many equations that steps evaluate it in a loop over their stages."""
        return count_equations(self.equations, _WORTH) > _FEW

    @property
    def parts(self) -> int:
        """The number of parts of the state, and of its other inputs, that it is called with."""
        return len(self.count)

    def uses(self, part: int) -> bool:
        """True if the value depends on this part of the state."""
        start = 1 + sum(self.count[:part])
        return any(influences(self.equations)[start : start + self.count[part]])

    def pointwise(self, part: int, held: Sequence[bool] = ()) -> bool:
        """True if each component of the value depends on its own of this part alone, leaves of it
        that are `held` aside.
        """
        start = 1 + sum(self.count[:part])
        own = {start + i for i in range(self.count[part]) if not (held and held[i])}
        count = len(input_types(self.equations))
        return own_components(self.equations, [i in own for i in range(count)])


def _traced_again(call: Callable, inputs: PyTree, known: dict, flat: list) -> Any:
    """A function that was traced before, for arrays of other lengths."""
    lengths = tuple(x.shape for x in flat)
    if lengths not in known:
        shapes = [shape_of(x) for x in flat]
        known[lengths] = jax.make_jaxpr(call)(*jax.tree.unflatten(inputs, shapes))
    return known[lengths]


def as_rate(name: str, value: PyTree, parts: tuple, must: str = "dy/dt must match it") -> PyTree:
    """Returns the value of a field, if it fits the state; leaves that are held have none."""
    like = moving_leaves(parts[0])
    holds = jax.tree.structure(like) != jax.tree.structure(released(parts[0]))
    return checked(name, without_held(value, parts[0]) if holds else as_state(value), like, must)


def flip_time(sign: Array | int, x: Array) -> Array:
    """x, or −x where time runs backwards. A known direction costs nothing."""
    return x if isinstance(sign, int) and sign == 1 else jnp.asarray(sign, jnp.result_type(x)) * x


def checked(name: str, value: PyTree, like: PyTree, must: str = "dy/dt must match it") -> PyTree:
    """Returns the value of a field, if it fits the state; a list of scalars stands for a vector."""
    check_numbers(name, value)
    if jax.tree.structure(value) != jax.tree.structure(like):
        raise TypeError(f"{name} returned {described(value)}; y is {described(like)}, and {must}.")
    for where, dy, y in paired_leaves(value, like):
        if jnp.shape(dy) != jnp.shape(y):
            raise TypeError(
                f"{name} returned shape {jnp.shape(dy)}{where}; y has shape {jnp.shape(y)}, and "
                f"{must}."
            )
        got, state = jnp.result_type(dy), jnp.result_type(y)
        if jnp.promote_types(got, state) != state:
            tree = not jax.tree_util.all_leaves([value])
            cast = (
                f"jax.tree.map(lambda x: x.astype('{state}'), dy)" if tree else "dy.astype(y.dtype)"
            )
            raise TypeError(
                f"{name} returned dtype {got}{where}, wider than the state's {state}: give y0 as "
                f"{got}, or cast what {name} returns, {cast}."
            )
    return value


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


def time_interval(tspan: Any, args: PyTree, dtype: DTypeLike) -> tuple[Array, Array]:
    """(t0, t1) in the real dtype of the state, promoted with arrays in tspan."""
    if not isinstance(tspan, (tuple, list)) and getattr(tspan, "shape", None) != (2,):
        raise TypeError(f"tspan is {tspan!r}; a pair (t0, t1) is wanted, or a function of args.")
    if len(tspan) != 2:
        raise TypeError(f"tspan has {len(tspan)} entries; a pair (t0, t1) is wanted.")
    ends = [evaluated(t, args) for t in tspan]
    t0, t1 = (jnp.asarray(t, time_dtype(ends, dtype)) for t in ends)
    for name, t in (("start", t0), ("end", t1)):
        if t.shape != ():
            raise ValueError(f"tspan's {name} has shape {t.shape}; a scalar is wanted.")
    return t0, t1


def time_dtype(ends: Sequence, dtype: DTypeLike) -> np.dtype:
    """The dtype of t: the real one of the state's, promoted with those of arrays in tspan."""
    real = jnp.finfo(dtype).dtype
    found = jnp.result_type(real, *(t for t in ends if hasattr(t, "dtype")))
    return found if jnp.issubdtype(found, jnp.floating) else real


# --- one rule a problem -----------------------------------------------------------------------


class _ProblemRule:
    names: tuple[str, ...] = ("y0",)
    delays: Any = None

    @staticmethod
    def constants(problem: Any, packing: Packing) -> dict:
        """Arrays that stay what they are during a solve, by their names in the form."""
        del problem, packing
        return {}

    @staticmethod
    def noise(problem: Any, traced: list, y0: Array) -> tuple[int, ...] | None:
        """The shape of the Brownian motion, if there is one."""
        del problem, traced, y0
        return None


class _OdeRule(_ProblemRule):
    @staticmethod
    def state(problem: Any, args: PyTree) -> PyTree:
        return as_state(evaluated(problem.y0, args))

    @staticmethod
    def functions(problem: Any, tree: PyTree) -> list:
        return [("f", problem.f, (tree,))]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        del sign
        return Ode(_on_packed(at[0], packing), **known)


class _CdeRule(_ProblemRule):
    """A field with a column for each channel of its control: by the derivative of that an ordinary
    equation, or one of increments.
    """

    state = staticmethod(_OdeRule.state)

    def __init__(self, control: Callable, by: str) -> None:
        self.control, self.by_increments = control, by == "increments"

    @classmethod
    def of(cls, problem: CDEProblem) -> "_CdeRule":
        return cls(problem.control, problem.by)

    def functions(self, problem: CDEProblem, tree: PyTree) -> list:
        """The field, and the control or its derivative as a function of t alone."""
        self.path = path = Path(self.control)
        along = path.value if self.by_increments else path.rate
        fits = partial(_checked_columns, path)
        return [
            ("f", problem.f, (tree,), fits),
            ("control", lambda t, args: along(t), (), _as_it_is),
        ]

    def form(self, at: list, packing: Packing, sign: Array | int) -> Form:
        """The equation in the loop's time, in which both functions come with its direction."""
        f, along = at

        def field(t: Array, y: Array) -> Array:
            rate = along(t)
            tree = f(t, packing.unpack(y))
            return packing.pack(jax.tree.map(lambda g: flip_time(sign, _applied(g, rate)), tree))

        def columns(t: Array, y: Array) -> Array:
            tree = jax.tree.map(lambda g: flip_time(sign, g), f(t, packing.unpack(y)))
            return jax.vmap(packing.pack, -1, -1)(tree)

        def bracketed(t: Array, y: Array) -> Array:
            own = partial(columns, t)
            rate = along(t).astype(y.real.dtype)
            return driven_by_brackets(own, y, rate, self.path.channels, self.path.depth)

        if self.by_increments:
            return Increments.of(columns, lambda t: flip_time(sign, along(t)))
        brackets = self.path.depth > 1 and f.shapes[0][-1] == self.path.channels
        return Ode(bracketed if brackets else field)


def _applied(g: Array, rate: Array) -> Array:
    """Columns times the rates of their channels, in the precision of the columns."""
    return apply_diffusion("general", g, rate.astype(jnp.finfo(g.dtype).dtype))


def _checked_columns(path: Path, name: str, value: PyTree, parts: tuple) -> PyTree:
    """Returns the value of a field along a control, if it has a column for each channel."""
    like = moving_leaves(parts[0])
    value = value if like is parts[0] else without_held(value, parts[0])
    if isinstance(value, (list, tuple)) and isinstance(like, jax.Array):
        value = jnp.asarray(value)  # rows, as lists
    check_numbers(name, value)
    fits = jax.tree.structure(value) == jax.tree.structure(like)
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(like), strict=False)
    shapes = [(jnp.shape(g), jnp.shape(y)) for g, y in pairs]
    fits = fits and all(g[:-1] == y and len(g) == len(y) + 1 for g, y in shapes)
    counts = {g[-1] for g, _ in shapes} if fits else set()
    if len(counts) != 1 or not counts <= {path.channels, path.words}:
        own, words = path.channels, path.words
        wanted = jax.tree.map(lambda y: (*jnp.shape(y), own), like)
        more = f", or {words} in place of {own}, one for each word" if words != own else ""
        raise TypeError(
            f"{name} returned {described(value)}; y is {described(like)} and control has {own} "
            f"channel{'s' * (own != 1)}, so that (*y.shape, channels) is wanted: {wanted}{more}."
        )
    _check_width(name, value, like)
    return value


class _SplitRule(_OdeRule):
    @staticmethod
    def functions(problem: SplitODEProblem, tree: PyTree) -> list:
        return [("implicit", problem.implicit, (tree,)), ("explicit", problem.explicit, (tree,))]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        del sign
        return Split(_on_packed(at[0], packing), _on_packed(at[1], packing), **known)


class _DaeRule(_ProblemRule):
    """An equation with a mass matrix, and the index of its components, which is static."""

    state = staticmethod(_OdeRule.state)
    functions = staticmethod(_OdeRule.functions)

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def of(cls, problem: DAEProblem) -> "_DaeRule":
        return cls(problem.index)

    @staticmethod
    def constants(problem: DAEProblem, packing: Packing) -> dict:
        """M, and the projector on what it cannot reach: of a higher index rows of the equations."""
        mass, index = packed_mass(problem, packing), packed_index(problem.index, packing)
        return {"mass": mass, "free": (free_projector if index is None else algebraic_rows)(mass)}

    def form(self, at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        """M y' = f."""
        del sign
        return Mass(_on_packed(at[0], packing), **known, index=packed_index(self.index, packing))


class _ImplicitRule(_OdeRule):
    @staticmethod
    def constants(problem: ImplicitDAEProblem, packing: Packing) -> dict:
        guess, args = packed_slope(problem, packing), problem.args
        t0, t1 = time_interval(evaluated(problem.tspan, args), args, guess.dtype)
        flags, span = packed_differential(problem, packing), jnp.abs(t1 - t0).astype(guess.dtype)
        return {"differential": flags, "guess": guess, "span": lax.stop_gradient(span)}

    @staticmethod
    def functions(problem: ImplicitDAEProblem, tree: PyTree) -> list:
        fits = partial(as_rate, must="there is one equation for each component")
        return [("residual", problem.residual, (tree, moving_leaves(tree)), fits)]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        def residual(t: Array, y: Array, dy: Array) -> Array:
            value = at[0](t, packing.unpack(y), packing.rates_of(flip_time(sign, dy)))
            value = packing.pack(value)
            if not packing.viewed or packing.real_mask.all():
                return value
            # An imaginary part that is not there stays what it is.
            return jnp.where(packing.real_mask.reshape(value.shape), value, dy)

        return Implicit(residual, **{**known, "guess": flip_time(sign, known["guess"])})


def _as_it_is(name: str, value: PyTree, parts: tuple) -> PyTree:
    """Returns the value of a function of this package, which fits."""
    del name, parts
    return value


def _unpacked(f: Callable, packing: Packing) -> Callable:
    """A function of the user's state as one of packed states."""
    return lambda t, y: f(t, packing.unpack(y))


def _on_packed(f: Callable, packing: Packing) -> Callable:
    """The function over packed states; its other inputs stay as they are."""
    return lambda t, y, *seen: packing.pack(f(t, packing.unpack(y), *seen))


class _SdeRule(_ProblemRule):
    """An equation with noise; what is declared of that is static."""

    state = staticmethod(_OdeRule.state)

    def __init__(self, kind: str, interpretation: str) -> None:
        self.kind = kind
        self.wanted = Ito if interpretation == "ito" else Stratonovich

    @classmethod
    def of(cls, problem: SDEProblem | SDDEProblem) -> "_SdeRule":
        return cls(problem.noise, problem.interpretation)

    def functions(
        self, problem: SDEProblem | SDDEProblem, tree: PyTree, *seen: HistoryView
    ) -> list:
        """The functions, of the state and of what else is seen."""
        check = partial(_checked_diffusion, self.kind)
        parts = (tree, *seen)
        return [("drift", problem.drift, parts), ("diffusion", problem.diffusion, parts, check)]

    def form(self, at: list, packing: Packing, sign: Array | int) -> Form:
        del sign
        drift, diffusion = at
        pack = packing.pack if self.kind != "general" else partial(_columns, packing)
        g = lambda t, y, *seen: pack(diffusion(t, packing.unpack(y), *seen))  # noqa: E731
        own = self.kind == "diagonal" and diffusion.pointwise(0, packing.held)
        recalls = diffusion.parts > 1 and diffusion.uses(1)
        additive = not diffusion.uses(0) and not recalls
        return self.wanted(_on_packed(drift, packing), g, self.kind, additive, own, recalls)

    @staticmethod
    def noise(problem: SDEProblem | SDDEProblem, traced: list, y0: Array) -> tuple[int, ...]:
        diffusion = traced[1]
        parts = ("y", "past")[: diffusion.parts]
        used = [name for i, name in enumerate(parts) if diffusion.uses(i)]
        if problem.additive and used:
            raise TypeError(
                "additive=True says that diffusion depends on t and args alone, but it uses "
                f"{used[0]}. Leave additive out; or, if y gives it only a shape, write "
                "jnp.full_like(y, value)."
            )
        if problem.noise == "diagonal":
            return y0.shape
        return () if problem.noise == "scalar" else diffusion.shapes[0][-1:]


def _columns(packing: Packing, tree: PyTree) -> Array:
    """A diffusion whose leaves have a last axis more, packed along the others."""
    leaves = [jnp.asarray(leaf, packing.dtype) for leaf in jax.tree.leaves(tree)]
    if packing.single:
        return leaves[0]
    return jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves])


def _checked_diffusion(kind: str, name: str, value: PyTree, parts: tuple) -> PyTree:
    """Returns the value of a diffusion, if it fits the state and the noise that was declared."""
    like = moving_leaves(parts[0])
    value = as_state(value) if like is parts[0] else without_held(value, parts[0])
    check_numbers(name, value)
    wants = {
        "diagonal": "noise='diagonal' wants one number for each of y's, so the shapes of y",
        "scalar": "noise='scalar' wants the shapes of y",
        "general": "noise='general' wants the shapes of y with one more axis at the end, of one "
        "length: a column for each Brownian motion",
    }[kind]
    fits = jax.tree.structure(value) == jax.tree.structure(like)
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(like), strict=False)
    shapes = [(jnp.shape(g), jnp.shape(y)) for g, y in pairs]
    if kind == "general":
        fits = fits and len({g[len(y) :] for g, y in shapes}) == 1
        fits = fits and all(len(g) == len(y) + 1 and g[:-1] == y for g, y in shapes)
        square = ""
    else:
        fits = fits and all(g == y for g, y in shapes)
        matrix = any(len(g) == len(y) + 1 for g, y in shapes)
        square = " For a matrix give noise='general'." if matrix else ""
    if not fits:
        raise TypeError(
            f"{name} returned {described(value)} for y = {described(like)}; {wants}.{square}"
        )
    _check_width(name, value, like)
    return value


def _check_width(name: str, value: PyTree, like: PyTree) -> None:
    """Refuses columns of a wider dtype than the state has."""
    number = lambda x: jax.ShapeDtypeStruct((), jnp.result_type(x))  # noqa: E731
    checked(name, jax.tree.map(number, value), jax.tree.map(number, like))


class _MotionRule(_ProblemRule):
    """Positions and momenta, each half of the packed state."""

    names: tuple[str, ...] = ("x0", "v0")

    @classmethod
    def state(cls, problem: Problem, args: PyTree) -> PyTree:
        q, p = (as_state(evaluated(getattr(problem, name), args)) for name in cls.names)
        if _shapes(moving_leaves(q)) != _shapes(moving_leaves(p)):
            first, second = cls.names
            raise TypeError(
                f"{second} is {described(p)}; it must match {first}, which is {described(q)}."
            )
        return q, p

    @staticmethod
    def functions(problem: SecondOrderProblem, tree: PyTree) -> list:
        return [("f", problem.f, tree)]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int) -> Form:
        kick = _on_halves(at[0], packing)
        separable = not at[0].uses(1)
        return Partitioned(lambda t, q, p: flip_time(sign, p), kick, separable, identity=True)


class _HamiltonianRule(_MotionRule):
    names = ("q0", "p0")

    @staticmethod
    def functions(problem: Any, tree: PyTree) -> list:
        energy = problem.hamiltonian
        return [
            ("hamiltonian", _energy_gradient(energy, tree, of_momentum=True), tree),
            ("hamiltonian", _energy_gradient(energy, tree, of_momentum=False), tree),
        ]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int) -> Form:
        del sign
        velocity, force = at
        drift = _on_halves(velocity, packing)
        push = _on_halves(force, packing)
        separable = not velocity.uses(0) and not force.uses(1)
        return Partitioned(drift, lambda t, q, p: -push(t, q, p), separable, identity=False)


def _energy_gradient(energy: Callable, tree: tuple, *, of_momentum: bool) -> Callable:
    """The derivative of an energy by positions or momenta (but for those that are held)."""
    marked = tree[of_momentum]

    def slope(t: Array, q: PyTree, p: PyTree, args: PyTree) -> PyTree:
        def of_part(z: PyTree) -> PyTree:
            z = _with_moving(z, p if of_momentum else q, marked)
            if isinstance(energy, Separable):
                part = energy.kinetic if of_momentum else energy.potential
                return _check_energy(part(t, z, args))
            return _check_energy(energy(t, q, z, args) if of_momentum else energy(t, z, p, args))

        found = jax.grad(of_part)(_moving_of(p if of_momentum else q, marked))
        packing = Packing(marked)
        return jax.tree.unflatten(packing.rates, found) if packing.holds else found

    return slope


def _moving_of(tree: PyTree, marked: PyTree) -> PyTree:
    """Those leaves of the tree that are not held in the marked one."""
    packing = Packing(marked)
    if not packing.holds:
        return tree
    each = zip(jax.tree.leaves(tree), packing.held, strict=True)
    return [x for x, held in each if not held]


def _with_moving(own: PyTree, tree: PyTree, marked: PyTree) -> PyTree:
    """Returns the tree with `own` in the place of the leaves that are not held."""
    packing = Packing(marked)
    if not packing.holds:
        return own
    each, found = zip(jax.tree.leaves(tree), packing.held, strict=True), iter(own)
    return jax.tree.unflatten(packing.tree, [x if held else next(found) for x, held in each])


def _check_energy(energy: PyTree) -> PyTree:
    check_numbers("hamiltonian", energy)
    if jnp.shape(energy) != ():
        raise TypeError(f"hamiltonian returned shape {jnp.shape(energy)}; an energy is a scalar.")
    return energy


def _shapes(tree: PyTree) -> tuple:
    return jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)]


def _on_halves(f: Callable, packing: Packing) -> Callable:
    """A function of trees as one of vectors (t, q, p); each half is packed like positions alone."""
    blank = packing.marked(jnp.zeros(sum(map(math.prod, packing.shapes)), packing.dtype))
    of_q, of_p = (Packing(half, packing.dtype) for half in blank)
    shape = of_q.shapes[0] if of_q.single else (-1,)
    count = sum(of_q.held)

    def of_vectors(t: Array, q: Array, p: Array) -> Array:
        kept = (packing.kept[:count], packing.kept[count:])
        trees = (of_q.unpack(q.reshape(shape), kept[0]), of_p.unpack(p.reshape(shape), kept[1]))
        return of_q.pack(f(t, *trees)).ravel()

    return of_vectors


class _DelayRule(_ProblemRule):
    """A field that sees its past; what it is traced with is the past's arrays."""

    def __init__(
        self,
        problem: DDEProblem | SDDEProblem,
        packing: Packing,
        delays: Delays,
        direction: int | None,
    ) -> None:
        del problem
        self.packing, self.shape = packing, delays.shape
        self.delays, self.direction = delays, direction

    @staticmethod
    def state(problem: DDEProblem | SDDEProblem, args: PyTree) -> PyTree:
        """y0, or where there is none the end of the history."""
        start = _history_at(problem, _start_time(problem, args), args)
        if problem.y0 is None:
            return start
        y0 = as_state(evaluated(problem.y0, args))
        if _shapes(released(y0)) != _shapes(released(start)):
            raise TypeError(
                f"history is {described(start)}; it must match y0, which is {described(y0)}."
            )
        return y0

    @classmethod
    def ready(
        cls,
        problem: DDEProblem | SDDEProblem,
        tree: PyTree,
        packing: Packing,
        t0: Array,
        y0: Array,
        polynomial: Callable,
        direction: int | None,
    ) -> "_DelayRule":
        """The rule, once the state is known."""
        shape = StepLayout(polynomial(t0, y0), t0, packing.held_of(released(tree)))
        constant = not depends_on_state(problem.lags)
        args = problem.args
        lags = evaluated(problem.lags, args) if constant else problem.lags(t0, tree, args)
        flat = [jnp.ravel(jnp.asarray(x, t0.dtype)) for x in jax.tree.leaves(lags)]
        lags = jnp.concatenate(flat) if flat else jnp.zeros(0, t0.dtype)
        delays = Delays(lags, shape, constant, problem.y0 is not None)
        return cls(problem, packing, delays, direction)

    def functions(self, problem: Any, tree: PyTree) -> list:
        """The field as a function of (t, y, seen, args)."""
        field = ("f", self._sees(problem.f, problem), (tree, self._seen()))
        return [field, *self._watched(problem, tree)]

    def _watched(self, problem: Any, tree: PyTree) -> list:
        """Of lags that depend on the state whether they reach back to a jump at the start."""
        watched = self.delays.jumps and not self.delays.constant
        return [("lags", SinceStart(problem), (tree,), _as_it_is)] if watched else []

    def _sees(self, f: Callable, problem: DDEProblem | SDDEProblem) -> Callable:
        """A function of (t, y, past, args) as one of (t, y, seen, args)."""
        known = (self.packing, self.shape, self.direction, self.delays.jumps)
        return partial(_call_with_past, f, problem.history, known)

    def seen_from(self, t0: Array, t1: Array) -> list:
        """Of the leaves of a `HistoryView` where the past begins, and the direction of time."""
        sign = self.direction or jnp.where(t1 < t0, -1, 1).astype(t0.dtype)
        return self._seen().known(flip_time(sign, t0), sign)

    def form(self, at: list, packing: Packing, sign: Array | int) -> Form:
        """The equation, with nothing in its past yet."""
        inside = jnp.asarray(sign, self.shape.time) if self.direction is None else ()
        blank = History.blank(self.shape, 1)
        watched = self.delays.jumps and not self.delays.constant
        *at, since = at if watched else (*at, None)
        equation = self._equation(at, packing, sign)
        since = None if since is None else _unpacked(since, packing)
        return Delayed(equation, self.shape, blank, jnp.inf, inside, packing.kept, since)

    def _equation(self, at: list, packing: Packing, sign: Array | int) -> Form:
        """The equation whose functions are called with (t, y, seen)."""
        return _OdeRule.form(at, packing, sign)

    def _seen(self) -> HistoryView:
        t = jnp.zeros((), self.shape.time)
        sign = t if self.direction is None else ()
        history, ahead = History.blank(self.shape, 1), self.shape.filled(0.0)
        return HistoryView(history, ahead, t, t, t, sign)


class _NoisyDelayRule(_DelayRule):
    """Drift and diffusion that see their past: both as in an equation with noise."""

    noise = staticmethod(_SdeRule.noise)

    def __init__(
        self, problem: SDDEProblem, packing: Packing, delays: Delays, direction: int | None
    ) -> None:
        super().__init__(problem, packing, delays, direction)
        self.noisy = _SdeRule.of(problem)

    def functions(self, problem: SDDEProblem, tree: PyTree) -> list:
        """Both as functions of (t, y, seen, args)."""
        seen = self._seen()
        named = self.noisy.functions(problem, tree, seen)
        found = [(name, self._sees(f, problem), *rest) for name, f, *rest in named]
        return [*found, *self._watched(problem, tree)]

    def _equation(self, at: list, packing: Packing, sign: Array | int) -> Form:
        return self.noisy.form(at, packing, sign)


def _call_with_past(
    f: Callable,
    history: Callable | PyTree,
    known: tuple,
    t: Array,
    y: PyTree,
    seen: HistoryView,
    args: PyTree,
) -> PyTree:
    """Evaluates f with the past that `seen` holds."""
    packing, shape, direction, jumps = known
    now = packing.held_of(y)
    turns = turns_of(lambda s: _history_at_time(history, s, args), t) if callable(history) else []

    def before(s: Array) -> tuple[Array, tuple]:
        s = jumping(s, concatenate_times, *turns) if turns else s
        then = _history_at_time(history, s, args)
        each = zip(packing.held_of(then), now, strict=True)
        return packing.pack(then), tuple(x.astype(a.dtype) for x, a in each)

    return f(t, y, Past(seen, t, shape, packing, before, direction, jumps, now), args)


def _start_time(problem: DDEProblem | SDDEProblem, args: PyTree) -> PyTree:
    return evaluated(evaluated(problem.tspan, args)[0], args)


def _history_at(problem: DDEProblem | SDDEProblem, t: ArrayLike, args: PyTree) -> PyTree:
    if not callable(problem.history):
        return problem.history
    check_arguments(problem.history, "history", "t, args")
    return _history_at_time(problem.history, t, args)


def _history_at_time(history: Callable | PyTree, t: ArrayLike, args: PyTree) -> PyTree:
    return as_state(history(t, args)) if callable(history) else history


_RULES: dict[type, Any] = {
    ODEProblem: _OdeRule,
    CDEProblem: _CdeRule,
    DAEProblem: _DaeRule,
    ImplicitDAEProblem: _ImplicitRule,
    SplitODEProblem: _SplitRule,
    SecondOrderProblem: _MotionRule,
    HamiltonianProblem: _HamiltonianRule,
    SteadyStateProblem: _OdeRule,
    SDEProblem: _SdeRule,
    DDEProblem: _DelayRule,
    SDDEProblem: _NoisyDelayRule,
}

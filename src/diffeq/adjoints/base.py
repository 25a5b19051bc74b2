"""The base class of adjoints: a derivative for the loop, and a table of the features it supports.

The solve itself is common to all of them. An adjoint without checkpoints gives the tangent of a
solve as a linear map that is known one way only (`autodiff/one_way_linear.py`): `Forward` pushes
tangents, the continuous adjoints pull cotangents back.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Bool, PyTree

from ..autodiff.nonfinite_cotangents import call_host
from ..autodiff.one_way_linear import Map, one_way_linear, with_common_lanes
from ..autodiff.while_loop import native_function
from ..controllers.tolerance import Tolerance
from ..core.packing import TreeDef
from ..core.promotion import standard_promotion
from ..integrator import Data, Integrator, Start, State, integrate
from ..problems import ODEProblem, Problem

__all__ = [
    "FEATURES",
    "OF_STEPS",
    "Adjoint",
    "OneWay",
    "SolveSpec",
    "check_tolerance",
    "flags_of",
    "is_inexact",
    "known_adjoints",
    "outputs_of",
    "pick_flagged",
    "raise_if",
    "refusal",
    "register_adjoint",
    "run_with_tape",
    "run_without_tape",
    "runs_as_one",
    "scatter_live",
    "size_of",
    "solve_tangent",
]

# The features that a derivative may need, in the words of the error message.
FEATURES: dict[str, str] = {
    "reverse": "reverse mode (grad, vjp, jacrev)",
    "forward": "forward mode (jvp, jacfwd)",
    "second": "second derivatives",
    "times": "rows at given times",
    "save": "save= functions",
    "dict": "several sets of save times",
    "steps": 'saveat="steps"',
    "dense": "dense output",
    "stops": "stops=",
    "events": "events=",
    "held": "leaves of y0 that are held",
    "by hand": "init, step and advance",
    "multistep": "multistep methods such as BDF",
    "turns": "methods that take turns, as in Switching",
    "increments": "controls by their increments",
    "no tolerance": "steps that are given (dt=, de.Fixed) without rtol= or atol=",
}


# Bytes of the parameters and the state of an equation: a solve with a tape is one native function
# up to the first number, and one without a tape from the second to the third one (measured).
_SMALL_EQUATION, _LITTLE_ARITHMETIC, _LARGE_EQUATION = 4096, 512, 2**17

# The features of the steps that were made, which an adjoint that solves an equation does not know.
OF_STEPS = frozenset(
    {"steps", "dense", "by hand", "multistep", "turns", "increments", "events", "held"}
)


class Adjoint(eqx.Module):
    """Base of all adjoints. `serves` holds the features that this one can differentiate."""

    serves: ClassVar[frozenset[str]] = frozenset(FEATURES)

    @property
    def name(self) -> str:
        """The name of this adjoint in the table."""
        return type(self).__name__

    @classmethod
    def solves(cls, problem: type[Problem]) -> bool:
        """True if it differentiates problems of this class: all that are followed in time."""
        return not problem.is_steady

    def run(
        self, integrator: Integrator, data: Data, start: Start | State, max_steps: int
    ) -> tuple[State, list]:
        """`integrate` from a `Start` or a `State`, with a derivative."""
        raise NotImplementedError


_KNOWN: dict[str, type[Adjoint]] = {}


# The order in which adjoints are tried.
_ORDER = ("Discrete", "Forward", "Gauss", "Backsolve", "SteadyState")


def register_adjoint[A: type[Adjoint]](cls: A) -> A:
    """Enters an adjoint in the table; a decorator."""
    _KNOWN[cls.__name__] = cls
    return cls


def known_adjoints() -> dict[str, type[Adjoint]]:
    """All adjoints by name: the table."""
    return {name: _KNOWN[name] for name in _ORDER if name in _KNOWN}


def refusal(name: str, features: Iterable[str], problem: type[Problem] = ODEProblem) -> str:
    """Returns the reason why this adjoint cannot differentiate such a solve, and those that can;
    an empty string if it can.

    >>> refusal("Forward", ["reverse"])
    'Forward does not serve reverse mode (grad, vjp, jacrev); those that do: ...'
    """
    if name not in _KNOWN:
        return ""
    able = {n: cls for n, cls in known_adjoints().items() if cls.solves(problem)}
    if name not in able:
        kind = problem.__name__
        a = "an" if kind[0] in "AEIOU" else "a"
        return f"{name} does not serve {a} {kind}; those that do: {', '.join(able)}."
    for feature in features:
        if feature not in able[name].serves:
            rest = ", ".join(n for n, cls in able.items() if feature in cls.serves)
            return f"{name} does not serve {FEATURES[feature]}; those that do: {rest}."
    return ""


# --- a solve whose tangent is known one way -------------------------------------------------------


class SolveSpec(NamedTuple):
    """The static part of a solve, hashable and compared by value, for `custom_jvp`."""

    adjoint: "OneWay"
    integrator: Integrator
    max_steps: int
    tree: TreeDef


class OneWay(Adjoint):
    """An adjoint that gives `kept(spec, leaves)`, the solve and the residuals of its derivative,
    and `map(spec, live, tree)`, the linear map from the tangents of the live leaves to those of the
    outputs, where `tree` is the tree structure of the residuals.
    """

    def run(
        self, integrator: Integrator, data: Data, start: Start | State, max_steps: int
    ) -> tuple[State, list]:
        """`integrate` from a `Start`, with a derivative."""
        leaves, tree = jax.tree.flatten((data, start))
        return solve_one_way(SolveSpec(self, integrator, max_steps, tree), leaves)

    def kept(self, spec: SolveSpec, leaves: list) -> tuple[tuple[State, list], PyTree]:
        """The solve, and the residuals of its derivative."""
        raise NotImplementedError

    def map(self, spec: SolveSpec, live: list[bool], tree: TreeDef) -> Map:
        """The derivative, linear in the tangents of the live leaves."""
        raise NotImplementedError


def runs_as_one(data: Data, start: Any) -> bool:
    """True if a solve with a tape, and its derivative, are one native function each.

    They are so of an equation of few bytes, whose state is no matrix: products of matrices are
    evaluated by a library, in tasks of their own.
    """
    return _bytes_of(data, start) <= _SMALL_EQUATION and start.y.ndim < 2


def run_with_tape[T](run: Callable[[Data, Any], T], data: Data, start: Any) -> T:
    """`run(data, start)`, as one native function where it `runs_as_one`."""
    return _run_in_loop(run, data, start, runs_as_one(data, start))


def run_without_tape[T](
    run: Callable[[Data, Any], T], data: Data, start: Any, integrator: Integrator
) -> T:
    """`run(data, start)`, as one native function where the field has weights, or is large.

    A program of little arithmetic is evaluated by the thread that calls it, but not if it has such
    a loop; any other is handed to another thread, and each of its tasks costs time there.
    """
    large = integrator.form(data.parameters, data.sign, data.held).large
    in_loop = large or _bytes_of(data, start) > _LITTLE_ARITHMETIC
    return _run_in_loop(run, data, start, in_loop)


def _run_in_loop[T](run: Callable[[Data, Any], T], data: Data, start: Any, in_loop: bool) -> T:
    """`run(data, start)`, in a loop of one turn or not. Of a large state the loop would fill the
    output twice.

    JAX takes the places of the lanes without a tape for those with one where a batch of solves is
    differentiated, so both are a `native_function`, or neither is.
    """
    if _bytes_of(data, start) > _LARGE_EQUATION:
        return run(data, start)
    return native_function(run, data, start, in_loop=in_loop)


def _bytes_of(data: Data, start: Any) -> int:
    """The bytes of the parameters and the state of an equation."""
    return sum(x.nbytes for x in jax.tree.leaves((data.parameters, start.y)))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def solve_one_way(spec: SolveSpec, leaves: list) -> tuple[State, list]:
    """The solve without its derivative."""
    data, start = jax.tree.unflatten(spec.tree, leaves)

    def run(data: Data, start: Start | State) -> tuple[State, list]:
        return integrate(spec.integrator, data, start.state(spec.integrator, data))[:2]

    result = run_without_tape(run, data, start, spec.integrator)
    return _with_common_lanes(result, leaves)


def _with_common_lanes[T](result: T, leaves: list) -> T:
    found, tree = jax.tree.flatten(result)
    return tree.unflatten(with_common_lanes(found, leaves))


@partial(solve_one_way.defjvp, symbolic_zeros=True)
@standard_promotion()
def _solve_one_way_jvp(
    spec: SolveSpec, primals: tuple[list], tangents: tuple[list]
) -> tuple[tuple[State, list], tuple[State, list]]:
    (leaves,), (dots,) = primals, tangents
    live = flags_of(leaves, dots)
    result, kept = spec.adjoint.kept(spec, leaves)
    result = _with_common_lanes(result, leaves)
    if not any(live):
        return result, solve_tangent(result, None)
    residuals, tree = jax.tree.flatten(kept)
    rule = spec.adjoint.map(spec, live, tree)
    moved = one_way_linear(rule, residuals, pick_flagged(dots, live), outputs_of(result))
    return result, solve_tangent(result, moved)


def check_tolerance(name: str, value: Any) -> None:
    """Raises an error for a value that is no tolerance."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < np.inf):
        raise ValueError(f"{name} is {value!r}; a positive number is wanted, or None.")


def is_inexact(x: ArrayLike | jax.ShapeDtypeStruct) -> bool:
    """True if x has a floating-point or complex dtype, and so a derivative."""
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def flags_of(leaves: list, dots: list) -> list[bool]:
    """Flags the perturbed leaves."""
    return [
        not isinstance(d, SymbolicZero) and is_inexact(x) for x, d in zip(leaves, dots, strict=True)
    ]


def outputs_of(result: tuple[State, list]) -> list[Array]:
    """The outputs of a solve that have a derivative: t and y at the end, and the rows."""
    state, buffers = result
    return [state.t, state.y, *(x for x in jax.tree.leaves(buffers) if is_inexact(x))]


def solve_tangent(result: tuple[State, list], moved: list | None) -> tuple[State, list]:
    """The tangent of a solve, from those of `outputs_of`; None: zero."""

    def zero(x: Array) -> ArrayLike:
        return jnp.zeros_like(x) if is_inexact(x) else np.zeros(jnp.shape(x), jax.dtypes.float0)

    state, buffers = jax.tree.map(zero, result)
    if moved is None:
        return state, buffers
    t, y, *rows = moved
    state = eqx.tree_at(lambda s: (s.t, s.y), state, (t, y))
    found, (leaves, tree) = iter(rows), jax.tree.flatten(result[1])
    blank = jax.tree.leaves(buffers)
    leaves = [next(found) if is_inexact(x) else z for x, z in zip(leaves, blank, strict=True)]
    return state, jax.tree.unflatten(tree, leaves)


def pick_flagged(xs: Iterable, flags: Iterable[bool]) -> list:
    """The flagged elements of `xs`."""
    return [x for x, flag in zip(xs, flags, strict=True) if flag]


def scatter_live(xs: Iterable, flags: Iterable[bool]) -> list:
    """Puts the elements of `xs` where `flags` is True, and None elsewhere."""
    found = iter(xs)
    return [next(found) if flag else None for flag in flags]


def raise_if(
    integrator: Integrator, bad: Bool[Array, "..."], sentence: Callable[..., str], *values: Array
) -> None:
    """Raises a RuntimeError of `sentence(*values)` if `bad`: outside a trace, or where
    `throw="compiled"`.
    """
    if not integrator.raises:
        return

    def host(bad: ArrayLike, *values: ArrayLike) -> None:
        if np.any(bad):
            raise RuntimeError(sentence(*values))

    jax.lax.cond(jnp.any(bad), lambda: call_host(host, bad, *values), lambda: None)


def size_of(tolerance: Tolerance, size: Array) -> Array:
    """The scale of y: `size` = |y|, or atol/rtol where that is larger."""
    rtol = jnp.where(tolerance.rtol > 0, tolerance.rtol, 1e-3)
    return jnp.maximum(size, jnp.where(jnp.isfinite(tolerance.atol), tolerance.atol, 1) / rtol)

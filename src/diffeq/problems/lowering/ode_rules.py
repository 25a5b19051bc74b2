"""Rules of ordinary, of split and of controlled equations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...core.packing import Packing, as_state, moving_leaves, without_held
from ...core.user_functions import check_numbers, described
from ..base import evaluated
from ..cde import CDEProblem, Path
from ..forms import Form, Increments, Ode, Split, apply_diffusion
from ..log_ode import driven_by_brackets
from ..ode import SplitODEProblem
from .rule import ProblemRule, as_it_is, check_width, on_packed
from .time_interval import flip_time

__all__ = ["CdeRule", "OdeRule", "SplitRule"]


class OdeRule(ProblemRule):
    """y' = f(t, y, args)."""

    @staticmethod
    def state(problem: Any, args: PyTree) -> PyTree:
        return as_state(evaluated(problem.y0, args))

    @staticmethod
    def functions(problem: Any, tree: PyTree) -> list:
        return [("f", problem.f, (tree,))]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        del sign
        return Ode(on_packed(at[0], packing), **known)


class SplitRule(OdeRule):
    """y' = implicit(t, y, args) + explicit(t, y, args)."""

    @staticmethod
    def functions(problem: SplitODEProblem, tree: PyTree) -> list:
        return [("implicit", problem.implicit, (tree,)), ("explicit", problem.explicit, (tree,))]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int, **known: Any) -> Form:
        del sign
        return Split(on_packed(at[0], packing), on_packed(at[1], packing), **known)


class CdeRule(ProblemRule):
    """A field with a column for each channel of its control: by the derivative of that an ordinary
    equation, or one of increments.
    """

    state = staticmethod(OdeRule.state)

    def __init__(self, control: Callable, by: str) -> None:
        self.control, self.by_increments = control, by == "increments"

    @classmethod
    def of(cls, problem: CDEProblem) -> "CdeRule":
        return cls(problem.control, problem.by)

    def functions(self, problem: CDEProblem, tree: PyTree) -> list:
        """The field, and the control or its derivative as a function of t alone."""
        self.path = path = Path(self.control)
        along = path.value if self.by_increments else path.rate
        fits = partial(_checked_columns, path)
        return [
            ("f", problem.f, (tree,), fits),
            ("control", lambda t, args: along(t), (), as_it_is),
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
    check_width(name, value, like)
    return value

"""Rules of equations that see their past, with noise and without."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from ...autodiff.discontinuity_times import concatenate_times, jumping, turns_of
from ...core.packing import Packing, as_state, released
from ...core.user_functions import check_arguments, described
from ..base import evaluated
from ..dde import DDEProblem, SinceStart, depends_on_state
from ..forms import Delayed, Form
from ..history import History, HistoryView, Past, StepLayout
from ..sdde import SDDEProblem
from .noise_rules import SdeRule
from .ode_rules import OdeRule
from .rule import ProblemRule, as_it_is, on_unpacked, tree_shapes
from .time_interval import flip_time

__all__ = ["DelayRule", "Delays", "NoisyDelayRule"]


class Delays(eqx.Module):
    """The delays as they are known at the start.

    `lags` are the declared ones, in the loop's unit; `constant` says whether they stay so, and
    `jumps` whether y0 is another state than the end of the history.
    """

    lags: Array
    shape: StepLayout = eqx.field(static=True)
    constant: bool = eqx.field(static=True)
    jumps: bool = eqx.field(static=True)


class DelayRule(ProblemRule):
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
        if tree_shapes(released(y0)) != tree_shapes(released(start)):
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
    ) -> "DelayRule":
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
        return [("lags", SinceStart(problem), (tree,), as_it_is)] if watched else []

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
        since = None if since is None else on_unpacked(since, packing)
        return Delayed(equation, self.shape, blank, jnp.inf, inside, packing.kept, since)

    def _equation(self, at: list, packing: Packing, sign: Array | int) -> Form:
        """The equation whose functions are called with (t, y, seen)."""
        return OdeRule.form(at, packing, sign)

    def _seen(self) -> HistoryView:
        t = jnp.zeros((), self.shape.time)
        sign = t if self.direction is None else ()
        history, ahead = History.blank(self.shape, 1), self.shape.filled(0.0)
        return HistoryView(history, ahead, t, t, t, sign)


class NoisyDelayRule(DelayRule):
    """Drift and diffusion that see their past: both as in an equation with noise."""

    noise = staticmethod(SdeRule.noise)

    def __init__(
        self, problem: SDDEProblem, packing: Packing, delays: Delays, direction: int | None
    ) -> None:
        super().__init__(problem, packing, delays, direction)
        self.noisy = SdeRule.of(problem)

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

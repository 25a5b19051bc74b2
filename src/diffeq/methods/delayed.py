"""The method of steps: any one-step method, where the equation looks at the solution so far."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree, Real

from ..autodiff.fixed_point import fixed_point
from ..autodiff.raised_flags import with_flags
from ..autodiff.while_loop import loop
from ..core.norm import mean_square
from ..problems.forms import Delayed, Form, lower
from ..problems.history import PastAccess, StepLayout, StoredStep
from .base import Method, Step
from .interpolant import Interpolant, in_separate_terms

__all__ = ["MethodOfSteps"]

# Turns of a step that evaluates itself: in a controlled solve a shorter step is soon better.
_TURNS, _TURNS_OF_GIVEN_STEPS = 10, 60
# The distance of two turns that agree: a small part of the error that the step is allowed.
_CLOSE = 0.01**2
# Tangents need more turns than values, which start from a good guess.
_MORE = 4


class Trace(NamedTuple):
    """The data of a step: `stored`, the step as the past keeps it, the path that output evaluates,
    the estimated error of that, if there is one, and the parts of the past that it
    `accessed` and that are not there.
    """

    stored: StoredStep
    path: Interpolant
    error: Array | None
    accessed: Int[Array, ""]


class MethodOfSteps(Method):
    """A method for ODEs on y' = f(t, y, past), or for SDEs on one with noise: each step leaves a
    polynomial, and the past is all of these.

    A step that looks beyond its own start (a lag is shorter than the step) is repeated: the first
    time it sees the polynomial before it, then its own of the last time, until that stands still.
    Each look into the past raises flags (`PastAccess`): one at the step itself has it repeated, one
    at what is not there has it rejected, whatever became of the value. An implicit method solves
    its equations again in each turn, with the Jacobian ∂f/∂y at a past that stands still: the
    simplest of the choices, and the classical one. (RADAR5 adds the derivative through the step's
    own polynomial, which converges where ∂f/∂past is stiff, too.)

    Reference: bellen2003, 4; guglielmi2001.
    """

    method: Method
    tolerance: Any
    norm: Any = eqx.field(static=True)
    given: bool = eqx.field(static=True)  # steps are given, and none can be rejected
    known: list[Array] | None = None  # the row of the step, where it was made before

    form = "delayed"

    @property
    def order(self) -> int | float:
        """That of the method."""
        return self.method.order

    @property
    def error_order(self) -> int | float:
        """That of the method."""
        return self.method.error_order

    @property
    def adaptive(self) -> bool:
        """True if the method estimates its error."""
        return self.method.adaptive

    @property
    def area(self) -> bool:
        """True if the method uses H of its noise."""
        return self.method.area

    @property
    def stores_memory(self) -> bool:
        """As the method does."""
        return self.method.stores_memory

    @property
    def multistep(self) -> bool:
        """As the method is."""
        return self.method.multistep

    @property
    def evaluations(self) -> int | None:
        """Of the method; each step that looks at itself has some more."""
        return self.method.evaluations

    def with_tolerance(self, tolerance: Any, *, final: bool = False) -> "MethodOfSteps":
        """Returns the method of steps with its method tuned to the tolerance."""
        method = self.method.with_tolerance(tolerance, final=final)
        return self if method is self.method else eqx.tree_at(lambda m: m.method, self, method)

    def with_view(self, view: Callable) -> "MethodOfSteps":
        """Returns the method of steps with its method for the problem."""
        method = self.method.with_view(view)
        return self if method is self.method else eqx.tree_at(lambda m: m.method, self, method)

    def __repr__(self) -> str:
        return repr(self.method)

    def knowing(self, row: list[Array]) -> "MethodOfSteps":
        """Returns the method for a step that was made before: differentiable, and without
        iteration.
        """
        return eqx.tree_at(lambda m: m.known, self, row, is_leaf=lambda x: x is None)

    def init(self, form: Delayed, t: Real[Array, ""], y: Array) -> PyTree:
        """The method's memory; at t the past is known. It is NaN where it took what is not there,
        which no step gets rid of.
        """
        start = lambda: self.method.init(self._bound(form, t, jnp.inf), t, y)  # noqa: E731
        if self.known is not None:
            return start()
        memory, accessed = with_flags(start)
        spoilt = lambda x: jnp.where(accessed == 0, x, jnp.nan)  # noqa: E731
        real = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)  # noqa: E731
        return jax.tree.map(lambda x: spoilt(x) if real(x) else x, memory)

    def _bound(
        self, form: Delayed, t: Array, middle: Array | float, ahead: list[Array] | None = None
    ) -> Form:
        """The equation of a step as the method steps it."""
        return lower(form.bind(t, middle, ahead), self.method.form, repr(self.method))

    def step(
        self, form: Delayed, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step; its data are its `Trace`, with how many turns that took."""
        shape = form.shape

        def turn(ahead: list) -> tuple[list, Any]:
            equation = self._bound(form, t, t + dt / 2, ahead)
            step = self.method.step(equation, t, y, dt, memory)
            path = in_separate_terms(self.method.interpolant(equation, t, y, dt, step))
            polynomial = self.method.history_interpolant(y, dt, step, path)
            row = shape.pack(StoredStep(t, dt, jnp.zeros_like(t), polynomial, form.held))
            error = self.method.interpolation_error(y, dt, step, path)
            return row, step._replace(data=(() if polynomial is path else path, error))

        accessed = jnp.int32(0)
        if self.known is None:
            row, step, turns, accessed = self._iterated(form, turn, t, y, dt)
        elif self.method.evaluates_inside_step:
            turns = shape.unpack(self.known).turns
            more = jnp.where(turns > 0, 2 * turns + _MORE, 0).astype(jnp.int32)
            row, step = fixed_point(turn, self.known, more, 2 * self._most + _MORE)
        else:
            row, step = turn(shape.filled(0.0))
            turns = jnp.int32(0)
        stored = replace(shape.unpack(row), turns=turns.astype(t.dtype))
        path, error = step.data
        return step._replace(data=Trace(stored, path or stored.polynomial, error, accessed))

    def interpolant_evaluates(self, form: Delayed) -> bool:
        """Never: the step has made it."""
        del form
        return False

    def interpolation_error(
        self, y: Array, dt: Array, step: Step, path: Interpolant | None
    ) -> Array | None:
        """That of the method."""
        del y, dt, path
        return step.data.error

    def interpolant(self, form: Delayed, t: Array, y: Array, dt: Array, step: Step) -> Interpolant:
        """The step's path, which is there already."""
        del form, t, y, dt
        return step.data.path

    @property
    def _most(self) -> int:
        return _TURNS_OF_GIVEN_STEPS if self.given else _TURNS

    def _iterated(self, form: Delayed, turn: Callable, t: Array, y: Array, dt: Array) -> tuple:
        """The step as often as it takes: its row, itself, the number of turns (0, if it did not
        look at itself), and what it accessed for that is not there.
        """
        shape, guess = form.shape, self._guess(form, t, y, dt)
        blank = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(turn, shape.filled(0.0))
        )
        most = self._most if self.method.evaluates_inside_step else 1

        def again(active: Bool[Array, "..."], _: PyTree, state: PyTree, __: PyTree) -> tuple:
            del active
            k, before, *_, evaluations = state
            ahead = [jnp.where(k == 0, g, b) for g, b in zip(guess, before[0], strict=True)]
            after, accessed = with_flags(turn, ahead)
            looked, missed = accessed & PastAccess.step, accessed & ~PastAccess.step
            sound = _sound(after) & (missed == 0)
            near = (looked == 0) | ((k > 0) & self._near(shape, y, before, after))
            done = near | ~sound | (k + 1 >= most)
            turns = jnp.where(looked == 0, 0, k + 1)
            return (
                k + 1,
                after,
                done,
                near & sound,
                turns,
                missed,
                evaluations + _turn_evaluations(after),
            ), ()

        zero, no = jnp.int32(0), jnp.array(False)
        start = (zero, blank, no, no, zero, zero, _turn_evaluations(blank))
        state, _ = loop(lambda _, s, __: ~s[2], again, start)
        _, (row, step), _, good, turns, missed, evaluations = state
        if step.evaluations is not None:
            step = step._replace(evaluations=evaluations)
        return row, step._replace(solved=good), turns, missed

    def _guess(self, form: Delayed, t: Array, y: Array, dt: Array) -> list:
        """The polynomial of the last step, further on; at the start y, as it is."""
        still = self.method.constant_step(t, y, dt)
        row = form.shape.pack(StoredStep(t, dt, jnp.zeros_like(t), still, form.held))
        some = form.history.count > 0
        return [jnp.where(some, a, b) for a, b in zip(form.history.last(), row, strict=True)]

    def _near(self, shape: StepLayout, y: Array, before: tuple, after: tuple) -> Bool[Array, ""]:
        """True if two turns agree, in the middle and at the end of the step."""
        real = jnp.finfo(y.dtype).dtype
        ends = [
            [s.y, shape.unpack(row).polynomial(jnp.asarray(0.5, real))]
            for row, s in (before, after)
        ]
        found = jnp.array(True)
        for a, b in zip(*ends, strict=True):
            if self.given:  # there is no tolerance: to rounding
                size = mean_square(y) + mean_square(b)
                found = found & (mean_square(b - a) <= (64 * jnp.finfo(real).eps) ** 2 * size)
            else:
                error2 = self.tolerance.squared(b - a, y, b, self.norm)[0]
                found = found & (error2 <= _CLOSE)
        return found


def _turn_evaluations(turn: tuple) -> Int[Array, ""]:
    """The evaluations of a turn, if it counts its own."""
    count = turn[1].evaluations
    return jnp.int32(0) if count is None else count


def _sound(turn: tuple) -> Bool[Array, ""]:
    """True if a step, its error and its polynomial are finite, and its equations are solved."""
    row, step = turn
    total = sum(jnp.sum(x) for x in jax.tree.leaves((row, step.y, step.error)))
    finite = jnp.isfinite(lax.stop_gradient(total))
    return finite if step.solved is None else finite & step.solved

"""The data of events in a step: known before it, found during it, and left after it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from ..brownian import PathPoint
from .locate import ConditionSign

__all__ = [
    "EventMemory",
    "Happened",
    "OutputWindow",
    "RecordedStep",
    "Reinitialization",
    "StepController",
    "StepEnd",
    "StepPlan",
    "StepTruncation",
]


@runtime_checkable
class StepController(Protocol):
    """A controller of the step size, as events see it."""

    @property
    def is_adaptive(self) -> bool:
        """True if an error estimate controls the step size."""
        ...

    def init(self, dtype: np.dtype) -> PyTree:
        """The memory before the first step."""
        ...


@runtime_checkable
class RecordedStep(Protocol):
    """A step on a tape, as events read it."""

    @property
    def reals(self) -> Array:
        """Its numbers, of which θ is the last."""
        ...

    @property
    def whole(self) -> Array:
        """Its integers, of which the last are those of the events."""
        ...

    @property
    def accept(self) -> Bool[Array, ""]:
        """True where it was accepted."""
        ...


type Returned = Bool[Array, ""] | bool
"""True where a step lands on the time at which a discontinuity comes back; False if none can."""


class EventMemory(NamedTuple):
    """The memory of the events before a step: the signs of conditions, which of them are pending in
    the next round, how many of each list of times have passed, the number of rounds in which time
    stood still, and whether a terminal event has happened.
    """

    signs: ConditionSign
    pending: Bool[Array, " k"]
    passed: Int[Array, " lists"]
    stalled: Int[Array, ""]
    ending: Bool[Array, ""]


class Reinitialization(NamedTuple):
    """Functions of (t, y, held) with which a solver restarts: `memory` returns the method's memory,
    `rate` returns dy/dt, and `settled`, where there are algebraic equations, returns the state next
    to y that satisfies them, and whether it was found.
    """

    memory: Callable
    rate: Callable
    settled: Callable | None = None


class StepPlan(NamedTuple):
    """A step that is to be made: its length, whether that is `landing` on the `target`, and the
    noise that was `drawn` for it. `accepted` is its judgement, where that was recorded; `noisy` is
    False for an attempt whose result is not wanted, so that its noise is not.

    `known` is the memory of the events. Those that happen are `fired`, and cut the step at `theta`,
    where that was recorded; else they are located. `returned`: the target is the time at which a
    discontinuity comes back.
    """

    dt: Array
    target: Array
    landing: Array
    drawn: PyTree
    known: PyTree = ()
    fired: PyTree = None
    theta: PyTree = None
    returned: Returned = False
    accepted: PyTree = None
    noisy: Bool[Array, ""] | bool = True


class StepTruncation(NamedTuple):
    """The length of a step after the search for events: it ends at `theta` if it is `cut` there,
    else it is complete, and ends on a landing or not.

    `first` flags the condition that crosses at θ (or those that are pending in this round),
    `crossed` all that cross at the same time, `signs` are those of all conditions there, `scale`
    has their largest values in the step, and `polynomial` is the step's. `point` is the place of θ
    on a Brownian motion, where it was searched along one.
    """

    dt: Array
    landing: Array
    theta: PyTree = ()
    cut: PyTree = ()
    first: PyTree = ()
    crossed: PyTree = ()
    signs: PyTree = ()
    scale: PyTree = ()
    polynomial: PyTree = None
    point: PathPoint | None = None

    def state(self, theta: Array) -> Array:
        """The state at θ, which is the place of the cut, or moves with it."""
        if self.point is None:
            return self.polynomial(theta)
        return self.polynomial(theta, self.point.w)


class OutputWindow(NamedTuple):
    """The rows of output that a step makes: those up to the time `until`, at which no other round
    follows if it is `settled`. `moved`: time has advanced, so there is a polynomial. `happened`
    flags each event.
    """

    until: Array
    settled: Array
    moved: Array
    happened: tuple


class Happened(NamedTuple):
    """The events at the end of a step: the state before and after each of them, their flags, and
    dy/dt after all of them.
    """

    chain: tuple
    flags: tuple
    rate: Array


class StepEnd(NamedTuple):
    """The end of a step, after its events.

    `memory` is the method's, `known` the events', and `held` has the leaves that are held. `chain`
    has (y, held) before the events and after each of them, in order, `rate` is dy/dt after all of
    them, and `shown` the window of output. `lost`: the state after them is not finite, and the
    solve cannot go on.
    """

    dt: Array
    landing: Array
    y: Array
    held: tuple[Array, ...]
    memory: PyTree
    known: PyTree = ()
    theta: PyTree = ()
    fired: PyTree = ()
    chain: PyTree = ()
    rate: PyTree = ()
    shown: PyTree = None
    path: PyTree = None
    lost: PyTree = ()

    @property
    def happened(self) -> Array:
        """True if any event happened."""
        return jnp.any(self.fired)

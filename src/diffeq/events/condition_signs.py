"""The signs of conditions while one event after the other changes the state."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .locate import ConditionSign
from .lowered import LoweredCrossing, LoweredEvent
from .step_end import EventMemory, Reinitialization, StepTruncation

__all__ = ["Watch"]


@runtime_checkable
class AllEvents(Protocol):
    """All events of a solve (`handling.Events`): `count` conditions, of which `level` are booleans,
    and those that are `sloped` have a rate of change.
    """

    parts: tuple[LoweredEvent, ...]
    flags: dict[int, slice]
    count: int
    direction: np.ndarray
    level: np.ndarray
    sloped: np.ndarray


@runtime_checkable
class Conditions(Protocol):
    """All conditions of a solve, with their parameters (`handling.BoundEvents`)."""

    @property
    def events(self) -> AllEvents:
        """The events that they are of."""
        ...

    def numbers(self, tau: Array, y: Array) -> Array:
        """The numbers that cross zero."""
        ...

    def truths(self, tau: Array, y: Array) -> Array:
        """Flags the conditions that are true."""
        ...

    def moving(self, tau: Array, y: Array, reinitialize: Reinitialization) -> tuple[Array, Array]:
        """The numbers that cross zero, and their rate of change along the solution."""
        ...


class Watch:
    """Evaluates the signs of all conditions after each event of a round."""

    def __init__(
        self,
        bound: Conditions,
        known: EventMemory,
        truncation: StepTruncation,
        fired: Array,
        t1: Array,
        y: Array,
        reinitialize: Reinitialization,
    ) -> None:
        self.t1, self.reinitialize = t1, reinitialize
        self.events, self.count = bound.events, bound.events.count
        if not self.count:
            return
        self.fired = fired[: self.count]
        self.together = truncation.crossed & ~self.fired
        # A root is a zero to rounding, and stays one if the affect does not touch it.
        eps = jnp.finfo(t1.dtype).eps
        self.before = bound.numbers(t1, y)
        residual = jnp.abs(self.before)
        self.small = 2 * residual + 16 * eps * truncation.scale
        # (Where g jumps over zero it is none.)
        root = truncation.crossed & (known.signs.on | (residual <= 0.1 * truncation.scale))
        self.root = root | truncation.signs.on

    def after(
        self, part: LoweredEvent, bound: Conditions, y: Array, signs: ConditionSign, pending: Array
    ) -> tuple[ConditionSign, Array]:
        """Returns the signs after `part`, and the pending conditions, with those that it makes
        happen.
        """
        if not self.count:
            return signs, pending
        level, direction = self.events.level, self.events.direction
        n, slope = bound.moving(self.t1, y, self.reinitialize)
        on = jnp.where(level, False, n == 0) | (self.root & (jnp.abs(n) <= self.small))
        on = on & self.events.sloped  # a path with noise is on the side that its number says
        true = jnp.where(bound.truths(self.t1, y), 1, -1)
        side = jnp.sign(jnp.where(on, slope, jnp.where(level, true, n))).astype(jnp.int32)
        place = self.events.parts.index(part)
        own = self.fired & self._of([part])
        # A zero that does not change is on the side that it came from (so that a ball that lies on
        # the floor does not fall through it), or on its previous side.
        back = own & self.events.sloped
        side = jnp.where(side == 0, jnp.where(back, -signs.side, signs.side), side)
        # A boolean that this event has not changed keeps its side: at a zero it may have none yet.
        side = jnp.where(level & (n == self.before) & ~own, signs.side, side)
        self.before = n
        waits = self.fired & self._of(self.events.parts[place + 1 :])  # not applied yet
        # A condition that crosses at the same time is next, with a root of its own: unless this
        # event has stopped it, and then it happens all the same.
        next_ = self.together & on & (signs.side * side < 0)
        wanted = (direction == 0) | (side == direction)
        hit = (signs.side * side < 0) & wanted & ~own & ~waits & ~next_
        # (A boolean that is false at a jump is not true yet: it happens in a step of its own.)
        yet = level & ~self.root & (true < 0)
        hit = hit | (self.together & ~next_ & ~yet)
        kept = waits | next_
        signs = ConditionSign(jnp.where(kept, signs.side, side), jnp.where(kept, signs.on, on))
        return signs, pending | hit

    def _of(self, parts: Sequence[LoweredEvent]) -> np.ndarray:
        flags = np.zeros(self.count, bool)
        for part in parts:
            if isinstance(part, LoweredCrossing):
                flags[self.events.flags[part.place]] = True
        return flags

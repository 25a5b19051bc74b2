"""A solve without events: it has `NoEvents`, which do and keep nothing."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from .step_end import Reinitialization, StepEnd, StepTruncation

__all__ = ["NO_EVENTS", "NoEvents"]


class NoEvents:
    """The events of a solve that has none."""

    live = False
    bits = 0
    parts: tuple = ()
    crossings: tuple = ()

    def __init__(self, held: Any = ()) -> None:
        self.held = held

    def check_differentiable(self) -> None:
        """Returns: there is no event to refuse."""

    def bound(self, own: Any, leaves: Any, sign: Any, held: Any) -> "NoEvents":
        """Returns no events, and keeps the leaves that are held."""
        del own, leaves, sign
        return NoEvents(held)

    def start(self, t: Array, y: Array, reinitialize: Reinitialization) -> tuple:
        """Returns an empty memory."""
        del t, y, reinitialize
        return ()

    def shown(self, known: Any, t: Array) -> Array:
        """Rows at the start are those of the initial state."""
        del known
        return t

    def target(self, known: Any, target: Array) -> Array:
        """Returns the target: there is no other time to land on."""
        del known
        return target

    def paused(self, known: Any, dt: Array, landing: Array) -> tuple[Array, Array]:
        """Time goes on."""
        del known
        return dt, landing

    def reach(
        self,
        known: Any,
        accept: Array,
        start: tuple,
        dt: Array,
        landing: Array,
        polynomial: Callable,
        fired: Any,
    ) -> StepTruncation:
        """The whole step."""
        del known, accept, start, polynomial, fired
        return StepTruncation(dt, landing)

    def advance_noise(
        self, known: Any, truncation: StepTruncation, noise: Any, source: Any, draw: Any
    ) -> Any:
        """The path goes on to the end of the step."""
        del known, truncation, noise, source
        return draw.accepted

    def happen(  # noqa: PLR0917
        self,
        known: Any,
        truncation: StepTruncation,
        span: Any,
        target: Array,
        accept: Array,
        step: Any,
        reinitialize: Reinitialization,
        fired: Any,
    ) -> tuple[Array, StepEnd]:
        """Returns the end of the step as it is."""
        del known, target, accept, reinitialize, fired
        return span[2], StepEnd(truncation.dt, truncation.landing, step.y, self.held, step.memory)

    def settle_signs(
        self,
        known: Any,
        truncation: StepTruncation,
        span: Any,
        end: StepEnd,
        still: Callable,
        accept: Array,
    ) -> StepEnd:
        """Returns the end as it is: there are no signs."""
        del known, truncation, span, still, accept
        return end

    def again(  # noqa: PLR0917
        self,
        known: Any,
        fired: Any,
        theta: Any,
        span: tuple,
        landing: Array,
        step: Any,
        polynomial: Callable,
        reinitialize: Reinitialization,
    ) -> tuple[Array, StepEnd]:
        """Returns the end of the step as it is."""
        del known, fired, theta, polynomial, reinitialize
        return span[2], StepEnd(span[1], landing, step.y, self.held, step.memory)

    def masked_by(self, active: Array, end: StepEnd) -> StepEnd:
        """Returns the end as it is: there are no flags."""
        del active
        return end

    def over(self, end: StepEnd, done: Array) -> Array:
        """Returns `done`: no event keeps a solve from its end."""
        del end
        return done

    def moved(self, old: Any, new: Any, still: Array) -> Any:
        """Returns the memory, which is empty."""
        del old, still
        return new

    def following(
        self,
        end: StepEnd,
        accept: Array,
        dt: Array,
        before: Array,
        controller: Any,
        proposed: Array,
    ) -> Array:
        """Returns the dt that was proposed."""
        del end, accept, dt, before, controller
        return proposed

    def reset_controller(self, end: StepEnd, controller: Any, memory: Any) -> Any:
        """The controller goes on."""
        del end, controller
        return memory

    def status(self, end: StepEnd, accept: Array, status: Array) -> Array:
        """Returns the status: no event ends a solve."""
        del end, accept
        return status

    def keeps_dt(self, known: Any, landing: Array) -> Array:
        """After a landing the dt goes on that was proposed."""
        del known
        return landing

    def cuts(self, fired: Any) -> Any:
        """No step is cut off."""
        del fired
        return False

    def followed(self, known: Any, flags: Any) -> tuple[Any, Any]:
        """Returns what is known: there are no flags to follow."""
        del flags
        return known, None

    def coded(self, known: Any, end: StepEnd) -> list:
        """Returns nothing for the tape."""
        del known, end
        return []

    def thetas(self, end: StepEnd) -> list:
        """Returns nothing for the tape."""
        del end
        return []

    def read(self, row: Any) -> tuple:
        """Returns empty records: the tape has none of events."""
        del row
        return (), (), ()


NO_EVENTS = NoEvents()

"""A solve without events: it has `NoEvents`, which do and keep nothing."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from .step_end import Anew, Ending, Reach

__all__ = ["NO_EVENTS", "NoEvents"]


class NoEvents:
    """Nothing ever happens."""

    live = False
    bits = 0
    parts: tuple = ()
    crossings: tuple = ()

    def __init__(self, held: Any = ()) -> None:
        self.held = held

    def check_differentiable(self) -> None:
        """Nothing to refuse."""

    def bound(self, own: Any, leaves: Any, sign: Any, held: Any) -> "NoEvents":
        """The same; what is held stays as it is."""
        del own, leaves, sign
        return NoEvents(held)

    def start(self, t: Array, y: Array, anew: Anew) -> tuple:
        """Nothing to remember."""
        del t, y, anew
        return ()

    def shown(self, known: Any, t: Array) -> Array:
        """Rows at the start are those of the initial state."""
        del known
        return t

    def target(self, known: Any, target: Array) -> Array:
        """No other time to land on."""
        del known
        return target

    def paused(self, known: Any, dt: Array, landing: Array) -> tuple[Array, Array]:
        """Time goes on."""
        del known
        return dt, landing

    def reach(self, known: Any, accept: Array, start: tuple, dt: Array, landing: Array,
              way: Callable, fired: Any) -> Reach:  # fmt: skip
        """The whole step."""
        del known, accept, start, way, fired
        return Reach(dt, landing)

    def onward(self, known: Any, reach: Reach, noise: Any, source: Any, draw: Any) -> Any:
        """The path goes on to the end of the step."""
        del known, reach, noise, source
        return draw.accepted

    def happen(self, known: Any, reach: Reach, span: Any, target: Array, accept: Array, step: Any,  # noqa: PLR0917
               anew: Anew, fired: Any) -> tuple[Array, Ending]:  # fmt: skip
        """Nothing."""
        del known, target, accept, anew, fired
        return span[2], Ending(reach.dt, reach.landing, step.y, self.held, step.memory)

    def settle(
        self, known: Any, reach: Reach, span: Any, end: Ending, still: Callable, accept: Array
    ) -> Ending:
        """There is nothing to settle."""
        del known, reach, span, still, accept
        return end

    def again(self, known: Any, fired: Any, theta: Any, span: tuple, landing: Array,  # noqa: PLR0917
              step: Any, way: Callable, anew: Anew) -> tuple[Array, Ending]:  # fmt: skip
        """Nothing."""
        del known, fired, theta, way, anew
        return span[2], Ending(span[1], landing, step.y, self.held, step.memory)

    def only_if(self, active: Array, end: Ending) -> Ending:
        """Nothing can be taken back."""
        del active
        return end

    def over(self, end: Ending, done: Array) -> Array:
        """Nothing keeps a solve from its end."""
        del end
        return done

    def moved(self, old: Any, new: Any, still: Array) -> Any:
        """Nothing to remember."""
        del old, still
        return new

    def following(self, end: Ending, accept: Array, dt: Array, before: Array, controller: Any,
                  proposed: Array) -> Array:  # fmt: skip
        """The dt that was proposed."""
        del end, accept, dt, before, controller
        return proposed

    def afresh(self, end: Ending, controller: Any, memory: Any) -> Any:
        """The controller goes on."""
        del end, controller
        return memory

    def status(self, end: Ending, accept: Array, status: Array) -> Array:
        """Nothing ends a solve."""
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
        """Nothing to follow."""
        del flags
        return known, None

    def coded(self, known: Any, end: Ending) -> list:
        """Nothing to write on a tape."""
        del known, end
        return []

    def thetas(self, end: Ending) -> list:
        """Nothing to write on a tape."""
        del end
        return []

    def read(self, row: Any) -> tuple:
        """Nothing to read from it."""
        del row
        return (), (), ()


NO_EVENTS = NoEvents()

"""A call that has passed its checks: its data, and the static options that a program depends on."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import PyTree

from ..controllers import Controller
from ..events import AbstractEvent
from ..methods import Method
from ..problems import Problem

__all__ = ["MAX_EVENTS", "MAX_STEPS", "Call", "StaticOptions"]

# As many as the default tape can replay. 100,000 would take 392 rows in place of 256, which costs
# a batch of a thousand gradients a fifth, and one through a wide network a quarter.
MAX_STEPS = 65_536
MAX_EVENTS = 1024


class Call(NamedTuple):
    """The data of a call, with its defaults in place: a pytree, of which arrays are traced.

    Functions (`save`, those of the problem and of events) and the `code` of the method and the
    controller are static: a program is compiled for each.
    """

    problem: Problem
    method: Method
    controller: Controller
    rtol: PyTree
    atol: PyTree
    saveat: Any = None  # times, "steps", None, or a dict of these
    save: Any = None  # a function, None, or a dict of these
    dt: Any = None  # a number
    dt0: Any = None  # a number
    stops: Any = None  # times
    key: Any = None
    events: tuple[AbstractEvent, ...] = ()
    code: Hashable = None

    @property
    def is_adaptive(self) -> bool:
        """True if an error estimate controls the step size."""
        return self.dt is None and self.controller.is_adaptive


@dataclass(frozen=True)
class StaticOptions:
    """The static options of a call: a program is compiled for each value.

    Attributes:
        direction: 1 or −1, the direction of time; None where it is not known before tracing.
        adjoint: differentiates the solve.
        max_steps: the most attempts.
        max_saves: rows kept by "steps" and `dense`.
        max_history: steps of its past that a delay equation keeps; None: the default.
        max_events: rows kept by each event.
        dense: True if the interpolant of each step is kept.
        floored: True if rtol may be below what the precision of the state can hold.
        init: the treatment of initial values of a DAE: "consistent", "check" or "given".
        progress: True shows a bar.
        by_hand: True for `diffeq.init`: the solve may be stopped anywhere.
        default_method: True if the user named no method.
        lanes: the number of solves that run side by side, as far as that is known.
        is_stiff: True if the explicit method of the default pair has found that the problem is.
        counted: True if `max_steps` is the number of steps of `dt`, and was not given.
        raises: True if a derivative that fails raises.
        raises_inside_jit: True if a solve that fails in compiled code raises.
        checks_cotangents: True if a cotangent that turns non-finite raises, with its time.
    """

    direction: int | None
    adjoint: Any  # an `Adjoint`, which stands a layer above
    max_steps: int = MAX_STEPS
    max_saves: int = 1
    max_history: int | None = None
    max_events: int = MAX_EVENTS
    dense: bool = False
    floored: bool = True
    init: str = "given"
    progress: bool = False
    by_hand: bool = False
    default_method: bool = False
    lanes: int = 1
    is_stiff: bool = False
    counted: bool = False
    raises: bool = False
    raises_inside_jit: bool = False
    checks_cotangents: bool = False

"""The data of the loop: the static spec, the parameters, the state, the result of an attempt."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Int, PyTree

from ..brownian import Noise
from ..controllers import Controller
from ..controllers.tolerance import Tolerance
from ..events.handling import BoundEvents, Events
from ..methods import Method, Step
from ..methods.delayed import MethodOfSteps
from ..output import Cursor, Output
from ..output.progress import Meter
from ..problems.discontinuities import PropagatedDiscontinuity
from ..problems.history import History

__all__ = [
    "DRAWN_OR_FOUND",
    "Attempt",
    "Data",
    "Decision",
    "Held",
    "Integrator",
    "Memory",
    "State",
    "time_direction",
    "with_held",
]


type Memory = PyTree
"""The memory of a method, of a controller, of events or of a path, in a structure of its own."""

type Held = tuple[Array, ...]
"""The leaves of a state that are held between events: flags and integers."""


class Data(eqx.Module):
    """Everything traced that stays the same during a solve. `presampled` and `marks` are what its
    noise has drawn ahead (`with_presampled_noise`); `failed` is known when it is replayed.
    """

    parameters: PyTree
    held: Held
    sign: PyTree
    t0: Array
    t1: Array
    stops: PyTree
    events: PyTree
    tolerance: Tolerance
    kept: Array | None
    method: PyTree
    controller: PyTree
    times: tuple
    max_steps: Int[Array, ""]
    goal: Int[Array, ""]
    noise: PyTree = ()
    presampled: PyTree = ()
    marks: PyTree = ()
    failed: PyTree = None
    lags: PyTree = ()  # of a field that looks at its past, as they are at the start
    shift: PyTree = ()  # of what jumps at the stops: by how much it is called at other times than t
    save: PyTree = None  # what is kept of a state in a row, where that is not the state


DRAWN_OR_FOUND = frozenset({"presampled", "marks", "failed"})
"""The fields of `Data` that are known in a solve or after it, and that no input perturbs."""


class State(eqx.Module):
    """Everything that goes from attempt to attempt. `time_error` completes t: their sum is the
    time.

    Steps that are given are one clock for all lanes of a batch: nothing of a lane but y, memory and
    `failed` (the number of the step that failed, or −1; `why` is the status of that) enters it, and
    what does not differ from lane to lane is not kept for each. A lane that has failed stays where
    it is while the clock goes on. `workspace` is the method's (`Method.workspace`), if the
    integrator `keeps_workspace`.
    """

    t: Array
    time_error: Array
    y: Array
    held: Held
    dt: Array
    control: Memory
    memory: Memory
    written: tuple
    stop: Int[Array, ""]
    events: Memory
    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    floored: Int[Array, ""]
    last_dt: Array
    status: Int[Array, ""]
    evaluations: PyTree
    path: Memory
    failed: PyTree
    why: PyTree
    workspace: PyTree = ()

    def state(self, integrator: "Integrator", data: Data) -> "State":
        """Itself: a solve may go on from a state as well as from a `Start`."""
        del integrator, data
        return self


@dataclass(frozen=True, eq=False)
class Integrator:
    """Everything static: how to step, to judge and to write. Two are never equal, on purpose:
    one belongs to one trace.
    """

    form: Callable
    method: Method
    controller: Controller
    output: Output
    has_stops: bool
    direction: int | None = None
    one_step: bool = False
    rows: int | None = None  # how many steps the past keeps, if the field looks at it
    levels: int = 0  # how often what an event has changed comes back by each of the lags
    meter: Meter | None = None
    lanes: int = 1  # how many solves run side by side, as far as that is known
    checks_cotangents: bool = False
    raises: bool = False
    events: Events | None = None
    algebraic: bool = False
    noise: Noise | None = None
    submethod: int = 0  # of a method that takes turns with another
    refusal: str = ""  # why it has no derivative
    jump_hides: bool = False  # whether it has none where a jump at its start has come back
    records_memory: bool = False  # whether a tape has the method's memory, and its tangents
    keeps_workspace: bool = False  # whether an attempt uses what the previous one has computed
    view: Callable | None = None  # (sign, parameters, held, t, y, dt) as a user's function sees it
    traces: dict = field(init=False, default_factory=dict)

    def parts(
        self,
        data: Data,
        past: History | None = None,
        known: list[Array] | None = None,
        *,
        final: bool = False,
    ) -> tuple[Any, Any, Controller]:
        """The form, the method and the controller with their arrays in place; with a past, if the
        field looks at one, and with the step that is `known`, when it is made again.
        """
        form = self.form(data.parameters, data.sign, data.held)
        final = final or not self.controller.is_adaptive
        method = eqx.combine(data.method, self.method).submethods[self.submethod]
        method = method.with_tolerance(data.tolerance, final=final)
        if self.view is not None:
            seen = partial(self.view, time_direction(self, data), data.parameters, data.held)
            method = method.with_view(seen)
        if known is not None and isinstance(method, MethodOfSteps):
            method = method.knowing(known)
        form = form if self.rows is None else form.over(data.t0, past)
        return form, method, eqx.combine(data.controller, self.controller)

    @cached_property
    def submethods(self) -> "tuple[Integrator, ...]":
        """One for each of the methods that take turns; itself, where there is but one."""
        count = len(self.method.submethods)
        return tuple(replace(self, submethod=i) for i in range(count)) if count > 1 else (self,)

    @property
    def tapes_memory(self) -> bool:
        """True if the rows of a tape hold the method's memory, with its tangents or without."""
        return self.records_memory or self.method.stores_memory

    @property
    def reads_inside(self) -> bool:
        """True if steps are interpolated between their ends, for rows, events or the past."""
        return self.output.needs_interpolant or self.crosses or self.rows is not None

    @property
    def draw_bits(self) -> int:
        """The number of bits of the code of a draw of noise."""
        return self.noise.bits if self.noise else 0

    @property
    def event_bits(self) -> int:
        """The number of flags of events in a recorded decision."""
        return self.events.bits if self.events else 0

    @property
    def crosses(self) -> bool:
        """True if a step may end where a condition crosses."""
        return self.events is not None and bool(self.events.crossings)

    def check_differentiable(self) -> None:
        """Refuses what has no derivative, or whose derivative would be wrong."""
        if self.refusal:
            raise TypeError(self.refusal)
        if self.events:
            self.events.check_differentiable()

    def bound_events(self, data: Data) -> BoundEvents | None:
        """The events with their parameters; None where there are none."""
        if self.events is None:
            return None
        leaves = data.parameters[0][0]
        return self.events.bound(data.events, leaves, time_direction(self, data), data.held)


class Attempt(NamedTuple):
    """The result of an attempt."""

    dt: Array
    t1: Array
    accept: Bool[Array, ""]
    landing: Bool[Array, ""]
    cursors: tuple[Cursor, ...]
    step: Step
    end: PyTree
    drawn: PyTree = ()
    code: PyTree = None
    past: History | None = None
    discontinuity: (
        PropagatedDiscontinuity | tuple[()]
    ) = ()  # what came back next, as it is written on a tape
    inside: PyTree = None  # what was looked at between its ends, before it was judged


class Decision(NamedTuple):
    """The recorded decision of an attempt that is replayed. Its dt is not recorded: a tape of all
    of them would be as long as the solve. The controller finds it once more, from an error estimate
    that is mostly rounding where tolerances are tight, so that the second run drifts. The last step
    that was accepted before the next row of the tape therefore `closes` the gap, and ends where it
    did.
    """

    accept: PyTree = None
    landing: PyTree = None  # known where there are stops
    closes: PyTree = None
    end: PyTree = None
    end_low: PyTree = None
    flags: PyTree = None  # what happened, where there are events
    code: Int[Array, ""] | None = (
        None  # of a draw whose length is one of a few: its end follows from that
    )


def with_held(data: Data, held: Held) -> Data:
    """The data with what is held now in place."""
    return replace(data, held=held) if jax.tree.leaves(held) else data


def time_direction(integrator: Integrator, data: Data) -> Array | int:
    """1 or −1, the direction of time in the problem: a number where it is known."""
    return data.sign if integrator.direction is None else integrator.direction

"""Layer 3: what happens during a solve: where, and what becomes of the state."""

from .event import AbstractEvent, AfterStep, Event, Periodic, PresetTimes, doses
from .handling import Events
from .jump_process import JumpProcess
from .lowered import lower_events
from .no_events import NO_EVENTS, NoEvents
from .step_end import Reinitialization, StepEnd

__all__ = [
    "NO_EVENTS",
    "AbstractEvent",
    "AfterStep",
    "Event",
    "Events",
    "JumpProcess",
    "NoEvents",
    "Periodic",
    "PresetTimes",
    "Reinitialization",
    "StepEnd",
    "doses",
    "lower_events",
]

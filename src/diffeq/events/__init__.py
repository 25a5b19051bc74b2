"""Layer 3: events during a solve: when they happen, and how they change the state."""

from .event import AbstractEvent, AfterStep, Event, Periodic, PresetTimes, doses
from .handling import Events
from .jump_process import JumpProcess
from .lowered import lower_events
from .step_end import Reinitialization, StepEnd, StepPlan, StepTruncation

__all__ = [
    "AbstractEvent",
    "AfterStep",
    "Event",
    "Events",
    "JumpProcess",
    "Periodic",
    "PresetTimes",
    "Reinitialization",
    "StepEnd",
    "StepPlan",
    "StepTruncation",
    "doses",
    "lower_events",
]

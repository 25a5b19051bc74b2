"""Layer 3: what happens during a solve: where, and what becomes of the state."""

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

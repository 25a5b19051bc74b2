"""Layer 3: what happens during a solve: where, and what becomes of the state."""

from .event import AfterStep, Event, Happening, Periodic, PresetTimes, doses
from .handling import Events
from .jump_process import Arrivals
from .lowered import lowered
from .no_events import NO_EVENTS, NoEvents
from .step_end import Anew, Ending

__all__ = [
    "NO_EVENTS",
    "AfterStep",
    "Anew",
    "Arrivals",
    "Ending",
    "Event",
    "Events",
    "Happening",
    "NoEvents",
    "Periodic",
    "PresetTimes",
    "doses",
    "lowered",
]

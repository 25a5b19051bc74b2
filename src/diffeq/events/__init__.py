"""Layer 3: what happens during a solve: where, and what becomes of the state."""

from .arrivals import Arrivals
from .ending import Anew, Ending
from .event import AfterStep, Event, Happening, Periodic, PresetTimes, doses
from .jump import Events
from .none import NO_EVENTS, NoEvents
from .part import lowered

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

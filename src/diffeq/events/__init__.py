"""Layer 3: what happens during a solve: where, and what becomes of the state."""

from .event import AfterStep, Event, Happening, Periodic, PresetTimes, doses
from .jump import NO_EVENTS, Anew, Ending, Events, NoEvents
from .part import lowered

__all__ = [
    "NO_EVENTS",
    "AfterStep",
    "Anew",
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

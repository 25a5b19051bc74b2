"""Layer 4: the loop, for every kind of equation; what an attempt is, and how it is made again."""

from .init import Start, begin, failing, prepared
from .loop import MOST_LAPS, integrate, opened, settled, taking_turns, told
from .replay import replay
from .restart import started
from .saving import blank, interpolated, written
from .state import Attempt, Data, Decision, State, System, beside
from .step import attempt, compensated
from .stops import Stops, left_of, passed, right_of

__all__ = [
    "MOST_LAPS",
    "Attempt",
    "Data",
    "Decision",
    "Start",
    "State",
    "Stops",
    "System",
    "attempt",
    "begin",
    "beside",
    "blank",
    "compensated",
    "failing",
    "integrate",
    "interpolated",
    "left_of",
    "opened",
    "passed",
    "prepared",
    "replay",
    "right_of",
    "settled",
    "started",
    "taking_turns",
    "told",
    "written",
]

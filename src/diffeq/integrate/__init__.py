"""Layer 4: the loop, for every kind of equation; what an attempt is, and how it is made again."""

from .attempt import attempt, compensated
from .landing import started
from .loop import MOST_LAPS, integrate, opened, settled, taking_turns, told
from .replay import replay
from .rows import blank, interpolated, written
from .start import Start, begin, failing, prepared
from .stops import Stops, left_of, passed, right_of
from .system import Attempt, Data, Decision, State, System, beside

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

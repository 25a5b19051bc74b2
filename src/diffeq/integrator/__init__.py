"""Layer 4: the loop, for every kind of equation; what an attempt is, and how it is made again."""

from .init import Start, initial_state, is_over, mark_failed, with_presampled_noise
from .loop import (
    MOST_LAPS,
    alternate_methods,
    empty_history,
    integrate,
    lane_status,
    rewind_failed_clock,
)
from .replay import SafePoint, replay
from .restart import restart, right_limit_form
from .saving import blank_buffers, step_interpolant, written
from .state import DRAWN_OR_FOUND, Attempt, Data, Decision, Integrator, State, with_held
from .step import attempt, is_sound
from .stops import Stops, count_passed, left_of, right_of
from .take_step import is_compensated
from .tape_row import STOP_BIT, TapeRow, state_of_row, tape_row_of

__all__ = [
    "DRAWN_OR_FOUND",
    "MOST_LAPS",
    "STOP_BIT",
    "Attempt",
    "Data",
    "Decision",
    "Integrator",
    "SafePoint",
    "Start",
    "State",
    "Stops",
    "TapeRow",
    "alternate_methods",
    "attempt",
    "blank_buffers",
    "count_passed",
    "empty_history",
    "initial_state",
    "integrate",
    "is_compensated",
    "is_over",
    "is_sound",
    "lane_status",
    "left_of",
    "mark_failed",
    "replay",
    "restart",
    "rewind_failed_clock",
    "right_limit_form",
    "right_of",
    "state_of_row",
    "step_interpolant",
    "tape_row_of",
    "with_held",
    "with_presampled_noise",
    "written",
]

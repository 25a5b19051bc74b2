"""Checks of a call before anything is traced, and what is left out of it."""

from ..core.keywords import keywords
from .call import check_adjoint, checked_call, checked_problem, checked_rest
from .defaults import explicit_for
from .options import SolveOptions
from .problem_checks import check_no_torch
from .step_checks import stops_of
from .values import concrete, is_real

__all__ = [
    "SolveOptions",
    "check_adjoint",
    "check_no_torch",
    "checked_call",
    "checked_problem",
    "checked_rest",
    "concrete",
    "explicit_for",
    "is_real",
    "keywords",
    "stops_of",
]

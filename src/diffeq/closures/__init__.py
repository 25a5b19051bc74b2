"""A user's functions as programs: what they close over, what they read, what they write."""

from .bounds_check import check_indices
from .captured import Captured, CapturedProgram, captured
from .purity import no_writes, parts_of
from .reading import reading_of
from .structure import (
    Static,
    code_of,
    flatten,
    flatten_fields,
    is_numeric,
    unflatten,
    unflatten_fields,
)

__all__ = [
    "Captured",
    "CapturedProgram",
    "Static",
    "captured",
    "check_indices",
    "code_of",
    "flatten",
    "flatten_fields",
    "is_numeric",
    "no_writes",
    "parts_of",
    "reading_of",
    "unflatten",
    "unflatten_fields",
]

"""A user's functions as programs: what they close over, what they read, what they write."""

from .bounds_check import check_indices
from .captured import Captured, Program, captured
from .purity import no_writes, parts_of
from .reading import reading_of
from .structure import (
    Static,
    code_of,
    flatten,
    flatten_fields,
    is_number,
    unflatten,
    unflatten_fields,
)

__all__ = [
    "Captured",
    "Program",
    "Static",
    "captured",
    "check_indices",
    "code_of",
    "flatten",
    "flatten_fields",
    "is_number",
    "no_writes",
    "parts_of",
    "reading_of",
    "unflatten",
    "unflatten_fields",
]

"""Warnings, which show the user's line and no file of those `INSIDE`; and what is logged once."""

import contextlib
import logging
from functools import cache
from pathlib import Path

import jax

__all__ = ["INSIDE", "log_once"]

INSIDE = (
    *(str(Path(p).parent) for p in (jax.__file__, Path(__file__).parent)),
    str(Path(contextlib.__file__).with_suffix("")),  # of a context that is entered as a decorator
)


@cache
def log_once(sentence: str) -> None:
    """Logs a sentence as a warning of the logger "diffeq", the first time that it comes."""
    logging.getLogger("diffeq").warning(sentence)

"""Whole numbers that are known before tracing: sizes and counts."""

import operator
from typing import Any

__all__ = ["as_whole", "whole_number"]


def as_whole(x: Any) -> int | None:
    """A whole number of Python, NumPy or JAX as an `int`; None of all else, also of a bool.

    >>> as_whole(3), as_whole(3.0), as_whole(True)
    (3, None, None)
    """
    if isinstance(x, bool):
        return None
    try:
        return operator.index(x)
    except TypeError:  # also of a number that is being traced
        return None


def whole_number(name: str, x: Any, *, least: int = 1) -> int:
    """The argument as an `int`; what is no whole number, or less than `least`, is refused.

    >>> whole_number("width", 2.5)
    Traceback (most recent call last):
    TypeError: width is 2.5; a positive whole number is wanted.
    """
    whole = as_whole(x)
    if whole is None or whole < least:
        wanted = "positive whole number" if least == 1 else f"whole number from {least} on"
        raise TypeError(f"{name} is {x!r}; a {wanted} is wanted.")
    return whole

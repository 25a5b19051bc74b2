"""The files that no warning is about: it shows the user's line."""

import contextlib
from pathlib import Path

import jax

__all__ = ["INSIDE"]

INSIDE = (
    *(str(Path(p).parent) for p in (jax.__file__, Path(__file__).parent)),
    str(Path(contextlib.__file__).with_suffix("")),  # of a context that is entered as a decorator
)

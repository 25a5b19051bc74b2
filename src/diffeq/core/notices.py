"""Where a warning is not about: it shows the user's line."""

from pathlib import Path

import jax

__all__ = ["INSIDE"]

INSIDE = tuple(str(Path(p).parent) for p in (jax.__file__, Path(__file__).parent))

"""Pictures beyond `sol.plot()`. matplotlib is imported when one is drawn."""

from .heat import heat

__all__ = ["heat"]

"""Pictures beyond `sol.plot()`. matplotlib is imported when one is drawn."""

from .heat import heat
from .style import style

__all__ = ["heat", "style"]

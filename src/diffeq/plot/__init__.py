"""Layer 7: pictures. matplotlib is imported when one is drawn."""

from .solution import plot_solution

__all__ = ["plot_solution"]

"""Many solves of one problem."""

from .ensemble import solve_ensemble

__all__ = ["solve_ensemble"]

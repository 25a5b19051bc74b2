"""Layer 5: a derivative for the loop. Nothing below knows that solves are differentiated."""

from .discrete import Discrete

__all__ = ["Discrete"]

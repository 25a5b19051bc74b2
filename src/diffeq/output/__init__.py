"""Layer 3: what is kept of a solution: rows at given times, every step, or the dense polynomial."""

from .channel import Channel, Cursor, Output, Piece, Times

__all__ = ["Channel", "Cursor", "Output", "Piece", "Times"]

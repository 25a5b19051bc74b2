"""Tables by class, in which a subclass has the entry of its base class."""

from collections.abc import Mapping

__all__ = ["entry_for"]


def entry_for[V](table: Mapping[type, V], kind: type) -> V | None:
    """The entry of a class, or of its nearest base class that has one.

    >>> entry_for({int: "whole", object: "any"}, bool)
    'whole'
    """
    return next((table[base] for base in kind.__mro__ if base in table), None)

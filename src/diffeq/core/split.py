"""`split_by_sizes`: a list cut into consecutive pieces."""

from collections.abc import Sequence

__all__ = ["Sizes", "split_by_sizes"]

type Sizes = Sequence[int]
"""The lengths of consecutive pieces."""


def split_by_sizes[T](xs: Sequence[T], sizes: Sizes) -> list[list[T]]:
    """Consecutive pieces of `xs`, with lengths `sizes`.

    >>> split_by_sizes("abcd", [1, 0, 3])
    [['a'], [], ['b', 'c', 'd']]
    """
    pieces, start = [], 0
    for size in sizes:
        pieces.append(list(xs[start : start + size]))
        start += size
    return pieces
